"""How a model does on rides: errors, coverage, drift, and one verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from msgspec import Struct
from msgspec.structs import replace

from taxi_duration.domain.findings import (
    KINDS,
    LEVELS,
    WRONG_KINDS,
    Drift,
    ErrorEstimate,
    Level,
    Reason,
    level_of,
    worst,
)
from taxi_duration.domain.limits import LONGEST_MINUTES, SHORTEST_MINUTES
from taxi_duration.domain.pickup_calendar import window_days
from taxi_duration.domain.rides import NEW_YORK, Rides
from taxi_duration.domain.truths import (
    OUTSIDE,
    QUARANTINED,
    SCORED,
    UNKNOWN,
    count_of,
    count_truths,
    judge_truths,
)
from taxi_duration.domain.version import Version
from taxi_duration.evaluation.bootstrap import DayBootstrap
from taxi_duration.evaluation.drift import MIN_DAYS, MIN_ROWS, Sample, measure_drift
from taxi_duration.evaluation.drivers import describe_drift, find_drivers
from taxi_duration.evaluation.error_estimate import ErrorEstimator
from taxi_duration.evaluation.metrics import segment_masks
from taxi_duration.evaluation.newest_days import join_days, newest_days
from taxi_duration.evaluation.selection import judge_selection
from taxi_duration.evaluation.silence import Activity, judge_amount, judge_silence
from taxi_duration.files import read_settings

FEW_DAYS = 5  # with fewer, hours are drawn instead of days


class MonitorSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """The values of `monitor_settings.json`; ratios and shares."""

    live_days: int
    min_answered: int
    mae_ratio_watch: float
    mae_ratio_alarm: float
    bias_short_watch: float
    bias_short_alarm: float
    bias_long_watch: float
    bias_long_alarm: float
    coverage_watch: float
    coverage_alarm: float
    outside_ratio_watch: float
    outside_ratio_alarm: float
    max_quarantined_share: float
    day_mae_ratio_watch: float
    day_mae_ratio_alarm: float
    day_bias_short_watch: float
    day_bias_short_alarm: float
    day_bias_long_watch: float
    day_bias_long_alarm: float
    day_coverage_watch: float
    day_coverage_alarm: float
    selection_watch: float
    selection_alarm: float
    silent_ride_hours: float
    silent_feedback_hours: float
    estimate_mae_share: float
    estimate_coverage: float

    def bounds(self, kind: str, one_day: bool) -> tuple[float, float]:
        """Return the bounds from which a figure is `watch` and `alarm`, of one day or of all.

        Args:
            kind: `mae_ratio`, `bias_short`, `bias_long` or `coverage`.
        """
        name = f"day_{kind}" if one_day else kind
        return getattr(self, f"{name}_watch"), getattr(self, f"{name}_alarm")


class Standard(NamedTuple):
    """What a model is held to: its card, rides of its training months, the bounds."""

    card: Mapping[str, Any]
    reference: Sample | None
    settings: MonitorSettings

    @property
    def errors(self) -> ErrorEstimator | None:
        """What was learned about its errors on validation rides."""
        return None if self.reference is None else self.reference.errors


@dataclass(frozen=True)
class Health:
    """What the monitor found about one model on one set of rides.

    Args:
        source: `live log` or the month, such as `green 2021-03`.
        model: `name:version`.
        rides: answered; `answered` of them have a true duration that is scored.
        errors: as `live_errors`; empty when nothing has come true.
        drifts: as `drift.measure_drift`.
        reasons: worst first.
        truths: number of true durations of each code of `domain.truths`.
        hold: why no decision may rest on these rides, None when one may.
        estimate: of the errors of rides without a true duration; None when it cannot be made.
        activity: when the log last got a ride and a true duration; None for published months.
        columns: what the columns of a published month say of it; shown, but no reason for the
            verdict: a faulty file is no fault of the model's.
    """

    source: str
    model: str
    rides: int
    answered: int
    errors: pd.DataFrame
    drifts: list[Drift]
    reasons: list[Reason]
    truths: dict[str, int] = field(default_factory=dict)
    hold: str | None = None
    estimate: ErrorEstimate | None = None
    activity: Activity | None = None
    columns: list[str] = field(default_factory=list)

    @property
    def level(self) -> Level:
        """The worst level of the reasons; `unknown` rather than `ok` while no truth is known."""
        level = worst(reason.level for reason in self.reasons)
        return "unknown" if level == "ok" and not self.answered else level

    @property
    def is_worrying(self) -> bool:
        """True when something speaks against the model; not when nothing is known."""
        return self.level in ("watch", "alarm")

    @property
    def is_wrong(self) -> bool:
        """True when answers, not only the rides asked for, give the alarm."""
        return any(r.level == "alarm" and r.kind in WRONG_KINDS for r in self.reasons)

    def overall(self) -> dict[str, float]:
        """Return the figures over all answered rides; empty when there are none."""
        rows = self.errors[self.errors["by"] == "overall"] if len(self.errors) else self.errors
        return {} if rows.empty else rows.iloc[0].drop(["by", "group"]).to_dict()


@cache
def monitor_settings() -> MonitorSettings:
    """Return the settings as stored with the package."""
    return read_settings(__package__, "monitor_settings.json", MonitorSettings)


def live_errors(
    answered: pd.DataFrame, beside: pd.DataFrame | None = None, in_groups: bool = True
) -> pd.DataFrame:
    """Return errors overall and by version, arm and segment, with 95 % intervals over days.

    They are those of the models' own answers; a row `given` says what riders got, where that was
    another answer.

    Args:
        answered: rides as `log_frame`, each with its `true_duration`.
        beside: rides of all versions, to be compared by version and arm; `answered` when None.
        in_groups: with other rows than the one over all rides.
    Returns:
        One row per group: `by`, `group`, `rows`, then `mae`, `rmse`, `bias` (predicted -
        actual; all minutes), `coverage`, each with `_low` and `_high`.
    """
    rows = [*_error_rows(answered, _overall)]
    if in_groups:
        rows += _error_rows(_as_given(answered), _with_traffic)
        rows += _error_rows(answered if beside is None else beside, _versions_and_arms)
        rows += _error_rows(answered, _segments)
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
        figures: dict[str, float] = {}
        for name, (value, low, high) in estimates.items():
            figures |= {name: value, f"{name}_low": low, f"{name}_high": high}
        yield {"by": by, "group": group, "rows": int(mask.sum()), **figures}


def draws_for(pickup_at: np.ndarray) -> DayBootstrap:
    """Return draws of days, or of hours while there are only a few days."""
    few = len(window_days(pickup_at)) < FEW_DAYS
    return DayBootstrap(pickup_at, block="h" if few else "D")


def expected_error(card: Mapping[str, Any], used_distance: np.ndarray) -> float:
    """Return the MAE (minutes) that the card promises for rides with and without distance.

    Rides with a proven fault of their clocks are in no promise.
    """
    share = float(np.mean(used_distance))
    scores = card["metrics"].get("without_suspects", card["metrics"])
    return share * scores["with_distance"]["mae"] + (1 - share) * scores["without_distance"]["mae"]


def _overall(answered: pd.DataFrame) -> Iterable[tuple[str, str, np.ndarray]]:
    yield "overall", "all", np.ones(len(answered), dtype=bool)


def _as_given(answered: pd.DataFrame) -> pd.DataFrame:
    """The rides with the answers that riders got; none where those are the models' own."""
    if "given_duration" not in answered:  # of a published month
        return answered.iloc[:0]
    given = {name: answered[f"given_{name}"] for name in ("duration", "p10", "p90")}
    if all(given[name].equals(answered[name].astype(given[name].dtype)) for name in given):
        return answered.iloc[:0]
    return answered.assign(**given)


