"""A model as plain values, and back: what `model.bin` holds, and every check it must pass.

The state has a dict for each of our classes, field by field, and [type, shape, bytes] for an
array. `from_state` makes a model only of a state in which every type, shape and range is right.
What passes answers every pair of zones with finite minutes: indices stay in their tables,
divisors are not zero, sums stay finite, walks through trees end.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from taxi_duration.domain.geometry import ZONES
from taxi_duration.domain.limits import LONGEST_MINUTES, SHORTEST_MINUTES
from taxi_duration.domain.pickup_calendar import CELLS
from taxi_duration.domain.special_days import day_kinds
from taxi_duration.model.atlas import ATLAS_COLUMNS, Atlas
from taxi_duration.model.curves import Curve
from taxi_duration.model.day_level import SEASON_WEEKS, DayLevel
from taxi_duration.model.duration_model import DurationModel, PointModel
from taxi_duration.model.extra_features import MAX_COLUMNS
from taxi_duration.model.features import DISTANCE_FEATURES, FEATURES, PAIR_TABLE, FeatureTables
from taxi_duration.model.intervals import (
    KIND_NAMES,
    LEAST_SCALE,
    LEVELS,
    MOST_SCALE,
    SCALES,
    SUPPORTS,
    Intervals,
)
from taxi_duration.model.linear import LinearModel, PairVectorizer
from taxi_duration.model.tree_model import TreeModel
from taxi_duration.model.trees import NODE, TreeEnsemble

TYPES: dict[str, np.dtype] = {
    "float32": np.dtype("<f4"),
    "float64": np.dtype("<f8"),
    "int32": np.dtype("<i4"),
    "node": NODE,
}
# No minute, mile, ratio or count of ours comes near; products of three stay within float32.
LARGEST = 1e9
MEASURES = 2  # that hours change: minutes and pace
MAX_DEPTH = 3  # of lists and dicts in the parameters
LEVELS_OF_DAYS = (0.25, 4.0)  # a lockdown's April was 0.75 of the usual


def to_state(model: DurationModel) -> dict[str, Any]:
    """Return a model as dicts, lists, numbers, texts and bytes.

    Raises:
        ValueError: it is no model, or holds what has no place in a state.
    """
    if not isinstance(model, DurationModel):
        raise ValueError(f"holds a {type(model).__name__}, not a DurationModel")
    state = _plain(model)
    form = next(name for name, (cls, _) in _FORMS.items() if isinstance(model.point, cls))
    return {**state, "point": [form, state["point"]]}


def from_state(state: Any) -> DurationModel:
    """Return the model of a state, every part checked.

    Raises:
        ValueError: names the part, what was found and what was expected.
    """
    part = _Part(state, "model", DurationModel)
    kind = part.text("kind")
    trips = part.array("pair_trips", "int32", ZONES, ZONES)
    if (trips < 0).any() or not trips.any():
        raise ValueError("model.pair_trips counts trips below zero, or none at all")
    parameters = part["parameters"]
    if type(parameters) is not dict or not _is_json(parameters, MAX_DEPTH):
        raise ValueError("model.parameters are not names with numbers, texts and lists of them")
    return DurationModel(
        kind, _point(part["point"]), _intervals(part, "with_distance"),
        _intervals(part, "without_distance"), trips, parameters,
    )  # fmt: skip


# --- Writing ------------------------------------------------------------------------------


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, np.ndarray):
        for name, dtype in TYPES.items():
            if value.dtype == dtype:
                return [name, list(value.shape), value.tobytes()]
        raise ValueError(f"holds an array of {value.dtype}; allowed are {', '.join(TYPES)}")
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, np.generic):
        return _plain(value.item())
    raise ValueError(f"holds a {type(value).__name__}, which has no place in {__name__}")


# --- Reading ------------------------------------------------------------------------------


class _Part:
    """The fields of one of our classes, to be taken by name and type; no more and no less.

    Args:
        value: what the state has; must be a dict of exactly the class's fields.
        where: what messages call it.
        cls: one of our dataclasses.
    """

    def __init__(self, value: Any, where: str, cls: type) -> None:
        if type(value) is not dict:
            raise ValueError(f"{where} is a {type(value).__name__}, expected a dict")
        expected = [field.name for field in fields(cls)]
        missing = [name for name in expected if name not in value]
        unknown = [name for name in value if name not in expected]
        if missing or unknown:
            shown = ", ".join(missing + unknown)[:200]
            raise ValueError(f"{where} {'lacks' if missing else 'has unknown'} {shown}")
        self.where = where
        self._value = value

    def __getitem__(self, name: str) -> Any:
        return self._value[name]

    def part(self, name: str, cls: type) -> _Part:
        return _Part(self[name], f"{self.where}.{name}", cls)

    def text(self, name: str) -> str:
        text: str = self._of_type(name, str)
        return text

    def whole(self, name: str, low: int, high: int) -> int:
        whole: int = self._in_range(name, int, low, high)
        return whole

    def number(self, name: str, low: float = -LARGEST, high: float = LARGEST) -> float:
        number: float = self._in_range(name, float, low, high)
        return number

    def texts(self, name: str) -> tuple[str, ...]:
        value = self._of_type(name, list)
        if any(type(item) is not str for item in value):
            raise ValueError(f"{self.where}.{name} is not a list of texts")
        return tuple(value)

    def array(self, name: str, kind: str, *shape: int | None) -> np.ndarray:
        """Return a read-only array; None in the shape stands for 1 or more."""
        return _array(self[name], f"{self.where}.{name}", kind, shape)

    def numbers(
        self, name: str, kind: str, *shape: int | None, low: float = -LARGEST
    ) -> np.ndarray:
        """The same, every value finite and from `low` to LARGEST."""
        return _within(self.array(name, kind, *shape), f"{self.where}.{name}", low)

    def _in_range(self, name: str, expected: type, low: float, high: float) -> Any:
        value = self._of_type(name, expected)
        if not low <= value <= high:  # NaN is within no range
            raise ValueError(f"{self.where}.{name} is not within {low:g} and {high:g}")
        return value

    def _of_type(self, name: str, expected: type) -> Any:
        value = self[name]
        if type(value) is not expected:  # a bool is no number here
            found, wanted = type(value).__name__, expected.__name__
            raise ValueError(f"{self.where}.{name} is a {found}, expected a {wanted}")
        return value


def _array(value: Any, where: str, kind: str, shape: tuple[int | None, ...]) -> np.ndarray:
    """Return the array of [type, shape, bytes], a view of the bytes."""
    wanted = f"{kind} of shape ({', '.join('any' if n is None else str(n) for n in shape)})"
    if (
        type(value) is not list
        or [type(item) for item in value] != [str, list, bytes]
        or any(type(size) is not int for size in value[1])
    ):
        raise ValueError(f"{where} is no [type, shape, bytes], expected {wanted}")
    name, sizes, content = value
    if not (
        name == kind
        and len(sizes) == len(shape)
        and all(size > 0 and n in (None, size) for n, size in zip(shape, sizes, strict=True))
        and math.prod(sizes) * TYPES[kind].itemsize == len(content)
    ):
        found = f"{name[:20]} of shape {tuple(sizes[:4])} in {len(content)} bytes"
        raise ValueError(f"{where} is {found}, expected {wanted}")
    return np.frombuffer(content, TYPES[kind]).reshape(sizes)


def _within(values: np.ndarray, where: str, low: float, may_lack: bool = False) -> np.ndarray:
    """Return the values, all from `low` to LARGEST; NaN only where some may lack."""
    good = (values >= low) & (values <= LARGEST)  # NaN and infinities are not
    if not (good | np.isnan(values) if may_lack else good).all():
        raise ValueError(f"{where} has a value that is no number from {low:g} to {LARGEST:g}")
    return values


def _is_json(value: Any, depth: int) -> bool:
    if type(value) is dict:
        value = [*value.values()]  # names are texts in every plain pickle
    if type(value) is list:
        return depth > 0 and all(_is_json(item, depth - 1) for item in value)
    if type(value) is int:
        return abs(value) < 2**63
    if type(value) is float:
        return math.isfinite(value)
    return value is None or type(value) in (bool, str)


def _intervals(model: _Part, name: str) -> Intervals:
    part = model.part(name, Intervals)
    curves = part["knots"], part["ratios"]
    groups = len(KIND_NAMES) * SUPPORTS
    if any(type(curve) is not list or len(curve) != groups for curve in curves):
        raise ValueError(f"{part.where} has not knots and ratios for {groups} groups")
    knots, ratios = [], []
    for k, (at, height) in enumerate(zip(*curves, strict=True)):
        where = f"{part.where} of group {k}"
        knots.append(_rising(_array(at, where, "float64", (None,)), where))
        ratio = _array(height, where, "float64", (len(knots[-1]), len(LEVELS)))
        if not (ratio > 0).all() or (np.diff(_within(ratio, where, 0.0)) < 0).any():
            raise ValueError(f"{where} has ratios that are not above zero, P10 to P90 in order")
        ratios.append(ratio)
    limit = part.number("limit", SHORTEST_MINUTES, LONGEST_MINUTES)
    return Intervals(tuple(knots), tuple(ratios), _scales(part), limit)


def _scales(part: _Part) -> tuple[np.ndarray, ...]:
    given = part["scales"]
    if type(given) is not list or len(given) != len(SCALES):
        raise ValueError(f"{part.where} has not scales of {', '.join(SCALES)}")
    scales = []
    for value, (name, count) in zip(given, SCALES.items(), strict=True):
        where = f"{part.where}'s scale of {name}"
        scale = _within(_array(value, where, "float64", (count,)), where, LEAST_SCALE)
        if (scale > MOST_SCALE).any():
            raise ValueError(f"{where} is above {MOST_SCALE:g}")
        scales.append(scale)
    return tuple(scales)


def _rising(knots: np.ndarray, where: str) -> np.ndarray:
    if len(knots) < 2 or not (np.diff(_within(knots, where, -LARGEST)) > 0).all():
        raise ValueError(f"{where} has knots that do not rise, or fewer than two")
    return knots


# --- Point answers ------------------------------------------------------------------------


def _point(value: Any) -> PointModel:
    """What answers in minutes, of [form, fields]."""
    if type(value) is not list or len(value) != 2 or value[0] not in list(_FORMS):
        raise ValueError(f"model.point is of no form that this version knows: {', '.join(_FORMS)}")
    cls, make = _FORMS[value[0]]
    return make(_Part(value[1], "model.point", cls))


def _linear_model(part: _Part) -> LinearModel:
    pairs = part.part("vectorizer", PairVectorizer)
    column_of = pairs.array("column_of", "int32", ZONES**2)
    n_pairs = pairs.whole("n_pairs", 0, ZONES**2)
    if not np.array_equal(np.sort(column_of[column_of != -1]), np.arange(n_pairs)):
        raise ValueError("model.point.vectorizer has columns that are not each of one pair")
    pair_minutes = part.numbers("pair_minutes", "float64", n_pairs + 1)
    if pair_minutes[-1] != 0:
        raise ValueError("model.point.pair_minutes are not zero for unseen pairs")
    mean_miles = pairs.numbers("mean_miles", "float64", n_pairs + 1, low=0.0)
    return LinearModel(
        PairVectorizer(column_of, n_pairs, mean_miles), pair_minutes,
        part.number("minutes_per_mile"), part.number("intercept"),
    )  # fmt: skip


def _tree_model(part: _Part) -> TreeModel:
    _check_features(part.texts("features"))
    conditions = part.texts("conditions")
    if len(set(conditions)) < len(conditions) or len(conditions) > MAX_COLUMNS:
        raise ValueError(f"model.point.conditions are above {MAX_COLUMNS}, or one comes twice")
    more = len(conditions)
    return TreeModel(
        _tables(part.part("tables", FeatureTables)),
        _trees(part.part("with_distance", TreeEnsemble), len(DISTANCE_FEATURES) + more),
        _trees(part.part("without_distance", TreeEnsemble), len(FEATURES) + more),
        conditions,
        level=_day_level(part.part("level", DayLevel)),
    )


def _day_level(part: _Part) -> DayLevel:
    season = part.numbers("season", "float64", SEASON_WEEKS, low=LEVELS_OF_DAYS[0])
    kinds = part["kinds"]
    if type(kinds) is not dict or not day_kinds().issuperset(kinds):
        raise ValueError(f"{part.where}.kinds are not of kinds of days that this version knows")
    for height in (*season.tolist(), *kinds.values()):
        if type(height) is not float or not LEVELS_OF_DAYS[0] <= height <= LEVELS_OF_DAYS[1]:
            raise ValueError(f"{part.where} has a level that is not within {LEVELS_OF_DAYS}")
    return DayLevel(season, kinds)


def _check_features(names: tuple[str, ...]) -> None:
    missing = [name for name in names if name not in DISTANCE_FEATURES]
    unknown = [name for name in DISTANCE_FEATURES if name not in names]
    if names != DISTANCE_FEATURES:
        raise ValueError(
            f"was fitted on other features than this version makes: missing here "
            f"{', '.join(missing)[:200] or 'none'}, new here {', '.join(unknown) or 'none'}"
        )


def _trees(part: _Part, n_features: int) -> TreeEnsemble:
    trees = _ensemble(part)
    try:
        trees.check(n_features)
    except ValueError as error:
        raise ValueError(f"{part.where}: {error}") from error
    return trees


def _ensemble(part: _Part, depth: int = 1) -> TreeEnsemble:
    bounded = part["bounded"]
    if bounded is not None and not depth:
        raise ValueError(f"{part.where} has bounded trees, and is one")
    return TreeEnsemble(
        part.array("nodes", "node", None),
        part.array("roots", "int32", None),
        part.number("base"),
        None if bounded is None else _ensemble(part.part("bounded", TreeEnsemble), depth - 1),
        part.number("bound", 0.0),
    )


def _tables(part: _Part) -> FeatureTables:
    pair = part.array("pair", "float32", ZONES, ZONES, len(PAIR_TABLE))
    city_hour = part.numbers("city_hour", "float32", CELLS, MEASURES, low=1e-6)
    return FeatureTables(
        _within(part.array("centre", "float32", ZONES, 2), f"{part.where}.centre", -LARGEST, True),
        _within(pair, f"{part.where}.pair", -LARGEST, True),
        *_by_hour(part),
        city_hour,
        _minutes_of_miles(part),
        None if part["atlas"] is None else _atlas(part.part("atlas", Atlas)),
    )


def _atlas(part: _Part) -> Atlas:
    pair = part.array("pair", "float32", ZONES, ZONES, len(ATLAS_COLUMNS))
    _within(pair, f"{part.where}.pair", -LARGEST, True)
    return Atlas(pair, *_by_hour(part), _minutes_of_miles(part))


def _by_hour(part: _Part) -> tuple[np.ndarray, np.ndarray]:
    """The ratios to the usual by zone and hour, of pickups and of drop-offs."""
    return (
        part.numbers("pickup_hour", "float32", ZONES, CELLS, MEASURES, low=0.0),
        part.numbers("dropoff_hour", "float32", ZONES, CELLS, MEASURES, low=0.0),
    )


def _minutes_of_miles(whole: _Part) -> Curve:
    part = whole.part("minutes_of_miles", Curve)
    x = _rising(part.array("x", "float64", None), part.where)
    y = part.numbers("y", "float64", len(x))
    slope = part.numbers("slope", "float64", len(x) - 1)
    unknown = part["unknown"]
    is_nan = type(unknown) is float and unknown != unknown
    return Curve(x, y, slope, unknown if is_nan else part.number("unknown"))


# What answers, by its name in the state: the class, and what makes it of its fields.
_FORMS: dict[str, tuple[type, Callable[[_Part], PointModel]]] = {
    "linear": (LinearModel, _linear_model),
    "trees": (TreeModel, _tree_model),
}
