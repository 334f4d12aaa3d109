"""Signatures of bundles: by a secret or a private key, checked by that or by the public one."""

from __future__ import annotations

import base64
import hmac
import json
import subprocess
import sys

import pytest
from cards import make_card
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from taxi_duration.errors import BundleError
from taxi_duration.files import read_json, write_json
from taxi_duration.model.bundle import CARD_FILE, load_bundle, load_card, save_bundle, write_card
from taxi_duration.model.signatures import (
    PRIVATE,
    PUBLIC,
    PURPOSE,
    SIGNED,
    can_sign,
    is_signed,
    new_pair,
    sign,
)

SECRET = b"a secret of both sides"


def pair(seed: int) -> tuple[str, str]:
    """A pair that is the same in every process of a test run."""
    raw = bytes(range(seed, seed + 32))
    public = Ed25519PrivateKey.from_private_bytes(raw).public_key().public_bytes_raw()
    return PRIVATE + base64.b64encode(raw).decode(), PUBLIC + base64.b64encode(public).decode()


private_text, public_text = pair(0)
PRIVATE_KEY, PUBLIC_KEY = private_text.encode(), public_text.encode()
OTHER_PRIVATE, OTHER_PUBLIC = (key.encode() for key in pair(1))
CONTENT = b'{"name": "green-duration"}'


@pytest.mark.parametrize(
    ("signer", "checker"),
    [(SECRET, SECRET), (PRIVATE_KEY, PRIVATE_KEY), (PRIVATE_KEY, PUBLIC_KEY),
     (PRIVATE_KEY, b"  " + PUBLIC_KEY + b"\n")],
)  # fmt: skip
def test_what_was_signed_is_signed_and_nothing_else(signer, checker):
    signature = sign(CONTENT, signer)
    assert is_signed(CONTENT, signature, checker)
    assert not is_signed(CONTENT + b" ", signature, checker)
    assert not is_signed(CONTENT, signature[:-2], checker)


@pytest.mark.parametrize(
    ("signer", "checker"),
    [
        (SECRET, b"another secret"),
        (SECRET, PUBLIC_KEY),
        (SECRET, PRIVATE_KEY),
        (PRIVATE_KEY, SECRET),
        (PRIVATE_KEY, OTHER_PUBLIC),
        (OTHER_PRIVATE, PRIVATE_KEY),
    ],
)
def test_signature_of_another_key_or_kind_is_none(signer, checker):
    assert not is_signed(CONTENT, sign(CONTENT, signer), checker)


@pytest.mark.parametrize(
    "known", [PUBLIC_KEY, PUBLIC_KEY[15:], base64.b64decode(PUBLIC_KEY[15:])], ids=range(3)
)
@pytest.mark.parametrize("mark", ["", SIGNED])
def test_the_public_key_taken_for_a_secret_signs_nothing(known, mark):
    """What whoever knows the public key can make."""
    digest = hmac.new(known, CONTENT, "sha256")
    for forged in (digest.hexdigest(), base64.b64encode(digest.digest()).decode()):
        assert not is_signed(CONTENT, mark + forged, PUBLIC_KEY)
        assert not is_signed(CONTENT, mark + forged, PRIVATE_KEY)


@pytest.mark.parametrize(
    "signature", ["", SIGNED, "none", SIGNED + "!", SIGNED + "A" * 88, "\ud800", SIGNED + "é" * 64]
)
@pytest.mark.parametrize("key", [SECRET, PUBLIC_KEY])
def test_signatures_that_are_none_are_refused(signature, key):
    assert not is_signed(CONTENT, signature, key)


def test_a_signature_for_another_purpose_is_none():
    """Signed with the right key, without or with other words before the content."""
    raw = base64.b64decode(private_text.removeprefix(PRIVATE))
    for purpose in (b"", b"something else\n"):
        made = Ed25519PrivateKey.from_private_bytes(raw).sign(purpose + CONTENT)
        assert not is_signed(CONTENT, SIGNED + base64.b64encode(made).decode(), PUBLIC_KEY)


def test_another_library_takes_our_keys_and_signatures_and_we_take_its():
    secret = Ed25519PrivateKey.from_private_bytes(
        base64.b64decode(private_text.removeprefix(PRIVATE))
    )
    public = Ed25519PublicKey.from_public_bytes(base64.b64decode(public_text.removeprefix(PUBLIC)))
    assert secret.public_key() == public
    ours = base64.b64decode(sign(CONTENT, PRIVATE_KEY).removeprefix(SIGNED))
    public.verify(ours, PURPOSE + CONTENT)
    with pytest.raises(InvalidSignature):
        public.verify(ours, CONTENT)
    assert secret.sign(PURPOSE + CONTENT) == ours  # Ed25519 signs alike every time


