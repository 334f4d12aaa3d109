"""Boosting on a cluster learns what one process learns, and never waits for who will not come.

Few rows are boosted by one worker alone, others by all workers together.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from functools import partial

import clusters
import numpy as np
import pytest

from taxi_duration.data import cluster as engine
from taxi_duration.data.engine import call_all
from taxi_duration.data.window import BATCH_ROWS, Window
from taxi_duration.domain.rides import Rides
from taxi_duration.errors import ClusterError
from taxi_duration.training import cluster_boosting
from taxi_duration.training.boosting import RowBatch, WindowRows
from taxi_duration.training.boosting_engine import boost
from taxi_duration.training.tree_packing import from_xgboost

PARAMETERS = {"rounds": 30, "eta": 0.2, "max_depth": 5, "max_bin": 64}
ENDLESS = {**PARAMETERS, "rounds": 1_000_000}


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    with clusters.cluster(tmp_path_factory.mktemp("cluster"), workers=2) as made:
        yield made


@pytest.fixture
def named(kept, monkeypatch):
    """A cluster of two workers, which a test leaves as it is."""
    yield from use(kept, monkeypatch)


@pytest.fixture
def mortal(tmp_path, monkeypatch):
    """One of which a test may kill what it likes."""
    with clusters.cluster(tmp_path / "cluster", workers=2) as made:
        yield from use(made, monkeypatch)


def use(made, monkeypatch):
    monkeypatch.setenv("ENGINE", "dask")
    monkeypatch.setenv("DASK_SCHEDULER", made.address)
    made.wait()
    yield made
    engine.close()


@pytest.fixture
def together(monkeypatch):
    """No number of rows is left to one worker."""
    monkeypatch.setattr(cluster_boosting, "ALONE_ROWS", 0)
    monkeypatch.setattr(cluster_boosting, "PAIR", 0)


def trips(n: int, seed: int = 0) -> Window:
    rng = np.random.default_rng(seed)
    rides = Rides(
        PULocationID=rng.integers(1, 264, n).astype("int16"),
        DOLocationID=rng.integers(1, 264, n).astype("int16"),
        pickup_at=np.datetime64("2021-01-01T00:00:00") + rng.integers(0, 2e6, n).astype("m8[s]"),
        trip_distance=rng.gamma(2, 1.5, n).astype("float32"),
    )
    minutes = 3 + 3 * rides.trip_distance + rides.PULocationID / 50 + rng.gamma(2, 1, n)
    return Window.of(rides, minutes.astype("float32"))


def locally(window, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setenv("ENGINE", "local")
        return boost(WindowRows(clusters.rows_of, window), PARAMETERS, 0, 1)


def error_of(booster, window) -> float:
    batches = list(clusters.rows_of(window))
    answers = from_xgboost(booster).predict(np.concatenate([batch.rows for batch in batches]))
    return float(np.sqrt(np.mean((answers - np.concatenate([b.minutes for b in batches])) ** 2)))


@pytest.mark.long
@pytest.mark.parametrize("form", ["window", "arrays"])
@pytest.mark.usefixtures("together")
def test_all_workers_are_as_good_as_one_process(named, monkeypatch, form):
    window, unseen = trips(40_000), trips(10_000, seed=1)
    given = WindowRows(clusters.rows_of, window)
    batches = given if form == "window" else lambda: given()
    error = error_of(boost(batches, PARAMETERS, 0, 1), unseen)
    assert error == pytest.approx(error_of(locally(window, monkeypatch), unseen), rel=0.005)
    assert not engine.connected().who_has()  # nothing stays in the workers' memory


@pytest.mark.parametrize("on_disk", [False, True])
def test_few_rows_are_boosted_by_one_worker_as_by_one_process(named, monkeypatch, caplog, on_disk):
    caplog.set_level("INFO")
    window = trips(5_000)
    booster = boost(WindowRows(clusters.rows_of, window), PARAMETERS, 0, 1, on_disk)
    expected = from_xgboost(locally(window, monkeypatch))
    np.testing.assert_array_equal(from_xgboost(booster).nodes, expected.nodes)
    assert any(f"boost on worker {address}" in caplog.text for address in cluster_addresses())
    assert not engine.connected().who_has()


@pytest.mark.parametrize(
    ("rows", "pair", "on_disk", "told"),
    [(500, 0, False, "worker tcp"), (501, 2, False, "worker tcp"), (501, 1, False, "2 workers"),
     (501, 2, True, "worker tcp"), (501, 1, True, "2 workers")],
)  # fmt: skip
def test_many_rows_are_one_workers_only_where_workers_are_few(
    named, monkeypatch, caplog, rows, pair, on_disk, told
):
    caplog.set_level("INFO")
    monkeypatch.setattr(cluster_boosting, "ALONE_ROWS", 500)
    monkeypatch.setattr(cluster_boosting, "PAIR", pair)
    quick = {**PARAMETERS, "rounds": 1}
    boost(WindowRows(clusters.rows_of, trips(rows)), quick, 0, 1, on_disk)
    assert f"boost on {told}" in caplog.text


@pytest.mark.parametrize("on_disk", [False, True])
def test_what_a_worker_boosts_alone_lies_on_its_disk_when_that_is_asked_for(
    named, tmp_path, on_disk
):
    # More than a batch: the rows are made again for the pages, when their folder is there.
    window, note = trips(BATCH_ROWS + 1), tmp_path / "note"
    make = partial(clusters.rows_noting_pages, str(note))
    boost(WindowRows(make, window), {**PARAMETERS, "rounds": 1}, 0, 1, on_disk)
    assert int(note.read_text()) == on_disk


def cluster_addresses() -> list[str]:
    return list(engine.connected().nthreads())


def test_boosters_that_run_together_take_a_worker_each(named, caplog):
    caplog.set_level("INFO")
    window = trips(2_000)
    half = {**PARAMETERS, "subsample": 0.5}
    learn = partial(boost, WindowRows(clusters.rows_of, window), half)
    found = call_all([partial(learn, seed, 1) for seed in (0, 0, 1)])
    assert all(f"boost on worker {address}" in caplog.text for address in cluster_addresses())
    first, same, other = (from_xgboost(booster).nodes for booster in found)
    np.testing.assert_array_equal(first, same)
    assert first.shape != other.shape or (first != other).any()


@pytest.mark.usefixtures("together")
def test_workers_do_not_tell_their_rank(kept, named):
    boost(WindowRows(clusters.rows_of, trips(500)), PARAMETERS, 0, 1)
    told = "".join(log.read_text() for log in kept.folder.glob("worker-*.log"))
    assert "Start worker" in told
    assert "got rank" not in told


def test_what_xgboost_says_beside_ranks_is_passed_on(capsys):
    cluster_boosting._say(b"[00:00:00] Task [xgboost.dask-0]:tcp://127.0.0.1:1 got rank 0")
    cluster_boosting._say(b"[00:00:00] something else")
    assert capsys.readouterr().out == "[00:00:00] something else\n"


@pytest.mark.usefixtures("together")
def test_months_without_a_trip_and_fewer_rows_than_workers_are_learned_from(named, monkeypatch):
    one, none = trips(1), trips(0)
    window = Window((*none.parts, *one.parts, *none.parts))
    booster = boost(WindowRows(clusters.rows_of, window), PARAMETERS, 0, 1)
    assert error_of(booster, one) == pytest.approx(error_of(locally(window, monkeypatch), one))


def test_no_rows_at_all_are_what_they_are_in_one_process(named, monkeypatch):
    rows, minutes = np.empty((0, 4), "float32"), np.empty(0, "float32")
    found = [
        from_xgboost(boost(lambda: iter([RowBatch(rows, minutes, None)]), PARAMETERS, 0, 1))
        for engine_is in ("dask", "local")
        if monkeypatch.setenv("ENGINE", engine_is) is None
    ]
    asked = np.zeros((1, 4), "float32")
    assert found[0].predict(asked) == found[1].predict(asked)


def soon(action) -> None:
    threading.Timer(3.0, action).start()


@pytest.mark.long
def test_a_lost_worker_that_boosts_alone_is_an_error(mortal):
    """Also in a booster beside it, which ends soon."""
    pids = engine.connected().run(os.getpid)
    soon(lambda: os.kill(pids[min(cluster_boosting._alone)], signal.SIGKILL))
    learn = partial(boost, WindowRows(clusters.rows_of, trips(2000)), ENDLESS, 0, 1)
    started = time.monotonic()
    with pytest.raises(ClusterError, match=r"boosting ended: worker tcp:\S+ was lost.*--resume"):
        call_all([learn, learn])
    assert time.monotonic() - started < 60
    assert not cluster_boosting._alone


@pytest.mark.long
@pytest.mark.usefixtures("together")
def test_a_lost_worker_is_an_error_and_the_next_try_goes_on_without_it(mortal):
    window = trips(2000)
    soon(lambda: clusters.kill(mortal.workers[0]))
    started = time.monotonic()
    with pytest.raises(ClusterError, match=r"boosting ended: worker tcp:\S+ was lost.*--resume"):
        boost(WindowRows(clusters.rows_of, window), ENDLESS, 0, 1)
    assert time.monotonic() - started < 60
    booster = boost(WindowRows(clusters.rows_of, window), PARAMETERS, 0, 1)
    assert error_of(booster, window) < 2


@pytest.mark.long
@pytest.mark.usefixtures("together")
def test_a_frozen_worker_is_lost_too(mortal, monkeypatch):
    monkeypatch.setattr(cluster_boosting, "SILENT_S", 5)
    soon(lambda: os.kill(mortal.workers[0].pid, signal.SIGSTOP))
    with pytest.raises(ClusterError, match="was lost with the rows"):
        boost(WindowRows(clusters.rows_of, trips(2000)), ENDLESS, 0, 1)


@pytest.mark.long
def test_a_scheduler_that_is_gone_is_an_error(mortal):
    soon(lambda: clusters.kill(mortal.scheduler))
    with pytest.raises(ClusterError, match=f"{mortal.address} is gone"):
        boost(WindowRows(clusters.rows_of, trips(2000)), ENDLESS, 0, 1)


@pytest.mark.parametrize("pair", [0, 2])
def test_what_xgboost_refuses_is_told_as_it_is(named, monkeypatch, pair):
    monkeypatch.setattr(cluster_boosting, "ALONE_ROWS", 0)
    monkeypatch.setattr(cluster_boosting, "PAIR", pair)
    monkeypatch.setattr(cluster_boosting, "LOST_S", 1)
    with pytest.raises(Exception, match="max_depth"):
        boost(WindowRows(clusters.rows_of, trips(500)), {**PARAMETERS, "max_depth": -3}, 0, 1)
