"""The gate: whether a newer challenger is no worse than the champion, beyond noise, and harmless.

Both answer the same rides, which neither has seen; whole days are resampled, since the rides
of one day share its weather and traffic. A newer version that is not worse is worth having:
the city changes, and the test on live rides comes after. Bounds and their
reasons are in `gate_settings.json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from msgspec import Struct

from taxi_duration.domain.months import parse_months
from taxi_duration.domain.pickup_calendar import window_days
from taxi_duration.domain.rides import Answers, Rides
from taxi_duration.domain.version import Version
from taxi_duration.errors import SettingError
from taxi_duration.evaluation.bootstrap import DayBootstrap
from taxi_duration.evaluation.gain_words import gain_in_words
from taxi_duration.evaluation.metrics import NOMINAL_COVERAGE, segment_masks
from taxi_duration.files import read_settings
from taxi_duration.model.duration_model import DurationModel
from taxi_duration.model.lookups import Lookup


class GateSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """The values of `gate_settings.json`; shares are 0 to 1."""

    confidence: float
    resamples: int
    min_days: int
    min_rows: int
    max_loss_share: float
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
        """Why, in short: what failed, or how the challenger's error compares."""
        if not self.promoted:
            return "; ".join(self.reasons)
        return next((c.detail for c in self.checks if c.name == "error"), self.checks[-1].detail)

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
    return read_settings(__package__, "gate_settings.json", GateSettings)


def fitted_months(card: Mapping[str, Any]) -> set[str]:
    """Return the months that a version's model was fitted on, with those of a `refit`."""
    refit = parse_months(card["refit"]["months"]) if "refit" in card else []
    return {entry["month"] for entry in card["months"]["train"]} | set(map(str, refit))


def check_unseen(month: str, *cards: Mapping[str, Any]) -> None:
    """Refuse a month that a registered model was trained on.

    Raises:
        SettingError: names the month and the model.
    """
    for card in cards:
        if month in fitted_months(card):
            name = Version.of(card).ref
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
    theirs = (champion.answer(rides), champion.answer(unaided).duration) if champion else None
    ours = (challenger.answer(rides), challenger.answer(unaided).duration)
    minutes = {name: lookup.predict_minutes(rides) for name, lookup in lookups.items()}
    return compare_answers(theirs, ours, minutes, rides, actual, settings)


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
        checks.append(_error(days, theirs, error, settings))
        checks.append(_rmse(days, theirs, error, settings))
    checks.append(_beats_lookups(days, lookups, error, actual))
    checks.append(_coverage(days, champion and champion[0], answers, actual, settings))
    if champion is not None:
        masks = segment_masks(rides, answers.support)
        segments = {name: (theirs, error, mask) for name, mask in masks.items()}
        without = (np.abs(champion[1] - actual), np.abs(unaided - actual))
        segments["without_distance"] = (*without, np.ones(len(actual), dtype=bool))
        checks.append(_segments(rides.pickup_at, segments, settings))
    return Decision(all(c.passed for c in checks), len(actual), day_count, tuple(checks))


def _enough(rows: int, days: int, settings: GateSettings) -> Check:
    passed = rows >= settings.min_rows and days >= settings.min_days
    detail = (
        f"{rows:,} unseen trips on {days} days (at least {settings.min_rows:,} on "
        f"{settings.min_days} are needed)"
    )
    return Check("unseen_rows", passed, detail, {"rows": rows, "days": days})


def _error(
    days: DayBootstrap, theirs: np.ndarray, ours: np.ndarray, settings: GateSettings
) -> Check:
    """Not worse: the low end of the gain must stay above the loss that nobody would notice."""
    gain = days.mean(np.subtract(theirs, ours, dtype="float64"))
    bound = -settings.max_loss_share * float(theirs.mean())
    detail = f"on average {gain_in_words(*gain)}; its low end may be {-bound:.3f} farther off"
    numbers = {
        "gain_min": gain.value, "low_min": gain.low, "high_min": gain.high, "bound_min": bound,
        "champion_mae": float(theirs.mean()), "challenger_mae": float(ours.mean()),
    }  # fmt: skip
    return Check("error", gain.low > bound, detail, numbers)


