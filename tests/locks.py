"""The lock files, read as pip reads them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

PROJECT = Path(__file__).resolve().parent.parent
LOCKS = (
    "requirements.txt", "serve/requirements.txt", "serve/requirements-build.txt",
    "ops/requirements.txt",
)  # fmt: skip
ENTRY = re.compile(r"([a-z0-9][a-z0-9._-]*)==([^\s;]+)(?: ; (.+?))?((?: --hash=sha256:\w+)*)")


class Pin(NamedTuple):
    """A package of a lock: its version, for whom (empty: for all), and how many hashes."""

    name: str
    version: str
    marker: str
    hashes: int


def read_lock(path: str | Path) -> list[Pin]:
    """Return what a lock pins; a line of another form is an error."""
    text = re.sub(r"\\\n *", "", (PROJECT / path).read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    found = [(line, ENTRY.fullmatch(line)) for line in lines]
    strange = [line for line, match in found if match is None]
    assert not strange, f"{path} has lines that pin nothing: {strange}"
    return [Pin(m[1], m[2], m[3] or "", m[4].count("--hash=")) for _, m in found if m]
