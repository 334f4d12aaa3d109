"""The guard of the user's own things sees what a test leaves there, and every test has a home."""

from __future__ import annotations

import os
from pathlib import Path

import guard
import pytest
from settings_read import PROJECT, run_settings, settings_read

from taxi_duration import environment


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "project"
    (folder / "data" / "live").mkdir(parents=True)
    (folder / "data" / "live" / "monitor.json").write_text("{}")
    monkeypatch.setattr(guard, "PROJECT", folder)
    return folder


@pytest.mark.parametrize(
    ("file", "seen"),
    [
        ("data/live/monitor.json", True),  # changed
        ("deployment/deployment.json", True),  # made
        ("mlflow.db", True),
        ("../user/.mlflow", True),
        ("../user/.cache/thing", True),
        (".hypothesis", False),
        ("tests/new_test.py", False),  # somebody is at work
    ],
)
def test_what_is_left_behind_is_named(project, file, seen):
    (project / "tests").mkdir()
    user = project.parent / "user"
    (user / ".cache").mkdir(parents=True)
    before = guard.look(user)
    path = project / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("left by a test")
    assert bool(guard.difference(before, guard.look(user))) is seen


def test_what_is_gone_is_named(project):
    before = guard.look(project.parent)
    (project / "data" / "live" / "monitor.json").unlink()
    left = guard.difference(before, guard.look(project.parent))
    assert left == [str(project / "data" / "live" / "monitor.json")]


def test_a_test_has_a_home_and_an_environment_of_its_own(tmp_path):
    assert environment.home() == tmp_path / "home"
    assert tmp_path not in PROJECT.parents and Path.home() != PROJECT
    set_here = {name for name in settings_read() | run_settings() if name in os.environ}
    assert set_here == {"TAXI_HOME"}
