"""Where months come from: data/raw first, then `TLC_URL`, and the sample only without network."""

from __future__ import annotations

import asyncio
import logging
import socket
from dataclasses import dataclass
from pathlib import Path

import fsspec
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from taxi_duration import config
from taxi_duration.errors import (
    MonthNotPublishedError,
    SourceError,
    SourceUnreachableError,
)
from taxi_duration.files import atomic_path, sha256_file, write_bytes
from taxi_duration.months import Month
from taxi_duration.sample import write_sample_month

log = logging.getLogger(__name__)

SUFFIXES = (".parquet", ".csv.gz", ".csv")
ATTEMPTS = 4
SAMPLE_BANNER = """\
**********************************************************************
*  NO NETWORK: training on the built-in SAMPLE, not on real trips.   *
*  Figures below describe generated data. For real months give       *
*  TLC_URL (an address or a folder); DATA=tlc forbids the sample.    *
**********************************************************************"""


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


def fetch_months(service: str, months: list[Month]) -> list[RawMonth]:
    """Return the files of all months, all real or all from the sample.

    Raises:
        MonthNotPublishedError: the source answers and does not have a month.
        SourceUnreachableError: no network, and `DATA=tlc` forbids the sample.
        SourceError: the source's file cannot be used.
    """
    mode = config.data_mode()
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
    folder = config.data_dir() / "raw"
    stem = f"{service}_tripdata_{month}"
    for suffix in SUFFIXES:
        path = folder / (stem + suffix)
        if path.exists():
            return RawMonth(service, month, path, _checked_sha256(path), "tlc", _source_of(path))
    for suffix in SUFFIXES:
        url = f"{config.tlc_url()}/trip-data/{stem}{suffix}"
        path = folder / (stem + suffix)
        if download(url, path):
            return RawMonth(service, month, path, _record_checksum(path, url), "tlc", url)
    raise MonthNotPublishedError(
        f"{service} {month} is not published yet: {config.tlc_url()} has no {stem}"
        f"{{{','.join(SUFFIXES)}}} (TLC publishes a month about two months later)"
    )


def download(url: str, path: Path) -> bool:
    """Download one file, with retries and a progress bar; False when the source has none.

    Raises:
        SourceUnreachableError: no connection, after retries.
        SourceError: the source fails in another way, after retries.
    """
    retries = Retrying(
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_exponential_jitter(initial=0.2, max=5),
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
    size = files.info(remote)["size"]
    with atomic_path(path) as part:
        files.get_file(remote, str(part), callback=_progress(path.name))
        if size is not None and part.stat().st_size != size:
            raise OSError(f"got {part.stat().st_size:,} of {size:,} bytes")


def _options(url: str) -> dict[str, object]:
    if url.startswith("http"):
        return {"client_kwargs": {"trust_env": True}, "skip_instance_cache": True}
    return {"anon": False} if url.startswith("s3") else {}


def _progress(name: str):
    from fsspec.callbacks import TqdmCallback

    return TqdmCallback(
        tqdm_kwargs={"desc": name, "unit": "B", "unit_scale": True, "leave": False, "delay": 1}
    )


def _status(error: BaseException) -> int | None:
    """HTTP status of an error, also from inside an S3 response."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        return response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return getattr(error, "status", None)


def _is_absent(error: BaseException) -> bool:
    # The public bucket answers 403, not 404, for a month that is not there.
    return isinstance(error, FileNotFoundError) or _status(error) in (403, 404)


def _is_unreachable(error: BaseException | None) -> bool:
    """No name, no route, refused or silent; an answer of any kind is not this."""
    while error is not None:
        name = type(error).__name__
        if isinstance(error, (ConnectionError, socket.gaierror, asyncio.TimeoutError)) or name in (
            "ClientConnectorError",
            "ClientConnectorDNSError",
            "EndpointConnectionError",
            "ConnectTimeoutError",
            "FSTimeoutError",
        ):
            return True
        error = error.__cause__ or error.__context__
    return False


def _is_worth_retrying(error: BaseException) -> bool:
    if _is_absent(error) or isinstance(error, (ValueError, ImportError, PermissionError)):
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


def _record_checksum(path: Path, url: str | None) -> str:
    digest = sha256_file(path)
    # The format of `sha256sum`; the address is in a comment line, which `sha256sum -c` skips.
    lines = ([f"# {url}"] if url else []) + [f"{digest}  {path.name}", ""]
    write_bytes(_checksum_path(path), "\n".join(lines).encode())
    return digest


def _checked_sha256(path: Path) -> str:
    """Digest of a raw file; raw files are never edited, so a changed one is an error."""
    if not _checksum_path(path).exists():
        return _record_checksum(path, None)
    lines = _checksum_path(path).read_text().splitlines()
    recorded = next(line for line in lines if not line.startswith("#")).split()[0]
    found = sha256_file(path)
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
    path = config.data_dir() / "sample" / f"{service}_tripdata_{month}.parquet"
    rows = config.sample_rows()
    if not path.exists() or rows is not None:
        with atomic_path(path) as part:
            write_sample_month(part, service, str(month), rows)
    return RawMonth(service, month, path, sha256_file(path), "sample", None)
