"""New York's special days by rule: what each is called, and whether its hours are a Sunday's.

Only rules, no list of dates, so that every year has its days. Which of them change the traffic,
and by how much, is learned (`training/day_levels.py`); a kind that does not show costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from functools import cache, lru_cache
from types import MappingProxyType
from typing import Final

DAY = timedelta(1)
MONDAY, TUESDAY, THURSDAY, FRIDAY, SATURDAY, SUNDAY = 0, 1, 3, 4, 5, 6

# Days whose hours are a Sunday's: by the hours of green and yellow trips, 2019-01 to 2022-06.
# Columbus Day and Veterans Day are federal holidays (5 U.S.C. 6103) and have a working day's.
FREE_DAYS: Final = frozenset({
    "New Year's Day", "Martin Luther King Day", "Presidents' Day", "Memorial Day", "Juneteenth",
    "Independence Day", "Labor Day", "Thanksgiving", "day after Thanksgiving", "Christmas Day",
    "day off for a holiday",
})  # fmt: skip
WORKED_HOLIDAYS: Final = frozenset({"Columbus Day", "Veterans Day"})
# On a Saturday or Sunday these change nothing.
ONLY_ON_WEEKDAYS: Final = frozenset({
    "days after Christmas", "day after New Year's Day", "day before Independence Day",
    "day after Independence Day", "Rosh Hashanah", "Yom Kippur", "Eid", "Veterans Day",
})  # fmt: skip
JUNETEENTH_SINCE = 2021  # by law since June 2021


def special_day(day: date) -> str | None:
    """Return what a day is, as a rider would call it; None for an ordinary one."""
    return special_days(day.year).get(day)


def is_federal_holiday(day: date) -> bool:
    """Return whether a day is a federal holiday, on its own date or on the day off for it."""
    return special_day(day) in FREE_DAYS - {"day after Thanksgiving"} | WORKED_HOLIDAYS


@lru_cache(maxsize=256)
def special_days(year: int) -> MappingProxyType[date, str]:
    """Return the special days of a year by name; where two fall on a day, the later rule wins."""
    days: dict[date, str] = {}
    for named in (_religious, _school, _city, _around_holidays, _days_off, _holidays):
        days.update(named(year))  # the later name wins
    return MappingProxyType({
        day: name for day, name in sorted(days.items())
        if day.year == year and not (name in ONLY_ON_WEEKDAYS and day.weekday() >= SATURDAY)
    })  # fmt: skip


@cache
def day_kinds() -> frozenset[str]:
    """Return the names of all kinds of days; each comes in some of 28 years."""
    return frozenset(name for year in range(2001, 2029) for name in special_days(year).values())


def _holidays(year: int) -> Iterator[tuple[date, str]]:
    yield _nth(year, 1, MONDAY, 3), "Martin Luther King Day"
    yield _nth(year, 2, MONDAY, 3), "Presidents' Day"
    yield _nth(year, 6, MONDAY, 1) - 7 * DAY, "Memorial Day"  # the last Monday of May
    yield _nth(year, 9, MONDAY, 1), "Labor Day"
    yield _nth(year, 10, MONDAY, 2), "Columbus Day"
    yield _nth(year, 11, THURSDAY, 4), "Thanksgiving"
    yield date(year, 12, 24), "Christmas Eve"
    yield date(year, 12, 31), "New Year's Eve"
    yield from _dated(year)


def _days_off(year: int) -> Iterator[tuple[date, str]]:
    """Friday for a Saturday, Monday for a Sunday."""
    for day, name in (*_dated(year), (date(year + 1, 1, 1), "New Year's Day")):
        if name in FREE_DAYS and day.weekday() >= SATURDAY:
            yield day + (-DAY if day.weekday() == SATURDAY else DAY), "day off for a holiday"


def _dated(year: int) -> Iterator[tuple[date, str]]:
    yield date(year, 1, 1), "New Year's Day"
    if year >= JUNETEENTH_SINCE:
        yield date(year, 6, 19), "Juneteenth"
    yield date(year, 7, 4), "Independence Day"
    yield date(year, 11, 11), "Veterans Day"
    yield date(year, 12, 25), "Christmas Day"


def _around_holidays(year: int) -> Iterator[tuple[date, str]]:
    for number in range(26, 31):
        yield date(year, 12, number), "days after Christmas"
    yield date(year, 1, 2), "day after New Year's Day"
    thanksgiving = _nth(year, 11, THURSDAY, 4)
    yield thanksgiving - DAY, "day before Thanksgiving"
    yield thanksgiving + DAY, "day after Thanksgiving"
    for after in (2, 3):
        yield thanksgiving + after * DAY, "Thanksgiving weekend"
    yield date(year, 7, 3), "day before Independence Day"
    yield date(year, 7, 5), "day after Independence Day"
    for monday in (_nth(year, 6, MONDAY, 1) - 7 * DAY, _nth(year, 9, MONDAY, 1)):
        for before in (1, 2):
            yield monday - before * DAY, "long summer weekend"
        yield monday - 3 * DAY, "Friday before a long summer weekend"


def _school(year: int) -> Iterator[tuple[date, str]]:
    """Recess of the city's public schools: Presidents' Day's week, and that of Passover."""
    presidents_day = _nth(year, 2, MONDAY, 3)
    for after in range(1, 5):
        yield presidents_day + after * DAY, "winter school recess"
    passover_eve = hebrew_new_year(year) - 164 * DAY
    for after in range(9):
        if (passover_eve + after * DAY).weekday() < SATURDAY:
            yield passover_eve + after * DAY, "spring school recess"


