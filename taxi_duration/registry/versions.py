"""The registry: MLflow keeps name, version, aliases and tags; models/ keeps the bundles."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from taxi_duration import environment
from taxi_duration.domain.references import parse_reference
from taxi_duration.domain.version import Version, bundle_folder, model_name
from taxi_duration.errors import BundleError, NotFoundError, RegistryError
from taxi_duration.files import write_bytes
from taxi_duration.model.bundle import (
    CARD_FILE,
    MODEL_FILE,
    card_digest,
    load_bundle,
    load_card,
    reference_of,
    write_card,
)
from taxi_duration.registry.tracking import needed, our_models

log = logging.getLogger(__name__)

# What lies in models/<name>/<version>/, as far as its card says.
HERE, MISSING, DAMAGED, ANOTHER = "here", "missing", "damaged", "another model"
TAGGED_FIELDS = ("model_kind", "data_source", "model_sha256", "git_commit", "train_data",
                 "val_data", "created")  # fmt: skip
MODEL_SCRIPT = Path(__file__).parent / "pyfunc.py"


class Registered(Version, frozen=True):
    """A version as the registry lists it.

    Facts are those of the card in models/; where that is missing, damaged or of another model,
    those that were kept in the version's tags. `sha256` and `data_source` are empty when its
    registration was killed. `bundle` says what lies in models/.
    """

    aliases: tuple[str, ...]
    model_kind: str | None
    train: str | None
    validation: str | None
    rmse: float | None
    created: str | None
    bundle: str


def register_bundle(client: Any, run_id: str, service: str, bundle: Path) -> dict[str, Any]:
    """Register a run's bundle as the next version and return its final card.

    Safe to repeat: a run that already has a version keeps it, so that a run killed between
    two steps can go on. A folder in models/ that holds another model is never written to:
    when the tracking store was lost and counts from 1 again, numbers in use are passed over.

    Args:
        client: MlflowClient.
        run_id: the parent MLflow run; the model is logged into it.
        service: green, yellow, …
        bundle: folder with `model.bin` and `card.json`.
    Raises:
        RegistryError: the store cannot give a number that is free in models/.
    """
    name = model_name(service)
    _, card = load_bundle(bundle, environment.signing_key())
    version = _version_of_run(client, name, run_id) or _log_version(run_id, name, bundle)
    while _is_taken(bundle_folder(name, version), card["model_sha256"]):
        version = _pass_over(client, name, version)
    card = write_numbered(bundle_folder(name, version), bundle, card, name, version)
    for tag, value in (card_facts(card) | {"card_sha256": card_digest(card)}).items():
        client.set_model_version_tag(name, version, tag, str(value))
    return card


def list_versions(client: Any, name: str | None = None) -> list[Registered]:
    """Return the registered versions of our models, or of one, by name, newest first.

    Raises:
        TrackingError: the store or the tracking server does not answer.
    """
    rows = []
    for model in our_models(client, name):
        for version in client.search_model_versions(f"name='{model.name}'"):
            names = (a for a, v in model.aliases.items() if str(v) == str(version.version))
            rows.append(
                _registered(model.name, int(version.version), tuple(sorted(names)), version.tags)
            )
    return sorted(rows, key=lambda row: (row.name, -row.number))


def find_version(client: Any, reference: str) -> Registered:
    """Return the version that a reference such as `green-duration:champion` means.

    Raises:
        SettingError: the reference cannot be parsed.
        NotFoundError: no such model, version, alias or digest; lists the existing versions.
    """
    ref = parse_reference(reference)
    versions = list_versions(client, ref.name)
    for row in versions:
        if (
            ref.version == str(row.number)
            or ref.alias in row.aliases
            or ref.alias == "latest"  # the newest comes first; MLflow reserves the word
            or (ref.digest and row.sha256.startswith(ref.digest))
        ):
            return row
    known = ", ".join(":".join([str(row.number), *row.aliases]) for row in versions)
    raise NotFoundError(
        f"{reference} is not in the registry; {ref.name} has {known or 'no versions'}"
    )


def find_bundle(client: Any, reference: str) -> Path:
    """Return the folder in models/ of the version that a reference means.

    Raises:
        SettingError: the reference cannot be parsed.
        NotFoundError: it means no version, or one whose bundle is not in models/.
        RegistryError: that version's folder holds another model.
    """
    version = find_version(client, reference)
    where = shown_folder(version.folder)
    if version.bundle == MISSING:
        raise NotFoundError(
            f"{version.ref} is registered, but its bundle is not in {where}; "
            f"`python pipeline.py pull {version.ref}` fetches it"
        )
    if version.bundle == ANOTHER:
        raise RegistryError(f"{where} holds another model than the registry's {version.ref}")
    return version.folder


def shown_folder(folder: Path) -> str:
    """Return the folder as a message names it: from models/ on when it lies there."""
    root = environment.models_dir().parent
    return str(folder.relative_to(root) if folder.is_relative_to(root) else folder)


def write_numbered(
    folder: Path, bundle: Path, card: dict[str, Any], name: str, version: str | int
) -> dict[str, Any]:
    """Copy a checked bundle, with name and version in its card, signed when there is a key.

    Registering and pulling give the same bytes. The card is written last: a folder without one is
    no bundle to any reader.
    """
    write_bytes(folder / MODEL_FILE, (bundle / MODEL_FILE).read_bytes())
    number = {"name": name, "version": int(version)}
    return write_card(folder, {**number, **card, **number}, environment.signing_key())


def _version_of_run(client: Any, name: str, run_id: str) -> str | None:
    found = client.search_model_versions(f"name='{name}' and run_id='{run_id}'")
    return str(found[0].version) if found else None


def _is_taken(folder: Path, model_sha256: str) -> bool:
    """True when the folder holds another model, or a card that cannot be read."""
    return _look(folder, model_sha256)[0] in (DAMAGED, ANOTHER)


def _pass_over(client: Any, name: str, version: str) -> str:
    """Register the same model under the next number instead, and return that."""
    log.warning("models/%s/%s holds another model, taking the next version", name, version)
    taken = client.get_model_version(name, version)
    # Deleted first: killed in between, the run has no version and registers anew.
    client.delete_model_version(name, version)
    new = client.create_model_version(
        name, taken.source, run_id=taken.run_id, model_id=taken.model_id
    )
    if int(new.version) <= int(version):
        raise RegistryError(
            f"the tracking store gives out {name}:{new.version}, but models/{name}/{version} holds "
            f"another model; move models/{name} away or use the store that it was made with"
        )
    return str(new.version)


def _log_version(run_id: str, name: str, bundle: Path) -> str:
    """Log the bundle as a pyfunc model of the run and register it; return the version."""
    import mlflow

    from taxi_duration.registry.pyfunc import input_example, requirements, signature

    with needed(), _quiet(), mlflow.start_run(run_id=run_id):
        info = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(MODEL_SCRIPT),
            artifacts={"bundle": str(bundle)},
            code_paths=[str(_code_copy(bundle.parent))],
            signature=signature(),
            input_example=input_example(),
            pip_requirements=requirements(),
            registered_model_name=name,
        )
    return str(info.registered_model_version)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without MLflow's lines on every step of a registration: who calls says what was made."""
    from mlflow.utils.logging_utils import MLFLOW_LOGGING_STREAM

    before, MLFLOW_LOGGING_STREAM.enabled = MLFLOW_LOGGING_STREAM.enabled, False
    try:
        yield
    finally:
        MLFLOW_LOGGING_STREAM.enabled = before


