"""Checks the value of every setting that the code reads, before a command fails by it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from functools import partial
from urllib.parse import urlsplit

from taxi_duration import environment
from taxi_duration.doctor.examination import MEND, OK, PROBLEM, Finding, one_line
from taxi_duration.errors import SettingError, TaxiError
from taxi_duration.model.signatures import can_sign, check_key

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
    from taxi_duration.data.addresses import check_source

    _check(_readers_of_a_run())
    check_source()
    key = environment.signing_key()
    if key and not can_sign(key):  # notebook 04 would find that out, after the training
        raise SettingError(
            "MODEL_SIGNING_KEY is a public key, which only checks; a run signs its model, with the "
            "private key as MODEL_PRIVATE_KEY or as MODEL_SIGNING_KEY"
        )


def check_settings_of_a_turn() -> None:
    """Refuse a value that a setting of the loop cannot have; raises as `check_settings_of_a_run`.

    Messages are not what a turn is for: NOTIFY_URLS does not keep it from its work.
    """
    check_settings_of_a_run()
    _check(_readers_of_the_loop())


def _check(readers: dict[str, Callable[[], object]]) -> None:
    for setting, reader in readers.items():
        if environment.setting(setting) is not None:
            reader()


def readers() -> dict[str, Callable[[], object]]:
    """Return what reads each setting, by name; it raises when the value is not allowed."""
    from taxi_duration.chain.run_settings import DEFAULTS

    return {
        **dict.fromkeys(DEFAULTS, _run_settings),
        **_readers_of_a_run(),
        **_readers_of_the_loop(),
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
        "GIT_COMMIT": environment.code_commit,
        "SAMPLE_ROWS": environment.sample_rows,
        "EXTRA_FEATURES": _extra_features,
        "MODEL_SIGNING_KEY": partial(check_key, "MODEL_SIGNING_KEY"),
        "MODEL_PRIVATE_KEY": partial(check_key, "MODEL_PRIVATE_KEY"),
        "MODEL_PUBLIC_KEY": environment.signing_key,
    }


def _readers_of_the_loop() -> dict[str, Callable[[], object]]:
    return {
        "AUTO_APPROVE": environment.needs_approval,
        "LOG_KEEP_DAYS": environment.log_keep_days,
        "LOG_MAX_MB": environment.log_max_mb,
    }


def _readers_of_the_service() -> dict[str, Callable[[], object]]:
    from serve.settings import READERS

    return READERS


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
