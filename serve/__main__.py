"""`python -m serve`: the service on port 9696, here and in the container."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from serve import settings
from taxi_duration import environment
from taxi_duration.errors import SettingError, TaxiError

# In memory where possible: works on a read-only root, and no disk can block a worker.
SHARED = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def main() -> int:
    """Load the application once, then serve it until a signal."""
    if len(sys.argv) > 1:
        print("python -m serve takes no arguments: HOST, PORT, WORKERS, … are read from the "
              "environment (docs/reference.md)", file=sys.stderr)  # fmt: skip
        return 2
    try:
        _check_settings()
        if not settings.wait_for_model() and not _is_deployed():
            from serve.core.served_models import HOW_TO_DEPLOY

            print(HOW_TO_DEPLOY, file=sys.stderr)
            return 1
        made = _share_metrics()
        try:
            _serve()
        finally:
            if made:
                from serve.core.metrics_folder import remove_folder

                remove_folder(made)
    except (TaxiError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _check_settings() -> None:
    """Refuse a value that a setting cannot have before anything is started.

    Raises:
        SettingError: names it and what is allowed.
    """
    from taxi_duration.model.signatures import check_keys

    settings.check_settings()
    check_keys()


def _serve() -> None:
    from serve.app import create_app
    from serve.core.memory import bound_memory
    from serve.server.processes import serve
    from taxi_duration.live.log_store import load_sql
    from taxi_duration.logs import log_to_stdout

    bound_memory()
    log_to_stdout()
    # Here once, though the first answer does not need it: three processes that each load it in
    # their first second slow their answers, and share none of its memory.
    load_sql()
    serve(create_app({"BACKGROUND": False}))


def _share_metrics() -> str | None:
    """Set the folder in which workers share metrics; return it if it was made here."""
    from serve.core.metrics_folder import make_folder

    folder = settings.metrics_dir()
    if folder is not None:
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SettingError(
                f"PROMETHEUS_MULTIPROC_DIR is {folder!r}; it must be a folder ({error.strerror})"
            ) from error
        return None
    try:
        made = make_folder(SHARED)
    except OSError as error:
        print(f"metrics are not shared among workers: {error}", file=sys.stderr)
        return None
    settings.share_metrics_in(made)
    return made


def _is_deployed() -> bool:
    """Return whether there is a deployment or bundle, valid or not."""
    from taxi_duration.live.deployment import DEPLOYMENT_FILE
    from taxi_duration.model.bundle import CARD_FILE

    models = environment.models_dir()
    places = [environment.deployment_dir() / DEPLOYMENT_FILE, models / CARD_FILE]
    return any(place.exists() for place in places) or any(models.glob(f"*/*/{CARD_FILE}"))


if __name__ == "__main__":
    sys.exit(main())
