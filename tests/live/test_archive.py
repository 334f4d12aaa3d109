"""Old rides leave the tables and are read all the same; none is lost or doubled by a kill."""

from __future__ import annotations

import shutil
import threading
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from log_samples import row
from msgspec import to_builtins
from sqlalchemy import select

from taxi_duration.errors import LogError
from taxi_duration.live import archive_files, archive_reading, log_archive
from taxi_duration.live.archive_files import kept, read_rides, write_rides
from taxi_duration.live.archive_reading import order_of
from taxi_duration.live.log_archive import BYTES, Archiver, oldest_to_keep
from taxi_duration.live.log_rows import FailureRow, ShadowRow
from taxi_duration.live.log_tables import archive_parts, feedback, metadata, predictions
from taxi_duration.live.prediction_log import open_log
from taxi_duration.timestamps import DAY_SECONDS

CHAMPION, CHALLENGER, OTHER = "ab" * 32, "cd" * 32, "01" * 32
START = datetime(2026, 1, 30, tzinfo=UTC).timestamp()
DAYS = 6  # over two months
A_DAY = 10


def ride_id(i: int) -> str:
    """An id as the service makes it."""
    return f"{int(1000 * (START + i * 8640)):012x}{i:020x}"


def in_traffic(i: int):
    """Columns of an answer in traffic."""
    return {
        "traffic": 1.1 + i / 1000, "stretch_low": 1.2 - i / 1000, "stretch_high": 0.9,
        "base_duration": 11.25 + i, "base_p10": 9.5 + i, "base_p50": 11.1, "base_p90": 14.25 + i,
    }  # fmt: skip


def rides(n: int = DAYS * A_DAY):
    """Rides every 144 minutes, unequal in every column."""
    return [
        row(
            ride_id(i), START + 8640.0 * i + 0.123456, f"green-duration:{1 + i % 2}",
            ride_id=None if i % 3 else f"ride {i}", PULocationID=1 + i, DOLocationID=60 + i,
            pickup_at=f"2026-01-30T08:{i % 60:02d}:07", trip_distance=None if i % 4 == 0 else i / 7,
            duration=round(12.3456 + i, 4), p10=10.5 + i, p50=round(12.2 + i, 1), p90=15.25 + i,
            support=1000 * i, used_distance=bool(i % 4),
            model_sha256=CHAMPION if i % 2 else CHALLENGER,
            arm="challenger" if i % 5 == 0 else "champion", latency_ms=None if i == 9 else 0.25,
            **(in_traffic(i) if i % 3 else {}),
            traceparent=None if i % 6 else f"00-{i % 4:032x}-{1 + i:016x}-01",
        )
        for i in range(n)
    ]  # fmt: skip


@pytest.fixture
def log(url, tmp_path, monkeypatch):
    """60 rides on six days of two months, with all that can belong to a ride."""
    monkeypatch.setattr(log_archive, "PART_RIDES", 8)
    monkeypatch.setattr("taxi_duration.live.log_tables.AT_ONCE", 5)
    log = open_log(url, tmp_path / "live" / "spool")
    shadows = [ShadowRow(ride_id(i), "green-duration:2", CHALLENGER, 9.5 + i, 8.5, 9.25, 11.0,
                         **in_traffic(i) if i > 1 else {})
               for i in (1, 3, 11)]  # fmt: skip
    shadows += [ShadowRow(ride_id(i), "green-duration:0", OTHER, 7.5 + i, 6.5, 7.25, 9.0)
                for i in (3, 12)]  # fmt: skip
    failed = [FailureRow(ride_id(5), "green-duration:2", CHALLENGER, "shadow", "out of order")]
    log.add(rides(), shadows, failed)
    told = [{"prediction_id": ride_id(i), "duration": 10.0 + i / 60, "received_at": START + 9e3 * i}
            for i in range(0, 60, 2)]  # fmt: skip
    log.add_feedback(told)
    log.void_feedback(START + 9e3 * 4, START + 9e3 * 5, "ann", "seconds")
    yield log
    log.close()


