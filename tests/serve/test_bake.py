"""Which model gets into the image while it is built."""

from __future__ import annotations

import pytest

from serve.bake import bake
from taxi_duration.errors import BundleError, NotFoundError, SettingError
from taxi_duration.live.deployment import deploy_champion
from taxi_duration.model.bundle import load_bundle


@pytest.fixture
def context(home, registered):
    """A build context with two versions, the second of which serves."""
    deploy_champion(registered[2], "better")
    return home


def baked(target) -> list[str]:
    return [f"{path.parent.parent.name}:{path.parent.name}" for path in target.rglob("model.bin")]


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("champion", ["green-duration:2"]),
        ("green-duration:1", ["green-duration:1"]),
        ("none", []),
    ],
)
def test_the_chosen_model_is_baked_in(context, tmp_path, model, expected):
    bake(model, context, tmp_path / "baked")
    assert baked(tmp_path / "baked") == expected


def test_what_is_baked_in_can_be_loaded(context, tmp_path, registered):
    bake("champion", context, tmp_path / "baked")
    _, card = load_bundle(tmp_path / "baked" / "green-duration" / "2")
    assert card["model_sha256"] == registered[2].sha256


def test_without_a_deployment_the_image_is_made_without_a_model(tmp_path):
    assert "mount one" in bake("champion", tmp_path, tmp_path / "baked")
    assert baked(tmp_path / "baked") == []


@pytest.mark.parametrize(
    ("model", "error"),
    [
        ("green-duration:9", NotFoundError),
        ("green-duration:latest", SettingError),
        ("a b", SettingError),
    ],
)
def test_a_model_that_is_not_there_stops_the_build(context, tmp_path, model, error):
    with pytest.raises(error):
        bake(model, context, tmp_path / "baked")


def test_a_damaged_model_stops_the_build(context, tmp_path):
    path = context / "models" / "green-duration" / "2" / "model.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BundleError):
        bake("champion", context, tmp_path / "baked")
