"""Where months come from: data/raw first, then `TLC_URL`, and the sample only without network."""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import time
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

import fsspec
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from taxi_duration import environment
from taxi_duration.data import sample
from taxi_duration.domain.months import Month
from taxi_duration.errors import (
    MonthNotPublishedError,
    SourceError,
    SourceUnreachableError,
    WouldActError,
)
from taxi_duration.files import atomic_path, sha256_file, write_bytes

log = logging.getLogger(__name__)

SUFFIXES = (".parquet", ".csv.gz", ".csv")
ATTEMPTS = 4
CONNECT_S, SILENCE_S = 10, 60  # seconds to wait for a connection, and for the next bytes
NO_ROUTE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN)
LEFTOVER_S = 3600  # a part that has not grown for so long belongs to nobody
# By name, so that neither aiohttp nor botocore is imported for months that lie in a folder.
NO_CONNECTION = {
    "ClientConnectorDNSError",
    "ClientHttpProxyError",
    "ClientProxyConnectionError",
    "ConnectTimeoutError",
    "ConnectionTimeoutError",
    "EndpointConnectionError",
    "ProxyConnectionError",
}
SAMPLE_BANNER = """\
**********************************************************************
*  SAMPLE: no network, or DATA=sample. This trains on generated      *
*  trips, not on real ones, and the figures describe those. For real *
*  months give TLC_URL (an address or a folder); DATA=tlc forbids    *
*  the sample.                                                       *
**********************************************************************"""

_ONLY_LOOKING: ContextVar[bool] = ContextVar("only looking", default=False)


@contextlib.contextmanager
def without_downloads() -> Iterator[None]:
    """Raise a WouldActError for a while instead of downloading anything."""
    before = _ONLY_LOOKING.set(True)
    try:
        yield
    finally:
        _ONLY_LOOKING.reset(before)


@dataclass(frozen=True)
class RawMonth:
    """A month's file on this machine.

    `data_source` is `tlc` or `sample`; `url` is where the file came from, None when the
    user put it into data/raw.
    """

    service: str
    month: Month
    path: Path
    sha256: str
    data_source: str
    url: str | None


def fetch_months(service: str, months: list[Month], mode: str | None = None) -> list[RawMonth]:
    """Return the files of all months, all real or all from the sample.

    Args:
        service: green, yellow, fhv or fhvhv.
        months: in time order.
        mode: `auto`, `tlc` or `sample`; what `DATA` says when None.
    Raises:
        MonthNotPublishedError: the source answers and does not have a month.
        SourceUnreachableError: no network, and `DATA=tlc` forbids the sample.
        SourceError: the source's file cannot be used.
    """
    mode = mode or environment.data_mode()
    if mode == "sample":
        return [_sample(service, month) for month in months]
    try:
        return [fetch_month(service, month) for month in months]
    except SourceUnreachableError:
        if mode == "tlc":
            raise
        log.warning("\n%s", SAMPLE_BANNER)
        return [_sample(service, month) for month in months]


def fetch_month(service: str, month: Month) -> RawMonth:
    """Return a real month from data/raw, downloading it when it is not there.

    Raises:
        MonthNotPublishedError, SourceUnreachableError, SourceError: as `fetch_months`.
    """
    folder = environment.data_dir() / "raw"
    stem = f"{service}_tripdata_{month}"
    for suffix in SUFFIXES:
        path = folder / (stem + suffix)
        if path.exists():
            return RawMonth(service, month, path, _checked_sha256(path), "tlc", _source_of(path))
    for suffix in SUFFIXES:
        url = f"{environment.tlc_url()}/trip-data/{stem}{suffix}"
        path = folder / (stem + suffix)
        if download(url, path):
            return RawMonth(service, month, path, _checked_sha256(path), "tlc", url)
    raise MonthNotPublishedError(
        f"{service} {month} is not published yet: {environment.tlc_url()} has no {stem}"
        f"{{{','.join(SUFFIXES)}}} (TLC publishes a month about two months later)"
    )


def download(url: str, path: Path) -> bool:
    """Download one file, with retries and a progress bar; False when the source has none.

    Raises:
        SourceUnreachableError: no connection, after retries.
        SourceError: the source fails in another way, after retries.
    """
    if _ONLY_LOOKING.get():
        raise WouldActError(f"fetch {path.name}, and decide then")
    _remove_leftovers(path)
    retries = Retrying(
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_exponential_jitter(multiplier=0.2, max=5),
        retry=retry_if_exception(_is_worth_retrying),
        reraise=True,
    )
    try:
        retries(_download_once, url, path)
    except Exception as error:
        if _is_absent(error):
            _check_source_exists(url)
            return False
        if _is_unreachable(error):
            raise SourceUnreachableError(f"no connection to {url}: {error}") from error
        raise SourceError(f"{url} could not be downloaded: {error!r}") from error
    return True


def _download_once(url: str, path: Path) -> None:
    files, remote = fsspec.url_to_fs(url, **_options(url))
    # Over HTTP aiohttp compares the body with its Content-Length itself, and fsspec's `info`
    # would turn every failure, no network included, into "file not found".
    size = None if url.startswith("http") else files.info(remote)["size"]
    with atomic_path(path) as part:
        files.get_file(remote, str(part), callback=_progress(path.name))
        if size is not None and part.stat().st_size != size:
            raise OSError(f"got {part.stat().st_size:,} of {size:,} bytes")
        _check_content(part, url)
        # Before the rename: a month under its final name always has its checksum.
        _record_checksum(path, sha256_file(part), url)


