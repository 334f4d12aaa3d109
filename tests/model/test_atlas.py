from __future__ import annotations

import math
from datetime import datetime

import numpy as np
import pytest

from taxi_duration.data.window import Window
from taxi_duration.domain.rides import Rides
from taxi_duration.errors import SettingError
from taxi_duration.files import read_json, sha256_file, write_json
from taxi_duration.model.atlas import ATLAS_COLUMNS, ATLAS_FILE, Atlas, atlas_for, atlas_sources
from taxi_duration.model.state import from_state, to_state
from taxi_duration.training.atlas_file import write_atlas
from taxi_duration.training.feature_tables import window_atlas, window_tables
from taxi_duration.training.fit import fit_model

KNOWN_FROM = np.datetime64("2021-01-01")


def atlas_of(pickup_at: np.ndarray) -> Atlas | None:
    """The atlas of a window of such trips."""
    zones, miles = np.full(len(pickup_at), 74, "int16"), np.full(len(pickup_at), 2, "float32")
    return window_atlas(Window.of(Rides(zones, zones, pickup_at, miles), 5 * miles))


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
    assert atlas_of(days) is None
    assert atlas_of(days[days >= KNOWN_FROM]) is not None


def test_a_few_trips_dated_years_before_do_not_take_the_atlas_away():
    days = np.full(1000, "2021-02-15T08:00", dtype="datetime64[s]")
    days[:3] = np.datetime64("2009-01-01")
    assert atlas_of(days) is not None


def test_a_user_may_leave_the_atlas_out(monkeypatch):
    monkeypatch.setenv("ATLAS", "none")
    assert atlas_of(np.full(9, "2021-02-15T08:00", dtype="datetime64[s]")) is None


@pytest.fixture
def another(tmp_path, monkeypatch, sample_months):
    """An atlas of January that `ATLAS` names; returns its folder."""
    trips = sample_months[0]
    tables = window_tables(Window.from_frame(trips), math.inf)
    write_atlas(tmp_path / "atlas é#", tables, "2021-02-01", [{"month": "2021-01"}])
    monkeypatch.setenv("ATLAS", str(tmp_path / "atlas é#"))
    return tmp_path / "atlas é#"


def test_atlas_of_another_folder_is_used_from_its_own_day_on(another, atlas):
    first = np.datetime64("2021-02-01")
    assert atlas_for(first - 1) is None
    found = atlas_for(first)
    assert found.pair.shape == atlas.pair.shape and not np.array_equal(found.pair, atlas.pair)
    assert atlas_sources()["months"] == [{"month": "2021-01"}]


def test_model_learns_from_another_folders_atlas_and_keeps_it(another, sample_months, quick_trees):
    trips = sample_months[1]
    model = fit_model("RF", Window.from_frame(trips))
    assert model.parameters["atlas"] == sha256_file(another / ATLAS_FILE)[:12]
    kept = from_state(to_state(model)).point.tables.atlas
    assert np.array_equal(kept.pair, atlas_for(np.datetime64("2021-02-01")).pair)


def spoilt(name: str, change):
    """An array of the atlas is changed, and its digest is told as if it were right."""

    def spoil(folder) -> None:
        with np.load(folder / ATLAS_FILE) as stored:
            parts = dict(stored)
        parts[name] = change(parts[name])
        np.savez(folder / ATLAS_FILE, **{k: v for k, v in parts.items() if v is not None})
        sources = read_json(folder / "atlas.json")
        write_json(folder / "atlas.json", {**sources, "sha256": sha256_file(folder / ATLAS_FILE)})

    return spoil


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "atlas.json").unlink(), "No such file"),
        (lambda folder: (folder / "atlas.json").write_text("[]"), "expected is `object`"),
        (lambda folder: (folder / "atlas.json").write_text('{"sha256": "x", "months": []}'),
         "missing required field `known_from`"),
        (lambda folder: (folder / "atlas.json").write_text(
            '{"sha256": "x", "months": [], "known_from": "soon"}'), "known_from"),
        (lambda folder: (folder / ATLAS_FILE).unlink(), "No such file"),
        (lambda folder: (folder / ATLAS_FILE).write_bytes(b"no atlas"), "its SHA-256 is another"),
        (spoilt("pair", lambda a: None), "pair is not a file"),
        (spoilt("pair", lambda a: a[:9]), "pair has the shape"),
        (spoilt("pickup_hour", lambda a: a * np.nan), "values that are no numbers"),
        (spoilt("knots", lambda a: a[::-1]), "do not rise"),
        (spoilt("knots", lambda a: a[:1]), "knots has the shape"),
    ],
)  # fmt: skip
def test_folder_that_holds_no_atlas_is_refused_with_why(another, spoil, said):
    spoil(another)
    with pytest.raises(SettingError, match="atlas") as error:
        atlas_for(np.datetime64("2021-02-01"))
    assert said in str(error.value)


def test_an_unknown_choice_of_atlas_is_refused(monkeypatch):
    monkeypatch.setenv("ATLAS", "new")
    with pytest.raises(SettingError, match="allowed are auto, none"):
        atlas_of(np.full(9, "2021-02-15T08:00", dtype="datetime64[s]"))


def test_the_stored_atlas_has_the_digest_of_its_sources_file():
    from taxi_duration.model import atlas as module

    path = module.Path(module.__file__).with_name(ATLAS_FILE)
    assert sha256_file(path) == atlas_sources()["sha256"]


def test_usual_minutes_are_minutes(atlas):
    minutes = atlas.pair[1:264, 1:264, list(ATLAS_COLUMNS).index("atlas_minutes")]
    assert ((minutes > 1) & (minutes < 90)).all()


def test_a_written_atlas_names_its_months_and_digest(sample_months, tmp_path):
    trips = sample_months[0]
    tables = window_tables(Window.from_frame(trips), math.inf)
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
