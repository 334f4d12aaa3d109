from __future__ import annotations

import gzip
import math
from datetime import datetime

import numpy as np
import pytest

from taxi_duration.data.window import Window
from taxi_duration.domain.rides import Rides
from taxi_duration.errors import SettingError
from taxi_duration.model.explain import OTHER
from taxi_duration.model.extra_features import load_conditions, values_at, values_of
from taxi_duration.model.ride_predictor import RidePredictor
from taxi_duration.training.fit import fit_model, fit_point

GOOD = "hour,rain_mm,parade\n2021-01-04T08:00,1.5,0\n2021-01-04T09:00,,1\n"


@pytest.fixture
def extra(tmp_path, monkeypatch):
    """Write EXTRA_FEATURES and return its path."""

    def write(content: str | bytes, name: str = "weather.csv"):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        monkeypatch.setenv("EXTRA_FEATURES", str(path))
        return path

    return write


def test_without_a_file_there_are_no_conditions(monkeypatch):
    monkeypatch.delenv("EXTRA_FEATURES", raising=False)
    assert load_conditions() is None


def test_a_ride_has_the_values_of_its_hour(extra):
    extra(GOOD)
    assert values_at(("parade", "rain_mm"), datetime(2021, 1, 4, 8, 59)) == [0.0, 1.5]


def test_a_gzipped_file_is_read(extra):
    extra(gzip.compress(GOOD.encode()), "weather.csv.gz")
    assert load_conditions().names == ("rain_mm", "parade")


def test_what_is_not_there_is_not_known(extra):
    extra(GOOD)
    assert math.isnan(values_at(("rain_mm",), datetime(2021, 1, 4, 9))[0])  # empty
    assert math.isnan(values_at(("rain_mm",), datetime(2021, 1, 4, 10))[0])  # no such hour
    assert math.isnan(values_at(("snow",), datetime(2021, 1, 4, 8))[0])  # no such column


def test_many_rides_have_the_values_that_each_has(extra):
    extra(GOOD)
    hours = np.array(["2021-01-04T09:10", "2021-01-04T08:10", "2021-02-01T00:00"], "datetime64[s]")
    many = values_of(("rain_mm", "parade"), hours)
    one = [values_at(("rain_mm", "parade"), hour) for hour in hours.tolist()]
    np.testing.assert_array_equal(many, np.array(one, dtype="float32"))


def test_a_changed_file_is_read_again(extra):
    extra(GOOD)
    assert values_at(("parade",), datetime(2021, 1, 4, 9)) == [1.0]
    extra(GOOD.replace(",,1", ",,0") + "2021-01-04T10:00,0,0\n")
    assert values_at(("parade",), datetime(2021, 1, 4, 9)) == [0.0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "found nothing"),
        ("time,rain\n", "must name a column hour"),
        ("hour\n2021-01-04T08:00\n", "at least one other"),
        ("hour,rain,rain\n", "each once"),
        ("hour,rain\n2021-01-04T08:30,1\n", "line 2: hour is '2021-01-04T08:30'"),
        ("hour,rain\n2021-01-04T08:00Z,1\n", "without an offset"),
        ("hour,rain\nyesterday,1\n", "it must be a full hour"),
        ("hour,rain\n2021-01-04T08:00,wet\n", "line 2: rain is 'wet'; it must be a number"),
        ("hour,rain\n2021-01-04T08:00,inf\n", "it must be a number"),
        ("hour,rain\n2021-01-04T08:00\n", "1 values for 2 columns"),
        ("hour,rain\n2021-01-04T08:00,1\n2021-01-04 08:00,2\n", "line 3: the hour"),
        (b"\x1f\x8bnot gzip", "cannot be read"),
        (b"hour,r\xff\n", "cannot be read"),
    ],
)
def test_a_bad_file_is_refused_with_line_and_column(extra, content, message):
    extra(content)
    with pytest.raises(SettingError, match=message):
        load_conditions()


def test_a_missing_file_is_refused(extra):
    extra(GOOD).unlink()
    with pytest.raises(SettingError, match=r"weather\.csv cannot be read"):
        load_conditions()


def test_answers_do_without_a_file_that_went_bad(extra):
    extra("no table at all")
    assert math.isnan(values_at(("rain_mm",), datetime(2021, 1, 4, 8))[0])


@pytest.fixture
def slow_rain(trips, extra):
    """Trips that take 10 minutes more in the hours of rain, and the file that tells them."""
    hours = np.unique(trips["pickup_at"].to_numpy().astype("datetime64[h]"))
    rain = np.arange(len(hours)) % 2
    lines = [f"{hour}:00,{wet}" for hour, wet in zip(hours, rain, strict=True)]
    extra("\n".join(["hour,rain", *lines]) + "\n")
    at = np.searchsorted(hours, trips["pickup_at"].to_numpy().astype("datetime64[h]"))
    return trips.assign(duration=(trips["duration"] + 10 * rain[at]).astype("float32"))


@pytest.mark.parametrize("kind", ["XGB", "RF"])
def test_a_model_learns_what_rain_costs(slow_rain, kind, quick_trees):
    rides = Rides.from_frame(slow_rain)
    model = fit_point(kind, Window.from_frame(slow_rain))
    assert model.conditions == ("rain",)
    wet = values_of(("rain",), rides.pickup_at)[:, 0] == 1
    for asked in (rides, rides.without_distance()):
        minutes = model.predict_minutes(asked)
        assert minutes[wet].mean() > minutes[~wet].mean() + 4


def test_one_ride_is_answered_as_many_are_and_rain_is_a_reason(slow_rain, quick_trees):
    rides = Rides.from_frame(slow_rain)
    model = fit_model("XGB", Window.from_frame(slow_rain))
    predictor, answers = RidePredictor(model), model.answer(rides)
    assert model.parameters["extra_features"] == "rain"
    for row in range(20):
        for miles in (rides.trip_distance[row].item(), None):
            asked = (rides.PULocationID[row].item(), rides.DOLocationID[row].item(),
                     rides.pickup_at[row].item(), miles)  # fmt: skip
            answer, reasons = predictor.answer(*asked), predictor.explain(*asked)
            assert OTHER in [reason.name for reason in reasons]
            assert sum(r.minutes for r in reasons) == pytest.approx(answer.duration, abs=1e-3)
            if miles is not None:
                assert answer.duration == pytest.approx(answers.duration[row], abs=1e-4)
