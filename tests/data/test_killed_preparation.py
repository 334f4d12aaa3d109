"""Months that are prepared while processes are killed, disks fill up, and others do the same."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from commands import PROJECT

import pipeline
from taxi_duration.data import prepared
from taxi_duration.files import LEFTOVER_S
from taxi_duration.model.bundle import load_card

MONTHS = "2021-01:2021-04"
SMALL = {"DATA": "sample", "SAMPLE_ROWS": "4000"}
FULL = OSError(errno.ENOSPC, "No space left on device")

# Runs the command and kills itself at the n-th call of one of prepared's functions; `write_table`
# has then written half of the rows.
DEADLY = """
import os, signal, sys
from taxi_duration.data import prepared
import pipeline

place, count = sys.argv[1], int(sys.argv[2])
owner = prepared.pq if place == "write_table" else prepared
function = getattr(owner, place)

def deadly(*args, **named):
    global count
    count -= 1
    if not count:
        if place == "write_table":
            function(args[0].slice(0, len(args[0]) // 2), *args[1:], **named)
        os.kill(os.getpid(), signal.SIGKILL)
    return function(*args, **named)

setattr(owner, place, deadly)
sys.argv = ["pipeline.py", *sys.argv[3:]]
sys.exit(pipeline.main())
"""


def start(home: Path, *words: str, code: str = "") -> subprocess.Popen:
    """Start the command, or code, in a group of its own, on a home with a small sample."""
    command = ["-c", code] if code else [str(PROJECT / "pipeline.py")]
    return subprocess.Popen(
        [sys.executable, *command, *words], cwd=PROJECT, start_new_session=True,
        env={**os.environ, **SMALL, "TAXI_HOME": str(home)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def finish(process: subprocess.Popen) -> str:
    said = process.communicate()[0]
    assert process.returncode == 0, said
    return said


def made(home: Path) -> dict[str, bytes]:
    """The prepared months, by name; parts of the killed apart, and what is kept beside them."""
    files = (home / "data" / "prepared").glob("[!.]*")
    return {f.name: f.read_bytes() for f in files if f.suffix in (".parquet", ".json")}


def finished(home: Path) -> dict[Path, int]:
    """When each file of each finished month was written."""
    files = (home / "data" / "prepared").glob("[!.]*")
    whole = {path.stem for path in files if path.suffix == ".json"}
    there = (home / "data" / "prepared").glob("[!.]*")
    return {path: path.stat().st_mtime_ns for path in there if path.name.split(".")[0] in whole}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    """A home on which nobody disturbed the command."""
    home = tmp_path_factory.mktemp("undisturbed")
    finish(start(home, "data", "--months", MONTHS))
    return home


@pytest.mark.long
def test_killed_at_any_step_no_finished_month_is_done_again(undisturbed, tmp_path):
    """Each time the same command goes on; the fifth finds all months done but the last."""
    steps = [("read_month", 1), ("write_table", 1), ("write_table", 2), ("write_json", 1),
             ("write_json", 2), ("write_table", 1), ("write_json", 2)]  # fmt: skip
    done = [0, 0, 0, 0, 1, 1, 2]  # months, after each kill
    for (place, count), months in zip(steps, done, strict=True):
        before = finished(tmp_path)
        killed = start(tmp_path, place, str(count), "data", "--months", MONTHS, code=DEADLY)
        assert killed.communicate() and killed.returncode == -signal.SIGKILL
        after = finished(tmp_path)
        assert len([path for path in after if path.suffix == ".json"]) == months
        assert before.items() <= after.items()
    finish(start(tmp_path, "data", "--months", MONTHS))
    assert after.items() <= finished(tmp_path).items()
    assert made(tmp_path) == made(undisturbed)


@pytest.mark.long
def test_killed_run_is_resumed_with_the_months_that_it_had(chained, tmp_path):
    killed = start(tmp_path, "--model", "LR")
    while not list((tmp_path / "data" / "prepared").glob("[!.]*.json")):
        assert killed.poll() is None, killed.communicate()
        time.sleep(0.005)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    before = finished(tmp_path)
    (run,) = (tmp_path / "runs").iterdir()
    finish(start(tmp_path, "--resume", run.name))
    assert before and before.items() <= finished(tmp_path).items()
    assert made(tmp_path) == made(chained)
    cards = [load_card(home / "models" / "green-duration" / "1") for home in (tmp_path, chained)]
    assert cards[0]["predictions_sha256"] == cards[1]["predictions_sha256"]


@pytest.mark.long
def test_two_pipelines_prepare_the_same_months_at_once(undisturbed, tmp_path):
    both = [start(tmp_path, "data", "--months", MONTHS, "--json") for _ in range(2)]
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    found = [json.loads(text[text.index("[\n") :]) for text in said]
    assert found[0] == found[1] and len(found[0]) == 4
    assert made(tmp_path) == made(undisturbed)
    assert not list((tmp_path / "data" / "prepared").glob(".*"))


def run_here(monkeypatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["pipeline.py", *words])
    return pipeline.main()


@pytest.mark.parametrize("which", [3, 4], ids=["the trips", "the quarantine"])
def test_full_disk_is_said_and_leaves_no_half_month(home, monkeypatch, capsys, which):
    """The disk is full at some file of the second month; with room again only that one is read."""
    write, read, calls, reads = pq.write_table, prepared.read_month, [], []

    def filling(table, where, *args, **named):
        if Path(where).parent.name == "prepared":
            calls.append(where)
        write(table.slice(0, len(table) // 2), where, *args, **named)
        if len(calls) == which and Path(where) == calls[-1]:
            raise FULL
        write(table, where, *args, **named)

    monkeypatch.setattr(prepared.pq, "write_table", filling)
    monkeypatch.setattr(prepared, "read_month", lambda *a: (reads.append(a[0].stem), read(*a))[1])
    ask = ("data", "--months", "2021-01:2021-02")
    assert run_here(monkeypatch, *ask) == 1
    said = capsys.readouterr().err
    assert "error: the disk is full" in said and "No space left on device" in said
    folder = home / "data" / "prepared"
    assert len(list(folder.glob("[!.]*.json"))) == 1 and not list(folder.glob(".*"))
    assert run_here(monkeypatch, *ask) == 0
    assert [stem[-7:] for stem in reads] == ["2021-01", "2021-02", "2021-02"]
    assert "2021-02" in capsys.readouterr().out


def test_parts_of_the_killed_are_removed_when_their_month_is_made(home, monkeypatch, capsys):
    """Those that nobody writes any more: another process may be at it."""
    ask = ("data", "--months", "2021-01")
    assert run_here(monkeypatch, *ask) == 0
    folder = home / "data" / "prepared"
    (trips,) = (path for path in folder.glob("*.parquet") if "quarantine" not in path.name)
    dead, live = (folder / f".{trips.name}.{name}.part" for name in ("dead", "live"))
    for part in (dead, live):
        part.write_bytes(b"PAR1")
    os.utime(dead, (0, time.time() - LEFTOVER_S - 1))
    trips.unlink()
    assert run_here(monkeypatch, *ask) == 0
    assert trips.exists() and live.exists() and not dead.exists()
