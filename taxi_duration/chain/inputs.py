"""What the results of a run depend on: the same for its models and its notebooks.

Each part is a short text, mostly a digest, so that two runs can be compared part by part and
what differs can be named.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from threadpoolctl import threadpool_info

from taxi_duration import environment
from taxi_duration.chain.notebooks import notebook_path, read_notebook
from taxi_duration.chain.run import Run
from taxi_duration.files import MODEL_MAKING, code_digest, sha256_file
from taxi_duration.model.atlas import atlas_sources
from taxi_duration.model.bundle import CARD_FILE, load_card
from taxi_duration.model.extra_features import load_conditions
from taxi_duration.model.made_with import DECIDING, versions_here

# What a notebook shows is also made by these; "" is the package's own folder.
NOTEBOOK_MAKING = (*MODEL_MAKING, "chain", "plots", "registry", "")


def fit_inputs(run: Run) -> dict[str, str]:
    """Return what a fit of the run depends on, by name.

    Raises:
        TaxiError: a month cannot be had or read, or a setting is wrong.
    """
    conditions, atlas, versions = load_conditions(), atlas_sources(), versions_here()
    months = [  # a prepared file is named after its source, the rules and how times are read
        [(month.lineage(), month.trips_path.name) for month in role]
        for role in (run.train_months, run.val_months)
    ]
    return {
        "service": run.settings.service,
        "months": _digest(months),
        "extra features": conditions.sha256 if conditions else "none",
        "atlas": atlas["sha256"] if atlas else "none",
        "boosting": f"{environment.boost_rows() or 'all'} rows on {environment.device()}, "
        f"engine {environment.engine()}",
        "code": code_digest(),
        "versions": _digest([{name: versions.get(name) for name in DECIDING}, _processor()]),
    }


def notebook_inputs(run: Run, name: str, earlier: Sequence[str]) -> dict[str, str]:
    """Return what the result of a notebook of the run depends on, by name.

    Args:
        name: of the notebook.
        earlier: names of those before it in the chain, which are done.
    Raises:
        TaxiError: as `fit_inputs`; or what an earlier notebook made is damaged.
        KeyError: it is not known what an earlier notebook made.
    """
    return {
        **fit_inputs(run),
        "code": code_digest(NOTEBOOK_MAKING),
        "notebook": _notebook_digest(name),
        "settings": _digest(run.settings.as_parameters()),
        "health of the months": _digest([health.as_dict() for health in run.health]),
        "earlier notebooks": _digest(_results(run, earlier)),
    }


def _processor() -> list[str]:
    """The processor that numpy's linear algebra adds up for: another one, in another order.

    Other libraries are loaded or not as it happens, and would say the same.
    """
    found = threadpool_info()
    return [str(one.get("architecture")) for one in found if "numpy" in one["filepath"]]


def fingerprint_of(inputs: dict[str, str], kind: str) -> str:
    """Return the digest of what a fit of one kind depends on."""
    return _digest([kind, inputs])


def _results(run: Run, earlier: Sequence[str]) -> dict[str, Any]:
    """What earlier notebooks hand on: models with their fingerprints, and the ranking.

    A card also says when and by which run; a model that was taken over is the same model.
    """
    notebooks = run.read()["notebooks"]
    found: dict[str, Any] = {}
    for file in sorted(file for name in earlier for file in notebooks[name]["made"]):
        path = run.folder / file
        if path.name == CARD_FILE:
            card = load_card(path.parent)
            found[file] = [card["fingerprint"], card["model_sha256"], card["predictions_sha256"]]
        elif path.suffix == ".json":
            found[file] = sha256_file(path)
    return found


def _notebook_digest(name: str) -> str:
    """Digest of a committed notebook's cells; outputs and what an editor notes do not count."""
    cells = read_notebook(notebook_path(name)).cells
    return _digest([[c.cell_type, c.source, c.metadata.get("tags", [])] for c in cells])


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
