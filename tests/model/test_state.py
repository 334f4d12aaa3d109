from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np
import pytest

from taxi_duration.domain.geometry import ZONES
from taxi_duration.domain.rides import Rides
from taxi_duration.model.duration_model import DurationModel
from taxi_duration.model.features import DISTANCE_FEATURES, LINE_COLUMNS, PAIR_COLUMNS
from taxi_duration.model.plain_pickle import dumps, loads
from taxi_duration.model.ride_predictor import RidePredictor
from taxi_duration.model.state import LARGEST, TYPES, from_state, to_state
from taxi_duration.model.trees import MAX_DEPTH, MAX_VALUE, NODE, TreeEnsemble
from taxi_duration.training.kinds import KINDS

COLUMNS = PAIR_COLUMNS + LINE_COLUMNS


@pytest.fixture(scope="module")
def models(fitted) -> dict[str, DurationModel]:
    """A linear and a small tree model."""
    trees = fitted("XGB")
    fewer = replace(
        trees.point,
        with_distance=first_trees(trees.point.with_distance),
        without_distance=first_trees(trees.point.without_distance),
    )
    return {"LR": fitted("LR"), "XGB": replace(trees, point=fewer)}


@pytest.fixture(scope="module")
def states(models) -> dict[str, bytes]:
    """Their states, as bytes: each test gets its own."""
    return {kind: dumps(to_state(model)) for kind, model in models.items()}


def first_trees(trees: TreeEnsemble, count: int = 30) -> TreeEnsemble:
    return replace(trees, nodes=trees.nodes[: trees.roots[count]], roots=trees.roots[:count])


def array_of(part: Any) -> np.ndarray:
    kind, shape, content = part
    return np.frombuffer(content, TYPES[kind]).reshape(shape).copy()


def put(state: Any, path: str, change: Any) -> None:
    """Change what lies at a path such as `point.1.tables.pair`.

    Args:
        change: a new value, or a function: of an array changes it in place, of another
            value returns the new one.
    """
    *parents, last = [int(name) if name.isdigit() else name for name in path.split(".")]
    for name in parents:
        state = state[name]
    old = state.get(last) if isinstance(state, dict) else state[last]
    if not callable(change):
        state[last] = change
    elif isinstance(old, list) and isinstance(old[-1], bytes):
        values = array_of(old)
        changed = change(values)
        values = values if changed is None else changed
        state[last] = [old[0], list(values.shape), values.tobytes()]
    else:
        state[last] = change(old)


def at(index: Any, value: Any, field: str | None = None) -> Callable[[np.ndarray], None]:
    """A change of some values of an array, or of one field of nodes."""

    def change(values: np.ndarray) -> None:
        (values if field is None else values[field])[index] = value

    return change


