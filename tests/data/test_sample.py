"""The built-in sample: the same each time, in TLC's schema, as dirty and as hard as real months."""

import calendar
from collections.abc import Callable

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LinearRegression

from taxi_duration.data.sample import DEFAULT_ROWS, make_sample_month, write_sample_month

TIME_COLUMNS = {"green": "lpep_pickup_datetime", "yellow": "tpep_pickup_datetime"}


def read_trips(service: str, month: str, rows: int | None = None, seed: int = 0) -> pd.DataFrame:
    """A sample month with times as `pickup` and `dropoff`, and `minutes` between them."""
    trips = make_sample_month(service, month, rows, seed).to_pandas()
    prefix = TIME_COLUMNS[service][:4]
    trips = trips.rename(columns={f"{prefix}_{t}_datetime": t for t in ("pickup", "dropoff")})
    return trips.assign(minutes=(trips["dropoff"] - trips["pickup"]).dt.total_seconds() / 60)


@pytest.fixture(scope="module")
def january() -> pd.DataFrame:
    return read_trips("green", "2021-01")


@pytest.fixture(scope="module")
def yellow() -> pd.DataFrame:
    return read_trips("yellow", "2021-01", 20_000)


# --- The same each time


def test_same_arguments_write_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        write_sample_month(tmp_path / name, "green", "2021-01", rows=3_000, seed=7)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize(
    "other",
    [("green", "2021-01", 500, 1), ("green", "2021-02", 500, 0), ("yellow", "2021-01", 500, 0)],
    ids=["seed", "month", "service"],
)
def test_another_seed_month_or_service_gives_other_trips(other):
    first = make_sample_month("green", "2021-01", 500, 0)["trip_distance"]
    assert first != make_sample_month(*other)["trip_distance"]


def test_another_seed_draws_from_the_same_city(january):
    other = read_trips("green", "2021-01", seed=1)
    shares = [trips["PULocationID"].value_counts(normalize=True) for trips in (january, other)]
    assert (shares[0] - shares[1]).abs().max() < 0.01


# --- The schema

GREEN_2021 = (
    "VendorID:int64 lpep_pickup_datetime:timestamp[us] lpep_dropoff_datetime:timestamp[us] "
    "store_and_fwd_flag:string RatecodeID:double PULocationID:int64 DOLocationID:int64 "
    "passenger_count:double trip_distance:double fare_amount:double extra:double mta_tax:double "
    "tip_amount:double tolls_amount:double ehail_fee:null improvement_surcharge:double "
    "total_amount:double payment_type:double trip_type:double congestion_surcharge:double"
)
YELLOW_2021 = (
    "VendorID:int64 tpep_pickup_datetime:timestamp[us] tpep_dropoff_datetime:timestamp[us] "
    "passenger_count:double trip_distance:double RatecodeID:double store_and_fwd_flag:string "
    "PULocationID:int64 DOLocationID:int64 payment_type:int64 fare_amount:double extra:double "
    "mta_tax:double tip_amount:double tolls_amount:double improvement_surcharge:double "
    "total_amount:double congestion_surcharge:double airport_fee:double"
)


@pytest.mark.parametrize(("service", "expected"), [("green", GREEN_2021), ("yellow", YELLOW_2021)])
def test_columns_and_types_are_those_of_tlc(service, expected):
    schema = make_sample_month(service, "2021-01", 10).schema
    assert " ".join(f"{field.name}:{field.type}" for field in schema) == expected


@pytest.mark.parametrize(("month", "expected"), [("2023-01", "int64"), ("2023-02", "int32")])
def test_ids_turn_narrow_in_february_2023(month, expected):
    assert str(make_sample_month("green", month, 10).schema.field("PULocationID").type) == expected


def test_total_is_the_sum_of_what_was_charged(january):
    parts = ["fare_amount", "extra", "mta_tax", "tip_amount", "tolls_amount"]
    parts += ["improvement_surcharge", "congestion_surcharge"]
    charged = january[january["fare_amount"] > 0]
    assert np.allclose(charged[parts].sum(axis=1), charged["total_amount"])


# --- What is refused


@pytest.mark.parametrize(
    ("service", "month", "rows", "message"),
    [
        ("fhv", "2021-01", 10, "'fhv'; allowed: green, yellow"),
        ("fhvhv", "2021-01", 10, "'fhvhv'; allowed: green, yellow"),
        ("green", "2021-13", 10, "'2021-13' is not of the form YYYY-MM"),
        ("green", "Jan 2021", 10, "'Jan 2021' is not of the form YYYY-MM"),
        ("green", "2013-07", 10, "allowed: 2013-08 or later"),
        ("yellow", "2010-12", 10, "allowed: 2011-01 or later"),
        ("green", "2021-01", -1, "rows is -1; allowed: 0 or more"),
    ],
)
def test_what_cannot_be_made_is_refused_with_what_is_allowed(service, month, rows, message):
    with pytest.raises(ValueError, match=message):
        make_sample_month(service, month, rows)


