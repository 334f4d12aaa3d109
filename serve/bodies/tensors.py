"""Named tensors of the Open Inference Protocol: requests read as columns, answers written.

A tensor is JSON, or bytes behind the JSON as in Triton's extension `binary_tensor_data`: then the
header Inference-Header-Content-Length says where the JSON ends.
Source: https://github.com/kserve/open-inference-protocol, extension_binary_data.md of Triton.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import msgspec
import numpy as np

from serve.bodies.errors import JSON, ApiError
from serve.bodies.json_text import JSON_TYPES, read_json
from serve.bodies.reading import wrong_type
from serve.bodies.schema import InferRequest, InferTensor
from taxi_duration.domain.refused_values import shown

EXTENSION = "binary_tensor_data"
JSON_BYTES = "Inference-Header-Content-Length"
BINARY = "application/octet-stream"
_LENGTH = struct.Struct("<I")  # before each text of a binary tensor

# Datatypes of the protocol: what an element is in JSON, and numpy's type of the bytes.
_INTEGERS = {f"{sign}INT{bits}": f"<{sign.lower() or 'i'}{bits // 8}"
             for sign in ("U", "") for bits in (8, 16, 32, 64)}  # fmt: skip
_FLOATS = {"FP16": "<f2", "FP32": "<f4", "FP64": "<f8"}
_DTYPES = {"BOOL": "?", **_INTEGERS, **_FLOATS}
_ELEMENTS: dict[str, tuple[type, ...]] = {
    "BOOL": (bool,), "BYTES": (str,), **dict.fromkeys(_INTEGERS, (int,)),
    **dict.fromkeys(_FLOATS, (int, float)),
}  # fmt: skip


class Column(NamedTuple):
    """An output: n values of one datatype."""

    name: str
    datatype: str
    values: Sequence[Any]


def read_request(kind: str, body: bytes, json_bytes: str | None) -> tuple[InferRequest, bytes]:
    """Return the request, and the bytes of its binary tensors.

    Args:
        kind: media type, empty when none was sent: Triton's client sends none.
        body: JSON, with or without bytes behind it.
        json_bytes: the value of the header Inference-Header-Content-Length.
    Raises:
        ApiError: another type, or no such request.
    """
    binary = b""
    if json_bytes is not None:
        if not json_bytes.isascii() or not json_bytes.isdigit() or int(json_bytes) > len(body):
            message = f"{JSON_BYTES} is {json_bytes[:40]!r}; the body has {len(body)} bytes"
            raise ApiError(400, "bad_value", message)
        body, binary = body[: int(json_bytes)], body[int(json_bytes) :]
    if kind and not JSON_TYPES.fullmatch(kind) and (kind != BINARY or json_bytes is None):
        raise wrong_type(kind, JSON, f"{BINARY} with {JSON_BYTES}")
    content = read_json(body, of_a_frame=True)
    try:
        return msgspec.convert(content, InferRequest), binary
    except msgspec.ValidationError as error:
        raise ApiError(400, "bad_value", f"no inference request: {error}") from None


def read_columns(tensors: Sequence[InferTensor], binary: bytes) -> list[list[Any]]:
    """Return the tensors' elements as columns of one length; null and NaN are None.

    Args:
        tensors: of shape [n] or [n, 1].
        binary: the bytes of those that are not JSON, in their order.
    Raises:
        ApiError: names the tensor and what is wrong with it.
    """
    columns, rest = [], memoryview(binary)
    for tensor in tensors:
        size = tensor.parameters.get("binary_data_size")
        if size is None:
            columns.append(_from_json(tensor))
            continue
        if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= len(rest):
            raise _wrong(tensor, f"binary_data_size is {shown(size)}; {len(rest)} bytes are left")
        columns.append(_from_bytes(tensor, rest[:size]))
        rest = rest[size:]
    if len(rest):
        raise ApiError(400, "bad_value", f"{len(rest)} bytes behind the JSON belong to no tensor")
    lengths = {len(column) for column in columns}
    if len(lengths) > 1:
        raise ApiError(400, "bad_value", f"the tensors have {sorted(lengths)} elements, not one n")
    return columns


def write_answer(
    content: dict[str, Any], columns: Sequence[Column], as_bytes: set[str]
) -> tuple[bytes, int | None]:
    """Return the body of an answer, and the length of its JSON when bytes follow.

    Args:
        content: the answer without `outputs`.
        columns: its outputs.
        as_bytes: names of those that are sent as bytes.
    """
    outputs, parts = [], []
    for name, datatype, values in columns:
        output = {"name": name, "shape": [len(values)], "datatype": datatype}
        if name in as_bytes:
            parts.append(_to_bytes(datatype, values))
            outputs.append({**output, "parameters": {"binary_data_size": len(parts[-1])}})
        else:
            outputs.append({**output, "data": values})
    text = msgspec.json.encode({**content, "outputs": outputs})
    return (b"".join([text, *parts]), len(text)) if parts else (text, None)


def _from_json(tensor: InferTensor) -> list[Any]:
    if isinstance(tensor.data, msgspec.UnsetType):
        raise _wrong(tensor, "neither data nor binary_data_size is given")
    n, values = _rows(tensor), tensor.data
    if len(tensor.shape) == 2 and any(isinstance(value, list) for value in values):
        if not all(isinstance(value, list) and len(value) == 1 for value in values):
            raise _wrong(tensor, f"its rows are not of the shape {tensor.shape}")
        values = list(chain.from_iterable(values))
    if len(values) != n:
        raise _wrong(tensor, f"{len(values)} elements came for the shape {tensor.shape}")
    allowed = _ELEMENTS[tensor.datatype]
    for i, value in enumerate(values):
        if value is not None and type(value) not in allowed:
            raise _wrong(tensor, f"{shown(value)} is no {tensor.datatype}", i)
    return values


def _from_bytes(tensor: InferTensor, content: memoryview) -> list[Any]:
    n = _rows(tensor)
    if tensor.datatype == "BYTES":
        return _texts(tensor, content, n)
    dtype = np.dtype(_DTYPES[tensor.datatype])
    if len(content) != n * dtype.itemsize:
        raise _wrong(tensor, f"{len(content)} bytes came for the shape {tensor.shape}")
    values = np.frombuffer(content, dtype)
    if dtype.kind != "f":
        return list(values.tolist())
    return [None if value != value else value for value in values.tolist()]


def _texts(tensor: InferTensor, content: memoryview, n: int) -> list[str]:
    texts: list[str] = []
    at = 0
    while at < len(content) and len(texts) < n:
        if len(content) - at < _LENGTH.size:
            break
        (length,) = _LENGTH.unpack_from(content, at)
        at += _LENGTH.size
        if length > len(content) - at:
            break
        try:
            texts.append(str(content[at : at + length], "utf-8"))
        except UnicodeDecodeError as error:
            raise _wrong(tensor, f"no UTF-8: {error.reason}", len(texts)) from None
        at += length
    if at != len(content) or len(texts) != n:
        raise _wrong(tensor, f"its bytes are not {n} texts, each after its length")
    return texts


def _to_bytes(datatype: str, values: Sequence[Any]) -> bytes:
    if datatype != "BYTES":
        return np.array(values, _DTYPES[datatype]).tobytes()
    texts = [value.encode() for value in values]
    return b"".join(part for text in texts for part in (_LENGTH.pack(len(text)), text))


def _rows(tensor: InferTensor) -> int:
    """Return n of the shape [n] or [n, 1]."""
    n, *others = tensor.shape or [-1]
    if n < 0 or others not in ([], [1]):
        raise _wrong(tensor, f"its shape is {tensor.shape[:5]}; [n] is expected, n rides")
    return n


def _wrong(tensor: InferTensor, why: str, element: int | None = None) -> ApiError:
    name = tensor.name[:60]
    return ApiError(400, "bad_value", f"the tensor {name!r}: {why}", tensor.name[:100], element)