def _code_copy(folder: Path) -> Path:
    """Copy the package without build leftovers, to be stored with the model."""
    target = folder / "code" / "taxi_duration"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(
        environment.PACKAGE, target, ignore=shutil.ignore_patterns("__pycache__", "*.c", "*.so")
    )
    return target


def _registered(
    name: str, number: int, aliases: tuple[str, ...], tags: dict[str, str]
) -> Registered:
    state, card = _look(bundle_folder(name, number), tags.get("model_sha256"))
    facts = card_facts(card) if card else tags
    return Registered(
        name,
        number,
        facts.get("model_sha256", ""),
        facts.get("data_source", ""),
        aliases,
        facts.get("model_kind"),
        facts.get("train_data"),
        facts.get("val_data"),
        float(facts["rmse"]) if "rmse" in facts else None,
        facts.get("created"),
        state,
    )


def card_facts(card: dict[str, Any]) -> dict[str, Any]:
    """What of a card is kept in the version's tags, so that it can be listed without a card."""
    facts = {name: card.get(name) for name in TAGGED_FIELDS}
    facts["rmse"] = card.get("metrics", {}).get("with_distance", {}).get("rmse")
    return {name: value for name, value in facts.items() if value is not None}


def _look(folder: Path, model_sha256: str | None) -> tuple[str, dict[str, Any]]:
    """Return what lies in a version's folder, and its card when it is of this model.

    Args:
        model_sha256: the registry's; None (a registration was killed) believes the card.
    """
    if not (folder / CARD_FILE).exists():
        return MISSING, {}
    try:
        card = load_card(folder)
    except BundleError:
        return DAMAGED, {}
    said = f"{card.get('name')}:{card.get('version')}"
    ours = said == reference_of(folder) and model_sha256 in (None, card["model_sha256"])
    return (HERE, card) if ours else (ANOTHER, {})
