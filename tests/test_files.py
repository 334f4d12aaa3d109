import errno
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import pytest
from msgspec import Meta, Struct

from taxi_duration import files
from taxi_duration.errors import ContentError
from taxi_duration.files import (
    append_json_line,
    atomic_path,
    code_digest,
    read_chain,
    read_file,
    read_json,
    read_json_lines,
    read_settings,
    remove_file,
    scratch_folder,
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


def opened(file: int) -> Path:
    """What is open under a number."""
    return Path(f"/proc/self/fd/{file}").readlink()


@pytest.fixture
def calls(monkeypatch):
    """Names of what is brought to disk, renamed or removed, in order."""
    made: list[str] = []
    sync, replace_, unlink = os.fsync, os.replace, os.unlink

    def noted(kind, real):
        def call(path, *rest, **more):
            name = (opened(path) if isinstance(path, int) else Path(path)).name
            made.append(f"{kind} {name.split('.')[0] or 'part'}")
            return real(path, *rest, **more)

        return call

    monkeypatch.setattr(os, "fsync", noted("sync", sync))
    monkeypatch.setattr(os, "replace", noted("rename", replace_))
    monkeypatch.setattr(os, "unlink", noted("remove", unlink))
    return made


def test_a_written_or_removed_name_is_on_disk_too(tmp_path, calls):
    """Without it a power cut brings back the champion before the promotion."""
    folder = tmp_path / "folder"
    write_bytes(folder / "file", b"1")
    assert calls[:3] == ["sync part", "rename part", "sync folder"]
    calls.clear()
    remove_file(folder / "file")
    assert calls == ["remove file", "sync folder"]
    remove_file(folder / "file")  # it is gone already
    assert calls[-1] == "sync folder"


def test_line_is_on_disk_with_its_name_also_when_it_was_there_already(tmp_path, calls):
    path = tmp_path / "folder" / "trail.jsonl"
    for _ in range(2):  # whoever wrote the first may have died before it was on disk
        append_json_line(path, {"key": "a"}, key="a")
        assert [c for c in calls if c.startswith("sync")] == ["sync trail", "sync folder"]
        calls.clear()


@pytest.mark.parametrize(("number", "refused"), [(errno.EINVAL, False), (errno.EIO, True)])
def test_folder_that_cannot_be_synced_is_no_fault_where_nothing_is_known_of_it(
    tmp_path, monkeypatch, number, refused
):
    def sync(file):
        if opened(file).is_dir():
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", sync)
    with pytest.raises(OSError, match="Input/output") if refused else nullcontext():
        write_bytes(tmp_path / "file", b"1")
    assert (tmp_path / "file").read_bytes() == b"1"


def test_json_comes_back_with_its_keys_in_order(tmp_path):
    write_json(tmp_path / "a.json", {"b": 1, "a": [None, 2.5, "é"]})
    assert list(read_json(tmp_path / "a.json").items()) == [("b", 1), ("a", [None, 2.5, "é"])]


def test_unwritable_content_leaves_no_file(tmp_path):
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {("a", "tuple"): 1})
    assert list(tmp_path.iterdir()) == []


# --- chained lines ---------------------------------------------------------------------------


@pytest.fixture
def chain(tmp_path):
    """A file of three chained lines."""
    for number in (1, 2, 3):
        append_json_line(tmp_path / "chain.jsonl", {"n": number})
    return tmp_path / "chain.jsonl"


def ties(path):
    return [(line.number, line.record["n"], line.tie) for line in read_chain(path)]


def lines(path):
    return path.read_text().splitlines(keepends=True)


def test_each_line_names_the_digest_of_the_one_before(chain):
    digests = [hashlib.sha256(line.rstrip("\n").encode()).hexdigest() for line in lines(chain)]
    assert [line.sha256 for line in read_chain(chain)] == digests
    said = [line.record["sha256_before"] for line in read_chain(chain)]
    assert said == ["", *digests[:2]]
    assert ties(chain) == [(1, 1, "chained"), (2, 2, "chained"), (3, 3, "chained")]


