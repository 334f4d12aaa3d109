"""Model references as users write them: `green-duration:7`, `:champion`, `@sha256:…`."""

from __future__ import annotations

import re
from typing import NamedTuple

from taxi_duration.errors import SettingError

ACCEPTED_REFERENCES = (
    "green-duration:7 (version), green-duration:champion (alias) "
    "or green-duration@sha256:… (digest)"
)
_REFERENCE = re.compile(
    r"(?P<name>[a-z]+-duration)(?::(?P<label>[\w.-]+)|@sha256:(?P<digest>[0-9a-f]{8,64}))", re.ASCII
)


class Reference(NamedTuple):
    """Exactly one of version, alias and digest is set; a digest may be shortened to 8+ digits."""

    name: str
    version: str | None
    alias: str | None
    digest: str | None


def model_name(service: str) -> str:
    """Return the registry's name for a service's model."""
    return f"{service}-duration"


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
