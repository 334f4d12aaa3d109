"""The rows and features of the course's own model, for notebook 02 to fit it in plain sight."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from taxi_duration.data.prepared import PreparedMonth

# It makes a Python dict per trip: a month of millions would take minutes and gigabytes.
COURSE_ROWS = 300_000
COURSE_FEATURES = ("PU_DO", "trip_distance")


def course_rows(trips: pd.DataFrame, most: int = COURSE_ROWS) -> pd.DataFrame:
    """Return the last trips of a window with the course's feature `PU_DO`, such as `10_50`.

    Its regression cannot take a distance that is not known: such trips are left out, unless
    none has one (FHV), which leaves the pair alone.

    Args:
        trips: as `read_dataframe`, shape (n, 6).
        most: rows to keep; all of a green month.
    """
    known = trips["trip_distance"].notna()
    kept = (trips[known] if known.any() else trips).tail(most)
    pickup, dropoff = kept["PULocationID"].astype(str), kept["DOLocationID"].astype(str)
    return kept.assign(PU_DO=pickup + "_" + dropoff)


def last_trips(
    months: Sequence[PreparedMonth], learnable: bool, most: int = COURSE_ROWS
) -> pd.DataFrame:
    """Return the trips of as many of the last months as `course_rows` takes its rows from.

    Args:
        learnable: without those that carry a proven fault.
    """
    frames: list[pd.DataFrame] = []
    for month in reversed(months):
        frames.insert(0, month.learnable() if learnable else month.trips())
        if sum(int(frame["trip_distance"].notna().sum()) for frame in frames) >= most:
            break
    return pd.concat(frames, ignore_index=True)


def course_features(trips: pd.DataFrame) -> list[str]:
    """Return the names of the features that these trips have."""
    known = {"PU_DO": True, "trip_distance": trips["trip_distance"].notna().any()}
    return [name for name in COURSE_FEATURES if known[name]]
