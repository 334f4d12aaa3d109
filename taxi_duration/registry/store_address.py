"""Addresses of MLflow's stores, as `MLFLOW_TRACKING_URI` names them."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from taxi_duration import environment

SERVERS = ("http", "https")
USUAL_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
DATABASES = (*USUAL_PORTS, "sqlite")
CLOUD = "databricks"  # also without a colon
ALLOWED = "http://HOST:5000, sqlite:////FOLDER/FILE, or unset it: runs then go to tracking/"
ALLOWS_FOLDERS = "MLFLOW_ALLOW_FILE_STORE"  # MLflow's own way back to folders


def noted_place(location: Path) -> str | None:
    """Return where tracking/ lay when it was last used; None without a note that says it.

    A full disk leaves an empty note. The experiment's own address says it then.
    """
    try:
        noted = location.read_text(encoding="utf-8")
    except (FileNotFoundError, ValueError):
        return None
    return noted if noted.startswith("/") and "\0" not in noted else None


def kind_of_store(address: str) -> str:
    """The scheme of an address without a driver, such as `http` or `postgresql`."""
    return CLOUD if address == CLOUD else urlsplit(address).scheme.partition("+")[0]


def without_password(address: str) -> str:
    """An address as it may be shown: without user and password."""
    head, mark, rest = address.partition("://")
    place, slash, path = rest.partition("/")
    return f"{head}{mark}{place.rpartition('@')[2]}{slash}{path}"


def problem_of_address(address: str) -> str | None:
    """Return why MLflow could have no store at this address, None when it could."""
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError as error:  # the port is no number, or a bracket is open
        return str(error)
    kind = kind_of_store(address)
    if kind == "file" or (not kind and ":" not in address):
        is_allowed = environment.setting(ALLOWS_FOLDERS)
        return None if is_allowed else "a folder, in which MLflow keeps no runs any more"
    if kind not in (*SERVERS, *DATABASES, CLOUD):
        return "no address of a store"
    if kind in SERVERS and not host:
        return "an address without a host"
    if kind == "sqlite" and len(parts.path) < 2:
        return "an address without a file"
    return None