def _with_traffic(answered: pd.DataFrame) -> Iterable[tuple[str, str, np.ndarray]]:
    yield "given", "with live traffic", np.ones(len(answered), dtype=bool)


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
    since: float = 0.0,
    compare: bool = False,
    activity: Activity | None = None,
    in_groups: bool = True,
) -> Health:
    """Look at the rides that one model answered.

    Args:
        source: what to call them.
        frame: as `log_frame` or `answer_trips`; others' rides only say what a day was like.
        card: of the model; its validation error is what is expected.
        reference: rides of the training months; None when they cannot be read.
        whole_month: the rides are all trips of a month, so that their number can be compared.
        since: unix seconds; the model's own rides before are left out too.
        compare: with the errors of the other models, by version and arm.
        activity: of the log; None for published months, which are never silent.
        in_groups: with the errors of versions, arms and segments, which people read.
    """
    held = Standard(card, reference, monitor_settings())
    model = Version.of(card).ref
    verdicts = judge_frame(frame)  # with everybody's rides: a day is judged as a whole
    everybody = frame[verdicts == SCORED] if compare else None
    own = is_own(frame, Version.of(card), since)
    frame, verdicts = frame[own], verdicts[own]
    answered, hold = frame[verdicts == SCORED], hold_reason(frame, verdicts, held.settings)
    errors = live_errors(answered, everybody, in_groups)
    drifts, reasons = _judge_drifts(reference, frame, verdicts, whole_month)
    reasons += _judge_rides(frame, verdicts, held, hold, activity)
    if not whole_month and len(frame):
        reasons += _judge_newest(frame, answered, held)
    return Health(
        source, model, len(frame), len(answered), errors, drifts, sort_reasons(reasons),
        count_truths(verdicts), hold, _estimate(frame[verdicts == UNKNOWN], held), activity,
    )  # fmt: skip


