"""The rows and features of the course's own model, for notebook 02 to fit it in plain sight."""

from __future__ import annotations

import pandas as pd

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


def course_features(trips: pd.DataFrame) -> list[str]:
    """Return the names of the features that these trips have."""
    known = {"PU_DO": True, "trip_distance": trips["trip_distance"].notna().any()}
    return [name for name in COURSE_FEATURES if known[name]]
