"""The whole service in processes of its own, and clients that speak to it as they like."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
from pathlib import Path

from service_samples import RIDE

PROJECT = Path(__file__).resolve().parent.parent.parent


class Running:
    """A service of its own processes."""

    def __init__(self, port: int, process: subprocess.Popen, output: Path) -> None:
        self.port, self.process, self.output = port, process, output

    def ask(self, path: str = "/predict", content=RIDE, verb: str = "POST") -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            body = None if verb == "GET" else json.dumps(content)
            connection.request(verb, path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def send(self, content: bytes) -> socket.socket:
        """Open a connection and send bytes as they are."""
        client = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        client.sendall(content)
        return client

    def processes(self) -> list[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in children.read_text().split()]

    def workers(self) -> list[int]:
        return [pid for pid in self.processes() if not self._waits(pid)]

    def keeper(self) -> int | None:
        """The process that moves rows into the log, None while there is none."""
        return next(filter(self._waits, self.processes()), None)

    def _waits(self, pid: int) -> bool:
        """True for a process of lower priority than ours."""
        try:
            return os.getpriority(os.PRIO_PROCESS, pid) > os.getpriority(os.PRIO_PROCESS, 0)
        except ProcessLookupError:
            return False

    def clients_of(self, worker: int) -> set[int]:
        """Ports of the clients whose connections a worker holds."""
        files = Path(f"/proc/{worker}/fd").iterdir()
        held = {str(file.readlink()).removeprefix("socket:").strip("[]") for file in files}
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        # Columns: the number, local and remote address as hexadecimal, …, the inode.
        return {
            int(row[2].rsplit(":")[-1], 16)
            for row in rows
            if row[9] in held and int(row[1].rsplit(":")[-1], 16) == self.port
        } - {0}


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def answer_of(client: socket.socket) -> tuple[int, bytes]:
    """Read a whole answer; the server closes the connection after it."""
    with client, client.makefile("rb") as file:
        head, _, body = file.read().partition(b"\r\n\r\n")
    return int(head.split()[1]), body
