"""gunicorn's threaded worker, which does not wait for stalled clients and refuses in JSON."""

from __future__ import annotations

import socket
import struct
from typing import Any

import msgspec
from gunicorn import util
from gunicorn.http import errors
from gunicorn.workers.gthread import _DEFER, TConn, ThreadWorker

from serve.bodies.schema import Error, ErrorBody

# A client may be silent in the middle of a request, or not take its answer, for so long. Each
# one holds a thread, of which there are few.
STALL_SECONDS = 5
FIRST_BYTE_SECONDS = 0.02
_STALL = struct.pack("ll", STALL_SECONDS, 0)  # a C timeval
MAX_MESSAGE = 200  # characters of what came

_STATUS = {
    errors.ExpectationFailed: (417, "Expectation Failed"),
    errors.LimitRequestHeaders: (431, "Request Header Fields Too Large"),
    errors.UnsupportedTransferCoding: (501, "Not Implemented"),
}


class Worker(ThreadWorker):
    """The worker class of `gunicorn_conf.py`."""

    def handle(self, conn: TConn) -> Any:
        """Answer a request; a socket that stalls in it is given up."""
        if not conn.initialized:
            # Browsers connect ahead of need; gunicorn would keep a thread waiting for them.
            if not conn.wait_for_data(FIRST_BYTE_SECONDS):
                return _DEFER  # back to the poller, until something comes
            # The kernel's own timeouts: gunicorn puts Python's out of action for each request.
            for way in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                conn.sock.setsockopt(socket.SOL_SOCKET, way, _STALL)
        return super().handle(conn)

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: Exception) -> None:
        """Refuse what is not HTTP in the words of the application's own errors."""
        if not isinstance(exc, errors.ParseException):
            super().handle_error(req, client, addr, exc)
            return
        self.log.warning("refused what %s sent: %s", addr[0] if addr else "a client", exc)
        status, reason = _STATUS.get(type(exc), (400, "Bad Request"))
        error = Error("bad_request", f"the request is not read: {exc}"[:MAX_MESSAGE], None)
        body = msgspec.json.encode(ErrorBody(error))
        head = (
            f"HTTP/1.1 {status} {reason}\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        try:
            util.write_nonblock(client, head.encode() + body)
        except OSError as error:
            self.log.debug("the client is gone: %s", error)
