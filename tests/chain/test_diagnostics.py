"""Calibration, learning curve, importance and the public table, on hand-made and small data."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from taxi_duration.chain.candidates import train_candidate
from taxi_duration.chain.diagnostics import (
    bin_contents,
    boosting_curve,
    bundle_files,
    calibration_table,
    compare_with_public,
    importance,
    learning_curve,
    public_results,
    residuals,
    ride_features,
)
from taxi_duration.chain.run import open_run
from taxi_duration.data.prepared import PreparedMonth
from taxi_duration.data.sample import make_sample_month
from taxi_duration.model.features import DISTANCE_FEATURES, FEATURES


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    """A run on a small sample, with a fitted RIDGE."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TAXI_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("DATA", "sample")
        patch.setenv("SAMPLE_ROWS", "3000")
        run = open_run(
            "runs/test", TRAIN_DATA="2022-05", VAL_DATA="2022-06", MODEL="RIDGE", SERVICE="green"
        )
        yield run, train_candidate(run, "RIDGE")


def errors(rows: int = 100) -> pd.DataFrame:
    """Answers of 1 to 100 minutes, all inside, but the 10 longest above and 10 below."""
    predicted = np.arange(1.0, rows + 1)
    actual = predicted.copy()
    actual[-10:] += 50
    actual[:10] -= 50
    return pd.DataFrame(
        {"predicted": predicted, "duration": actual, "p10": predicted - 1, "p90": predicted + 1}
    )


def test_calibration_has_a_row_per_tenth_of_the_trips():
    table = calibration_table(errors())
    assert table["predicted"].tolist() == [5.5 + 10 * k for k in range(10)]


def test_calibration_tells_trips_below_inside_and_above():
    table = calibration_table(errors())
    assert table["below"].tolist() == [1] + [0] * 9
    assert table["above"].tolist() == [0] * 9 + [1]
    assert table["inside"].tolist() == [0] + [1] * 8 + [0]


def test_calibration_splits_equal_answers_into_tenths_too():
    same = errors().assign(predicted=12.0)
    assert len(calibration_table(same)) == 10


def test_residuals_are_predicted_minus_actual(small_run):
    run, candidate = small_run
    table = residuals(candidate, run)
    assert len(table) == sum(month.accounting.rows_kept for month in run.val_months)
    expected = table["predicted"] - table["duration"]
    np.testing.assert_allclose(table["error"], expected, atol=1e-5)


def test_learning_curve_counts_no_stray_date_as_a_day(small_run, monkeypatch):
    run, candidate = small_run
    as_prepared = PreparedMonth.trips

    def with_stray_dates(self):
        trips = as_prepared(self)
        trips.loc[trips.index[:2], "pickup_at"] = pd.to_datetime(["2009-01-01", "2022-06-01"])
        return trips

    monkeypatch.setattr(PreparedMonth, "trips", with_stray_dates)
    curve = learning_curve(candidate, run, parts=(4, 2))
    assert curve["days"].tolist() == [7, 15, 31]  # May


@pytest.mark.parametrize("kind", ["LR", "LASSO", "RIDGE"])
def test_linear_model_sees_the_columns_of_a_dict_vectorizer(trips, kind):
    ride = trips.iloc[[5]].assign(PULocationID=74, DOLocationID=42, trip_distance=3.5)
    table = ride_features(kind, trips, ride)
    assert table["distance given"].to_dict() == {"PU_DO=74_42": 1.0, "trip_distance": 3.5}
    pair = trips[(trips["PULocationID"] == 74) & (trips["DOLocationID"] == 42)]
    mean = pair["trip_distance"].astype("float64").mean()
    assert table.loc["trip_distance", "no distance"] == pytest.approx(mean)


@pytest.mark.parametrize("kind", ["RF", "XGB"])
def test_trees_see_every_feature_by_name_and_none_of_the_distance_without_it(trips, kind):
    ride = trips.iloc[[5]].assign(pickup_at=pd.Timestamp("2021-01-06 08:30"), trip_distance=3.5)
    table = ride_features(kind, trips, ride)
    assert list(table.index) == list(DISTANCE_FEATURES)
    assert table.loc["minutes_from_10"].tolist() == [90] * 2
    assert table.loc["distance_miles", "distance given"] == 3.5
    assert table.loc[list(DISTANCE_FEATURES[len(FEATURES) :]), "no distance"].isna().all()


