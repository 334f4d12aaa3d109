"""One log format for notebooks and commands."""

from __future__ import annotations

import logging
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
steps = logging.getLogger("taxi_duration.steps")
_STEP = re.compile(rf" (?:INFO|WARNING) {re.escape(steps.name)}: (.*)")
_WORKING_ON: ContextVar[tuple[str, ...]] = ContextVar("working on", default=())
# Libraries that talk about themselves at INFO and bury what we say.
QUIET = ("alembic", "botocore", "papermill.translators", "matplotlib", "asyncio")


def log_to_stdout() -> None:
    """Show our log in a notebook's output or a command's console; safe to call twice."""
    logging.basicConfig(level=logging.INFO, format=FORMAT, stream=sys.stdout, force=True)
    _quieten()


@contextmanager
def prefix_steps(name: str) -> Iterator[None]:
    """Put a name before the steps that the block logs in this thread."""
    before = _WORKING_ON.set((*_WORKING_ON.get(), name))
    try:
        yield
    finally:
        _WORKING_ON.reset(before)


def log_step(step: str) -> None:
    """Log what is being done now, to show progress."""
    steps.info("%s", ": ".join((*_WORKING_ON.get(), step)))


@contextmanager
def saying_when_slow(what: str, seconds: float) -> Iterator[None]:
    """Say what is waited for when the block takes longer; as a warning, seen without a log too."""
    said = f"{what}: no answer in {seconds:g} s yet; `python pipeline.py doctor` looks who holds it"
    timer = threading.Timer(seconds, steps.warning, [said])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def logged_steps(text: str) -> list[str]:
    """Return the steps in a log's text, in order."""
    lines = map(_STEP.search, text.splitlines())
    return [line[1] for line in lines if line]


def log_to_file(path: Path) -> None:
    """Keep the whole log of a run, what the notebooks printed included."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter(FORMAT))
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    root.addHandler(handler)
    _quieten()


def _quieten() -> None:
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
