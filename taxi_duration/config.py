"""The one place that reads the environment: where things lie and where months come from."""

from __future__ import annotations

import os
from pathlib import Path

from taxi_duration.errors import SettingError

PROJECT_ROOT = Path(__file__).resolve().parent.parent
PUBLIC_TLC_URL = "https://d37ci6vzurychx.cloudfront.net"
DATA_MODES = ("auto", "tlc", "sample")


def setting(name: str) -> str | None:
    """A run's setting as the environment gives it; None when it is not set or empty."""
    return os.environ.get(name) or None


def home() -> Path:
    """Folder that holds data/, runs/, models/ and tracking/: `TAXI_HOME`, else the project."""
    return Path(os.environ.get("TAXI_HOME") or PROJECT_ROOT).resolve()


def data_dir() -> Path:
    """Folder of raw, sample and prepared months: `DATA_DIR`, else data/ in `home`."""
    return Path(os.environ.get("DATA_DIR") or home() / "data").resolve()


def runs_dir() -> Path:
    """Folder with one sub-folder per pipeline run."""
    return home() / "runs"


def models_dir() -> Path:
    """Folder of saved bundles, `<name>/<version>/model.bin`: `MODELS_DIR`, else in `home`."""
    return Path(os.environ.get("MODELS_DIR") or home() / "models").resolve()


def tracking_dir() -> Path:
    """Folder of the default MLflow database and artifacts."""
    return home() / "tracking"


def deployment_dir() -> Path:
    """Folder of deployment.json, which says what serves: `DEPLOYMENT_DIR`, else in `home`."""
    return Path(os.environ.get("DEPLOYMENT_DIR") or home() / "deployment").resolve()


def live_dir() -> Path:
    """Folder of the prediction log and what waits to get into it."""
    return data_dir() / "live"


def log_url() -> str:
    """Database of the prediction log: `LOG_URL`, else SQLite in `live_dir`."""
    return os.environ.get("LOG_URL") or f"sqlite:///{live_dir() / 'predictions.db'}"


def tlc_url() -> str:
    """Base of the months: `TLC_URL` without a trailing slash.

    A relative folder is taken from the project's root, so that it means the same
    in a shell, in JupyterLab and under papermill.
    """
    url = (os.environ.get("TLC_URL") or PUBLIC_TLC_URL).rstrip("/")
    return url if "://" in url else str((PROJECT_ROOT / url).resolve())


def tracking_server() -> str | None:
    """`MLFLOW_TRACKING_URI`: where runs are tracked, None for the local store."""
    return os.environ.get("MLFLOW_TRACKING_URI") or None


def data_mode() -> str:
    """`DATA`: `auto` (real months, sample without network), `tlc` or `sample`.

    Raises:
        SettingError: any other value.
    """
    mode = (os.environ.get("DATA") or "auto").lower()
    if mode not in DATA_MODES:
        raise SettingError(f"DATA is {mode!r}; allowed are {', '.join(DATA_MODES)}")
    return mode


def max_bad_share() -> float:
    """`MAX_BAD_SHARE`: share of bad rows (0-1) above which a month stops the run; 0.2.

    Raises:
        SettingError: not a number between 0 and 1.
    """
    text = os.environ.get("MAX_BAD_SHARE") or "0.2"
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise SettingError(f"MAX_BAD_SHARE is {text!r}; it must be a number from 0 to 1")
    return share


def signing_key() -> bytes | None:
    """`MODEL_SIGNING_KEY` as bytes, or None when bundles need no signature."""
    key = os.environ.get("MODEL_SIGNING_KEY")
    return key.encode() if key else None


def sample_rows() -> int | None:
    """`SAMPLE_ROWS`: rows of a generated month; None for the generator's default.

    Raises:
        SettingError: not a positive whole number.
    """
    text = os.environ.get("SAMPLE_ROWS")
    if not text:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise SettingError(f"SAMPLE_ROWS is {text!r}; it must be a positive whole number")
    return int(text)
