"""How a long history is weighed: settings, reasons and trials, in `history_settings.json`."""

from __future__ import annotations

from functools import cache
from typing import Annotated

from msgspec import Meta, Struct

from taxi_duration.files import read_settings

Days = Annotated[float, Meta(gt=0)]


class HistorySettings(Struct, frozen=True, forbid_unknown_fields=True):
    """The values of `history_settings.json`."""

    half_life_days: Days
    trend_days: Days


@cache
def history_settings() -> HistorySettings:
    """Return the settings as stored with the package."""
    return read_settings(__package__, "history_settings.json", HistorySettings)
