"""How a model does on rides: errors, coverage, drift, and one verdict."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from taxi_duration.domain.levels import LEVELS
from taxi_duration.domain.pickup_calendar import window_days
from taxi_duration.domain.references import name_of
from taxi_duration.domain.rides import Rides
from taxi_duration.evaluation.bootstrap import DayBootstrap
from taxi_duration.evaluation.drift import Drift, Sample, measure_drift
from taxi_duration.evaluation.metrics import segment_masks

FEW_DAYS = 5  # with fewer, hours are drawn instead of days


@dataclass(frozen=True)
class MonitorSettings:
    """The values of `monitor_settings.json`; ratios and shares."""

    live_days: int
    min_answered: int
    mae_ratio_watch: float
    mae_ratio_alarm: float
    bias_share_watch: float
    bias_share_alarm: float
    coverage_watch: float
    coverage_alarm: float


class Reason(NamedTuple):
    """Why the verdict is not `ok`; `kind` is error, bias, coverage, drift or data."""

    kind: str
    level: str
    text: str


@dataclass(frozen=True)
class Health:
    """What the monitor found about one model on one set of rides.

    Args:
        source: `live log` or the month, such as `green 2021-03`.
        model: `name:version`.
        rides: answered; `answered` of them have their true duration.
        errors: as `live_errors`; empty when nothing has come true.
        drifts: as `drift.measure_drift`.
        reasons: worst first.
    """

    source: str
    model: str
    rides: int
    answered: int
    errors: pd.DataFrame
    drifts: list[Drift]
    reasons: list[Reason]

    @property
    def level(self) -> str:
        """`ok`, `watch` or `alarm`."""
        return LEVELS[max((LEVELS.index(r.level) for r in self.reasons), default=0)]

    @property
    def is_wrong(self) -> bool:
        """True when answers, not only the rides asked for, give the alarm."""
        return any(r.level == "alarm" and r.kind in ("error", "bias", "coverage")
                   for r in self.reasons)  # fmt: skip

    def overall(self) -> dict[str, float]:
        """Return the figures over all answered rides; empty when there are none."""
        rows = self.errors[self.errors["by"] == "overall"] if len(self.errors) else self.errors
        return {} if rows.empty else rows.iloc[0].drop(["by", "group"]).to_dict()

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON verdict."""
        return {
            "verdict": self.level,
            "source": self.source,
            "model": self.model,
            "rides": self.rides,
            "answered": self.answered,
            "reasons": [reason._asdict() for reason in self.reasons],
            "errors": json.loads(self.errors.to_json(orient="records")),
            "drift": [drift._asdict() for drift in self.drifts],
        }


@cache
def monitor_settings() -> MonitorSettings:
    """Return the settings as stored with the package."""
    content = json.loads((files(__package__) / "monitor_settings.json").read_text())
    return MonitorSettings(**{name: entry["value"] for name, entry in content.items()})


