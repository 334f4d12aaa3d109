"""What a failure of MLflow's store means, in one line with what to do."""

from __future__ import annotations

import re
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from taxi_duration import environment
from taxi_duration.files import DISK_FULL

SQLITE_PATH = 504  # most bytes of a database's path: SQLite takes 512, its journal's included
SHORTER = "name a shorter place (TAXI_HOME)"
START_IT = "start it, or unset MLFLOW_TRACKING_URI: runs then go to tracking/"
MORE_ROOM = "free some room and give the same command again"
RESTORE = "restore tracking/mlflow.db, or move it away: the next run makes an empty one"
ASK_DOCTOR = "`python pipeline.py doctor` says what to do"
OTHER_SCHEMA = re.compile(r"database schema \(found version (\w+), but expected (\w+)\)")
# What SQLite says, and what it takes; a full disk is an I/O error for a file that others map.
REMEDIES = {
    "readonly database": "let tracking/ be written: it is mounted read-only, or another user's",
    "disk is full": MORE_ROOM,
    "disk I/O error": f"the disk is full or broken: {MORE_ROOM}",
    "no such table": f"the file is another program's, or half a copy: {RESTORE}",
    "unable to open": ASK_DOCTOR,
    "not a database": RESTORE,
    "malformed": RESTORE,
    "database is locked": "let the program finish that holds it, or end it: "
    "`python pipeline.py doctor` looks who it is",
}

# What MLflow and the libraries of clouds say of a server and of artifacts, and what it takes.
OF_PAGES = "mlflow-artifacts:"  # the scheme of what only a server keeps
RENAME = "rename the experiment there (`make mlflow`), and the next run makes one of its own"
SERVED = {
    "mlflow-artifacts URI": f"it was made in MLflow's own pages: {RENAME}",
    "/mlflow/logged-models": "the server's MLflow is older than 3 and cannot register a model; "
    "update it, or unset MLFLOW_TRACKING_URI: runs then go to tracking/",
    "Unable to locate credentials": "artifacts go to S3: AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY, or `aws configure`",
}


def reason_of(error: BaseException) -> str:
    """Say in one line why a call of MLflow's failed, and what to do where that is known."""
    first = ""
    for cause in _causes(error):
        if said := _of_the_database(cause):
            remedy = next((do for part, do in REMEDIES.items() if part in said), "")
            if remedy == ASK_DOCTOR and is_too_long(environment.tracking_dir() / "mlflow.db"):
                remedy = f"the path is too long for SQLite: {SHORTER}"
            return f"{said}; {remedy}" if remedy else said
        if isinstance(cause, OSError) and cause.errno in DISK_FULL:
            return f"the disk is full; {MORE_ROOM}"
        if isinstance(cause, (ConnectionError, socket.gaierror)) and cause.strerror:
            return f"no connection: {cause.strerror}; {START_IT}"
        if other := OTHER_SCHEMA.search(str(cause)):
            return f"its schema {other[1]} is another MLflow's, not {other[2]}; {ASK_DOCTOR}"
        lines = str(cause).splitlines() or [type(cause).__name__]
        first = first or lines[0]
    remedy = next((do for words, do in SERVED.items() if words in first), "")
    return f"{first}; {remedy}" if remedy else first


def is_too_long(database: Path) -> bool:
    """True for a path that SQLite cannot open, though the system can."""
    return len(str(database).encode()) > SQLITE_PATH


def _of_the_database(cause: BaseException) -> str:
    """What the database itself says; nothing of an error that is not its own."""
    own = getattr(cause, "orig", None) or (cause if isinstance(cause, sqlite3.Error) else None)
    lines = str(own).splitlines() if own else []
    return re.sub(r"\s+", " ", lines[0]) if lines else ""


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and those behind it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
