"""MLflow tracking: where runs go, one parent run per pipeline run, one child per model."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from filelock import FileLock

from taxi_duration import environment
from taxi_duration.data.prepared import PreparedMonth
from taxi_duration.domain.months import SERVICES
from taxi_duration.domain.version import Version, model_name
from taxi_duration.environment import EXPERIMENT, LOCATION_FILE
from taxi_duration.errors import DeletedError, TrackingError
from taxi_duration.files import is_none_yet, write_bytes
from taxi_duration.logs import saying_when_slow
from taxi_duration.registry.store_address import (
    ALLOWED,
    SERVERS,
    USUAL_PORTS,
    kind_of_store,
    noted_place,
    problem_of_address,
    without_password,
)
from taxi_duration.registry.store_problems import OF_PAGES, RENAME, reason_of

log = logging.getLogger(__name__)

# What MLflow's pages show of an experiment: runs, metrics and models, not traces of prompts.
KIND_TAG, OUR_KIND = "mlflow.experimentKind", "custom_model_development"
ARTIFACTS = "artifacts"
SERVER_SECONDS = 5.0  # for a connection to a database; MLflow tries ten times, over minutes
END_SECONDS = 5.0  # for MLflow's pages to end
CLOUDS = ("azure", "boto3", "botocore", "google")  # whose errors MLflow lets through
PATIENCE_SECONDS = 5.0  # then it is said that the store is waited for
LOCK_SECONDS = 20.0  # as long as MLflow itself waits for a locked database
# Every column of MLflow's own schema in which it keeps an absolute artifact address.
ADDRESS_COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def connect() -> Any:
    """Return a client of the configured store, made ready when it is the local one.

    Its methods are those of an MlflowClient, and raise as `needed`.
    `MLFLOW_TRACKING_URI` names a server; without it runs go to SQLite and a folder in
    tracking/, which may be moved as a whole.
    """
    # Nothing about a run leaves the machine unless the user asks for it.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # Half a minute is enough for a server that restarts; MLflow's own 7 retries take over four.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "4")
    # Bars of single files: in a notebook or a log they are lines of noise.
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    import mlflow

    # What failed is in the error that is raised; these would say it too, at every try.
    for talker in ("urllib3.connectionpool", "mlflow.store.db"):
        logging.getLogger(talker).setLevel(logging.CRITICAL)
    server = environment.tracking_server()
    if server:
        _check_server(server)
    mlflow.set_tracking_uri(store_uri())
    if not server:
        # MLflow puts its choice into the environment, where it would pass for the user's.
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        with needed():
            _prepare_local_store()
    with needed():
        return _Client(mlflow.MlflowClient())


def _check_server(address: str) -> None:
    """Refuse at once what MLflow would try for minutes, or fail by with a word of its own.

    Raises:
        TrackingError: says what is wrong with the address, or that no database listens there.
    """
    shown = without_password(address)
    if problem := problem_of_address(address):
        raise TrackingError(f"MLFLOW_TRACKING_URI is {shown!r}: {problem}; expected is {ALLOWED}")
    kind, parts = kind_of_store(address), urlsplit(address)
    with needed():
        if kind == "sqlite" and not parts.path.startswith("/file:"):  # those have options
            _look_into(Path(unquote(parts.path[1:])))
        elif kind in USUAL_PORTS and parts.hostname:
            place = parts.hostname, parts.port or USUAL_PORTS[kind]
            socket.create_connection(place, SERVER_SECONDS).close()


class _Client:
    """An MlflowClient that raises what its store does not do as our own errors."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # also asked for while this is unpickled, before it has any
            raise AttributeError(name)
        method = getattr(self._client, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            with needed():
                return method(*args, **kwargs)

        return call if callable(method) else method


def store_uri() -> str:
    """Return the configured store's address, as `MLFLOW_TRACKING_URI` takes it."""
    return environment.tracking_server() or environment.local_tracking_uri()


@contextmanager
def needed() -> Iterator[None]:
    """Raise what MLflow's store does not do in the block as our own error.

    Raises:
        DeletedError: what the block asks about was deleted in MLflow.
        TrackingError: anything else; names the store, and says why in one line.
    """
    from alembic.util import CommandError
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        with saying_when_slow(f"MLflow's store {_shown_store()} is waited for", PATIENCE_SECONDS):
            yield
    except (MlflowException, SQLAlchemyError, CommandError, sqlite3.Error, OSError) as error:
        kind = DeletedError if _is_deleted(error) else TrackingError
        raise kind(_in_one_line(error)) from error
    except ModuleNotFoundError as error:  # a database's driver, or databricks' library
        raise TrackingError(_in_one_line(error)) from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in CLOUDS:
            raise
        raise TrackingError(_in_one_line(error)) from error


def _is_deleted(error: Exception) -> bool:
    """True for a thing that is not there, and for one that lies in MLflow's bin."""
    code = getattr(error, "error_code", None)
    return code == "RESOURCE_DOES_NOT_EXIST" or "Current state is deleted" in str(error)


def _shown_store() -> str:
    server = environment.tracking_server()
    return without_password(server) if server else f"{environment.tracking_dir().name}/"


def _in_one_line(error: Exception) -> str:
    said = f"MLflow's store {_shown_store()} does not do it: {reason_of(error)}"
    # What an error says may hold a password; an address in this process's memory is never the same.
    return re.sub(r"(?<=//)[^/\s@]+@|(?: object)? at 0x[0-9a-f]+", "", said)


def experiment_id(client: Any) -> str:
    """Return our experiment's id; made when it is not there, restored when it was deleted.

    A deleted experiment keeps its name, so that no other can take its place.
    """
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        if next(our_models(client), None):
            log.warning(
                "MLflow's experiment %s is gone (renamed, or deleted for good); a new one is made, "
                "without the runs before",
                EXPERIMENT,
            )
        artifacts = None if environment.tracking_server() else _artifacts_uri()
        # Another pipeline may make or restore it in the same moment.
        with suppress(TrackingError):
            return client.create_experiment(EXPERIMENT, artifacts, {KIND_TAG: OUR_KIND})
        experiment = client.get_experiment_by_name(EXPERIMENT)
    elif experiment.lifecycle_stage == "deleted":
        log.warning("MLflow's experiment %s was deleted; it is restored", EXPERIMENT)
        with suppress(DeletedError):
            client.restore_experiment(experiment.experiment_id)
    if KIND_TAG not in experiment.tags:  # of an earlier release
        client.set_experiment_tag(experiment.experiment_id, KIND_TAG, OUR_KIND)
    return experiment.experiment_id


def our_models(client: Any, name: str | None = None) -> Iterator[Any]:
    """Yield the registered models of our services, or the one of this name.

    Asked for by their names: others' models may be on the same server, in any number, and MLflow
    lists a hundred at once.
    """
    for ours in map(model_name, SERVICES):
        if name in (None, ours):
            with suppress(DeletedError):
                yield client.get_registered_model(ours)


def check_store() -> None:
    """Raise a TrackingError when the store is not there to take a run and its model."""
    client = connect()
    experiment = experiment_id(client)
    server = kind_of_store(environment.tracking_server() or "")
    if server not in SERVERS:
        place = client.get_experiment(experiment).artifact_location
        if place.startswith(OF_PAGES):
            raise TrackingError(
                f"MLflow's experiment {EXPERIMENT} keeps artifacts at {place}, which takes a "
                f"server: it was made in MLflow's own pages; {RENAME}"
            )
    else:
        # A server older than 3 takes runs, and refuses their models after the training.
        client.search_logged_models([experiment], max_results=1)


def is_active(client: Any, run_id: str) -> bool:
    """True while MLflow has a run that was not deleted."""
    try:
        return client.get_run(run_id).info.lifecycle_stage == "active"
    except DeletedError:
        return False


def start_run(client: Any, name: str, tags: Mapping[str, str], parent: str | None = None) -> str:
    """Create a run and return its id; with `parent` it becomes that run's child."""
    links = {"mlflow.parentRunId": parent} if parent else {}
    run = client.create_run(
        experiment_id(client),
        run_name=name,
        tags={**tags, **links, "mlflow.source.name": "pipeline.py", "mlflow.user": "pipeline"},
    )
    return run.info.run_id


def find_parent(client: Any, run_id: str) -> str | None:
    """Return the id of the parent run that carries this tag `run_id`, None without one."""
    ours = f"tags.run_id = '{run_id}' AND tags.`mlflow.parentRunId` IS NULL"
    found = client.search_runs([experiment_id(client)], ours, max_results=1)
    return found[0].info.run_id if found else None


def log_run(
    client: Any,
    run_id: str,
    params: Mapping[str, Any] | None = None,
    metrics: Mapping[str, float] | None = None,
    tags: Mapping[str, str] | None = None,
) -> None:
    """Log parameters, metrics and tags in one transaction."""
    from mlflow.entities import Metric, Param, RunTag

    now = int(time.time() * 1000)
    client.log_batch(
        run_id,
        metrics=[Metric(k, float(v), now, 0) for k, v in (metrics or {}).items()],
        params=[Param(k, str(v)) for k, v in (params or {}).items()],
        tags=[RunTag(k, str(v)) for k, v in (tags or {}).items()],
    )


def log_months(client: Any, run_id: str, months: Iterable[PreparedMonth], context: str) -> None:
    """Log months as MLflow datasets, named and digested by their source file."""
    from mlflow.data.http_dataset_source import HTTPDatasetSource
    from mlflow.entities import Dataset, DatasetInput, InputTag

    inputs = []
    for month in months:
        source = HTTPDatasetSource(month.raw.url or month.raw.path.name)
        dataset = Dataset(
            name=f"{month.raw.service}_{month.raw.month}",
            digest=month.raw.sha256[:36],  # MLflow keeps at most 36 characters
            source_type="http" if month.raw.url else "local",
            source=source.to_json(),
            profile=_profile(month),
        )
        inputs.append(DatasetInput(dataset, [InputTag("mlflow.data.context", context)]))
    client.log_inputs(run_id, datasets=inputs)


def flatten_metrics(evaluation: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Return nested metrics as MLflow names: `rmse`, `segments.airport.mae`, …"""
    flat: dict[str, float] = {}
    for name, value in evaluation.items():
        if isinstance(value, Mapping):
            flat |= flatten_metrics(value, f"{prefix}{name}.")
        elif isinstance(value, (int, float)):
            flat[prefix + name] = float(value)
    return flat


def log_decision(client: Any, line: dict[str, Any], version: Version | None = None) -> None:
    """Keep a decision in MLflow too: a run of its own, and a tag on the version it is about.

    Args:
        client: MlflowClient.
        line: from `record`, with a key; a decision that is there already is left as it is.
        version: that it is about.
    """
    experiment = experiment_id(client)
    wanted = f"tags.audit_key = '{line['key']}'"
    if not client.search_runs([experiment], filter_string=wanted, max_results=1):
        tags = {"audit_key": line["key"], "decision": line["what"], "why": line["why"],
                "who": line["who"]}  # fmt: skip
        run_id = start_run(client, f"auto: {line['what']}", tags)
        numbers = flatten_metrics(line["numbers"])
        log_run(client, run_id, metrics=numbers)
        client.set_terminated(run_id)
    if version is not None:
        set_version_tags(client, version, {"auto": f"{line['what']}: {line['why']}"})


def set_version_tags(client: Any, version: Version, tags: Mapping[str, str]) -> None:
    """Tag a registered version; one that was deleted in MLflow is left out with a warning."""
    try:
        for name, value in tags.items():
            client.set_model_version_tag(version.name, str(version.number), name, value)
    except DeletedError as error:
        log.warning("%s gets no tags: %s", version.ref, error)


def pages_of_runs(address: str) -> str:
    """Return where MLflow's pages at an address show the runs of our experiment."""
    return f"{address.rstrip('/')}/#/experiments/{experiment_id(connect())}/runs"


def serve_pages(port: int) -> int:
    """Serve MLflow's own pages of the configured store until interrupted; its exit status."""
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", store_uri()]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    # Eight processes and 890 MB, which only evaluations of language models use.
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    pages = subprocess.Popen(command)
    try:
        return pages.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        _end_with_children(pages.pid)


def _end_with_children(pid: int) -> None:
    """End a process and those it started: only Ctrl-C in a terminal reaches them all."""
    import psutil

    with suppress(psutil.NoSuchProcess):
        first = psutil.Process(pid)
        all_of_it = [first, *first.children(recursive=True)]
        for process in all_of_it:
            with suppress(psutil.NoSuchProcess):
                process.terminate()
        for process in psutil.wait_procs(all_of_it, timeout=END_SECONDS)[1]:
            process.kill()


def _profile(month: PreparedMonth) -> str:
    return json.dumps({"sha256": month.raw.sha256, **month.accounting.as_dict()})


# --- the local store -------------------------------------------------------------------------


def _artifacts_uri() -> str:
    return (environment.tracking_dir() / ARTIFACTS).as_uri()


def _prepare_local_store() -> None:
    """Create or migrate the database once, whoever comes first, and follow a moved folder."""
    folder = environment.tracking_dir()
    location, database = folder / LOCATION_FILE, folder / "mlflow.db"
    if _is_prepared(location, database):
        return
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock", timeout=120):
        if _is_prepared(location, database):
            return
        _create(database)
        if before := _place_before(location, database):
            _relocate(database, before, str(folder))
        write_bytes(location, str(folder).encode())


def _look_into(database: Path) -> None:
    """Raise an sqlite3.Error when a file is no database, cannot be opened, or is locked."""
    with closing(sqlite3.connect(database, timeout=LOCK_SECONDS)) as connection:
        connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall()


def _is_prepared(location: Path, database: Path) -> bool:
    """True when the database is there and knows where it lies.

    Raises:
        sqlite3.Error: it is no database, or locked. MLflow would try ten times, over minutes.
    """
    if is_none_yet(database):
        return False
    _look_into(database)
    return noted_place(location) == str(location.parent)


def _place_before(location: Path, database: Path) -> str | None:
    """Where the store lay when it was last used; None for a new one.

    The experiment's own address says it when somebody moved the database without the note.
    """
    if noted := noted_place(location):
        return noted
    query = "SELECT artifact_location FROM experiments WHERE name = ?"
    with closing(sqlite3.connect(database, timeout=LOCK_SECONDS)) as connection:
        found = connection.execute(query, (EXPERIMENT,)).fetchone()
    address = urlsplit(found[0] if found and found[0] else "")
    folder = Path(unquote(address.path))
    return str(folder.parent) if address.scheme == "file" and folder.name == ARTIFACTS else None


def _create(database: Path) -> None:
    """Make the tables under another name first: a process killed meanwhile leaves no half store."""
    if is_none_yet(database):
        part = database.parent / ".new"
        shutil.rmtree(part, ignore_errors=True)  # of a killed process; the caller holds the lock
        part.mkdir()
        _make_tables(part / database.name)
        for ending in ("-wal", "-shm"):  # of a database that was removed; not this one's changes
            Path(f"{database}{ending}").unlink(missing_ok=True)
        (part / database.name).replace(database)
        shutil.rmtree(part)
    connection = sqlite3.connect(database)
    # Readers and one writer side by side; kept in the file from now on.
    connection.execute("PRAGMA journal_mode=WAL")
    connection.close()


def _make_tables(database: Path) -> None:
    import mlflow

    uri = environment.sqlite_url(database)
    client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
    client.search_experiments(max_results=1)  # the first call makes the tables
    client.search_registered_models(max_results=1)


def _relocate(database: Path, old: str, new: str) -> None:
    """Rewrite the artifact addresses of a tracking folder that was moved."""
    old_uri, new_uri = Path(old).as_uri(), Path(new).as_uri()
    connection = sqlite3.connect(database, timeout=LOCK_SECONDS)
    with connection:
        for table, column in ADDRESS_COLUMNS:
            for before, after in ((old_uri, new_uri), (old, new)):
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                    f"WHERE substr({column}, 1, ?) = ?",
                    (after, len(before) + 1, len(before), before),
                )
    connection.close()
