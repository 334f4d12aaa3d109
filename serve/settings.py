"""The service's own settings, from the environment; each default with its reason.

Places (models, deployment, log) are read in `taxi_duration/environment.py`, which the loop uses
too.
"""

from __future__ import annotations

import os

from taxi_duration.environment import choice, is_on, positive, setting
from taxi_duration.errors import SettingError

HOST = "127.0.0.1"  # no access from other hosts by default; the Dockerfile sets 0.0.0.0
PORT = 9696  # as in the public course
LAST_PORT = 65535  # TCP has two bytes for it
WORKERS = 2  # as many as a small machine has cores
# For requests longer than a few rides. More threads only contend for the interpreter's lock.
THREADS = 2
# With keys, who may see /model, /metrics and /monitor without one; by default this machine.
MONITOR_ACCESS = ("local", "key", "open")
# Whether answers follow the traffic of the hour; by default, since the level proves itself.
TRAFFIC = ("auto", "off")
MAX_BODY_MB = 16  # MAX_RIDES rides as JSON, about 130 bytes each, and room
# Far more than a browser or program opens. All clients of a proxy have its address, and it opens
# one connection per concurrent request.
CLIENT_CONNECTIONS = 1000
BODY_SECONDS = 20  # MAX_BODY_MB over a line of 7 Mbit/s
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
    number = positive("PORT", PORT)
    if number > LAST_PORT:
        raise SettingError(f"PORT is {number}; the last port is {LAST_PORT}")
    return number


def workers() -> int:
    """`WORKERS`: processes of the service."""
    return positive("WORKERS", WORKERS)


def threads() -> int:
    """`THREADS`: threads per worker for long arrays, pages and feedback."""
    return positive("THREADS", THREADS)


def access_log() -> bool:
    """`ACCESS_LOG`: `1` writes a line for every request to stdout; off, since it takes time."""
    return is_on("ACCESS_LOG")


def wait_for_model() -> bool:
    """`WAIT_FOR_MODEL`: `1` starts the service with nothing deployed, to wait for a model.

    Off by default: started by hand, it then reports at once what is missing.
    """
    return is_on("WAIT_FOR_MODEL")


def api_keys() -> tuple[str, ...]:
    """`API_KEYS`: the valid keys, separated by commas; empty: no key is needed."""
    return tuple(key.strip() for key in (setting("API_KEYS") or "").split(",") if key.strip())


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
    return positive("BODY_SECONDS", BODY_SECONDS)


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
