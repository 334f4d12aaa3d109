"""Asking a source for a file: whether it is there and what marks it, without its bytes."""

from __future__ import annotations

import errno
import hashlib
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import unquote

import fsspec
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from taxi_duration.errors import SourceError, SourceUnreachableError
from taxi_duration.files import DISK_FULL

T = TypeVar("T")

ATTEMPTS = 4
CONNECT_S, SILENCE_S = 10, 60  # seconds to wait for a connection, and for the next bytes
NO_ROUTE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN)
SHOWN = 5  # names in a message
NO_HEAD = (405, 501)  # of servers that answer GET alone
# By name, so that neither aiohttp nor botocore is imported for months that lie in a folder.
NO_CONNECTION = {
    "ClientConnectorDNSError",
    "ClientHttpProxyError",
    "ClientProxyConnectionError",
    "ConnectTimeoutError",
    "ConnectionTimeoutError",
    "EndpointConnectionError",
    "ProxyConnectionError",
    "ProxyError",
}


@dataclass(frozen=True)
class Stamp:
    """What a source says of a file without sending it; None where it does not say.

    Args:
        url: of the file.
        size: bytes.
        etag, modified: as the source writes them.
        is_folder: it is a folder; its size is that of all files, its etag over all their marks.
    """

    url: str
    size: int | None = None
    etag: str | None = None
    modified: str | None = None
    is_folder: bool = False

    def marks(self) -> tuple[int | str | None, ...]:
        """Size, ETag and time of change: what differs when the bytes do."""
        return self.size, self.etag, self.modified


def ask_source(url: str) -> Stamp | None:
    """Return what the source says of a file, None when it has none.

    Raises:
        SourceUnreachableError, SourceError: as `with_retries`.
    """
    return with_retries(url, _ask_http if url.startswith("http") else _ask_files, url)


def with_retries(url: str, get: Callable[..., T], *args: Any) -> T | None:
    """Return what a request to a source returns, None when the source has no such file.

    Raises:
        SourceUnreachableError: no connection, after retries.
        SourceError: the source fails in another way, after retries.
    """
    retries = Retrying(
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_exponential_jitter(multiplier=0.2, max=5),
        retry=retry_if_exception(_is_worth_retrying),
        reraise=True,
    )
    try:
        return retries(get, *args)
    except SourceError:
        raise
    except Exception as error:
        if _is_absent(error):
            return None
        if _is_unreachable(error):
            raise SourceUnreachableError(f"no connection to {url}: {error}") from error
        raise SourceError(f"{url} could not be had: {error!r}") from error


def open_source(url: str) -> tuple[Any, str]:
    """Return fsspec's file system of an address, and the file's name in it."""
    # A kept file system would also keep its listings, and never see a month appear.
    if not url.startswith("http"):
        return fsspec.url_to_fs(url, skip_instance_cache=True)
    from aiohttp import ClientTimeout

    # A large month may take long; only silence is an error.
    timeout = ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=SILENCE_S)
    options = {"trust_env": True, "timeout": timeout}
    return fsspec.url_to_fs(url, client_kwargs=options, skip_instance_cache=True)


def names_in(folders: Sequence[str]) -> list[set[str]] | None:
    """Return the names in each folder of a source; none where there is no such folder.

    None when they cannot be listed: over HTTP, or without permission.

    Raises:
        SourceUnreachableError, SourceError: as `with_retries`.
    """
    if folders[0].startswith("http"):
        return None
    return with_retries(folders[0], _list, folders)


def _list(folders: Sequence[str]) -> list[set[str]]:
    files, _ = open_source(folders[0])  # once: a client of S3 takes a third of a second
    listed = []
    for folder in folders:
        try:
            found = files.ls(files._strip_protocol(folder), detail=False)
        except (FileNotFoundError, NotADirectoryError):
            found = []
        listed.append({Path(name.rstrip("/")).name for name in found})
    return listed


def present(urls: Sequence[str]) -> list[str]:
    """Return those of a source's addresses at which it has something; all of them over HTTP.

    Raises:
        SourceUnreachableError, SourceError: as `with_retries`.
    """
    if urls[0].startswith("http"):
        return list(urls)
    return with_retries(urls[0], _present, urls) or []


def _present(urls: Sequence[str]) -> list[str]:
    files, _ = open_source(urls[0])
    found = []
    for url in urls:
        with suppress(
            FileNotFoundError, NotADirectoryError, PermissionError
        ):  # 403: as in `_is_absent`
            files.info(files._strip_protocol(url))
            found.append(url)
    return found


def _ask_files(url: str) -> Stamp:
    files, name = open_source(url)
    info = files.info(name)
    if info["type"] == "directory":
        return _folder_stamp(url, files, name)
    etag = info.get("ETag") or info.get("etag")
    return Stamp(url, info.get("size"), etag, _changed(info))


