"""The prediction log: nothing answered is lost, nothing is counted twice."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
from log_samples import row
from sqlalchemy.sql.compiler import SQLCompiler

from taxi_duration import environment
from taxi_duration.errors import LogError
from taxi_duration.live import prediction_log
from taxi_duration.live.log_engine import make_engine
from taxi_duration.live.log_rows import (
    FailureRow,
    PredictionColumns,
    PredictionRow,
    ShadowColumns,
    ShadowRow,
    write_minutes,
)
from taxi_duration.live.log_store import REJECTED_FILE
from taxi_duration.live.log_tables import voided_feedback
from taxi_duration.live.log_watch import MIN_FREE_BYTES
from taxi_duration.live.prediction_log import PredictionLog, open_log


def shadow(prediction_id: str) -> ShadowRow:
    return ShadowRow(prediction_id, "green-duration:2", "cd" * 32, 19.0, 11.0, 18.0, 30.0)


def spool_of(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "live" / "spool").glob("*.spool"))


def test_an_added_prediction_is_found_at_once(log):
    log.add([row("a")])
    found = log.find("a")
    assert (found["duration"], found["p90"], found["model"]) == (21.25, 33.0, "green-duration:1")
    assert (found["used_distance"], found["true_duration"]) == (True, None)


def test_a_dict_is_as_good_as_a_row(log):
    log.add([{**{name: getattr(row("a"), name) for name in PredictionRow.__struct_fields__}}])
    assert log.find("a")["pickup_at"] == "2021-02-01T08:30:00"


def test_an_unknown_prediction_is_not_found(log):
    assert log.find("nobody") is None


def test_feedback_says_what_is_known_unknown_and_repeated(log):
    log.add([row("a"), row("b")])
    first = log.add_feedback([{"prediction_id": "a", "duration": 18.0}])
    again = log.add_feedback(
        [{"prediction_id": name, "duration": 9.0} for name in ("a", "b", "c", "b")]
    )
    assert first == (["a"], [], [])
    assert again == (["b"], ["c"], ["a", "b"])


def test_first_feedback_stays(log):
    log.add([row("a")])
    log.add_feedback([{"prediction_id": "a", "duration": 18.0}])
    log.add_feedback([{"prediction_id": "a", "duration": 99.0}])
    assert log.find("a")["true_duration"] == 18.0


def test_answered_joins_feedback_and_shadow_answers_in_order(log):
    log.add([row("late", 300.0), row("early", 100.0)], [shadow("late")])
    log.add_feedback([{"prediction_id": "early", "duration": 18.0, "received_at": 500.0}])
    rows = list(log.answered())
    assert [r["prediction_id"] for r in rows] == ["early", "late"]
    assert [r["true_duration"] for r in rows] == [18.0, None]
    assert [r["shadow_duration"] for r in rows] == [None, 19.0]
    assert [r["received_at"] for r in rows] == [500.0, None]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"since": 200.0}, ["b", "c"]),
        ({"until": 200.0}, ["a"]),
        ({"since": 200.0, "until": 300.0}, ["b"]),
        ({"model": "green-duration:2"}, ["c"]),
    ],
)
def test_answered_takes_a_window_and_a_model(log, choice, expected):
    log.add([row("a", 100.0), row("b", 200.0), row("c", 300.0, model="green-duration:2")])
    assert [r["prediction_id"] for r in log.answered(**choice)] == expected


def test_counts_are_of_each_table(log):
    log.add([row("a"), row("b")], [shadow("a")])
    log.add_feedback([{"prediction_id": "b", "duration": 3.0}])
    assert log.counts() == {"predictions": 2, "shadow_answers": 1, "feedback": 1}


def test_summary_is_by_model_and_arm(log):
    log.add([row("a"), row("b"), row("c", 400.0, model="green-duration:2", arm="challenger")])
    log.add_feedback([{"prediction_id": "a", "duration": 20.25}])
    log.add_feedback([{"prediction_id": "b", "duration": 51.25}])
    newest, oldest = log.summary()
    assert (newest["model"], newest["arm"], newest["mean_error"]) == (
        "green-duration:2",
        "challenger",
        None,
    )
    assert (oldest["predictions"], oldest["feedback"]) == (2, 2)
    assert (oldest["mean_error"], oldest["coverage"]) == (15.5, 0.5)


@pytest.mark.parametrize("at_once", [True, False])
def test_the_same_prediction_is_kept_once(log, at_once):
    log.add([row("a", duration=1.0)])
    if not at_once:
        log.drain()
    log.add([row("a", duration=2.0)])
    assert log.counts()["predictions"] == 1
    assert log.find("a")["duration"] == 1.0
    assert [found["predictions"] for found in log.summary()] == [1]


def test_many_rows_keep_their_number(log):
    log.add([row(f"{i:05d}") for i in range(7001)])
    assert log.counts()["predictions"] == 7001
    assert len(log.find_many([f"{i:05d}" for i in range(0, 7001, 7)])) == 1001


def test_a_log_can_be_checked(log):
    log.check_writable()
    assert log.counts()["predictions"] == 0


def test_two_openers_of_one_log_see_each_other(url, tmp_path):
    first, second = (open_log(url, tmp_path / "live" / "spool") for _ in range(2))
    first.add([row("a")])
    second.add([row("b")])
    assert first.find("b") is not None
    assert second.find("a") is not None
    first.close()
    second.close()


def test_rows_wait_where_there_is_no_store_and_come_later(tmp_path):
    spool = tmp_path / "spool"
    blocked = tmp_path / "not-a-folder"
    blocked.write_text("")
    log = open_log(f"sqlite:///{blocked / 'predictions.db'}", spool)
    log.add([row("a")])
    with pytest.raises(LogError):
        log.find("a")
    log.close()
    later = open_log(f"sqlite:///{tmp_path / 'good.db'}", spool)
    assert later.find("a") is not None
    later.close()


def test_check_says_that_the_store_cannot_be_written(tmp_path):
    blocked = tmp_path / "not-a-folder"
    blocked.write_text("")
    log = open_log(f"sqlite:///{blocked / 'predictions.db'}", tmp_path / "spool")
    with pytest.raises(LogError):
        log.check_writable()


@pytest.mark.parametrize(
    ("refused", "remedy"),
    [("database or disk is full", "free some room"), ("unable to open database file", "doctor"),
     ("attempt to write a readonly database", "let it be written")],
)  # fmt: skip
def test_what_the_database_refuses_is_said_with_its_remedy(tmp_path, monkeypatch, refused, remedy):
    def refuse(*_, **__):
        raise sqlite3.OperationalError(refused)

    monkeypatch.setattr("taxi_duration.live.log_store.open_log_file", refuse)
    log = open_log(f"sqlite:///{tmp_path / 'x.db'}", tmp_path / "spool")
    with pytest.raises(LogError, match=f"cannot be used: {refused}; .*{remedy}"):
        log.find("a")


def test_a_spool_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "spool").write_text("a file, not a folder")
    log = open_log(f"sqlite:///{tmp_path / 'x.db'}", tmp_path / "spool")
    with pytest.raises(LogError, match="spool/ cannot be written"):
        log.add([row("a")])


def test_full_disk_is_an_error_and_what_comes_after_is_whole(local, tmp_path, monkeypatch):
    local.add([row("before")])
    real = os.write

    def half(file: int, content: bytes) -> int:
        real(file, content[:40])
        return 40

    monkeypatch.setattr("os.write", half)
    with pytest.raises(LogError, match="disk is full"):
        local.add([row("cut")])
    monkeypatch.setattr("os.write", real)
    local.add([row("after")])
    assert [r["prediction_id"] for r in local.answered()] == ["after", "before"]


def test_no_space_at_all_is_an_error(local, monkeypatch):
    def full(file: int, content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.write", full)
    with pytest.raises(LogError, match="No space left"):
        local.add([row("a")])


def test_rows_never_go_into_a_file_that_got_no_name(local, tmp_path, monkeypatch):
    """One rename that failed once lost all rows of the process from then on."""
    local.add([row("before")])
    local.drain()
    shutil.rmtree(tmp_path / "live" / "spool")  # so that a new file is needed

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as disk:
        disk.setattr(Path, "rename", refuse)
        with pytest.raises(LogError, match="Read-only"):
            local.add([row("refused")])
    local.add([row("after")])
    assert [r["prediction_id"] for r in local.answered()] == ["after", "before"]


def test_a_spool_deleted_under_the_service_is_made_again(local, tmp_path):
    local.add([row("a")])
    local.drain()
    shutil.rmtree(tmp_path / "live" / "spool")
    local.add([row("b")])
    assert local.counts()["predictions"] == 2


def test_a_damaged_line_is_set_aside_and_the_others_go_on(local, tmp_path):
    local.add([row("a")])
    with spool_of(tmp_path)[0].open("ab") as file:
        file.write(b'p{"prediction_id": 5}\n')
    local.add([row("b")])
    assert local.counts()["predictions"] == 2
    rejected = tmp_path / "live" / "spool" / REJECTED_FILE
    assert rejected.read_bytes() == b'p{"prediction_id": 5}\n'


def test_files_of_writers_that_are_gone_are_removed(local, tmp_path):
    local.add([row("a")])
    local.drain()
    assert len(spool_of(tmp_path)) == 1  # more may come
    local.close()
    assert spool_of(tmp_path) == []


def test_a_full_segment_is_followed_by_a_new_one(local, tmp_path, monkeypatch):
    monkeypatch.setattr("taxi_duration.live.spool.SEGMENT_BYTES", 1000)
    for i in range(20):
        local.add([row(f"{i:02d}")])
    assert len(spool_of(tmp_path)) > 1
    assert local.counts()["predictions"] == 20
    assert len(spool_of(tmp_path)) == 1


def test_a_spool_that_cannot_be_moved_is_an_error_that_callers_answer(local, tmp_path):
    local.add([row("a")])
    lock = tmp_path / "live" / "spool" / ".lock"
    lock.mkdir()  # as on a full or read-only disk, the file cannot be made
    with pytest.raises(LogError, match="spool"):
        local.drain()
    with pytest.raises(LogError):
        local.add_feedback([{"prediction_id": "a", "duration": 18.0}])
    lock.rmdir()
    assert local.find("a") is not None


def test_the_background_thread_outlives_a_disk_that_fails(local, tmp_path, monkeypatch):
    monkeypatch.setattr("taxi_duration.live.log_watch.DRAIN_SECONDS", 0.01)
    lock = tmp_path / "live" / "spool" / ".lock"
    local.add([row("a")])
    lock.mkdir()
    local.start()
    time.sleep(0.1)  # it has met the fault by then
    lock.rmdir()
    deadline = time.monotonic() + 10
    while not _count_directly(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert _count_directly(tmp_path) == 1


def test_the_background_thread_moves_rows(local, tmp_path):
    local.start()
    local.add([row("a")])
    deadline = time.monotonic() + 10
    moved = 0
    while not moved and time.monotonic() < deadline:
        time.sleep(0.05)
        moved = _count_directly(tmp_path)
    assert moved == 1


def test_writers_and_drainers_at_once_lose_and_double_nothing(local):
    errors: list[Exception] = []

    def write(k: int) -> None:
        for i in range(200):
            local.add([row(f"{k}-{i}")])

    def read() -> None:
        try:
            for _ in range(20):
                local.drain()
        except LogError as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(k,)) for k in range(3)]
    threads += [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert local.counts()["predictions"] == 600


WRITER = """
import sys
from pathlib import Path
from taxi_duration.live.prediction_log import open_log
sys.path[:0] = {tests!r}
from log_samples import row
log = open_log({url!r}, Path({spool!r}))
log.start()
for i in range(1_000_000):
    log.add([row(f"{{i:07d}}")])
    print(i, flush=True)
