from __future__ import annotations

import hashlib
import os
import pickle
from dataclasses import replace
from datetime import datetime

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taxi_duration.domain.rides import Rides
from taxi_duration.errors import BundleError
from taxi_duration.files import read_json, write_json
from taxi_duration.model import bundle
from taxi_duration.model.bundle import (
    CARD_FILE,
    MODEL_FILE,
    load_bundle,
    load_card,
    save_bundle,
    write_card,
)
from taxi_duration.model.ride_predictor import RidePredictor
from taxi_duration.training.kinds import KINDS

KEY = b"a key of ours"


class Payload:
    """A pickle that would run a command when it is loaded."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def write_raw_bundle(folder, content: bytes) -> None:
    """A bundle as a forger would write it: any bytes, with the right digest."""
    (folder / MODEL_FILE).write_bytes(content)
    write_json(folder / CARD_FILE, {"model_sha256": hashlib.sha256(content).hexdigest()})


@pytest.fixture(scope="module")
def saved(fitted, tmp_path_factory):
    """A folder with an unsigned bundle of a linear model; not to be changed."""
    folder = tmp_path_factory.mktemp("saved")
    save_bundle(folder, fitted("LR"), {"name": "green-duration", "version": 1}, key=None)
    return folder


@pytest.fixture
def copied(saved, tmp_path):
    """A copy of the bundle, free to change."""
    for name in (MODEL_FILE, CARD_FILE):
        (tmp_path / name).write_bytes((saved / name).read_bytes())
    return tmp_path


@pytest.fixture
def never_unpickle(monkeypatch):
    """Fails the test when anything is unpickled."""

    def refuse(content):
        raise AssertionError("unpickled before the checks were done")

    monkeypatch.setattr(bundle, "_unpickle", refuse)


@pytest.mark.parametrize("kind", KINDS)
def test_loaded_model_answers_as_the_saved_one(fitted, sample_months, tmp_path, kind):
    model, rides = fitted(kind), Rides.from_frame(sample_months[1])
    card = save_bundle(tmp_path, model, {"name": "green-duration"}, KEY)
    loaded, loaded_card = load_bundle(tmp_path, KEY)
    assert loaded_card == card
    before, after = model.answer(rides), loaded.answer(rides)
    for name in before.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_bit_flipped_anywhere_is_refused_before_unpickling(saved, tmp_path, place, bit):
    content = bytearray((saved / MODEL_FILE).read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    (tmp_path / MODEL_FILE).write_bytes(content)
    (tmp_path / CARD_FILE).write_bytes((saved / CARD_FILE).read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bundle, "_unpickle", lambda content: pytest.fail("was unpickled"))
        with pytest.raises(BundleError, match=r"SHA-256 \w{12}….* damaged or exchanged"):
            load_bundle(tmp_path)


@pytest.mark.parametrize("size", [0, 1, 1000, -1])
def test_truncated_model_is_refused(copied, never_unpickle, size):
    path = copied / MODEL_FILE
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(BundleError, match="damaged or exchanged"):
        load_bundle(copied)


def test_model_of_another_version_is_refused(copied, fitted, never_unpickle):
    (copied / MODEL_FILE).write_bytes(pickle.dumps(fitted("RIDGE")))
    with pytest.raises(BundleError, match="damaged or exchanged"):
        load_bundle(copied)


def test_payload_with_a_right_digest_is_refused_and_never_runs(tmp_path):
    mark = tmp_path / "it ran"
    write_raw_bundle(tmp_path, pickle.dumps(Payload(f"touch '{mark}'")))
    with pytest.raises(BundleError, match=r"(posix|nt)\.system, which is not allowed"):
        load_bundle(tmp_path)
    assert not mark.exists()


@pytest.mark.parametrize(
    "value", [print, eval, datetime(2021, 1, 1), np.random.default_rng(0), RidePredictor]
)
def test_class_that_is_not_listed_is_refused(tmp_path, value):
    write_raw_bundle(tmp_path, pickle.dumps({"model": value}))
    with pytest.raises(BundleError, match="which is not allowed"):
        load_bundle(tmp_path)


def test_array_of_objects_cannot_smuggle_a_payload(tmp_path):
    mark = tmp_path / "it ran"
    content = pickle.dumps(np.array([Payload(f"touch '{mark}'")], dtype=object))
    write_raw_bundle(tmp_path, content)
    with pytest.raises(BundleError, match="not allowed"):
        load_bundle(tmp_path)
    assert not mark.exists()


def test_every_listed_class_exists():
    for module, name in bundle.ALLOWED_CLASSES:
        assert hasattr(__import__(module, fromlist=[name]), name), f"{module}.{name}"


@pytest.mark.parametrize("content", [b"", b"not a pickle", pickle.dumps([1, 2])[:-3]])
def test_bytes_that_are_no_pickle_are_refused(tmp_path, content):
    write_raw_bundle(tmp_path, content)
    with pytest.raises(BundleError, match="cannot be unpickled"):
        load_bundle(tmp_path)


def test_pickle_that_is_no_model_is_refused(tmp_path):
    write_raw_bundle(tmp_path, pickle.dumps({"weights": [1.0, 2.0]}))
    with pytest.raises(BundleError, match="holds a dict, not a DurationModel"):
        load_bundle(tmp_path)


def test_model_fitted_on_features_that_are_gone_is_refused(fitted, tmp_path):
    other = replace(fitted("XGB"), features=("tide", *fitted("XGB").features[1:]))
    write_raw_bundle(tmp_path, pickle.dumps(other))
    with pytest.raises(BundleError, match="missing here tide, new here minute_of_day"):
        load_bundle(tmp_path)


def test_trees_that_ask_for_a_feature_beyond_the_last_are_refused(fitted, tmp_path):
    model = fitted("XGB")
    nodes = model.point.without_distance.nodes.copy()
    nodes["feature"][np.argmax(nodes["left"] >= 0)] = 999
    point = replace(
        model.point, without_distance=replace(model.point.without_distance, nodes=nodes)
    )
    write_raw_bundle(tmp_path, pickle.dumps(replace(model, point=point)))
    with pytest.raises(BundleError, match="trees ask for feature 999"):
        load_bundle(tmp_path)


def test_model_without_a_part_is_refused(fitted, tmp_path):
    model = replace(fitted("LR"))
    del model.__dict__["with_distance"]
    write_raw_bundle(tmp_path, pickle.dumps(model))
    with pytest.raises(BundleError, match=r"does not fit this version: .*'with_distance'"):
        load_bundle(tmp_path)


def test_model_that_answers_nan_is_refused(fitted, tmp_path):
    broken = replace(fitted("LR"), point=replace(fitted("LR").point, intercept=float("nan")))
    write_raw_bundle(tmp_path, pickle.dumps(broken))
    with pytest.raises(BundleError, match="does not answer with minutes"):
        load_bundle(tmp_path)


def test_model_that_could_not_be_loaded_again_is_not_saved(tmp_path):
    with pytest.raises(BundleError, match="not allowed"):
        save_bundle(tmp_path / "new", np.random.default_rng(0), {}, key=None)
    assert not (tmp_path / "new" / MODEL_FILE).exists()


def test_signed_bundle_loads_with_its_key_and_without_one(copied):
    write_card(copied, read_json(copied / CARD_FILE), KEY)
    assert load_card(copied, KEY) == load_card(copied)
    assert load_bundle(copied, KEY)[1]["name"] == "green-duration"


def test_unsigned_bundle_is_refused_when_there_is_a_key(copied, never_unpickle):
    with pytest.raises(BundleError, match=r"is not signed; MODEL_SIGNING_KEY asks for one"):
        load_bundle(copied, KEY)


def test_bundle_signed_with_another_key_is_refused(copied, never_unpickle):
    write_card(copied, read_json(copied / CARD_FILE), b"another key")
    with pytest.raises(BundleError, match="has a wrong signature"):
        load_bundle(copied, KEY)


@pytest.mark.parametrize("change", [{"version": 2}, {"model_sha256": "0" * 64}, {"extra": 1}])
def test_card_changed_after_signing_is_refused(copied, never_unpickle, change):
    card = write_card(copied, read_json(copied / CARD_FILE), KEY)
    write_json(copied / CARD_FILE, {**card, **change})
    with pytest.raises(BundleError, match="has a wrong signature"):
        load_bundle(copied, KEY)


def test_card_survives_being_written_and_read_when_signed(copied):
    card = {**read_json(copied / CARD_FILE), "created": datetime(2021, 3, 1), "share": 0.1}
    write_card(copied, card, KEY)
    assert load_card(copied, KEY)["share"] == 0.1


@pytest.mark.parametrize("card", [{"name": "green-duration"}, {"model_sha256": None}])
def test_card_without_a_digest_is_refused(copied, never_unpickle, card):
    write_json(copied / CARD_FILE, card)
    with pytest.raises(BundleError, match=r"card.json has no model_sha256"):
        load_bundle(copied)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "card.json cannot be read"),
        ("{", "card.json cannot be read"),
        ("\xff", "card.json cannot be read"),
        ("[]", "must hold an object"),
    ],
)
def test_card_that_is_no_object_is_refused(copied, content, message):
    (copied / CARD_FILE).write_bytes(content.encode("latin-1"))
    with pytest.raises(BundleError, match=message):
        load_bundle(copied)


@pytest.mark.parametrize("name", [MODEL_FILE, CARD_FILE])
def test_missing_file_is_named(copied, name):
    (copied / name).unlink()
    with pytest.raises(
        BundleError,
        match=rf"^{copied.parent.name}/{copied.name}/{name} cannot be read: No such file",
    ):
        load_bundle(copied)
