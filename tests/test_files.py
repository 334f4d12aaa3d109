import hashlib
import os
import signal
import subprocess
import sys
import time

import pytest

from taxi_duration.files import atomic_path, read_json, sha256_file, write_bytes, write_json


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