def test_a_new_pair_signs_and_checks_and_is_another_every_time():
    first, second = new_pair(), new_pair()
    assert not set(first) & set(second)
    signature = sign(CONTENT, first[0].encode())
    assert is_signed(CONTENT, signature, first[1].encode())
    assert not is_signed(CONTENT, signature, second[1].encode())


def test_the_public_key_cannot_sign():
    assert [can_sign(key) for key in (SECRET, PRIVATE_KEY, PUBLIC_KEY)] == [True, True, False]
    with pytest.raises(BundleError, match="public key, which only checks"):
        sign(CONTENT, PUBLIC_KEY)


@pytest.mark.parametrize(
    "key",
    [
        b"ed25519-public:",
        PUBLIC_KEY[:-1],
        PUBLIC_KEY + b"A",
        b"ED25519" + PUBLIC_KEY[7:],
        PUBLIC_KEY.replace(b"public", b"secret"),
        b"ed25519:" + PUBLIC_KEY[15:],
        b"-----BEGIN PUBLIC KEY-----\nMCow\n-----END PUBLIC KEY-----",
        b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIO",
        b" \n-----BEGIN PUBLIC KEY-----",
    ],
)
def test_what_looks_like_a_public_key_is_never_taken_for_a_secret(key):
    for call in (lambda: sign(CONTENT, key), lambda: is_signed(CONTENT, "", key)):
        with pytest.raises(BundleError, match="neither a secret nor"):
            call()


# --- bundles ----------------------------------------------------------------------------------


@pytest.fixture
def bundles(fitted, tmp_path):
    """Two bundles, signed with the private key."""
    folders = []
    for number, kind in ((1, "LR"), (2, "RIDGE")):
        folder = tmp_path / str(number)
        save_bundle(folder, fitted(kind), make_card(kind, version=number), PRIVATE_KEY)
        folders.append(folder)
    return folders


def test_a_bundle_is_loaded_with_the_public_key(bundles):
    _, card = load_bundle(bundles[0], PUBLIC_KEY, "green-duration:1")
    assert card["signature"].startswith(SIGNED)
    assert load_card(bundles[0], PRIVATE_KEY) == card


def unsigned(card, other):
    return {name: value for name, value in card.items() if name != "signature"}


def of_another_bundle(card, other):
    return {**card, "signature": other["signature"]}


def by_the_secret(card, other):
    content = json.dumps(unsigned(card, other), sort_keys=True, separators=(",", ":")).encode()
    return {**card, "signature": hmac.new(PUBLIC_KEY, content, "sha256").hexdigest()}


def with_another_model(card, other):
    return {**card, "model_sha256": other["model_sha256"]}


def renamed(card, other):
    return {**card, "version": 3}


@pytest.mark.parametrize(
    "forge", [unsigned, of_another_bundle, by_the_secret, with_another_model, renamed]
)
def test_a_forged_card_is_refused(bundles, forge):
    cards = [read_json(folder / CARD_FILE) for folder in bundles]
    write_json(bundles[0] / CARD_FILE, forge(*cards))
    with pytest.raises(
        BundleError, match="is not signed" if forge is unsigned else "wrong signature"
    ):
        load_bundle(bundles[0], PUBLIC_KEY)


def test_another_model_under_a_signed_card_is_refused(bundles):
    (bundles[0] / "model.bin").write_bytes((bundles[1] / "model.bin").read_bytes())
    with pytest.raises(BundleError, match="damaged or exchanged"):
        load_bundle(bundles[0], PUBLIC_KEY)


def test_a_bundle_of_another_pair_is_refused(bundles):
    write_card(bundles[0], read_json(bundles[0] / CARD_FILE), OTHER_PRIVATE)
    with pytest.raises(BundleError, match="wrong signature"):
        load_bundle(bundles[0], PUBLIC_KEY)


def test_a_card_is_not_rewritten_with_the_public_key(bundles):
    before = (bundles[0] / CARD_FILE).read_bytes()
    with pytest.raises(BundleError, match="cannot be signed"):
        write_card(bundles[0], read_json(bundles[0] / CARD_FILE), PUBLIC_KEY)
    assert (bundles[0] / CARD_FILE).read_bytes() == before


def test_what_checks_needs_no_cffi(bundles):
    """The image has the library without what built it."""
    script = (
        "import sys; sys.modules['cffi'] = sys.modules['pycparser'] = None;"
        "sys.modules['cryptography'] = None;"
        "from taxi_duration.model.bundle import load_card;"
        "load_card(sys.argv[1], sys.argv[2].encode())"
    )
    subprocess.run([sys.executable, "-c", script, bundles[0], public_text], check=True)
