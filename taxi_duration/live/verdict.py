"""The monitor's last verdict on disk: the loop writes it, the service shows it.

Only this module knows its file, format and page. Making a verdict needs libraries that the service
does not have; reading one does not.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from msgspec import Struct, to_builtins
from msgspec.structs import replace

from taxi_duration import environment
from taxi_duration.domain.findings import (
    KINDS,
    WRONG_KINDS,
    Drift,
    ErrorEstimate,
    Level,
    Reason,
    worst,
)
from taxi_duration.errors import ContentError
from taxi_duration.files import read_json, typed, write_json

VERDICT_FILE = "monitor.json"
PAGE_FILE = "monitor.html"


class Verdict(Struct, frozen=True):
    """What the monitor found about one version on one set of rides.

    Args:
        at: when the monitor ran, ISO.
        verdict: the level.
        source: `live log` or the month, such as `green 2021-03`.
        model: `name:version`.
        rides: number answered; `answered` of them have a true duration that is scored.
        reasons: worst first.
        errors: a row for each group of rides; unknown figures are null.
        drift: every measure.
        truths: number of true durations of each code of `domain.truths`.
        estimate: of the errors of rides without a true duration.
        last_ride_at, last_feedback_at: of the log when the monitor ran, ISO.
    """

    at: str
    verdict: Level
    source: str
    model: str
    rides: int
    answered: int
    reasons: list[Reason]
    errors: list[dict[str, str | int | float | None]]
    drift: list[Drift]
    truths: dict[str, int] = {}
    estimate: ErrorEstimate | None = None
    last_ride_at: str | None = None
    last_feedback_at: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the content of the file."""
        content: dict[str, Any] = to_builtins(self)
        return content

    def levels(self) -> dict[str, Level]:
        """Return the worst level by kind of reason; `unknown` for errors that cannot be judged."""
        found: dict[str, Level] = {}
        for kind in dict.fromkeys([*KINDS, *(reason.kind for reason in self.reasons)]):
            levels = [reason.level for reason in self.reasons if reason.kind == kind]
            found[kind] = worst(levels)
        if found["unknown"] == "unknown" or not self.answered:
            found |= {kind: "unknown" for kind in WRONG_KINDS if found[kind] == "ok"}
        return found

    @property
    def age_seconds(self) -> float:
        """Seconds since the monitor ran."""
        return (datetime.now(UTC) - datetime.fromisoformat(self.at)).total_seconds()


def write_verdict(verdict: Verdict) -> None:
    """Write the verdict to data/live/, where the service reads it."""
    write_json(environment.live_dir() / VERDICT_FILE, verdict.as_dict())


def read_verdict() -> Verdict | None:
    """Return the last verdict, None when there is none.

    Raises:
        ContentError: the file is damaged.
    """
    try:
        content = read_json(environment.live_dir() / VERDICT_FILE)
        verdict = typed(content, Verdict)
        _ = verdict.age_seconds  # raises when the time is not valid
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise ContentError(f"{VERDICT_FILE} cannot be read: {error}") from error
    # Releases without `unknown` wrote ok when there was no true duration.
    is_empty = verdict.verdict == "ok" and not verdict.answered
    return replace(verdict, verdict="unknown") if is_empty else verdict


def page_path() -> Path:
    """Return the path of the monitor's last full report, which need not exist."""
    return environment.live_dir() / PAGE_FILE
