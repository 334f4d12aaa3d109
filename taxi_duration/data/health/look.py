"""Looks at the columns of a month that was just read: proven faults, and its profile."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pyarrow as pa

from taxi_duration.data.health.clocks import Clocks, Fault, find_fault
from taxi_duration.data.health.finding import ALL, MonthFinding
from taxi_duration.data.health.marks import Marks, even_rows, read_marks
from taxi_duration.data.health.profile import (
    ALL_ROWS,
    Profile,
    VendorRows,
    make_profile,
    vendor_rows,
)
from taxi_duration.domain.months import Month

SUSPECT = "suspect_clock"


@dataclass(frozen=True)
class MonthLook:
    """What the columns of a month say.

    Args:
        suspects: which rows carry a proven fault, bool of shape (rows read,).
        faults: a finding for each vendor that has one.
        profile: what the month is compared by.
    """

    suspects: np.ndarray
    profile: Profile
    faults: list[MonthFinding] = field(default_factory=list)


def look_at_columns(
    raw: pa.Table, trips: pd.DataFrame, month: Month | None, whose: str | None = None
) -> MonthLook:
    """Return what a month's columns say, from the rows alone.

    Args:
        raw: the file's columns, renamed to ours.
        trips: the same rows, typed as `trips.read_dataframe`; neither is changed.
        month: that they claim to be of, None when that is not known.
        whose: the service that names its columns so; None when several may.
    """
    marks = read_marks(raw)
    pickup, dropoff = trips["pickup_at"].to_numpy(), trips["dropoff_at"].to_numpy()
    suspects, faults = np.zeros(len(trips), dtype=bool), []
    everybody = VendorRows(ALL, even_rows(len(trips), ALL_ROWS), len(trips))
    vendors = list(vendor_rows(marks.vendor))
    for name, rows, total in vendors or [everybody]:
        fault = find_fault(Clocks.of(pickup[rows], dropoff[rows]), month)
        if fault is not None:
            theirs = _rows_of(name, marks, len(trips))
            theirs = theirs[fault.rows(pickup[theirs], dropoff[theirs])]
            suspects[theirs] = True
            faults.append(_finding(fault, name, len(theirs), total))
    first_day = None if month is None else np.datetime64(str(month), "D")
    return MonthLook(suspects, make_profile(trips, marks, first_day, vendors, whose), faults)


def _rows_of(name: str, marks: Marks, rows: int) -> np.ndarray:
    if name == ALL or marks.vendor is None:
        return np.arange(rows)
    return np.flatnonzero(marks.vendor.codes == marks.vendor.names.index(name))


def _finding(fault: Fault, name: str, rows: int, total: int) -> MonthFinding:
    vendor = name if name != ALL else None
    return MonthFinding(
        SUSPECT, "alarm", fault.column, vendor, rows, rows / total,
        f"{fault.text}; these rows are not learned from",
    )  # fmt: skip
