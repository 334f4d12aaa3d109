"""Takes from earlier runs what is current: notebooks that would come out as they did before.

A notebook is current when everything it depends on (`inputs.py`) is as it was for a run whose
executed notebook and results are still whole (`earlier.py`), in MLflow too, and a version that it
registered still is there. What is taken lies in the new run's folder as if it had been made there;
run.json and MLflow name the run that made it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from taxi_duration import environment
from taxi_duration.chain.candidates import adopt
from taxi_duration.chain.earlier import Made, digests_of, made_by_others
from taxi_duration.chain.inputs import notebook_inputs
from taxi_duration.chain.run import Run
from taxi_duration.domain.version import bundle_folder
from taxi_duration.errors import BundleError, DeletedError, PipelineError, TaxiError, TrackingError
from taxi_duration.live.deployment import read_deployment
from taxi_duration.model.bundle import CARD_FILE, card_digest, load_bundle, load_card
from taxi_duration.registry import tracking

log = logging.getLogger(__name__)


NOTED = ("health", "rows", "checks", "model")  # what notebooks write into run.json


class Look(NamedTuple):
    """The first notebook that must be executed.

    Args:
        inputs: what it depends on, as `notebook_inputs`; None when that is not known.
        why: the reason not to take it from an earlier run; empty when there is none with the
            same settings.
    """

    inputs: dict[str, str] | None
    why: str


def take_current(run: Run, notebooks: Sequence[str], first: int) -> Look:
    """Take what is current, up to the first notebook that is not.

    Args:
        run: may take something when it says so; else only the inputs are looked at.
        notebooks: of the chain, in order.
        first: place of the first that is not done.
    Raises:
        TrackingError: MLflow's store does not answer.
    """
    for place in range(first, len(notebooks)):
        name = notebooks[place]
        inputs = _inputs(run, name, notebooks[:place])
        if inputs is None:
            return Look(None, "")
        run.update(data_source=run.data_source)  # it stays with these months
        if not run.takes_current:
            return Look(inputs, "")
        made, why = _find(run, name, inputs)
        if made is None:
            return Look(inputs, why)
        try:
            _take(run, name, made)
        except (PipelineError, OSError) as error:  # somebody clears it away in this moment
            return Look(inputs, f"it cannot be taken from run {made.folder.name}: {error}")
    return Look(None, "")


def what_was_made(
    run: Run, name: str, earlier: Sequence[str], inputs: dict[str, str] | None
) -> dict[str, Any]:
    """Return what run.json keeps of an executed notebook, so that later runs may take it.

    Nothing when what it depends on was changed meanwhile: it is not known which of both it saw.

    Args:
        inputs: before it was executed.
    """
    # Another object of the same run: this one remembers its months as they were.
    if inputs is None or inputs != _inputs(replace(run), name, earlier):
        return {}
    info = run.read()
    before = {f: d for n in earlier for f, d in info["notebooks"][n]["made"].items()}
    made = {f: d for f, d in digests_of(run).items() if before.get(f) != d}
    noted = {what: info[what] for what in NOTED if what in info}
    return {"depends_on": inputs, "made": made, "noted": noted}


def _inputs(run: Run, name: str, earlier: Sequence[str]) -> dict[str, str] | None:
    try:
        return notebook_inputs(run, name, earlier)
    except TrackingError:
        raise
    except (TaxiError, OSError, KeyError) as error:  # the notebook itself will say what is wrong
        log.info("it is not known what %s depends on: %s", name, error)
        return None


def _find(run: Run, name: str, inputs: dict[str, str]) -> tuple[Made | None, str]:
    """Return what another run made of the same inputs; else None, and why."""
    problem, differs = "", ""
    for made in made_by_others(run, name):
        was = made.entry["depends_on"]
        changed = [part for part in inputs if inputs[part] != was.get(part)]
        if not changed:
            found = _problem(run, made)
            if found is None:
                return made, ""
            problem = problem or found
        elif not differs and "settings" not in changed:
            differs = f"{', '.join(changed)} changed since run {made.folder.name}"
    return None, problem or differs


def _problem(run: Run, made: Made) -> str | None:
    """Say why what was made cannot be taken; None when it can."""
    mlflow_run_id = str(made.info.get("mlflow_run_id"))
    try:
        if found := made.problem():
            return found
        if not tracking.is_active(run.client, mlflow_run_id):
            return f"MLflow's record of run {made.folder.name} was deleted"
        for name in made.files:
            if name.endswith(CARD_FILE):  # signed as it must be now
                load_card((made.folder / name).parent, environment.signing_key())
        released = made.entry["noted"].get("model")
        return _released_problem(run, released) if released else None
    except (BundleError, OSError, ValueError, KeyError, TypeError) as error:
        return f"what run {made.folder.name} made cannot be used: {error}"


def _released_problem(run: Run, model: dict[str, Any]) -> str | None:
    """Say what is no longer so of a version that was registered; None when all is."""
    name, number = model["name"], str(model["version"])
    ref = f"{name}:{number}"
    try:
        registered = run.client.get_model_version(name, number)
    except DeletedError:
        return f"{ref} was deleted in MLflow"
    tags = registered.tags
    if not tracking.is_active(run.client, registered.run_id):
        return f"the run that made {ref} was deleted in MLflow"
    _, card = load_bundle(bundle_folder(name, number), environment.signing_key(), ref)
    if (tags.get("model_sha256"), tags.get("card_sha256")) != (
        card["model_sha256"], card_digest(card),
    ):  # fmt: skip
        return f"the bundle of {ref} is another than MLflow knows"
    if model["beats_lookups"] and read_deployment() is None:
        return "nothing is deployed any more"
    return None


def _take(run: Run, name: str, made: Made) -> None:
    """Make what another run made this run's own: files, records, and MLflow's entry."""
    made.copy(run)
    for file in made.files:
        if file.endswith(CARD_FILE):
            folder = (run.folder / file).parent
            adopt(run, folder.name, load_card(folder))
    files = {**made.entry["made"], **{f: d for f, d in digests_of(run).items() if f in made.files}}
    entry = {**made.entry, "made": files, "taken_from": made.run_id}
    entry.pop("seconds", None)  # it cost nothing
    parent = run.parent_run()
    source = run.client.get_run(str(made.info["mlflow_run_id"]))
    tags = {k: v for k, v in source.data.tags.items() if k in ("winner", "beats_baselines")}
    tags[f"taken_from.{name}"] = made.run_id
    tracking.log_run(run.client, parent, metrics=source.data.metrics, tags=tags)
    notebooks = run.read()["notebooks"]
    run.update(notebooks={**notebooks, name: entry}, **made.entry["noted"])
