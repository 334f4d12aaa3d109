"""Checks the value of every setting that the code reads, before a command fails by it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from functools import partial
from urllib.parse import urlsplit

from taxi_duration import environment
from taxi_duration.doctor.examination import OK, PROBLEM, Finding, one_line
from taxi_duration.errors import SettingError, TaxiError

SWITCHED = ("1", "true", "yes", "on", "0", "false", "no", "off")
MEND = "mend it or unset it (docs/reference.md#settings)"
# Looked at by other checks, which need the disk or the network for it.
ELSEWHERE = {
    "TAXI_HOME": "home", "DATA_DIR": "data", "MODELS_DIR": "models",
    "DEPLOYMENT_DIR": "deployed", "LOG_ARCHIVE": "archive", "PROMETHEUS_MULTIPROC_DIR": "metrics",
    "LOG_URL": "log", "MLFLOW_TRACKING_URI": "tracking", "TLC_URL": "months", "NO_PROXY": "proxy",
}  # fmt: skip


def has_service() -> bool:
    """Return whether the service is installed here: the workshop's image has the pipeline alone."""
    return importlib.util.find_spec("serve") is not None


def check_settings_of_a_run() -> None:
    """Refuse a value that a setting of a run cannot have.

    Raises:
        SettingError: names it and what is allowed.
    """
    for setting, reader in _readers_of_a_run().items():
        if environment.setting(setting) is not None:
            reader()


def readers() -> dict[str, Callable[[], object]]:
    """Return what reads each setting, by name; it raises when the value is not allowed."""
    from taxi_duration.chain.run_settings import DEFAULTS

    return {
        **dict.fromkeys(DEFAULTS, _run_settings),
        **_readers_of_a_run(),
        "AUTO_APPROVE": environment.needs_approval,
        "LOG_KEEP_DAYS": environment.log_keep_days,
        "LOG_MAX_MB": environment.log_max_mb,
        "MODEL_SIGNING_KEY": partial(_signing_key, "MODEL_SIGNING_KEY"),
        "MODEL_PRIVATE_KEY": partial(_signing_key, "MODEL_PRIVATE_KEY"),
        "NOTIFY_URLS": _notify_urls,
        "PUBLIC_URL": _public_url,
        "API_KEY": environment.api_key,
        **(_readers_of_the_service() if has_service() else {}),
    }


def _readers_of_a_run() -> dict[str, Callable[[], object]]:
    """Return those of settings that a run would fail by only within a notebook, minutes later."""
    from taxi_duration.model.atlas import atlas_sources
    from taxi_duration.training.device import check_device

    return {
        "DATA": environment.data_mode,
        "ENGINE": environment.engine,
        "DASK_SCHEDULER": environment.dask_scheduler,
        "ATLAS": atlas_sources,
        "BOOST_ROWS": environment.boost_rows,
        "DEVICE": check_device,
        "MAX_BAD_SHARE": environment.max_bad_share,
        "UTC_TIMES": environment.utc_times,
        "SAMPLE_ROWS": environment.sample_rows,
        "EXTRA_FEATURES": _extra_features,
    }


def _readers_of_the_service() -> dict[str, Callable[[], object]]:
    from serve import settings

    return {
        "API_KEYS": settings.api_keys,
        "HOST": settings.host,
        "PORT": settings.port,
        "WORKERS": settings.workers,
        "THREADS": settings.threads,
        "TRAFFIC": settings.traffic,
        "MONITOR_ACCESS": settings.monitor_access,
        "MAX_BODY_MB": settings.max_body_bytes,
        "CLIENT_CONNECTIONS": settings.client_connections,
        "BODY_SECONDS": settings.body_seconds,
        "MAX_RIDES": settings.max_rides,
        "MAX_EXPLAINED": settings.max_explained,
        "MAX_FEEDBACK": settings.max_feedback,
        **{name: partial(_switch, name) for name in ("ACCESS_LOG", "WAIT_FOR_MODEL")},
    }


def look_at_settings(name: str) -> Iterator[Finding]:
    """A line for each setting whose value is not allowed, and the names that are set."""
    said: list[str] = []
    read = readers()
    for setting, reader in read.items():
        if environment.setting(setting) is None:
            continue
        try:
            reader()
        except TaxiError as error:
            if (text := one_line(error)) not in said:  # that of a run may be about several
                said.append(text)
    yield from (Finding(name, PROBLEM, text, MEND) for text in said)
    set_here = sorted(n for n in [*read, *ELSEWHERE] if environment.setting(n) is not None)
    if not said:
        yield Finding(name, OK, f"set: {', '.join(set_here) or 'none'}")


def _run_settings() -> None:
    from taxi_duration.chain.run_settings import resolve_settings

    resolve_settings({}, {})


def _extra_features() -> None:
    from taxi_duration.model.extra_features import load_conditions

    try:
        load_conditions()
    except OSError as error:
        raise SettingError(f"EXTRA_FEATURES cannot be read: {one_line(error)}") from error


def _signing_key(name: str) -> None:
    from taxi_duration.model.signatures import can_sign

    if key := environment.setting(name):
        try:
            can_sign(key.encode())
        except TaxiError as error:
            raise SettingError(f"{name}: {one_line(error)}") from error


def _notify_urls() -> None:
    from taxi_duration.loop.targets import read_targets

    if problems := read_targets()[1]:
        raise SettingError(f"NOTIFY_URLS: {'; '.join(problems)}")


def _public_url() -> None:
    try:
        address = urlsplit(environment.public_url())
        good = address.scheme in ("http", "https") and bool(address.hostname)
    except ValueError:
        good = False
    if not good:
        raise SettingError("PUBLIC_URL is no address such as https://HOST")


def _switch(name: str) -> None:
    if (value := environment.setting(name)) and value.lower() not in SWITCHED:
        raise SettingError(f"{name} is {value!r}; allowed are {', '.join(SWITCHED)}")
