from __future__ import annotations

from datetime import datetime

import numpy as np
import pytest

from taxi_duration.domain.rides import Rides
from taxi_duration.errors import SettingError
from taxi_duration.files import read_json, sha256_file
from taxi_duration.model.atlas import ATLAS_COLUMNS, ATLAS_FILE, atlas_for, atlas_sources
from taxi_duration.training.atlas_file import write_atlas
from taxi_duration.training.feature_tables import fit_tables
from taxi_duration.training.tree_models import window_atlas

KNOWN_FROM = np.datetime64("2021-01-01")


@pytest.fixture(scope="module")
def atlas():
    return atlas_for(KNOWN_FROM)


def test_a_window_that_begins_before_the_atlas_is_known_goes_without():
    assert atlas_for(KNOWN_FROM - 1) is None


def test_a_window_that_begins_when_the_atlas_is_known_has_it(atlas):
    assert atlas is not None


def test_every_month_of_the_atlas_lies_before_the_day_it_is_known_from():
    sources = atlas_sources()
    assert max(month["month"] for month in sources["months"]) < sources["known_from"][:7]


def test_a_window_reaching_back_before_the_atlas_is_known_goes_without():
    days = np.arange("2020-12-01", "2021-02-01", dtype="datetime64[D]").astype("datetime64[s]")
    assert window_atlas(days) is None
    assert window_atlas(days[days >= KNOWN_FROM]) is not None


def test_a_few_trips_dated_years_before_do_not_take_the_atlas_away():
    days = np.full(1000, "2021-02-15T08:00", dtype="datetime64[s]")
    days[:3] = np.datetime64("2009-01-01")
    assert window_atlas(days) is not None


def test_a_user_may_leave_the_atlas_out(monkeypatch):
    monkeypatch.setenv("ATLAS", "none")
    assert window_atlas(np.full(9, "2021-02-15T08:00", dtype="datetime64[s]")) is None


def test_an_unknown_choice_of_atlas_is_refused(monkeypatch):
    monkeypatch.setenv("ATLAS", "new")
    with pytest.raises(SettingError, match="allowed are auto, none"):
        window_atlas(np.full(9, "2021-02-15T08:00", dtype="datetime64[s]"))


def test_the_stored_atlas_has_the_digest_of_its_sources_file():
    from taxi_duration.model import atlas as module

    path = module.Path(module.__file__).with_name(ATLAS_FILE)
    assert sha256_file(path) == atlas_sources()["sha256"]


def test_usual_minutes_are_minutes(atlas):
    minutes = atlas.pair[1:264, 1:264, list(ATLAS_COLUMNS).index("atlas_minutes")]
    assert ((minutes > 1) & (minutes < 90)).all()


def test_a_written_atlas_names_its_months_and_digest(sample_months, tmp_path):
    trips = sample_months[0]
    tables = fit_tables(Rides.from_frame(trips), trips["duration"].to_numpy())
    months = [{"service": "green", "month": "2021-01"}]
    write_atlas(tmp_path, tables, "2021-02-01", months)
    sources = read_json(tmp_path / "atlas.json")
    assert sources["months"] == months
    assert sources["sha256"] == sha256_file(tmp_path / ATLAS_FILE)


def test_a_model_keeps_the_atlas_it_was_fitted_with(fitted):
    assert fitted("XGB").point.tables.atlas is not None  # the sample months are of 2021
    assert fitted("XGB").parameters["atlas"] == atlas_sources()["sha256"][:12]


def test_answers_use_the_atlas_for_routes_the_window_never_saw(fitted):
    model = fitted("XGB").point
    rides = Rides.from_dicts(
        [{"PULocationID": p, "DOLocationID": d, "pickup_datetime": datetime(2021, 2, 1, 8)}
         for p, d in ((127, 265), (5, 259), (44, 3))]
    )  # fmt: skip
    assert np.isfinite(model.predict_minutes(rides)).all()
