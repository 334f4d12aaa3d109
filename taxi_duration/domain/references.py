"""Model references as users write them: `green-duration:7`, `:champion`, `@sha256:…`."""

from __future__ import annotations

import re
from typing import NamedTuple

from taxi_duration.errors import SettingError

ACCEPTED_REFERENCES = (
    "green-duration:7 (version), green-duration:champion (alias) "
    "or green-duration@sha256:… (digest)"
)
ACCEPTED_ALIASES = (
    "1 to 128 letters, digits, - and _ that begin with a letter or digit, such as stable; "
    "not a number, not v and a number, not latest, champion or challenger"
)
DEPLOYED_ALIASES = ("champion", "challenger")
_REFERENCE = re.compile(
    r"(?P<name>[a-z]+-duration)(?::(?P<label>[\w.-]+)|@sha256:(?P<digest>[0-9a-f]{8,64}))", re.ASCII
)

_ALIAS = re.compile(r"[A-Za-z0-9][\w-]{0,127}", re.ASCII)
_RESERVED_ALIAS = re.compile(r"v?\d+|latest", re.ASCII | re.IGNORECASE)  # MLflow's own words


class Reference(NamedTuple):
    """Exactly one of version, alias and digest is set; a digest may be shortened to 8+ digits."""

    name: str
    version: str | None
    alias: str | None
    digest: str | None


def parse_reference(text: str) -> Reference:
    """Parse a model reference.

    Raises:
        SettingError: shows the accepted forms.
    """
    match = _REFERENCE.fullmatch(text.strip())
    if not match:
        raise SettingError(
            f"model reference {text!r} is not understood; write {ACCEPTED_REFERENCES}"
        )
    label = match["label"]
    is_version = bool(label) and label.isdecimal()
    return Reference(
        match["name"],
        label if is_version else None,
        label if not is_version else None,
        match["digest"],
    )


def check_alias(text: str) -> str:
    """Return an alias that a user may give to a version or take from it.

    Raises:
        SettingError: it has no legal form, is reserved, or says what is deployed; shows what
            is allowed.
    """
    if text.lower() in DEPLOYED_ALIASES:
        raise SettingError(
            f"alias {text!r} says what serves; `python pipeline.py promote`, `rollback` and `auto` "
            "move it with the deployment, nobody does by hand"
        )
    if not _ALIAS.fullmatch(text) or _RESERVED_ALIAS.fullmatch(text):
        raise SettingError(f"alias {text!r} is not allowed; write {ACCEPTED_ALIASES}")
    return text
