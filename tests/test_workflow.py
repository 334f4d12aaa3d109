"""The workflow of CI: which Pythons and processors it tries, and that it runs what it says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import Any

import pytest
import yaml
from locks import PROJECT

TEXT = (PROJECT / ".github" / "workflows" / "ci.yml").read_text()
JOBS: dict[str, Any] = yaml.safe_load(TEXT)["jobs"]
ALL = {path.name: path.read_text() for path in (PROJECT / ".github" / "workflows").iterdir()}
ALL_JOBS: dict[str, dict[str, Any]] = {
    name: yaml.safe_load(text)["jobs"] for name, text in ALL.items()
}
MAKEFILE = (PROJECT / "Makefile").read_text()
PYTHONS = re.search(r"^PYTHONS := (.+)$", MAKEFILE, re.MULTILINE)[1].split()
RUNNERS = {"ubuntu-24.04": "linux/amd64", "ubuntu-24.04-arm": "linux/arm64"}
# A tag can be moved to other code, a commit cannot; the comment tells people which one it is.
PINNED = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")


def unpinned(workflow: str) -> list[str]:
    """Return the actions that are not named by a commit."""
    used = re.findall(r"\buses: *(.+)", workflow)
    return [action for action in used if not PINNED.fullmatch(action.strip())]


@pytest.mark.parametrize("name", ALL)
def test_every_action_is_named_by_its_commit(name):
    assert "uses:" in ALL[name]
    assert unpinned(ALL[name]) == []


@pytest.mark.parametrize(
    "action",
    ["actions/checkout@v7", "actions/checkout@v7.0.1 # v7.0.1", f"actions/checkout@{'a' * 40}",
     f"actions/checkout@{'a' * 39} # v7.0.1", "docker://alpine"],
)  # fmt: skip
def test_an_action_that_may_change_is_found(action):
    assert unpinned(f"      - uses: {action}\n") == [action]


def test_every_python_is_tried_on_every_processor():
    matrix = JOBS["pythons"]["strategy"]["matrix"]
    assert matrix == {"python": PYTHONS, "runner": list(RUNNERS)}
    assert JOBS["pythons"]["runs-on"] == "${{ matrix.runner }}"
    (python,) = [s["with"]["python-version"] for s in JOBS["pythons"]["steps"]
                 if s.get("uses", "").startswith("actions/setup-python@")]  # fmt: skip
    assert python == "${{ matrix.python }}"


def test_the_image_is_built_for_each_processor_on_its_own_machine():
    job = JOBS["image"]
    built = {one["runner"]: one["platform"] for one in job["strategy"]["matrix"]["include"]}
    assert built == RUNNERS
    assert job["runs-on"] == "${{ matrix.runner }}"
    assert job["env"] == {"DOCKER_DEFAULT_PLATFORM": "${{ matrix.platform }}"}
    stages = re.findall(r"^FROM (.+)$", (PROJECT / "Dockerfile").read_text(), re.MULTILINE)
    bases = [stage for stage in stages if not stage.startswith("build ")]
    assert {base.partition(" ")[0] for base in bases} == {"python:3.11-slim"}  # for both, by Docker


def test_conda_and_the_image_have_a_python_that_is_tried():
    conda = yaml.safe_load((PROJECT / "environment.yml").read_text())["dependencies"][0]
    image = re.findall(r"^FROM python:([\d.]+)-slim", (PROJECT / "Dockerfile").read_text(), re.M)
    assert {conda.removeprefix("python="), *image} <= set(PYTHONS)


@pytest.mark.parametrize(
    ("workflow", "name"), [(file, name) for file, jobs in ALL_JOBS.items() for name in jobs]
)
def test_a_job_ends_in_time_and_runs_what_is_there(workflow, name):
    jobs = ALL_JOBS[workflow]
    job = jobs[name]
    assert 0 < job["timeout-minutes"] <= 90
    needed = job.get("needs", [])
    assert ({needed} if isinstance(needed, str) else set(needed)) <= jobs.keys()
    for step in job["steps"]:
        assert ("run" in step) != ("uses" in step)
        script = step.get("run", "")
        for target in re.findall(r"\bmake ([a-z-]+)", script):
            assert f"\n{target}:" in MAKEFILE
        for file in re.findall(r"(?<!\S)(?:\.ci|benchmarks)/[\w./-]+", script):
            assert (PROJECT / file).is_file()
        plain = re.sub(r"\$\{\{.*?\}\}", "x", script)
        done = subprocess.run(["bash", "-n"], input=plain, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_nothing_may_write_to_the_repository():
    assert yaml.safe_load(TEXT)["permissions"] == {"contents": "read"}
    assert [name for name, job in JOBS.items() if "permissions" in job] == []
    checkouts = [step for job in JOBS.values() for step in job["steps"]
                 if step.get("uses", "").startswith("actions/checkout@")]  # fmt: skip
    assert [step["with"]["persist-credentials"] for step in checkouts] == [False] * len(JOBS)


def made(python: str, platform: str, rmse: float, predictions: str) -> dict[str, Any]:
    """What a run on a machine prints for the comparison."""
    figures = {"months": ["0" * 64], "predictions": predictions, "rmse": rmse}
    libraries = {"python": python, "platform": platform}
    return {"libraries": libraries, "figures": {"LR": figures}}


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (made("3.12.1", "Linux x86_64", 5.0, "aa"), None),
        (made("3.12.1", "Linux x86_64", 5.0, "bb"), "Python 3.12.1: LR differs"),
        (made("3.11.7", "Linux aarch64", 5.00005, "bb"), None),
        (made("3.11.7", "Linux aarch64", 5.0002, "bb"), "the RMSE of LR is 0.0002 from"),
    ],
)
def test_other_figures_of_another_machine_are_told(tmp_path, other, told):
    files = []
    for number, run in enumerate((made("3.11.7", "Linux x86_64", 5.0, "aa"), other)):
        files.append(tmp_path / f"{number}.json")
        files[-1].write_text(json.dumps(run))
    script = PROJECT / "benchmarks" / "figures.py"
    done = subprocess.run([sys.executable, script, *files], capture_output=True, text=True)
    assert done.returncode == (told is not None), done.stderr
    assert told is None or told in done.stdout


def said_by_ci(script: str) -> tuple[int, str]:
    """Exit status and output of `.ci/run` with other sections than its own."""
    text = (PROJECT / ".ci" / "run").read_text()
    head = text[: text.index('section "environment"')].replace('cd "$(dirname "$0")/.."', "")
    mine = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
    done = subprocess.run(
        ["bash", "-c", head + script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=600, env=mine,
    )  # fmt: skip
    return done.returncode, done.stdout


def test_ci_says_what_each_section_took():
    status, said = said_by_ci('section "one"\nwithin 1 echo here\nsection "two"\ntrue\n')
    assert status == 0
    assert said.count("here") == 1
    table = said.partition("=== seconds\n")[2]
    assert [line.split(None, 1)[1] for line in table.splitlines()] == ["one", "two", "all"]
    assert all(line.split()[0].isdecimal() for line in table.splitlines())


@pytest.mark.parametrize(
    ("command", "status", "told"),
    [
        ("sleep 300", 124, 'HANGS? "slow" was not done within 0.005 minutes, and ended: sleep 300'),
        ("sh -c 'exit 3'", 3, "FAILED in section: slow"),
    ],
)
def test_ci_ends_with_the_section_that_hangs_or_fails_and_names_it(command, status, told):
    found, said = said_by_ci(f'section "slow"\nwithin 0.005 {command} | tee /dev/null\necho on\n')
    assert found == status
    assert told in said and "FAILED in section: slow" in said
    assert "\non\n" not in said
    assert said.splitlines()[-1].split()[1] == "all"


def test_a_test_that_hangs_is_named_and_the_others_are_run(tmp_path):
    """With the options that `.ci/run` gives pytest; without plugins that take seconds to load."""
    (tmp_path / "test_it.py").write_text(
        "import time\ndef test_stuck():\n    time.sleep(300)\ndef test_good():\n    pass\n"
    )
    options = f"-p xdist -n 2 -q -p no:cacheprovider {tmp_path}"
    run = f"PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 {sys.executable} -m pytest {options}"
    script = f'section "tests"\neach_within 1\n{run} | tee "$scratch/pytest.txt"\n'
    status, said = said_by_ci(script)
    assert status == 1
    assert "1 failed, 1 passed" in said
    assert "crashed while running" in said
    end = said.partition("FAILED in section: tests")[2]
    assert "test_it.py::test_stuck" in end  # where a log's end alone is kept


def test_an_engine_that_a_killed_test_left_up_is_stopped(tmp_path):
    engine = tmp_path / "engine"
    engine.write_text('#!/bin/sh\necho "told to $1"\nexit 1\n')
    engine.chmod(0o755)
    status, said = said_by_ci(f'section "compose"\nengine={engine}\nwithin 0.005 sleep 300\n')
    assert status == 124
    assert "told to stop" in said and "FAILED in section: compose" in said


def test_each_slow_section_of_ci_has_an_end():
    text = (PROJECT / ".ci" / "run").read_text()
    for command in ("make setup", "make lint", "make test", "make test-long", "-m faults",
                    "make run", "build . taxi-duration", "make test-compose"):  # fmt: skip
        (line,) = re.findall(rf"^.*{re.escape(command)}(?![\w-]).*$", text, re.MULTILINE)
        assert re.match(r" *within \d+ ", line), line
    for command in ("make test", "make test-long"):
        assert re.search(rf"^each_within \d+\nwithin \d+ {command} ", text, re.MULTILINE)
