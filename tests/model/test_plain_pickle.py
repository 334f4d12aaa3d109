from __future__ import annotations

import io
import os
import pickle
import pickletools
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taxi_duration.model.plain_pickle import _STEPS, MAX_OPCODES, dumps, loads

START = b"\x80\x03"

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**200), 2**200) | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"])) | st.binary(max_size=400),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=20,
)  # fmt: skip


@given(PLAIN)
def test_plain_values_come_back_as_they_were(value):
    content = dumps({"value": value})
    assert loads(content) == {"value": value} == pickle.loads(content)


def test_types_come_back_exactly():
    values = [1, 1.0, True, None, "1", b"1", [], {}]
    assert [type(value) for value in loads(dumps(values))] == [type(value) for value in values]


def test_equal_values_give_equal_bytes_whether_their_parts_are_one_object_or_two():
    text, other = "".join(["zone", "s"]), "".join(["zo", "nes"])
    assert text is not other
    assert dumps([text, text]) == dumps([text, other])


# --- every opcode that makes no plain value, each alone ------------------------------------

FORBIDDEN = [
    op for op in pickletools.opcodes
    if op.code.encode("latin-1") not in {*_STEPS, pickle.STOP}
]  # fmt: skip


def test_classes_calls_memos_and_buffers_are_all_forbidden():
    names = {op.name for op in FORBIDDEN}
    assert names >= {
        "GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "REDUCE", "BUILD",
        "EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID", "GET", "BINGET", "LONG_BINGET",
        "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "FRAME", "BYTEARRAY8", "NEXT_BUFFER",
        "READONLY_BUFFER", "EMPTY_SET", "ADDITEMS", "FROZENSET", "DUP", "LONG4", "BINBYTES8",
    }  # fmt: skip


@pytest.mark.parametrize("opcode", FORBIDDEN, ids=lambda op: op.name)
def test_opcode_that_makes_no_plain_value_is_refused_by_name(opcode):
    """What it would need lies before and after it, so that only the opcode itself is wrong."""
    content = START + b"(NNN" + opcode.code.encode("latin-1") + b"\0" * 40 + b"."
    with pytest.raises(ValueError, match=f"opcode {opcode.name} is not allowed"):
        loads(content)


def test_byte_that_is_no_opcode_is_refused():
    with pytest.raises(ValueError, match=r"byte b'\\xff' is not allowed"):
        loads(START + b"\xff.")


# --- hostile pickles as an attacker writes them ---------------------------------------------


class Call:
    """A pickle that would call a function when it is loaded."""

    def __reduce__(self):
        return os.system, ("exit 1",)


class Slot:
    """A pickle that would set an attribute of a class: BUILD with slot state."""

    def __reduce__(self):
        return dict, (), (None, {"__class__": 1})


def forged_objects() -> bytes:
    """An array of objects over bytes: pointers to nowhere."""
    return pickle.dumps(np.frombuffer(b"\x41" * 64, dtype="u8")).replace(b"u8", b"O8")


HOSTILE = {
    **{f"call, protocol {p}": pickle.dumps(Call(), p) for p in range(6)},
    **{f"slot state, protocol {p}": pickle.dumps(Slot(), p) for p in (2, 3, 5)},
    "array of objects": forged_objects(),
    "class by name": START + b"cos\nsystem\n(X\x06\0\0\0exit 1tR.",
    "huge memo": START + b"Nr\xff\xff\xff\x7f.",
    "huge frame": START + b"\x95" + b"\xff" * 8 + b"N.",
    "huge bytes, 4-byte length": START + b"B\xff\xff\xff\xffN.",
    "huge text, 4-byte length": START + b"X\xff\xff\xff\xffN.",
    "huge bytes, 8-byte length": START + b"\x8e" + b"\xff" * 7 + b"\x7fN.",
    "huge array of bytes": START + b"\x96" + b"\xff" * 7 + b"\x7fN.",
    "huge number": START + b"\x8b\xff\xff\xff\x7f1.",
    "number of a gigabyte of digits": START + b"L" + b"9" * 100_000 + b"L\n.",
    "list in itself": START + b"]q\0h\0a.",
    "dict in itself": START + b"}q\0X\1\0\0\0ah\0s.",
    "doubled again and again": START + b"N" + b"2\x86" * 60 + b".",
    "nested, within the limit": START + b"]" * 9000 + b"a" * 8999 + b"]" * 2500 + b".",
    "nested, above it": START + b"]" * 500_000 + b"a" * 499_999 + b".",
    "marks without end": START + b"(" * 1_000_000 + b".",
    "values without end": START + b"N" * 1_000_000 + b".",
    "marks and lists": START + b"](" * 9000 + b"e" * 1999 + b".",
    "set that hashes": START + b"\x8f(K\1\x90.",
    "extension": START + b"\x82\1.",
    "foreign object by its number": START + b"K\1Q.",
}  # fmt: skip

