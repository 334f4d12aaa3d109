"""The settings of the loop, with their reasons in `auto_settings.json`."""

from __future__ import annotations

from functools import cache
from typing import Annotated

from msgspec import Meta, Struct

from taxi_duration.files import read_settings

Share = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=1)]
Minutes = Annotated[float, Meta(ge=0)]


class AutoSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """The values of `auto_settings.json`."""

    window_months: Count
    alarm_window_months: Count
    model: str
    max_age_months: Count
    window_reach_months: Count
    alpha: Share
    shadow_blocks: Count
    max_shadow_blocks: Count
    ab_share: Share
    ab_blocks: Count
    max_ab_blocks: Count
    newer_margin_min: Annotated[float, Meta(ge=0)]
    max_worse_min: Minutes
    min_check_rides: Count
    min_answer_share: Share
    max_failure_share: Share
    min_split_p: Share
    max_latency_ratio: Annotated[float, Meta(ge=1)]
    free_latency_ms: Annotated[float, Meta(ge=0)]
    bake_days: Count
    max_bake_days: Count
    min_block_trips: Count
    max_test_days: Count
    max_attempts: Count
    min_rollback_gain_share: Share


@cache
def auto_settings() -> AutoSettings:
    """Return the settings as stored with the package."""
    return read_settings(__package__, "auto_settings.json", AutoSettings)
