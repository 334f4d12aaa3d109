"""Pickles of plain values: None, bool, int, float, str, bytes, list and dict, and nothing else.

Any unpickler can read what `dumps` writes. `loads` is no general unpickler: it knows the 20
opcodes that make plain values. There is none for a class, a function, a call, a memo or a buffer,
so a hostile pickle has nothing to name, and each value costs bytes that are really there: time
and memory are bounded by the length of the content and MAX_OPCODES.
"""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Callable
from typing import Any

PROTOCOL = 3  # the last without frames; its lengths are 4 bytes, so no value is above 4 GB
MAX_OPCODES = 20_000  # a model of ours takes about 900: its numbers lie in arrays, as bytes
_MARK = object()


def dumps(value: Any) -> bytes:
    """Return the pickle of plain values; equal values give equal bytes.

    Other values are pickled too, as pickle does: `loads` refuses them.
    """
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, PROTOCOL)
    pickler.fast = True  # no memo: whether two equal strings are one object changes nothing
    pickler.dump(value)
    return buffer.getvalue()


def loads(content: bytes) -> Any:
    """Return the plain value of a pickle.

    Raises:
        ValueError: it is no pickle of plain values; names what was found and where.
    """
    reader = _Reader(content)
    try:
        return reader.read()
    except ValueError as error:
        raise ValueError(f"byte {reader.at}: {error}") from error


class _Reader:
    """Reads one pickle; `at` is the position of the next byte."""

    def __init__(self, content: bytes) -> None:
        self.at = 0
        self._content = memoryview(content)
        self._stack: list[Any] = []

    def read(self) -> Any:
        if self.take(2) != pickle.PROTO + bytes([PROTOCOL]):
            raise ValueError(f"no pickle of protocol {PROTOCOL} begins so")
        for _ in range(MAX_OPCODES):
            opcode = bytes(self.take(1))
            if opcode == pickle.STOP:
                return self._only_value()
            step = _STEPS.get(opcode)
            if step is None:
                raise ValueError(f"{_named(opcode)} is not allowed: it makes no plain value")
            step(self)
        raise ValueError(f"more than {MAX_OPCODES} opcodes")

    def take(self, size: int) -> memoryview:
        """Return the next bytes.

        Raises:
            ValueError: there are fewer.
        """
        left = len(self._content) - self.at
        if size > left:
            raise ValueError(f"{size} bytes are announced, {left} are left")
        self.at += size
        return self._content[self.at - size : self.at]

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def pop(self, count: int) -> list[Any]:
        """Return the last values that belong together.

        Raises:
            ValueError: there are fewer.
        """
        values = self._stack[-count:]
        if len(values) < count or any(value is _MARK for value in values):
            raise ValueError("a value is missing")
        del self._stack[-count:]
        return values

    def pop_to_mark(self) -> list[Any]:
        values = []
        while self._stack and self._stack[-1] is not _MARK:
            values.append(self._stack.pop())
        if not self._stack:
            raise ValueError("a mark is missing")
        self._stack.pop()
        return values[::-1]

    def extend(self, values: list[Any]) -> None:
        """Add values to the list that lies before them."""
        target = self._stack[-1] if self._stack else None
        if type(target) is not list:
            raise ValueError("values are added to what is no list")
        target += values

    def update(self, values: list[Any]) -> None:
        """Set names and values, in turn, in the dict that lies before them."""
        target = self._stack[-1] if self._stack else None
        if type(target) is not dict or len(values) % 2:
            raise ValueError("names and values are set in what is no dict, or one is missing")
        for name, value in zip(values[::2], values[1::2], strict=True):
            if type(name) is not str or name in target:
                raise ValueError("a dict's name is no text, or comes twice")
            target[name] = value

    def _only_value(self) -> Any:
        [value] = self.pop(1)
        if self._stack or self.at < len(self._content):
            raise ValueError("something is left over after the value")
        return value


def _named(opcode: bytes) -> str:
    import pickletools  # large, and only needed to refuse

    names = {op.code: op.name for op in pickletools.opcodes}
    known = names.get(opcode.decode("latin-1"))
    return f"opcode {known}" if known else f"byte {opcode!r}"


def _number(form: str) -> Callable[[_Reader], None]:
    """A step that pushes a number of fixed size, written as `struct` says."""
    packed = struct.Struct(form)
    return lambda reader: reader.push(packed.unpack(reader.take(packed.size))[0])


def _sized(form: str, make: Callable[[memoryview], Any]) -> Callable[[_Reader], None]:
    """A step that pushes what is made of as many bytes as a number before them says."""
    packed = struct.Struct(form)
    return lambda reader: reader.push(make(reader.take(packed.unpack(reader.take(packed.size))[0])))


_STEPS: dict[bytes, Callable[[_Reader], None]] = {
    pickle.NONE: lambda reader: reader.push(None),
    pickle.NEWTRUE: lambda reader: reader.push(True),
    pickle.NEWFALSE: lambda reader: reader.push(False),
    pickle.BININT: _number("<i"),
    pickle.BININT1: _number("<B"),
    pickle.BININT2: _number("<H"),
    pickle.LONG1: _sized("<B", lambda part: int.from_bytes(part, "little", signed=True)),
    pickle.BINFLOAT: _number(">d"),
    pickle.BINUNICODE: _sized("<I", lambda part: str(part, "utf-8")),
    pickle.SHORT_BINBYTES: _sized("<B", bytes),
    pickle.BINBYTES: _sized("<I", bytes),
    pickle.MARK: lambda reader: reader.push(_MARK),
    pickle.EMPTY_LIST: lambda reader: reader.push([]),
    pickle.APPEND: lambda reader: reader.extend(reader.pop(1)),
    pickle.APPENDS: lambda reader: reader.extend(reader.pop_to_mark()),
    pickle.EMPTY_DICT: lambda reader: reader.push({}),
    pickle.SETITEM: lambda reader: reader.update(reader.pop(2)),
    pickle.SETITEMS: lambda reader: reader.update(reader.pop_to_mark()),
}
