"""Thrift's compact protocol, in which a Parquet file describes itself: bytes to values and back.

A struct is a dict of fields by number; a field is its type and value, a list its elements' type
and the elements. https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

from __future__ import annotations

from typing import Any

TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(1, 13)
MAX_DEPTH = 20  # of structs and lists; a footer has six
LONG_LIST = 15  # a header's four bits say that the length follows

Struct = dict[int, tuple[int, Any]]


class ThriftError(Exception):
    """Bytes that are no struct."""


class Reader:
    """Reads a struct, within its bytes: every element of a list takes at least one.

    Args:
        content: the bytes.
    """

    def __init__(self, content: bytes) -> None:
        self._content, self._at = content, 0

    def struct(self, depth: int = MAX_DEPTH) -> Struct:
        """Return the struct that begins here.

        Raises:
            ThriftError: it ends too early, nests too deep or has a type that does not exist.
        """
        fields: Struct = {}
        number = 0
        while (head := self._take(1)[0]) != 0:
            step, kind = head >> 4, head & 15
            number = number + step if step else self._whole()
            fields[number] = (kind, self._value(kind, depth))
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (TRUE, FALSE):
            return kind == TRUE
        if kind in (I16, I32, I64):
            return self._whole()
        if kind in (BYTE, DOUBLE, BINARY):
            return self._take({BYTE: 1, DOUBLE: 8}.get(kind) or self._varint())
        if not depth:
            raise ThriftError("it nests too deep")
        if kind in (LIST, SET):
            return self._list(depth - 1)
        if kind == MAP:
            return self._map(depth - 1)
        if kind == STRUCT:
            return self.struct(depth - 1)
        raise ThriftError(f"it has a value of the type {kind}, which does not exist")

    def _list(self, depth: int) -> tuple[int, list[Any]]:
        head = self._take(1)[0]
        size, kind = head >> 4, head & 15
        if size == LONG_LIST:
            size = self._varint()
        return kind, [self._element(kind, depth) for _ in range(size)]

    def _map(self, depth: int) -> list[tuple[Any, Any]]:
        size = self._varint()
        kinds = self._take(1)[0] if size else 0
        key, value = kinds >> 4, kinds & 15
        return [(self._element(key, depth), self._element(value, depth)) for _ in range(size)]

    def _element(self, kind: int, depth: int) -> Any:
        # A field's type holds its truth; an element's is a byte.
        return self._take(1)[0] == TRUE if kind in (TRUE, FALSE) else self._value(kind, depth)

    def _whole(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._take(1)[0]
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise ThriftError("it has a number of more than 64 bits")

    def _take(self, n: int) -> bytes:
        self._at += n
        if self._at > len(self._content):
            raise ThriftError("it is cut off")
        return self._content[self._at - n : self._at]


def encode(fields: Struct) -> bytes:
    """Return the bytes of a struct without maps and sets."""
    parts, before = [], 0
    for number, (kind, value) in sorted(fields.items()):
        step, before = number - before, number
        parts.append(bytes([step << 4 | kind]) if 0 < step < 16 else bytes([kind]) + _whole(number))
        if kind not in (TRUE, FALSE):
            parts.append(_bytes_of(kind, value))
    return b"".join(parts) + b"\0"


def _bytes_of(kind: int, value: Any) -> bytes:
    if kind in (I16, I32, I64):
        return _whole(value)
    if kind == BINARY:
        return _varint(len(value)) + value
    if kind in (BYTE, DOUBLE):
        return bytes(value)
    if kind == STRUCT:
        return encode(value)
    if kind != LIST:
        raise ThriftError(f"a value of the type {kind} is not written")
    of, elements = value
    head = bytes([LONG_LIST << 4 | of]) + _varint(len(elements))
    return head + b"".join(_bytes_of(of, element) for element in elements)


def _whole(value: int) -> bytes:
    return _varint(value << 1 if value >= 0 else (-value << 1) - 1)


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])
