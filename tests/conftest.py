"""What many tests share: a small month, a home of their own, and where real months are."""

from __future__ import annotations

import gc
import os
import pickle
import platform
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import ONE_THREAD, PROJECT, run_pipeline
from filelock import FileLock
from guard import Seen, difference, look
from hypothesis import settings
from reliability import Note, Trial, write_table
from servers import mlflow_process
from settings_read import run_settings, settings_read
from threadpoolctl import threadpool_limits

import taxi_duration.chain  # noqa: F401 - before nbformat, see there
from taxi_duration.data.sample import make_sample_month
from taxi_duration.data.trips import read_dataframe
from taxi_duration.data.window import Window
from taxi_duration.model.duration_model import DurationModel
from taxi_duration.registry import tracking
from taxi_duration.training import day_groups
from taxi_duration.training.fit import fit_model
from taxi_duration.training.kinds import KINDS

REAL = PROJECT.parent / "shared" / "tlc"

USERS_HOME = Path.home()  # no test reads or changes what lies there, or in the project
BEFORE, LEFT = pytest.StashKey[Seen](), pytest.StashKey[list[str]]()
OURS = "TAXI_TESTS_HOME"  # home of the test run, one for all its workers
USERS_CACHE = "TAXI_TESTS_UV_CACHE"  # told to the workers, who do not know the user's home

for name, one in ONE_THREAD.items():
    os.environ.setdefault(name, one)  # for what is imported later, and for child processes
threadpool_limits(1)

# Databases sync at every commit: in memory that takes microseconds, on a disk milliseconds. Long
# tests, among them kills and faults, stay on the disk.
MEMORY = Path("/dev/shm")
NEEDED_BYTES = 4_000_000_000  # the others need a gigabyte at most

# Fixtures that start the service, MLflow's or a cloud's server, a browser, or a chain of commands.
WHOLE = {"start", "served", "server", "bucket", "browser", "chained", "moved_home", "turn"}

# An example that waits for its turn on a busy machine is not a failure.
settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")


def pytest_configure(config: pytest.Config) -> None:
    """Give the test run a home and an environment of its own; remember what the user has."""
    if hasattr(config, "workerinput"):  # a worker has the environment of who started it
        return
    for name in settings_read() | run_settings():
        os.environ.pop(name, None)  # a test decides for itself what is set
    config.stash[BEFORE] = look(USERS_HOME)
    is_quick = "not long" in config.option.markexpr and config.option.basetemp is None
    if is_quick and MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > NEEDED_BYTES:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))
    folder = tempfile.mkdtemp(prefix="taxi-tests-", dir=os.environ.get("PYTEST_DEBUG_TEMPROOT"))
    os.environ |= {OURS: folder, "HOME": folder, "TAXI_HOME": str(Path(folder, "taxi"))}
    os.environ[USERS_CACHE] = str(USERS_HOME / ".cache" / "uv")


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put what starts whole processes, stores or servers into the suite `integration`.

    What takes minutes is begun first.
    """
    for item in items:
        if WHOLE & set(getattr(item, "fixturenames", ())) or item.get_closest_marker("faults"):
            item.add_marker(pytest.mark.integration)
    items.sort(key=lambda item: item.get_closest_marker("first") is None)


def pytest_collection_finish() -> None:
    """Leave out of the search for garbage what is imported and collected: it stays."""
    gc.freeze()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A test run that left something behind has failed."""
    config = session.config
    if BEFORE in config.stash:
        config.stash[LEFT] = difference(config.stash[BEFORE], look(USERS_HOME))
        if config.stash[LEFT] and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    """Name what was left behind."""
    if left := config.stash.get(LEFT, []):
        terminalreporter.section("changed in the project or the home meanwhile", red=True)
        terminalreporter.write_line("by a test, or by a service or run that you have going")
        for path in left[:20]:
            terminalreporter.write_line(path)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the test run's home."""
    if BEFORE in config.stash:
        shutil.rmtree(os.environ[OURS], ignore_errors=True)


