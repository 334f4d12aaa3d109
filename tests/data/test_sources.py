import gzip
import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from tenacity import wait_none

from taxi_duration.data import remote, sources
from taxi_duration.data.sources import (
    existing_months,
    fetch_month,
    fetch_months,
    fetch_republished,
    newest_edition,
    published_months,
)
from taxi_duration.data.trips import read_dataframe
from taxi_duration.domain.months import Month
from taxi_duration.errors import (
    MonthNotPublishedError,
    SettingError,
    SourceError,
    SourceUnreachableError,
)
from taxi_duration.files import sha256_file

JANUARY, FEBRUARY, MARCH = Month(2021, 1), Month(2021, 2), Month(2021, 3)
NAME = "green_tripdata_2021-01.parquet"


class FakeTlc:
    """A web server whose answers a test sets: path -> (status, body), or a list of them in turn.

    `short` sends half of the body under the whole length; `stall` sends half, then waits.
    """

    def __init__(self):
        self.answers, self.asked, self.methods = {}, [], []
        self.modified, self.says = "Fri, 01 Jan 2021 00:00:00 GMT", {"ETag", "Last-Modified"}
        self.released = threading.Event()
        self.default = (404, b"not here")
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                fake.answer(self)

            do_HEAD = do_GET

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def answer(self, request):
        self.asked.append(request.path)
        self.methods.append(request.command)
        answer = self.answers.get(request.path, self.default)
        if isinstance(answer, list):
            looks = request.command == "HEAD" and answer[0][0] == 200  # the bytes are yet to come
            answer = answer[0] if looks or len(answer) == 1 else answer.pop(0)
        status, body, *how = answer
        request.send_response(status)
        request.send_header("Content-Length", str(len(body)))
        marks = {"Last-Modified": self.modified, "ETag": f'"{hashlib.md5(body).hexdigest()}"'}
        for name in self.says:
            request.send_header(name, marks[name])
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(body[: len(body) // 2] if how else body)
            request.wfile.flush()
        if "stall" in how:
            self.released.wait(60)

    def put(self, body: bytes, name: str = NAME, status: int = 200, *how: str) -> None:
        self.answers[f"/trip-data/{name}"] = (status, body, *how)

    def close(self):
        self.released.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def fake_tlc(monkeypatch):
    """A fake TLC as `TLC_URL`."""
    fake = FakeTlc()
    monkeypatch.setenv("TLC_URL", fake.url)
    yield fake
    fake.close()


@pytest.fixture(autouse=True)
def quick_home(tmp_path, monkeypatch):
    """An empty home, and no waiting between attempts."""
    monkeypatch.setenv("TAXI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SAMPLE_ROWS", "300")
    monkeypatch.setattr(remote, "wait_exponential_jitter", lambda **_: wait_none())


@pytest.fixture
def month_bytes(raw_month, write_month) -> bytes:
    return write_month(raw_month).read_bytes()


@pytest.fixture
def raw_dir(tmp_path):
    folder = tmp_path / "home" / "data" / "raw"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def dead_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# --- a source that has the month ---------------------------------------------------------


def test_published_month_is_downloaded_whole_with_its_checksum(fake_tlc, month_bytes, raw_dir):
    fake_tlc.put(month_bytes)
    raw = fetch_month("green", JANUARY)
    assert raw.path == raw_dir / NAME and raw.path.read_bytes() == month_bytes
    assert raw.sha256 == hashlib.sha256(month_bytes).hexdigest()
    assert (raw.data_source, raw.url) == ("tlc", f"{fake_tlc.url}/trip-data/{NAME}")
    assert not list(raw_dir.glob(".*"))


def test_recorded_checksum_is_what_sha256sum_checks(fake_tlc, month_bytes, raw_dir):
    fake_tlc.put(month_bytes)
    fetch_month("green", JANUARY)
    checked = subprocess.run(["sha256sum", "-c", f"{NAME}.sha256"], cwd=raw_dir, check=False,
                             capture_output=True, text=True)  # fmt: skip
    assert checked.returncode == 0 and f"{NAME}: OK" in checked.stdout


def test_stored_month_is_not_asked_for_again_and_keeps_its_address(fake_tlc, month_bytes):
    fake_tlc.put(month_bytes)
    first = fetch_month("green", JANUARY)
    fake_tlc.asked.clear()
    assert fetch_month("green", JANUARY) == first
    assert fake_tlc.asked == []


def test_own_file_in_data_raw_comes_first_and_gets_a_checksum(fake_tlc, month_bytes, raw_dir):
    fake_tlc.put(b"another file")
    (raw_dir / NAME).write_bytes(month_bytes)
    raw = fetch_month("green", JANUARY)
    assert (raw.url, raw.path.read_bytes()) == (None, month_bytes)
    assert raw.sha256 in (raw_dir / f"{NAME}.sha256").read_text()


def test_raw_file_that_changed_is_refused_with_what_to_do(fake_tlc, month_bytes, raw_dir):
    fake_tlc.put(month_bytes)
    fetch_month("green", JANUARY)
    (raw_dir / NAME).write_bytes(month_bytes + b"x")
    with pytest.raises(SourceError, match=rf"{NAME} .*changed.*delete it"):
        fetch_months("green", [JANUARY])


def test_unreadable_checksum_file_is_refused_with_what_to_do(fake_tlc, month_bytes, raw_dir):
    fake_tlc.put(month_bytes)
    fetch_month("green", JANUARY)
    (raw_dir / f"{NAME}.sha256").write_text("\n")
    with pytest.raises(SourceError, match=r"delete it and its \.sha256"):
        fetch_month("green", JANUARY)


@pytest.mark.parametrize("spoil", [lambda f: f.write_bytes(b"\xff\xfe\0"), lambda f: f.mkdir()])
def test_checksum_file_that_is_none_is_refused_with_what_to_do(month_bytes, raw_dir, spoil):
    raw_dir.mkdir(parents=True, exist_ok=True)
    (raw_dir / NAME).write_bytes(month_bytes)
    spoil(raw_dir / f"{NAME}.sha256")
    with pytest.raises(SourceError, match=rf"{NAME}\.sha256 in data/raw is no checksum .* delete"):
        fetch_month("green", JANUARY)


def test_gzipped_csv_is_found_when_there_is_no_parquet(fake_tlc, raw_month):
    sink = pa.BufferOutputStream()
    pa.csv.write_csv(raw_month, sink)
    fake_tlc.put(gzip.compress(sink.getvalue().to_pybytes()), "green_tripdata_2021-01.csv.gz")
    raw = fetch_month("green", JANUARY)
    assert raw.path.name == "green_tripdata_2021-01.csv.gz"
    assert len(read_dataframe(raw.path)) == 5


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_folder_is_a_source(tmp_path, monkeypatch, month_bytes, prefix):
    folder = tmp_path / "public" / "trip-data"
    folder.mkdir(parents=True)
    (folder / NAME).write_bytes(month_bytes)
    monkeypatch.setenv("TLC_URL", f"{prefix}{tmp_path}/public/")
    assert fetch_month("green", JANUARY).path.read_bytes() == month_bytes
    with pytest.raises(MonthNotPublishedError):
        fetch_months("green", [FEBRUARY])


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_folder_that_does_not_exist_is_a_mistake_not_an_unpublished_month(monkeypatch, prefix):
    monkeypatch.setenv("TLC_URL", f"{prefix}/no/such/folder")
    with pytest.raises(SourceError, match="/no/such/folder"):
        fetch_months("green", [JANUARY])


@pytest.mark.parametrize("layout", ["", "green/", "trip-data/"])
@pytest.mark.parametrize("prefix", ["", "file://"])
def test_mirrors_may_keep_months_in_the_folder_itself_or_by_service(
    tmp_path, monkeypatch, month_bytes, layout, prefix
):
    month = tmp_path / "mirror" / layout / NAME
    month.parent.mkdir(parents=True)
    month.write_bytes(month_bytes)
    monkeypatch.setenv("TLC_URL", f"{prefix}{tmp_path / 'mirror'}")
    assert list(published_months("green", [JANUARY, FEBRUARY])) == [JANUARY]
    assert fetch_month("green", JANUARY).path.read_bytes() == month_bytes
    with pytest.raises(MonthNotPublishedError):
        fetch_month("green", FEBRUARY)


@pytest.mark.parametrize("name", [NAME.upper(), "green_tripdata_2021-01.PARQUET"])
def test_letters_of_a_name_may_be_large_or_small(
    tmp_path, monkeypatch, month_bytes, other_bytes, name
):
    folder = tmp_path / "mirror" / "trip-data"
    folder.mkdir(parents=True)
    (folder / name).write_bytes(month_bytes)
    monkeypatch.setenv("TLC_URL", str(tmp_path / "mirror"))
    assert list(published_months("green", [JANUARY, FEBRUARY])) == [JANUARY]
    assert fetch_month("green", JANUARY).path.name == NAME
    assert fetched_again(JANUARY) is None
    (folder / name).write_bytes(other_bytes)
    assert fetched_again(JANUARY).path.read_bytes() == other_bytes


def test_of_names_that_differ_in_case_alone_tlcs_own_is_taken(tmp_path, monkeypatch, month_bytes):
    folder = tmp_path / "mirror"
    folder.mkdir()
    (folder / NAME.upper()).write_bytes(b"another")
    (folder / NAME).write_bytes(month_bytes)
    monkeypatch.setenv("TLC_URL", str(folder))
    assert fetch_month("green", JANUARY).path.read_bytes() == month_bytes


def test_folder_of_names_in_large_letters_has_a_month_that_is_not_there_yet(tmp_path, monkeypatch):
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / NAME.upper()).touch()
    monkeypatch.setenv("TLC_URL", str(tmp_path / "mirror"))
    with pytest.raises(MonthNotPublishedError):
        fetch_month("green", FEBRUARY)


@pytest.mark.parametrize("layout", ["/", "/green/"])
def test_mirror_over_http_may_keep_months_in_its_own_way(fake_tlc, month_bytes, layout):
    fake_tlc.answers[f"{layout}{NAME}"] = (200, month_bytes)
    assert list(published_months("green", [JANUARY, FEBRUARY])) == [JANUARY]
    assert fetch_month("green", JANUARY).path.read_bytes() == month_bytes
    assert fetch_republished(newest_edition("green", JANUARY)) is None


def test_empty_folder_of_tlcs_own_layout_has_no_month_yet(tmp_path, monkeypatch):
    for name in ("a", "b", "c", "d", "e", "f", "misc", "trip-data"):
        (tmp_path / "mirror" / name).mkdir(parents=True)
    monkeypatch.setenv("TLC_URL", str(tmp_path / "mirror"))
    with pytest.raises(MonthNotPublishedError):
        fetch_month("green", JANUARY)


@pytest.mark.parametrize("name", ["2021/01/trips.parquet", "green-2021-01.parquet", None])
def test_folder_without_a_month_is_a_mistake_and_says_what_there_is(tmp_path, monkeypatch, name):
    base = tmp_path / "elsewhere"
    base.mkdir()
    if name is not None:
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).touch()
    monkeypatch.setenv("TLC_URL", str(base))
    holds = "nothing" if name is None else name.split("/")[0]
    for ask in (fetch_month, lambda *asked: list(published_months(asked[0], [asked[1]]))):
        with pytest.raises(SourceError, match=f"no month of any service.*holds {holds};"):
            ask("green", JANUARY)


