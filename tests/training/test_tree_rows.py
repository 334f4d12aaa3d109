"""Which rows trees learn from: all of a small window, a sample of a large one; tables know all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from taxi_duration import environment
from taxi_duration.data import window as windows
from taxi_duration.data.window import Window
from taxi_duration.model.tree_model import TreeModel
from taxi_duration.training import day_groups, tree_models
from taxi_duration.training.boosting_engine import boost, learn_booster
from taxi_duration.training.fit import fit_model
from taxi_duration.training.kinds import KINDS
from taxi_duration.training.refit import refit_model
from taxi_duration.training.window_sums import window_sums

FEW = {**KINDS["XGB"].parameters, "rounds": 6, "min_child_weight": 2}
QUICK = replace(KINDS["XGB"], parameters=FEW, quicker={"rounds": 3})


@pytest.fixture(autouse=True)
def two_folds(monkeypatch) -> None:
    """Every fold costs tables of its own; how many there are is none of what is tested here."""
    monkeypatch.setattr(day_groups, "FOLDS", 2)


@pytest.fixture
def some(sample_months) -> Window:
    """A month, some of its rides without a distance."""
    month = sample_months[0].head(3000).copy()
    month.loc[month.index[::7], "trip_distance"] = np.nan
    return Window.from_frame(month)


@pytest.fixture
def learning():
    """A kind that notes what its learner is given: batches, then where they lie."""
    given = []

    def note(batches, parameters, seed, threads, on_disk):
        given.append((list(batches()), on_disk))
        return boost(batches, parameters, seed, threads, on_disk)

    return replace(QUICK, learn=note), given


def rows_of(given) -> list[int]:
    return [sum(len(batch.rows) for batch in batches) for batches, _ in given]


def same_trees(one, other) -> bool:
    return all(
        np.array_equal(getattr(one, name).nodes, getattr(other, name).nodes)
        for name in ("with_distance", "without_distance")
    )


@pytest.mark.parametrize("batch", [10_000, 700])
def test_batches_teach_the_trees_that_one_array_does(some, monkeypatch, batch):
    whole = replace(QUICK, learn=learn_booster, by_batch=False).fit(some)
    monkeypatch.setattr(windows, "BATCH_ROWS", batch)
    assert same_trees(QUICK.fit(some), whole)


@pytest.mark.parametrize("bound", ["3000", "all"])
def test_a_window_that_fits_is_learned_from_whole_and_in_memory(some, learning, monkeypatch, bound):
    kind, given = learning
    expected = QUICK.fit(some)
    monkeypatch.setenv("BOOST_ROWS", bound)
    assert same_trees(kind.fit(some), expected)
    assert rows_of(given) == [TreeModel.has_usable_distance(some.whole().rides).sum(), 3000]
    assert [on_disk for _, on_disk in given] == [False, False]


def test_of_a_larger_window_trees_learn_from_a_sample_and_tables_from_all(
    some, learning, monkeypatch
):
    kind, given = learning
    expected = QUICK.fit(some).tables
    monkeypatch.setenv("BOOST_ROWS", "1000")
    model = kind.fit(some)
    assert rows_of(given)[1] == 1000
    assert 700 < rows_of(given)[0] < 1000
    weight = np.concatenate([batch.weight for batch in given[1][0]])
    assert weight.mean() == pytest.approx(1, rel=0.05)
    for name in ("pair", "pickup_hour", "dropoff_hour", "city_hour"):
        np.testing.assert_array_equal(getattr(model.tables, name), getattr(expected, name))


def test_all_rows_beyond_what_memory_holds_lie_on_disk(some, learning, monkeypatch):
    kind, given = learning
    expected = QUICK.fit(some)
    monkeypatch.setattr(environment, "BOOST_ROWS", 1000)
    monkeypatch.setattr(windows, "BATCH_ROWS", 700)
    monkeypatch.setenv("BOOST_ROWS", "all")
    assert same_trees(kind.fit(some), expected)
    assert [on_disk for _, on_disk in given] == [True, True]
    assert list(environment.scratch_dir().iterdir()) == []
    given.clear()
    kind.fit(some, rehearsal=True)
    assert [on_disk for _, on_disk in given] == [False, False]


def test_a_rehearsal_learns_from_few_rows_of_the_days_that_it_may_know(some, learning, monkeypatch):
    kind, given = learning
    monkeypatch.setattr(tree_models, "REHEARSAL_ROWS", 800)
    lesson = kind.prepare(some, rehearsal=True, left_out=1)
    groups, rides = window_sums(some).groups, lesson.sample.window.whole().rides
    block, _ = groups.block_and_fold(rides, groups.places(rides.pickup_at))
    assert set(block) == {0, 2}
    kind.fit(some, rehearsal=True, left_out=1)
    assert rows_of(given)[1] == 800


def test_forests_have_a_bound_of_their_own(some, monkeypatch):
    given = []

    def note(rows, minutes, weight, *more):
        given.append(len(rows))
        return tree_models.learn_forest(rows, minutes, weight, *more)

    forest = replace(KINDS["RF"], learn=note, parameters={"n_estimators": 2})
    monkeypatch.setenv("BOOST_ROWS", "100")
    monkeypatch.setattr(tree_models, "FOREST_ROWS", 500)
    forest.fit(some)
    assert given[1] == 500
    assert given[0] < 500


def test_features_of_a_large_window_are_never_kept_together(some, monkeypatch):
    """At no time are there features of more than one batch."""
    monkeypatch.setattr(windows, "BATCH_ROWS", 700)
    lesson = QUICK.prepare(some)
    list(lesson.batches(True))
    assert "_kept" not in vars(lesson)
    assert max(len(batch.rows) for batch in lesson.batches(False)) <= 700


@pytest.mark.parametrize(
    ("kind", "trees"), [("LR", {}), ("XGB", {"rows_trees": 900}), ("RF", {"rows_trees": 700})]
)
def test_a_model_says_how_many_rows_each_part_learned_from(some, monkeypatch, kind, trees):
    monkeypatch.setenv("BOOST_ROWS", "900")
    monkeypatch.setattr(tree_models, "FOREST_ROWS", 700)
    monkeypatch.setattr(tree_models, "REHEARSAL_ROWS", 600)
    if kind != "LR":
        few = {"rounds": 2, "max_depth": 2} if kind == "XGB" else {"n_estimators": 2}
        parameters = {**KINDS[kind].parameters, **few}
        monkeypatch.setitem(KINDS, kind, replace(KINDS[kind], parameters=parameters, quicker={}))
    model = fit_model(kind, some)
    sums = window_sums(some)
    rest = min(int(sums.pair_trips(left_out=k).sum()) for k in sums.blocks)
    told = {n: v for n, v in model.parameters.items() if n.startswith("rows_")}
    rehearsals = 600 if trees else rest
    assert told == {"rows_tables": 3000, "rows_rehearsals": rehearsals, "rows_calibration": 3000,
                    **trees}  # fmt: skip
    rides, minutes = some.whole()
    last = Window.of(rides.take(slice(2000, 3000)), minutes[2000:])
    again = refit_model(model, Window.of(rides.take(slice(500, 3000)), minutes[500:]), last)
    told = {n: v for n, v in again.parameters.items() if n.startswith("rows_")}
    assert told == {"rows_tables": 2500, "rows_calibration": 1000, **trees}
