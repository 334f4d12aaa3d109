"""Signatures of bundles: with a secret that both sides hold, or with a pair of keys.

`MODEL_SIGNING_KEY` says which. Any text is a secret (HMAC-SHA256): who can check can sign too.
`ed25519-private:…` signs and checks, where models are made; `ed25519-public:…` checks and cannot
sign, where they are served. The kind of signature that counts is the key's, never what a bundle
says of itself: else whoever knows the public key could sign with it as if it were a secret.
"""

from __future__ import annotations

import base64
import hmac
import re

from taxi_duration import environment
from taxi_duration.errors import BundleError, SettingError

PRIVATE, PUBLIC = "ed25519-private:", "ed25519-public:"
SIGNED = "ed25519:"  # begins such a signature in a card
# Signed along, so that what was signed for something else is no signature of a card.
PURPOSE = b"taxi-duration card\n"
# Other forms of keys: taken as a secret, a public key would be one that everybody knows.
_LOOKS_PAIRED = re.compile(r"\s*[\"']?(ed25519|ssh-|-----BEGIN )", re.IGNORECASE)
_FORM = re.compile(rf"({PRIVATE}|{PUBLIC})([A-Za-z0-9+/]{{43}}=)")


def new_pair() -> tuple[str, str]:
    """Return a new private key and its public one, as `MODEL_SIGNING_KEY` takes them."""
    from nacl.signing import SigningKey

    key = SigningKey.generate()
    return PRIVATE + _text(bytes(key)), PUBLIC + _text(bytes(key.verify_key))


def check_keys() -> None:
    """Look at the keys that are set, before bundles are served; raises SettingError."""
    environment.signing_key()
    for name in ("MODEL_SIGNING_KEY", "MODEL_PRIVATE_KEY"):
        check_key(name)


def check_key(name: str) -> None:
    """Raise SettingError when the key that a setting gives is malformed."""
    try:
        can_sign((environment.setting(name) or "").encode())
    except BundleError as error:
        raise SettingError(f"{name}: {error}") from error


def can_sign(key: bytes) -> bool:
    """True for all keys but public ones.

    Raises:
        BundleError: the key is malformed.
    """
    paired = _paired(key)
    return paired is None or paired[0] == PRIVATE


def sign(content: bytes, key: bytes) -> str:
    """Return the signature of a content.

    Raises:
        BundleError: the key cannot sign, or is malformed.
    """
    paired = _paired(key)
    if paired is None:
        return hmac.new(key, content, "sha256").hexdigest()
    kind, raw = paired
    if kind == PUBLIC:
        raise BundleError(
            "cannot be signed: MODEL_SIGNING_KEY is a public key, which only checks; where models "
            "are made MODEL_PRIVATE_KEY signs, or MODEL_SIGNING_KEY is the private key"
        )
    from nacl.signing import SigningKey

    return SIGNED + _text(SigningKey(raw).sign(PURPOSE + content).signature)


def is_signed(content: bytes, signature: str, key: bytes) -> bool:
    """True for the content's signature by this key, or by the private key of its pair.

    Raises:
        BundleError: the key is malformed.
    """
    paired = _paired(key)
    if paired is None:
        return hmac.compare_digest(
            signature.encode("utf-8", "replace"), sign(content, key).encode()
        )
    from nacl.exceptions import CryptoError
    from nacl.signing import SigningKey, VerifyKey

    kind, raw = paired
    public = VerifyKey(raw) if kind == PUBLIC else SigningKey(raw).verify_key
    try:
        given = base64.b64decode(signature.removeprefix(SIGNED), validate=True)
        public.verify(PURPOSE + content, given)
    except (CryptoError, ValueError):
        return False
    return signature.startswith(SIGNED)


def _paired(key: bytes) -> tuple[str, bytes] | None:
    """The kind and the bytes of a key of a pair; None for a secret.

    Raises:
        BundleError: it looks like one of a pair, but is not in our form.
    """
    text = key.decode("utf-8", "replace")
    if not _LOOKS_PAIRED.match(text):
        return None
    found = _FORM.fullmatch(text.strip())
    if found is None:
        raise BundleError(
            f"is not looked at: MODEL_SIGNING_KEY is neither a secret nor {PRIVATE}… or {PUBLIC}…, "
            "as `python pipeline.py new-keys` makes them"
        )
    return found[1], base64.b64decode(found[2])


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
