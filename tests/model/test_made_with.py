from __future__ import annotations

import platform
from importlib.metadata import version

import pytest

from taxi_duration.model import made_with
from taxi_duration.model.made_with import ANSWERING, DECIDING, other_versions, versions_here

HERE = {
    "python": "3.11.7", "platform": "Linux x86_64", "numpy": "2.4.6", "pandas": "3.1.1",
    "pyarrow": "25.0.1", "scikit-learn": "1.9.1", "scipy": "1.17.1", "xgboost": "3.2.0",
    "tzdata": "2026.6", "mlflow": "3.17.2",
}  # fmt: skip


@pytest.fixture
def here(monkeypatch):
    monkeypatch.setattr(made_with, "versions_here", lambda: HERE)


def test_versions_are_those_of_this_process():
    found = versions_here()
    assert found.keys() == HERE.keys()
    assert found["python"] == platform.python_version()
    assert found["platform"] == f"{platform.system()} {platform.machine()}"
    for name in HERE.keys() - {"python", "platform", "xgboost"}:
        assert found[name] == version(name)


@pytest.mark.parametrize("there", ["xgboost", "xgboost-cpu"])
def test_xgboost_is_one_library_whichever_build_is_installed(monkeypatch, there):
    def only_this_one(package):
        if package != there:
            raise made_with.PackageNotFoundError(package)
        return "3.2.0"

    monkeypatch.setattr(made_with, "version", only_this_one)
    monkeypatch.setattr(made_with, "_version_of", made_with._version_of.__wrapped__)
    found = versions_here()
    assert found.keys() == {"python", "platform", "xgboost"}
    assert found["xgboost"] == "3.2.0"


@pytest.mark.parametrize(
    "same",
    [
        HERE,
        {},
        {"numpy": "2.4.6"},
        {**HERE, "python": "3.11.99"},  # a patch of Python
        {**HERE, "mlflow": "2.0"},  # decides no figure
        {**HERE, "lightgbm": "4.7.0"},  # nothing here to compare it with
        {**HERE, "openmp": "libomp", "blas": "another processor's"},
    ],
)
def test_what_decides_no_figure_is_no_difference(here, same):
    assert other_versions(same) is None


@pytest.mark.parametrize("name", DECIDING)
def test_each_other_version_is_named_with_ours(here, name):
    other = {"python": "3.12.7", "platform": "Darwin arm64"}.get(name, "9.9")
    said = other_versions({**HERE, name: other})
    theirs, ours = said.split("; here are ")
    assert theirs.removeprefix("it was made with ") == {
        "python": "Python 3.12", "platform": "Darwin arm64",
    }.get(name, f"{name} 9.9")  # fmt: skip
    assert ours.startswith(
        {"python": "Python 3.11:", "platform": "Linux x86_64:"}.get(name, f"{name} {HERE[name]}:")
    )
    answers_with_it = other_versions({**HERE, name: other}, ANSWERING)
    assert (answers_with_it is None) is (name not in ANSWERING)


def test_all_that_differ_stand_in_one_sentence(here):
    assert other_versions({**HERE, "numpy": "1.26.4", "xgboost": "3.4.1"}) == (
        "it was made with numpy 1.26.4, xgboost 3.4.1; here are numpy 2.4.6, xgboost 3.2.0: "
        "figures may differ in their last digits"
    )
