"""Pulls a version's bundle out of the registry, as `docker pull` does an image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from taxi_duration import environment
from taxi_duration.domain.version import Version
from taxi_duration.errors import BundleError, RegistryError, TaxiError, TrackingError
from taxi_duration.files import sha256_file
from taxi_duration.model.bundle import CARD_FILE, MODEL_FILE, load_bundle, load_card
from taxi_duration.model.signatures import can_sign
from taxi_duration.registry import tracking
from taxi_duration.registry.versions import find_version, shown_folder, write_numbered


class Pulled(NamedTuple):
    """The card of a pulled version, its folder, and whether anything had to be fetched."""

    card: dict[str, Any]
    folder: Path
    is_new: bool


def pull_bundle(client: Any, reference: str, folder: Path | None = None) -> Pulled:
    """Fetch a version's bundle from the registry, as registered: digest and signature checked.

    Safe to repeat, also after a kill. A whole bundle is left as it is without fetching anything;
    a half or damaged one is made whole.

    Args:
        client: MlflowClient.
        reference: `NAME:VERSION`, `NAME:ALIAS` or `NAME@sha256:…`.
        folder: where `model.bin` and `card.json` go; models/<name>/<version>/ when None.
    Raises:
        SettingError, NotFoundError: there is no such version.
        RegistryError: it cannot be fetched or written, or the folder holds another model.
        BundleError: what was fetched is not what was registered, or its signature cannot be
            checked or renewed.
    """
    version = find_version(client, reference)
    folder = folder or version.folder
    if not version.sha256:
        raise RegistryError(
            f"{version.ref} has no digest in the registry: its registration did not finish; "
            "`python pipeline.py run --resume RUN_ID` finishes it"
        )
    whole = _whole_card(folder, version)
    if whole:
        return Pulled(whole, folder, is_new=False)
    _refuse_another_model(folder, version)
    with TemporaryDirectory() as temporary:
        bundle = download_bundle(version.name, version.number, Path(temporary))
        card = _check_pulled(bundle, version)
        try:
            card = write_numbered(folder, bundle, card, version.name, version.number)
        except OSError as error:
            where = shown_folder(folder)
            raise RegistryError(f"{where} cannot be written: {error.strerror}") from error
    return Pulled(card, folder, is_new=True)


def is_gone(version: Version) -> bool:
    """True when the bundle or a part of it is not where it should lie."""
    return not all((version.folder / name).exists() for name in (MODEL_FILE, CARD_FILE))


def restore_bundle(connect: Callable[[], Any], version: Version) -> bool:
    """Pull a version whose bundle is gone from disk; True when it was.

    Args:
        connect: returns an MlflowClient; only called when something has to be pulled.
    Raises:
        BundleError: it is gone, and the registry does not give the very same one.
    """
    if not is_gone(version):
        return False
    try:
        with tracking.needed():
            client = connect()
            found = find_version(client, version.ref).sha256
            if found != version.sha256:
                raise RegistryError(f"the registry has sha256:{found[:12]}… under that name")
            pull_bundle(client, version.ref)
    except TaxiError as error:
        raise BundleError(
            f"the bundle of {version.ref} (sha256:{version.sha256[:12]}…) is gone from disk and "
            f"cannot be pulled: {error}"
        ) from error
    return True


def _is_version(card: dict[str, Any], version: Version) -> bool:
    """True when a card is of this very version, not only of an equal model."""
    found = (card.get("name"), card.get("version"), card.get("model_sha256"))
    return found == (version.name, version.number, version.sha256)


def _whole_card(folder: Path, version: Version) -> dict[str, Any] | None:
    """The card of a folder that holds this version whole, None of any other."""
    try:
        _, card = load_bundle(folder, environment.signing_key())
    except BundleError:  # missing, damaged, or not signed as it must be by now
        return None
    return card if _is_version(card, version) else None


def _refuse_another_model(folder: Path, version: Version) -> None:
    """Stop before anything but this version, half or damaged, would be overwritten."""
    try:
        is_ours = _is_version(load_card(folder), version)
    except BundleError:  # no usable card: the model's own bytes decide
        model = folder / MODEL_FILE
        is_ours = not model.exists() or sha256_file(model) == version.sha256
    if not is_ours:
        raise RegistryError(
            f"{shown_folder(folder)} holds another model than {version.ref} "
            f"(sha256:{version.sha256[:12]}); move that away, or give another folder with --to"
        )


def download_bundle(name: str, number: int | str, target: Path) -> Path:
    """Fetch what a version was registered with; return the folder of its bundle.

    Raises:
        RegistryError: it cannot be fetched.
        BundleError: it holds none, or several.
    """
    import mlflow

    # MLflow keeps the bundle of `_log_version` in this folder, under the name that it had.
    address = f"models:/{name}/{number}/artifacts"
    try:
        with tracking.needed():
            mlflow.artifacts.download_artifacts(artifact_uri=address, dst_path=str(target))
    except TrackingError as error:
        raise RegistryError(f"{name}:{number} cannot be fetched: {error}") from error
    found = [card.parent for card in target.rglob(CARD_FILE)]
    if len(found) != 1:
        raise BundleError(
            f"{name}:{number} was registered with {len(found)} bundles ({MODEL_FILE} and "
            f"{CARD_FILE}), expected is one"
        )
    return found[0]


def _check_pulled(bundle: Path, version: Version) -> dict[str, Any]:
    """Return the card of a fetched bundle, which is the one that was registered.

    Raises:
        BundleError: it is damaged, another one, or wrongly signed; or it is signed, and there
            is no key to sign its numbered card with.
    """
    try:
        _, card = load_bundle(bundle, environment.signing_key())
    except BundleError as error:
        raise BundleError(f"{version.ref} as it was fetched is refused: {error}") from error
    if card["model_sha256"] != version.sha256:
        raise BundleError(
            f"{version.ref} was registered with sha256:{version.sha256[:12]}…, what was "
            f"fetched has sha256:{card['model_sha256'][:12]}…: damaged or exchanged"
        )
    key = environment.signing_key()
    if card.get("signature") and not (key and can_sign(key)):
        raise BundleError(
            f"{version.ref} is signed, and its card has to be signed anew with name and version; "
            "set MODEL_SIGNING_KEY to the key that it was registered with (the private one)"
        )
    return card
