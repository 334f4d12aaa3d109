"""Months on several machines: each prepares its share from a store, and all see the same trips."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import clusters
import pyarrow.parquet as pq
import pytest
from s3_server import s3_bucket

from taxi_duration.chain.exploration import count_nulls
from taxi_duration.data import cluster as engine
from taxi_duration.data.engine import map_parts
from taxi_duration.data.prepared import prepare_months
from taxi_duration.data.sample import make_sample_month
from taxi_duration.data.sources import without_downloads
from taxi_duration.data.window import Window
from taxi_duration.domain.months import parse_months
from taxi_duration.errors import (
    BadMonthError,
    MonthNotPublishedError,
    SourceError,
    SourceUnreachableError,
    WouldActError,
)

MONTHS = parse_months("2021-01:2021-04")
pytestmark = pytest.mark.long  # two hosts of a cluster begin


@pytest.fixture(scope="module")
def store():
    """An S3 server of the test's own with four months, and its clients' environment."""
    with s3_bucket("months"):
        import s3fs

        files = s3fs.S3FileSystem(skip_instance_cache=True)
        for month in MONTHS:
            put(files, month, rows=1500)
        yield files


def put(files, month, rows):
    with files.open(f"months/trip-data/green_tripdata_{month}.parquet", "wb") as file:
        pq.write_table(make_sample_month("green", str(month), rows), file)


@pytest.fixture(scope="module")
def kept(store, tmp_path_factory):
    """A cluster of two workers with data folders of their own, as on two hosts."""
    folder = tmp_path_factory.mktemp("cluster")
    with clusters.cluster(folder, workers=2) as made:
        yield made


@pytest.fixture
def hosts(kept, monkeypatch):
    monkeypatch.setenv("ENGINE", "dask")
    monkeypatch.setenv("DASK_SCHEDULER", kept.address)
    monkeypatch.setenv("TLC_URL", "s3://months")
    kept.wait()
    homes = [kept.folder / f"worker-{n}" / "home" for n in range(2)]
    yield homes
    for home in homes:
        shutil.rmtree(home / "data", ignore_errors=True)
    engine.close()


def files(home: Path, folder: str) -> set[str]:
    return {path.name[:22] for path in (home / "data" / folder).glob("*.parquet")}


def test_each_host_prepares_its_share_and_all_is_as_on_one_machine(hosts, monkeypatch, tmp_path):
    there = prepare_months("green", MONTHS)
    sums = list(map_parts(clusters.trips_and_minutes, Window.scored(there).parts))
    fetched = [files(home, "raw") for home in hosts]
    assert [len(names) for names in fetched] == [2, 2]
    assert len(set.union(*fetched)) == 4  # no month was fetched twice
    assert not (tmp_path / "home" / "data").exists()  # and none by this process
    monkeypatch.setenv("ENGINE", "local")
    monkeypatch.setenv("TAXI_HOME", str(tmp_path / "one"))
    here = prepare_months("green", MONTHS)
    assert [month.accounting for month in there] == [month.accounting for month in here]
    assert [month.lineage() for month in there] == [month.lineage() for month in here]
    assert [month.trips_path.name for month in there] == [month.trips_path.name for month in here]
    assert sums == list(map(clusters.trips_and_minutes, Window.scored(here).parts))


def test_what_is_needed_here_is_fetched_here(hosts, tmp_path):
    (month,) = prepare_months("green", MONTHS[:1])
    assert not month.trips_path.exists()
    assert len(month.trips()) == month.accounting.rows_kept
    assert len(month.quarantine()) == month.accounting.rows_read - month.accounting.rows_kept
    assert count_nulls([month])["2021-01"].notna().all()
    assert month.trips_path.is_relative_to(tmp_path / "home") and month.trips_path.exists()


def test_months_that_lie_prepared_here_need_no_cluster(hosts, monkeypatch):
    monkeypatch.setenv("ENGINE", "local")
    local = prepare_months("green", MONTHS[:1])
    monkeypatch.setenv("ENGINE", "dask")
    monkeypatch.setenv("DASK_SCHEDULER", f"tcp://127.0.0.1:{clusters.free_port()}")
    assert prepare_months("green", MONTHS[:1]) == local


def test_a_host_with_another_file_of_a_month_is_named(hosts, store, monkeypatch):
    months = prepare_months("green", MONTHS[:1])
    parts = Window.scored(months).parts
    for home in hosts:
        shutil.rmtree(home / "data", ignore_errors=True)
    put(store, MONTHS[0], rows=1400)
    try:
        with pytest.raises(SourceError, match="green 2021-01 is another file on this machine"):
            list(map_parts(clusters.trips_and_minutes, parts))
    finally:
        put(store, MONTHS[0], rows=1500)


def test_errors_of_months_are_those_of_one_machine(hosts, monkeypatch):
    with pytest.raises(MonthNotPublishedError, match="green 2021-05 is not published yet"):
        prepare_months("green", parse_months("2021-05"))
    monkeypatch.setenv("MAX_BAD_SHARE", "0")
    with pytest.raises(BadMonthError, match="green_tripdata_2021-01"):
        prepare_months("green", MONTHS[:1])


def test_who_only_looks_lets_nobody_download(hosts):
    with without_downloads(), pytest.raises(WouldActError):
        prepare_months("green", MONTHS[:1])
    assert not any(files(home, "raw") for home in hosts)


def test_sample_months_are_made_by_workers(hosts, monkeypatch, tmp_path):
    monkeypatch.setenv("SAMPLE_ROWS", "300")
    months = prepare_months("green", MONTHS[:2], mode="sample")
    assert [month.raw.data_source for month in months] == ["sample"] * 2
    assert [month.accounting.rows_read for month in months] == [300, 300]
    assert [len(month.trips()) for month in months] == [m.accounting.rows_kept for m in months]


def test_without_a_source_all_months_come_from_the_sample_or_none(hosts, monkeypatch):
    monkeypatch.setenv("TLC_URL", f"http://127.0.0.1:{clusters.free_port()}")
    monkeypatch.setattr("taxi_duration.data.remote.ATTEMPTS", 1)
    monkeypatch.setenv("SAMPLE_ROWS", "300")
    assert {m.raw.data_source for m in prepare_months("green", MONTHS[:2])} == {"sample"}
    with pytest.raises(SourceUnreachableError, match="no connection"):
        prepare_months("green", MONTHS[:2], mode="tlc")


def test_trips_in_memory_stay_in_this_process(hosts, monkeypatch):
    months = prepare_months("green", MONTHS[:1])
    drawn = Window.of(*Window.scored(months).whole())
    parts = [*drawn.parts, *Window.scored(months).parts]
    processes = list(map_parts(clusters.process_of, parts))
    assert processes[0] == os.getpid() != processes[1]
