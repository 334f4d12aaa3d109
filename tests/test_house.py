"""The house: who may import whom is held by a tool, and the tool really holds it."""

from __future__ import annotations

import ast
import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
CODE = [
    *(PROJECT / "taxi_duration").rglob("*.py"),
    *(PROJECT / "serve").rglob("*.py"),
    PROJECT / "pipeline.py",
]
LONGEST_FUNCTION = 40  # lines


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-logo", "--no-cache"],
        cwd=folder, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


@pytest.fixture
def house(tmp_path):
    """A copy of the code that a test may spoil."""
    for name in ("taxi_duration", "serve"):
        ignored = shutil.ignore_patterns("__pycache__", "*.npz", "*.so", "*.c", "static")
        shutil.copytree(PROJECT / name, tmp_path / name, ignore=ignored)
    shutil.copy(PROJECT / "pyproject.toml", tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "line", "broken"),
    [
        ("serve/core/answering.py", "from taxi_duration.loop import turn",
         "serve is not allowed to import taxi_duration.loop"),
        ("taxi_duration/model/trees.py", "import pandas",
         "taxi_duration.model is not allowed to import pandas"),
        ("taxi_duration/domain/zones.py", "from taxi_duration.live import deployment",
         "taxi_duration.domain is not allowed to import taxi_duration.live"),
        ("taxi_duration/live/audit.py", "from taxi_duration.data import trips",
         "taxi_duration.live is not allowed to import taxi_duration.data"),
        ("taxi_duration/domain/limits.py", "from taxi_duration.domain import truths",
         "No cycles are allowed in taxi_duration.domain"),
        ("taxi_duration/attic.py", "",
         "taxi_duration.attic"),
    ],
    ids=["service", "library", "upwards", "siblings", "circle", "no place"],
)  # fmt: skip
def test_an_import_that_the_plan_forbids_fails_the_lint(house, file, line, broken):
    path = house / file
    text = path.read_text() if path.exists() else '"""Nobody gave this a place."""\n'
    head, _, tail = text.partition("import annotations\n")
    path.write_text(f"{head}import annotations\n{line}\n{tail}" if tail else text)
    done = lint_imports(house)
    assert done.returncode != 0
    assert broken in done.stdout


def test_the_code_keeps_the_plan():
    done = lint_imports(PROJECT)
    assert done.returncode == 0, done.stdout


def test_no_function_is_too_long_to_be_seen_at_once():
    long = []
    for path in CODE:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = node.end_lineno - node.lineno + 1
                if lines > LONGEST_FUNCTION:
                    long.append(f"{path.relative_to(PROJECT)}: {node.name} has {lines} lines")
    assert not long, "\n".join(long)


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(PROJECT)))
def test_every_file_says_what_it_is_for(path):
    assert ast.get_docstring(ast.parse(path.read_text())), f"{path.name} has no docstring"


def sources() -> dict[str, str]:
    """Every piece of our Python by its place: files, and the code cells of notebooks."""
    asides = [*(PROJECT / "tests").rglob("*.py"), *(PROJECT / "benchmarks").glob("*.py")]
    texts = {str(path.relative_to(PROJECT)): path.read_text() for path in [*CODE, *asides]}
    for path in (PROJECT / "notebooks").glob("*.ipynb"):
        for i, cell in enumerate(json.loads(path.read_text())["cells"]):
            if cell["cell_type"] == "code":
                texts[f"{path.name}, cell {i}"] = "".join(cell["source"])
    return texts


def imported() -> set[tuple[str, str, str]]:
    """What is imported from our packages, wherever an import stands: place, module, name."""
    found = set()
    for place, text in sources().items():
        for node in ast.walk(ast.parse(text)):
            module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            if module.split(".")[0] in ("taxi_duration", "serve"):
                found |= {(place, module, alias.name) for alias in node.names}
    return found


def is_there(module: str, name: str) -> bool:
    try:
        if hasattr(importlib.import_module(module), name):
            return True
        importlib.import_module(f"{module}.{name}")
    except ImportError:
        return False
    return True


def test_every_import_finds_what_it_names_also_inside_a_function():
    names = imported()
    assert len(names) > 500
    lost = {(p, m, n) for p, m, n in names if n != "_walker" and not is_there(m, n)}
    assert not lost