def everything(log):
    """All that readers can see, except the figures by hour."""
    return {
        "rows": list(log.answered()),
        "of a test": list(log.answered(pair=(CHAMPION, CHALLENGER))),
        "of a model": list(log.answered(model="green-duration:2")),
        "of some days": list(log.answered(since=START + DAY_SECONDS / 2, until=START + 2e5)),
        "found": sorted(log.find_many([ride_id(i) for i in range(70)]), key=order_of),
        "counts": log.counts(),
        "told": [log.count_feedback(START + 9e3 * i, START + 72e3 + 9e3 * i) for i in (0, 8, 50)],
        "times": log.last_times(),
    }


def in_tables(log):
    with log._store._begin() as connection:
        return {
            name: len(connection.execute(select(table.c.prediction_id)).all())
            for name, table in metadata.tables.items()
            if "prediction_id" in table.c
        }


def move(log, days: float = 4.0):
    """Archive the rides of the first days."""
    store = log._store
    folder = store._archive_folder
    return Archiver(store._begin, folder, store._url).move(START + days * DAY_SECONDS)


def files(log):
    folder = log._store._archive_folder
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(path.as_posix() for path in found)


def test_old_rides_leave_the_tables_and_are_read_as_before(log):
    before, sums = everything(log), log.summary()
    moved = move(log)
    assert (moved.rides, moved.files) == (40, 6)  # files of 8: 20 rides of January, 20 of February
    assert in_tables(log) == {"predictions": 20, "shadow_answers": 0, "model_failures": 0,
                              "feedback": 10, "voided_feedback": 0}  # fmt: skip
    assert everything(log) == before
    assert log.summary() == sums
    assert {name.partition("/")[0] for name in files(log)} == {"2026-01", "2026-02"}


def test_moving_again_moves_nothing(log):
    move(log)
    before, there = everything(log), files(log)
    assert move(log) == (0, 0, 0)
    assert (everything(log), files(log)) == (before, there)


def test_all_rides_can_be_archived(log):
    before = everything(log)
    move(log, days=400)
    assert sum(in_tables(log).values()) == 0
    assert everything(log) == before


MANY = [pytest.param(step, marks=pytest.mark.long) for step in range(0, 50, 4)]


@pytest.mark.parametrize("step", [2, 5, *MANY])
def test_killed_at_any_transaction_nothing_is_lost_or_doubled(log, step):
    """Each transaction of the archiver is the last one, before it and after it was committed."""
    before = everything(log)
    store, left = log._store, [step]
    begin = store._begin

    class KilledError(BaseException):
        """Not to be caught."""

    def dying():
        left[0] -= 1
        if left[0] < 0:
            raise KilledError
        return begin()

    try:
        Archiver(dying, store._archive_folder, store._url).move(START + 4 * DAY_SECONDS)
    except KilledError:
        assert everything(log) == before
        moved = move(log)
        assert moved is not None
    assert everything(log) == before
    assert in_tables(log)["predictions"] == 20
    assert len(files(log)) == 6


