"""MLflow's store and the prediction log: whether they answer, and which schema they have."""

from __future__ import annotations

import importlib.util
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

from taxi_duration import environment
from taxi_duration.doctor.examination import NOTE, OK, PROBLEM, Finding, one_line
from taxi_duration.doctor.network import ask, knows_s3_keys, reaches
from taxi_duration.domain.version import SUFFIX
from taxi_duration.environment import EXPERIMENT, LOCATION_FILE
from taxi_duration.files import is_none_yet, kind_of
from taxi_duration.registry.store_address import (
    ALLOWED,
    SERVERS,
    USUAL_PORTS,
    kind_of_store,
    noted_place,
    problem_of_address,
    without_password,
)
from taxi_duration.registry.store_problems import OF_PAGES, RENAME, SHORTER, is_too_long

if TYPE_CHECKING:
    from sqlalchemy import URL

OLD_SERVER = re.compile(r"[012]\.\d+(\.\w+)*")  # of MLflow: what /version says
LOCK_SECONDS = 0.3  # a doctor waits for nobody; a commit takes milliseconds
REVISION = re.compile(r'^(down_)?revision = "(\w+)"', re.MULTILINE)
BACKUP = "restore it, or move it away: the next run makes an empty one"
MOVED = "the next command that asks MLflow follows it"


def look_at_tracking(name: str) -> Iterator[Finding]:
    """MLflow's store: there, of a schema that this MLflow reads, its experiment not deleted."""
    server = environment.tracking_server()
    if server is None:
        yield from _local_store(name, environment.tracking_dir())
        return
    shown = without_password(server)
    if wrong := problem_of_address(server):
        yield Finding(name, PROBLEM, f"MLFLOW_TRACKING_URI is {shown!r}: {wrong}", ALLOWED)
        return
    address, kind = urlsplit(server), kind_of_store(server)
    if kind in SERVERS:
        yield from _server(name, server, shown)
    elif kind in USUAL_PORTS and address.hostname:
        problem = reaches(address.hostname, address.port or USUAL_PORTS[kind])
        yield _of_server(name, shown, problem)
    else:
        yield Finding(name, OK, f"{shown} is MLflow's own matter")


def _of_server(name: str, shown: str, problem: str | None) -> Finding:
    if problem is None:
        return Finding(name, OK, f"{shown} answers")
    return Finding(name, PROBLEM, f"{shown} does not answer: {problem}",
                   "start it, or unset MLFLOW_TRACKING_URI: runs then go to tracking/")  # fmt: skip


def _server(name: str, server: str, shown: str) -> Iterator[Finding]:
    base = server.rstrip("/")
    health = ask(f"{base}/health")
    if health.problem or health.status != 200:
        yield _of_server(name, shown, health.problem or f"/health says {health.status}")
        return
    yield _of_server(name, shown, None)
    version = ask(f"{base}/version").text.strip()
    if OLD_SERVER.fullmatch(version):
        yield Finding(name, PROBLEM, f"{shown} is MLflow {version}, which takes no model of this "
                      "one's", "update the server to MLflow 3")  # fmt: skip
    found = ask(f"{base}/api/2.0/mlflow/experiments/get-by-name?experiment_name={EXPERIMENT}")
    stage = re.search(r'"lifecycle_stage": *"(\w+)"', found.text)
    place = re.search(r'"artifact_location": *"([^"]*)"', found.text)
    if stage and stage[1] == "deleted":
        yield _deleted(name)
    if place and place[1].startswith("s3://") and not knows_s3_keys():
        yield Finding(name, PROBLEM, f"artifacts go to {place[1]}, and there are no keys for S3",
                      "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or `aws configure`; or let "
                      "the server pass artifacts on (--serve-artifacts)")  # fmt: skip


def _deleted(name: str) -> Finding:
    return Finding(name, NOTE, f"the experiment {EXPERIMENT} was deleted in MLflow's pages",
                   "the next run restores it, and its runs")  # fmt: skip


