"""The service's own settings, from the environment; each default with its reason.

Places (models, deployment, log) are read in `taxi_duration/environment.py`, which the loop uses
too.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from taxi_duration.environment import choice, is_on, positive, setting
from taxi_duration.errors import SettingError

HOST = "127.0.0.1"  # no access from other hosts by default; the Dockerfile sets 0.0.0.0
PORT = 9696  # as in the public course
LAST_PORT = 65535  # TCP has two bytes for it
WORKERS = 2  # as many as a small machine has cores
# For requests longer than a few rides. More threads only contend for the interpreter's lock.
THREADS = 2
MOST_AT_WORK = 1000  # processes, or threads of each: more than any machine's cores
# With keys, who may see /model, /metrics and /monitor without one; by default this machine.
MONITOR_ACCESS = ("local", "key", "open")
# Whether answers follow the traffic of the hour; by default, since the level proves itself.
TRAFFIC = ("auto", "off")
MAX_BODY_MB = 16  # MAX_RIDES rides as JSON, about 130 bytes each, and room
# Far more than a browser or program opens. All clients of a proxy have its address, and it opens
# one connection per concurrent request.
CLIENT_CONNECTIONS = 1000
BODY_SECONDS = 20  # MAX_BODY_MB over a line of 7 Mbit/s
LONGEST_SECONDS = 86_400  # a day; a typing error, beyond
MAX_RIDES = 100_000  # more than a month of green trips
MAX_EXPLAINED = 10_000  # reasons take four or five times as long as the answer
MAX_FEEDBACK = 20_000  # each is looked up in the log and judged


def host() -> str:
    """`HOST`: address the service listens on."""
    return setting("HOST") or HOST


def port() -> int:
    """`PORT`: the service's port.

    Raises:
        SettingError: no number from 1 to 65535.
    """
    return positive("PORT", PORT, LAST_PORT)


def workers() -> int:
    """`WORKERS`: processes of the service that answer."""
    return positive("WORKERS", WORKERS, MOST_AT_WORK)


def threads() -> int:
    """`THREADS`: threads per worker for long arrays, pages and feedback."""
    return positive("THREADS", THREADS, MOST_AT_WORK)


def access_log() -> bool:
    """`ACCESS_LOG`: `1` writes a line for every request to stdout; off, since it takes time."""
    return is_on("ACCESS_LOG")


def wait_for_model() -> bool:
    """`WAIT_FOR_MODEL`: `1` starts the service with nothing deployed, to wait for a model.

    Off by default: started by hand, it then reports at once what is missing.
    """
    return is_on("WAIT_FOR_MODEL")


def api_keys() -> tuple[str, ...]:
    """`API_KEYS`: the valid keys, separated by commas; empty: no key is needed.

    Raises:
        SettingError: it is set and holds no key, as of two variables that were empty: nobody who
            writes that wants everybody to be let in.
    """
    given = setting("API_KEYS")
    keys = tuple(key.strip() for key in (given or "").split(",") if key.strip())
    if given and not keys:
        raise SettingError("API_KEYS is set and holds no key; unset it to let everybody in")
    return keys


def monitor_access() -> str:
    """`MONITOR_ACCESS`: who sees the internal pages, if keys are set: `local`, `key` or `open`."""
    return choice("MONITOR_ACCESS", MONITOR_ACCESS)


def traffic() -> bool:
    """`TRAFFIC`: `auto` lets answers follow the traffic of the hour, `off` does not."""
    return choice("TRAFFIC", TRAFFIC) == "auto"


def max_body_bytes() -> int:
    """`MAX_BODY_MB`: largest request body, in bytes."""
    return positive("MAX_BODY_MB", MAX_BODY_MB) * 1_000_000


def client_connections() -> int:
    """`CLIENT_CONNECTIONS`: connections of one address per worker."""
    return positive("CLIENT_CONNECTIONS", CLIENT_CONNECTIONS)


def body_seconds() -> int:
    """`BODY_SECONDS`: time from a request's head to the last byte of its body."""
    return positive("BODY_SECONDS", BODY_SECONDS, LONGEST_SECONDS)


def max_rides() -> int:
    """`MAX_RIDES`: most rides of one request."""
    return positive("MAX_RIDES", MAX_RIDES)


def max_explained() -> int:
    """`MAX_EXPLAINED`: most rides of one request with `explain=true`."""
    return positive("MAX_EXPLAINED", MAX_EXPLAINED)


def max_feedback() -> int:
    """`MAX_FEEDBACK`: most true durations of one request."""
    return positive("MAX_FEEDBACK", MAX_FEEDBACK)


def metrics_dir() -> str | None:
    """`PROMETHEUS_MULTIPROC_DIR`: folder in which workers share metrics; made when not given."""
    return setting("PROMETHEUS_MULTIPROC_DIR")


def share_metrics_in(folder: str) -> None:
    """Set the folder of shared metrics; prometheus-client reads it when it is imported."""
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder


# Also those that only a worker reads: a wrong one ends the start, not each worker again and again.
READERS: dict[str, Callable[[], object]] = {
    "API_KEYS": api_keys,
    "HOST": host,
    "PORT": port,
    "WORKERS": workers,
    "THREADS": threads,
    "TRAFFIC": traffic,
    "MONITOR_ACCESS": monitor_access,
    "MAX_BODY_MB": max_body_bytes,
    "CLIENT_CONNECTIONS": client_connections,
    "BODY_SECONDS": body_seconds,
    "MAX_RIDES": max_rides,
    "MAX_EXPLAINED": max_explained,
    "MAX_FEEDBACK": max_feedback,
    "ACCESS_LOG": access_log,
    "WAIT_FOR_MODEL": wait_for_model,
}


def check_settings() -> None:
    """Read all settings once.

    Raises:
        SettingError: one has a value that is not allowed; names it and what is.
    """
    for read in READERS.values():
        read()