def test_part_of_another_hosts_archive_that_was_not_finished_is_named(log, monkeypatch):
    """The hosts' LOG_ARCHIVE differ, and one was killed while it moved rides."""
    with monkeypatch.context() as killed:
        killed.setattr(Archiver, "_empty", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            move(log)
    log._store._archive_folder = log._store._archive_folder / "here"
    with pytest.raises(LogError, match="LOG_ARCHIVE must name the folder"):
        move(log)


@pytest.mark.parametrize("stage", ["write", "check", "rename"])
def test_killed_while_a_file_is_made_leaves_no_half_file_to_read(log, monkeypatch, stage):
    before = everything(log)

    def fail(*_):
        raise KeyboardInterrupt

    ours = "taxi_duration.live.log_archive"
    name = {"write": f"{ours}.write_rides", "check": f"{ours}.read_rides", "rename": "os.fsync"}
    with monkeypatch.context() as patch:
        patch.setattr(name[stage], fail)
        with pytest.raises(KeyboardInterrupt):
            move(log)
        assert everything(log) == before
    move(log)
    assert everything(log) == before
    assert len(files(log)) == 6


def test_a_file_that_does_not_hold_what_was_written_deletes_nothing(log, monkeypatch):
    before = everything(log)
    monkeypatch.setattr(log_archive, "read_rides", lambda path: read_rides(path)[1:])
    with pytest.raises(LogError, match="does not hold what was written"):
        move(log)
    assert (files(log), in_tables(log)["predictions"]) == ([], 60)
    assert everything(log) == before


def test_feedback_that_comes_late_is_kept_and_joined(log):
    move(log)
    late = [{"prediction_id": ride_id(i), "duration": 33.5} for i in (1, 2, 59)]
    unknown = {"prediction_id": ride_id(99), "duration": 5.0}
    assert log.add_feedback([*late, unknown]) == (
        [ride_id(1), ride_id(59)], [ride_id(99)], [ride_id(2)],
    )  # fmt: skip
    assert log.add_feedback(late) == ([], [], [ride_id(i) for i in (1, 2, 59)])
    truths = [log.find(ride_id(i))["true_duration"] for i in (1, 2, 59)]
    assert truths == [33.5, 10.0 + 2 / 60, 33.5]
    assert log.counts()["feedback"] == 29 + 2
    move(log, days=5)
    assert [log.find(ride_id(i))["true_duration"] for i in (1, 2, 59)] == truths


def test_feedback_of_the_archive_can_be_voided_and_given_again(log):
    move(log)
    assert log.count_feedback(START, START + 9e4) == 4  # of 0, 2, 6 and 8; 4 is voided
    assert log.void_feedback(START, START + 9e4, "ann", "seconds") == 5
    assert log.void_feedback(START, START + 9e4, "bob", "again") == 5
    assert log.count_feedback(START, START + 9e4) == 0
    assert [log.find(ride_id(i))["true_duration"] for i in (0, 2, 4)] == [None] * 3
    again = [{"prediction_id": ride_id(2), "duration": 7.5}]
    assert log.add_feedback(again) == ([ride_id(2)], [], [])
    assert log.add_feedback(again) == ([], [], [ride_id(2)])
    assert log.find(ride_id(2))["true_duration"] == 7.5
    row = next(row for row in log.answered() if row["prediction_id"] == ride_id(2))
    assert row["true_duration"] == 7.5


def test_sums_follow_what_is_told_and_voided_of_archived_rides(log):
    def told():
        return sum(row["feedback"] for row in log.summary())

    move(log)
    assert told() == 29
    log.add_feedback([{"prediction_id": ride_id(1), "duration": 9.0, "received_at": 5.0}])
    assert told() == 30
    log.void_feedback(0.0, START + 9e4, "ann", "all")
    assert told() == 25


def test_word_that_comes_while_a_file_is_emptied_is_the_later_one(log, monkeypatch):
    """Between writing and deleting: feedback, a voiding, and the right duration after it."""
    empty = Archiver._empty

    def meanwhile(self, name, archived):
        if not log.find(ride_id(1))["true_duration"]:
            log.add_feedback([{"prediction_id": ride_id(1), "duration": 44.0}])
            log.void_feedback(START + 9e3 * 2, START + 9e3 * 3, "ann", "seconds")
            log.void_feedback(START + 9e3 * 6, START + 9e3 * 7, "ann", "seconds")
            log.add_feedback([{"prediction_id": ride_id(6), "duration": 55.0}])
        empty(self, name, archived)

    monkeypatch.setattr(Archiver, "_empty", meanwhile)
    move(log)
    assert in_tables(log)["predictions"] == 20
    truths = [log.find(ride_id(i))["true_duration"] for i in (1, 2, 6, 8)]
    assert truths == [44.0, None, 55.0, 10.0 + 8 / 60]
    assert log.void_feedback(START, START + 9e3 * 7, "ann", "all") == 4  # 0, and 2, 4, 6 before


def test_shadow_answer_that_comes_while_a_file_is_emptied_is_not_lost(log, monkeypatch):
    """Its row waited in another host's spool: the ride is moved again, with it."""
    empty = Archiver._empty

    def meanwhile(self, name, archived):
        log.add([], [ShadowRow(ride_id(7), "green-duration:2", CHALLENGER, 9.5, 8.5, 9.25, 11.0)])
        log.drain()
        empty(self, name, archived)

    monkeypatch.setattr(Archiver, "_empty", meanwhile)
    move(log)
    assert in_tables(log)["predictions"] == 20
    assert log.find(ride_id(7))["shadow_duration"] == 9.5


def test_only_one_moves_at_a_time(log):
    store = log._store
    with Archiver(store._begin, store._archive_folder, store._url)._alone() as mine:
        assert mine
        assert move(log) is None
    assert move(log).rides == 40


def test_two_that_move_at_once_and_readers_beside_them(url, log, tmp_path):
    before = everything(log)
    other = open_log(url, tmp_path / "live" / "other")
    seen, errors = [], []

    def run(work) -> None:
        try:
            work()
        except Exception as error:
            errors.append(error)

    def read() -> None:
        seen.extend(list(other.answered()) for _ in range(6))

    threads = [threading.Thread(target=run, args=(work,))
               for work in (lambda: move(log), lambda: move(other), read)]  # fmt: skip
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.close()
    assert errors == []
    assert [rows == before["rows"] for rows in seen] == [True] * 6
    assert everything(log) == before
    assert in_tables(log)["predictions"] == 20


def test_rides_of_two_files_are_taken_once_with_the_later_word(log):
    """Two that moved at once, whatever kept them apart: the second knew of feedback."""
    archiver = Archiver(log._store._begin, log._store._archive_folder, log._store._url)
    first = archiver._oldest(START + DAY_SECONDS)
    archiver._enter(archiver._write(first)[0], first)
    log.add_feedback([{"prediction_id": ride_id(1), "duration": 44.0}])
    log.void_feedback(START + 9e3 * 2, START + 9e3 * 3, "ann", "seconds")
    before = everything(log)
    second = archiver._oldest(START + DAY_SECONDS)[1:]  # another name
    archiver._enter(archiver._write(second)[0], second)
    archiver._empty("", second)
    assert everything(log) == before


def test_a_log_that_was_lost_finds_its_old_months_again(log, url, tmp_path):
    move(log)
    old = [row for row in log.answered() if row["asked_at"] < START + 4 * DAY_SECONDS]
    with log._store._begin() as connection:
        for table in metadata.tables.values():
            if table.name not in ("log_schema", "spool_offsets"):
                connection.execute(table.delete())
    assert list(log.answered()) == []
    move(log)
    assert list(log.answered()) == old


def test_rides_put_back_from_a_backup_are_not_doubled(log):
    before = everything(log)
    kept = {}
    with log._store._begin() as connection:
        for name, table in metadata.tables.items():
            kept[name] = list(map(dict, connection.execute(table.select()).mappings()))
    move(log)
    with log._store._begin() as connection:
        for name, table in metadata.tables.items():
            connection.execute(table.delete())
            if kept[name]:
                connection.execute(table.insert(), kept[name])
    assert everything(log) == before
    assert move(log) == (0, 0, 0)  # the files are there
    assert everything(log) == before
    assert in_tables(log)["predictions"] == 20
    assert len(files(log)) == 6


def test_a_missing_file_is_said_with_the_remedy(log):
    move(log)
    shutil.rmtree(log._store._archive_folder)
    told = [[{"prediction_id": ride_id(i), "duration": 9.0}] for i in (1, 57)]
    for ask in (
        lambda: log.find(ride_id(1)),
        lambda: list(log.answered()),
        lambda: log.add_feedback(told[0]),
    ):
        with pytest.raises(LogError, match="LOG_ARCHIVE"):
            ask()
    assert log.find(ride_id(59)) is not None
    assert list(log.answered(since=START + 5 * DAY_SECONDS)) != []
    assert log.add_feedback(told[1]).known == [ride_id(57)]


def test_a_damaged_file_is_said(log):
    move(log)
    for name in files(log):
        (log._store._archive_folder / name).write_bytes(b"PAR1 not really")
    with pytest.raises(LogError, match="cannot be read"):
        log.find(ride_id(1))


def test_a_foreign_file_in_the_folder_is_left_alone(log):
    folder = log._store._archive_folder / "2026-01"
    folder.mkdir(parents=True)
    (folder / "notes.parquet").write_bytes(b"PAR1 not really")
    before = everything(log)
    move(log)
    assert everything(log) == before


def test_ids_of_too_many_files_are_refused_before_any_is_read(log, monkeypatch):
    monkeypatch.setattr(archive_reading, "MOST_PARTS", 3)
    move(log)
    three = [{"prediction_id": ride_id(i), "duration": 9.0} for i in range(20)]
    assert log.add_feedback(three).unknown == []
    read = []
    monkeypatch.setattr(archive_files, "read_rides", lambda path: read.append(path) or [])
    with pytest.raises(LogError, match="at most 3 at once"):
        log.add_feedback([{"prediction_id": ride_id(i), "duration": 9.0} for i in range(40)])
    assert read == []
    nobodys = [{"prediction_id": f"{i:032x}", "duration": 9.0} for i in range(1000)]
    assert len(log.add_feedback(nobodys).unknown) == 1000  # of no file's time
    assert read == []


# --- what is old, and what is too much -----------------------------------------------------------


@pytest.mark.parametrize(
    ("keep_days", "most_rides", "left"),
    [(0, 0, 60), (4, 0, 40), (5, 0, 50), (400, 0, 60), (0, 25, 25), (4, 25, 25), (4, 59, 40),
     (0, 10**6, 60), (0, 0.001, 1)],
)  # fmt: skip
def test_rides_stay_by_age_and_by_size(log, monkeypatch, keep_days, most_rides, left):
    """Six days are looked at at noon after the last one."""
    now = START + 6.5 * DAY_SECONDS
    monkeypatch.setattr(log_archive, "BYTES", {**dict.fromkeys(BYTES, 0), "predictions": 1000})
    with log._store._begin() as connection:
        before = oldest_to_keep(connection, now, keep_days, 1000 * most_rides)
        column = predictions.c.asked_at
        kept = connection.scalars(select(column).where(column >= (before or 0.0))).all()
    assert len(kept) == left


def test_the_size_of_the_tables_is_what_a_file_of_them_takes(tmp_path):
    rng, n = np.random.default_rng(0), 5000
    ids = [f"{1_700_000_000_000 + 40 * i:012x}{rng.bytes(10).hex()}" for i in range(n)]
    minutes = rng.gamma(3, 5, (n, 4))
    beside = [
        ShadowRow(ids[i], "green-duration:2", "cd" * 32, *minutes[i].tolist()) for i in range(n)
    ]
    names = ("duration", "p10", "p50", "p90", "latency_ms")
    rows = [
        row(ids[i], 1.7e9 + i / 25, **dict(zip(names, (*answer, rng.random()), strict=True)))
        for i, answer in enumerate(minutes.tolist())
    ]
    path = tmp_path / "predictions.db"
    log = open_log(f"sqlite:///{path}", tmp_path / "spool")
    log.add(rows, beside)
    log.close()
    expected = n * (BYTES["predictions"] + BYTES["shadow_answers"])
    assert path.stat().st_size == pytest.approx(expected, rel=0.1)


def test_the_log_itself_archives_by_its_settings(log):
    assert log.archive(0, 0) == (0, 0, 0)
    before = everything(log)
    assert log.archive(1, 0).rides == 60
    assert everything(log) == before


# --- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [("prediction_id", "no-id-of-ours"), ("pickup_at", "2026-01-30 08:00"), ("ride_id", "ß∂ 🚕"),
     ("pickup_at", "2026-01-30T08:00:00.250000"), ("latency_ms", None), ("trip_distance", 1 / 3),
     ("asked_at", START + 0.1234567), ("duration", 12.3456), ("duration", 1e7),
     ("p10", -0.5), ("support", 2**40)],
)  # fmt: skip
def test_a_file_keeps_what_a_ride_has(log, tmp_path, name, value):
    archiver = Archiver(log._store._begin, tmp_path, log._store._url)
    some = archiver._oldest(START + DAY_SECONDS)
    some[2] |= {name: value}
    if name == "prediction_id":
        some[2]["voided_feedback"] = []
    write_rides(tmp_path / "x.parquet", some)
    assert read_rides(tmp_path / "x.parquet") == some


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device here")
def test_a_full_disk_is_an_error_of_the_disk(log, tmp_path):
    """Not the end of whoever writes: arro3 panics when a file takes nothing more."""
    archiver = Archiver(log._store._begin, tmp_path, log._store._url)
    with pytest.raises(OSError, match="No space left"):
        write_rides(Path("/dev/full"), archiver._oldest(START + DAY_SECONDS))


