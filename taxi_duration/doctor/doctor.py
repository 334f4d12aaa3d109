"""`pipeline.py doctor`: all checks, in the order in which they are shown."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from taxi_duration import environment
from taxi_duration.doctor import machine, network, places, ports, serving, settings, stores
from taxi_duration.doctor.examination import DEADLINE_SECONDS, Check, Finding, examine

MLFLOW_PORT = 5000  # as in MLflow's own documentation
LAB_PORT = 8888  # JupyterLab's own
DISK = ("a disk or network folder hangs", "remount it, or name another place")
NETWORK = ("the network, or what it asks, hangs", "mend it; without network a run takes the sample")
STORE = ("its server or disk hangs", "restart what it names, or unset it")


def checks(docker: bool) -> list[Check]:
    """Return what is looked at; Docker only when somebody asks."""
    found = [
        Check("python", machine.look_at_python),
        Check("packages", machine.look_at_packages),
        Check("compiler", machine.look_at_compiler),
        Check("kernel", machine.look_at_kernel),
        Check("memory", machine.look_at_memory),
        Check("clock", machine.look_at_clock),
        Check("settings", settings.look_at_settings),
        Check("disk", places.look_at_disk, DISK),
        *(Check(name, partial(places.look_at_folder, where=where, setting=setting), DISK)
          for name, where, setting in folders()),
        Check("locks", places.look_at_locks, DISK),
        Check("processes", places.look_at_processes),
        *([Check("port", ports.look_at_service, NETWORK)] if settings.has_service() else []),
        Check("port mlflow", partial(ports.look_at_pages, port=MLFLOW_PORT, who="`make mlflow`",
              remedy="`make mlflow` takes the next one and says so")),
        Check("port lab", partial(ports.look_at_pages, port=LAB_PORT, who="`make lab`",
              remedy="`make lab` takes the next one and says so")),
        Check("proxy", network.look_at_proxy, NETWORK),
        Check("months", network.look_at_months, NETWORK),
        Check("cluster", network.look_at_cluster, NETWORK),
        Check("tracking", stores.look_at_tracking, STORE),
        Check("deployment", serving.look_at_deployment, DISK),
        Check("log", stores.look_at_log, STORE),
    ]  # fmt: skip
    if docker:
        hangs = ("its daemon hangs", "`sudo systemctl restart docker`, or restart Docker Desktop")
        found.append(Check("docker", machine.look_at_docker, hangs))
    return found


def folders() -> list[tuple[str, Callable[[], Path], str]]:
    """Return name, place and setting of each folder that something is written to."""
    found = [
        ("home", environment.home, "TAXI_HOME"),
        ("data", environment.data_dir, "DATA_DIR"),
        ("runs", environment.runs_dir, "TAXI_HOME"),
        ("models", environment.models_dir, "MODELS_DIR"),
        ("store", environment.tracking_dir, "TAXI_HOME"),
        ("deployed", environment.deployment_dir, "DEPLOYMENT_DIR"),
        ("live", environment.live_dir, "DATA_DIR"),
        ("archive", lambda: environment.log_archive(environment.log_url()), "LOG_ARCHIVE"),
    ]
    if settings.has_service():
        found.append(("metrics", _metrics, "PROMETHEUS_MULTIPROC_DIR"))
    return found


def _metrics() -> Path:
    import tempfile

    from serve import settings as service

    return Path(service.metrics_dir() or tempfile.gettempdir()).resolve()


def consult(docker: bool = False, seconds: float = DEADLINE_SECONDS) -> list[Finding]:
    """Return what is wrong here and what is well; takes no longer than a few seconds."""
    return examine(checks(docker), seconds)