# Runs where little more memory and time than now are allowed: MemoryError is no ValueError.
BOUNDED = """
import resource, sys, time
from taxi_duration.model.plain_pickle import loads
import pickletools  # what a refusal imports; not the attacker's doing
cases = [bytes.fromhex(line) for line in sys.stdin]
pages = int(open("/proc/self/statm").read().split()[0])
most = pages * resource.getpagesize() + 64_000_000
resource.setrlimit(resource.RLIMIT_AS, (most, most))
resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
for case in cases:
    started = time.process_time()
    try:
        loads(case)
        print("loaded")
    except ValueError as error:
        print(f"{time.process_time() - started:.3f} {error}")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are Linux's")
def test_every_hostile_pickle_is_refused_within_little_time_and_memory():
    done = subprocess.run(
        [sys.executable, "-c", BOUNDED], capture_output=True, text=True, check=False,
        input="\n".join(content.hex() for content in HOSTILE.values()),
    )  # fmt: skip
    said = done.stdout.splitlines()
    assert len(said) == len(HOSTILE), done.stderr
    assert "loaded" not in said
    assert max(float(line.split()[0]) for line in said) < 2


# --- each guard, by the pickle that it alone refuses ----------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "2 bytes are announced, 0 are left"),
        (b"\x80\x02N.", "no pickle of protocol 3 begins so"),
        (b"\x80\x05N.", "no pickle of protocol 3 begins so"),
        (b"N.", "no pickle of protocol 3 begins so"),
        (START + b"N", "1 bytes are announced, 0 are left"),
        (START + b"J\0\0\0", "4 bytes are announced, 3 are left"),
        (START + b"G\0\0\0.", "8 bytes are announced, 4 are left"),
        (START + b"C\x05abc.", "5 bytes are announced, 4 are left"),
        (START + b"B\xff\xff\xff\xff.", "4294967295 bytes are announced, 1 are left"),
        (START + b"X\5\0\0\0abc.", "5 bytes are announced, 4 are left"),
        (START + b"\x8a\xff1.", "255 bytes are announced, 2 are left"),
        (START + b"X\1\0\0\0\xff.", "'utf-8' codec"),
        (START + b".", "a value is missing"),
        (START + b"(.", "a value is missing"),
        (START + b"NN.", "left over after the value"),
        (START + b"N.N", "left over after the value"),
        (START + b"N..", "left over after the value"),
        (START + b"a.", "a value is missing"),
        (START + b"Na.", "added to what is no list"),
        (START + b"NNa.", "added to what is no list"),
        (START + b"](a.", "a value is missing"),
        (START + b"]Ne.", "a mark is missing"),
        (START + b"(Ne.", "added to what is no list"),
        (START + b"}(Ne.", "added to what is no list"),
        (START + b"X\1\0\0\0aNs.", "set in what is no dict"),
        (START + b"]X\1\0\0\0aNs.", "set in what is no dict"),
        (START + b"}(X\1\0\0\0aNs.", "set in what is no dict"),
        (START + b"}(X\1\0\0\0au.", "set in what is no dict, or one is missing"),
        (START + b"}NNs.", "a dict's name is no text"),
        (START + b"}]Ns.", "a dict's name is no text"),
        (START + b"}X\1\0\0\0aNsX\1\0\0\0aNs.", "or comes twice"),
        (START + b"N" * MAX_OPCODES + b".", f"more than {MAX_OPCODES} opcodes"),
    ],
)
def test_pickle_that_is_not_whole_or_not_in_order_is_refused(content, message):
    with pytest.raises(ValueError, match=message):
        loads(content)


def test_as_many_opcodes_as_allowed_are_read():
    content = START + b"](" + b"N" * (MAX_OPCODES - 4) + b"e."
    assert len(loads(content)) == MAX_OPCODES - 4


def test_refusal_says_where():
    with pytest.raises(ValueError, match=r"^byte 4: opcode GLOBAL is not allowed"):
        loads(START + b"]cos\nsystem\n.")


def test_other_values_are_written_and_then_refused():
    buffer = io.BytesIO(dumps({"day": np.datetime64("2021-01-01")}))
    with pytest.raises(ValueError, match="GLOBAL is not allowed"):
        loads(buffer.getvalue())
