"""So many connections of one address, and room for others: what is too much is hung up on.

granian accepts whoever comes, up to a number. Nobody who holds connections open, idle, with
half a head or with half a body, may fill that number.
"""

from __future__ import annotations

import os
import socket
import threading
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import suppress

OPEN_FILES = "/dev/fd"  # has the number of every file that this process holds open
LOOK_SECONDS = 1.0
FULL = 0.8  # of all that are accepted: from here on the bound of an address is lowered


class Doorkeeper:
    """Looks after the connections of this process.

    Args:
        port: on which they came in.
        of_one: connections that one address may have.
        most: connections that are accepted.
        served: clients (address and port) that are being answered, and stay.
    """

    def __init__(self, port: int, of_one: int, most: int, served: Collection[str]) -> None:
        self._port, self._of_one, self._most, self._served = port, of_one, most, served
        self._ages: dict[str, None] = {}  # clients in the order in which they were first seen

    def start(self) -> None:
        """Look again and again, on a thread."""
        threading.Thread(target=self._look_forever, daemon=True, name="doorkeeper").start()

    def look(self) -> int:
        """Hang up on what is too much, the longest there first; return on how many."""
        room = min(self._of_one, int(FULL * self._most))
        if len(os.listdir(OPEN_FILES)) <= room:  # noqa: PTH208
            self._ages.clear()
            return 0
        files = {client: file for file, client in _clients(self._port)}
        self._ages = {client: None for client in (*self._ages, *files) if client in files}
        count = Counter(map(_address, files))
        bound = self._of_one
        while bound and sum(min(n, bound) for n in count.values()) > FULL * self._most:
            bound //= 2
        hung_up = 0
        for client in self._ages:
            if count[_address(client)] > bound and client not in self._served:
                count[_address(client)] -= 1
                hung_up += _hang_up(files[client], client)
        return hung_up

    def _look_forever(self) -> None:
        wait = threading.Event().wait
        while not wait(LOOK_SECONDS):
            self.look()


def _clients(port: int) -> Iterator[tuple[int, str]]:
    """Yield file and client (as granian writes it) of every connection that came in."""
    for name in os.listdir(OPEN_FILES):  # noqa: PTH208
        with suppress(OSError), _copy(int(name)) as connection:  # no socket, or gone already
            if connection.getsockname()[1:2] == (port,):
                yield int(name), _client(connection)


def _hang_up(file: int, client: str) -> bool:
    """End a connection; the number of its file may be another's by now, so its client is asked."""
    with suppress(OSError), _copy(file) as connection:
        if _client(connection) == client:
            connection.shutdown(socket.SHUT_RDWR)
            return True
    return False


def _copy(file: int) -> socket.socket:
    """The same connection under a number of our own, which nobody else closes."""
    copy = os.dup(file)
    try:
        return socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, copy)
    except OSError:  # it is no socket
        os.close(copy)
        raise


def _client(connection: socket.socket) -> str:
    host, port = connection.getpeername()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _address(client: str) -> str:
    return client.rpartition(":")[0]