def is_own(frame: pd.DataFrame, version: Version, since: float) -> np.ndarray:
    """Return True for the rides that a version answered since then (unix seconds), shape (n,).

    Another project that uses the same log may have a version of the same name and number.
    """
    if frame.empty:
        return np.zeros(0, dtype=bool)
    own: np.ndarray = (frame["model"] == version.ref).to_numpy()
    if "model_sha256" in frame:  # not in a published month
        own = own & (frame["model_sha256"] == version.sha256).to_numpy()
    return own & (frame["asked_at"] >= since).to_numpy() if since else own


def _judge_rides(
    frame: pd.DataFrame,
    verdicts: np.ndarray,
    held: Standard,
    hold: str | None,
    activity: Activity | None,
) -> list[Reason]:
    """Judge which truths came, how right the answers were, and what is missing."""
    settings, answered = held.settings, frame[verdicts == SCORED]
    has_truth = verdicts != UNKNOWN
    reasons = [
        *([Reason("truth", "watch", hold)] if hold else []),
        *_outside_reasons(frame, verdicts, held.card, settings),
        *judge_amount(len(frame), len(answered), settings.min_answered),
        *_judge_errors(answered, held),
        *judge_selection(frame, has_truth, settings.selection_watch, settings.selection_alarm),
    ]
    if activity is not None:
        hours = settings.silent_ride_hours, settings.silent_feedback_hours
        reasons += judge_silence(activity, *hours)
    return reasons


def sort_reasons(reasons: list[Reason]) -> list[Reason]:
    """Return reasons worst first; of one level, wrong answers before all others."""
    return sorted(reasons, key=lambda r: (-LEVELS.index(r.level), KINDS.index(r.kind)))