@pytest.fixture(scope="session")
def reliability(pytestconfig) -> Iterator[Note]:
    """Notes what a fault cost; `RELIABILITY` names the page that is written of it in the end."""
    trials: list[Trial] = []
    yield lambda *trial: trials.append(Trial(*trial))
    if page := os.environ.get("RELIABILITY"):
        minutes = os.environ.get("FAULT_MINUTES", "1")
        words = (
            f"Written on {date.today():%d %B %Y} by a run with a load of {minutes} min on "
            f"{os.cpu_count()} cores, Python {platform.python_version()}."
        )
        write_table(trials, Path(page), words)


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch) -> None:
    """Every test has a home of its own, unless a fixture of its whole module gave it one."""
    if os.environ["TAXI_HOME"] == str(Path(os.environ[OURS], "taxi")):
        monkeypatch.setenv("TAXI_HOME", str(tmp_path / "home"))


@pytest.fixture
def hearing() -> Iterator[None]:
    """What a test starts hears Ctrl-C and hang-ups, also where `nohup` or `&` started the tests."""
    heard = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
        signal.SIGHUP: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    }
    yield
    for number, before in heard.items():
        signal.signal(number, before)


@pytest.fixture(scope="session")
def uv_cache() -> str | None:
    """Folder of the packages that `make setup` fetched: the one thing of the user's that is used.

    None where there is none; they are then fetched again.
    """
    folder = os.environ.get("UV_CACHE_DIR") or os.environ[USERS_CACHE]
    return folder if Path(folder).is_dir() else None


@pytest.fixture
def real_months() -> Path:
    """Folder of real TLC months; the test is skipped where there is none."""
    if not (REAL / "trip-data").is_dir():
        pytest.skip("real TLC months (../shared/tlc) are not on this machine")
    return REAL


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """An empty home for data, runs, models and tracking, on a small built-in sample."""
    monkeypatch.setenv("TAXI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DATA", "sample")
    monkeypatch.setenv("SAMPLE_ROWS", "4000")
    return tmp_path / "home"


@pytest.fixture
def raw_month() -> pa.Table:
    """Five green trips of January 2021 as TLC writes them, all good."""
    pickup = np.array(["2021-01-04T08:00", "2021-01-04T09:00", "2021-01-05T10:00",
                       "2021-01-06T18:30", "2021-01-31T23:59"], dtype="datetime64[us]")  # fmt: skip
    minutes = np.array([1, 10, 25, 45, 60])
    return pa.table(
        {
            "VendorID": pa.array([2, 2, 1, 2, 1], pa.int64()),
            "lpep_pickup_datetime": pickup,
            "lpep_dropoff_datetime": pickup + minutes.astype("timedelta64[m]"),
            "PULocationID": pa.array([74, 75, 41, 132, 1], pa.int64()),
            "DOLocationID": pa.array([75, 74, 42, 265, 138], pa.int64()),
            "trip_distance": [0.5, 2.0, 4.5, 12.25, 17.0],
            "fare_amount": [4.0, 9.5, 16.0, 40.0, 52.0],
        }
    )


@pytest.fixture
def write_month(tmp_path):
    """Write a table as a Parquet month and return its path."""

    def write(table: pa.Table, name: str = "green_tripdata_2021-01.parquet") -> Path:
        path = tmp_path / name
        pq.write_table(table, path)
        return path

    return write


@pytest.fixture
def trips() -> pd.DataFrame:
    """Six hundred clean trips on nine pairs of zones; minutes grow with miles and the hour."""
    rng = np.random.default_rng(7)
    n = 600
    pickup = np.datetime64("2021-01-04T00:00:00") + rng.integers(0, 27 * 86400, n).astype("m8[s]")
    miles = rng.gamma(2.0, 1.5, n).astype("float32") + np.float32(0.2)
    hour = pickup.astype("datetime64[h]").astype(int) % 24
    minutes = 3 + 3.2 * miles + 0.15 * hour + rng.gamma(2.0, 1.0, n)
    duration = np.clip(minutes, 1, 60).astype("float32")
    return pd.DataFrame(
        {
            "pickup_at": pickup.astype("datetime64[us]"),
            "dropoff_at": (pickup + (duration * 60).astype("m8[s]")).astype("datetime64[us]"),
            "PULocationID": rng.choice([74, 75, 41], n).astype("int16"),
            "DOLocationID": rng.choice([42, 166, 138], n).astype("int16"),
            "trip_distance": miles,
            "duration": duration,
        }
    )


