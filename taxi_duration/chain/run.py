"""A run's folder: run.json, executed notebooks, trained candidates; and its MLflow parent run."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout

from taxi_duration import environment
from taxi_duration.chain.commit import git_commit, told_commit
from taxi_duration.chain.run_settings import DEFAULTS, RunSettings, check_settings
from taxi_duration.data.month_health import MonthHealth, examine_months
from taxi_duration.data.prepared import PreparedMonth, prepare_month, prepare_months
from taxi_duration.data.sources import edition_of
from taxi_duration.errors import AtWorkError, NotFoundError
from taxi_duration.files import read_json, write_json
from taxi_duration.registry import tracking
from taxi_duration.training.kinds import check_kinds

log = logging.getLogger(__name__)

RUN_FILE = "run.json"


@dataclass(frozen=True)
class Run:
    """One run: its folder and checked settings.

    Notebooks of the same run share it through run.json only, so that each also works alone.
    """

    folder: Path
    settings: RunSettings

    @property
    def run_id(self) -> str:
        """The folder's name."""
        return self.folder.name

    @cached_property
    def _months(self) -> list[PreparedMonth]:
        """All months in one go, so that real and generated ones are never mixed.

        A chain stays with the editions that it began with: each notebook would otherwise learn
        from its own, when the loop fetches a month that was published anew meanwhile.
        """
        months = self.settings.train_months + self.settings.val_months
        prepared = prepare_months(self.settings.service, months, mode=self._data_mode())
        info = self.read()
        if info["interactive"]:
            return prepared
        if "editions" in info:
            return [_as_begun(month, info["editions"]) for month in prepared]
        self.update(editions={str(month.raw.month): month.raw.sha256 for month in prepared})
        return prepared

    @property
    def train_months(self) -> list[PreparedMonth]:
        """Prepared training months."""
        return self._months[: len(self.settings.train_months)]

    @property
    def val_months(self) -> list[PreparedMonth]:
        """Prepared validation months."""
        return self._months[len(self.settings.train_months) :]

    @cached_property
    def health(self) -> list[MonthHealth]:
        """What the columns of each month say, beside the months before it that are at hand."""
        return examine_months(self.train_months + self.val_months)

    def keep_health(self) -> pd.DataFrame:
        """Keep findings and training rows in run.json; return a row per finding."""
        kept = [health.as_dict() for health in self.health]
        self.update(
            health=[line for health in self.health for line in health.lines],
            rows=sum(month.accounting.rows_kept for month in self.train_months),
        )
        rows = [{"month": h["month"], **finding} for h in kept for finding in h["findings"]]
        columns = ["month", "level", "code", "column", "vendor", "rows", "share", "text"]
        return pd.DataFrame(rows, columns=columns)

    @property
    def data_source(self) -> str:
        """`tlc`, or `sample` as soon as one month is generated."""
        sources = {month.raw.data_source for month in self.train_months + self.val_months}
        return "sample" if "sample" in sources else "tlc"

    @property
    def takes_current(self) -> bool:
        """Whether it may take what an earlier run has made of the same inputs."""
        return bool(self.read().get("takes_current"))

    @property
    def title(self) -> str:
        """Service and all months, as a plot's title names them."""
        return self._title(f"{self.settings.train_data}, {self.settings.val_data}")

    @property
    def train_title(self) -> str:
        """Service and training months, as a plot's title names them."""
        return self._title(self.settings.train_data)

    @property
    def val_title(self) -> str:
        """Service and validation months, as a plot's title names them."""
        return self._title(self.settings.val_data)

    def _title(self, months: str) -> str:
        generated = " (generated sample)" if self.data_source == "sample" else ""
        return f"{self.settings.service} {months}{generated}"

    def _left_behind(self, info: dict[str, Any]) -> str | None:
        """The parent run of a killed process that had not noted its id in run.json yet."""
        return None if info["interactive"] else tracking.find_parent(self.client, self.run_id)

    def _changed_data(self, info: dict[str, Any]) -> bool:
        """True when a folder of work by hand went from the sample to real months, or back."""
        return info["interactive"] and info["data_source"] != self.data_source

    def _is_deleted(self, mlflow_run_id: str) -> bool:
        """Whether somebody deleted the parent in MLflow; asked once, then it is known."""
        if mlflow_run_id not in self._seen:
            if not tracking.is_active(self.client, mlflow_run_id):
                log.warning("MLflow's run %s was deleted; a new one is begun", mlflow_run_id)
                return True
            self._seen.add(mlflow_run_id)
        return False

    @cached_property
    def _seen(self) -> set[str]:
        """Parent runs that MLflow was seen to have."""
        return set()

    def _data_mode(self) -> str | None:
        """A chain stays with the data it began with, also when the network comes or goes."""
        info = self.read()
        return None if info["interactive"] else info.get("data_source")

    @cached_property
    def client(self) -> Any:
        """MlflowClient on the configured store."""
        return tracking.connect()

    @property
    def tags(self) -> dict[str, str]:
        """Tags of the parent run and of every child."""
        return {
            **self.settings.as_parameters(),
            "data_source": self.data_source,
            "git_commit": git_commit(),
            "run_id": self.run_id,
        }

    def parent_run(self) -> str:
        """Return the id of the MLflow parent run, made on first use."""
        if not {"editions", "mlflow_run_id"} & self.read().keys():
            _ = self.train_months  # notes its editions, for which it needs the lock
        with FileLock(self.folder / ".lock"):
            info = self.read()
            known = info.get("mlflow_run_id")
            if known is None or self._changed_data(info) or self._is_deleted(known):
                run_id = self._left_behind(info) or tracking.start_run(
                    self.client, self.run_id, self.tags
                )
                tracking.log_months(self.client, run_id, self.train_months, "training")
                tracking.log_months(self.client, run_id, self.val_months, "validation")
                if info["interactive"]:  # nobody will come back to end it
                    self.client.set_terminated(run_id)
                changes: dict[str, Any] = {
                    "mlflow_run_id": run_id, "data_source": self.data_source,
                }  # fmt: skip
                if known is not None:  # its children belong to another parent
                    changes["logged"] = {}
                info = self._write({**info, **changes})
            return info["mlflow_run_id"]

    def keep_figure(self, figure: Any, name: str) -> Any:
        """Save a figure in the run's folder and in MLflow as plots/<name>.png.

        Returns the saved picture for the notebook to show: to draw a figure a second time for
        the screen takes as long as the first.
        """
        from IPython.display import Image

        path = self.folder / "plots" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        figure.savefig(path, dpi=110)
        self.client.log_artifact(self.parent_run(), str(path), "plots")
        return Image(filename=str(path))

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Keep other processes from executing this run meanwhile; a killed one keeps nobody.

        Raises:
            AtWorkError: another process executes it.
        """
        with ExitStack() as stack:
            try:
                stack.enter_context(FileLock(self.folder / ".at-work.lock", timeout=0))
            except Timeout as error:
                raise AtWorkError(
                    f"run {self.run_id} is being executed by another process; let it end first"
                ) from error
            yield

    def read(self) -> dict[str, Any]:
        """Return the content of run.json."""
        return read_json(self.folder / RUN_FILE)

    def update(self, **changes: Any) -> dict[str, Any]:
        """Change entries of run.json and return its new content."""
        with FileLock(self.folder / ".lock"):
            return self._write({**self.read(), **changes})

    def _write(self, info: dict[str, Any]) -> dict[str, Any]:
        write_json(self.folder / RUN_FILE, info)
        return info


def new_run(settings: RunSettings, takes_current: bool = False) -> Run:
    """Make the folder of a new run, named by time and a few random letters.

    Args:
        takes_current: it may take what an earlier run has made of the same inputs.
    """
    name = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    run = _create(environment.runs_dir() / name, settings, interactive=False)
    if takes_current:
        run.update(takes_current=True)
    return run


def open_run(run_dir: str, **settings: Any) -> Run:
    """Open a notebook's run folder, made when missing or when it was for other settings.

    Args:
        run_dir: relative paths are taken from `environment.home()`.
        settings: `TRAIN_DATA`, `VAL_DATA`, `MODEL`, `SERVICE` as the notebook got them: from a
            file of parameters months may also be a list.
    Raises:
        TagError, SettingError: a setting is not acceptable.
    """
    folder = (environment.home() / run_dir).resolve()
    checked = check_settings(**settings)
    check_kinds(checked.kinds)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        if _settings_of(folder) == checked.as_parameters():
            return Run(folder, checked)
        return _create(folder, checked, interactive=True)


def load_run(run_id: str) -> Run:
    """Return an existing run.

    Raises:
        NotFoundError: names the runs there are.
    """
    folder = environment.runs_dir() / run_id
    if not (folder / RUN_FILE).exists():
        known = sorted(path.parent.name for path in environment.runs_dir().glob(f"*/{RUN_FILE}"))
        raise NotFoundError(
            f"run {run_id} does not exist; there are {', '.join(known[-5:]) or 'none'}"
        )
    settings = _settings_of(folder)
    if settings is None:
        raise NotFoundError(f"{folder / RUN_FILE} is damaged: the run cannot be gone on with")
    return Run(folder, check_settings(**settings))


def _settings_of(folder: Path) -> dict[str, str] | None:
    """What a run was asked to do; None where there is no run.json, or a damaged one."""
    try:
        info = read_json(folder / RUN_FILE)
        return {name: info["settings"][name] for name in DEFAULTS}
    except (OSError, ValueError, LookupError, TypeError) as error:
        if (folder / RUN_FILE).exists():
            log.warning("%s cannot be read: %r", folder / RUN_FILE, error)
        return None


def _as_begun(month: PreparedMonth, editions: dict[str, str]) -> PreparedMonth:
    """The edition that a chain began with; the newest one where that is gone."""
    raw, sha256 = month.raw, editions.get(str(month.raw.month), month.raw.sha256)
    if sha256 == raw.sha256 or raw.data_source == "sample":
        return month
    begun = edition_of(raw.service, raw.month, sha256)
    return month if begun is None else prepare_month(begun)


def training_minutes(run_id: str | None) -> float | None:
    """Return how long a run's notebooks took, also over several tries; None when unknown."""
    if run_id is None:
        return None
    try:
        notebooks = read_json(environment.runs_dir() / run_id / RUN_FILE)["notebooks"]
    except (OSError, ValueError, KeyError):
        return None
    seconds = [entry["seconds"] for entry in notebooks.values() if "seconds" in entry]
    return round(sum(seconds) / 60, 2) if seconds else None


def _create(folder: Path, settings: RunSettings, interactive: bool) -> Run:
    folder.mkdir(parents=True, exist_ok=True)
    run = Run(folder, settings)
    run._write(
        {
            "run_id": folder.name,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "settings": settings.as_parameters(),
            "git_commit": told_commit(),
            "interactive": interactive,
            "status": "created",
            "notebooks": {},
        }
    )
    return run
