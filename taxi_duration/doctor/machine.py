"""The machine: Python and its packages, compiler, Jupyter's kernel, memory, clock, Docker."""

from __future__ import annotations

import importlib
import json
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from zoneinfo import ZoneInfo

from taxi_duration import environment
from taxi_duration.doctor.examination import NOTE, OK, PROBLEM, Finding
from taxi_duration.files import read_file

OLDEST_PYTHON = (3, 11)  # pyproject.toml: requires-python
SET_UP = "`make setup`, then `make` or .venv/bin/python"
REBUILD = "`make -B setup`"
SHOWN = 4  # packages that one line names
PIN = re.compile(r"^([a-z0-9._-]+)==([^ ;\\]+)", re.MULTILINE)
# The chain's processes were seen with 300 MB each (LR), and a fit of trees takes more: a note, no
# problem. `benchmarks/doctor.py --run` measures a run.
RUN_MB = 2000
CGROUPS = (  # limit and use of a container
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def look_at_python(name: str) -> Iterator[Finding]:
    """Version, processor, and whether it is the one that `make setup` made."""
    said = f"{platform.python_version()} on {platform.machine()}, {sys.executable}"
    if sys.version_info < OLDEST_PYTHON:
        wanted = ".".join(map(str, OLDEST_PYTHON))
        yield Finding(name, PROBLEM, f"{said}; {wanted} or newer is needed",
                      "`PYTHON=python3.12 make -B setup`, after removing .venv")  # fmt: skip
    else:
        yield Finding(name, OK, said)


def look_at_packages(name: str) -> Iterator[Finding]:
    """Whether what is installed is what the lock file pins."""
    try:
        direct = metadata.requires("taxi-duration") or []
    except metadata.PackageNotFoundError:
        yield Finding(name, PROBLEM, f"the project is not installed in {sys.prefix}: this may be "
                      "another environment than its own", SET_UP)  # fmt: skip
        return
    lock = environment.PROJECT_ROOT / "requirements.txt"
    if not lock.exists():
        yield Finding(name, OK, "there is no lock file to compare with")
        return
    pinned: dict[str, set[str]] = {}
    for package, version in PIN.findall(read_file(lock).decode()):
        pinned.setdefault(package, set()).add(version)
    names = {re.split(r"[^A-Za-z0-9._-]", requirement)[0].lower() for requirement in direct}
    others = []
    for package in sorted(names & pinned.keys()):
        there = _installed(package)
        # One that is not needed on this system is not there.
        if there is not None and there not in pinned[package]:
            others.append(f"{package} {there} instead of {' or '.join(sorted(pinned[package]))}")
    if others:
        more = f" and {len(others) - SHOWN} more" if len(others) > SHOWN else ""
        yield Finding(name, PROBLEM, "; ".join(others[:SHOWN]) + more, REBUILD)
    else:
        yield Finding(name, OK, "as requirements.txt pins them")


def _installed(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def look_at_compiler(name: str) -> Iterator[Finding]:
    """Whether the tree walker is compiled for this Python; if not, what is missing for that."""
    folder = environment.PACKAGE / "model"
    built = [path.name for path in folder.glob("_walker*.so")]
    try:
        importlib.import_module("taxi_duration.model._walker")
    except ImportError:
        pass
    else:
        yield Finding(name, OK, "the tree walker is compiled")
        return
    compiler = (environment.setting("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    if built:
        said, remedy = f"{built[0]} was built for another Python or processor", REBUILD
    elif shutil.which(compiler) is None:
        said = f"there is no C compiler ({compiler})"
        remedy = f"`apt install gcc libc6-dev` (macOS: `xcode-select --install`), then {REBUILD}"
    elif not Path(sysconfig.get_path("include"), "Python.h").exists():
        said, remedy = "Python.h is missing", f"`apt install python3-dev`, then {REBUILD}"
    else:
        said, remedy = "the tree walker is not compiled", REBUILD
    yield Finding(name, NOTE, f"{said}: same answers, slower rides", remedy)


def look_at_kernel(name: str) -> Iterator[Finding]:
    """Whether Jupyter finds the notebooks' kernel, `python3`, and its Python is there."""
    if _installed("ipykernel") is None:
        yield Finding(name, PROBLEM, "ipykernel is not installed: notebooks have no kernel", SET_UP)
        return
    from jupyter_core.paths import jupyter_path

    places = (Path(folder, "python3", "kernel.json") for folder in jupyter_path("kernels"))
    found = next((path for path in places if path.exists()), None)
    if found is None:  # Jupyter then takes the Python that it runs in
        yield Finding(name, OK, f"python3 is {sys.executable}")
        return
    try:
        python = json.loads(read_file(found))["argv"][0]
        problem = None if shutil.which(python) else f"names {python}, which is not there"
    except (OSError, ValueError, LookupError, TypeError) as error:
        problem = f"cannot be read ({type(error).__name__})"
    if problem:
        yield Finding(name, PROBLEM, f"{found} {problem}",
                      f"delete {found.parent}; Jupyter then takes its own Python")  # fmt: skip
    else:
        yield Finding(name, OK, f"python3 of {found.parent} is there")


def look_at_memory(name: str) -> Iterator[Finding]:
    """Whether a run fits into what is free, also in a container."""
    import psutil

    free = min([psutil.virtual_memory().available, *_left_to_container()]) / 1e6
    if free < RUN_MB:
        yield Finding(name, NOTE, f"{free:,.0f} MB free; a run takes up to {RUN_MB:,}",
                      "end other programs, give a container more, or MODEL=LR")  # fmt: skip
    else:
        yield Finding(name, OK, f"{free:,.0f} MB free")


def _left_to_container() -> Iterator[int]:
    for limit, use in CGROUPS:
        try:
            yield int(Path(limit).read_text()) - int(Path(use).read_text())
        except (OSError, ValueError):  # no container, or `max`
            continue


def look_at_clock(name: str) -> Iterator[Finding]:
    """Whether New York's time zone is known, and the clock is not before this code was written."""
    try:
        zone = ZoneInfo("America/New_York")
    except (KeyError, OSError, ValueError) as error:
        yield Finding(name, PROBLEM, f"New York's time zone is not known ({error})", REBUILD)
        return
    now, written = time.time(), Path(__file__).stat().st_mtime
    shown = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(now))
    if now < written:
        yield Finding(name, PROBLEM, f"it is {shown} here, before this code was written",
                      "set the clock (`timedatectl set-ntp true`)")  # fmt: skip
    else:
        yield Finding(name, OK, f"{shown}, {zone} is known")


def look_at_docker(name: str) -> Iterator[Finding]:
    """Whether Docker's daemon answers this user."""
    if shutil.which("docker") is None:
        yield Finding(name, PROBLEM, "there is no docker command",
                      "`./setup_ec2.sh`, or docs.docker.com/engine/install")  # fmt: skip
        return
    form = "{{.Server.Version}} for {{.Server.Arch}}"
    done = subprocess.run(
        ["docker", "version", "--format", form], capture_output=True, text=True,
        stdin=subprocess.DEVNULL, timeout=60,
    )  # fmt: skip
    said = (done.stderr.strip() or done.stdout.strip() or f"ended with {done.returncode}").split(
        "\n"
    )
    if done.returncode == 0:
        yield Finding(name, OK, f"Engine {done.stdout.strip()}")
    elif "permission denied" in done.stderr.lower():
        yield Finding(name, PROBLEM, "Docker's daemon does not let this user in",
                      "`sudo usermod -aG docker $USER`, then log in again")  # fmt: skip
    else:
        yield Finding(name, PROBLEM, f"Docker's daemon does not answer: {said[0]}",
                      "`sudo systemctl start docker`, or start Docker Desktop")  # fmt: skip
