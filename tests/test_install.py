"""`make setup` on machines without a C compiler or without Python's headers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from clones import clean_environment, clone, give_venv, shell
from settings_read import PROJECT

pytestmark = pytest.mark.long

SET_UP = "make setup BYTECODE="  # what is imported here is compiled when it is

# gcc as it is where python3-dev is not installed: everything but Python's own folder of headers.
NO_HEADERS = """#!/bin/bash
kept=()
for argument; do
  [[ $argument == -I*/include/python3* ]] || kept+=("$argument")
done
exec gcc "${kept[@]}"
"""
ANSWERS = """
import logging, sys
import numpy as np
from taxi_duration.model import trees
from taxi_duration.model.trees import NODE, RideTrees, TreeEnsemble

assert (trees._walker is not None) == (sys.argv[1] == "compiled"), trees._walker
rng = np.random.default_rng(5)
nodes = np.zeros(3 * 301, NODE)
nodes["value"] = rng.normal(size=len(nodes))
nodes["threshold"] = rng.normal(size=len(nodes))
nodes["feature"] = rng.integers(0, 4, len(nodes))
nodes["left"] = -1
nodes["left"][::3] = np.arange(0, len(nodes), 3) + 1
packed = TreeEnsemble(nodes, np.arange(0, len(nodes), 3, dtype="int32"), 7.0)
rows = rng.normal(size=(500, 4)).astype("float32")
one = RideTrees(packed)
many = packed.predict(rows)
assert [one.predict(row) for row in rows] == many.tolist()
print("answers", many.tobytes().hex())
"""


@pytest.fixture(scope="module")
def compiled() -> str:
    """What a machine with the compiled walker answers: this one."""
    pytest.importorskip("taxi_duration.model._walker")
    return answers_of(PROJECT, sys.executable, "compiled")[0]


@pytest.fixture
def folder(tmp_path) -> Iterator[Path]:
    """A clone that has nothing installed yet."""
    folder = clone(tmp_path / "clone")
    give_venv(folder)
    yield folder
    shutil.rmtree(folder / ".venv")  # a gigabyte where links cannot be made


def answers_of(folder: Path, python: Path | str, kind: str) -> tuple[str, str]:
    """Answers of a random ensemble in a checkout, and what was logged meanwhile."""
    done = subprocess.run(
        [python, "-c", ANSWERS, kind], cwd=folder, env={"PATH": os.defpath},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def compiler(kind: str, tmp_path: Path) -> str:
    """The value of CC on a machine of this kind."""
    if kind == "no compiler":
        return "/nonexistent"
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not on this machine")
    wrapper = tmp_path / "gcc-without-headers"
    wrapper.write_text(NO_HEADERS)
    wrapper.chmod(0o755)
    (tmp_path / "plain.c").write_text("#include <stdint.h>\nint f(void) { return 1; }\n")
    (tmp_path / "python.c").write_text('#include "Python.h"\n')
    build = [wrapper, "-c", "-I/usr/include/python3.11", "-o", tmp_path / "x.o"]
    assert subprocess.run([*build, tmp_path / "plain.c"]).returncode == 0
    said = subprocess.run([*build, tmp_path / "python.c"], capture_output=True, text=True)
    assert "Python.h" in said.stderr
    return str(wrapper)


@pytest.mark.parametrize("kind", ["no compiler", "no headers"])
def test_set_up_succeeds_says_so_and_answers_the_same(kind, folder, tmp_path, uv_cache, compiled):
    environment = clean_environment(folder, uv_cache, CC=compiler(kind, tmp_path))
    said = [line for line in shell(SET_UP, folder, environment).splitlines()
            if "not compiled" in line]  # fmt: skip
    assert len(said) == 1 and "slower" in said[0]
    answers, logged = answers_of(folder, folder / ".venv/bin/python", "not compiled")
    assert answers == compiled
    assert logged.count("not compiled") == 1 and "make -B setup" in logged


def test_with_a_compiler_the_walker_is_compiled_and_nothing_is_said(folder, uv_cache, compiled):
    environment = clean_environment(folder, uv_cache)
    assert "not compiled" not in shell(SET_UP, folder, environment)
    answers, logged = answers_of(folder, folder / ".venv/bin/python", "compiled")
    assert answers == compiled
    assert not logged