def test_no_file_has_no_lines(tmp_path):
    assert read_chain(tmp_path / "none.jsonl") == []


@pytest.mark.parametrize(
    ("tamper", "found"),
    [
        (lambda a, b, c: [a, b.replace("2", "9", 1), c],
         [(1, "chained"), (2, "chained"), (3, "broken")]),
        (lambda a, b, c: [a, c], [(1, "chained"), (2, "broken")]),
        (lambda a, b, c: [b, c], [(1, "broken"), (2, "chained")]),
        (lambda a, b, c: [a, c, b], [(1, "chained"), (2, "broken"), (3, "broken")]),
        (lambda a, b, c: [a, '{"n": 9}\n', b, c],
         [(1, "chained"), (2, "broken"), (3, "broken"), (4, "chained")]),
        (lambda a, b, c: [a, b, c.replace("}", ", }")], [(1, "chained"), (2, "chained")]),
        (lambda a, b, c: [a, b[:-5] + "\n", c], [(1, "chained"), (3, "broken")]),
        (lambda a, b, c: ['{"n": 0}\n', a, b, c],
         [(1, "unchained"), (2, "broken"), (3, "chained"), (4, "chained")]),
    ],
    ids=["changed", "taken out", "first taken out", "swapped", "put in", "last spoiled", "spoiled",
         "put in front"],
)  # fmt: skip
def test_a_line_that_does_not_follow_the_one_before_is_broken(chain, tamper, found):
    chain.write_text("".join(tamper(*lines(chain))))
    assert [(line.number, line.tie) for line in read_chain(chain)] == found


def test_lines_of_an_older_release_are_an_unchained_beginning(tmp_path):
    path = tmp_path / "old.jsonl"
    path.write_text('{"n": 1}\n{"n": 2}\n')
    append_json_line(path, {"n": 3})
    append_json_line(path, {"n": 4})
    assert ties(path) == [
        (1, 1, "unchained"), (2, 2, "unchained"), (3, 3, "chained"), (4, 4, "chained"),
    ]  # fmt: skip
    path.write_text(path.read_text().replace('"n": 2', '"n": 9'))
    assert [tie for *_, tie in ties(path)] == ["unchained", "unchained", "broken", "chained"]


@pytest.mark.parametrize("cut", ['{"n": 2, "sha', "\xff", "7\n[1]"])
def test_line_cut_by_a_crash_is_passed_over_by_the_chain(tmp_path, cut):
    path = tmp_path / "cut.jsonl"
    append_json_line(path, {"n": 1})
    with path.open("ab") as file:
        file.write(cut.encode("latin-1"))
    append_json_line(path, {"n": 3})
    append_json_line(path, {"n": 4})
    assert [(n, tie) for _, n, tie in ties(path)] == [(n, "chained") for n in (1, 3, 4)]
    assert [record["n"] for record in read_json_lines(path)] == [1, 3, 4]


def test_whole_line_without_its_end_is_kept_and_chained_to(tmp_path):
    path = tmp_path / "cut.jsonl"
    append_json_line(path, {"n": 1})
    path.write_text(path.read_text().rstrip("\n"))
    append_json_line(path, {"n": 2})
    assert ties(path) == [(1, 1, "chained"), (2, 2, "chained")]


def test_record_of_a_key_that_is_there_is_not_written_again(tmp_path):
    path = tmp_path / "keys.jsonl"
    first = append_json_line(path, {"n": 1, "key": "a"}, key="a")
    assert append_json_line(path, {"n": 2, "key": "a"}, key="a") == first
    append_json_line(path, {"n": 3, "key": "b"}, key="b")
    for _ in range(2):
        append_json_line(path, {"n": 4, "key": None})
    assert [record["n"] for record in read_json_lines(path)] == [1, 3, 4, 4]