def _remove_leftovers(path: Path) -> None:
    """Remove parts of this file that killed downloads left; a live one grows all the time."""
    dead = time.time() - LEFTOVER_S
    for part in path.parent.glob(f".{path.name}.*.part"):
        with contextlib.suppress(FileNotFoundError):  # a download that ended in between
            if part.stat().st_mtime < dead:
                part.unlink()


def _check_content(part: Path, url: str) -> None:
    """Refuse a web page that a portal or proxy sent for the file, and half a Parquet file."""
    with part.open("rb") as file:
        head = file.read(64)
        file.seek(max(0, part.stat().st_size - 4))
        tail = file.read()
    if head.lstrip()[:1] == b"<":
        raise SourceError(f"{url} answered with a page ({head[:40]!r}…), not with a file of trips")
    if head[:4] == b"PAR1" and tail != b"PAR1":
        raise OSError(f"got half a Parquet file, it ends in {tail!r}")


def _options(url: str) -> dict[str, object]:
    # A kept file system would also keep its listings, and never see a month appear.
    if not url.startswith("http"):
        return {"skip_instance_cache": True}
    from aiohttp import ClientTimeout

    # A large month may take long; only silence is an error.
    timeout = ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=SILENCE_S)
    return {"client_kwargs": {"trust_env": True, "timeout": timeout}, "skip_instance_cache": True}


def _progress(name: str):
    from fsspec.callbacks import TqdmCallback

    return TqdmCallback(
        tqdm_kwargs={"desc": name, "unit": "B", "unit_scale": True, "leave": False, "delay": 1}
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and what it was raised from, down to the first cause."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _status(error: BaseException) -> int | None:
    """HTTP status behind an error, also from inside an S3 response; not a proxy's own."""
    for cause in _causes(error):
        response = getattr(cause, "response", None)
        if isinstance(response, dict):
            return response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if type(cause).__name__ != "ClientHttpProxyError" and hasattr(cause, "status"):
            return cause.status
    return None


def _is_absent(error: BaseException) -> bool:
    # The public bucket answers 403, not 404, for a month that is not there.
    return isinstance(error, FileNotFoundError) or _status(error) in (403, 404)


def _is_unreachable(error: BaseException) -> bool:
    """No name, no route, refused, or a proxy that lets nothing out; an answer is not this."""
    return any(
        isinstance(cause, (ConnectionRefusedError, socket.gaierror))
        or getattr(cause, "errno", None) in NO_ROUTE
        or type(cause).__name__ in NO_CONNECTION
        for cause in _causes(error)
    )


def _is_worth_retrying(error: BaseException) -> bool:
    if _is_absent(error) or isinstance(
        error, (ValueError, ImportError, PermissionError, SourceError)
    ):
        return False
    status = _status(error)
    return status is None or status >= 500 or status in (408, 429)


def _check_source_exists(url: str) -> None:
    """A folder that is not there is a mistake in `TLC_URL`, not an unpublished month."""
    base = url.rsplit("/trip-data/", 1)[0].removeprefix("file://")
    if "://" not in base and not Path(base).is_dir():
        raise SourceError(f"TLC_URL names a folder that does not exist: {base}")


# --- checksums beside raw files --------------------------------------------------------------


def _checksum_path(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _record_checksum(path: Path, digest: str, url: str | None) -> None:
    # The format of `sha256sum`; the address is in a comment line, which `sha256sum -c` skips.
    lines = ([f"# {url}"] if url else []) + [f"{digest}  {path.name}", ""]
    write_bytes(_checksum_path(path), "\n".join(lines).encode())


def _checked_sha256(path: Path) -> str:
    """Digest of a raw file; raw files are never edited, so a changed one is an error."""
    found = sha256_file(path)
    if not _checksum_path(path).exists():
        _record_checksum(path, found, None)
    lines = _checksum_path(path).read_text().splitlines()
    recorded = next((line.split()[0] for line in lines if line.strip() and line[0] != "#"), "none")
    if found != recorded:
        raise SourceError(
            f"{path.name} in data/raw changed since it was stored (SHA-256 {found[:12]}…, "
            f"recorded {recorded[:12]}…); delete it and its .sha256 to fetch it again"
        )
    return found


def _source_of(path: Path) -> str | None:
    first = _checksum_path(path).read_text().split("\n", 1)[0]
    return first.removeprefix("# ") if first.startswith("# ") else None


def _sample(service: str, month: Month) -> RawMonth:
    """The month from the project's own generator, kept apart from real months."""
    rows = environment.sample_rows()
    # One folder for each size and each version of the generator: two runs at once never
    # change a file under each other, and an old sample never passes for a new one.
    kind = f"{rows or 'default'}-{sha256_file(sample.__file__)[:8]}"
    path = environment.data_dir() / "sample" / kind / f"{service}_tripdata_{month}.parquet"
    if not path.exists():
        with atomic_path(path) as part:
            sample.write_sample_month(part, service, str(month), rows)
    return RawMonth(service, month, path, sha256_file(path), "sample", None)
