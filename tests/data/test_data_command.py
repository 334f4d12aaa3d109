"""`pipeline.py data --months … --json`: everything that is known of several months."""

from __future__ import annotations

import json
import sys

import planted
import pyarrow.parquet as pq
import pytest
from planted import some_rows

import pipeline
from taxi_duration.data.sample import make_sample_month
from taxi_duration.files import sha256_file

ROWS = 4000


@pytest.fixture
def public(tmp_path, monkeypatch):
    """A folder with three months of four; the second has a clock whose minutes stand still."""
    folder = tmp_path / "public" / "trip-data"
    folder.mkdir(parents=True)
    for tag in ("2021-01", "2021-02", "2021-04"):
        table = make_sample_month("green", tag, ROWS)
        if tag == "2021-02":
            table = planted.stuck_minute(table, some_rows(table, 1, 1.0), 2)
        pq.write_table(table, folder / f"green_tripdata_{tag}.parquet")
    monkeypatch.setenv("TAXI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TLC_URL", str(folder.parent))
    monkeypatch.setenv("DATA", "tlc")
    return folder


REASONS = ("bad_time", "too_short", "too_long", "outside_month", "unknown_zone", "bad_distance",
           "duplicate", "suspect_clock")  # fmt: skip
SUSPECT = {
    "code": "suspect_clock", "level": "alarm", "column": "pickup_at, dropoff_at", "vendor": "1",
    "rows": 383, "share": 1.0,
    "text": "both clocks show minute 2, the month's number, in 382 of 382 rows; one row in 3,600 "
            "is expected to; these rows are not learned from",
}  # fmt: skip


def record(path, month, kept, reasons, bad_share, **health):
    return {
        "service": "green", "month": month, "file": path.name, "url": str(path),
        "sha256": sha256_file(path), "data_source": "tlc", "rows_read": ROWS, "rows_kept": kept,
        "reasons": dict(zip(REASONS, reasons, strict=True)), "bad_share": bad_share, "notes": [],
        "health": {
            "service": "green", "month": month, "level": "ok", "compared_with": "2021-01",
            "rows": ROWS, "suspects": 0, "findings": [], **health,
        },
    }  # fmt: skip


def test_json_has_the_whole_record_of_each_month(public, monkeypatch, capsys):
    command = ["pipeline.py", "data", "--months", "2021-01:2021-04", "--json"]
    monkeypatch.setattr(sys, "argv", command)
    assert pipeline.main() == 0
    said = capsys.readouterr()
    january, february, april = json.loads(said.out)  # nothing else is there
    assert said.err.strip() == "not published: 2021-03"
    first, second, last = sorted(public.iterdir())
    assert january == record(
        first, "2021-01", 3887, (0, 73, 40, 0, 38, 127, 4, 0), 0.04225, compared_with=None
    )
    assert april == record(last, "2021-04", 3870, (1, 67, 62, 0, 28, 125, 7, 0), 0.04)
    findings = february["health"]["findings"]
    assert [(f["level"], f["code"], f["vendor"]) for f in findings] == [
        ("alarm", "median_minutes", "1"), ("alarm", "suspect_clock", "1"),
        ("alarm", "accepted_share", "1"), ("watch", "accepted_share", None),
        ("watch", "median_miles", "1"),
    ]  # fmt: skip
    assert findings[1] == SUSPECT
    assert february == record(
        second, "2021-02", 3537, (129, 234, 100, 1, 27, 142, 7, 383), 0.07425,
        level="alarm", suspects=383, findings=findings,
    )  # fmt: skip
