"""Logs of older releases are migrated with their rows, or refused with a reason."""

from __future__ import annotations

import sqlite3
import threading

import pytest
from sqlalchemy import create_engine, text
from truth_sets import feedback_rows, log_rows, told_rides

from taxi_duration.errors import LogError
from taxi_duration.live import log_schema
from taxi_duration.live.log_rows import ShadowRow
from taxi_duration.live.log_tables import metadata
from taxi_duration.live.prediction_log import open_log

# What is taken from a log of today to make one of an older release.
FIRST_RELEASE = [
    "DROP TABLE log_schema", "DROP TABLE archive_parts", "DROP TABLE hourly_rides",
    "DROP TABLE hourly_truths", "DROP TABLE voided_feedback", "DROP TABLE model_failures",
    "DROP INDEX feedback_received_at", "ALTER TABLE feedback DROP COLUMN verdict",
]  # fmt: skip
OLDER = {
    "first release": FIRST_RELEASE,
    "before voiding": [line for line in FIRST_RELEASE if "failures" not in line],
    "before failures": [line for line in FIRST_RELEASE if "voided" not in line],
    "before sums": FIRST_RELEASE[:4] + FIRST_RELEASE[-1:],
    "no latency": [*FIRST_RELEASE, "ALTER TABLE predictions DROP COLUMN latency_ms"],
    "no ride id": [*FIRST_RELEASE, "ALTER TABLE predictions DROP COLUMN ride_id"],
    "no arm": [*FIRST_RELEASE, "ALTER TABLE predictions DROP COLUMN arm"],
    "no support": [*FIRST_RELEASE, "ALTER TABLE predictions DROP COLUMN support"],
    "no distance used": [*FIRST_RELEASE, "ALTER TABLE predictions DROP COLUMN used_distance"],
    "no traceparent": ["ALTER TABLE predictions DROP COLUMN traceparent"],
    "no shadow": [*FIRST_RELEASE, "DROP TABLE shadow_answers"],
    "number alone": ["DROP TABLE log_schema"],
    "sums lost": ["DROP TABLE hourly_truths"],
}


def plain(url):
    return create_engine(url.replace("postgresql:", "postgresql+psycopg:"))


def change(url, statements):
    engine = plain(url)
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


@pytest.fixture
def opened(url, tmp_path):
    """A way to open the log as another process would."""
    logs = []

    def opening():
        logs.append(open_log(url, tmp_path / "live" / "spool"))
        return logs[-1]

    yield opening
    for log in logs:
        log.close()


def fill(log):
    frame = told_rides(days=1, a_day=60).assign(model="green-duration:1", arm="champion")
    frame["support"], frame["used_distance"] = 0, frame["trip_distance"].notna()
    rows = log_rows(frame)
    for row in rows:
        row.latency_ms = None
    log.add(rows)
    log.add_feedback(feedback_rows(frame.iloc[:40]))
    found = list(log.answered()), log.summary()
    log.close()
    return found


@pytest.mark.parametrize("shape", OLDER)
def test_an_older_log_is_brought_forward_with_its_rows(url, opened, shape):
    rows, summary = fill(opened())
    change(url, OLDER[shape])
    log = opened()
    assert list(log.answered()) == rows
    assert log.summary() == [
        {**row, **{name: pytest.approx(row[name]) for name in ("mean_error", "mean_square")}}
        for row in summary
    ]
    log.check_writable()
    log.add(log_rows(told_rides(days=1, a_day=3, seed=2).assign(prediction_id=list("abc"))))
    assert log.add_feedback([{"prediction_id": "a", "duration": 9.0}]).known == ["a"]
    assert log.void_feedback(0.0, 2e9, "ann", "seconds") == 41
    assert shape_of(url) == shape_of_a_new_one(url)