def _local_store(name: str, folder: Path) -> Iterator[Finding]:
    database, location = folder / "mlflow.db", folder / LOCATION_FILE
    if is_none_yet(database):
        yield Finding(name, OK, "there is none yet; the first run makes it")
        return
    if not database.is_file():
        yield Finding(name, PROBLEM, f"{database} is {kind_of(database.stat().st_mode)}, no file",
                      BACKUP)  # fmt: skip
        return
    try:
        with closing(open_read_only(database)) as store:
            found = store.execute("SELECT version_num FROM alembic_version").fetchone()
            experiments = store.execute(
                "SELECT lifecycle_stage, artifact_location FROM experiments WHERE name = ?",
                (EXPERIMENT,),
            ).fetchall()
            models = store.execute(
                "SELECT count(*) FROM registered_models WHERE name LIKE ?", (f"%{SUFFIX}",)
            ).fetchone()[0]
    except sqlite3.Error as error:
        yield _unreadable(name, database, error)
        return
    yield _schema(name, found[0] if found else None)
    if not experiments and models:
        yield Finding(name, NOTE, f"the experiment {EXPERIMENT} is gone (renamed, or deleted for "
                      "good)", "the next run makes a new one")  # fmt: skip
    yield from (_deleted(name) for stage, _ in experiments if stage == "deleted")
    yield from _artifacts(name, folder, location, experiments)


def _artifacts(
    name: str, folder: Path, location: Path, experiments: list[tuple[str, str]]
) -> Iterator[Finding]:
    """Whether what runs logged lies where the store says."""
    before = noted_place(location)
    if before is not None and before != str(folder):
        yield Finding(name, NOTE, f"tracking/ was moved here from {before}", MOVED)
        return
    for _, address in experiments:
        place = Path(unquote(urlsplit(address or "").path))
        if (address or "").startswith(OF_PAGES):
            yield Finding(name, PROBLEM, f"artifacts go to {address}, which takes a server: the "
                          "experiment was made in MLflow's own pages", RENAME)  # fmt: skip
        elif not place.is_relative_to(folder):
            yield Finding(name, NOTE, f"artifacts are said to lie in {address}, outside of "
                          f"{folder}", f"delete {location.name}, if any; {MOVED}")  # fmt: skip
        elif not place.exists() and before is not None:
            yield Finding(name, NOTE, f"the artifacts of older runs are gone from {place}",
                          "move them back; models in models/ serve without them")  # fmt: skip


def open_read_only(database: Path) -> sqlite3.Connection:
    """Open a database so that neither it nor a file beside it is made or changed."""
    # Without -shm nobody has it open, or one alone, which the locks tell; and none is made.
    way = "readonly_shm=1" if Path(f"{database}-shm").exists() else "immutable=1"
    address = f"file:{quote(str(database))}?mode=ro&{way}"
    return sqlite3.connect(address, LOCK_SECONDS, uri=True)


def _unreadable(name: str, database: Path, error: sqlite3.Error) -> Finding:
    said = one_line(error)
    if is_too_long(database):
        return Finding(name, PROBLEM, f"{database}: the path is too long for SQLite", SHORTER)
    if "locked" in said:
        return Finding(name, PROBLEM, f"{database} is locked by another program",
                       "let it finish, or end it (see processes)")  # fmt: skip
    if "no such table" in said:
        return Finding(name, PROBLEM, f"{database} is another program's database ({said})", BACKUP)
    return Finding(name, PROBLEM, f"{database} cannot be read: {said}", BACKUP)


def _schema(name: str, version: str | None) -> Finding:
    """Compare the store's schema with those that the installed MLflow knows."""
    known, newest = known_revisions()
    if version == newest:
        return Finding(name, OK, f"tracking/mlflow.db answers, schema {version} is this MLflow's")
    if version in known:
        upgrade = "`python -m mlflow db upgrade $(python pipeline.py mlflow --uri)`"
        return Finding(name, PROBLEM, f"the store has the schema {version} of an older MLflow",
                       f"keep a copy of tracking/, then {upgrade}")  # fmt: skip
    remedy = "`make setup` in the release that made it, or restore an older tracking/"
    return Finding(name, PROBLEM, f"the store's schema {version} is of a newer MLflow", remedy)


