import hashlib
import os
import signal
import subprocess
import sys
import time
from typing import Annotated

import pytest
from msgspec import Meta, Struct

from taxi_duration.errors import ContentError
from taxi_duration.files import (
    atomic_path,
    read_json,
    read_settings,
    sha256_file,
    typed,
    write_bytes,
    write_json,
)


def test_sha256_is_the_files(tmp_path):
    (tmp_path / "a").write_bytes(b"taxi" * 100_000)
    assert sha256_file(tmp_path / "a") == hashlib.sha256(b"taxi" * 100_000).hexdigest()


def test_written_file_replaces_the_old_one_and_leaves_nothing_beside_it(tmp_path):
    for content in (b"old", b"new"):
        write_bytes(tmp_path / "deep" / "file", content)
    assert (tmp_path / "deep" / "file").read_bytes() == b"new"
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["file"]


def test_written_file_can_be_read_by_others(tmp_path):
    write_bytes(tmp_path / "file", b"1")
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644


def test_failure_in_the_middle_keeps_the_old_file(tmp_path):
    write_bytes(tmp_path / "file", b"old")
    with pytest.raises(RuntimeError), atomic_path(tmp_path / "file") as part:
        part.write_bytes(b"half")
        raise RuntimeError
    assert (tmp_path / "file").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_kill_in_the_middle_keeps_the_old_file(tmp_path):
    write_bytes(tmp_path / "file", b"old")
    code = (
        "import sys, time\nfrom taxi_duration.files import atomic_path\n"
        "with atomic_path(sys.argv[1]) as part:\n"
        "    part.write_bytes(b'half')\n    time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "file")])
    while not any(path.read_bytes() == b"half" for path in tmp_path.glob(".file.*")):
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert (tmp_path / "file").read_bytes() == b"old"


def test_json_comes_back_with_its_keys_in_order(tmp_path):
    write_json(tmp_path / "a.json", {"b": 1, "a": [None, 2.5, "é"]})
    assert list(read_json(tmp_path / "a.json").items()) == [("b", 1), ("a", [None, 2.5, "é"])]


def test_unwritable_content_leaves_no_file(tmp_path):
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {("a", "tuple"): 1})
    assert list(tmp_path.iterdir()) == []


# --- settings --------------------------------------------------------------------------------


class Limits(Struct, frozen=True, forbid_unknown_fields=True):
    days: Annotated[int, Meta(ge=1)]
    share: float


GOOD = {"days": {"value": 14, "why": "two weeks"}, "share": {"value": 0.5, "why": "a half"}}


@pytest.fixture
def read(tmp_path, monkeypatch):
    """Read settings of these entries, as a package would its own."""
    monkeypatch.syspath_prepend(tmp_path)

    def read(entries):
        write_json(tmp_path / "some_package" / "limits.json", entries)
        return read_settings("some_package", "limits.json", Limits)

    return read


def test_settings_are_the_values_of_the_file(read):
    assert read(GOOD) == Limits(days=14, share=0.5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"days": {"value": "14", "why": "x"}}, "limits.json: days is '14', expected is `int`"),
        ({"days": {"value": 0, "why": "x"}}, "limits.json: days is 0, expected is `int` >= 1"),
        ({"share": {"value": None, "why": "x"}}, "limits.json: share is None, expected is `float`"),
        ({"share": {"value": 0.5}}, "limits.json: share: object missing required"),
        ({"share": 0.5}, "limits.json: share is 0.5, expected is `object`"),
        ({"dais": {"value": 1, "why": "x"}}, "object contains unknown field `dais`"),
    ],
)
def test_wrong_setting_is_named_with_file_field_found_and_expected(read, change, said):
    with pytest.raises(ContentError) as error:
        read({**GOOD, **change})
    assert said in str(error.value)


def test_missing_setting_is_named(read):
    with pytest.raises(ContentError, match=r"limits\.json: .*missing required field `share`"):
        read({"days": GOOD["days"]})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"inner": [{"days": 1, "share": 1.0}, {"days": 1, "share": "x" * 99}]},
         f"inner[1].share is '{'x' * 59}, expected is `float`"),
        ([], "the content is [], expected is `object`"),
    ],
)  # fmt: skip
def test_value_is_named_wherever_it_lies_and_shortened(content, said):
    class Outer(Struct):
        inner: list[Limits]

    with pytest.raises(ContentError) as error:
        typed(content, Outer)
    assert str(error.value) == said
