"""The process that unpacks Parquet bodies: each in its own, whoever ends what and when."""

from __future__ import annotations

import io
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from running import PROJECT

from serve.bodies import parquet_child, unpacker
from serve.bodies.unpacker import SlowError, Unpacker

SECONDS = 60.0  # that nothing here takes
READ = b"2 PULocationID\n"
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc")


def packed(table: dict) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table(table), file)
    return file.getvalue()


BODY = packed({"PULocationID": [74, 42]})
BAD = b"PAR1" + bytes(100) + b"PAR1"


TELLS_ITS_ID = """
def tell(*_):
    raise child.ColumnError(str(os.getpid()))
child.read_columns = tell
"""


@pytest.fixture
def make(tmp_path, monkeypatch) -> Iterator[Callable[[str], Unpacker]]:
    """Return what makes an Unpacker whose child was changed by lines of Python."""
    made = []
    monkeypatch.setattr(unpacker, "END_SECONDS", 0.5)

    def make(lines: str = "") -> Unpacker:
        script = tmp_path / f"{len(made)}.py"
        folder = str(Path(parquet_child.__file__).parent)
        script.write_text(
            f"import os, sys, time\nsys.path.insert(0, {folder!r})\n"
            f"import parquet_child as child\n{lines}\nchild.main()\n"
        )
        made.append(Unpacker(str(script)))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def slow(tmp_path) -> tuple[Path, str]:
    """A pipe that tells the id of a body's process, which then takes its time; and the lines."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    lines = f"""
read = child.read_columns
def slowly(reader, most):
    if not os.path.exists({str(pipe)!r}):
        return read(reader, most)
    with open({str(pipe)!r}, "w") as told:
        os.unlink({str(pipe)!r})
        told.write(str(os.getpid()))
    time.sleep(1000)
child.read_columns = slowly
"""
    return pipe, lines


def pid_of(one: Unpacker) -> int:
    assert one._process
    return one._process.pid


def at_rest(one: Unpacker) -> tuple[int, psutil.Process]:
    """The descriptors of the process that forks, and the only process that it has forked."""
    server = psutil.Process(pid_of(one))
    found: list[object] = []
    while len(found) < 3 or found[-1] != found[-3] or len(server.children()) != 1:
        found += [(server.num_fds(), server.children()), time.sleep(0.05)]
    return server.num_fds(), server.children()[0]


def has_ended(pid: int) -> bool:
    """A process has, soon: one without a parent is a zombie until somebody reaps it."""
    try:
        process = psutil.Process(pid)
        if process.status() != psutil.STATUS_ZOMBIE:
            process.wait(10)
    except psutil.NoSuchProcess:
        return True
    except psutil.TimeoutExpired:
        return process.status() == psutil.STATUS_ZOMBIE
    return True


def test_one_process_unpacks_all_bodies_in_forks(make):
    one = make()
    assert one._process is None  # nothing before the first body
    assert one.unpack(BODY, 2, SECONDS).content.startswith(READ)
    server = psutil.Process(pid_of(one))
    assert one.unpack(BODY, 1, SECONDS)[::2] == (parquet_child.TOO_MANY, b"2")
    assert one.unpack(BAD, 2, SECONDS).code == parquet_child.UNREADABLE
    wrong = one.unpack(packed({"PULocationID": ["a"]}), 2, SECONDS)
    assert (wrong.code, wrong.errors[:12]) == (parquet_child.BAD_COLUMN, b"PULocationID")
    assert one.unpack(BODY, 2, SECONDS)[::2] == (0, b"")
    assert pid_of(one) == server.pid
    assert server.num_threads() == 1  # a fork has the thread that forks, and the locks of all


def test_large_bodies_come_and_go_whole(make):
    body = packed({"PULocationID": [74] * 100_000, "pickup_datetime": ["x" * 60] * 100_000})
    noisy = body[:4] + os.urandom(5_000_000) + body[4:]
    assert make().unpack(noisy, 100_000, SECONDS).code == parquet_child.UNREADABLE
    done = make().unpack(body, 100_000, SECONDS)
    assert (done.code, len(done.content) > 6_000_000) == (0, True)


def test_nothing_is_left_of_good_and_bad_bodies(make):
    one = make()
    one.unpack(BODY, 2, SECONDS)
    mine = psutil.Process()
    before = mine.num_fds(), mine.children(), at_rest(one)[0]
    for i in range(50):
        one.unpack((BODY, BAD, BODY[:-20])[i % 3], 1 + i % 2, SECONDS)
    assert (mine.num_fds(), mine.children(), at_rest(one)[0]) == before


def test_each_body_has_a_process_of_its_own_that_is_there_before_it(make):
    one = make(TELLS_ITS_ID)
    one.unpack(BODY, 2, SECONDS)
    bodies = []
    for _ in range(3):
        waits = at_rest(one)[1]
        bodies.append(int(one.unpack(BODY, 2, SECONDS).errors))
        assert bodies[-1] == waits.pid
    assert len(set(bodies)) == 3


def test_nothing_is_left_of_processes_that_crash(make):
    one = make("child.read_columns = lambda *_: os.abort()")
    mine = psutil.Process()
    before = mine.num_fds(), mine.children()
    for _ in range(3):
        assert one.unpack(BODY, 2, SECONDS).code == -signal.SIGABRT
        assert (mine.num_fds(), mine.children()) == before  # the next is no fork of the same


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("which", ["forks", "waits"])
def test_one_killed_or_stopped_between_bodies_is_replaced(make, monkeypatch, number, which):
    one = make()
    one.unpack(BODY, 2, SECONDS)
    pids = {"forks": pid_of(one), "waits": at_rest(one)[1].pid}
    monkeypatch.setattr(unpacker, "FORK_SECONDS", 1.0 if number == signal.SIGSTOP else SECONDS)
    os.kill(pids[which], number)
    assert one.unpack(BODY, 2, SECONDS).code == 0
    assert pid_of(one) != pids["forks"]
    assert all(has_ended(pid) for pid in pids.values())


def test_one_killed_while_it_unpacks_leaves_no_process_and_the_body_is_unpacked(make, slow):
    pipe, lines = slow
    one = make(lines)
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(one.unpack, BODY, 2, SECONDS)
        body = int(pipe.read_text())
        os.kill(pid_of(one), signal.SIGKILL)
        assert done.result().content.startswith(READ)
    assert has_ended(body)


@pytest.mark.parametrize("stopped", [(), ("body",), ("server",), ("body", "server")])
def test_a_body_that_takes_too_long_is_ended(make, slow, stopped, monkeypatch):
    pipe, lines = slow
    one, is_taken, number = make(lines), threading.Event(), unpacker._number

    def note(*asked):
        found = number(*asked)
        is_taken.set()
        return found

    monkeypatch.setattr(unpacker, "_number", note)
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(one.unpack, BODY, 2, 2.0)
        pids = {"body": int(pipe.read_text()), "server": pid_of(one)}
        assert is_taken.wait(SECONDS)  # one stopped before is no body's that takes too long
        for name in stopped:
            os.kill(pids[name], signal.SIGSTOP)
        with pytest.raises(SlowError):
            done.result()
    assert has_ended(pids["body"])
    assert one.unpack(BODY, 2, SECONDS).code == 0


@pytest.mark.parametrize(
    "answers",
    [
        "[]",
        "[b'x']",
        "[child.NUMBER.pack(-1)]",
        "[child.NUMBER.pack(7), b'HTTP']",
        "[child.NUMBER.pack(7), child.NUMBER.pack(10**9)]",
        "[bytes(100_000)]",
    ],
)
def test_one_that_talks_nonsense_is_ended_and_said(make, answers):
    one = make(f"""