def _changed(info: dict[str, Any]) -> str | None:
    changed = (info[key] for key in ("LastModified", "mtime", "updated", "created") if key in info)
    return next(map(str, changed), None)


def _folder_stamp(url: str, files: Any, root: str) -> Stamp:
    found = files.find(root, detail=True)
    marks = [(name, info.get("size"), info.get("ETag"), _changed(info))
             for name, info in sorted(found.items())]  # fmt: skip
    sizes = [info.get("size") for info in found.values()]
    size = None if None in sizes else sum(sizes)
    return Stamp(url, size, hashlib.sha256(repr(marks).encode()).hexdigest(), is_folder=True)


def folder_files(url: str) -> tuple[Any, dict[str, str]]:
    """Return fsspec's file system of a folder, and its files' names there by those within it."""
    files, root = open_source(url)
    root = root.rstrip("/") + "/"
    names = (name for name in files.find(root) if name.startswith(root))
    cut = len(root)
    inside = {unquote(n[cut:]) if url.startswith("http") else n[cut:]: n for n in names}
    # A page that lists a folder may name anything: only what is below it is taken.
    below = {within: PurePosixPath(within) for within in inside if within}
    return files, {
        within: inside[within]
        for within, path in below.items()
        if not path.is_absolute() and ".." not in path.parts
    }


def _ask_http(url: str) -> Stamp:
    # fsspec's `info` would turn every failure, no network included, into "file not found".
    import requests

    for method in ("HEAD", "GET"):
        with requests.request(
            method, url, timeout=(CONNECT_S, SILENCE_S), stream=True, allow_redirects=True,
            headers={"Accept-Encoding": "identity"},  # the size of the file, not of its packing
        ) as response:  # fmt: skip
            if method == "HEAD" and response.status_code in NO_HEAD:
                continue
            response.raise_for_status()
            if response.url.endswith("/") and not url.endswith("/"):  # a server's list of a folder
                return _folder_stamp(url, *open_source(url + "/"))
            size = response.headers.get("Content-Length", "")
            return Stamp(
                url, int(size) if size.isdecimal() else None,
                response.headers.get("ETag"), response.headers.get("Last-Modified"),
            )  # fmt: skip
    raise AssertionError("GET returns or raises")


# --- kinds of failure --------------------------------------------------------------------


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and what it was raised from, down to the first cause."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _status(error: BaseException) -> int | None:
    """HTTP status behind an error, also from inside an S3 response; not a proxy's own."""
    for cause in _causes(error):
        response: Any = getattr(cause, "response", None)
        if isinstance(response, dict):
            return response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if hasattr(response, "status_code"):
            return response.status_code
        if type(cause).__name__ != "ClientHttpProxyError" and hasattr(cause, "status"):
            return cause.status
    return None


def _is_absent(error: BaseException) -> bool:
    # The public bucket answers 403, not 404, for a month that is not there.
    return isinstance(error, (FileNotFoundError, NotADirectoryError)) or _status(error) in (
        403,
        404,
    )


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
    if getattr(error, "errno", None) in DISK_FULL:
        return False
    status = _status(error)
    return status is None or status >= 500 or status in (408, 429)


def check_layout(base: str, layouts: Sequence[str]) -> None:
    """Refuse a folder or bucket that has no month at all where months are looked for.

    That is a mistake in `TLC_URL`; to wait for a month to be published would be to wait for ever.

    Args:
        base: as `TLC_URL`; one that cannot be listed, as over HTTP, is not refused.
        layouts: what may stand between the base and a month's file, with `{service}`.
    Raises:
        SourceError: says what the base holds.
    """
    if base.startswith("http"):
        return
    files, root = open_source(base)
    try:
        found = sorted(Path(name).name for name in files.ls(root, detail=False))
    except FileNotFoundError:
        if "file" not in files.protocol:  # an object store has no folders, only files in them
            return
        raise SourceError(f"TLC_URL names a folder that does not exist: {base}") from None
    except PermissionError:
        return
    if files.isfile(root):
        raise SourceError(f"TLC_URL names a file: {base}; expected is the folder that holds it")
    if Path(layouts[0]).name in found:  # TLC's own folder: its months may still be to come
        return
    folders = [layout.format(service="*") for layout in layouts]
    there = (name for folder in folders for name in files.glob(f"{root}{folder}*"))
    if any("_tripdata_" in Path(name).name.lower() for name in there):
        return
    holds = ", ".join(found[:SHOWN]) or "nothing"
    raise SourceError(
        f"TLC_URL has no month of any service: {base} holds {holds}; a "
        "file such as green_tripdata_2021-01.parquet is looked for in it, in trip-data/ and in "
        "a folder of the service's name"
    )