"""


def test_a_line_still_being_written_is_never_read_as_two(tmp_path):
    """A reader may see half of a write: Linux copies it page by page."""
    spool = tmp_path / "spool"
    spool.mkdir()
    lines = [b"p%b\n" % msgspec.json.encode(row(f"id-{i}")) for i in range(8_000)]

    def write_in_halves() -> None:
        with (spool / "0-a.spool").open("ab", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            for line in lines:
                file.write(line[:150])
                time.sleep(0)  # let the reader come in between
                file.write(line[150:])

    writer = threading.Thread(target=write_in_halves)
    log = PredictionLog(f"sqlite:///{tmp_path / 'predictions.db'}", spool)
    writer.start()
    while writer.is_alive():
        log.drain()
    assert log.counts()["predictions"] == len(lines)
    assert not (spool / REJECTED_FILE).exists()
    log.close()


def test_what_was_written_before_kill_9_is_in_the_log(tmp_path):
    store = f"sqlite:///{tmp_path / 'live' / 'predictions.db'}"
    spool = tmp_path / "live" / "spool"
    script = WRITER.format(tests=[str(Path(__file__).parents[1])], url=store, spool=str(spool))
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    last = -1
    while last < 3000:
        last = int(process.stdout.readline())
    process.kill()
    rest = process.communicate()[0].splitlines()
    last = int(rest[-1]) if rest and rest[-1].isdecimal() else last
    log = open_log(store, spool)
    written = {r["prediction_id"] for r in log.answered()}
    log.close()
    assert {f"{i:07d}" for i in range(last)} <= written
    assert len(written) <= last + 2


def test_default_log_lies_in_the_live_folder(home):
    log = open_log()
    log.add([row("a")])
    assert log.find("a") is not None
    log.close()
    assert (environment.live_dir() / "predictions.db").exists()


def _count_directly(tmp_path: Path) -> int:
    import sqlite3

    with sqlite3.connect(tmp_path / "live" / "predictions.db") as connection:
        tables = connection.execute("select name from sqlite_master where name = 'predictions'")
        if not tables.fetchone():
            return 0
        return connection.execute("select count(*) from predictions").fetchone()[0]


def columns(ids: list[str], **other) -> PredictionColumns:
    n = len(ids)
    return PredictionColumns(
        ids, other.get("ride_id"), 100.0, [10] * n, [50] * n, ["2021-02-01T08:30:00"] * n,
        [4.5, *[None] * (n - 1)], [21.25] * n, [12.0] * n, [20.0] * n, [33.0] * n, [7] * n,
        [True] * n, "green-duration:1", "ab" * 32, "champion", 0.1,
    )  # fmt: skip


def test_columns_are_kept_as_their_rows_would_be(log):
    log.add_many([columns(["a", "b"])])
    log.add([row("c", latency_ms=0.1)])
    first, second, alone = (log.find(name) for name in ("a", "b", "c"))
    assert {**first, "prediction_id": ""} == {**alone, "prediction_id": ""}
    assert (second["trip_distance"], second["duration"]) == (None, 21.25)


def test_columns_longer_than_a_transaction_are_kept_whole(log):
    ids = [f"{i:05d}" for i in range(5001)]
    log.add_many([columns(ids, ride_id=ids)])
    assert log.counts()["predictions"] == 5001
    assert log.find("04321")["ride_id"] == "04321"


@pytest.mark.parametrize("n", [1, 35, 36, 37, 200])
def test_rows_that_differ_in_what_is_mostly_left_out_are_kept_as_they_are(log, n):
    """What all rows of a transaction lack is not named to the database, which puts it there."""
    plain = [row(f"a{i:03d}") for i in range(n)]
    odd = [row("b", ride_id="7", traceparent="00-ab", trip_distance=None, latency_ms=None),
           row("c", traffic=1.2, stretch_low=0.9, stretch_high=1.1, base_duration=17.7,
               base_p10=1.0, base_p50=2.0, base_p90=3.0)]  # fmt: skip
    log.add(plain)
    log.drain()
    log.add([*plain[:1], *plain[-1:], *odd, row("d")])
    found = {one["prediction_id"]: one for one in log.answered()}
    expected = [*plain, *odd, row("d")]
    assert sorted(found) == [one.prediction_id for one in expected]
    for one in expected:
        assert {name: found[one.prediction_id][name] for name in one.__struct_fields__} == (
            msgspec.structs.asdict(one)
        )
    assert log.summary()[0]["predictions"] == n + 3


def test_minutes_of_arrays_are_kept_to_the_bit_each_in_its_row(log):
    """Of more than one transaction, answers and shadow answers, with and without traffic."""
    n, names = 4321, ("duration", "p10", "p50", "p90", "base_duration", "base_p10", "base_p50",
                      "base_p90")  # fmt: skip
    ids, rng = [f"{i:05d}" for i in range(n)], np.random.default_rng(0)
    given = [rng.gamma(3, 5, (n, len(names))).astype("float32") for _ in range(2)]
    asked = columns(ids)
    shadow = ShadowColumns(ids, "green-duration:2", "cd" * 32, *[b""] * 4)
    for kept, minutes in zip((asked, shadow), given, strict=True):
        for name, column in zip(names, minutes.T, strict=True):
            setattr(kept, name, write_minutes(column))
        kept.traffic = [1.25] * n
    log.add_many([asked], [shadow])
    found = {one["prediction_id"]: one for one in log.answered()}
    for before, minutes in zip(("", "shadow_"), given, strict=True):
        rows = [[found[i][before + name] for name in names] for i in ids]
        assert np.array_equal(np.array(rows), minutes.astype("float64"))
    assert log.counts()["shadow_answers"] == n


@pytest.mark.parametrize(
    "minutes",
    [[1.0], write_minutes(np.array([1.0], "float32")), write_minutes(np.ones(2, "f4"))[:-1],
     write_minutes(np.array([1.0, np.nan])), write_minutes(np.array([np.inf, 1.0]))],
    ids=["short", "short-bytes", "cut-off", "nan", "infinite"],
)  # fmt: skip
def test_columns_with_what_is_no_column_of_minutes_are_set_aside(local, tmp_path, minutes):
    spoilt = columns(["a", "b"])
    spoilt.duration = minutes
    local.add_many([spoilt])
    local.add([row("c")])
    assert [r["prediction_id"] for r in local.answered()] == ["c"]
    assert (tmp_path / "live" / "spool" / REJECTED_FILE).exists()


# --- what the summary counts -------------------------------------------------------------


def test_first_in_the_summary_is_who_answered_last(log):
    log.add([row("a", 300.0), row("b", 500.0, model="green-duration:2")])
    assert [found["model"] for found in log.summary()] == ["green-duration:2", "green-duration:1"]


# --- voiding -----------------------------------------------------------------------------


def tell(log, name, minutes, received_at):
    told = {"prediction_id": name, "duration": minutes, "received_at": received_at}
    return log.add_feedback([told])


def test_all_feedback_of_a_call_has_one_time_of_receipt(log):
    log.add([row("a"), row("b")])
    log.add_feedback([{"prediction_id": name, "duration": 9.0} for name in ("a", "b")])
    first, second = log.find_many(["a", "b"])
    assert first["received_at"] == second["received_at"] == pytest.approx(time.time(), abs=60)


def test_a_statement_for_true_durations_is_compiled_once_and_not_for_each_call(log, monkeypatch):
    compiled, visit = [], SQLCompiler.visit_insert

    def counting(self, statement, *args, **kwargs):
        compiled.append(statement.table.name)
        return visit(self, statement, *args, **kwargs)

    monkeypatch.setattr(SQLCompiler, "visit_insert", counting)
    for call in range(3):
        ids = [f"{call}-{i}" for i in range(700)]
        log.add([row(key) for key in ids])
        told = [{"prediction_id": key, "duration": 9.0, "received_at": 1.0} for key in ids]
        assert len(log.add_feedback(told).known) == 700
    assert compiled.count("feedback") == 1


def test_voided_feedback_is_kept_and_may_be_given_again(log, url):
    log.add([row(name) for name in "abcd"])
    for name, received_at in zip("abcd", (99.0, 100.0, 199.0, 200.0), strict=True):
        tell(log, name, 600.0, received_at)
    assert log.count_feedback(100.0, 200.0) == 2
    assert log.void_feedback(100.0, 200.0, "ann", "seconds") == 2
    truths = {name: log.find(name)["true_duration"] for name in "abcd"}
    assert truths == {"a": 600.0, "b": None, "c": None, "d": 600.0}
    assert tell(log, "b", 10.0, 300.0) == (["b"], [], [])
    assert tell(log, "b", 11.0, 301.0) == ([], [], ["b"])
    assert log.void_feedback(100.0, 200.0, "bob", "again") == 2  # says the same, moves nothing
    assert log.find("b")["true_duration"] == 10.0
    assert log.void_feedback(300.0, 301.0, "ann", "wrong again") == 1
    kept = [[*kept[:3], *kept[4:]] for kept in voided_rows(url)]
    assert kept == [["b", 600.0, 100.0, "ann", "seconds"], ["b", 10.0, 300.0, "ann", "wrong again"],
                    ["c", 600.0, 199.0, "ann", "seconds"]]  # fmt: skip


def voided_rows(url):
    engine = make_engine(url, 5.0)
    with engine.connect() as connection:
        query = voided_feedback.select().order_by("prediction_id", "received_at")
        rows = [list(row) for row in connection.execute(query)]
    engine.dispose()
    return rows


def test_a_log_from_before_there_was_voiding_goes_on(log, url):
    log.add([row("a")])
    tell(log, "a", 600.0, 100.0)
    log.close()
    engine = make_engine(url, 5.0)
    voided_feedback.drop(engine)
    engine.dispose()
    assert log.void_feedback(0.0, 200.0, "ann", "seconds") == 1
    assert log.find("a")["true_duration"] is None


# --- another host, a full disk, a spool that is read once --------------------------------


def test_feedback_on_a_ride_that_another_host_answered_a_moment_ago_is_kept(postgres, tmp_path):
    """Its row is on its way: what nobody knows yet is asked for again."""
    here, there = (open_log(postgres, tmp_path / host) for host in ("here", "there"))
    here.add([row("ours")])
    there.add([row("theirs", ride_id="late")])
    later = threading.Timer(0.3, there.drain)
    later.start()
    told = [{"prediction_id": name, "duration": 9.0} for name in ("theirs", "ours", "nobody")]
    result = here.add_feedback(told)
    later.join()
    assert (sorted(result.known), result.unknown) == (["ours", "theirs"], ["nobody"])
    assert here.find("theirs")["true_duration"] == 9.0
    here.close()
    there.close()


@pytest.mark.parametrize("teller", ["here", "there"])
def test_feedback_on_a_ride_that_another_home_answered_a_moment_ago_is_kept(
    tmp_path, monkeypatch, teller
):
    """Two projects on one file of SQLite: each has a spool that the other does not see."""
    monkeypatch.setattr(prediction_log, "DRAIN_SECONDS", 0.3)
    url = f"sqlite:///{tmp_path / 'here' / 'predictions.db'}"
    logs = {home: open_log(url, tmp_path / home / "spool") for home in ("here", "there")}
    for home, log in logs.items():
        log.add([row(f"first-{home}")])
        log.drain()
    (other,) = (log for home, log in logs.items() if home != teller)
    other.add([row("theirs")])
    later = threading.Timer(0.2, other.drain)
    later.start()
    result = logs[teller].add_feedback([{"prediction_id": "theirs", "duration": 9.0}])
    later.join()
    assert result.known == ["theirs"]
    for log in logs.values():
        assert log.find("theirs")["true_duration"] == 9.0
        log.close()


def test_feedback_that_nobody_asked_for_waits_for_nobody_where_a_log_is_ones_own(
    local, monkeypatch
):
    monkeypatch.setattr(prediction_log.time, "sleep", lambda _: pytest.fail("it waited"))
    local.add([row("ours")])
    assert local.add_feedback([{"prediction_id": "nobody", "duration": 9.0}]).unknown == ["nobody"]


def test_what_was_moved_is_not_read_again(local):
    """Its writer lives on, so that the file stays."""
    local.add([row("a"), row("b")])
    assert local.drain() == 2
    assert local.drain() == 0
    local.add([row("c")])
    assert local.drain() == 1


@pytest.mark.parametrize(
    ("free", "writable"), [(MIN_FREE_BYTES, True), (MIN_FREE_BYTES - 1, False)]
)
def test_a_disk_without_space_is_said_before_a_ride_is_lost(local, monkeypatch, free, writable):
    usage = shutil.disk_usage("/")._replace(free=free)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    if writable:
        local.check_writable()
    else:
        with pytest.raises(LogError, match="the disk of spool/ is full"):
            local.check_writable()


# --- both versions of a test ----------------------------------------------------------------

CHAMPION, CHALLENGER, OTHER = "ab" * 32, "cd" * 32, "01" * 32


def beside(prediction_id: str, digest: str, duration: float) -> ShadowRow:
    return ShadowRow(prediction_id, "green-duration:9", digest, duration, 1.5, 2.5, 3.5)


def failure(prediction_id: str, digest: str, asked_as: str) -> FailureRow:
    return FailureRow(prediction_id, "green-duration:2", digest, asked_as, "out of order")


def test_ride_with_several_shadow_answers_comes_once(log):
    """A test that was replaced mid-way, and two services that saw it at different times."""
    log.add([row("a"), row("b")], [beside("a", CHALLENGER, 19.0), beside("a", OTHER, 5.0)])
    assert [(r["prediction_id"], r["shadow_duration"]) for r in log.answered()] == [
        ("a", 5.0), ("b", None),
    ]  # fmt: skip
    assert log.find("a")["shadow_model_sha256"] == OTHER


@pytest.mark.parametrize(
    ("pair", "expected"),
    [
        ((CHAMPION, CHALLENGER), [("a", 19.0), ("b", None), ("c", 7.0)]),
        ((CHALLENGER, CHAMPION), [("a", 19.0), ("b", None), ("c", 7.0)]),
        ((CHAMPION, OTHER), [("a", 5.0), ("b", None)]),
    ],
)
def test_a_test_gets_its_own_rides_with_the_answer_of_its_other_version(log, pair, expected):
    rows = [row("a", 1.0), row("b", 2.0), row("c", 3.0, model_sha256=CHALLENGER),
            row("d", 4.0, model_sha256="23" * 32)]  # fmt: skip
    shadows = [beside("a", OTHER, 5.0), beside("a", CHALLENGER, 19.0), beside("c", CHAMPION, 7.0),
               beside("c", "45" * 32, 8.0), beside("d", CHAMPION, 9.0)]  # fmt: skip
    log.add(rows, shadows)
    found = [(r["prediction_id"], r["shadow_duration"]) for r in log.answered(pair=pair)]
    assert found == expected


def test_whole_shadow_answer_is_given_with_the_ride(log):
    traffic = (1.25, 1.5, 0.75, 15.0, 9.0, 14.0, 24.0)
    minutes = (19.0, 11.0, 18.0, 30.0)
    log.add([row("a")], [ShadowRow("a", "green-duration:2", CHALLENGER, *minutes, *traffic)])
    (found,) = log.answered(pair=(CHAMPION, CHALLENGER))
    shadow = {name: value for name, value in found.items() if name.startswith("shadow_")}
    assert shadow == {
        "shadow_model": "green-duration:2", "shadow_model_sha256": CHALLENGER,
        "shadow_duration": 19.0, "shadow_p10": 11.0, "shadow_p50": 18.0, "shadow_p90": 30.0,
        "shadow_traffic": 1.25, "shadow_stretch_low": 1.5, "shadow_stretch_high": 0.75,
        "shadow_base_duration": 15.0, "shadow_base_p10": 9.0, "shadow_base_p50": 14.0,
        "shadow_base_p90": 24.0,
    }  # fmt: skip


def test_failure_stands_at_the_ride_of_the_test_that_it_is_of(log):
    log.add(
        [row("a", 1.0), row("b", 2.0), row("c", 3.0)],
        failures=[failure("a", CHALLENGER, "challenger"), failure("b", CHALLENGER, "shadow"),
                  failure("b", OTHER, "challenger"), failure("c", OTHER, "shadow")],
    )  # fmt: skip
    log.add_many([columns(["d"])], failures=[failure("d", CHALLENGER, "shadow")])
    of_test = [r["failed_as"] for r in log.answered(pair=(CHAMPION, CHALLENGER))]
    assert of_test == ["challenger", "shadow", None, "shadow"]
    assert log.counts()["predictions"] == 4


def test_log_of_a_release_that_knew_no_failures_goes_on(log):
    from taxi_duration.live.log_tables import model_failures

    log.add([row("a")])
    log.drain()
    with log._store._begin() as connection:
        model_failures.drop(connection)
    log._store.close()
    log.add([row("b")], failures=[failure("b", CHALLENGER, "shadow")])
    found = [r["failed_as"] for r in log.answered(pair=(CHAMPION, CHALLENGER))]
    assert found == [None, "shadow"]