def test_relative_folder_is_taken_from_the_project(real_months, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TLC_URL", "../shared/tlc")
    assert fetch_month("green", JANUARY).sha256 == sha256_file(real_months / "trip-data" / NAME)


def test_any_fsspec_address_is_a_source(monkeypatch, month_bytes):
    fsspec.filesystem("memory").pipe(f"/bucket/trip-data/{NAME}", month_bytes)
    monkeypatch.setenv("TLC_URL", "memory://bucket")
    assert fetch_month("green", JANUARY).path.read_bytes() == month_bytes
    with pytest.raises(MonthNotPublishedError):
        fetch_months("green", [FEBRUARY])


@pytest.fixture
def fake_s3(fake_tlc, monkeypatch):
    """The fake server as an S3 endpoint with a bucket named `taxi`."""
    for name, value in {
        "TLC_URL": "s3://taxi", "AWS_ENDPOINT_URL": fake_tlc.url, "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1", "AWS_MAX_ATTEMPTS": "1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    return fake_tlc


def test_s3_bucket_is_a_source(fake_s3, month_bytes):
    fake_s3.answers[f"/taxi/trip-data/{NAME}"] = (200, month_bytes)
    raw = fetch_month("green", JANUARY)
    assert raw.path.read_bytes() == month_bytes
    assert raw.url == f"s3://taxi/trip-data/{NAME}"


@pytest.mark.parametrize("status", [403, 404])
def test_month_missing_from_s3_is_not_published_yet(fake_s3, status):
    fake_s3.default = (status, b"")
    with pytest.raises(MonthNotPublishedError):
        fetch_months("green", [JANUARY])


LISTING = "/taxi?list-type=2&prefix={}&delimiter=%2F&encoding-type=url"
LISTED = """<ListBucketResult><IsTruncated>false</IsTruncated>{}</ListBucketResult>"""


def list_bucket(fake_s3, *keys: str) -> None:
    """Let the endpoint list these keys of its bucket, and nothing in other folders."""
    for prefix in ("", "trip-data%2F", "green%2F"):
        folder = prefix.replace("%2F", "/")
        found = [key for key in keys if key.rpartition("/")[0] == folder.rstrip("/")]
        content = "".join(f"<Contents><Key>{k}</Key><Size>9</Size></Contents>" for k in found)
        fake_s3.answers[LISTING.format(prefix)] = (200, LISTED.format(content).encode())


def test_bucket_that_is_listed_is_asked_a_handful_of_times(fake_s3, month_bytes):
    """Not for all forms in all places."""
    list_bucket(fake_s3, f"trip-data/{NAME}")
    fake_s3.answers[f"/taxi/trip-data/{NAME}"] = (200, month_bytes)
    with pytest.raises(MonthNotPublishedError):
        fetch_month("green", FEBRUARY)
    assert len(fake_s3.asked) <= 8
    fake_s3.asked.clear()
    assert list(published_months("green", [JANUARY, FEBRUARY])) == [JANUARY]
    assert len(fake_s3.asked) <= 16
    assert fetch_month("green", JANUARY).path.read_bytes() == month_bytes


# --- a mirror that cannot be listed -------------------------------------------------------


@pytest.mark.parametrize("name", ["trip-data/", "", "green/"])
@pytest.mark.parametrize("suffix", [".parquet", ".zip"])
def test_mirror_is_asked_where_and_in_which_form_it_had_the_last_month(
    fake_tlc, month_bytes, name, suffix
):
    january = f"/{name}green_tripdata_2021-01{suffix}"
    fake_tlc.answers[january] = (200, month_bytes)
    fetch_month("green", JANUARY)
    fake_tlc.asked.clear()
    with pytest.raises(MonthNotPublishedError):
        fetch_month("green", FEBRUARY)
    assert fake_tlc.asked[0] == january  # it still has that: this place is right
    assert {path.rpartition("/")[0] + "/" for path in fake_tlc.asked} == {f"/{name}"}
    assert len(fake_tlc.asked) <= 5


def test_mirror_that_moved_its_months_is_asked_everywhere(fake_tlc, month_bytes):
    fake_tlc.put(month_bytes)
    fetch_month("green", JANUARY)
    fake_tlc.answers = {"/green/green_tripdata_2021-02.csv.zip": (200, month_bytes)}
    raw = fetch_month("green", FEBRUARY)
    assert raw.url.endswith("/green/green_tripdata_2021-02.csv.zip")


def test_months_of_another_mirror_say_nothing_of_this_one(fake_tlc, month_bytes, monkeypatch):
    other = FakeTlc()
    try:
        other.put(month_bytes)
        monkeypatch.setenv("TLC_URL", other.url)
        fetch_month("green", JANUARY)
    finally:
        other.close()
    monkeypatch.setenv("TLC_URL", fake_tlc.url)
    fake_tlc.answers["/green_tripdata_2021-02.txt"] = (200, month_bytes)
    assert fetch_month("green", FEBRUARY).path.suffix == ".txt"


# --- a folder of part files --------------------------------------------------------------


@pytest.fixture(params=["folder", "file", "memory", "http"])
def spark_folder(request, raw_month, tmp_path, monkeypatch):
    """A month at a source of each kind as Spark writes it; the folder, and its name."""
    folder = tmp_path / "public" / "trip-data" / NAME
    (folder / "day=1").mkdir(parents=True)
    for at, name in enumerate(("part-0.parquet", "day=1/part-10.parquet")):
        pq.write_table(raw_month.slice(3 * at, 3 - at), folder / name)
        (folder / name).with_name(f".{Path(name).name}.crc").write_bytes(b"crc")
    (folder / "_SUCCESS").touch()
    base = str(tmp_path / "public")
    if request.param == "memory":
        files = fsspec.filesystem("memory")
        files.put(base, "/spark", recursive=True)
        base = "memory://spark"
    if request.param == "http":
        handler = partial(SimpleHTTPRequestHandler, directory=base)
        monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *_: None)
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        request.addfinalizer(server.server_close)
        request.addfinalizer(server.shutdown)
        base = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("TLC_URL", f"file://{base}" if request.param == "file" else base)
    return folder


def test_folder_of_parts_is_fetched_whole_and_read_as_one_month(spark_folder, raw_dir):
    assert list(published_months("green", [JANUARY, FEBRUARY])) == [JANUARY]
    raw = fetch_month("green", JANUARY)
    assert raw.path == raw_dir / NAME and raw.url.endswith(NAME)
    stored = sorted(path.relative_to(raw.path).as_posix() for path in raw.path.rglob("*.parquet"))
    assert stored == ["day=1/part-10.parquet", "part-0.parquet"]
    assert read_dataframe(raw.path)["duration"].tolist() == [45, 60, 1, 10, 25]
    assert not list(raw_dir.glob(".*")) and not list(raw.path.rglob("*crc"))
    digests = {name: sha256_file(raw.path / name) for name in stored}
    lines = "".join(f"{digest}  {name}\n" for name, digest in digests.items())
    assert raw.sha256 == hashlib.sha256(lines.encode()).hexdigest()
    checked = subprocess.run(["sha256sum", "-c", f"{NAME}.sha256"], cwd=raw_dir, check=False)
    assert checked.returncode == 0
    assert fetch_month("green", JANUARY) == raw
    assert fetch_republished(raw) is None


@pytest.mark.parametrize(
    ("number", "remedy"), [(28, "free some room"), (30, "DATA_DIR"), (13, "DATA_DIR")]
)
def test_disk_that_takes_no_month_is_said_and_not_of_the_source(
    tmp_path, raw_dir, monkeypatch, number, remedy
):
    (tmp_path / "tlc").mkdir()
    (tmp_path / "tlc" / NAME).write_bytes(b"PAR1" * 20)
    monkeypatch.setenv("TLC_URL", str(tmp_path / "tlc"))

    def refuse(*_, **__):
        raise OSError(number, os.strerror(number), str(raw_dir / ".part"))

    monkeypatch.setattr("taxi_duration.files.tempfile.mkstemp", refuse)
    with pytest.raises(SourceError, match=f"data/raw cannot be written: .*{remedy}") as error:
        fetch_month("green", JANUARY)
    assert os.strerror(number) in str(error.value) and "OSError" not in str(error.value)


def test_file_of_the_source_that_may_not_be_read_is_said_of_the_source(
    tmp_path, raw_dir, monkeypatch
):
    (tmp_path / "tlc").mkdir()
    there = tmp_path / "tlc" / NAME
    there.write_bytes(b"PAR1" * 20)
    monkeypatch.setenv("TLC_URL", str(tmp_path / "tlc"))

    def refuse(*_, **__):
        raise PermissionError(13, os.strerror(13), str(there))

    monkeypatch.setattr("shutil.copyfile", refuse)
    monkeypatch.setattr("fsspec.implementations.local.LocalFileSystem.get_file", refuse)
    with pytest.raises(SourceError, match="could not be had"):
        fetch_month("green", JANUARY)


@pytest.mark.parametrize(
    "link", ["../up.parquet", "%2e%2e/up.parquet", "/up.parquet", "//up.parquet"]
)
def test_list_of_a_folder_cannot_name_files_outside_it(fake_tlc, month_bytes, raw_dir, link):
    fake_tlc.answers = {
        f"/trip-data/{NAME}/": (200, f'<a href="{link}">a</a><a href="0.parquet">b</a>'.encode()),
        f"/trip-data/{NAME}/0.parquet": (200, month_bytes),
    }
    _, found = remote.folder_files(f"{fake_tlc.url}/trip-data/{NAME}")
    assert list(found) == ["0.parquet"]


def test_folder_that_another_process_fetched_meanwhile_is_taken(spark_folder, raw_dir, monkeypatch):
    first, check = [], sources._check_content

    def slowly(*args):
        if not first:
            first.append(None)
            first[0] = fetch_month("green", JANUARY)
        return check(*args)

    monkeypatch.setattr(sources, "_check_content", slowly)
    assert fetch_month("green", JANUARY) == first[0]


def test_part_that_changed_or_came_later_is_refused_and_a_mark_is_not(raw_dir, raw_month):
    folder = raw_dir / "green_tripdata_2021-01"
    folder.mkdir()
    pq.write_table(raw_month, folder / "0.parquet")
    first = fetch_month("green", JANUARY)
    (folder / "_SUCCESS").touch()
    assert fetch_month("green", JANUARY) == first
    pq.write_table(raw_month, folder / "1.parquet")
    with pytest.raises(SourceError, match="green_tripdata_2021-01 in data/raw changed"):
        fetch_month("green", JANUARY)
    (folder / "1.parquet").unlink()
    pq.write_table(raw_month.slice(1), folder / "0.parquet")
    with pytest.raises(SourceError, match="changed since it was stored"):
        fetch_month("green", JANUARY)


def test_republished_folder_is_kept_beside_the_old_one(raw_month, tmp_path, monkeypatch):
    folder = tmp_path / "public" / "trip-data" / NAME
    folder.mkdir(parents=True)
    pq.write_table(raw_month, folder / "0.parquet")
    monkeypatch.setenv("TLC_URL", str(tmp_path / "public"))
    old = fetch_month("green", JANUARY)
    pq.write_table(raw_month.slice(2), folder / "1.parquet")
    new = fetch_republished(old)
    assert new.path.name == "green_tripdata_2021-01.v2.parquet" and new.sha256 != old.sha256
    assert newest_edition("green", JANUARY) == new
    assert len(read_dataframe(old.path)) == 5 and len(read_dataframe(new.path)) == 8


@pytest.mark.parametrize("place", ["raw", "source"])
@pytest.mark.parametrize(
    "suffix", [suffix for suffix in sources.SUFFIXES if suffix not in sources.PUBLISHED and suffix]
)
def test_packed_month_is_found_by_its_name(tmp_path, monkeypatch, month_bytes, place, suffix):
    """What is in it decides how it is read, not the name."""
    base = tmp_path / "public" / "trip-data"
    folder = tmp_path / "home" / "data" / "raw" if place == "raw" else base
    for made in (base, folder):
        made.mkdir(parents=True, exist_ok=True)
    (folder / f"green_tripdata_2021-01{suffix}").write_bytes(month_bytes)
    monkeypatch.setenv("TLC_URL", str(base.parent))
    assert len(read_dataframe(fetch_month("green", JANUARY).path)) == 5


# --- a source that does not have it, or fails --------------------------------------------


@pytest.mark.parametrize("status", [403, 404])
def test_absent_month_is_not_published_yet_and_never_the_sample(fake_tlc, status, tmp_path):
    fake_tlc.default = (status, b"no")
    with pytest.raises(MonthNotPublishedError, match="green 2021-02 is not published yet"):
        fetch_months("green", [FEBRUARY])
    assert not (tmp_path / "home" / "data" / "sample").exists()
    # Each suffix in each layout once: an absent file is not asked for again.
    assert len(fake_tlc.asked) == len(set(fake_tlc.asked)) == 3 * len(sources.SUFFIXES)


def test_server_that_recovers_is_asked_again(fake_tlc, month_bytes):
    fake_tlc.answers[f"/trip-data/{NAME}"] = [(500, b""), (503, b""), (200, month_bytes)]
    assert fetch_month("green", JANUARY).path.read_bytes() == month_bytes


def test_server_that_goes_on_failing_is_an_error_and_not_the_sample(fake_tlc, tmp_path):
    fake_tlc.default = (500, b"")
    with pytest.raises(SourceError, match="500"):
        fetch_months("green", [JANUARY])
    assert not (tmp_path / "home" / "data" / "sample").exists()


def test_half_a_body_is_fetched_again(fake_tlc, month_bytes):
    fake_tlc.answers[f"/trip-data/{NAME}"] = [(200, month_bytes, "short"), (200, month_bytes)]
    assert fetch_month("green", JANUARY).path.read_bytes() == month_bytes


def test_half_a_body_never_has_the_final_name(fake_tlc, month_bytes, raw_dir):
    fake_tlc.put(month_bytes, NAME, 200, "short")
    with pytest.raises(SourceError, match=NAME):
        fetch_months("green", [JANUARY])
    assert list(raw_dir.iterdir()) == []


def test_file_shorter_than_its_source_says_is_refused(monkeypatch, raw_dir):
    """A CSV cut in the middle is still a CSV: only its size tells."""
    files = fsspec.filesystem("memory")
    files.pipe("/cut/trip-data/green_tripdata_2021-01.csv", b"a,b\n1,2\n3,4\n")
    monkeypatch.setenv("TLC_URL", "memory://cut")

    def cut(self, remote, local, **_):
        Path(local).write_bytes(b"a,b\n1,2\n")

    monkeypatch.setattr(type(files), "get_file", cut)
    with pytest.raises(SourceError, match="got 8 of 12 bytes"):
        fetch_month("green", JANUARY)
    assert list(raw_dir.iterdir()) == []


def test_parquet_cut_short_by_the_server_itself_is_refused(fake_tlc, month_bytes, raw_dir):
    fake_tlc.put(month_bytes[:-10])
    with pytest.raises(SourceError, match="half a Parquet file"):
        fetch_months("green", [JANUARY])
    assert list(raw_dir.iterdir()) == []


def test_web_page_in_place_of_a_month_is_refused_and_not_stored(fake_tlc, raw_dir):
    fake_tlc.put(b"\n<!DOCTYPE html><html>please log in</html>")
    with pytest.raises(SourceError, match="answered with a page"):
        fetch_months("green", [JANUARY])
    assert list(raw_dir.iterdir()) == []


def test_answer_without_bytes_is_refused_and_not_stored(fake_tlc, raw_dir):
    fake_tlc.put(b"")
    with pytest.raises(SourceError, match="answered without any bytes"):
        fetch_months("green", [JANUARY])
    assert list(raw_dir.iterdir()) == []


def test_file_given_for_the_folder_is_named(monkeypatch, tmp_path):
    path = tmp_path / NAME
    path.write_bytes(b"PAR1")
    monkeypatch.setenv("TLC_URL", str(path))
    with pytest.raises(SourceError, match=f"TLC_URL names a file: {path}; expected is the folder"):
        fetch_months("green", [JANUARY])


DOWNLOAD = "from taxi_duration.data.sources import *; " \
           "from taxi_duration.domain.months import Month; " \
           "fetch_months('green', [Month(2021, 1)])"  # fmt: skip


def test_download_killed_in_the_middle_leaves_no_month_and_runs_again(
    fake_tlc, month_bytes, raw_dir
):
    fake_tlc.put(month_bytes * 2000, NAME, 200, "stall")
    process = subprocess.Popen([sys.executable, "-c", DOWNLOAD])
    while not any(part.stat().st_size > 0 for part in raw_dir.glob(".*.part")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert [path.name for path in raw_dir.iterdir() if not path.name.endswith(".part")] == []
    fake_tlc.put(month_bytes)
    assert fetch_month("green", JANUARY).path.read_bytes() == month_bytes


def test_part_of_a_dead_download_is_removed_and_that_of_a_live_one_stays(
    fake_tlc, month_bytes, raw_dir
):
    dead, live = raw_dir / f".{NAME}.dead.part", raw_dir / f".{NAME}.live.part"
    for part in (dead, live):
        part.write_bytes(b"PAR1")
    os.utime(dead, (time.time() - 7200,) * 2)
    fake_tlc.put(month_bytes)
    fetch_month("green", JANUARY)
    assert (dead.exists(), live.exists()) == (False, True)


# --- asking without downloading ----------------------------------------------------------


def test_published_months_are_asked_for_one_by_one_and_nothing_is_downloaded(
    fake_tlc, month_bytes, raw_dir
):
    fake_tlc.put(month_bytes)
    fake_tlc.put(b"a,b", "green_tripdata_2021-03.csv")
    found = published_months("green", [MARCH, FEBRUARY, JANUARY])
    assert next(found) == MARCH
    assert not any("2021-01" in path or "2021-02" in path for path in fake_tlc.asked)
    assert list(found) == [JANUARY]
    assert set(fake_tlc.methods) == {"HEAD"}
    assert list(raw_dir.iterdir()) == []


def test_server_that_knows_no_head_is_asked_with_get(fake_tlc, month_bytes, raw_dir):
    fake_tlc.server.RequestHandlerClass.do_HEAD = lambda request: request.send_error(405)
    fake_tlc.put(month_bytes)
    assert list(published_months("green", [FEBRUARY, JANUARY])) == [JANUARY]
    assert list(raw_dir.iterdir()) == []


def test_folder_says_what_it_has(tmp_path, monkeypatch, month_bytes):
    folder = tmp_path / "public" / "trip-data"
    folder.mkdir(parents=True)
    (folder / NAME).write_bytes(month_bytes)
    monkeypatch.setenv("TLC_URL", str(folder.parent))
    assert list(published_months("green", [FEBRUARY, JANUARY])) == [JANUARY]


def test_without_network_stored_months_can_be_had(monkeypatch, dead_port, month_bytes, raw_dir):
    monkeypatch.setenv("TLC_URL", f"http://127.0.0.1:{dead_port}")
    with pytest.raises(SourceUnreachableError):
        list(published_months("green", [FEBRUARY, JANUARY]))
    (raw_dir / NAME).write_bytes(month_bytes)
    assert list(published_months("green", [FEBRUARY, JANUARY])) == [JANUARY]


def test_failing_server_does_not_say_that_a_month_is_missing(fake_tlc):
    fake_tlc.default = (500, b"")
    with pytest.raises(SourceError, match="500"):
        list(published_months("green", [JANUARY]))


# --- published anew ----------------------------------------------------------------------


@pytest.fixture(params=["http", "folder", "memory"])
def publish(request, fake_tlc, tmp_path, monkeypatch):
    """Puts bytes for January at a source of each kind."""
    folder = tmp_path / "public" / "trip-data"
    folder.mkdir(parents=True)
    if request.param == "folder":
        monkeypatch.setenv("TLC_URL", str(folder.parent))
    if request.param == "memory":
        monkeypatch.setenv("TLC_URL", "memory://anew")

    def put(body: bytes) -> None:
        fake_tlc.put(body)
        (folder / NAME).write_bytes(body)
        fsspec.filesystem("memory").pipe(f"/anew/trip-data/{NAME}", body)

    return put


@pytest.fixture
def other_bytes(raw_month, tmp_path) -> bytes:
    pq.write_table(raw_month.slice(0, 4), tmp_path / "other.parquet")
    return (tmp_path / "other.parquet").read_bytes()


def fetched_again(month):
    """What the loop does with a month that it has."""
    stored = newest_edition("green", month)
    return stored and fetch_republished(stored)


def test_month_published_anew_is_kept_beside_the_old_bytes(
    publish, month_bytes, other_bytes, raw_dir
):
    publish(month_bytes)
    old = fetch_month("green", JANUARY)
    before = {path.name: path.read_bytes() for path in raw_dir.iterdir()}
    assert fetched_again(JANUARY) is None
    publish(other_bytes)
    new = fetched_again(JANUARY)
    assert new.path.read_bytes() == other_bytes
    assert new.path.name == "green_tripdata_2021-01.v2.parquet"
    assert {name: (raw_dir / name).read_bytes() for name in before} == before
    assert newest_edition("green", JANUARY) == new == fetch_month("green", JANUARY)
    assert (new.url, new.data_source) == (old.url, "tlc")
    assert fetched_again(JANUARY) is None
    publish(month_bytes)  # back to what it was
    assert fetched_again(JANUARY).path.name == "green_tripdata_2021-01.v3.parquet"
    assert fetch_month("green", JANUARY).sha256 == old.sha256


@pytest.mark.parametrize("says", ["ETag", "Last-Modified"])
def test_one_mark_of_as_many_other_bytes_is_enough(fake_tlc, month_bytes, says):
    fake_tlc.says = {says}
    fake_tlc.put(month_bytes)
    fetch_month("green", JANUARY)
    middle = len(month_bytes) // 2
    same_size = month_bytes[:middle] + bytes([month_bytes[middle] ^ 1]) + month_bytes[middle + 1 :]
    fake_tlc.put(same_size)
    fake_tlc.modified = "Mon, 01 Feb 2021 00:00:00 GMT"
    assert fetched_again(JANUARY).path.read_bytes() == same_size


def test_same_bytes_uploaded_again_are_fetched_once_and_no_new_edition(
    fake_tlc, month_bytes, raw_dir
):
    fake_tlc.put(month_bytes)
    fetch_month("green", JANUARY)
    files = {path.name for path in raw_dir.iterdir()}
    fake_tlc.modified = "Mon, 01 Feb 2021 00:00:00 GMT"
    for _ in range(2):
        assert fetched_again(JANUARY) is None
    assert fake_tlc.methods.count("GET") == 2
    assert {path.name for path in raw_dir.iterdir()} == files


def test_bytes_that_are_compared_are_no_edition_meanwhile(
    publish, month_bytes, raw_dir, monkeypatch
):
    """A run beside the loop would take them, and find them gone."""
    publish(month_bytes)
    fetch_month("green", JANUARY)
    (raw_dir / f"{NAME}.source.json").unlink()
    seen, digests = [], sources.part_digests

    def looked_at(path):
        seen.append([each.name for each in sources._editions("green", JANUARY)])
        return digests(path)

    monkeypatch.setattr(sources, "part_digests", looked_at)
    assert fetched_again(JANUARY) is None
    assert len(seen) > 1 and all(names == [NAME] for names in seen)


def test_month_stored_before_marks_were_kept_is_compared_by_its_bytes(
    fake_tlc, month_bytes, other_bytes, raw_dir
):
    fake_tlc.put(month_bytes)
    fetch_month("green", JANUARY)
    (raw_dir / f"{NAME}.source.json").unlink()
    assert fetched_again(JANUARY) is None
    (raw_dir / f"{NAME}.source.json").unlink()
    fake_tlc.put(other_bytes)
    assert fetched_again(JANUARY).path.read_bytes() == other_bytes


def test_users_own_file_and_a_month_that_is_gone_stay_as_they_are(
    fake_tlc, month_bytes, other_bytes, raw_dir
):
    (raw_dir / NAME).write_bytes(month_bytes)
    fake_tlc.put(other_bytes)
    assert fetched_again(JANUARY) is None
    assert fetched_again(FEBRUARY) is None
    (raw_dir / NAME).unlink()
    (raw_dir / f"{NAME}.sha256").unlink()
    fetch_month("green", JANUARY)
    fake_tlc.answers.clear()
    assert fetched_again(JANUARY) is None


# --- no network at all -------------------------------------------------------------------


def test_without_network_the_sample_is_made_and_a_banner_says_so(monkeypatch, dead_port, caplog):
    monkeypatch.setenv("TLC_URL", f"http://127.0.0.1:{dead_port}")
    months = fetch_months("green", [JANUARY, FEBRUARY])
    assert [raw.data_source for raw in months] == ["sample", "sample"]
    assert [len(read_dataframe(raw.path)) > 200 for raw in months] == [True, True]
    assert sources.SAMPLE_BANNER in caplog.text


def test_unknown_host_is_no_network(monkeypatch):
    monkeypatch.setenv("TLC_URL", "http://no-such-host.invalid")
    assert fetch_months("green", [JANUARY])[0].data_source == "sample"


@pytest.mark.parametrize("status", [403, 502])
def test_proxy_that_lets_nothing_out_is_no_network(fake_tlc, monkeypatch, status):
    # Answers to CONNECT are the proxy's own, so a 403 does not say that the month is absent.
    handler = fake_tlc.server.RequestHandlerClass
    handler.do_CONNECT = lambda request: request.send_error(status)
    monkeypatch.setenv("https_proxy", fake_tlc.url)
    monkeypatch.setenv("TLC_URL", "https://months.invalid")
    assert fetch_months("green", [JANUARY])[0].data_source == "sample"


def test_stored_months_and_the_sample_are_never_mixed(monkeypatch, dead_port, month_bytes, raw_dir):
    (raw_dir / NAME).write_bytes(month_bytes)
    monkeypatch.setenv("TLC_URL", f"http://127.0.0.1:{dead_port}")
    months = fetch_months("green", [JANUARY, FEBRUARY])
    assert [raw.data_source for raw in months] == ["sample", "sample"]
    assert fetch_months("green", [JANUARY])[0].data_source == "tlc"


def test_data_tlc_forbids_the_sample(monkeypatch, dead_port):
    monkeypatch.setenv("TLC_URL", f"http://127.0.0.1:{dead_port}")
    monkeypatch.setenv("DATA", "tlc")
    with pytest.raises(SourceUnreachableError, match="no connection"):
        fetch_months("green", [JANUARY])


def test_data_sample_asks_for_it_and_nobody_else(fake_tlc, month_bytes, monkeypatch):
    fake_tlc.put(month_bytes)
    monkeypatch.setenv("DATA", "sample")
    assert fetch_months("green", [JANUARY])[0].data_source == "sample"
    assert fake_tlc.asked == []


def test_service_without_a_sample_is_said_and_without_network_that(monkeypatch, dead_port):
    monkeypatch.setenv("DATA", "sample")
    with pytest.raises(SettingError, match=r"no fhv 2021-01: .* allowed: green, yellow"):
        fetch_months("fhv", [JANUARY])
    monkeypatch.setenv("DATA", "auto")
    monkeypatch.setenv("TLC_URL", f"http://127.0.0.1:{dead_port}")
    with pytest.raises(SourceUnreachableError, match="no connection"):
        fetch_months("fhv", [JANUARY])


def test_sample_is_the_same_file_again_and_one_for_each_size(monkeypatch):
    small, again = (fetch_months("green", [JANUARY], "sample")[0] for _ in range(2))
    monkeypatch.setenv("SAMPLE_ROWS", "400")
    large = fetch_months("green", [JANUARY], "sample")[0]
    assert small == again
    assert small.path != large.path and small.path.name == large.path.name == NAME


def test_months_that_are_missing_for_good_are_left_out_and_named(monkeypatch):
    monkeypatch.setenv("DATA", "auto")
    asked = [JANUARY, FEBRUARY, MARCH]
    said, there = [], [JANUARY, MARCH]
    monkeypatch.setattr(sources, "published_months", lambda *_: iter(there))
    assert existing_months("green", asked, said.append) == there
    assert said == ["not published: 2021-02"]

    def unreachable(*_):
        raise SourceUnreachableError("no route")

    monkeypatch.setattr(sources, "published_months", unreachable)
    assert existing_months("green", asked, said.append) == asked
    monkeypatch.setenv("DATA", "tlc")
    with pytest.raises(SourceUnreachableError):
        existing_months("green", asked, said.append)