def _religious(year: int) -> Iterator[tuple[date, str]]:
    new_year = hebrew_new_year(year)
    yield new_year, "Rosh Hashanah"
    yield new_year + DAY, "Rosh Hashanah"
    yield new_year + 9 * DAY, "Yom Kippur"
    for day in _eids(year):
        yield day, "Eid"


def _city(year: int) -> Iterator[tuple[date, str]]:
    easter = easter_sunday(year)
    yield easter, "Easter Sunday"
    yield easter + DAY, "Easter Monday"
    yield easter - 2 * DAY, "Good Friday"
    yield _nth(year, 11, MONDAY, 1) + DAY, "Election Day"
    # The General Assembly's general debate opens on the Tuesday from 19 to 25 September.
    debate = date(year, 9, 19) + (TUESDAY - date(year, 9, 19).weekday()) % 7 * DAY
    for day in range(-1, 4):
        yield debate + day * DAY, "week of the UN General Assembly"


def _nth(year: int, month: int, weekday: int, n: int) -> date:
    """Return the n-th of a weekday in a month."""
    first = date(year, month, 1)
    return first + (weekday - first.weekday()) % 7 * DAY + 7 * (n - 1) * DAY


def easter_sunday(year: int) -> date:
    """Return Easter Sunday. Source: the anonymous Gregorian algorithm (Meeus, 1991)."""
    a, (b, c) = year % 19, divmod(year, 100)
    d, e = divmod(b, 4)
    g = (8 * b + 13) // 25
    h = (19 * a + b - d - g + 15) % 30
    i, k = divmod(c, 4)
    weekday = (32 + 2 * e + 2 * i - h - k) % 7
    m = (a + 11 * h + 22 * weekday) // 451
    month, day = divmod(h + weekday - 7 * m + 114, 31)
    return date(year, month, day + 1)


def hebrew_new_year(year: int) -> date:
    """Return the first day of Rosh Hashanah in a year of ours; Passover's first day is 163 before.

    Source: the mean new moon and the four postponements of the Hebrew calendar, as in Reingold
    and Dershowitz, Calendrical Calculations.
    """

    def elapsed(hebrew: int) -> int:
        months = (235 * hebrew - 234) // 19
        parts = 12084 + 13753 * months
        days = 29 * months + parts // 25920
        return days + (3 * (days + 1) % 7 < 3)

    hebrew = year + 3761
    before, this, after = (elapsed(hebrew + step) for step in (-1, 0, 1))
    late = 2 if after - this == 356 else 1 if this - before == 382 else 0
    return date.fromordinal(this + late - 1373427)  # days from the epoch to 31 December of year 0


def _eids(year: int) -> Iterator[date]:
    """The feasts of 1 Shawwal and 10 Dhu al-Hijja by the tabular calendar, a day off at most."""
    first = (year - 622) * 33 // 32
    for islamic in (first - 1, first, first + 1, first + 2):
        for month, day in ((10, 1), (12, 10)):
            # 227014 is the day before 1 Muharram of year 1; months have 30 and 29 days in turn.
            number = day + 29 * (month - 1) + month // 2 + (islamic - 1) * 354
            found = date.fromordinal(227014 + number + (3 + 11 * islamic) // 30)
            if found.year == year:
                yield found
