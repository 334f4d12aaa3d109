"""One version of every package, whatever the Python, the processor and the way to set up."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from locks import LOCKS, PROJECT, read_lock
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from taxi_duration.model.made_with import DECIDING, PACKAGES

COMPUTED = [package for name in DECIDING if name in PACKAGES for package in PACKAGES[name]]
# XGBoost's build without CUDA is not made for macOS; the other has the same arithmetic there.
BUILDS = {"xgboost-cpu": "sys_platform != 'darwin'", "xgboost": "sys_platform == 'darwin'"}


@pytest.mark.parametrize("lock", LOCKS)
def test_every_package_is_pinned_once_with_its_hashes(lock):
    pins = read_lock(lock)
    names = [pin.name for pin in pins]
    assert len(pins) > 1
    assert [name for name in names if names.count(name) > 1] == []
    assert [pin.name for pin in pins if pin.hashes == 0] == []


def test_what_decides_a_figure_is_for_every_python_and_processor():
    pins = {pin.name: pin for pin in read_lock("requirements.txt")}
    assert {name: pins[name].marker for name in COMPUTED} == {
        name: BUILDS.get(name, "") for name in COMPUTED
    }
    assert pins["xgboost"].version == pins["xgboost-cpu"].version


@pytest.mark.parametrize("lock", LOCKS[1:])
def test_the_image_has_the_versions_that_models_are_made_with(lock):
    everywhere = {pin.name: pin.version for pin in read_lock("requirements.txt")}
    image = {pin.name: pin.version for pin in read_lock(lock)}
    assert image == {name: everywhere[name] for name in image}


@pytest.mark.parametrize("lock", LOCKS)
def test_no_host_of_packages_is_named(lock):
    assert not re.search(r"://|--(extra-)?index|--find-links", (PROJECT / lock).read_text())


def test_the_locks_are_made_for_every_python_that_the_project_takes():
    makefile = (PROJECT / "Makefile").read_text()
    lowest = re.search(r'requires-python = ">=([\d.]+)"', (PROJECT / "pyproject.toml").read_text())
    assert f"--python-version {lowest[1]} " in makefile
    assert re.search(r"^PYTHONS := (.+)$", makefile, re.MULTILINE)[1].split()[0] == lowest[1]


# --- conda --------------------------------------------------------------------------------------


def stale_lines(environment: str, lock: str | Path = "requirements.txt") -> list[str]:
    """Return what an environment.yml asks for otherwise than the lock does.

    Conda brings Python and programs; packages come from the lock. One that is named all the same
    must have the lock's version.
    """
    pins = {pin.name: pin.version for pin in read_lock(lock)}
    stale, files = [], []
    for entry in yaml.safe_load(environment)["dependencies"]:
        if isinstance(entry, str):
            name, *version = re.split(r"[=<>!~ ]+", entry.rpartition("::")[2])
            exact = re.fullmatch(r"[\w.-]+ *==? *[\w.]+(=\w+)?", entry.rpartition("::")[2])
            if name in pins and not (exact and version[0] == pins[name]):
                stale.append(entry)
            continue
        for line in entry["pip"]:
            if line.startswith("-r"):
                files.append(line.removeprefix("-r").strip())
                continue
            asked = Requirement(line)
            if str(asked.specifier) != f"=={pins.get(canonicalize_name(asked.name))}":
                stale.append(line)
    return stale + ([] if files == ["requirements.txt"] else [f"pip -r {files}"])


def test_conda_installs_what_the_lock_says():
    assert stale_lines((PROJECT / "environment.yml").read_text()) == []


@pytest.mark.parametrize(
    ("now", "then"),
    [
        ("  - make", "  - numpy=1.26"),
        ("  - make", "  - conda-forge::pandas=2.2"),
        ("  - make", "  - scipy"),
        ("  - make", "  - xgboost>=3"),
        ("- -r requirements.txt", "- -r serve/requirements.txt"),
        ("- -r requirements.txt", "- mlflow"),
        ("- -r requirements.txt", "- -r requirements.txt\n      - Scikit_Learn==1.0"),
        ("- -r requirements.txt", "- -r requirements.txt\n      - a-package-that-is-not-locked==1"),
    ],
)
def test_a_stale_line_of_conda_is_found(now, then):
    text = (PROJECT / "environment.yml").read_text()
    assert now in text
    assert len(stale_lines(text.replace(now, then))) >= 1


def test_a_package_of_conda_with_the_locks_version_is_no_other():
    numpy = next(pin.version for pin in read_lock("requirements.txt") if pin.name == "numpy")
    text = (PROJECT / "environment.yml").read_text()
    for line in (f"numpy={numpy}", f"conda-forge::numpy=={numpy}"):
        assert stale_lines(text.replace("  - make", f"  - {line}")) == []
