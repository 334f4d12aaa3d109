"""The gate: whether a challenger is better than the champion, beyond noise, and harmless.

Both answer the same rides, which neither has seen; days are drawn again and again with all
their rides, since the rides of one day share its weather and traffic. Bounds and their
reasons are in `gate_settings.json`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np

from taxi_duration.domain.pickup_calendar import window_days
from taxi_duration.domain.rides import Answers, Rides
from taxi_duration.errors import SettingError
from taxi_duration.evaluation.bootstrap import DayBootstrap, Estimate
from taxi_duration.evaluation.metrics import NOMINAL_COVERAGE, segment_masks
from taxi_duration.model.duration_model import DurationModel
from taxi_duration.model.lookups import Lookup


@dataclass(frozen=True)
class GateSettings:
    """The values of `gate_settings.json`; shares are 0 to 1."""

    confidence: float
    resamples: int
    min_days: int
    min_rows: int
    min_gain_share: float
    min_coverage: float
    max_coverage: float
    max_segment_loss_share: float
    min_segment_rows: int


class Check(NamedTuple):
    """One condition: whether it holds, and the words and numbers behind that."""

    name: str
    passed: bool
    detail: str
    numbers: dict[str, float]


@dataclass(frozen=True)
class Decision:
    """What the gate says of a challenger, with the numbers that made it say so."""

    promoted: bool
    rows: int
    days: int
    checks: tuple[Check, ...]

    @property
    def reasons(self) -> list[str]:
        """Why the challenger is refused; what speaks for it when it is not."""
        return [check.detail for check in self.checks if check.passed == self.promoted]

    @property
    def headline(self) -> str:
        """Why, in short: what failed, or by how much the challenger is better."""
        if not self.promoted:
            return "; ".join(self.reasons)
        return next((c.detail for c in self.checks if c.name == "better"), self.checks[-1].detail)

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON types, for the report and the audit trail."""
        checks = {
            c.name: {"passed": c.passed, "detail": c.detail, **c.numbers} for c in self.checks
        }
        return {**asdict(self), "checks": checks}

    def as_tags(self) -> dict[str, str]:
        """Return the registry's tags: `gate`, `gate.rows`, `gate.better.gain_min`, …"""
        tags = {"gate": "passed" if self.promoted else "refused", "gate.rows": str(self.rows)}
        for check in self.checks:
            tags[f"gate.{check.name}"] = "passed" if check.passed else "refused"
            tags |= {f"gate.{check.name}.{k}": f"{v:.5g}" for k, v in check.numbers.items()}
        return tags


@cache
def gate_settings() -> GateSettings:
    """Return the settings as stored with the package."""
    content = json.loads((files(__package__) / "gate_settings.json").read_text())
    return GateSettings(**{name: entry["value"] for name, entry in content.items()})


def check_unseen(month: str, *cards: Mapping[str, Any]) -> None:
    """Refuse a month that a registered model was trained on.

    Raises:
        SettingError: names the month and the model.
    """
    for card in cards:
        if month in {entry["month"] for entry in card["months"]["train"]}:
            name = f"{card['name']}:{card['version']}"
            raise SettingError(f"{month} cannot judge {name}: it was trained on it")


def compare_models(
    champion: DurationModel | None,
    challenger: DurationModel,
    lookups: Mapping[str, Lookup],
    rides: Rides,
    actual: np.ndarray,
    settings: GateSettings | None = None,
) -> Decision:
    """Let both models answer rides that neither has seen, and judge.

    Args:
        champion: None when nothing serves yet: then there is nobody to be better than.
        challenger: the model to judge.
        lookups: fitted on the challenger's training trips (`baselines.fit_baselines`).
        rides: shape (n,).
        actual: minutes, shape (n,).
        settings: the package's own when None.
    """
    unaided = rides.without_distance()
    pairs = [
        (model.answer(rides), model.answer(unaided).duration) if model else None
        for model in (champion, challenger)
    ]
    minutes = {name: lookup.predict_minutes(rides) for name, lookup in lookups.items()}
    return compare_answers(*pairs, minutes, rides, actual, settings)


def compare_answers(
    champion: tuple[Answers, np.ndarray] | None,
    challenger: tuple[Answers, np.ndarray],
    lookups: Mapping[str, np.ndarray],
    rides: Rides,
    actual: np.ndarray,
    settings: GateSettings | None = None,
) -> Decision:
    """Judge answers that are there already; see `compare_models`.

    Args:
        champion, challenger: answers, and minutes answered as if no distance had been given.
        lookups: minutes by name, each of shape (n,).
    """
    settings = settings or gate_settings()
    answers, unaided = challenger
    days = DayBootstrap(rides.pickup_at, settings.confidence, settings.resamples)
    day_count = len(window_days(rides.pickup_at))
    error = np.abs(answers.duration - actual)
    checks = [_enough(len(actual), day_count, settings)]
    if champion is not None:
        theirs = np.abs(champion[0].duration - actual)
        checks.append(_better(days, theirs, error, settings))
        checks.append(_rmse(theirs, error))
    checks.append(_beats_lookups(days, lookups, error, actual))
    checks.append(_coverage(days, champion and champion[0], answers, actual, settings))
    if champion is not None:
        masks = segment_masks(rides, answers.support)
        losses = {name: (theirs[mask], error[mask]) for name, mask in masks.items()}
        without = (np.abs(champion[1] - actual), np.abs(unaided - actual))
        checks.append(_segments({**losses, "without_distance": without}, settings))
    return Decision(all(c.passed for c in checks), len(actual), day_count, tuple(checks))


