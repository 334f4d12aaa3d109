"""What a run is asked to do: months, service, model; from flags, -p, environment, defaults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from taxi_duration import environment
from taxi_duration.domain.months import (
    Month,
    check_available,
    check_order,
    check_service,
    format_months,
    parse_months,
)
from taxi_duration.errors import SettingError, TagError
from taxi_duration.training.kinds import KINDS

MODEL_CHOICES = (*KINDS, "best")
DEFAULTS = {"TRAIN_DATA": "2021-01", "VAL_DATA": "2021-02", "MODEL": "best", "SERVICE": "green"}


@dataclass(frozen=True)
class RunSettings:
    """Checked settings of one run; months in their stored form."""

    train_data: str
    val_data: str
    model: str
    service: str

    @property
    def train_months(self) -> list[Month]:
        """Months to fit on, in time order."""
        return parse_months(self.train_data)

    @property
    def val_months(self) -> list[Month]:
        """Later months, read once, to score on."""
        return parse_months(self.val_data)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Model kinds that the run trains."""
        return tuple(KINDS) if self.model == "best" else (self.model,)

    def as_parameters(self) -> dict[str, str]:
        """Return the names that notebooks, tags and the card use."""
        return {name.upper(): value for name, value in asdict(self).items()}


def check_settings(
    TRAIN_DATA: str | Sequence[str],
    VAL_DATA: str | Sequence[str],
    MODEL: str = "best",
    SERVICE: str = "green",
) -> RunSettings:
    """Parse and check the four settings; arguments are named as users name them.

    Raises:
        TagError: a month is malformed, unavailable, or not in order.
        SettingError: unknown model or service.
    """
    service = check_service(SERVICE)
    train = _months_of("TRAIN_DATA", TRAIN_DATA, service)
    validation = _months_of("VAL_DATA", VAL_DATA, service)
    check_order(train, validation)
    return RunSettings(format_months(train), format_months(validation), check_model(MODEL), service)


def _months_of(name: str, tags: str | Sequence[str], service: str) -> list[Month]:
    try:
        months = parse_months(tags)
        check_available(service, months)
    except TagError as error:
        raise TagError(f"{name}: {error}") from error
    return months


def check_model(name: str) -> str:
    """Return the model's name as we write it.

    Raises:
        SettingError: no such model.
    """
    known = {choice.lower(): choice for choice in MODEL_CHOICES}
    choice = known.get(str(name).strip().lower())
    if choice is None:
        raise SettingError(f"MODEL is {name!r}; allowed are {', '.join(MODEL_CHOICES)}")
    return choice


def resolve_settings(flags: Mapping[str, str | None], parameters: Mapping[str, str]) -> RunSettings:
    """Combine the places a setting may come from: flag, then -p, environment, default.

    Args:
        flags: by setting name, None where the flag was not given.
        parameters: what `-p NAME VALUE` gave, by name.
    Raises:
        TagError: as `check_settings`.
        SettingError: as `check_settings`, or a parameter that a run sets itself.
    """
    for name in parameters:
        if name not in DEFAULTS:
            raise SettingError(
                f"parameter {name} is set by the pipeline itself; yours are {', '.join(DEFAULTS)}"
            )
    values = {}
    for name, default in DEFAULTS.items():
        candidates = (flags.get(name), parameters.get(name), environment.setting(name))
        values[name] = next((value for value in candidates if value), default)
    return check_settings(**values)
