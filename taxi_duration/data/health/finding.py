"""What is found about a month, and from which size on it is reported."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from taxi_duration.domain.findings import LEVELS, Bound, Level, level_of, read_bounds, worst

BOUNDS_FILE = "health_settings.json"
ALL = ""  # the name of all vendors together


@dataclass(frozen=True)
class MonthFinding:
    """Something that a month's columns say.

    Args:
        code: one of `health_settings.json`.
        level: `watch` or `alarm`.
        column: as ours; `vendor` and the types are those of `marks`.
        vendor: None when it is of all.
        rows: that have it; `share` of the vendor's.
        text: found and expected, in words.
    """

    code: str
    level: Level
    column: str
    vendor: str | None
    rows: int
    share: float
    text: str

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self)

    @property
    def line(self) -> str:
        """In one line, for a terminal."""
        whose = f" of vendor {self.vendor}" if self.vendor else ""
        return f"{self.level} {self.code}: {self.column}{whose}, {self.rows:,} rows: {self.text}"


def sort_findings(found: list[MonthFinding]) -> list[MonthFinding]:
    """Return them worst first, then those of most rows."""
    return sorted(found, key=lambda f: (-LEVELS.index(f.level), -f.rows, f.code, f.vendor or ""))


def worst_level(found: list[MonthFinding]) -> Level:
    """Return the worst level; `ok` when nothing was found."""
    return worst(finding.level for finding in found)


@cache
def bounds() -> dict[str, Bound]:
    """Return the bounds by code, as stored with the package."""
    return read_bounds(__package__, BOUNDS_FILE)


def judge(code: str, value: float) -> Level:
    """Return the level of a measure; NaN (not known) is `ok`."""
    bound = bounds()[code]
    level = level_of(value, bound.watch, bound.alarm)
    return "ok" if level == "unknown" else level


def judged(
    code: str, value: float, column: str, name: str, rows: int, share: float, text: str
) -> Iterator[MonthFinding]:
    """Yield the finding about a measure, unless its value is as it should be.

    Args:
        name: of the vendor, or ALL; the others as `MonthFinding`.
    """
    level = judge(code, value)
    if level != "ok":
        yield MonthFinding(code, level, column, name or None, rows, share, text)
