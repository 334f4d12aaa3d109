"""Work on a Dask cluster: in order, done again when a worker dies, and never without an end."""

from __future__ import annotations

import gc
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import clusters
import psutil
import pytest
from commands import PROJECT
from distributed import Client

from taxi_duration.data import cluster as engine
from taxi_duration.errors import BadMonthError, ClusterError, SettingError


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """Each test connects anew; what it started is gone afterwards."""
    monkeypatch.setenv("ENGINE", "dask")
    yield
    engine.close()


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A cluster of two workers with data folders of their own."""
    with clusters.cluster(tmp_path_factory.mktemp("cluster"), workers=2) as made:
        yield made


@pytest.fixture
def named(kept, monkeypatch):
    """The same, named by DASK_SCHEDULER; a test leaves it as it is."""
    monkeypatch.setenv("DASK_SCHEDULER", kept.address)
    kept.wait()
    return kept


@pytest.fixture
def mortal(tmp_path, monkeypatch):
    """One of which a test may kill what it likes."""
    with clusters.cluster(tmp_path / "cluster", workers=2) as made:
        monkeypatch.setenv("DASK_SCHEDULER", made.address)
        made.wait()
        yield made


def mapped(task, items):
    return list(engine.map_in_order(task, [(item, place) for place, item in enumerate(items)]))


def test_a_worker_that_ended_is_not_waited_for(monkeypatch, tmp_path):
    made = clusters.Cluster(tmp_path)
    made.workers.append(subprocess.Popen(["true"]))
    made.workers[0].wait()
    monkeypatch.setattr(clusters, "connected", lambda: SimpleNamespace(nthreads=dict))
    with pytest.raises(AssertionError, match="true"):
        made.wait()


# --- a cluster that is named -----------------------------------------------------------------


def test_results_come_in_order_from_all_workers(named):
    found = mapped(clusters.where, range(7))
    assert [item for item, _ in found] == list(range(7))
    assert {process for _, process in found} == {worker.pid for worker in named.workers}


def test_an_item_goes_to_the_same_data_folder_each_time(named):
    first, second = mapped(clusters.home_of, range(6)), mapped(clusters.home_of, range(6))
    assert first == second
    assert [home for _, home in first] == [first[0][1], first[1][1]] * 3
    assert first[0] != first[1]


@pytest.mark.long
def test_a_worker_that_dies_takes_nothing_with_it(mortal, tmp_path):
    assert mapped(partial(clusters.die_once, str(tmp_path)), range(6)) == list(range(6))
    assert [worker.poll() is None for worker in mortal.workers].count(False) == 1


def test_no_more_is_under_way_than_workers_are_busy_with(named, tmp_path):
    taken = []

    def items():
        for item in range(50):
            taken.append(item)
            yield item, 0

    results = engine.map_in_order(partial(clusters.note, str(tmp_path)), items())
    assert next(results) == 0
    assert len(taken) == 1 + 2 * engine.IN_FLIGHT
    results.close()
    assert len(list(tmp_path.glob("[0-9]*"))) <= len(taken)


def test_an_error_of_a_task_is_the_error_of_the_caller(named):
    with pytest.raises(BadMonthError, match="month 3 is bad"):
        mapped(clusters.refuse, [3])


def test_settings_of_the_client_hold_on_workers(named, monkeypatch):
    monkeypatch.setenv("UTC_TIMES", "local")
    monkeypatch.setenv("TLC_URL", "months")
    found = mapped(clusters.setting_of, ["UTC_TIMES", "TLC_URL", "SAMPLE_ROWS"])
    assert found == ["local", str(PROJECT / "months"), ""]


@pytest.mark.long
def test_a_scheduler_that_is_gone_is_an_error_within_seconds(mortal):
    results = engine.map_in_order(clusters.sleep, [(0.0, 0), (300.0, 0)])
    assert next(results) == 0.0
    clusters.kill(mortal.scheduler)
    started = time.monotonic()
    with pytest.raises(ClusterError, match=f"{mortal.address} is gone.*--resume"):
        next(results)
    assert time.monotonic() - started < 30


@pytest.mark.long
def test_a_scheduler_that_came_back_is_connected_to_anew(mortal):
    mapped(clusters.where, [1])
    clusters.kill(mortal.scheduler)
    mortal.start_scheduler()
    mortal.add_worker()
    assert mapped(clusters.where, [1])[0][0] == 1


@pytest.mark.long
def test_when_all_workers_are_gone_it_does_not_wait_for_ever(mortal, monkeypatch):
    monkeypatch.setattr(engine, "ALONE_S", 2)
    results = engine.map_in_order(clusters.sleep, [(0.0, 0), (300.0, 0)])
    assert next(results) == 0.0
    for worker in mortal.workers:
        clusters.kill(worker)
    with pytest.raises(ClusterError, match="no worker of the Dask cluster"):
        next(results)


@pytest.mark.long
def test_a_task_that_kills_every_worker_is_given_up_and_named(tmp_path, monkeypatch):
    with clusters.cluster(tmp_path / "cluster", workers=4) as made:
        monkeypatch.setenv("DASK_SCHEDULER", made.address)
        made.wait()
        with pytest.raises(ClusterError, match=r"^7: 4 workers died of it"):
            mapped(clusters.die, [7])


# --- an address where there is none ------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    ["nonsense", "127.0.0.1:8786", "http://127.0.0.1:8786", "tcp://", "tcp://host", "tcp://:1",
     "tcp://host:port", "tcp://host:99999", "tcp://[::1:8786", "tcp://host:1/path"],
)  # fmt: skip
def test_what_is_no_address_is_refused_in_a_sentence(monkeypatch, address):
    monkeypatch.setenv("DASK_SCHEDULER", address)
    with pytest.raises(SettingError, match=r"DASK_SCHEDULER is .* must be tcp://HOST:PORT"):
        engine.connected()


@pytest.mark.parametrize("kind", ["tcp", "tls"])
def test_an_address_where_nobody_listens_is_named(monkeypatch, kind):
    monkeypatch.setattr(engine, "CONNECT_S", 1)
    monkeypatch.setenv("DASK_SCHEDULER", f"{kind}://127.0.0.1:{clusters.free_port()}")
    with pytest.raises(ClusterError, match=f"no Dask scheduler answers at DASK_SCHEDULER={kind}"):
        engine.connected()


def refused_by_a_web_server(monkeypatch):
    monkeypatch.setattr(engine, "CONNECT_S", 1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        threading.Thread(target=talk, args=(server,), daemon=True).start()
        monkeypatch.setenv("DASK_SCHEDULER", f"tcp://127.0.0.1:{port}")
        with pytest.raises(ClusterError, match="no Dask scheduler answers"):
            engine.connected()


def test_a_server_of_another_kind_is_no_scheduler(monkeypatch):
    refused_by_a_web_server(monkeypatch)


def test_a_client_that_could_not_connect_is_closed_at_once(monkeypatch):
    """Collected while another starts, it would wait for a lock that this one holds, for ever."""
    gc.collect()
    gc.disable()
    try:
        refused_by_a_web_server(monkeypatch)
        left = [one.status for one in gc.get_objects() if isinstance(one, Client)]
    finally:
        gc.enable()
    assert left
    assert set(left) == {"closed"}


def talk(server):
    """Answer as a web server does whoever comes."""
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        connection.close()


@pytest.mark.long
def test_a_scheduler_without_workers_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "ALONE_S", 1)
    with clusters.cluster(tmp_path / "cluster") as made:
        monkeypatch.setenv("DASK_SCHEDULER", made.address)
        with pytest.raises(ClusterError, match=f"{made.address} has no workers"):
            engine.connected()


# --- the same on all machines ------------------------------------------------------------------


def pretended(folder: Path, package: str, version: str) -> str:
    """Folder in which a package seems to be installed in another version."""
    there = folder / f"{package.replace('-', '_')}-{version}.dist-info"
    there.mkdir(parents=True)
    (there / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
    return f"{folder}{os.pathsep}{PROJECT / 'tests'}"


@pytest.mark.parametrize(
    "package",
    [pytest.param("numpy", marks=pytest.mark.long), "xgboost-cpu",
     pytest.param("taxi-duration", marks=pytest.mark.long)],
)  # fmt: skip
def test_another_version_on_a_worker_is_named_before_anything_starts(
    tmp_path, monkeypatch, package
):
    with clusters.cluster(tmp_path / "cluster") as made:
        monkeypatch.setenv("DASK_SCHEDULER", made.address)
        made.add_worker(PYTHONPATH=pretended(tmp_path / "site", package, "0.0.7"))
        name = package.removesuffix("-cpu")
        with pytest.raises(
            ClusterError, match=rf"^worker tcp:\S+ has {name} 0\.0\.7, this process has [\d.]+; "
        ):
            engine.connected()


def changed(folder: Path) -> str:
    """Folder in which the package is the same version with other code."""
    shutil.copytree(PROJECT / "taxi_duration", folder / "taxi_duration")
    with (folder / "taxi_duration" / "training" / "fit.py").open("a") as file:
        file.write("# another line\n")
    return f"{folder}{os.pathsep}{PROJECT / 'tests'}"


@pytest.mark.long
def test_other_code_on_a_worker_is_named_before_anything_starts(tmp_path, monkeypatch):
    with clusters.cluster(tmp_path / "cluster") as made:
        monkeypatch.setenv("DASK_SCHEDULER", made.address)
        made.add_worker(PYTHONPATH=changed(tmp_path / "site"))
        with pytest.raises(ClusterError, match=r"code of taxi_duration is another on tcp:\S+ \("):
            engine.connected()


@pytest.mark.long
def test_a_worker_with_other_code_that_comes_later_works_on_nothing(tmp_path, monkeypatch):
    with clusters.cluster(tmp_path / "cluster", workers=1) as made:
        monkeypatch.setenv("DASK_SCHEDULER", made.address)
        assert mapped(clusters.where, [1]) == [(1, made.workers[0].pid)]
        made.add_worker(PYTHONPATH=changed(tmp_path / "site"))
        clusters.kill(made.workers[0])
        with pytest.raises(ClusterError, match="code of taxi_duration is another"):
            mapped(clusters.where, [1])


# --- a cluster of this machine's own -----------------------------------------------------------


def test_without_an_address_the_cores_of_this_machine_work():
    found = mapped(clusters.where, range(6))
    assert [item for item, _ in found] == list(range(6))
    processes = {process for _, process in found}
    assert len(processes) <= len(engine.connected().nthreads())
    assert os.getpid() not in processes
    workers = engine.connected().scheduler_info(n_workers=-1)["workers"].values()
    assert {worker["nthreads"] for worker in workers} == {1}
    total = psutil.virtual_memory().total
    assert sum(worker["memory_limit"] for worker in workers) < total
    engine.close()
    assert not any(map(psutil.pid_exists, processes))


@pytest.mark.long
def test_nothing_of_it_listens_beyond_this_machine():
    engine.connected()
    me = psutil.Process()
    listening = [
        connection.laddr.ip
        for process in [me, *me.children(recursive=True)]
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert set(listening) == {"127.0.0.1"}


@pytest.mark.long
def test_workers_end_with_a_process_that_is_killed(tmp_path):
    program = (
        "import clusters, sys\n"
        "from taxi_duration.data import cluster\n"
        "if __name__ == '__main__':\n"
        "    print(*cluster.connected().run(clusters.where, 0).values(), flush=True)\n"
        "    list(cluster.map_in_order(clusters.sleep, [(600.0, 0), (600.0, 0)]))\n"
    )
    (tmp_path / "program.py").write_text(program)
    with subprocess.Popen(
        [sys.executable, str(tmp_path / "program.py")], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(PROJECT / "tests")},
    ) as process:  # fmt: skip
        workers = [int(n) for n in re.findall(r", (\d+)\)", process.stdout.readline())]
        assert workers
        process.kill()
    until = time.monotonic() + 30
    while any(map(psutil.pid_exists, workers)):
        assert time.monotonic() < until
        time.sleep(0.1)
