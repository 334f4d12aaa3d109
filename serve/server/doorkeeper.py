"""Limits the connections of one address and keeps room for others by closing the excess.

granian accepts all connections up to a total. One address with many idle or half-sent requests must
not use up that total.
"""

from __future__ import annotations

import os
import socket
import threading
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import suppress

OPEN_FILES = "/dev/fd"  # lists the descriptors of this process
LOOK_SECONDS = 1.0
FULL = 0.8  # share of the total, above which the limit per address is halved until it fits


class Doorkeeper:
    """Closes excess connections of this process.

    Args:
        port: on which the service listens.
        of_one: most connections of one address.
        most: connections that granian accepts in total.
        served: clients (address:port) whose request is being answered; these are kept.
    """

    def __init__(self, port: int, of_one: int, most: int, served: Collection[str]) -> None:
        self._port, self._of_one, self._most, self._served = port, of_one, most, served
        self._ages: dict[str, None] = {}  # clients in the order in which they were first seen

    def start(self) -> None:
        """Look every `LOOK_SECONDS`, on a thread."""
        threading.Thread(target=self._look_forever, daemon=True, name="doorkeeper").start()

    def look(self) -> int:
        """Close the excess connections, oldest first; return their number."""
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
    """Yield descriptor and client (address:port, as granian writes it) of every connection."""
    for name in os.listdir(OPEN_FILES):  # noqa: PTH208
        with suppress(OSError), _copy(int(name)) as connection:  # no socket, or closed meanwhile
            if connection.getsockname()[1:2] == (port,):
                yield int(name), _client(connection)


def _hang_up(file: int, client: str) -> bool:
    """Shut a connection down, unless its descriptor belongs to another client by now."""
    with suppress(OSError), _copy(file) as connection:
        if _client(connection) == client:
            connection.shutdown(socket.SHUT_RDWR)
            return True
    return False


def _copy(file: int) -> socket.socket:
    """Return the socket under a descriptor of our own, which no other thread closes."""
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
