"""MLflow tracking: where runs go, one parent run per pipeline run, one child per model."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from taxi_duration import environment
from taxi_duration.data.prepared import PreparedMonth
from taxi_duration.errors import TrackingError

EXPERIMENT = "taxi-duration"
LOCATION_FILE = "location.txt"
# Every column of MLflow's own schema in which it keeps an absolute artifact address.
ADDRESS_COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def connect() -> Any:
    """Return an MlflowClient on the configured store, made ready when it is the local one.

    `MLFLOW_TRACKING_URI` names a server; without it runs go to SQLite and a folder in
    tracking/, which may be moved as a whole.
    """
    # Nothing about a run leaves the machine unless the user asks for it.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # Half a minute is enough for a server that restarts; MLflow's own 7 retries take over four.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "4")
    import mlflow

    server = environment.tracking_server()
    mlflow.set_tracking_uri(store_uri())
    if not server:
        # MLflow puts its choice into the environment, where it would pass for the user's.
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        _prepare_local_store()
    return mlflow.MlflowClient()


def store_uri() -> str:
    """Return the configured store's address, as `MLFLOW_TRACKING_URI` takes it."""
    return environment.tracking_server() or environment.local_tracking_uri()


@contextmanager
def needed() -> Iterator[None]:
    """Raise what MLflow's store does not do in the block as our own error.

    Raises:
        TrackingError: names the store, and says why.
    """
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        store = environment.tracking_server() or f"{environment.tracking_dir().name}/"
        why = str(error).splitlines()[0]
        raise TrackingError(f"MLflow's store {store} does not do it: {why}") from error


def experiment_id(client: Any) -> str:
    """Return our experiment's id, making the experiment when it is not there."""
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        try:
            artifacts = None if environment.tracking_server() else _artifacts_uri()
            return client.create_experiment(EXPERIMENT, artifact_location=artifacts)
        except MlflowException:  # another pipeline made it in the meantime
            experiment = client.get_experiment_by_name(EXPERIMENT)
    return experiment.experiment_id


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
    import time

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


def serve_pages(port: int) -> int:
    """Serve MLflow's own pages of the configured store until interrupted; its exit status."""
    connect()  # makes the store, or follows a moved one
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", store_uri()]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    try:
        return subprocess.run(command, check=False).returncode
    except KeyboardInterrupt:
        return 0


def _profile(month: PreparedMonth) -> str:
    import json

    return json.dumps({"sha256": month.raw.sha256, **month.accounting.as_dict()})


# --- the local store -------------------------------------------------------------------------


def _artifacts_uri() -> str:
    return (environment.tracking_dir() / "artifacts").as_uri()


def _prepare_local_store() -> None:
    """Create or migrate the database once, whoever comes first, and follow a moved folder."""
    folder = environment.tracking_dir()
    location = folder / LOCATION_FILE
    if location.exists() and location.read_text() == str(folder):
        return
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock", timeout=120):
        if location.exists() and location.read_text() == str(folder):
            return
        _create(folder / "mlflow.db")
        if location.exists():
            _relocate(folder / "mlflow.db", location.read_text(), str(folder))
        location.write_text(str(folder))


def _create(database: Path) -> None:
    """Make the tables under another name first: a process killed meanwhile leaves no half store."""
    if not database.exists():
        part = database.parent / ".new"
        shutil.rmtree(part, ignore_errors=True)  # of a killed process; the caller holds the lock
        part.mkdir()
        _make_tables(part / database.name)
        (part / database.name).replace(database)
        shutil.rmtree(part)
    connection = sqlite3.connect(database)
    # Readers and one writer side by side; kept in the file from now on.
    connection.execute("PRAGMA journal_mode=WAL")
    connection.close()


def _make_tables(database: Path) -> None:
    import mlflow

    uri = f"sqlite:///{database}"
    client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
    client.search_experiments(max_results=1)  # the first call makes the tables
    client.search_registered_models(max_results=1)


def _relocate(database: Path, old: str, new: str) -> None:
    """Rewrite the artifact addresses of a tracking folder that was moved."""
    old_uri, new_uri = Path(old).as_uri(), Path(new).as_uri()
    connection = sqlite3.connect(database, timeout=60)
    with connection:
        for table, column in ADDRESS_COLUMNS:
            for before, after in ((old_uri, new_uri), (old, new)):
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                    f"WHERE substr({column}, 1, ?) = ?",
                    (after, len(before) + 1, len(before), before),
                )
    connection.close()


def log_decision(client: Any, line: dict[str, Any], model: tuple[str, int] | None = None) -> None:
    """Keep a decision in MLflow too: a run of its own, and a tag on the version it is about.

    Args:
        client: MlflowClient.
        line: from `record`, with a key; a decision that is there already is left as it is.
        model: name and version.
    """
    from taxi_duration.registry import tracking

    experiment = tracking.experiment_id(client)
    wanted = f"tags.audit_key = '{line['key']}'"
    if not client.search_runs([experiment], filter_string=wanted, max_results=1):
        tags = {"audit_key": line["key"], "decision": line["what"], "why": line["why"],
                "who": line["who"]}  # fmt: skip
        run_id = tracking.start_run(client, f"auto: {line['what']}", tags)
        numbers = tracking.flatten_metrics(line["numbers"])
        tracking.log_run(client, run_id, metrics=numbers)
        client.set_terminated(run_id)
    if model is not None:
        client.set_model_version_tag(*map(str, model), "auto", f"{line['what']}: {line['why']}")
