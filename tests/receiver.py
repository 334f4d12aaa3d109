"""A webhook of a test's own: takes what `json://` addresses send, and does as it is told."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Receiver:
    """What came in, and how to answer: `statuses` one after another, the last for ever."""

    def __init__(self, port: int = 0) -> None:
        self.letters: list[dict] = []
        self.statuses = [200]
        self.seconds = 0.0
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.letters.append(json.loads(content))
                statuses = receiver.statuses
                time.sleep(receiver.seconds)
                self.send_response(statuses.pop(0) if len(statuses) > 1 else statuses[0])
                self.send_header("Content-Length", "0")
                with contextlib.suppress(OSError):  # who asked has gone
                    self.end_headers()

            def log_message(self, *args: object) -> None:
                """Not into the test's output."""

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_port
        self.url = f"json://127.0.0.1:{self.port}"

    @property
    def text(self) -> str:
        """All messages that came in."""
        return "\n".join(letter["message"] for letter in self.letters)


@contextlib.contextmanager
def receiving(port: int = 0) -> Iterator[Receiver]:
    """Run a receiver on a free port, or on one that it had before."""
    receiver = Receiver(port)
    thread = threading.Thread(target=receiver.server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.server.shutdown()
        receiver.server.server_close()