def known_revisions() -> tuple[set[str], str]:
    """Return the schemas that the installed MLflow brings forward, and its own.

    Read from its files: to import MLflow takes longer than a doctor has.
    """
    found = importlib.util.find_spec("mlflow")
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError("MLflow is not installed; `make setup`")
    folder = Path(found.submodule_search_locations[0], "store", "db_migrations", "versions")
    names: dict[str, set[str]] = {"": set(), "down_": set()}
    for path in folder.glob("*.py"):
        for before, revision in REVISION.findall(path.read_text()):
            names[before].add(revision)
    (newest,) = names[""] - names["down_"]
    return names[""], newest


def look_at_log(name: str) -> Iterator[Finding]:
    """The prediction log: there, ours, of a schema that this release reads."""
    from sqlalchemy import make_url

    url = environment.log_url()
    try:
        address = make_url(url)
    except Exception:  # of SQLAlchemy, by kind of mistake
        yield Finding(name, PROBLEM, "LOG_URL is no address of SQLite or PostgreSQL",
                      "sqlite:////FOLDER/FILE or postgresql://USER:PASSWORD@HOST/NAME")  # fmt: skip
        return
    if address.get_backend_name() != "sqlite":
        shown = address.render_as_string(hide_password=True)
        try:
            yield _log_schema(name, shown, _schema_of_server(address))
        except Exception as error:  # of psycopg, which is imported there
            remedy = "start the database; predictions wait in live/spool/ meanwhile"
            yield Finding(name, PROBLEM, f"{shown} does not answer: {one_line(error)}", remedy)
    else:
        yield from _local_log(name, Path((address.database or "").removeprefix("file:")))


def _schema_of_server(address: URL) -> int | None:
    """Return the number in a log on PostgreSQL, 0 where there is no log yet."""
    import psycopg

    if problem := reaches(address.host or "127.0.0.1", address.port or 5432):
        raise OSError(problem)
    plain = address.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain, options="-c default_transaction_read_only=on") as server:
        if server.execute("SELECT to_regclass('log_schema')").fetchone() == (None,):
            return 0
        found = server.execute("SELECT max(version) FROM log_schema").fetchone()
        return found[0] if found else None


def _local_log(name: str, database: Path) -> Iterator[Finding]:
    if is_none_yet(database):
        yield Finding(name, OK, f"there is none yet; the service makes {database}")
        return
    if not database.is_file():
        yield Finding(name, PROBLEM, f"{database} is {kind_of(database.stat().st_mode)}, no file",
                      "move it away, or name another place (LOG_URL)")  # fmt: skip
        return
    try:
        with closing(open_read_only(database)) as log:
            found = log.execute("SELECT max(version) FROM log_schema").fetchone()[0]
    except sqlite3.Error as error:
        yield _unreadable(name, database, error)
        return
    if os.access(database, os.W_OK):
        yield _log_schema(name, str(database), found)
    elif os.statvfs(database).f_flag & os.ST_RDONLY:
        yield Finding(name, PROBLEM, f"{database} is mounted read-only",
                      "mount it to be written, or name another place (LOG_URL)")  # fmt: skip
    else:
        yield Finding(name, PROBLEM, f"{database} may not be written by this user",
                      f"`sudo chown $USER {database}*`")  # fmt: skip


def _log_schema(name: str, shown: str, found: int | None) -> Finding:
    from taxi_duration.live.log_schema import VERSION

    if found == 0:
        return Finding(name, OK, f"{shown} answers, and has no log yet")
    if found is not None and found > VERSION:
        return Finding(name, PROBLEM, f"the log has schema {found}, this release knows {VERSION}",
                       "start the release that made it, or name another LOG_URL")  # fmt: skip
    if found != VERSION:
        return Finding(name, NOTE, f"the log has schema {found or 1} of an older release",
                       "the next start of the service brings it forward")  # fmt: skip
    return Finding(name, OK, f"{shown} answers, schema {found}")
