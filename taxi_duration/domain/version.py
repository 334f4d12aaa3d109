"""A version of a model: the same four facts wherever one is named, and where its bundle lies."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Struct, field

from taxi_duration import environment
from taxi_duration.files import typed

SUFFIX = "-duration"


class Version(Struct, frozen=True, order=True):
    """A registered version; in files `version` is its number and `model_sha256` its digest.

    `data_source` is `tlc` or `sample`: what it learned from.
    """

    name: Annotated[str, Meta(pattern=f"^[a-z]+{SUFFIX}$")]
    number: Annotated[int, Meta(ge=1)] = field(name="version")
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")] = field(name="model_sha256")
    data_source: Annotated[str, Meta(pattern="^(tlc|sample)$")]

    @classmethod
    def of(cls, card: Mapping[str, Any]) -> Version:
        """Return the version that a card describes.

        Raises:
            ContentError: the card is not of a registered version; says what it lacks.
        """
        return typed(card, Version, "card")

    @property
    def ref(self) -> str:
        """As users write it: `green-duration:7`."""
        return f"{self.name}:{self.number}"

    @property
    def service(self) -> str:
        """The taxi service it answers for: `green`."""
        return self.name.removesuffix(SUFFIX)

    @property
    def folder(self) -> Path:
        """Where its bundle lies, or should lie."""
        return bundle_folder(self.name, self.number)


def model_name(service: str) -> str:
    """Return the registry's name for a service's model."""
    return f"{service}{SUFFIX}"


def bundle_folder(name: str, number: int | str) -> Path:
    """Return the folder in models/ of a version known by name and number alone."""
    return environment.models_dir() / name / str(number)