# --- Any month, any size


@settings(max_examples=25, deadline=None)
@given(
    service=st.sampled_from(["green", "yellow"]),
    month=st.dates(min_value=pd.Timestamp("2013-08-01").date()).map("{:%Y-%m}".format),
    rows=st.integers(0, 3_000),
    seed=st.integers(0, 2**40),
)
def test_any_month_has_as_many_rows_as_asked_for(service, month, rows, seed):
    trips = make_sample_month(service, month, rows, seed)
    assert trips.num_rows == rows
    assert trips["PULocationID"].null_count == trips["trip_distance"].null_count == 0


@pytest.mark.parametrize("service", ["green", "yellow"])
def test_a_month_without_a_size_has_the_usual_one(service):
    assert make_sample_month(service, "2021-03").num_rows == DEFAULT_ROWS[service]


# --- The calendar


@pytest.mark.parametrize("month", ["2020-02", "2021-02", "2021-12"])
def test_pickups_cover_the_month_and_hardly_anything_else(month):
    pickup = read_trips("green", month, 20_000)["pickup"]
    inside = pickup.dt.strftime("%Y-%m") == month
    assert inside.mean() > 0.999
    assert pickup[inside].dt.day.nunique() == calendar.monthrange(*map(int, month.split("-")))[1]


def test_weekdays_have_a_morning_rush_and_weekends_have_none(january):
    weekend = january["pickup"].dt.day_of_week >= 5
    morning = january["pickup"].dt.hour.between(7, 9)
    assert morning[~weekend].mean() > 1.3 * morning[weekend].mean()


def test_traffic_is_slower_in_the_evening_rush_than_before_dawn(january):
    rides = january[january["minutes"].between(1, 60) & january["trip_distance"].between(1, 5)]
    hours = rides["pickup"].dt.hour
    pace = rides["minutes"] / rides["trip_distance"]
    assert pace[hours.between(16, 17)].median() > 1.25 * pace[hours.between(2, 4)].median()


def test_a_winter_month_has_a_day_of_few_and_slow_rides(january):
    days = january[january["pickup"].dt.strftime("%Y-%m") == "2021-01"]["pickup"].dt.day
    rides = january[january["trip_distance"].between(2, 10) & january["minutes"].between(5, 60)]
    pace = (rides["minutes"] / rides["trip_distance"]).groupby(days).median()
    assert days.value_counts().min() < 0.6 * days.value_counts().median()
    assert pace[days.value_counts().idxmin()] > 1.08 * pace.median()


# --- The dirt. Real counts: green 2021-01, 76,518 rows; "a few" is what other months have.


@pytest.mark.parametrize(
    ("dirt", "low", "high"),
    [
        (lambda t: t["minutes"] == 0, 30, 130),  # 66
        (lambda t: t["minutes"].between(0, 1, inclusive="left"), 1_000, 1_900),  # 1,448
        (lambda t: t["minutes"] > 60, 600, 1_700),  # 1,162
        (lambda t: t["minutes"] < 0, 1, 15),  # a few
        (lambda t: t["pickup"].dt.year < 2020, 1, 15),  # a few
        (lambda t: t["trip_distance"] == 0, 1_800, 3_300),  # 2,553
        (lambda t: t["trip_distance"] > 100, 30, 110),  # 63
        (lambda t: t["trip_distance"] > 100_000, 3, 30),  # 6, up to 244,152
        (lambda t: t["PULocationID"] > 263, 135, 540),  # 270
        (lambda t: t["DOLocationID"] > 263, 310, 1_250),  # 625
        (lambda t: t["RatecodeID"].isna(), 34_000, 38_000),  # 36,047
        (lambda t: t["fare_amount"] < 0, 60, 270),  # 134
        (lambda t: t.duplicated(), 1, 15),  # a few
    ],
    ids=[
        "no time", "under a minute", "over an hour", "wrong clock", "reset clock", "no distance",
        "odometer", "far odometer", "pickup zone", "drop-off zone", "nulls", "refunds", "copies",
    ],
)  # fmt: skip
def test_dirt_is_as_frequent_as_in_the_real_month(
    january: pd.DataFrame, dirt: Callable[[pd.DataFrame], pd.Series], low: int, high: int
):
    assert low <= dirt(january).sum() <= high


def test_the_course_rule_keeps_about_as_many_rows_as_in_the_real_month(january):
    assert january["minutes"].between(1, 60).sum() == pytest.approx(73_908, rel=0.01)


def test_dispatched_rides_have_no_meter_fields_and_whole_minutes(january):
    dispatched = january[january["RatecodeID"].isna()]
    assert dispatched[["passenger_count", "payment_type", "trip_type"]].isna().all(axis=None)
    assert (dispatched["pickup"].dt.second == 0).all()


