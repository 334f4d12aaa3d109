"""What a model's figures depend on beside data, code and settings: Python, libraries, machine."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version

# As cards name them, and the packages that may bring them: the lock takes XGBoost's build without
# CUDA where there is one.
PACKAGES = {
    "numpy": ("numpy",),
    "pandas": ("pandas",),
    "pyarrow": ("pyarrow",),
    "scikit-learn": ("scikit-learn",),
    "scipy": ("scipy",),
    "xgboost": ("xgboost-cpu", "xgboost"),
    "tzdata": ("tzdata",),
    "mlflow": ("mlflow",),  # decides no figure, but how a model is kept
}
# All that an answer passes through; trees are walked by our own code, whoever learned them.
ANSWERING = ("python", "platform", "numpy", "tzdata")
DECIDING = (*ANSWERING, "pandas", "pyarrow", "scikit-learn", "scipy", "xgboost")


def versions_here() -> dict[str, str]:
    """Return version by name, of Python, the platform and the packages that are installed."""
    found = {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
    }
    versions = ((name, _version_of(packages)) for name, packages in PACKAGES.items())
    return found | {name: version for name, version in versions if version is not None}


@cache
def _version_of(packages: tuple[str, ...]) -> str | None:
    """Return the version of the first that is installed, None where none is.

    Read once: a process keeps what it imported, and a chain asks at every step.
    """
    for package in packages:
        with suppress(PackageNotFoundError):
            return version(package)
    return None


def other_versions(made_with: Mapping[str, str], names: Iterable[str] = DECIDING) -> str | None:
    """Say what differs here from where a model was made; None when nothing does.

    Args:
        made_with: a card's `libraries`; what it does not name, or this machine has not, is not
            compared.
        names: what to compare.
    """
    here = versions_here()
    others = [
        name
        for name in names
        if name in made_with and name in here and _shown(name, made_with) != _shown(name, here)
    ]
    if not others:
        return None
    theirs, ours = (", ".join(_shown(name, said) for name in others) for said in (made_with, here))
    return f"it was made with {theirs}; here are {ours}: figures may differ in their last digits"


def _shown(name: str, versions: Mapping[str, str]) -> str:
    if name == "platform":
        return versions[name]
    if name == "python":  # its patches change no arithmetic; 3.12 changed how `sum` rounds
        return f"Python {'.'.join(versions[name].split('.')[:2])}"
    return f"{name} {versions[name]}"