def test_shadow_answers_of_an_older_log_stay_in_the_table_that_it_has(tmp_path):
    """It has rowids, and an index beside them."""
    path = tmp_path / "live" / "predictions.db"
    rows = log_rows(told_rides(days=1, a_day=2).assign(prediction_id=list("ab")))
    first, second, again = (
        ShadowRow(name, "green-duration:2", "cd" * 32, *minutes)
        for name, *minutes in (("a", 1.0, 2.0, 3.0, 4.0), ("b", 5.0, 6.0, 7.0, 8.0),
                               ("a", 9.0, 9.0, 9.0, 9.0))
    )  # fmt: skip
    log = open_log(f"sqlite:///{path}", tmp_path / "live" / "spool")
    log.add(rows, [first])
    log.close()
    with sqlite3.connect(path) as connection:
        made = "SELECT sql FROM sqlite_master WHERE name = 'shadow_answers'"
        with_rowids, option, _ = connection.execute(made).fetchone()[0].partition("WITHOUT ROWID")
        assert option
        connection.execute("ALTER TABLE shadow_answers RENAME TO without_rowids")
        connection.execute(with_rowids)
        connection.execute("INSERT INTO shadow_answers SELECT * FROM without_rowids")
        connection.execute("DROP TABLE without_rowids")
    log = open_log(f"sqlite:///{path}", tmp_path / "live" / "spool")
    log.add([], [second, again])
    assert [
        tuple(row[f"shadow_{name}"] for name in ("duration", "p10", "p50", "p90"))
        for row in log.answered()
    ] == [(1.0, 2.0, 3.0, 4.0), (5.0, 6.0, 7.0, 8.0)]
    assert log.archive(1, 0).rides == 2
    assert log.find("a")["shadow_p90"] == 4.0
    log.close()
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT max(rowid) FROM shadow_answers").fetchone() == (None,)


def shape_of(url):
    from sqlalchemy import inspect

    engine = plain(url)
    found = inspect(engine)
    shape = {
        name: (sorted(column["name"] for column in found.get_columns(name)),
               sorted(index["name"] for index in found.get_indexes(name)))
        for name in found.get_table_names()
    }  # fmt: skip
    engine.dispose()
    return shape


NEW: dict[str, dict] = {}  # shapes by kind of store: making all tables takes long on a server


def shape_of_a_new_one(url):
    kind = url.partition(":")[0]
    if kind not in NEW:
        engine = plain(url)
        metadata.drop_all(engine)
        log_schema.migrate(engine)
        engine.dispose()
        NEW[kind] = shape_of(url)
    return NEW[kind]


def test_two_workers_that_start_on_an_old_log_at_once_bring_it_forward_once(url, opened):
    rows, summary = fill(opened())
    change(url, FIRST_RELEASE)
    found, errors = [], []
    start = threading.Barrier(3)

    def work(log) -> None:
        try:
            start.wait()
            found.append((list(log.answered()), log.summary()[0]["feedback"]))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(opened(),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert found == [(rows, summary[0]["feedback"])] * 3


def test_bringing_forward_that_is_killed_leaves_the_old_log(url, opened, monkeypatch):
    rows, _ = fill(opened())
    change(url, FIRST_RELEASE)
    before = shape_of(url)

    def killed(*_):
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(log_schema, "make_sums", killed)
        with pytest.raises(RuntimeError):
            opened().counts()
    assert shape_of(url) == before
    assert list(opened().answered()) == rows


def test_the_log_of_a_newer_release_is_refused_and_rows_wait(url, opened):
    fill(opened())
    change(url, [f"UPDATE log_schema SET version = {log_schema.VERSION + 1}"])
    log = opened()
    log.add(log_rows(told_rides(days=1, a_day=3, seed=2).assign(prediction_id=list("abc"))))
    for ask in (log.check_writable, log.counts, log.summary):
        with pytest.raises(LogError, match=f"schema {log_schema.VERSION + 1}.*LOG_URL"):
            ask()
    change(url, [f"UPDATE log_schema SET version = {log_schema.VERSION}"])
    assert opened().counts()["predictions"] == 63


def test_what_nobody_can_know_is_not_made_up(url, opened):
    fill(opened())
    change(url, ["ALTER TABLE predictions DROP COLUMN p50", "DROP TABLE log_schema"])
    log = opened()
    with pytest.raises(LogError, match="predictions has no column p50"):
        log.check_writable()
    assert "arm" in shape_of(url)["predictions"][0]


def test_a_new_file_gives_freed_space_back(tmp_path):
    log = open_log(f"sqlite:///{tmp_path / 'live' / 'x.db'}", tmp_path / "spool")
    log.add(log_rows(told_rides(days=5, a_day=800)))
    log.drain()
    path = tmp_path / "live" / "x.db"
    log.close()
    full = path.stat().st_size
    log = open_log(f"sqlite:///{path}", tmp_path / "spool")
    log.archive(1, 0)
    log.close()
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA freelist_count").fetchone()[0] < 50
    assert path.stat().st_size < full / 3
