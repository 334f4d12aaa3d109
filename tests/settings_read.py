"""Which settings the code reads from the environment, found in the code itself."""

from __future__ import annotations

import ast
import re
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
PACKAGE_FILES = ("taxi_duration/environment.py", "serve/settings.py")
NAME = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*")


def settings_read(*files: str) -> set[str]:
    """Return the names of all environment variables that Python files mention in their code.

    Args:
        files: from the project's root; those that read the environment when left out.
    """
    found: set[str] = set()
    for file in files or PACKAGE_FILES:
        tree = ast.parse((PROJECT / file).read_text())
        texts = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant)]
        found |= {text for text in texts if isinstance(text, str) and NAME.fullmatch(text)}
    return found


def run_settings() -> set[str]:
    """Return the names of the settings that every notebook of the chain takes too."""
    from taxi_duration.chain.run_settings import DEFAULTS

    return set(DEFAULTS)