def live_errors(answered: pd.DataFrame, beside: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return errors overall and by version, arm and segment, with 95 % intervals over days.

    Args:
        answered: rides as `log_frame`, each with its `true_duration`.
        beside: rides of all versions, to be compared by version and arm; `answered` when None.
    Returns:
        One row per group: `by`, `group`, `rows`, then `mae`, `rmse`, `bias` (predicted -
        actual; all minutes), `coverage`, each with `_low` and `_high`.
    """
    rows = [
        *_error_rows(answered, _overall),
        *_error_rows(answered if beside is None else beside, _versions_and_arms),
        *_error_rows(answered, _segments),
    ]
    return pd.DataFrame(rows)


def _error_rows(
    answered: pd.DataFrame, groups: Callable[[pd.DataFrame], Iterable[tuple[str, str, np.ndarray]]]
) -> Iterator[dict[str, Any]]:
    if answered.empty:
        return
    days = draws_for(answered["pickup_at"].to_numpy())
    error = (answered["duration"] - answered["true_duration"]).to_numpy(dtype="float64")
    inside = answered["true_duration"].between(answered["p10"], answered["p90"]).to_numpy()
    for by, group, mask in groups(answered):
        kept = mask.astype("float64")
        estimates = {
            "mae": days.ratio(np.abs(error) * kept, kept),
            "rmse": days.rmse(error, kept),
            "bias": days.ratio(error * kept, kept),
            "coverage": days.ratio(inside * kept, kept),
        }
        figures = {}
        for name, (value, low, high) in estimates.items():
            figures |= {name: value, f"{name}_low": low, f"{name}_high": high}
        yield {"by": by, "group": group, "rows": int(mask.sum()), **figures}


def draws_for(pickup_at: np.ndarray) -> DayBootstrap:
    """Return draws of days, or of hours while there are only a few days."""
    few = len(window_days(pickup_at)) < FEW_DAYS
    return DayBootstrap(pickup_at, block="h" if few else "D")


def expected_error(card: Mapping[str, Any], used_distance: np.ndarray) -> float:
    """Return the MAE (minutes) that the card promises for rides with and without distance."""
    share = float(np.mean(used_distance))
    scores = card["metrics"]
    return share * scores["with_distance"]["mae"] + (1 - share) * scores["without_distance"]["mae"]


def _overall(answered: pd.DataFrame) -> Iterable[tuple[str, str, np.ndarray]]:
    yield "overall", "all", np.ones(len(answered), dtype=bool)


def _versions_and_arms(answered: pd.DataFrame) -> Iterable[tuple[str, str, np.ndarray]]:
    for by, column in (("version", "model"), ("arm", "arm")):
        for group in sorted(answered[column].unique()):
            yield by, str(group), (answered[column] == group).to_numpy()


def _segments(answered: pd.DataFrame) -> Iterable[tuple[str, str, np.ndarray]]:
    """Those that have a ride."""
    masks = segment_masks(Rides.from_frame(answered), answered["support"].to_numpy())
    for segment, mask in masks.items():
        if mask.any():
            yield "segment", segment, mask


def check_health(
    source: str,
    frame: pd.DataFrame,
    card: Mapping[str, Any],
    reference: Sample | None,
    whole_month: bool = False,
    settings: MonitorSettings | None = None,
    beside: pd.DataFrame | None = None,
) -> Health:
    """Look at the rides that one model answered.

    Args:
        source: what to call them.
        frame: as `log_frame` or `answer_trips`; rides of other models are left out.
        card: of the model; its validation error is what is expected.
        reference: rides of the training months; None when they cannot be read.
        whole_month: the rides are all trips of a month, so that their number tells.
        settings: the package's own when None.
        beside: rides of all versions, for the errors by version and arm; `frame` when None.
    """
    settings = settings or monitor_settings()
    model = name_of(dict(card))
    frame = frame[frame["model"] == model] if len(frame) else frame
    answered = _told(frame)
    drifts = _drifts(reference, frame, whole_month) if reference is not None and len(frame) else []
    reasons = []
    errors = live_errors(answered, None if beside is None else _told(beside))
    if len(answered) >= settings.min_answered:
        expected = expected_error(card, answered["used_distance"].to_numpy())
        reasons += _error_reasons(errors.iloc[0], expected, answered, settings)
    reasons += [Reason("drift", d.level, d.text) for d in drifts if d.level != "ok"]
    if reference is None:
        reasons.append(Reason("data", "watch", "the training months cannot be read: no drift"))
    reasons.sort(key=lambda reason: -LEVELS.index(reason.level))
    return Health(source, model, len(frame), len(answered), errors, drifts, reasons)


def _told(frame: pd.DataFrame) -> pd.DataFrame:
    """Rides whose true duration is known."""
    return frame[frame["true_duration"].notna()] if len(frame) else frame


def _drifts(reference: Sample, frame: pd.DataFrame, whole_month: bool) -> list[Drift]:
    actual = frame["true_duration"]
    current = Sample(
        Rides.from_frame(frame),
        frame["duration"].to_numpy(),
        actual.to_numpy() if actual.notna().all() else None,
    )
    return measure_drift(reference, current, whole_month)


def _error_reasons(
    overall: pd.Series, expected: float, answered: pd.DataFrame, settings: MonitorSettings
) -> list[Reason]:
    """Judge error, bias and coverage; the near end of each interval must pass the bound."""
    mean = float(answered["true_duration"].mean())
    ratio = overall["mae_low"] / expected
    low, high = overall["bias_low"], overall["bias_high"]
    bias = max(low, -high, 0.0) / mean
    coverage = overall["coverage_high"]
    found = [
        (
            "error", _level(ratio, settings.mae_ratio_watch, settings.mae_ratio_alarm),
            f"MAE {overall['mae']:.2f} min ({overall['mae_low']:.2f} to "
            f"{overall['mae_high']:.2f}), {overall['mae'] / expected:.2f} times the "
            f"{expected:.2f} of the validation",
        ),
        (
            "bias", _level(bias, settings.bias_share_watch, settings.bias_share_alarm),
            f"answers are {abs(overall['bias']):.2f} min too {'long' if low > 0 else 'short'} "
            f"on average, {abs(overall['bias']) / mean:.0%} of a trip",
        ),
        (
            "coverage", _level(-coverage, -settings.coverage_watch, -settings.coverage_alarm),
            f"P10-P90 holds {overall['coverage']:.1%} of the trips, nominal are 80 %",
        ),
    ]  # fmt: skip
    return [Reason(*each) for each in found if each[1] != "ok"]


def _level(value: float, watch: float, alarm: float) -> str:
    return "alarm" if value >= alarm else "watch" if value >= watch else "ok"