def test_every_part_of_the_bin_is_listed_with_its_size(small_run):
    _, candidate = small_run
    table = bin_contents(candidate.model)
    assert table["bytes"].is_monotonic_decreasing
    assert table.loc["pair_trips", "holds"] == "266 x 266"
    assert table.loc["pair_trips", "bytes"] == candidate.model.pair_trips.nbytes
    assert table.loc["kind", "holds"] == "RIDGE"
    saved = bundle_files(candidate.folder)
    assert set(saved.index) == {"model.bin", "card.json"}
    assert table["bytes"].sum() == pytest.approx(saved.loc["model.bin", "bytes"], rel=0.1)
    assert saved.loc["model.bin", "sha256"] == candidate.card["model_sha256"]


def fhv_months(folder, months):
    """The sample's trips as FHV files have them."""
    folder.mkdir()
    names = {"lpep_pickup_datetime": "pickup_datetime", "lpep_dropoff_datetime": "dropOff_datetime",
             "PULocationID": "PUlocationID", "DOLocationID": "DOlocationID"}  # fmt: skip
    for month in months:
        trips = make_sample_month("green", month, 3000).select([*names])
        pq.write_table(
            trips.rename_columns([*names.values()]), folder / f"fhv_tripdata_{month}.parquet"
        )
    return folder


@pytest.mark.parametrize(
    ("service", "own"), [("green", "with_distance"), ("fhv", "without_distance")]
)
def test_boosting_curve_doubles_the_rows_that_the_candidate_learned_from(
    tmp_path, monkeypatch, quick_trees, service, own
):
    """Also of a service whose months have no distances."""
    if service == "fhv":
        monkeypatch.setenv("TLC_URL", str(fhv_months(tmp_path / "source", ["2022-05", "2022-06"])))
    monkeypatch.setenv("DATA", "tlc" if service == "fhv" else "sample")
    monkeypatch.setenv("SAMPLE_ROWS", "3000")
    monkeypatch.setenv("BOOST_ROWS", "2000")
    months = {"TRAIN_DATA": "2022-05", "VAL_DATA": "2022-06"}
    run = open_run("runs/curve", **months, MODEL="XGB", SERVICE=service)
    candidate = train_candidate(run, "XGB")
    assert candidate.card["parameters"]["rows_trees"] == 2000
    curve = boosting_curve(candidate, run)
    assert curve["rows"].tolist() == [250, 500, 1000, 2000]
    own = candidate.metrics[own]["rmse"]
    assert curve["rmse"].iloc[0] > curve["rmse"].iloc[-1] > 0.8 * own
    assert curve["rmse"].iloc[-1] == pytest.approx(own, rel=0.1)


def test_a_model_that_is_not_boosted_has_no_boosting_curve(small_run):
    run, candidate = small_run
    assert boosting_curve(candidate, run) is None


@pytest.mark.slow
def test_learning_curve_ends_with_the_candidate_itself(small_run):
    run, candidate = small_run
    curve = learning_curve(candidate, run, parts=(4, 2))
    assert curve["trips"].is_monotonic_increasing
    assert curve["rmse"].iloc[-1] == candidate.metrics["with_distance"]["rmse"]
    assert curve["rmse"].iloc[0] > curve["rmse"].iloc[-1]


def test_importance_gives_minutes_by_reason_largest_first(small_run):
    run, candidate = small_run
    table = importance(candidate, run, rides=50)
    assert table["distance given"].is_monotonic_decreasing
    assert table.loc["route (from and to)", "no distance"] > 0
    assert "usual trip in the city" not in table.index


def test_public_results_are_compared_on_their_own_months_only(small_run):
    run, candidate = small_run
    assert compare_with_public(candidate, run) is None


def test_public_results_hold_the_courses_figure():
    models = public_results().set_index("model")
    assert models.loc["linear regression, PU_DO one-hot + distance", "rmse"] == 7.759