def test_answers_keep_four_digits_after_the_point_and_latency_three(log, tmp_path):
    archiver = Archiver(log._store._begin, tmp_path, log._store._url)
    some = archiver._oldest(START + DAY_SECONDS)
    some[1] |= {"duration": 12.345678912345, "latency_ms": 0.123456}
    some[1]["shadow_answers"][0] |= {"p90": 1 / 3}
    write_rides(tmp_path / "x.parquet", some)
    back = read_rides(tmp_path / "x.parquet")[1]
    assert (back["duration"], back["latency_ms"]) == (12.3457, 0.123)
    assert back["shadow_answers"][0]["p90"] == 0.3333
    assert back == kept(some[1])


def test_other_readers_of_parquet_read_a_file(log):
    import pandas as pd

    move(log)
    folder = log._store._archive_folder
    frame = pd.concat(pd.read_parquet(folder / name) for name in files(log))
    assert len(frame) == 40
    assert frame["pickup_at"].dt.year.unique().tolist() == [2026]
    assert frame["prediction_id"].map(bytes.hex).tolist() == [ride_id(i) for i in range(40)]


def test_catalogue_knows_what_lies_where(log):
    move(log)
    with log._store._begin() as connection:
        parts = connection.execute(archive_parts.select().order_by(archive_parts.c.since)).all()
        late = connection.scalars(select(feedback.c.prediction_id)).all()
    assert [part.rides for part in parts] == [8, 8, 4, 8, 8, 4]
    assert all(part.emptied for part in parts)
    assert (parts[0].first_id, parts[0].last_id) == (ride_id(0), ride_id(7))
    assert (parts[0].told_since, parts[0].told_until) == (START, START + 9e3 * 6)
    assert len(late) == 10


