"""Ports of this machine: who listens, and which one is free."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator

from taxi_duration.doctor.examination import NOTE, OK, PROBLEM, Finding, one_line
from taxi_duration.errors import SettingError

TRIED_PORTS = 50  # from the usual one on, as JupyterLab does


def free_port(wanted: int | None, usual: int) -> int:
    """Return the port that was asked for, else the first from the usual one on that is free.

    Raises:
        SettingError: the port that was asked for cannot be had, or none of the others.
    """
    for port in [wanted] if wanted else range(usual, usual + TRIED_PORTS):
        if (problem := why_not("127.0.0.1", port)) is None:
            return port
    raise SettingError(f"port {port} {problem}; --port takes another")


def why_not(host: str, port: int) -> str | None:
    """Return why nobody can listen there, None when it is free."""
    try:
        places = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = places[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return f"is taken by {holder(port)}"
        return f"cannot be used: {one_line(error.strerror or error)}"
    except (UnicodeError, OverflowError) as error:  # no name of a host, no number of a port
        return f"cannot be used: {one_line(error)}"
    return None


def holder(port: int) -> str:
    """Name the program that listens on a port, as far as this user may know it."""
    import psutil

    try:
        found = psutil.net_connections("tcp")
    except (psutil.Error, OSError):  # of macOS: only root may ask
        found = []
    pids = {c.pid for c in found if c.pid and c.status == "LISTEN" and c.laddr.port == port}
    for pid in sorted(pids):
        try:
            words = psutil.Process(pid).cmdline() or [psutil.Process(pid).name()]
        except psutil.Error:
            continue
        return f"process {pid} ({' '.join(words)[:60].strip()})"
    return "another program"


def look_at_service(name: str) -> Iterator[Finding]:
    """The service's port: free, ours already, or another program's."""
    from serve import settings

    host, port = settings.host(), settings.port()
    problem = why_not(host, port)
    if problem is None:
        yield Finding(name, OK, f"{port} of {host} is free for `make serve`")
    elif _is_our_service(host, port):
        yield Finding(name, OK, f"{port}: the service runs")
    else:
        yield Finding(name, PROBLEM, f"{port} of {host} {problem}",
                      "end it, or `PORT=9697 make serve`")  # fmt: skip


def look_at_pages(name: str, port: int, who: str, remedy: str) -> Iterator[Finding]:
    """The usual port of MLflow's pages, or JupyterLab's."""
    problem = why_not("127.0.0.1", port)
    if problem is None:
        yield Finding(name, OK, f"{port} is free for {who}")
    else:
        yield Finding(name, NOTE, f"{port} {problem}", remedy)


def _is_our_service(host: str, port: int) -> bool:
    """True when what listens there answers as our service does."""
    import http.client
    import json

    near = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    asked = http.client.HTTPConnection(near, port, timeout=1)
    try:
        asked.request("GET", "/health")
        said = json.loads(asked.getresponse().read(10_000))
        return isinstance(said, dict) and said.keys() >= {"status", "model", "problems"}
    except (OSError, ValueError, http.client.HTTPException):
        return False
    finally:
        asked.close()
