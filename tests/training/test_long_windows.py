"""Trees that learn from many rows have other settings than those of one month."""

from __future__ import annotations

from dataclasses import replace

import pytest

from taxi_duration.data.window import Window
from taxi_duration.errors import ContentError
from taxi_duration.files import typed
from taxi_duration.training import boosting, day_groups
from taxi_duration.training.boosting import (
    LongSettings,
    XGBSettings,
    xgb_parameters,
    xgb_settings,
)
from taxi_duration.training.boosting_engine import boost
from taxi_duration.training.fit import fit_model
from taxi_duration.training.kinds import KINDS
from taxi_duration.training.refit import refit_model

MONTH_ROWS, YEAR_ROWS = 110_000, 1_070_000  # of green taxis, in 2021 and 2022
USUAL = {**KINDS["XGB"].parameters, "rounds": 6, "min_child_weight": 2}
LONG = LongSettings(2500, 3500, 8, {"max_depth": 3})


@pytest.fixture(autouse=True)
def two_folds(monkeypatch) -> None:
    """Every fold costs tables of its own; how many there are is none of what is tested here."""
    monkeypatch.setattr(day_groups, "FOLDS", 2)


@pytest.fixture
def some(sample_months) -> Window:
    return Window.from_frame(sample_months[0].head(3000))


@pytest.fixture
def learning():
    """A kind whose long windows begin at 2,500 rows, and the parameters that XGBoost is given."""
    given = []

    def note(batches, parameters, *others):
        given.append(parameters)
        return boost(batches, parameters, *others)

    return replace(KINDS["XGB"], learn=note, parameters=USUAL, quicker={}, long=LONG), given


def test_a_month_of_green_has_the_stored_settings_and_a_year_those_of_long_windows():
    stored, long = xgb_settings(), xgb_settings()["long"]
    usual = {"rounds": stored["rounds"], **stored["parameters"]}
    assert KINDS["XGB"].used_parameters(MONTH_ROWS) == usual == xgb_parameters()
    year = {**usual, "rounds": long["rounds"], **long["parameters"]}
    assert KINDS["XGB"].used_parameters(YEAR_ROWS) == year != usual
    assert KINDS["RF"].used_parameters(YEAR_ROWS) == KINDS["RF"].parameters


@pytest.mark.parametrize(("rows", "is_long"), [(2499, False), (2500, True), (3500, True),
                                               (3501, False)])  # fmt: skip
def test_long_windows_have_so_many_rows_and_no_others(learning, rows, is_long):
    kind, _ = learning
    differs = {"rounds": 8, "max_depth": 3} if is_long else {}
    assert kind.used_parameters(rows) == {**USUAL, **differs}


@pytest.mark.parametrize("engine", ["local", "dask"])
@pytest.mark.parametrize(("bound", "rounds"), [("2400", 6), ("2600", 8), ("all", 8)])
def test_trees_learn_with_the_settings_of_the_rows_that_they_learn_from(
    some, learning, monkeypatch, engine, bound, rounds
):
    kind, given = learning
    monkeypatch.setenv("BOOST_ROWS", bound)
    lesson = kind.prepare(some)
    monkeypatch.setenv("ENGINE", engine)
    kind = replace(kind, learn=lambda batches, parameters, *_: given.append(parameters), pack=id)
    for with_distance in (True, False):
        kind.learn_from(lesson, with_distance)
    assert [one["rounds"] for one in given] == [rounds] * 2
    assert [one["max_depth"] for one in given] == [3 if rounds == 8 else USUAL["max_depth"]] * 2


def test_a_rehearsal_keeps_its_own(some, learning):
    kind, given = learning
    replace(kind, quicker={"rounds": 2}).fit(some, rehearsal=True)
    assert [(one["rounds"], one["max_depth"]) for one in given] == [(2, USUAL["max_depth"])] * 2


def test_a_model_names_the_parameters_that_it_was_fitted_with(some, learning, monkeypatch):
    kind, _ = learning
    monkeypatch.setitem(KINDS, "XGB", kind)
    model = fit_model("XGB", some)
    rides, minutes = some.whole()
    assert (model.parameters["rounds"], model.parameters["max_depth"]) == (8, 3)
    assert len(model.point.without_distance.roots) == 8
    # What was judged on a long window, and is fitted once more on a short one, says so.
    short = Window.of(rides.take(slice(600, 3000)), minutes[600:])
    again = refit_model(model, short, month=some)
    assert (again.parameters["rounds"], again.parameters["max_depth"]) == (6, USUAL["max_depth"])
    assert len(again.point.without_distance.roots) == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rounds": 0}, "long.rounds is 0"),
        ({"from_rows": 0}, "long.from_rows is 0"),
        ({"to_rows": 1}, "`from_rows` is more than `to_rows`"),
        ({"parameters": {"max_deepth": 8}}, "max_deepth: `parameters` has no such name"),
        ({"parameters": {"rounds": 8}}, "rounds: `parameters` has no such name"),
        ({"from_row": 8}, "unknown field"),
    ],
)
def test_bad_settings_of_long_windows_are_refused(change, message):
    stored = xgb_settings()
    typed(stored, XGBSettings)  # as they are, they are good
    with pytest.raises(ContentError, match=message):
        typed({**stored, "long": {**stored["long"], **change}}, XGBSettings)


def test_a_bad_file_is_named(monkeypatch, tmp_path):
    (tmp_path / "xgb_settings.json").write_text('{"rounds": 300, "parameters": {}}')
    monkeypatch.setattr(boosting, "files", lambda _: tmp_path)
    with pytest.raises(ContentError, match=r"xgb_settings\.json: .*`long`"):
        xgb_settings.__wrapped__()
