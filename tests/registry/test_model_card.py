"""Model cards as Hugging Face reads them."""

from __future__ import annotations

import re

import cards
import pytest
import yaml

import pipeline
from taxi_duration.registry.model_card import as_model_card

# Hugging Face's own rules: https://huggingface.co/docs/hub/model-cards, /hub/api's model-index.
HEADER = re.compile(r"\A---[ \t]*\n(.*?)\n---[ \t]*\n", re.DOTALL)
TASKS = {"tabular-regression", "tabular-classification"}


def card(**changes):
    whole = cards.make_card("XGB", **changes)
    whole["metrics"]["with_distance"]["segments"] = {
        "airport": {"rows": 209, "rmse": 4.4, "mae": 3.25, "coverage": 0.75}
    }
    return whole


def header_of(text):
    """The YAML header; a break of the format's rules is an error."""
    header = yaml.safe_load(HEADER.match(text)[1])
    assert isinstance(header["license"], str)
    assert re.fullmatch(r"[a-z0-9._-]+", header["license"])
    assert header["pipeline_tag"] in TASKS
    assert all(isinstance(tag, str) for tag in header["tags"])
    for model in header["model-index"]:
        assert model["results"]
        for result in model["results"]:
            assert result["task"]["type"] == header["pipeline_tag"]
            assert result["dataset"]["name"]
            assert re.fullmatch(r"[\w./-]+", result["dataset"]["type"])
            for metric in result["metrics"]:
                assert isinstance(metric["type"], str)
                assert isinstance(metric["value"], float)
    return header


def test_header_tells_the_results_of_both_questions():
    found = card()
    found["metrics"]["without_distance"].pop("rmse")
    (model,) = header_of(as_model_card(found))["model-index"]
    assert model["name"] == "green-duration:1"
    told = {
        result["dataset"]["args"]["asked"]: {m["type"]: m["value"] for m in result["metrics"]}
        for result in model["results"]
    }
    assert told == {
        "distance given": {"rmse": 5.0, "mae": 3.2, "coverage": 0.8},
        "no distance": {"mae": 4.0, "coverage": 0.8},
    }


def test_text_names_months_digests_segments_and_what_it_is_not_for():
    text = as_model_card(card(model_sha256="ab" * 32))
    assert f"`{'ab' * 32}`" in text
    assert (
        "| train | 2021-01 | green_tripdata_2021-01.parquet | 1000 | 900 | too_short 100 |" in text
    )
    assert "| airport | 209 | 3.250 | 0.750 |" in text
    assert 'load_model("models:/green-duration/1")' in text
    assert "Not meant for" in text


@pytest.mark.parametrize(("source", "is_said"), [("sample", True), ("tlc", False)])
def test_generated_trips_are_never_passed_off_as_real_ones(source, is_said):
    text = as_model_card(card(data_source=source))
    assert ("generated trips" in text) == is_said
    assert ("synthetic-data" in header_of(text)["tags"]) == is_said


def test_folders_of_the_training_machine_are_not_told():
    found = card()
    found["months"]["train"][0]["url"] = "/home/ann/months/green.parquet"
    assert "/home/ann" not in as_model_card(found)


@pytest.mark.slow
def test_command_writes_the_card_of_a_registered_version(moved_home, tmp_path, capsys):
    out = tmp_path / "README.md"
    pipeline.cli.main(["model-card", "green-duration:1", "--out", str(out)], standalone_mode=False)
    pipeline.cli.main(["model-card", "green-duration:champion"], standalone_mode=False)
    assert out.read_text() == capsys.readouterr().out
    assert header_of(out.read_text())["model-index"][0]["name"] == "green-duration:1"
