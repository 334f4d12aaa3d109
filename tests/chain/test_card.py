from __future__ import annotations

import platform
from datetime import datetime
from importlib.metadata import version

import pytest

from taxi_duration.files import read_json, sha256_file
from taxi_duration.model.bundle import load_bundle, load_card
from taxi_duration.model.made_with import DECIDING

# What the contract of the bundle promises, and nothing may quietly drop.
FIELDS = (
    "name", "version", "created", "model_kind", "service", "input_schema", "output", "train_data",
    "val_data", "data_source", "months", "metrics", "predictions_sha256", "parameters",
    "fit_seconds", "libraries", "git_commit", "run_id", "model_sha256",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(chained):
    """The bundle that the chain registered."""
    return chained / "models" / "green-duration" / "1"


@pytest.fixture(scope="module")
def card(folder):
    return load_card(folder)


@pytest.mark.parametrize("field", FIELDS)
def test_card_of_a_registered_model_has_the_field(card, field):
    assert card[field] not in (None, "", {}, [])


def test_card_names_model_service_months_and_where_they_come_from(card):
    assert (card["name"], str(card["version"])) == ("green-duration", "1")
    assert (card["model_kind"], card["service"]) == ("LR", "green")
    assert (card["train_data"], card["val_data"]) == ("2021-01", "2021-02")
    assert card["data_source"] == "sample"


def test_card_was_made_at_an_utc_time(card):
    assert datetime.fromisoformat(card["created"]).utcoffset().total_seconds() == 0


@pytest.mark.parametrize("field", ["PULocationID", "DOLocationID", "trip_distance",
                                   "pickup_datetime"])  # fmt: skip
def test_card_tells_type_need_and_unit_of_each_input(card, field):
    described = card["input_schema"][field]
    assert described["required"] is field.endswith("LocationID")
    assert described["type"] and described["unit"]


@pytest.mark.parametrize("part", ["train", "validation"])
def test_card_names_file_digest_and_row_counts_of_each_month(card, chained, part):
    (month,) = card["months"][part]
    (file,) = chained.rglob(f"sample/**/{month['file']}")
    assert month["sha256"] == sha256_file(file)
    assert 0 < month["rows_kept"] < month["rows_read"]
    assert month["reasons"]["too_short"] > 0


@pytest.mark.parametrize("part", ["with_distance", "without_distance"])
def test_card_tells_errors_and_coverage_overall_and_by_segment(card, part):
    metrics = card["metrics"][part]
    for scores in (metrics, *metrics["segments"].values()):
        assert scores["rmse"] >= scores["mae"] > 0
        assert 0 <= scores["coverage"] <= 1
        assert 0 < scores["rows"] <= metrics["rows"]
    assert {"airport", "manhattan_internal", "outer_to_outer"} <= set(metrics["segments"])


def test_card_holds_the_digest_of_its_model(card, folder):
    assert card["model_sha256"] == sha256_file(folder / "model.bin")


def test_card_names_the_versions_it_was_made_with(card):
    assert card["libraries"]["python"] == platform.python_version()
    assert card["libraries"]["numpy"] == version("numpy")
    assert set(DECIDING) <= set(card["libraries"])
    assert "openblas" in card["libraries"]["blas"]


def test_card_belongs_to_its_run(card, chained):
    run = read_json(chained / "runs" / card["run_id"] / "run.json")
    assert run["model"]["version"] == card["version"]


def test_card_and_model_name_the_same_parameters(card, folder):
    model, _ = load_bundle(folder)
    assert card["parameters"] == model.parameters