def column(name: str, value: float) -> Callable[[np.ndarray], None]:
    """A change of one pair of zones in a column of the pair table."""
    return at((74, 75, COLUMNS.index(name)), value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_comes_back_from_its_state_and_answers_to_the_bit(fitted, sample_months, kind):
    model, rides = fitted(kind), Rides.from_frame(sample_months[1])
    again = from_state(loads(dumps(to_state(model))))
    before, after = model.answer(rides), again.answer(rides)
    for name in before.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
    assert (again.kind, again.parameters) == (kind, model.parameters)


def test_equal_models_have_equal_bytes(models, states):
    assert dumps(to_state(copy.deepcopy(models["XGB"]))) == states["XGB"]


def test_arrays_cannot_be_written_to(states):
    with pytest.raises(ValueError, match="read-only"):
        from_state(loads(states["LR"])).pair_trips[1, 1] = 5


# --- each guard, by the state that it alone refuses -----------------------------------------

TREES = "point.1.with_distance"
ROOT = 0  # the first tree's root; its children lie at 1 and 2
LINEAR = [
    ("", lambda state: [state], "model is a list, expected a dict"),
    ("kind", b"LR", "model.kind is a bytes, expected a str"),
    ("more", 1, "model has unknown more"),
    ("parameters", {"depth": {"of": {"it": {"is": 1}}}}, "parameters are not names with"),
    ("parameters", {"alpha": float("nan")}, "parameters are not names with"),
    ("parameters", {"alpha": 2**63}, "parameters are not names with"),
    ("parameters", {"alpha": b"1"}, "parameters are not names with"),
    ("parameters", [], "parameters are not names with"),
    ("pair_trips", at((1, 1), -1), "counts trips below zero"),
    ("pair_trips", at(slice(None), 0), "or none at all"),  # what `explain` divides by
    ("pair_trips", lambda a: a[:-1], r"expected int32 of shape \(266, 266\)"),
    ("pair_trips", lambda a: a.T[:, :, None], r"expected int32 of shape \(266, 266\)"),
    ("pair_trips.0", "float32", r"is float32 of shape .* expected int32"),
    ("pair_trips.0", "object", r"is object of shape .* expected int32"),
    ("pair_trips.0", 4, r"is no \[type, shape, bytes\]"),
    ("pair_trips.1", [266.0, 266.0], r"is no \[type, shape, bytes\]"),
    ("pair_trips.1", [True, 266], r"is no \[type, shape, bytes\]"),
    ("pair_trips.1", [-266, -266], r"of shape \(-266, -266\)"),
    ("pair_trips.2", lambda content: content[:-4], "in 283020 bytes"),
    ("pair_trips.2", lambda content: content + b"\0" * 4, "in 283028 bytes"),
    ("pair_trips.2", "text", r"is no \[type, shape, bytes\]"),
    ("pair_trips", {}, r"is no \[type, shape, bytes\]"),
    ("with_distance.limit", 60, "limit is a int, expected a float"),
    ("with_distance.limit", 0.5, "limit is not within 1 and 60"),
    ("with_distance.limit", 61.0, "limit is not within 1 and 60"),
    ("with_distance.limit", float("nan"), "limit is not within 1 and 60"),
    ("with_distance.knots", lambda groups: groups[:-1], "not knots and ratios for 12 groups"),
    ("with_distance.ratios", lambda groups: groups[:-1], "not knots and ratios for 12 groups"),
    ("with_distance.knots", {}, "not knots and ratios for 12 groups"),
    ("with_distance.scales", lambda scales: scales[:-1], "not scales of cell, pickup, dropoff"),
    ("with_distance.scales", {}, "not scales of cell, pickup, dropoff, unusable"),
    ("with_distance.scales.0", lambda a: a[:-1], r"scale of cell .* of shape \(72\)"),
    ("without_distance.scales.1", at(7, 0.0), "scale of pickup has a value"),
    ("without_distance.scales.2", at(7, math.nan), "scale of dropoff has a value"),
    ("without_distance.scales.3", at(1, 10.5), "scale of unusable is above 10"),
    ("with_distance.knots.3", at(1, -1.0), "with_distance of group 3 has knots that do not rise"),
    ("without_distance.knots.3", at(0, math.nan), "without_distance of group 3 has a value"),
    ("with_distance.knots.3", lambda a: a[:1], "do not rise, or fewer than two"),
    ("with_distance.ratios.3", lambda a: a[:-1], r"expected float64 of shape \(\d+, 3\)"),
    ("with_distance.ratios.3", at((0, 0), 0.0), "not above zero, P10 to P90 in order"),
    ("with_distance.ratios.3", at((0, 0), 1e6), "not above zero, P10 to P90 in order"),
    ("with_distance.ratios.3", at((0, 2), 1e-6), "not above zero, P10 to P90 in order"),
    ("with_distance.ratios.3", at((0, 2), math.inf), "group 3 has a value"),
    ("point", {}, "point is of no form that this version knows: linear, trees"),
    ("point.0", "neural", "point is of no form that this version knows: linear, trees"),
    ("point.0", ["linear"], "point is of no form that this version knows: linear, trees"),
    ("point.0", "trees", "model.point lacks tables"),
    ("point.1.vectorizer.column_of", at(0, 10**6), "columns that are not each of one pair"),
    ("point.1.vectorizer.column_of", at(0, -2), "columns that are not each of one pair"),
    ("point.1.vectorizer.column_of", at(0, 0), "columns that are not each of one pair"),
    ("point.1.vectorizer.n_pairs", 10**12, "n_pairs is not within 0 and 70756"),
    ("point.1.vectorizer.n_pairs", lambda n: n + 1, "columns that are not each of one pair"),
    ("point.1.vectorizer.n_pairs", True, "n_pairs is a bool, expected a int"),
    ("point.1.vectorizer.mean_miles", at(0, -1.0), "mean_miles has a value"),
    ("point.1.vectorizer.mean_miles", lambda a: a[:-1], "mean_miles is float64 of shape"),
    ("point.1.pair_minutes", at(0, math.nan), "pair_minutes has a value"),
    ("point.1.pair_minutes", at(-1, 1.0), "pair_minutes are not zero for unseen pairs"),
    ("point.1.pair_minutes", lambda a: a[1:], "pair_minutes is float64 of shape"),
    ("point.1.minutes_per_mile", math.inf, "minutes_per_mile is not within"),
    ("point.1.intercept", math.nan, "intercept is not within"),
    ("point.1.intercept", 5, "intercept is a int, expected a float"),
]  # fmt: skip
TREE = [
    ("point.1.features", ["tide", *DISTANCE_FEATURES[1:]],
     "missing here tide, new here minutes_from_10"),
    ("point.1.features", [*reversed(DISTANCE_FEATURES)], "was fitted on other features"),
    ("point.1.features", {}, "features is a dict, expected a list"),
    ("point.1.features", [1], "features is not a list of texts"),
    ("point.1.conditions", ["rain"] * 2, "or one comes twice"),
    ("point.1.conditions", [str(i) for i in range(51)], "conditions are above 50"),
    ("point.1.tables.centre", at((1, 0), math.inf), "centre has a value"),
    ("point.1.tables.pair", column("straight_km", 0.0), "straight_km"),
    ("point.1.tables.pair", column("miles_pair", 0.0), "miles_pair"),
    ("point.1.tables.pair", column("minutes_pair", 2e9), "pair has a value"),
    ("point.1.tables.pair", column("line_slope", -math.inf), "pair has a value"),
    ("point.1.tables.pair", lambda a: a[:, :, :-1], "pair is float32 of shape"),
    ("point.1.tables.city_hour", at((0, 0), 0.0), "city_hour"),
    ("point.1.tables.city_hour", at((0, 1), math.nan), "city_hour has a value"),
    ("point.1.tables.pickup_hour", at((1, 0, 0), -1.0), "pickup_hour has a value"),
    ("point.1.tables.dropoff_hour", at((1, 0, 0), math.nan), "dropoff_hour has a value"),
    ("point.1.tables.minutes_of_miles.x", at(1, -1.0), "knots that do not rise"),
    ("point.1.tables.minutes_of_miles.y", at(1, math.nan), "y has a value"),
    ("point.1.tables.minutes_of_miles.slope", at(0, math.inf), "slope has a value"),
    ("point.1.tables.minutes_of_miles.slope", lambda a: a[1:], "slope is float64 of shape"),
    ("point.1.tables.minutes_of_miles.unknown", math.inf, "unknown is not within"),
    ("point.1.tables.atlas", {}, "tables.atlas lacks pair"),
    ("point.1.tables.atlas.pair", at((1, 1, 0), math.inf), "atlas.pair has a value"),
    ("point.1.tables.atlas.pickup_hour", at((1, 1, 0), math.nan), "atlas.pickup_hour has a value"),
    (f"{TREES}.base", math.nan, "base is not within"),
    (f"{TREES}.nodes", at(ROOT, 0, "left"), "children are not where they must be"),  # a circle
    (f"{TREES}.nodes", at(ROOT, -7, "left"), "children are not where they must be"),
    (f"{TREES}.nodes", at(ROOT, 2**31 - 1, "left"), "children are not where they must be"),
    (f"{TREES}.nodes", at(ROOT, 3, "left"), "not in exactly one place of one tree"),
    (f"{TREES}.nodes", lambda a: np.append(a, a[-1:]), "not in exactly one place"),  # a leaf more
    (f"{TREES}.nodes", at(ROOT, len(DISTANCE_FEATURES), "feature"), "ask for feature 39"),
    (f"{TREES}.nodes", at(ROOT, -1, "feature"), "ask for feature"),
    (f"{TREES}.nodes", at(-1, 32_767, "feature"), "ask for feature 32767"),  # in a leaf
    ("point.1.without_distance.nodes", at(ROOT, 28, "feature"), "without_distance: .* feature 28"),
    (f"{TREES}.nodes", at(ROOT, 2, "default_left"), "a flag that is neither 0 nor 1"),
    (f"{TREES}.nodes", at(ROOT, 1, "pad"), "a flag that is neither 0 nor 1"),
    (f"{TREES}.nodes", at(ROOT, math.nan, "threshold"), "a number that is not one"),
    (f"{TREES}.nodes", at(-1, math.nan, "value"), "a number that is not one"),
    (f"{TREES}.nodes", at(-1, 2 * MAX_VALUE, "value"), "or above 1e"),
    (f"{TREES}.nodes", at(-1, -2 * MAX_VALUE, "value"), "or above 1e"),
    (f"{TREES}.roots", at(0, -1), "a root outside the nodes"),
    (f"{TREES}.roots", at(-1, 10**8), "a root outside the nodes"),
    (f"{TREES}.roots", lambda a: np.append(a, a[:1]), "not in exactly one place of one tree"),
    (f"{TREES}.roots", lambda a: a[:0], r"expected int32 of shape \(any\)"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "cases"), [("LR", LINEAR), ("XGB", TREE)])
def test_each_state_is_whole_before_it_is_changed(states, kind, cases):
    state = loads(states[kind])
    from_state(state)
    assert len(cases) > 40


@pytest.mark.parametrize(
    ("kind", "path", "change", "message"),
    [("LR", *case) for case in LINEAR] + [("XGB", *case) for case in TREE],
)
def test_state_that_is_wrong_in_one_place_is_refused(states, kind, path, change, message):
    state = loads(states[kind])
    if path:
        put(state, path, change)
    else:
        state = change(state)
    with pytest.raises(ValueError, match=message):
        from_state(state)


@pytest.mark.parametrize("name", ["kind", "point", "pair_trips", "parameters", "with_distance"])
def test_state_without_a_part_is_refused(states, name):
    state = loads(states["LR"])
    del state[name]
    with pytest.raises(ValueError, match=f"model lacks {name}"):
        from_state(state)


@pytest.mark.parametrize(("trees", "width"), [("with_distance", 39), ("without_distance", 28)])
def test_trees_may_ask_for_the_hours_conditions_and_no_further(states, trees, width):
    state = loads(states["XGB"])
    put(state, "point.1.conditions", ["rain"])
    put(state, f"point.1.{trees}.nodes", at(ROOT, width, "feature"))
    from_state(state)
    put(state, f"point.1.{trees}.nodes", at(ROOT, width + 1, "feature"))
    with pytest.raises(ValueError, match=f"ask for feature {width + 1}; there are {width + 1}"):
        from_state(state)


def test_walk_that_is_too_long_is_refused(states):
    """One tree that is a chain: each inner node has a leaf and the rest of the chain."""

    def chain(depth: int, bounded: dict[str, Any] | None = None) -> dict[str, Any]:
        nodes = np.zeros(2 * depth + 1, NODE)
        nodes["left"] = -1
        inner = np.array([0, *range(2, 2 * depth - 1, 2)])
        nodes["left"][inner] = np.arange(1, 2 * depth, 2)
        roots = np.zeros(1, "int32")
        return {
            "nodes": ["node", [len(nodes)], nodes.tobytes()],
            "roots": ["int32", [1], roots.tobytes()],
            "base": 10.0,
            "bounded": bounded,
            "bound": 0.5,
        }

    state = loads(states["XGB"])
    for good in (chain(MAX_DEPTH), chain(MAX_DEPTH, chain(MAX_DEPTH))):
        put(state, TREES, good)
        from_state(state)
    for bad in (chain(MAX_DEPTH + 1), chain(3, chain(MAX_DEPTH + 1))):
        put(state, TREES, bad)
        with pytest.raises(ValueError, match=f"a leaf more than {MAX_DEPTH} steps from its root"):
            from_state(state)
    put(state, TREES, chain(3, chain(3, chain(3))))
    with pytest.raises(ValueError, match="has bounded trees, and is one"):
        from_state(state)
    put(state, TREES, {**chain(3, chain(3)), "bound": -0.5})
    with pytest.raises(ValueError, match="bound is not within 0"):
        from_state(state)


def test_a_thousand_nested_lists_are_refused_without_being_shown(states):
    deep: Any = []
    for _ in range(5000):
        deep = [deep]
    for path in ("parameters", "pair_trips", "pair_trips.1", "kind", "point", "with_distance"):
        state = loads(states["LR"])
        put(state, path, deep)
        with pytest.raises(ValueError):
            from_state(state)


# --- what passes answers --------------------------------------------------------------------

PAIRS = [(1, 1), (74, 75), (132, 230), (265, 264), (264, 1), (265, 265)]
MONDAY = datetime(2021, 2, 1, 8, 30)


def check_answers(model) -> None:
    """Every pair is answered with finite minutes in order, one by one and many at once."""
    predictor = RidePredictor(model)
    for pickup, dropoff in PAIRS:
        for miles in (None, 0.01, 5.0, 100.0):
            answer = predictor.answer(pickup, dropoff, MONDAY, miles)
            assert np.isfinite(answer).all()
            assert 0 < answer.p10 <= answer.p50 <= answer.p90
            reasons = predictor.explain(pickup, dropoff, MONDAY, miles)
            assert np.isfinite([reason.minutes for reason in reasons]).all()
    zones = np.arange(1, ZONES, dtype="int16")
    pickup, dropoff = (a.reshape(-1) for a in np.meshgrid(zones, zones))
    when = np.full(len(pickup), "2021-02-01T08:30", "datetime64[s]")
    answers = model.answer(Rides(pickup, dropoff, when, np.full(len(pickup), 5.0, "float32")))
    for minutes in (answers.duration, answers.p10, answers.p50, answers.p90):
        assert np.isfinite(minutes).all()


EXTREMES = [
    ("LR", "point.1.pair_minutes", at(slice(0, -1), LARGEST)),
    ("LR", "point.1.vectorizer.mean_miles", at(slice(None), LARGEST)),
    ("LR", "point.1.minutes_per_mile", -LARGEST),
    ("LR", "pair_trips", at(slice(None), 2**31 - 1)),
    ("LR", "with_distance.ratios.6", at(slice(None), 1e-300)),
    ("LR", "with_distance.ratios.6", at(slice(None), LARGEST)),
    ("XGB", "point.1.tables.pair", at(slice(None), LARGEST)),
    ("XGB", "point.1.tables.pair", at(slice(None), math.nan)),
    ("XGB", "point.1.tables.pair", at(slice(None), -1e-30)),
    ("XGB", "point.1.tables.city_hour", at(slice(None), 1e-6)),
    ("XGB", "point.1.tables.pickup_hour", at(slice(None), 0.0)),
    ("XGB", "point.1.tables.minutes_of_miles.slope", at(slice(None), LARGEST)),
    ("XGB", "point.1.tables.minutes_of_miles.unknown", math.nan),
    ("XGB", "point.1.tables.atlas.pair", at(slice(None), math.nan)),
    ("XGB", "point.1.tables.atlas", None),
    ("XGB", f"{TREES}.nodes", at(slice(None), MAX_VALUE, "value")),
    ("XGB", f"{TREES}.nodes", at(slice(None), -MAX_VALUE, "value")),
    ("XGB", f"{TREES}.nodes", at(slice(None), math.inf, "threshold")),
    ("XGB", f"{TREES}.base", LARGEST),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:overflow encountered")  # infinity only steers a tree
@pytest.mark.parametrize(("kind", "path", "change"), EXTREMES)
def test_the_strangest_model_that_passes_answers_every_pair(states, kind, path, change):
    state = loads(states[kind])
    put(state, path, change)
    check_answers(from_state(state))