def test_a_file_from_before_there_was_traffic_is_read(tmp_path, monkeypatch):
    rides = [
        {name: getattr(one, name) for name in archive_files.RIDE} | {
            **dict.fromkeys(archive_files.FEEDBACK), "model_failures": [], "voided_feedback": [],
            "shadow_answers": [to_builtins(ShadowRow(one.prediction_id, "green-duration:2",
                                                     CHALLENGER, 9.5, 8.5, 9.25, 11.0))],
        }
        for one in (row(ride_id(i), START + i) for i in range(3))
    ]  # fmt: skip
    young = (*archive_files.LIVE, *archive_files.BASE)
    path = tmp_path / "old.parquet"
    with monkeypatch.context() as patch:
        for columns in ("RIDE", "SHADOW"):
            older = [name for name in getattr(archive_files, columns) if name not in young]
            patch.setattr(archive_files, columns, older)
        write_rides(path, rides)
    shadows = [{**dict.fromkeys(archive_files.LIVE, 1.0), **dict.fromkeys(archive_files.BASE),
                **ride["shadow_answers"][0]} for ride in rides]  # fmt: skip
    expected = [kept(ride | {"shadow_answers": [shadow]})
                for ride, shadow in zip(rides, shadows, strict=True)]  # fmt: skip
    assert read_rides(path) == expected
