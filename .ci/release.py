"""Prints the notes of a release from CHANGELOG.md, or says why its tag does not fit the files.

python .ci/release.py v1.2.3
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
TAG = re.compile(r"v(\d+\.\d+\.\d+)")
# Files that name the version, and where.
NAMED = {
    "compose.yaml": r"\$\{RELEASE:-([^}]+)\}",
    "ops/k8s/kustomization.yaml": r"newTag: ([^\s}]+)",
}


def notes(tag: str, project: Path = PROJECT) -> str:
    """Return the lines of CHANGELOG.md for a tag.

    Raises:
        ValueError: the tag is no version, or a file names another one or none.
    """
    match = TAG.fullmatch(tag)
    if match is None:
        raise ValueError(f"{tag} is not v1.2.3")
    version = match[1]
    said = {"pyproject.toml": {_own_version(project)}}
    said |= {name: set(re.findall(rule, (project / name).read_text()))
             for name, rule in NAMED.items()}  # fmt: skip
    for name, found in said.items():
        if found != {version}:
            raise ValueError(f"{name} says {', '.join(sorted(found)) or 'nothing'}, not {version}")
    text = (project / "CHANGELOG.md").read_text()
    section = re.search(
        rf"^## {re.escape(version)} \(\d{{4}}-\d\d-\d\d\)\n(.*?)(?=^## |\Z)", text, re.M | re.S
    )
    if section is None or not section[1].strip():
        raise ValueError(f"CHANGELOG.md has no lines under `## {version} (YYYY-MM-DD)`")
    return section[1].strip() + "\n"


def _own_version(project: Path) -> str:
    version: str = tomllib.loads((project / "pyproject.toml").read_text())["project"]["version"]
    return version


if __name__ == "__main__":
    try:
        print(notes(sys.argv[1]), end="")
    except ValueError as error:
        sys.exit(f"error: {error}")
