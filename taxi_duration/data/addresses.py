"""Addresses of files that are not on this machine, as `TLC_URL` and `score --to` take them."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

import fsspec

from taxi_duration import environment
from taxi_duration.errors import SettingError

READ = "a folder, https://HOST, s3://BUCKET, or another address that fsspec reads"
WRITTEN = "s3://BUCKET/KEY, a file's path, or another address that fsspec writes"
GONE = ("memory", "local-memory")  # with this process
NEED_HOST = ("http", "https", "s3", "s3a", "gs", "gcs", "ftp", "sftp", "ssh", "abfs", "az")
HALF = re.compile(r"([a-zA-Z0-9]+):/?(?!/)")  # of an address; a path with a colon looks alike


def check_address(name: str, address: str, allowed: str) -> None:
    """Refuse what can be no address, before anybody is asked.

    Args:
        name: of the setting or option.
        address: with a scheme, or a path of this machine.
        allowed: READ or WRITTEN.
    Raises:
        SettingError: says what was found and what is allowed.
    """
    problem = _problem(address) or (_problem_of_writing(address) if allowed == WRITTEN else None)
    if problem:
        address = re.sub(r"(?<=//)[^/\s]*@", "", address)  # a password
        raise SettingError(f"{name} is {address!r}: {problem}; it may be {allowed}")


def check_source() -> None:
    """Refuse a `TLC_URL` that can be no address; raises a SettingError."""
    if given := environment.setting("TLC_URL"):
        check_address("TLC_URL", given, READ)


def _problem(address: str) -> str | None:
    if "://" not in address:
        half = HALF.match(address)
        is_half = half is not None and half[1].lower() in NEED_HOST
        return "after the scheme come two slashes" if is_half else None
    scheme = _scheme(address)
    if not scheme:
        return "there is no scheme before the slashes"
    try:
        fsspec.get_filesystem_class(scheme)
        parts = urlsplit(address.rpartition("::")[2])
        host, _ = parts.hostname, parts.port
    except (ImportError, ValueError) as error:  # a library, a scheme, a port, an open bracket
        return str(error)
    return "there is no host or bucket in it" if scheme in NEED_HOST and not host else None


def _problem_of_writing(address: str) -> str | None:
    scheme = _scheme(address)
    if not scheme:
        path = Path(address)
        if path.is_dir():
            return "that is a folder"
        return None if path.parent.is_dir() else f"there is no folder {path.parent}"
    if scheme in GONE:
        return "what is written there is gone when this command has ended"
    _, _, key = address.partition("://")[2].partition("/")
    is_bucket = scheme in NEED_HOST and not key
    if is_bucket or address.endswith("/"):
        return "it names no file"
    return None


def _scheme(address: str) -> str:
    """The scheme, of addresses behind each other (`simplecache::s3://`) the last one's."""
    before, mark, _ = address.partition("://")
    return before.rpartition("::")[2].lower() if mark else ""
