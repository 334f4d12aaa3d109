#!/usr/bin/env python3
"""What is left of a server for everybody else while some clients drip: why we chose ours.

The same application (`serve.create_app`) with one worker under our server and under others;
so many connections send a byte a second, in the header or in the body, while 8 polite ones ask
rides. Needs a deployed model and wrk; waitress is compared when it can be imported:
`python benchmarks/rude_clients.py`.
"""

from __future__ import annotations

import argparse
import json
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from serving import PROJECT, RIDE, Server, _own_log, _script

CLIENTS = (1, 10, 200)
HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
DRIPS = {"header": HEAD + b"X-Slow: ", "body": HEAD + b"Content-Length: 10000\r\n\r\n"}


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=3, help="of polite load each time")
    options = parser.parse_args()
    cells = [f"{n} in the {where}" for where in DRIPS for n in CLIENTS]
    print("Requests/s of 8 polite connections beside clients that drip\n")
    print("|", " | ".join(["", "nobody", *cells]), "|\n|", " | ".join(["---"] * 8), "|")
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, _own_log(Path(folder)):
        for server in _servers():
            script = _script(Path(folder), server)
            server.start()
            try:
                rates = [_rate(server, script, options.seconds)]
                for sent in DRIPS.values():
                    for n in CLIENTS:
                        with _dripping(server.port, sent, n):
                            rates.append(_rate(server, script, options.seconds))
            finally:
                server.stop()
            print("|", " | ".join([server.name, *(f"{rate:,.0f}" for rate in rates)]), "|",
                  flush=True)  # fmt: skip


def _servers() -> list[Server]:
    ride, python = json.dumps(RIDE), sys.executable
    settings = {"PYTHONPATH": f"{PROJECT}:{':'.join(sys.path)}", "WORKERS": "1",
                "HOST": "127.0.0.1"}  # fmt: skip
    gunicorn = [python, "-m", "gunicorn", "-b", "127.0.0.1:PORT", "serve:create_app()"]
    granian = [python, "-m", "granian", "--interface", "wsgi", "--factory", "--port", "PORT",
               "--blocking-threads", "2", "serve:create_app"]  # fmt: skip
    commands = {
        "ours (granian's RSGI)": [python, "-m", "serve"],
        "granian, WSGI, 2 threads": granian,
        "gunicorn gthread, 2 threads": [*gunicorn, "-k", "gthread", "--threads", "2"],
        "gunicorn sync": gunicorn,
    }
    if find_spec("waitress"):
        commands["waitress, 4 threads"] = [python, "-m", "waitress", "--port", "PORT", "--call",
                                           "serve:create_app"]  # fmt: skip
    return [Server(name, command, "/predict", ride, settings) for name, command in commands.items()]


def _rate(server: Server, script: Path, seconds: int) -> float:
    server.load(seconds, script)
    return server.rates[-1]


@contextmanager
def _dripping(port: int, sent: bytes, n: int) -> Iterator[None]:
    """Let n clients send this and then a byte a second."""
    clients = [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(n)]
    stop = threading.Event()

    def drip() -> None:
        while not stop.wait(1):
            for client in clients:
                try:
                    client.sendall(b"1")
                except OSError:  # it was hung up on, and holds on no longer
                    continue

    for client in clients:
        client.sendall(sent)
    thread = threading.Thread(target=drip)
    thread.start()
    stop.wait(1)
    try:
        yield
    finally:
        stop.set()
        thread.join()
        for client in clients:
            client.close()


if __name__ == "__main__":
    main()
