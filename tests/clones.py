"""A copy of the project as a stranger has it, and an environment with nothing of ours in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from commands import ONE_THREAD
from settings_read import PROJECT


def clone(folder: Path) -> Path:
    """Make a git checkout of the project as it is now, without what git ignores; return it."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=PROJECT,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        if (PROJECT / name).exists():  # not deleted since
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(PROJECT / name, folder / name)
    who = ["-c", "user.name=tests", "-c", "user.email=tests@localhost"]
    for args in (["init", "-q"], ["add", "-A"], [*who, "commit", "-qm", "All there is"]):
        subprocess.run(["git", *args], cwd=folder, check=True)
    return folder


def give_venv(folder: Path) -> None:
    """Make an empty .venv with uv in it: where packages come from is not what is tested."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", ".venv"], cwd=folder, check=True)
    shutil.copy2(Path(sys.executable).with_name("uv"), folder / ".venv" / "bin" / "uv")


def clean_environment(folder: Path, cache: str | None = None, **settings: str) -> dict[str, str]:
    """Return the environment of a shell after `source .venv/bin/activate` in a clone.

    Args:
        folder: the clone; HOME is a folder beside it.
        cache: of uv, with the packages that `make setup` fetched here.
        settings: to add.
    """
    home = folder.with_name(f"{folder.name}-home")
    home.mkdir(exist_ok=True)
    path = f"{folder}/.venv/bin:/usr/local/bin:/usr/bin:/bin"
    # How this machine reaches a package index is no matter of ours.
    index = {k: v for k, v in os.environ.items() if k.startswith(("PIP_", "UV_", "SSL_"))}
    if cache:
        index["UV_CACHE_DIR"] = cache
    return {**index, **ONE_THREAD, "PATH": path, "HOME": str(home), "LANG": "C.UTF-8", **settings}


def shell(command: str, folder: Path, environment: dict[str, str], seconds: float = 1200) -> str:
    """Run a command with bash in a clone and return what it said; it must succeed."""
    done = subprocess.run(
        ["bash", "-euc", command], cwd=folder, env=environment, timeout=seconds,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert done.returncode == 0, f"`{command}` ended with {done.returncode}:\n{done.stdout[-5000:]}"
    return done.stdout