def _enough(rows: int, days: int, settings: GateSettings) -> Check:
    passed = rows >= settings.min_rows and days >= settings.min_days
    detail = (
        f"{rows:,} unseen trips on {days} days (at least {settings.min_rows:,} on "
        f"{settings.min_days} are needed)"
    )
    return Check("unseen_rows", passed, detail, {"rows": rows, "days": days})


def _better(
    days: DayBootstrap, theirs: np.ndarray, ours: np.ndarray, settings: GateSettings
) -> Check:
    gain = days.mean(np.subtract(theirs, ours, dtype="float64"))
    bound = settings.min_gain_share * float(theirs.mean())
    detail = (
        f"nearer by {gain.value:+.3f} min on average ({gain.low:+.3f} to {gain.high:+.3f}; "
        f"the low end must pass {bound:+.3f})"
    )
    numbers = {
        "gain_min": gain.value, "low_min": gain.low, "high_min": gain.high, "bound_min": bound,
        "champion_mae": float(theirs.mean()), "challenger_mae": float(ours.mean()),
    }  # fmt: skip
    return Check("better", gain.low > bound, detail, numbers)


def _rmse(theirs: np.ndarray, ours: np.ndarray) -> Check:
    before, after = (float(np.sqrt(np.mean(e.astype("float64") ** 2))) for e in (theirs, ours))
    detail = f"RMSE {after:.3f} min, the champion's is {before:.3f}"
    numbers = {"champion_rmse": before, "challenger_rmse": after}
    return Check("rmse", after <= before, detail, numbers)


def _beats_lookups(
    days: DayBootstrap, lookups: Mapping[str, np.ndarray], ours: np.ndarray, actual: np.ndarray
) -> Check:
    errors = {name: np.abs(minutes - actual) for name, minutes in lookups.items()}
    best = min(errors, key=lambda name: errors[name].mean())
    gain = days.mean(np.subtract(errors[best], ours, dtype="float64"))
    detail = (
        f"nearer than the best lookup, {best}, by {gain.value:+.3f} min "
        f"({gain.low:+.3f} to {gain.high:+.3f}; must be above 0)"
    )
    numbers = {"gain_min": gain.value, "low_min": gain.low, "lookup_mae": errors[best].mean()}
    return Check("lookups", gain.low > 0, detail, {k: float(v) for k, v in numbers.items()})


def _coverage(
    days: DayBootstrap,
    champion: Answers | None,
    answers: Answers,
    actual: np.ndarray,
    settings: GateSettings,
) -> Check:
    """The band, or nearer to it than a champion that is outside: else the worse one would stay."""
    low, high = settings.min_coverage, settings.max_coverage
    share = days.mean(_inside(answers, actual))
    passed = _touches(share, low, high)
    detail = (
        f"P10-P90 holds {share.value:.1%} of the trips ({share.low:.1%} to {share.high:.1%}; "
        f"must touch {low:.0%} to {high:.0%})"
    )
    numbers = {"coverage": share.value, "low": share.low, "high": share.high}
    if champion is not None:
        theirs = days.mean(_inside(champion, actual))
        numbers["champion_coverage"] = theirs.value
        nearer = abs(share.value - NOMINAL_COVERAGE) < abs(theirs.value - NOMINAL_COVERAGE)
        if not passed and nearer and not _touches(theirs, low, high):
            passed = True
            detail += f", nearer than the champion's {theirs.value:.1%}"
    return Check("coverage", passed, detail, numbers)


def _inside(answers: Answers, actual: np.ndarray) -> np.ndarray:
    return ((actual >= answers.p10) & (actual <= answers.p90)).astype("float64")


def _touches(share: Estimate, low: float, high: float) -> bool:
    return share.high >= low and share.low <= high


def _segments(errors: Mapping[str, tuple[np.ndarray, np.ndarray]], settings: GateSettings) -> Check:
    """Compare the champion's and the challenger's absolute errors by segment."""
    losses = {
        name: float(ours.mean() / theirs.mean() - 1)
        for name, (theirs, ours) in errors.items()
        if len(ours) >= settings.min_segment_rows
    }
    bound = settings.max_segment_loss_share
    worst = max(losses, key=losses.__getitem__, default=None)
    passed = all(loss <= bound for loss in losses.values())
    detail = (
        f"the worst segment, {worst}, changes its MAE by {losses[worst]:+.1%} "
        f"(at most {bound:+.0%})"
        if worst
        else f"no segment has {settings.min_segment_rows} trips to be judged by"
    )
    return Check("segments", passed, detail, losses)