def main():
    control = child.socket.socket(fileno=0)
    control.recv(child.NUMBER.size)
    for answer in {answers}:
        control.sendall(answer)
child.main = main
""")
    mine = psutil.Process()
    before = mine.num_fds(), mine.children()
    with pytest.raises(OSError, match=r"process|exit code"):
        one.unpack(BODY, 2, SECONDS)
    assert (mine.num_fds(), mine.children()) == before


def test_one_that_cannot_fork_is_ended_and_said(make):
    one = make("""
def fork():
    raise BlockingIOError("no more processes")
os.fork = fork
""")
    with pytest.raises(OSError, match="has ended"):
        one.unpack(BODY, 2, SECONDS)


def test_limits_are_those_of_a_body_alone(make):
    names = "AS", "CPU", "CORE", "FSIZE"
    one = make(f"""
def tell(*_):
    found = [child.resource.getrlimit(getattr(child.resource, "RLIMIT_" + n)) for n in {names}]
    raise child.ColumnError(repr(found))
child.read_columns = tell
""")
    memory, seconds = parquet_child.MEMORY_BYTES, parquet_child.SECONDS
    limits = [memory, seconds, 0, memory]
    for _ in range(2):
        found = one.unpack(BODY, 2, SECONDS).errors.decode()
        assert found == repr([(limit, limit) for limit in limits])
    for name in names:
        kind = getattr(resource, f"RLIMIT_{name}")
        assert psutil.Process(pid_of(one)).rlimit(kind) == resource.getrlimit(kind)


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ("bytearray(child.MEMORY_BYTES - 40_000_000)", parquet_child.UNREADABLE),
        ("exec('while True: pass')", -signal.SIGKILL),
    ],
    ids=["memory", "time"],
)
def test_a_body_that_takes_more_than_its_limits_ends_alone(make, lines, code):
    one = make(f"child.read_columns = lambda *_: {lines}")
    assert one.unpack(BODY, 2, SECONDS).code == code


def test_a_body_may_have_what_a_process_of_its_own_had(make):
    """What the one that forks holds in addresses counts for each body, and is little."""
    room = parquet_child.MEMORY_BYTES - 60_000_000
    one = make(f"""
read = child.read_columns
child.read_columns = lambda *asked: bytearray({room}) and read(*asked)
""")
    assert one.unpack(BODY, 2, SECONDS).code == 0


@pytest.mark.parametrize("busy", [False, True])
def test_it_ends_with_the_worker_and_so_does_its_body(make, slow, busy):
    pipe, lines = slow
    if not busy:
        pipe.unlink()
    script = make(lines)._script
    worker = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from serve.bodies.unpacker import Unpacker; one = Unpacker(sys.argv[1])\n"
            "body = open(sys.argv[2], 'rb').read(); one._start(); print(one._process.pid)\n"
            "sys.stdout.flush(); one.unpack(body, 2, 60); print('done', flush=True); input()",
            script,
            str(write(pipe.parent / "body", BODY)),
        ],
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with worker:
        assert worker.stdout
        pids = [int(worker.stdout.readline())]
        if busy:
            pids.append(int(pipe.read_text()))
        else:
            assert worker.stdout.readline() == "done\n"
            pids += [waits.pid for waits in psutil.Process(pids[0]).children()]
        worker.kill()
    assert [has_ended(pid) for pid in pids] == [True] * len(pids)


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path