def _judge_newest(frame: pd.DataFrame, answered: pd.DataFrame, held: Standard) -> list[Reason]:
    """Judge the newest day and the one before it alone, each held to a day's bounds."""
    errors = [
        {reason.kind: reason for reason in _judge_errors(answered[day], held)}
        for day in newest_days(answered["pickup_at"].to_numpy(), held.settings.min_answered)
    ]
    drifts = []
    for day in newest_days(frame["pickup_at"].to_numpy(), MIN_ROWS) if held.reference else []:
        measured, reasons = _judge_drifts(held.reference, frame[day], None, False, one_day=True)
        names = [f"{d.feature}.{d.measure}" for d in measured if d.level != "ok"]
        drifts.append(dict(zip(names, reasons, strict=True)))
    return [*join_days(errors), *join_days(drifts)]


def _estimate(without_truth: pd.DataFrame, held: Standard) -> ErrorEstimate | None:
    if held.errors is None:
        return None
    mae_share, coverage = held.settings.estimate_mae_share, held.settings.estimate_coverage
    return held.errors.estimate(without_truth, mae_share, coverage)


def judge_frame(frame: pd.DataFrame) -> np.ndarray:
    """Return what the true duration of each ride is, a code of `domain.truths`, shape (n,).

    Args:
        frame: as `log_frame`; `received_at` may be missing.
    """
    if frame.empty:
        return np.zeros(0, dtype="U1")
    received_at = frame["received_at"].to_numpy("float64") if "received_at" in frame else None
    minutes = frame["true_duration"].to_numpy("float64")
    return judge_truths(minutes, Rides.from_frame(frame), received_at)


