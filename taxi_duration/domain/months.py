"""Month tags: what a user may write (`Jan 2021`, `2021-01:2021-03`) and the one form we store."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from taxi_duration.errors import SettingError, TagError

MONTH_NAMES = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
]
ACCEPTED_FORMS = (
    "2021-01, 2021/01, Jan 2021, January 2021, a range 2021-01:2021-03 or a list 2021-01,2021-03"
)


class Month(NamedTuple):
    """A calendar month; sorts by time, prints as `2021-01`."""

    year: int
    month: int

    def __str__(self) -> str:
        return f"{self.year:04d}-{self.month:02d}"

    def ordinal(self) -> int:
        """Return which month it is, counted from the year 0."""
        return self.year * 12 + self.month - 1

    def shift(self, months: int) -> Month:
        """Return the month that lies `months` later (earlier when negative)."""
        index = self.ordinal() + months
        return Month(index // 12, index % 12 + 1)


# First month with pickup and drop-off zones, per service. Source: TLC trip record data.
FIRST_MONTH = {
    "green": Month(2013, 8),
    "yellow": Month(2011, 1),
    "fhv": Month(2015, 1),
    "fhvhv": Month(2019, 2),
}
SERVICES = tuple(FIRST_MONTH)

_NUMERIC = re.compile(r"(\d{4})[-/](\d{2})", re.ASCII)
_NAMED = re.compile(r"([A-Za-z]+)\s+(\d{4})", re.ASCII)


def parse_month(tag: str) -> Month:
    """Parse one month tag, whatever its case.

    Raises:
        TagError: the tag is in none of the accepted forms.
    """
    text = str(tag).strip()
    if match := _NUMERIC.fullmatch(text):
        year, month = int(match[1]), int(match[2])
    elif match := _NAMED.fullmatch(text):
        year, month = int(match[2]), _month_number(match[1])
    else:
        month = 0
    if not 1 <= month <= 12:
        raise TagError(f"month tag {tag!r} is not understood; write {ACCEPTED_FORMS}")
    return Month(year, month)


def _month_number(name: str) -> int:
    """1-12 for a full or three-letter English month name, 0 for anything else."""
    name = name.lower()
    return next(
        (i for i, full in enumerate(MONTH_NAMES, 1) if name in (full, full[:3])),
        0,
    )


def parse_months(tags: str | Sequence[str]) -> list[Month]:
    """Parse a tag, a range or a list into months, sorted and without repeats.

    Args:
        tags: a list is text with commas, or one as a file of parameters has it.
    Raises:
        TagError: a part is not understood, or a range runs backwards.
    """
    text = ",".join(map(str, tags)) if isinstance(tags, (list, tuple)) else str(tags)
    return sorted({month for part in text.split(",") for month in _parse_range(part, text)})


def _parse_range(part: str, tags: str) -> list[Month]:
    ends = part.split(":")
    if len(ends) > 2 or not all(end.strip() for end in ends):
        raise TagError(f"month tag {tags!r} is not understood; write {ACCEPTED_FORMS}")
    first, last = parse_month(ends[0]), parse_month(ends[-1])
    if last < first:
        raise TagError(f"month range {part.strip()!r} runs backwards; write {last}:{first}")
    count = (last.year - first.year) * 12 + last.month - first.month + 1
    return [first.shift(i) for i in range(count)]


def format_months(months: list[Month]) -> str:
    """Return the stored form: `2021-01`, `2021-01:2021-03`, runs joined by commas."""
    runs: list[list[Month]] = []
    for month in sorted(set(months)):
        if runs and runs[-1][-1].shift(1) == month:
            runs[-1].append(month)
        else:
            runs.append([month])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}:{run[-1]}" for run in runs)


def check_service(service: str) -> str:
    """Return the service's name in lower case.

    Raises:
        SettingError: no such service.
    """
    name = str(service).strip().lower()
    if name not in FIRST_MONTH:
        raise SettingError(f"SERVICE is {service!r}; allowed are {', '.join(SERVICES)}")
    return name


def check_available(service: str, months: list[Month]) -> None:
    """Refuse months from before the service's records have taxi zones.

    Raises:
        TagError: names the month and the first one that exists.
    """
    first = FIRST_MONTH[check_service(service)]
    for month in months:
        if month < first:
            raise TagError(
                f"{service} {month} does not exist with taxi zones: {service} data start in {first}"
            )


def check_order(train: list[Month], validation: list[Month]) -> None:
    """Refuse validation months that do not come after every training month (leakage).

    Raises:
        TagError: names both sides.
    """
    if min(validation) <= max(train):
        raise TagError(
            f"VAL_DATA {format_months(validation)} must come after all of TRAIN_DATA "
            f"{format_months(train)}: scoring on months at or before training is leakage"
        )