# --- How realistic it is


@pytest.mark.parametrize(
    ("column", "quartiles"),
    [("minutes", (8.05, 14.0, 22.6)), ("trip_distance", (1.34, 2.60, 5.68))],
)
def test_quartiles_resemble_those_of_the_real_month(january, column, quartiles):
    kept = january[january["minutes"].between(1, 60)]
    assert kept[column].quantile([0.25, 0.5, 0.75]).to_numpy() == pytest.approx(quartiles, rel=0.15)


def test_green_starts_uptown_and_yellow_in_midtown(january, yellow):
    assert january["PULocationID"].value_counts().idxmax() == 74  # East Harlem North
    assert yellow["PULocationID"].isin([161, 162, 163, 230, 236, 237]).mean() > 0.15
    assert january["PULocationID"].isin([161, 162, 163, 230]).mean() < 0.03


def test_rides_to_an_airport_are_longer_than_others(yellow):
    airport = yellow["DOLocationID"].isin([132, 138])
    median = yellow["trip_distance"].groupby(airport).median()
    assert median[True] > 3 * median[False]


def keep_scored(trips: pd.DataFrame) -> pd.DataFrame:
    """The rows of the course rule, with both zones and their pair as text."""
    trips = trips[trips["minutes"].between(1, 60)]
    pickup, dropoff = trips["PULocationID"].astype(str), trips["DOLocationID"].astype(str)
    return trips.assign(PU=pickup, DO=dropoff, PU_DO=pickup + "_" + dropoff)


def rmse(truth: pd.Series, guess: np.ndarray | pd.Series | float) -> float:
    return float(np.sqrt(np.mean((truth - guess) ** 2)))


def score_linear(train: pd.DataFrame, valid: pd.DataFrame, zones: list[str]) -> float:
    """RMSE in minutes of the course's linear regression on these zone columns and distance."""
    columns, vectorizer = [*zones, "trip_distance"], DictVectorizer()
    known = vectorizer.fit_transform(train[columns].to_dict("records"))
    model = LinearRegression().fit(known, train["minutes"])
    asked = vectorizer.transform(valid[columns].to_dict("records"))
    return rmse(valid["minutes"], model.predict(asked))


@pytest.fixture(scope="module")
def errors(january) -> dict[str, float]:
    """RMSE in minutes of each baseline trained on January and scored on February."""
    train, valid = keep_scored(january), keep_scored(read_trips("green", "2021-02", 64_572))
    mean, truth = train["minutes"].mean(), valid["minutes"]
    pair_means = train.groupby("PU_DO")["minutes"].mean()
    return {
        "mean": rmse(truth, mean),
        "linear, zones": score_linear(train, valid, ["PU", "DO"]),
        "pair mean": rmse(truth, valid["PU_DO"].map(pair_means).fillna(mean)),
        "linear, pairs": score_linear(train, valid, ["PU_DO"]),
    }


def test_baselines_rank_as_on_real_months(errors):
    assert sorted(errors, key=errors.get, reverse=True) == list(errors)


@pytest.mark.parametrize(
    ("baseline", "real"),
    [("mean", 12.21), ("linear, zones", 10.50), ("pair mean", 8.51), ("linear, pairs", 7.759)],
)
def test_baselines_err_as_much_as_on_real_months(errors, baseline, real):
    assert errors[baseline] == pytest.approx(real, rel=0.2)


def train_booster(train: pd.DataFrame) -> Callable[[pd.DataFrame], np.ndarray]:
    """Boosted trees on zones, distance, hour and weekday; returns how to predict with them."""
    xgboost = pytest.importorskip("xgboost")

    def features(trips: pd.DataFrame) -> pd.DataFrame:
        times = trips["pickup"].dt
        known = trips[["PULocationID", "DOLocationID", "trip_distance"]]
        return known.assign(hour=times.hour, weekday=times.day_of_week)

    settings = {"n_estimators": 300, "max_depth": 8, "learning_rate": 0.1, "min_child_weight": 8}
    model = xgboost.XGBRegressor(tree_method="hist", n_jobs=2, **settings)
    model.fit(features(train), train["minutes"])
    return lambda trips: model.predict(features(trips))


@pytest.mark.slow
def test_boosted_trees_beat_the_baselines_by_as_much_as_on_real_months(january, errors):
    valid = keep_scored(read_trips("green", "2021-02", 64_572))
    error = rmse(valid["minutes"], train_booster(keep_scored(january))(valid))
    assert error == pytest.approx(5.64, rel=0.2)
    assert error < 0.85 * errors["linear, pairs"]


@pytest.mark.slow
def test_two_million_rows_can_be_made():
    trips = make_sample_month("yellow", "2023-03", 2_000_000)
    assert trips.num_rows == 2_000_000
    assert isinstance(trips, pa.Table)
