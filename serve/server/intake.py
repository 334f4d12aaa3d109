"""Receives request bodies completely before the request is handled; no thread waits for one.

For granian's RSGI, whose futures complete on the one thread that runs Python, see `worker`.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable
from typing import IO, Any

from serve.bodies.errors import ApiError
from serve.bodies.reading import not_whole, too_large

WHOLE_BYTES = 2_000_000  # a body up to this size is held in memory, a larger one in a file
# Bodies that say their length come at once, without Python in between: small ones always, others
# up to WHOLE_BYTES while those on their way together announce no more than this.
SMALL_BYTES, ROOM_BYTES = 50_000, 100_000_000
HELD_BYTES = 500_000_000  # of all bodies being received part by part
# So much of a refused body is still read: many clients read the answer only after sending.
UNREAD_BYTES, UNREAD_SECONDS = 100_000_000, 5.0
LOOK_SECONDS = 0.5  # between checks of the deadlines

Body = bytes | IO[bytes]
Then = Callable[[Body, ApiError | None], None]


class Intake:
    """Receives bodies, each with limits of size and time.

    Args:
        most: largest body, bytes.
        seconds: from the head to the last byte of the body.
    """

    def __init__(self, most: int, seconds: float) -> None:
        self.most = most
        self.seconds = seconds
        self.held = self.announced = 0
        self.arrivals: set[Arrival] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="bodies")
        self._thread.start()

    def receive(self, proto: Any, headers: Any, then: Then) -> None:
        """Receive a body and call `then` with it, or with an empty one and the refusal."""
        length = None if "transfer-encoding" in headers else int(headers["content-length"])
        if length == 0:
            then(b"", None)
        elif length is not None and length > self.most and "expect" in headers:
            then(b"", too_large(self.most))  # the client waits for 100 Continue
        else:
            Arrival(self, proto, then, length, "trailer" in headers).start()

    def hurry(self) -> None:
        """Shorten all deadlines to `UNREAD_SECONDS`: the service stops."""
        until = time.monotonic() + UNREAD_SECONDS
        for arrival in list(self.arrivals):
            arrival.until = min(arrival.until, until)

    def close(self) -> None:
        """Stop checking deadlines."""
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            self.look(time.monotonic())

    def look(self, now: float) -> None:
        """Refuse the bodies whose deadline is before `now` (monotonic seconds)."""
        for arrival in list(self.arrivals):
            if arrival.until < now:
                arrival.give_up()


class Arrival:
    """A body being received.

    Args:
        length: Content-Length; None for a chunked body.
        trailed: the head announces trailers.
    """

    def __init__(
        self, intake: Intake, proto: Any, then: Then, length: int | None, trailed: bool
    ) -> None:
        self.until = time.monotonic() + intake.seconds
        self._intake, self._proto, self._then = intake, proto, then
        self._length, self._trailed = length, trailed
        self._size = self._held = self._announced = self._empty = 0
        self._file: IO[bytes] | None = None
        self._future: Any = None
        self._chunks: Any = None
        self._refusal: ApiError | None = None  # decided, while the rest is still read

    def start(self) -> None:
        """Start receiving."""
        self._intake.arrivals.add(self)
        if self._length is not None and self._may_come_whole(self._length):
            self._await(self._proto(), self._came_whole)
            return
        if self._length is not None and self._length > self._intake.most:
            self._refuse_later(too_large(self._intake.most))
        self._file = tempfile.SpooledTemporaryFile(WHOLE_BYTES)  # noqa: SIM115
        self._chunks = self._proto.__aiter__()
        self._next()

    def _may_come_whole(self, length: int) -> bool:
        """Return whether there is room for a body in memory, and take the room."""
        if length > min(WHOLE_BYTES, self._intake.most):
            return False
        if length > SMALL_BYTES:
            if self._intake.announced + length > ROOM_BYTES:
                return False
            self._announced = length
            self._intake.announced += length
        return True

    def give_up(self) -> None:
        """Refuse the body, whose deadline is over; called on another thread."""
        if self._future is not None:
            self._future.cancel()  # runs the callback, unless the result has just come

    def _await(self, future: Any, came: Callable[[Any], None]) -> None:
        self._future = future
        future.add_done_callback(came)

    def _came_whole(self, future: Any) -> None:
        try:
            body = future.result()
        except BaseException:  # CancelledError is no Exception
            self._end(b"", self._reason(future))
        else:
            self._end(body, None)

    def _next(self) -> None:
        try:
            future = self._chunks.__anext__()
        except StopAsyncIteration:
            self._end_of_chunks()
        else:
            self._await(future, self._came)

    def _came(self, future: Any) -> None:
        try:
            chunk = future.result()
        except BaseException:  # as above
            self._end(b"", self._reason(future))
            return
        self._empty += not chunk
        self._keep(chunk)
        if self._refusal is not None and self._size > UNREAD_BYTES:
            self._end(b"", self._refusal)
        else:
            self._next()

    def _keep(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if self._refusal is not None:
            return
        self._held += len(chunk)
        self._intake.held += len(chunk)
        if self._size > self._intake.most:
            self._refuse_later(too_large(self._intake.most))
        elif self._intake.held > HELD_BYTES:
            self._refuse_later(_no_room("too many large bodies are on their way"))
        else:
            assert self._file is not None
            try:
                self._file.write(chunk)
            except OSError as error:
                self._refuse_later(_no_room(f"the body cannot be kept: {error.strerror}"))

    def _refuse_later(self, refusal: ApiError) -> None:
        self._refusal = refusal
        self.until = min(self.until, time.monotonic() + UNREAD_SECONDS)

    def _end_of_chunks(self) -> None:
        # An empty chunk ends a body. Another one before it means trailers or a broken connection:
        # granian does not tell which.
        broken = self._empty > 1 and not self._trailed
        if self._refusal is None and (broken or self._length not in (None, self._size)):
            self._refusal = not_whole(self._size, self._length)
        if self._refusal is None:
            assert self._file is not None
            self._file.seek(0)
            self._end(self._file.read() if self._size <= WHOLE_BYTES else self._file, None)
        else:
            self._end(b"", self._refusal)

    def _reason(self, future: Any) -> ApiError:
        if self._refusal is not None:
            return self._refusal
        if future.cancelled():
            return ApiError(408, "timeout", "the body stopped arriving")
        return not_whole(self._size, self._length)

    def _end(self, body: Body, refusal: ApiError | None) -> None:
        # granian closes the connection once nothing references its body.
        self._future = self._proto = self._chunks = None
        self._intake.arrivals.discard(self)
        self._intake.announced -= self._announced
        if self._file is not None:
            self._intake.held -= self._held
            if body is not self._file:
                self._file.close()
        self._then(body, refusal)


def _no_room(why: str) -> ApiError:
    return ApiError(503, "busy", f"{why}; try again")
