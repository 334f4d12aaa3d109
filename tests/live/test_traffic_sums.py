"""What true durations say of the traffic is summed as the rule has it, and taken out again."""

from __future__ import annotations

import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from log_samples import row
from msgspec.structs import replace
from sqlalchemy import select, text

from taxi_duration.domain.rides import NEW_YORK
from taxi_duration.live import traffic_sums
from taxi_duration.live.log_rows import PredictionColumns, ShadowColumns, ShadowRow
from taxi_duration.live.log_tables import traffic_sums as table
from taxi_duration.live.prediction_log import open_log
from taxi_duration.live.traffic_bins import AREAS, SUMS, clipped_logs
from taxi_duration.live.traffic_now import ride_clock

CHAMPION, CHALLENGER = "ab" * 32, "cd" * 32
START = datetime(2021, 2, 1, 8, tzinfo=NEW_YORK)
ZONES = (3, 14, 42, 75, 138, 1, 264, 6)  # of all boroughs, an airport's, and nowhere's
TRAFFIC = {
    "traffic": 1.25, "stretch_low": 1.1, "stretch_high": 0.9, "base_duration": 15.0,
    "base_p10": 9.0, "base_p50": 14.0, "base_p90": 24.0,
}  # fmt: skip


def clock_of(moment: datetime) -> int:
    """Minutes since 1970 that a clock in New York shows."""
    return int((moment.replace(tzinfo=None) - datetime(1970, 1, 1)).total_seconds() // 60)


def ride(i: int, **other):
    """A ride each 7 minutes, unequal in what enters the sums; every third in traffic."""
    at = START + timedelta(minutes=7 * i)
    usual = {"PULocationID": ZONES[i % len(ZONES)], "DOLocationID": 42}
    answer = {"duration": 10.5 + i, "p10": 7.0 + i, "p50": 10.0 + i, "p90": 15.0 + i}
    return row(
        f"ride-{i}", at.timestamp(), pickup_at=at.replace(tzinfo=None).isoformat(),
        **usual | answer | (TRAFFIC if i % 3 == 0 else {}) | other,
    )  # fmt: skip


def shadow(i: int) -> ShadowRow:
    minutes = (9.0 + i / 2, 6.0 + i / 2, 8.5 + i / 2, 12.0 + i / 2)
    return ShadowRow(f"ride-{i}", "green-duration:2", CHALLENGER, *minutes,
                     **TRAFFIC if i % 4 == 0 else {})  # fmt: skip


def told(i: int, minutes: float, late: float = 60.0, **other):
    """A true duration that comes so many minutes after the pickup."""
    at = (START + timedelta(minutes=7 * i + late)).timestamp()
    return {"prediction_id": f"ride-{i}", "duration": minutes, "received_at": at, **other}


def sums_of(log):
    """The table's rows as dicts, without the time; those that are taken out again left out."""
    with log._store._begin() as connection:
        rows = [dict(one) for one in connection.execute(select(table)).mappings()]
    keys = ("model_sha256", "bin", "area")
    return {tuple(one[k] for k in keys): pytest.approx([one[k] for k in SUMS])
            for one in rows if one["rides"]}  # fmt: skip


def expected(answers):
    """The same by the rule, ride by ride, of (answer, its ride, true minutes)."""
    sums = defaultdict(lambda: [0.0] * len(SUMS))
    for answer, asked, truth in answers:
        base = {name: getattr(answer, f"base_{name}") for name in ("duration", "p10", "p90")}
        base = {k: getattr(answer, k) if v is None else v for k, v in base.items()}
        ended = clock_of(datetime.fromisoformat(asked.pickup_at)) + truth
        area = {1: 5, 264: 5, 3: 0, 42: 2, 75: 2, 14: 1, 138: 3, 6: 4}[asked.PULocationID]
        part = [
            1, clipped_logs(np.array(truth), np.array(base["duration"])),
            abs(truth - base["duration"]), abs(truth - answer.duration),
            truth < answer.p10, truth > answer.p90, truth < base["p10"], truth > base["p90"],
        ]  # fmt: skip
        key = (answer.model_sha256, int(ended // 10), area)
        sums[key] = [a + b for a, b in zip(sums[key], part, strict=True)]
    return {key: list(values) for key, values in sums.items()}


@pytest.fixture
def asked(log):
    """40 rides, half of them answered in the shadow too."""
    rides = [ride(i) for i in range(40)]
    log.add(rides, [shadow(i) for i in range(0, 40, 2)])
    return rides


MINUTES = [4.0 + (17 * i) % 53 + i / 8 for i in range(40)]


def answers(asked, which=range(40)):
    for i in which:
        yield asked[i], asked[i], MINUTES[i]
        if i % 2 == 0:
            yield shadow(i), asked[i], MINUTES[i]


def test_each_scored_truth_counts_once_for_everyone_who_answered(log, asked):
    assert {AREAS[area] for _, _, area in expected(answers(asked))} == set(AREAS)
    feedback = [told(i, MINUTES[i]) for i in range(40)]
    log.add_feedback([*feedback, *feedback[:5]])
    log.add_feedback([told(i, 33.0) for i in range(40)])  # the first stays
    for i in range(3):
        log.add_feedback([feedback[i]])
    assert sums_of(log) == expected(answers(asked))


def as_columns(kind, rows, ids, **shared):
    """Rows as columns; where the model's answer was given, it is told as such."""
    of_request = (*shared, "latency_ms", "traceparent")
    names = [name for name in kind.__struct_fields__ if name not in of_request]
    columns = {name: [getattr(one, name) for one in rows] for name in names}
    for name in ("duration", "p10", "p50", "p90"):
        pairs = zip(columns[f"base_{name}"], columns[name], strict=True)
        columns[f"base_{name}"] = [given if base is None else base for base, given in pairs]
    return kind(**columns | shared | {"prediction_id": ids})


def test_rides_that_came_as_columns_count_as_those_that_came_alone(log, asked):
    log.add_feedback([told(i, MINUTES[i]) for i in range(40)])
    alone = {key: one.expected for key, one in sums_of(log).items()}
    log.void_feedback(0.0, 3e9, "ann", "once more")
    ids = [f"many-{i}" for i in range(40)]
    shared = {
        name: getattr(asked[0], name) for name in ("model", "model_sha256", "arm", "asked_at")
    }
    rows = as_columns(PredictionColumns, asked, ids, **shared)
    other = {"model": "green-duration:2", "model_sha256": CHALLENGER}
    beside = as_columns(ShadowColumns, [shadow(i) for i in range(0, 40, 2)], ids[::2], **other)
    log.add_many([rows], [beside])
    log.add_feedback([told(i, MINUTES[i], prediction_id=ids[i]) for i in range(40)])
    assert sums_of(log) == alone


@pytest.mark.parametrize("minutes", [0.5, 61.0, 1500.0])
def test_what_is_not_scored_says_nothing(log, asked, minutes):
    log.add_feedback([told(1, minutes)])
    assert sums_of(log) == {}


def test_a_call_that_is_off_by_a_factor_says_nothing(log):
    log.add([ride(i, PULocationID=74, DOLocationID=75) for i in range(25)])
    at = told(30, 1.0)["received_at"]
    log.add_feedback([{**told(i, 59.0), "received_at": at} for i in range(25)])
    assert sums_of(log) == {}


@pytest.mark.parametrize(("late", "counts"), [(29.0, False), (31.0, True)])
def test_a_ride_cannot_be_told_long_before_it_ended(log, asked, late, counts):
    """Ten minutes are left to the clocks of clients: it ended 40 minutes after its pickup."""
    log.add_feedback([told(1, 40.0, late)])
    assert bool(sums_of(log)) == counts


def test_voided_truths_are_taken_out_and_told_again(log, asked):
    at = START.timestamp()
    log.add_feedback([told(i, MINUTES[i], received_at=at + 86_400 + i) for i in range(40)])
    assert log.void_feedback(at + 86_410, at + 86_420, "ann", "wrong") == 10
    left = [i for i in range(40) if not 10 <= i < 20]
    assert sums_of(log) == expected(answers(asked, left))
    again = [told(i, 21.0, received_at=at + 90_000 + i) for i in range(10, 20)]
    log.add_feedback(again)
    corrected = [
        *answers(asked, left),
        *((a, b, 21.0) for a, b, _ in answers(asked, range(10, 20))),
    ]
    assert sums_of(log) == expected(corrected)
    assert log.void_feedback(0, 3e9, "ann", "all") == 50
    assert sums_of(log) == {}


def test_archived_rides_are_told_and_voided_as_others(log, asked):
    log.add_feedback([told(i, MINUTES[i]) for i in range(0, 40, 2)])
    before = sums_of(log)
    log.archive(1, 0)
    with log._store._begin() as connection:
        assert connection.scalar(text("SELECT count(*) FROM predictions")) == 0
    assert {k: v.expected for k, v in before.items()} == sums_of(log)
    late = (START + timedelta(days=3)).timestamp()
    log.add_feedback([told(i, MINUTES[i], received_at=late) for i in range(1, 40, 2)])
    assert sums_of(log) == expected(answers(asked))
    log.void_feedback(0, late, "ann", "the first")
    assert sums_of(log) == expected(answers(asked, range(1, 40, 2)))


def test_sums_of_an_older_log_are_made(log, asked, url, tmp_path):
    log.add_feedback([told(i, MINUTES[i]) for i in range(40)])
    log.add_feedback([told(1, 0.2)])
    found = {key: one.expected for key, one in sums_of(log).items()}
    log.close()
    engine = log_schema_engine(url)
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE traffic_sums"))
    engine.dispose()
    later = open_log(url, tmp_path / "live" / "spool")
    assert sums_of(later) == found
    later.close()


def log_schema_engine(url):
    from sqlalchemy import create_engine

    return create_engine(url.replace("postgresql:", "postgresql+psycopg:"))


def test_old_sums_go_and_their_truths_can_still_be_voided(local, monkeypatch):
    local.add([ride(i) for i in range(8)])
    local.add_feedback([told(0, 12.0)])
    late = time.time() + traffic_sums.KEPT_SECONDS + 5
    monkeypatch.setattr(traffic_sums.time, "time", lambda: late)
    local.add_feedback([told(6, 12.0)])
    assert [one.expected[0] for one in sums_of(local).values()] == [1]
    local.void_feedback(0, 3e9, "ann", "all")
    assert sums_of(local) == {}


def test_voided_truths_that_were_never_counted_are_owed_by_nobody(log, asked):
    """As those of a log from before there were sums, too old to be summed by its migration."""
    log.add_feedback([told(i, MINUTES[i]) for i in range(40)])
    with log._store._begin(writes=True) as connection:
        connection.execute(table.delete().where(table.c.area == AREAS.index("Manhattan")))
        connection.execute(table.update().values(rides=1, log_sum=0.1))
    log.void_feedback(0, 3e9, "ann", "all")
    log.add_feedback([told(i, MINUTES[i]) for i in range(40)])
    assert sums_of(log) == expected(answers(asked))


def test_voiding_what_a_row_never_counted_leaves_it_to_those_whom_it_counts(log, asked):
    """As of a month that was replayed again after the first replay's sums had gone."""
    log.add_feedback([told(0, 12.0)])
    with log._store._begin(writes=True) as connection:
        connection.execute(table.delete())
    again = replace(ride(0), prediction_id="again")
    log.add([again])
    late = {
        "prediction_id": "again",
        "duration": 12.0,
        "received_at": told(0, 0)["received_at"] + 9,
    }
    log.add_feedback([late])
    (counted,) = sums_of(log).values()
    assert log.void_feedback(late["received_at"] - 10, late["received_at"], "op", "test") == 1
    assert [one.expected for one in sums_of(log).values()] == [counted.expected]
    assert log.void_feedback(late["received_at"], late["received_at"] + 1, "op", "test") == 1
    assert sums_of(log) == {}


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)  # SQLite has one writer
def test_two_that_count_while_old_sums_go_do_not_wait_for_each_other(log, url):
    """One is about to delete the old sum that the other begins anew."""
    assert sums_of(log) == {}  # makes the tables
    old, other = ((digest, 2_700_000, 2) for digest in (CHAMPION, CHALLENGER))
    engine = log_schema_engine(url)
    figures = [1.0] * len(SUMS)
    try:
        with engine.begin() as first:
            traffic_sums._add(first, {old: figures}, {old: 1.0})
            first.execute(table.update().values(told_at=0.0))
        with ThreadPoolExecutor(1) as pool, engine.begin() as first:
            traffic_sums._add(first, {old: figures}, {old: 1.0})
            second = pool.submit(added_alone, engine, {other: figures})
            wait_for_lock(first)
            traffic_sums._add(first, {other: figures}, {other: 1.0})
            first.commit()
            second.result(60)
    finally:
        engine.dispose()
    assert {k: v.expected[0] for k, v in sums_of(log).items()} == {old: 1, other: 2}


def added_alone(engine, sums):
    with engine.begin() as connection:
        traffic_sums._add(connection, sums, dict.fromkeys(sums, 1.0))


def wait_for_lock(connection, seconds=60):
    """Return when another session waits for what this transaction holds."""
    waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    until = time.monotonic() + seconds
    while not connection.scalar(waiting):
        assert time.monotonic() < until, "nobody waits"
        time.sleep(0.05)


# --- reading ----------------------------------------------------------------------------


def test_bins_are_those_of_one_version_that_have_ended(local):
    rides = [ride(i) for i in range(40)]
    local.add(rides, [shadow(i) for i in range(0, 40, 2)])
    local.add_feedback([told(i, MINUTES[i]) for i in range(40)])
    read = local._store.traffic_bins
    now = START + timedelta(minutes=125)  # 10:05
    for digest in (CHAMPION, CHALLENGER):
        rows = {k: v.expected for k, v in sums_of(local).items() if k[0] == digest}
        ended = {k: v for k, v in rows.items() if 10 * (k[1] + 1) <= clock_of(now)}
        assert 0 < len(ended) < len(rows)
        for days, at, wanted in ((9, now, ended), (9, now + timedelta(days=400), rows)):
            bins = read(digest, days, at.timestamp())
            keys = zip(bins.bin.tolist(), bins.area.tolist(), strict=True)
            figures = np.array(bins[2:]).T.tolist()
            assert dict(zip(keys, figures, strict=True)) == {k[1:]: v for k, v in wanted.items()}
    newest = max(k[1] for k in sums_of(local) if k[0] == CHAMPION)
    hours = read(CHAMPION, 1 / 24, (now + timedelta(days=1)).timestamp())
    assert set(hours.bin.tolist()) <= set(range(newest - 6, newest + 1))
    assert len(read("ee" * 32, 9, now.timestamp()).bin) == 0


@pytest.mark.parametrize(
    ("utc", "clock"),
    [
        ("2021-11-07T05:30", "2021-11-07T01:30"),
        ("2021-11-07T06:30", "2021-11-07T02:30"),  # set back to 1:30: 1:59 was shown before
        ("2021-11-07T07:00", "2021-11-07T02:00"),
        ("2021-03-14T07:10", "2021-03-14T03:10"),
    ],
)
def test_clock_of_rides_where_clocks_are_set(utc, clock):
    at = datetime.fromisoformat(utc).replace(tzinfo=UTC).timestamp()
    assert ride_clock(at) == clock_of(datetime.fromisoformat(clock))
