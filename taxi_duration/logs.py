"""One log format for notebooks and commands."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
# Libraries that talk about themselves at INFO and bury what we say.
QUIET = ("alembic", "botocore", "papermill.translators", "matplotlib", "asyncio")


def log_to_stdout() -> None:
    """Show our log in a notebook's output or a command's console; safe to call twice."""
    logging.basicConfig(level=logging.INFO, format=FORMAT, stream=sys.stdout, force=True)
    _quieten()


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
