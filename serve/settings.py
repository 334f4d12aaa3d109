"""The service's own settings, from the environment; each default stands here with its reason.

Where things lie (models, deployment, log) is read in `taxi_duration/environment.py`, since
the loop must look in the same places.
"""

from __future__ import annotations

import os

from taxi_duration.environment import choice, is_on, positive

HOST = "127.0.0.1"  # nobody else is let in unasked; the Dockerfile says 0.0.0.0
PORT = 9696  # as in the public course
WORKERS = 2  # as many as a small machine has cores
# For what takes longer than a few rides. More only contend for the interpreter's lock.
THREADS = 2
# With keys, who may see /model, /metrics and /monitor without one: this machine alone.
MONITOR_ACCESS = ("local", "key", "open")
MAX_BODY_MB = 16  # MAX_RIDES rides as JSON, about 130 bytes each, and room
# Far above what a browser or a program opens. Behind a proxy all clients have its address, and
# it opens as many as requests are under way.
CLIENT_CONNECTIONS = 1000
BODY_SECONDS = 20  # MAX_BODY_MB over a line of 7 Mbit/s
MAX_RIDES = 100_000  # more than a month of green trips
MAX_EXPLAINED = 10_000  # reasons cost a ride four or five times what its answer does
MAX_FEEDBACK = 20_000  # each is looked up in the log, and judged


def host() -> str:
    """`HOST`: address the service listens on."""
    return os.environ.get("HOST") or HOST


def port() -> int:
    """`PORT`: the service's port."""
    return positive("PORT", PORT)


def workers() -> int:
    """`WORKERS`: processes of the service."""
    return positive("WORKERS", WORKERS)


def threads() -> int:
    """`THREADS`: threads of each worker for long arrays, pages and feedback."""
    return positive("THREADS", THREADS)


def access_log() -> bool:
    """`ACCESS_LOG`: `1` writes a line for every request to stdout; off: it costs time."""
    return is_on("ACCESS_LOG")


def wait_for_model() -> bool:
    """`WAIT_FOR_MODEL`: `1` starts the service with nothing deployed, to wait for a model.

    Off: a person who starts it by hand is told at once what is missing.
    """
    return is_on("WAIT_FOR_MODEL")


def api_keys() -> tuple[str, ...]:
    """`API_KEYS`: keys that may ask and give feedback, separated by commas; none: everybody."""
    return tuple(key.strip() for key in os.environ.get("API_KEYS", "").split(",") if key.strip())


def monitor_access() -> str:
    """`MONITOR_ACCESS`: who may look inside a service with keys: `local`, `key` or `open`."""
    return choice("MONITOR_ACCESS", MONITOR_ACCESS)


def max_body_bytes() -> int:
    """`MAX_BODY_MB`: largest request body, in bytes."""
    return positive("MAX_BODY_MB", MAX_BODY_MB) * 1_000_000


def client_connections() -> int:
    """`CLIENT_CONNECTIONS`: connections that a worker keeps of one address."""
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
    """`PROMETHEUS_MULTIPROC_DIR`: where workers share their metrics; made when not given."""
    return os.environ.get("PROMETHEUS_MULTIPROC_DIR") or None


def share_metrics_in(folder: str) -> None:
    """Tell prometheus-client, which reads it when it is imported, where workers share."""
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
