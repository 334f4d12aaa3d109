import hashlib
import json

import numpy as np
import planted
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from planted import DROPOFF, PICKUP, some_rows

from taxi_duration.data.month_health import examine_months
from taxi_duration.data.prepared import PreparedMonth, prepare_month, prepare_months
from taxi_duration.data.sample import make_sample_month
from taxi_duration.data.sources import RawMonth
from taxi_duration.data.trips import read_month
from taxi_duration.domain.months import Month, format_months, parse_month, parse_months

ROWS = 12_000


@pytest.fixture
def prepare(tmp_path, monkeypatch):
    """Prepare a table as a month of green."""
    monkeypatch.setenv("TAXI_HOME", str(tmp_path / "home"))

    def make(tag: str, table: pa.Table | None = None) -> PreparedMonth:
        table = make_sample_month("green", tag, ROWS) if table is None else table
        path = tmp_path / f"green_tripdata_{tag}.parquet"
        pq.write_table(table, path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        return prepare_month(RawMonth("green", parse_month(tag), path, digest, "tlc", None))

    return make


def in_utc(table: pa.Table, rows: np.ndarray | bool = True) -> pa.Table:
    clocks = (planted.clock(table, name) + 5 * 3_600_000_000 * rows for name in (PICKUP, DROPOFF))
    return planted.with_clocks(table, *clocks)


def other_vendor(tag: str) -> pa.Table:
    table = make_sample_month("green", tag, ROWS)
    rows = some_rows(table, None, 0.3)
    return planted.with_values(table, "VendorID", np.where(rows, 6, table["VendorID"].to_numpy()))


def codes(health) -> list[str]:
    return sorted({finding.code for finding in health.findings})


def test_first_month_is_compared_with_none_and_later_ones_with_those_before(prepare):
    found = examine_months([prepare("2021-01"), prepare("2021-02"), prepare("2022-03")])
    assert [health.findings for health in found] == [[], [], []]
    assert [format_months(h.compared) if h.compared else "" for h in found] == ["", "2021-01", ""]
    assert [health.level for health in found] == ["ok"] * 3


def test_months_that_lie_prepared_are_at_hand_and_later_ones_are_not(prepare):
    prepare("2021-01"), prepare("2021-04")
    (found,) = examine_months([prepare("2021-02")])
    assert found.compared == [Month(2021, 1)]


def test_month_by_another_rule_or_source_is_not_at_hand(prepare, tmp_path):
    first = prepare("2021-01")
    manifest = first.trips_path.with_suffix(".json")
    content = manifest.read_text()
    for old, new in (
        ('"data_source": "tlc"', '"data_source": "sample"'),
        ('"rule": "', '"rule": "x'),
    ):
        assert old in content
        manifest.write_text(content.replace(old, new))
        (found,) = examine_months([prepare("2021-02")])
        assert found.compared == []


def test_what_differs_is_told_once(prepare):
    months = [prepare("2021-01"), *(prepare(t, other_vendor(t)) for t in ("2021-02", "2021-03"))]
    first, second, third = examine_months(months)
    assert (codes(first), codes(third)) == ([], [])
    assert {"new_vendor", "vendor_share"} <= set(codes(second))


def of_yellow(table: pa.Table) -> pa.Table:
    return table.rename_columns([name.replace("lpep", "tpep") for name in table.column_names])


def test_month_of_another_service_under_this_ones_name_is_told_and_no_measure(prepare):
    table = make_sample_month("green", "2021-01", ROWS)
    found = examine_months([prepare("2021-01", of_yellow(table)), prepare("2021-02")])
    assert [(f.code, f.level) for f in found[0].findings] == [("other_service", "alarm")]
    assert "yellow alone names them, the file as green's" in found[0].lines[0]
    assert (found[1].compared, found[1].findings) == ([], [])


@pytest.mark.parametrize(
    ("names", "service"),
    [
        ({"VendorID": "VendorID"}, "green"),
        ({PICKUP: "tpep_pickup_datetime"}, "yellow"),
        ({PICKUP: "pickup_datetime", "VendorID": "dispatching_base_num"}, "fhv"),
        ({PICKUP: "pickup_datetime", "VendorID": "hvfhs_license_num"}, "fhvhv"),
        ({PICKUP: "pickup_datetime"}, None),  # yellow's of the CSV republication, or anybody's
    ],
)
def test_columns_that_one_service_alone_has_say_whose_they_are(tmp_path, names, service):
    path = tmp_path / "month.parquet"
    table = make_sample_month("green", "2021-01", 1000)
    pq.write_table(table.rename_columns([names.get(n, n) for n in table.column_names]), path)
    assert read_month(path, Month(2021, 1)).look.profile.whose == service


def test_month_whose_own_columns_give_an_alarm_is_no_measure(prepare):
    shifted = in_utc(make_sample_month("green", "2021-02", ROWS))
    months = [prepare("2021-01"), prepare("2021-02", shifted), prepare("2021-03")]
    found = examine_months(months)
    assert found[1].level == "alarm" and "night_shifted" in codes(found[1])
    assert (found[2].compared, found[2].findings) == ([Month(2021, 1)], [])


def test_health_is_plain_json_with_every_finding(prepare):
    table = make_sample_month("green", "2021-01", ROWS)
    month = prepare("2021-01", planted.stuck_minute(table, some_rows(table, 1, 1.0), 3))
    (health,) = examine_months([month])
    kept = json.loads(json.dumps(health.as_dict()))
    (finding,) = kept.pop("findings")
    assert kept == {
        "service": "green", "month": "2021-01", "level": "alarm", "compared_with": None,
        "rows": ROWS, "suspects": month.suspects,
    }  # fmt: skip
    assert finding["code"] == "suspect_clock" and finding["rows"] == month.suspects
    assert health.lines == [f"green 2021-01 {health.findings[0].line}"]


@pytest.mark.parametrize("rows", ["2000", "4000", "20000"])
def test_months_of_the_sample_give_no_finding(tmp_path, monkeypatch, rows):
    monkeypatch.setenv("TAXI_HOME", str(tmp_path))
    monkeypatch.setenv("SAMPLE_ROWS", rows)
    months = prepare_months("green", parse_months("2020-11:2021-04"), mode="sample")
    assert [line for health in examine_months(months) for line in health.lines] == []


# --- real months -----------------------------------------------------------------------------

GREEN = "2020-03:2020-07,2020-09:2022-06,2023-01:2023-02,2024-03,2025-02"
KNOWN = {  # docs/data_health.md says what each of them is
    "green 2020-03": {"suspect_clock"},
    "green 2020-04": {"suspect_clock", "volume", "clock_shifted"},
    "green 2020-05": {"clock_shifted"},
    "green 2020-07": {"suspect_clock"},
    "green 2025-02": {"suspect_clock", "new_vendor"},
    "yellow 2019-07": {"new_vendor", "new_type"},
    "yellow 2020-04": {"median_minutes", "vendor_share"},
}


@pytest.mark.long
@pytest.mark.parametrize(("service", "tags"), [("green", GREEN), ("yellow", "2019-01:2020-06")])
def test_real_months_give_what_is_known_of_them_and_nothing_else(
    real_months, tmp_path, monkeypatch, service, tags
):
    monkeypatch.setenv("TAXI_HOME", str(tmp_path))
    monkeypatch.setenv("TLC_URL", str(real_months))
    months = prepare_months(service, parse_months(tags), mode="tlc")
    found = examine_months(months)
    told = {f"{service} {health.month}": set(codes(health)) for health in found if health.findings}
    assert told == {name: some for name, some in KNOWN.items() if name.startswith(service)}
    suspects = {str(m.raw.month): m.suspects for m in months if m.suspects}
    expected = {"2020-03": 129, "2020-04": 32, "2020-07": 3, "2025-02": 731}
    assert suspects == (expected if service == "green" else {})


@pytest.mark.long
@pytest.mark.parametrize("vendor", [1, 2, None])
def test_effects_planted_into_a_real_month_are_found(real_months, prepare, vendor, monkeypatch):
    monkeypatch.setenv("MAX_BAD_SHARE", "1")
    folder = real_months / "trip-data"
    before, month = (pq.read_table(folder / f"green_tripdata_2021-0{m}.parquet") for m in (1, 2))
    prepare("2021-01", before)
    rows, name = some_rows(month, vendor, 1.0), None if vendor is None else str(vendor)
    miles = month["trip_distance"].to_numpy()
    changed = {
        "suspect_clock": planted.stuck_minute(month, rows, 2),
        "distance_unit": planted.with_values(month, "trip_distance", miles * (1 + 0.609 * rows)),
        "zero_distance": planted.with_values(month, "trip_distance", np.where(rows, 0.0, miles)),
        "clock_shifted": in_utc(month, rows),
    }
    for code, other in changed.items():
        (health,) = examine_months([prepare("2021-02", other)])
        vendors = {f.vendor for f in health.findings if f.code == code}
        assert name in vendors or (name is None and {"1", "2"} <= vendors), code
        assert vendors <= {name, None} or vendor is None
