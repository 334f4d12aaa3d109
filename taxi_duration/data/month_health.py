"""The health of prepared months, each beside those before it that are at hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from taxi_duration.data.health.alone import find_alone
from taxi_duration.data.health.compare import compare
from taxi_duration.data.health.finding import MonthFinding, sort_findings, worst_level
from taxi_duration.data.health.profile import Profile
from taxi_duration.data.prepared import PreparedMonth, prepared_profiles
from taxi_duration.domain.findings import Level
from taxi_duration.domain.months import Month, format_months

REACH_MONTHS = 12  # a year: older months have other prices, fleets and columns


class MonthHealth(NamedTuple):
    """What was found about a month.

    Args:
        service, month: of which it is.
        compared: the earlier months at hand; empty when there was none to compare with.
        findings: worst first; empty when all is well.
        rows: read; `suspects` of them carry a proven fault, and are not learned from.
    """

    service: str
    month: Month
    compared: list[Month]
    findings: list[MonthFinding]
    rows: int
    suspects: int

    @property
    def level(self) -> Level:
        """The worst of the findings'; `ok` when there is none."""
        return worst_level(self.findings)

    @property
    def lines(self) -> list[str]:
        """Each finding in a line that names the month."""
        return [f"{self.service} {self.month} {finding.line}" for finding in self.findings]

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {
            "service": self.service,
            "month": str(self.month),
            "level": self.level,
            "compared_with": format_months(self.compared) if self.compared else None,
            "rows": self.rows,
            "suspects": self.suspects,
            "findings": [finding.as_dict() for finding in self.findings],
        }


def examine_months(months: Sequence[PreparedMonth]) -> list[MonthHealth]:
    """Return the health of prepared months of one service, in their order.

    Each is compared with those of the year before it that are given too, or that lie prepared on
    this machine. What differs is reported once: it is usual from then on. But no month is compared
    with one whose own columns give an alarm.
    """
    given = {month.raw.month: month.profile for month in months}
    sound: dict[Month, bool] = {}

    def is_sound(month: Month, profile: Profile) -> bool:
        if month not in sound:
            alone = find_alone(profile, last.raw.service, month)
            sound[month] = worst_level(list(alone)) != "alarm"
        return sound[month]

    found = []
    if months:
        last = max(months, key=lambda month: month.raw.month)
        here = prepared_profiles(last.raw, min(given).shift(-REACH_MONTHS))
        near = sorted((here | given).items())
    for month in months:
        at = month.raw.month
        reach = [(m, p) for m, p in near if at.shift(-REACH_MONTHS) <= m < at]
        found.append(_examine(month, {m: p for m, p in reach if is_sound(m, p)}))
    return found


def _examine(month: PreparedMonth, known: dict[Month, Profile]) -> MonthHealth:
    faulty = frozenset(fault.vendor or "" for fault in month.faults)
    accounting = month.accounting
    findings = [
        *month.faults,
        *find_alone(month.profile, month.raw.service, month.raw.month, accounting.reasons, faulty),
        *(compare(month.profile, list(known.values())) if known else ()),
    ]
    return MonthHealth(
        month.raw.service, month.raw.month, list(known), sort_findings(findings),
        accounting.rows_read, month.suspects,
    )  # fmt: skip
