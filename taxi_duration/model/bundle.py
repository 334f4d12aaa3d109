"""The saved bin: `model.bin` and `card.json`, held against each other and checked before use."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from taxi_duration.errors import BundleError, ContentError
from taxi_duration.files import read_file, write_bytes, write_json
from taxi_duration.model.card_checks import check_card
from taxi_duration.model.duration_model import DurationModel
from taxi_duration.model.plain_pickle import dumps, loads
from taxi_duration.model.signatures import is_signed, sign
from taxi_duration.model.state import from_state, to_state

MODEL_FILE = "model.bin"
CARD_FILE = "card.json"
FORMAT = 3  # 1 was a pickle of our classes, 2 had no level of the day
MAX_MODEL_BYTES, MAX_CARD_BYTES = 1 << 30, 1 << 22
# What the card says and `model.bin` too: a card of another model is found by it.
IDENTITY = ("model_kind", "service", "created")
HOW_TO_RENEW = "train the model again: `python pipeline.py run`"


def save_bundle(
    folder: str | Path, model: DurationModel, card: dict[str, Any], key: bytes | None
) -> dict[str, Any]:
    """Write `model.bin` and `card.json` and return the card as written.

    Args:
        folder: made when missing; the card is written last.
        model: of the kind that the card names.
        card: JSON types; gets `model_sha256` and, with a key, `signature`.
        key: `MODEL_SIGNING_KEY` (see `signatures`), None for an unsigned bundle.
    Raises:
        BundleError: model or card could not be loaded again.
    """
    try:
        said = {name: card.get(name) for name in ("service", "created")}
        content = dumps({"format": FORMAT, **said, "model": to_state(model)})
    except ValueError as error:
        raise BundleError(f"{MODEL_FILE} cannot be written: {error}") from error
    card = {**card, "model_sha256": hashlib.sha256(content).hexdigest()}
    folder = Path(folder)
    try:
        check_card(card)
    except BundleError as error:
        raise BundleError(f"{_shown(folder, CARD_FILE)} {error}") from error
    _make_model(folder, _open_state(folder, content), card)
    write_bytes(folder / MODEL_FILE, content)
    return write_card(folder, card, key)


def write_card(folder: str | Path, card: dict[str, Any], key: bytes | None) -> dict[str, Any]:
    """Write the card of an existing `model.bin`, signed when there is a key; return it.

    Raises:
        BundleError: the key cannot sign.
    """
    card = {name: value for name, value in card.items() if name != "signature"}
    if key:
        card["signature"] = sign(_content(card), key)
    write_json(Path(folder) / CARD_FILE, card)
    return card


def load_bundle(
    folder: str | Path, key: bytes | None = None, expected: str | None = None
) -> tuple[DurationModel, dict[str, Any]]:
    """Return the model and its card, after every check; nothing is used before.

    Args:
        folder: holds `model.bin` and `card.json`.
        key: when given, the card must carry a valid signature (see `signatures`).
        expected: `name:version` that the bundle must be; None for whatever it is.
    Raises:
        BundleError: says what is missing, changed, unsigned, of another model or not allowed.
    """
    folder = Path(folder)
    card = load_card(folder, key, expected)
    # Nothing keeps the file's bytes: the arrays have their own, and one copy is in memory.
    state = _open_state(folder, _read_model(folder, card["model_sha256"]))
    return _make_model(folder, state, card), card


def load_card(
    folder: str | Path, key: bytes | None = None, expected: str | None = None
) -> dict[str, Any]:
    """Return the card alone, its fields checked, and its signature when a key is given.

    Raises:
        BundleError: missing, not JSON, not signed with this key, of another version than
            expected, or a field is missing or not as its readers need it.
    """
    folder = Path(folder)
    content = _read(folder, CARD_FILE, MAX_CARD_BYTES)
    try:
        card: dict[str, Any] = json.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{_shown(folder, CARD_FILE)} cannot be read: {error}") from error
    try:
        if key:
            _check_signature(card, key)
        check_card(card, expected)
    except BundleError as error:
        raise BundleError(f"{_shown(folder, CARD_FILE)} {error}") from error
    return card


def card_digest(card: dict[str, Any]) -> str:
    """Return the SHA-256 of what a card says, without its signature, which is checked by itself."""
    return hashlib.sha256(_content(card)).hexdigest()


def reference_of(folder: Path) -> str:
    """Return the `name:version` that a folder in models/ must hold."""
    return f"{folder.parent.name}:{folder.name}"


def _read(folder: Path, name: str, limit: int) -> bytes:
    """Return a file's bytes.

    Raises:
        BundleError: it is not there, no file, or too large.
    """
    try:
        return read_file(folder / name, limit)
    except ContentError as error:
        raise BundleError(f"{_shown(folder)}/{error}") from error
    except OSError as error:  # its own text would show the folder's whole path
        raise BundleError(f"{_shown(folder, name)} cannot be read: {error.strerror}") from error


def _read_model(folder: Path, sha256: str) -> bytes:
    """Return the bytes of `model.bin`.

    Raises:
        BundleError: they are not those of the digest.
    """
    content = _read(folder, MODEL_FILE, MAX_MODEL_BYTES)
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise BundleError(
            f"{_shown(folder, MODEL_FILE)} has SHA-256 {found[:12]}…, its card says "
            f"{sha256[:12]}…: damaged or exchanged"
        )
    return content


def _open_state(folder: Path, content: bytes) -> dict[str, Any]:
    """Return what `save_bundle` wrote.

    Raises:
        BundleError: these bytes are something else, or of another format.
    """
    where = _shown(folder, MODEL_FILE)
    if b"taxi_duration." in content[:300]:  # a pickle of ours that names its classes
        raise BundleError(f"{where} is of an older format, which named classes; {HOW_TO_RENEW}")
    try:
        state = loads(content)
    except ValueError as error:
        raise BundleError(f"{where} is no pickle of plain values: {error}") from error
    if type(state) is not dict or type(state.get("format")) is not int:
        raise BundleError(f"{where} names no format: it is no model of this project")
    if state["format"] != FORMAT:
        remedy = HOW_TO_RENEW if state["format"] < FORMAT else "update this installation"
        raise BundleError(
            f"{where} is of format {state['format']}, this version reads {FORMAT}; {remedy}"
        )
    if state.keys() != {"format", "service", "created", "model"}:
        raise BundleError(f"{where} holds more or less than service, created and model")
    return state


def _make_model(folder: Path, state: dict[str, Any], card: dict[str, Any]) -> DurationModel:
    """Return the model of a state, which is the one that the card describes.

    Raises:
        BundleError: it is another one, or none that this version can use.
    """
    try:
        model = from_state(state["model"])
    except ValueError as error:
        where = _shown(folder, MODEL_FILE)
        raise BundleError(f"{where} is no model that can be used: {error}") from error
    stated = {**state, "model_kind": model.kind}
    for name in IDENTITY:
        if stated[name] != card[name]:
            raise BundleError(
                f"{_shown(folder, CARD_FILE)} is of another model: "
                f"its {name} is {card[name]}, that of {MODEL_FILE} is not"
            )
    return model


def _check_signature(card: Any, key: bytes) -> None:
    """Make sure that the card, and through its digest the model, is signed as the key asks."""
    if type(card) is not dict or "signature" not in card:
        raise BundleError("is not signed; MODEL_SIGNING_KEY asks for one")
    if not is_signed(_content(card), str(card["signature"]), key):
        raise BundleError("has a wrong signature; MODEL_SIGNING_KEY asks for one")


def _content(card: dict[str, Any]) -> bytes:
    """What a card says, without its signature: the same bytes however the file is laid out."""
    unsigned = {name: value for name, value in card.items() if name != "signature"}
    return json.dumps(unsigned, sort_keys=True, separators=(",", ":"), default=str).encode()


def _shown(folder: Path, name: str = "") -> str:
    """Return a bundle's file as a message names it: `green-duration/7/card.json`.

    Clients of the service need not know the rest of its path.
    """
    return Path(*folder.parts[-2:], name).as_posix()