def test_writers_at_the_same_time_keep_one_chain(tmp_path):
    path = tmp_path / "race.jsonl"
    threads = [threading.Thread(target=append_json_line, args=(path, {"n": n})) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [tie for *_, tie in ties(path)] == ["chained"] * 8


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


# --- only files, and only so large --------------------------------------------------------------


def test_file_is_read_up_to_its_bound(tmp_path):
    (tmp_path / "a").write_bytes(b"1234")
    assert read_file(tmp_path / "a", 4) == b"1234"
    with pytest.raises(ContentError, match="a is larger than 3 bytes"):
        read_file(tmp_path / "a", 3)


def test_file_that_says_no_size_is_bounded_too():
    """Those of /proc are as long as they are read, and say 0."""
    with pytest.raises(ContentError, match="larger than 10 bytes"):
        read_file("/proc/self/status", 10)


@pytest.mark.parametrize("read", [read_file, sha256_file, read_json, read_chain])
@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (os.mkfifo, "a pipe"),
        (os.mkdir, "a folder"),
        (lambda path: path.symlink_to("/dev/zero"), "a device"),
    ],
)
def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path, read, make, kind):
    make(tmp_path / "a")
    with pytest.raises(ContentError, match=f"a is {kind}, no file"):
        read(tmp_path / "a")


def test_json_nested_without_end_is_no_end_of_the_process(tmp_path):
    (tmp_path / "a.json").write_bytes(b"[" * 200_000)
    with pytest.raises(ContentError, match="nested too deep"):
        read_json(tmp_path / "a.json")


# --- code -----------------------------------------------------------------------------------------


def test_digest_of_code_is_that_of_its_shelves_with_all_that_lies_in_them(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "__file__", str(tmp_path / "files.py"))
    before = set()
    for name in ("data/health/look.py", "training/deep/er/settings.json", "model/_walker.pyx"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("a = 1")
        before.add(code_digest())
    assert len(before) == 3
    for name in ("loop/turn.py", "data/notes.md", "files.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("a = 1")
    assert code_digest() in before
    assert code_digest(["loop"]) != code_digest([]) != code_digest([""])
    (tmp_path / "model" / "_walker.pyx").write_text("a = 2")  # as long as before
    assert code_digest() not in before


def test_sources_that_did_not_change_are_read_once(monkeypatch):
    read = []
    digest = files.sha256_file
    monkeypatch.setattr(files, "sha256_file", lambda path: read.append(path) or digest(path))
    first = code_digest()
    read.clear()
    assert code_digest() == first
    assert read == []


HOLDS = """
import sys
from pathlib import Path
from taxi_duration.files import scratch_folder
with scratch_folder(Path(sys.argv[1])) as folder:
    (folder / "page").write_text("of a process")
    print(folder, flush=True)
    sys.stdin.read()
"""


def test_scratch_of_a_killed_process_is_removed_and_that_of_a_living_one_is_not(tmp_path):
    def holder():
        command = [sys.executable, "-c", HOLDS, str(tmp_path)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return process, Path(process.stdout.readline().decode().strip())

    (killed, left), (living, kept) = holder(), holder()
    try:
        killed.kill()
        killed.wait()
        assert (left / "page").exists()
        with scratch_folder(tmp_path) as own:
            assert set(tmp_path.iterdir()) == {kept, own}
            assert (kept / "page").exists()
        living.communicate(b"")
        assert list(tmp_path.iterdir()) == []
    finally:
        for process in (killed, living):
            process.kill()
            process.communicate()


def test_scratch_is_removed_after_an_error_too(tmp_path):
    with pytest.raises(ValueError), scratch_folder(tmp_path / "new") as folder:
        (folder / "page").write_text("half")
        raise ValueError
    assert list((tmp_path / "new").iterdir()) == []
