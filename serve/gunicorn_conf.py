"""gunicorn's settings: `gunicorn -c serve/gunicorn_conf.py`, and what `python -m serve` uses."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

from serve import settings
from serve.core.metrics_folder import make_folder, remove_folder

bind = f"{settings.host()}:{settings.port()}"
workers = settings.workers()
threads = settings.threads()
worker_class = "serve.worker.Worker"
wsgi_app = "serve:create_app({'BACKGROUND': False})"
preload_app = True  # imported and loaded once; a killed worker is back in milliseconds
keepalive = 30
timeout = 60
graceful_timeout = 20
control_socket_disable = True  # it would be opened in a home directory that need not exist
accesslog = "-" if settings.access_log() else None
forwarded_allow_ips = "127.0.0.1"

# In memory where that is possible: works on a read-only root, and no disk can stall a worker.
_SHARED = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
worker_tmp_dir = _SHARED
_made: str | None = None

if settings.metrics_dir() is None:
    try:
        _made = make_folder(_SHARED)
        settings.share_metrics_in(_made)
    except OSError as error:
        print(f"metrics are not shared among workers: {error}", file=sys.stderr)
else:
    Path(settings.metrics_dir()).mkdir(parents=True, exist_ok=True)


def post_worker_init(worker):
    """Start what a fork does not inherit: threads."""
    from serve.app import start_background

    start_background(worker.wsgi)
    gc.freeze()  # what is loaded stays: collections need not look at it again and again


def worker_exit(server, worker):
    """Move what waits for the log, when the worker ends in order."""
    from serve.app import close_app

    if worker.wsgi is not None:
        close_app(worker.wsgi)


def child_exit(server, worker):
    """Forget the gauges of a worker that is gone; its counts stay."""
    if settings.metrics_dir():
        from prometheus_client import multiprocess

        multiprocess.mark_process_dead(worker.pid)


def on_exit(server):
    """Remove what this module made."""
    if _made:
        remove_folder(_made)
