from __future__ import annotations

import json

import numpy as np
import pytest

from taxi_duration.data.window import Window
from taxi_duration.domain.months import parse_months
from taxi_duration.domain.rides import Rides
from taxi_duration.errors import SettingError
from taxi_duration.registry import tracking
from taxi_duration.training import tuning
from taxi_duration.training.boosting import xgb_settings
from taxi_duration.training.tuning import (
    Fold,
    score_settings,
    search,
    settings_of,
    time_folds,
    tune,
)


@pytest.fixture(scope="module")
def folds(sample_months) -> list[Fold]:
    trips = sample_months[0].head(2500)
    return time_folds(Window.from_frame(trips))


@pytest.fixture
def quick_search(monkeypatch):
    """Trials of a few rounds."""
    stored = {**xgb_settings(), "rounds": 150}
    monkeypatch.setattr(tuning, "xgb_settings", lambda: stored)
    learn = tuning.learn_booster

    def few(rows, duration, weight, parameters, seed, threads):
        return learn(rows, duration, weight, {**parameters, "rounds": 5}, seed, threads)

    monkeypatch.setattr(tuning, "learn_booster", few)


def test_days_ahead_come_after_all_days_of_the_past(sample_months):
    rides, duration = Rides.from_frame(sample_months[0]), sample_months[0]["duration"].to_numpy()
    day = rides.pickup_at.astype("datetime64[D]")
    days = np.unique(day)
    for fold, share in zip(time_folds(Window.of(rides, duration)), (0.5, 0.75), strict=True):
        past = day < days[int(len(days) * share)]
        np.testing.assert_array_equal(fold.past_minutes, duration[past])
        assert len(fold.past) == past.sum()


def test_changing_later_trips_changes_nothing_of_the_past(sample_months):
    rides, duration = Rides.from_frame(sample_months[0]), sample_months[0]["duration"].to_numpy()
    later = rides.pickup_at.astype("datetime64[D]") >= np.datetime64("2021-01-24")
    changed = np.where(later, 60.0, duration)
    before, after = (time_folds(Window.of(rides, minutes))[0] for minutes in (duration, changed))
    np.testing.assert_array_equal(before.past, after.past)
    np.testing.assert_array_equal(before.ahead, after.ahead)


def test_a_score_is_the_share_of_the_mean_s_error(folds):
    settings = {**xgb_settings(), "rounds": 100}
    assert 0.2 < score_settings(settings, folds) < 0.9


def test_months_without_distances_are_scored_without_them(sample_months):
    trips = sample_months[0].head(2500).assign(trip_distance=np.float32("nan"))
    settings = {**xgb_settings(), "rounds": 100}
    assert 0.2 < score_settings(settings, time_folds(Window.from_frame(trips))) < 1.0


def test_better_settings_score_lower(folds):
    good = {**xgb_settings(), "rounds": 100}
    bad = {**good, "rounds": 2}
    assert score_settings(good, folds) < score_settings(bad, folds)


def test_settings_whose_trees_are_too_large_to_serve_are_out(folds, monkeypatch):
    monkeypatch.setattr(tuning, "MAX_NODES", 10)
    assert score_settings({**xgb_settings(), "rounds": 20}, folds) == float("inf")


def test_a_point_becomes_settings_of_the_stored_form():
    settings = settings_of({"rounds": 200, "eta": 0.0512345678, "max_depth": 7})
    assert set(settings) == set(xgb_settings())
    assert settings["rounds"] == 200
    assert settings["parameters"]["eta"] == 0.05123
    assert settings["parameters"]["objective"] == "reg:squarederror"
    assert settings["long"] == xgb_settings()["long"]


def test_the_search_starts_from_the_stored_settings(folds, quick_search):
    study = search(folds, trials=1, minutes=1)
    assert study.trials[0].params["eta"] == xgb_settings()["parameters"]["eta"]
    assert study.trials[0].params["rounds"] == 150


@pytest.mark.slow
def test_a_study_is_kept_in_mlflow_and_its_best_settings_in_a_file(home, quick_search, tmp_path):
    out = tmp_path / "best.json"
    result = tune("green", parse_months("2021-01"), 3, 2.0, out)
    assert json.loads(out.read_text()) == result["settings"]
    assert result["score"] <= result["stored_score"]
    client = tracking.connect()
    run = client.search_runs([tracking.experiment_id(client)])[0]
    assert run.data.params["rounds"] == str(result["settings"]["rounds"])
    assert run.data.metrics["trials"] == 3
    assert {f.path for f in client.list_artifacts(run.info.run_id)} == {
        "trials.json",
        "xgb_settings.json",
    }


@pytest.mark.parametrize(("months", "trials", "minutes"), [("", 3, 1), ("2021-01", 0, 1),
                                                           ("2021-01", 3, 0)])  # fmt: skip
def test_a_study_of_nothing_is_refused(months, trials, minutes, tmp_path):
    with pytest.raises(SettingError, match="tuning needs"):
        tune("green", parse_months(months) if months else [], trials, minutes, tmp_path / "x")