def _rmse(
    days: DayBootstrap, theirs: np.ndarray, ours: np.ndarray, settings: GateSettings
) -> Check:
    """A guard against few large errors: refused when the loss is beyond noise and the bound."""
    before, after = (float(np.sqrt(np.mean(e.astype("float64") ** 2))) for e in (theirs, ours))
    squares = (e.astype("float64") ** 2 for e in (ours, theirs))
    low = float(np.sqrt(days.ratio(*squares).low)) - 1
    detail = (
        f"RMSE {after:.3f} min, the champion's is {before:.3f} "
        f"({_sure_loss(low, settings.max_loss_share)})"
    )
    numbers = {"champion_rmse": before, "challenger_rmse": after, "low_loss": low}
    return Check("rmse", low <= settings.max_loss_share, detail, numbers)


def _sure_loss(low: float, most: float) -> str:
    sure = f"surely worse by {low:.1%}" if low > 0 else "not surely worse"
    return f"{sure}; at most {most:.1%} is allowed"


def _beats_lookups(
    days: DayBootstrap, lookups: Mapping[str, np.ndarray], ours: np.ndarray, actual: np.ndarray
) -> Check:
    errors = {name: np.abs(minutes - actual) for name, minutes in lookups.items()}
    best = min(errors, key=lambda name: errors[name].mean())
    gain = days.mean(np.subtract(errors[best], ours, dtype="float64"))
    detail = f"against the best lookup, {best}: {gain_in_words(*gain)}; the low end must be nearer"
    numbers = {"gain_min": gain.value, "low_min": gain.low, "lookup_mae": errors[best].mean()}
    return Check("lookups", gain.low > 0, detail, {k: float(v) for k, v in numbers.items()})


def _coverage(
    days: DayBootstrap,
    champion: Answers | None,
    answers: Answers,
    actual: np.ndarray,
    settings: GateSettings,
) -> Check:
    """Too narrow is refused, unless the champion's are farther off; too wide is mended later.

    Whatever passes gets its intervals from this month before it serves (`training/refit.py`).
    """
    low, high = settings.min_coverage, settings.max_coverage
    share = days.mean(_inside(answers, actual))
    passed = share.high >= low
    detail = (
        f"P10-P90 holds {share.value:.1%} of the trips ({share.low:.1%} to {share.high:.1%}; "
        f"must reach {low:.0%})"
    )
    if share.low > high:
        detail += "; wider than promised, to be measured anew on this month"
    numbers = {"coverage": share.value, "low": share.low, "high": share.high}
    if champion is not None:
        theirs = days.mean(_inside(champion, actual))
        numbers["champion_coverage"] = theirs.value
        nearer = abs(share.value - NOMINAL_COVERAGE) < abs(theirs.value - NOMINAL_COVERAGE)
        if not passed and nearer and theirs.high < low:
            passed = True
            detail += f", nearer than the champion's {theirs.value:.1%}"
    return Check("coverage", passed, detail, numbers)


def _inside(answers: Answers, actual: np.ndarray) -> np.ndarray:
    return ((actual >= answers.p10) & (actual <= answers.p90)).astype("float64")


def _segments(
    pickup_at: np.ndarray,
    segments: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]],
    settings: GateSettings,
) -> Check:
    """Refuse when a segment's loss is beyond its own noise, and that of looking at several.

    Only the low end of a loss counts, so the whole error of an interval lies on that side;
    it is divided by the number of segments (Bonferroni).

    Args:
        pickup_at: shape (n,).
        segments: by name the champion's and the challenger's absolute errors (minutes) and
            which rides count, each of shape (n,).
    """
    judged = {
        name: (ours * mask, theirs * mask)
        for name, (theirs, ours, mask) in segments.items()
        if np.count_nonzero(mask) >= settings.min_segment_rows
    }
    if not judged:
        detail = f"no segment has {settings.min_segment_rows} trips to be judged by"
        return Check("segments", True, detail, {})
    confidence = 1 - 2 * (1 - settings.confidence) / len(judged)
    days = DayBootstrap(pickup_at, confidence, settings.resamples)
    losses = {name: days.ratio(*errors) for name, errors in judged.items()}
    bound = settings.max_segment_loss_share
    worst = max(losses, key=lambda name: losses[name].low)
    low = losses[worst].low - 1
    detail = (
        f"the worst segment, {worst}, changes its MAE by {losses[worst].value - 1:+.1%} "
        f"({_sure_loss(low, bound)})"
    )
    numbers = {name: loss.value - 1 for name, loss in losses.items()}
    numbers |= {f"{name}_low": loss.low - 1 for name, loss in losses.items()}
    return Check("segments", low <= bound, detail, numbers)