def scored(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rides whose true duration counts: what every error and test rests on."""
    return frame[judge_frame(frame) == SCORED] if len(frame) else frame


def hold_reason(
    frame: pd.DataFrame,
    verdicts: np.ndarray | None = None,
    settings: MonitorSettings | None = None,
) -> str | None:
    """Say why no decision may rest on these rides, and what to do; None when one may.

    Args:
        frame: as `log_frame`.
        verdicts: as `judge_frame`, which is asked when None.
        settings: the package's own when None.
    """
    verdicts = judge_frame(frame) if verdicts is None else verdicts
    counts = count_truths(verdicts)
    bad, received = count_of(counts, QUARANTINED), sum(counts.values())
    if bad <= (settings or monitor_settings()).max_quarantined_share * received:
        return None
    reasons = ", ".join(f"{counts[code]:,} {code}" for code in QUARANTINED if code in counts)
    text = f"{bad:,} of {received:,} true durations cannot be their rides' ({reasons})"
    if "received_at" not in frame:
        return text
    times = frame["received_at"].to_numpy("float64")[np.isin(verdicts, QUARANTINED)]
    first, last = (
        datetime.fromtimestamp(at, NEW_YORK).isoformat(timespec="seconds")
        for at in (np.floor(times.min()), np.floor(times.max()) + 1)
    )
    return (
        f"{text}; `python pipeline.py feedback void --from {first} --to {last}` takes out what "
        "was received then, and the right ones may be sent again"
    )


def outside_share(card: Mapping[str, Any]) -> float | None:
    """Return the share of the training months' rides outside the scored minutes.

    None when the card has no accounting. A ride with a bad time cannot come as feedback.
    """
    months = card.get("months", {}).get("train", [])
    count = sum(m["reasons"].get(r, 0) for m in months for r in ("too_short", "too_long"))
    rides = sum(m["rows_read"] - m["reasons"].get("bad_time", 0) for m in months)
    return max(count, 1) / rides if rides else None


def _outside_reasons(
    frame: pd.DataFrame, verdicts: np.ndarray, card: Mapping[str, Any], settings: MonitorSettings
) -> list[Reason]:
    """Judge how many of the true durations that came lie outside 1-60 min."""
    usual, outside = outside_share(card), np.isin(verdicts, OUTSIDE)
    believable = outside | (verdicts == SCORED)
    if usual is None or believable.sum() < settings.min_answered:
        return []
    days = draws_for(frame["pickup_at"].to_numpy())
    share, low, _ = days.ratio(outside.astype("float64"), believable.astype("float64"))
    level = level_of(low / usual, settings.outside_ratio_watch, settings.outside_ratio_alarm)
    text = (
        f"{share:.1%} of the true durations lie outside "
        f"{SHORTEST_MINUTES:g}-{LONGEST_MINUTES:g} min, {usual:.1%} did in the training months"
    )
    return [Reason("outside", level, text)] if level != "ok" else []


def _judge_drifts(
    reference: Sample | None,
    frame: pd.DataFrame,
    verdicts: np.ndarray | None,
    whole_month: bool,
    one_day: bool = False,
) -> tuple[list[Drift], list[Reason]]:
    """Measure drift; return every measure, and a reason for each that is not ok, in that order.

    Args:
        verdicts: as `judge_frame`; None leaves the true durations out.
    """
    if reference is None:
        text = "the training months cannot be read: no drift"
        return [], [Reason("data", "watch", text)]
    if frame.empty:
        return [], []
    actual = None
    if verdicts is not None and (verdicts != UNKNOWN).all():
        # The training months' durations are scored ones too.
        actual = np.where(verdicts == SCORED, frame["true_duration"].to_numpy("float64"), np.nan)
    current = Sample(Rides.from_frame(frame), frame["duration"].to_numpy(), actual)
    drifts = measure_drift(reference, current, whole_month, one_day=one_day)
    return drifts, [
        Reason("drift", d.level, f"{d.text}; {describe_drift(d, reference, current)}")
        for d in drifts
        if d.level != "ok"
    ]


def _judge_errors(answered: pd.DataFrame, held: Standard) -> list[Reason]:
    """Judge error, bias and coverage; the near end of each interval must pass the bound.

    Rides of less than a week share weather and weekdays: they are held to a day's bounds.
    """
    settings = held.settings
    if len(answered) < settings.min_answered:
        return []
    overall = next(_error_rows(answered, _overall))
    one_day = len(window_days(answered["pickup_at"].to_numpy())) < MIN_DAYS
    expected = expected_error(held.card, answered["used_distance"].to_numpy())
    mean = float(answered["true_duration"].mean())
    low, high = overall["bias_low"], overall["bias_high"]
    side = "long" if overall["bias"] > 0 else "short"
    near = {
        "mae_ratio": overall["mae_low"] / expected,
        f"bias_{side}": max(low, -high, 0.0) / mean,
        "coverage": -overall["coverage_high"],
    }
    sign = {"coverage": -1.0}  # of coverage, less is worse
    levels = [
        level_of(value, *(sign.get(kind, 1.0) * b for b in settings.bounds(kind, one_day)))
        for kind, value in near.items()
    ]
    texts = _error_texts(overall, expected, mean)
    found = zip(WRONG_KINDS, levels, texts, strict=True)
    reasons = [Reason(*each) for each in found if each[1] != "ok"]
    if not reasons:
        return []
    usual = np.full(len(answered), expected)
    if held.errors is not None:
        usual = held.errors.expect(answered)[0]
    drivers = "; ".join(driver.text for driver in find_drivers(answered, usual))
    driven = f"; most of it: {drivers}" if drivers else "; about the same for all kinds of rides"
    return [replace(reason, text=reason.text + driven) for reason in reasons]


def _error_texts(overall: Mapping[str, Any], expected: float, mean: float) -> list[str]:
    """Say error, bias and coverage, in the order of WRONG_KINDS."""
    side = "long" if overall["bias"] > 0 else "short"
    return [
        f"MAE {overall['mae']:.2f} min ({overall['mae_low']:.2f} to {overall['mae_high']:.2f}), "
        f"{overall['mae'] / expected:.2f} times the {expected:.2f} of the validation",
        f"answers are {abs(overall['bias']):.2f} min too {side} on average, "
        f"{abs(overall['bias']) / mean:.0%} of a trip",
        f"P10-P90 holds {overall['coverage']:.1%} of the trips, nominal are 80 %",
    ]
