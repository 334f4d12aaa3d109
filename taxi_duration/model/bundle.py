"""The saved bin: `model.bin` and `card.json`, checked before anything is unpickled."""

from __future__ import annotations

import hashlib
import hmac
import io
import json
import pickle
from pathlib import Path
from typing import Any

from taxi_duration.errors import BundleError
from taxi_duration.files import read_json, write_bytes, write_json
from taxi_duration.model.duration_model import DurationModel, check_model

MODEL_FILE = "model.bin"
CARD_FILE = "card.json"

# Everything a bundle may be made of. Our own classes hold data and never run code on loading.
ALLOWED_CLASSES = frozenset(
    {
        ("numpy", "dtype"),
        ("numpy", "ndarray"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "scalar"),
        ("numpy._core.numeric", "_frombuffer"),
        ("taxi_duration.model.atlas", "Atlas"),
        ("taxi_duration.model.tree_model", "TreeModel"),
        ("taxi_duration.model.curves", "Curve"),
        ("taxi_duration.model.features", "FeatureTables"),
        ("taxi_duration.model.intervals", "Intervals"),
        ("taxi_duration.model.linear", "LinearModel"),
        ("taxi_duration.model.linear", "PairVectorizer"),
        ("taxi_duration.model.duration_model", "DurationModel"),
        ("taxi_duration.model.trees", "TreeEnsemble"),
    }
)


class _AllowListUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED_CLASSES:
            raise BundleError(f"{MODEL_FILE} holds {module}.{name}, which is not allowed")
        return super().find_class(module, name)


def save_bundle(
    folder: str | Path, model: DurationModel, card: dict[str, Any], key: bytes | None
) -> dict[str, Any]:
    """Write `model.bin` and `card.json` and return the card as written.

    Args:
        folder: made when missing; the card is written last.
        model: made of allow-listed classes only.
        card: JSON types; gets `model_sha256` and, with a key, `signature`.
        key: HMAC key (`MODEL_SIGNING_KEY`), None for an unsigned bundle.
    Raises:
        BundleError: the model could not be loaded again.
    """
    content = pickle.dumps(model, protocol=5)
    _check(_unpickle(content))
    card = {**card, "model_sha256": hashlib.sha256(content).hexdigest()}
    write_bytes(Path(folder) / MODEL_FILE, content)
    return write_card(folder, card, key)


def write_card(folder: str | Path, card: dict[str, Any], key: bytes | None) -> dict[str, Any]:
    """Write the card of an existing `model.bin`, signed when there is a key; return it."""
    card = {name: value for name, value in card.items() if name != "signature"}
    if key:
        card["signature"] = _sign(card, key)
    write_json(Path(folder) / CARD_FILE, card)
    return card


def load_bundle(
    folder: str | Path, key: bytes | None = None
) -> tuple[DurationModel, dict[str, Any]]:
    """Return the model and its card, after checking signature, digest and classes.

    Args:
        folder: holds `model.bin` and `card.json`.
        key: when given, the card must carry a valid signature made with it.
    Raises:
        BundleError: says what is missing, changed, unsigned or not allowed.
    """
    folder = Path(folder)
    card = load_card(folder, key)
    try:
        content = (folder / MODEL_FILE).read_bytes()
    except OSError as error:
        raise BundleError(
            f"{_shown(folder, MODEL_FILE)} cannot be read: {error.strerror}"
        ) from error
    found, expected = hashlib.sha256(content).hexdigest(), str(card["model_sha256"])
    if not hmac.compare_digest(found.encode(), expected.encode()):
        raise BundleError(
            f"{_shown(folder, MODEL_FILE)} has SHA-256 {found[:12]}…, its card says "
            f"{expected[:12]}…: damaged or exchanged"
        )
    try:
        model = _unpickle(content)
        _check(model)
    except BundleError as error:
        raise BundleError(f"{_shown(folder)}: {error}") from error
    return model, card


def load_card(folder: str | Path, key: bytes | None = None) -> dict[str, Any]:
    """Return the card alone, its signature checked when a key is given.

    Raises:
        BundleError: missing, not JSON, without `model_sha256`, or not signed with this key.
    """
    folder = Path(folder)
    try:
        card = read_json(folder / CARD_FILE)
    except (OSError, ValueError) as error:
        # An OSError's own text would tell the folder's whole path.
        why = error.strerror if isinstance(error, OSError) else error
        raise BundleError(f"{_shown(folder, CARD_FILE)} cannot be read: {why}") from error
    if not isinstance(card, dict):
        raise BundleError(f"{_shown(folder, CARD_FILE)} must hold an object")
    if not card.get("model_sha256"):
        raise BundleError(f"{_shown(folder, CARD_FILE)} has no model_sha256, the model's digest")
    if key:
        unsigned = {name: value for name, value in card.items() if name != "signature"}
        signature = str(card.get("signature", ""))
        if not hmac.compare_digest(signature.encode(), _sign(unsigned, key).encode()):
            what = "has a wrong signature" if signature else "is not signed"
            raise BundleError(f"{_shown(folder, CARD_FILE)} {what}; MODEL_SIGNING_KEY asks for one")
    return card


def _shown(folder: Path, name: str = "") -> str:
    """Return a bundle's file as a message names it: `green-duration/7/card.json`.

    The rest of its path is nobody's concern who asks the service.
    """
    return Path(*folder.parts[-2:], name).as_posix()


def _sign(card: dict[str, Any], key: bytes) -> str:
    """HMAC-SHA256 over the card, and through its digest over the model."""
    content = json.dumps(card, sort_keys=True, separators=(",", ":"), default=str)
    return hmac.new(key, content.encode(), "sha256").hexdigest()


def _check(model: Any) -> None:
    """Refuse what is allowed by class and still no model that this version can use."""
    try:
        check_model(model)
    # Anything may be missing or misshapen in a model that other code has written.
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise BundleError(f"{MODEL_FILE} does not fit this version: {error}") from error


def _unpickle(content: bytes) -> Any:
    try:
        return _AllowListUnpickler(io.BytesIO(content)).load()
    except BundleError:
        raise
    except Exception as error:  # a pickle that passed its digest can still be written badly
        raise BundleError(f"{MODEL_FILE} cannot be unpickled: {error!r}") from error
