"""Where files lie: folders that can be written, room on the disk, locks held, processes left."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from taxi_duration import environment
from taxi_duration.doctor.examination import NOTE, OK, PROBLEM, Finding, one_line
from taxi_duration.errors import TaxiError
from taxi_duration.files import DISK_FULL, kind_of

# A run of all models on the default months leaves 60 MB, and needs the same again while it works.
RUN_MB = 120
BLOCK = b"\0" * 4096  # what a disk gives out at once: a full one refuses it
SHOWN = 3  # names in one line
OURS = ("pipeline.py", "serve", "mlflow", "jupyter-lab", "ipykernel_launcher")


def look_at_folder(name: str, where: Callable[[], Path], setting: str) -> Iterator[Finding]:
    """Whether a folder is one, or can be made, and takes files."""
    folder = where()
    there = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    try:
        mode = there.stat().st_mode
    except OSError as error:
        yield Finding(name, PROBLEM, f"{there} cannot be looked into: {error.strerror}",
                      f"mend it, or name another place ({setting})")  # fmt: skip
        return
    if not stat.S_ISDIR(mode):
        what = "a file" if stat.S_ISREG(mode) else kind_of(mode)
        yield Finding(name, PROBLEM, f"{there} is {what}, a folder is needed",
                      f"move it away, or name another place ({setting})")  # fmt: skip
        return
    try:
        with tempfile.TemporaryFile(dir=there) as file:  # it has no name, or loses it at once
            file.write(BLOCK)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        yield _not_written(name, there, setting, error)
        return
    made = "" if there == folder else "; it is made when it is needed"
    yield Finding(name, OK, f"{folder} can be written{made}")


def check_places_of_a_run() -> None:
    """Look at the folders that a run writes to at its end, after the training.

    Raises:
        TaxiError: one cannot be written; says why and what to do.
    """
    written = (
        ("MODELS_DIR", environment.models_dir),
        ("DEPLOYMENT_DIR", environment.deployment_dir),
    )
    for setting, where in written:
        for found in look_at_folder(setting, where, setting):
            if found.level == PROBLEM:
                raise TaxiError(f"{found.found}; {found.remedy}")


def _not_written(name: str, folder: Path, setting: str, error: OSError) -> Finding:
    if error.errno in DISK_FULL:
        said, remedy = (
            "the disk is full",
            f"`make clean` removes runs; or another place ({setting})",
        )
    elif error.errno == errno.EROFS:
        said, remedy = "it is mounted read-only", f"mount it to be written, or {setting}"
    else:
        owner = f"`sudo chown -R $USER {folder}`"
        said, remedy = one_line(error.strerror or error), f"{owner}, or another place ({setting})"
    return Finding(name, PROBLEM, f"{folder} cannot be written: {said}", remedy)


def look_at_disk(name: str) -> Iterator[Finding]:
    """Whether a run has room where it works and where temporary files go."""
    for folder in (environment.home(), environment.temporary_folder()):
        there = next(path for path in (folder, *folder.parents) if path.exists())
        free = shutil.disk_usage(there).free / 1e6
        if free < RUN_MB:
            yield Finding(name, PROBLEM, f"{free:,.0f} MB free at {there}; a run takes {RUN_MB}",
                          "`make clean` removes runs and prepared months")  # fmt: skip
        else:
            yield Finding(name, OK, f"{free:,.0f} MB free at {there}")


def look_at_locks(name: str) -> Iterator[Finding]:
    """Files that a process has locked at this moment; a lock file alone does no harm."""
    if not (table := Path("/proc/locks")).exists():
        yield Finding(name, OK, "this system does not tell who holds a lock")
        return
    held = {}
    for line in table.read_text().splitlines():  # 1: FLOCK ADVISORY WRITE 123 08:01:45 0 EOF
        words = [word for word in line.split() if word != "->"]
        if words[3] == "WRITE":  # who reads a database of SQLite has a lock on it, too
            held[int(words[5].rpartition(":")[2])] = words[4]
    databases = [
        environment.tracking_dir() / "mlflow.db",
        environment.live_dir() / "predictions.db",
    ]
    # Beside a database in WAL mode lies the file on which who writes has its lock.
    databases += [path.with_name(f"{path.name}-shm") for path in databases]
    tops = (environment.home(), environment.deployment_dir(), environment.data_dir())
    forms = (".*lock", "*/.*lock", "*/*/.*lock")
    files = {*databases, *(path for top in tops for form in forms for path in top.glob(form))}
    found = [(path, held[path.stat().st_ino]) for path in sorted(files)
             if path.exists() and path.stat().st_ino in held]  # fmt: skip
    for path, pid in found[:SHOWN]:
        yield Finding(name, NOTE, f"{path} is held by process {pid}",
                      "let it finish, or end it; never delete the file")  # fmt: skip
    if not found:
        yield Finding(name, OK, "nobody holds one")


def look_at_processes(name: str) -> Iterator[Finding]:
    """The project's own programs that run, and those whose folder is gone."""
    import psutil

    running, left = [], []
    root = str(environment.PROJECT_ROOT)
    for process in psutil.process_iter(["pid", "cmdline", "cwd"]):
        words, folder = process.info["cmdline"] or [], process.info["cwd"] or ""
        what = next((o for o in OURS for w in words[:4] if w.rpartition("/")[2] == o), None)
        if what is None or process.pid in (os.getpid(), os.getppid()):
            continue
        if folder.endswith(" (deleted)"):
            left.append(f"{what} ({process.pid})")
        elif Path(folder).is_relative_to(root):
            running.append(f"{what} ({process.pid})")
    if left:
        pids = " ".join(word.rpartition("(")[2].rstrip(")") for word in left)
        yield Finding(name, NOTE, f"left over, their folder is deleted: {', '.join(left[:SHOWN])}",
                      f"`kill {pids}`")  # fmt: skip
    yield Finding(name, OK, f"running: {', '.join(running) or 'none'}")