@pytest.fixture(scope="session")
def sample_months(tmp_path_factory) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two clean months in a row from the built-in sample, to fit on and to score; read only."""
    folder = tmp_path_factory.mktemp("sample_months")
    frames = []
    for month in ("2021-01", "2021-02"):
        path = folder / f"green_tripdata_{month}.parquet"
        pq.write_table(make_sample_month("green", month, 6000), path)
        frames.append(read_dataframe(path))
    return frames[0], frames[1]


@pytest.fixture(scope="session")
def shared(tmp_path_factory) -> Path:
    """A folder for what is made once by whichever worker of a test run needs it first."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session", autouse=True)
def tables_made_once(shared) -> Iterator[None]:
    """A new MLflow store copies the tables of the first: making them takes seconds."""
    make = tracking._make_tables

    def copy(database: Path) -> None:
        with FileLock(shared / "mlflow.lock"):
            if not (shared / "mlflow.db").exists():
                make(database)
                shutil.copyfile(database, shared / "part.db")
                (shared / "part.db").replace(shared / "mlflow.db")
        shutil.copyfile(shared / "mlflow.db", database)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tracking, "_make_tables", copy)
        yield


@pytest.fixture
def quick_trees(monkeypatch) -> None:
    """Fits of trees take a tenth of the time, for tests that do not ask how well they answer.

    Not beside `fitted`, whose models are those of all tests.
    """
    monkeypatch.setattr(day_groups, "FOLDS", 2)
    for name, few in (("XGB", {"rounds": 50, "eta": 0.2}), ("RF", {"n_estimators": 10})):
        kind = KINDS[name]
        quicker = {**kind.quicker, **few}
        quick = replace(kind, parameters={**kind.parameters, **few}, quicker=quicker)
        monkeypatch.setitem(KINDS, name, quick)


@pytest.fixture(scope="session")
def fitted(sample_months, shared) -> Callable[[str], DurationModel]:
    """Gives the model of a kind, fitted on the first of `sample_months`; one for all workers."""
    train = sample_months[0]

    @cache
    def fit(kind: str) -> DurationModel:
        path = shared / f"{kind}.pickle"
        with FileLock(shared / f"{kind}.lock"):
            if not path.exists():
                model = fit_model(kind, Window.from_frame(train))
                path.write_bytes(pickle.dumps(model))
        return pickle.loads(path.read_bytes())

    return fit


@pytest.fixture(scope="session")
def chained(shared) -> Path:
    """A home in which the chain ran once, `MODEL=LR` on the small sample; not to be changed.

    All workers of a test run share it; what the chain said is in `output.txt`.
    """
    folder = shared / "chained"
    folder.mkdir(exist_ok=True)
    with FileLock(folder / ".lock"):
        if not (folder / "output.txt").exists():
            done = run_pipeline(folder / "home", MODEL="LR")
            (folder / "output.txt").write_text(done.stdout + done.stderr)
    if not (folder / "home" / "deployment").exists():
        pytest.fail(f"the chain failed:\n{(folder / 'output.txt').read_text()}")
    return folder / "home"


@pytest.fixture
def moved_home(chained, tmp_path, monkeypatch) -> Path:
    """A copy of the chained home in another place, free to change."""
    folder = tmp_path / "moved home"
    shutil.copytree(chained, folder)
    monkeypatch.setenv("TAXI_HOME", str(folder))
    monkeypatch.setenv("DATA", "sample")
    monkeypatch.setenv("SAMPLE_ROWS", "4000")
    return folder


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A real `mlflow server`, named by MLFLOW_TRACKING_URI."""
    store = tmp_path / "server"
    store.mkdir()
    args = ["server", "--backend-store-uri", f"sqlite:///{store}/server.db"]
    args += ["--artifacts-destination", str(store / "artifacts")]
    with mlflow_process(args, "/health", store) as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        yield store
