"""The one place where the package reads the environment: where things lie, where months come from.

What only the service needs to know (port, workers, limits) is read in `serve/settings.py`.
"""

from __future__ import annotations

import locale
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from taxi_duration.errors import SettingError

PACKAGE = Path(__file__).resolve().parent
PROJECT_ROOT = PACKAGE.parent
LOOPBACK = ("localhost", "127.0.0.1", "::1")
PUBLIC_TLC_URL = "https://d37ci6vzurychx.cloudfront.net"
DATA_MODES = ("auto", "tlc", "sample")
ENGINES = ("local", "dask")
SCHEDULER_FORM = "tcp://HOST:PORT or tls://HOST:PORT"  # as `dask scheduler` prints it
MOST_DIGITS = 18  # of a whole number; longer ones are typing errors, and fit no 64 bits
EXPERIMENT = "taxi-duration"  # MLflow's, of all our runs
LOCATION_FILE = "location.txt"  # in tracking/: where it lay when it was last used
# Of 4 million rows XGBoost keeps a gigabyte; what twice as many buy stands in docs/scale.md.
BOOST_ROWS = 4_000_000
MOST_DAYS = 36_500  # a century; more is a typing error, and no time that a database can hold
MOST_SAMPLE_ROWS = 100_000_000  # five times a month of fhvhv, the largest service
# A socket's path has 103 bytes (macOS) or more; below the folder Python's own take 32 of them.
MOST_SOCKET_BYTES = 70
YES, NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")  # of a switch
NOT_NEGATIVE = "a whole number, 0 or above"  # in words


def setting(name: str) -> str | None:
    """A setting as the environment gives it; None when it is not set, empty or of spaces alone.

    Spaces around it are left out: files of settings and copied lines bring them along.

    Raises:
        SettingError: it is no text in UTF-8, which neither log nor registry could keep.
    """
    value = os.environ.get(name, "").strip()
    if not value.isascii() and any("\ud800" <= sign <= "\udfff" for sign in value):
        raise SettingError(f"{name} is no text in UTF-8")
    return value or None


def _folder(name: str, default: Path) -> Path:
    """A folder that a setting names, or the default.

    Raises:
        SettingError: a file is there, or as `_path`.
    """
    given = setting(name)
    if given is None:
        return default.resolve()
    folder = _path(name, given)
    if folder.is_file():
        raise SettingError(f"{name} is {given!r}; it must be a folder, and that is a file")
    return folder


def _path(name: str, given: str) -> Path:
    """A path as a setting gives it; a relative one is taken from the project's root.

    Notebooks, JupyterLab and timers have another working directory than a shell. `~` is the user's
    home, also where no shell has put it in: files of settings, units, containers.

    Raises:
        SettingError: it is in the home of a user that there is not.
    """
    try:
        return (PROJECT_ROOT / Path(given).expanduser()).resolve()
    except RuntimeError as error:
        raise SettingError(f"{name} is {given!r}; there is no such user") from error


def home() -> Path:
    """Folder of data/, runs/, models/, tracking/ and deployment/: `TAXI_HOME`, else the project."""
    return _folder("TAXI_HOME", PROJECT_ROOT)


def restart_in_utf8() -> None:
    """Start this process again in Python's UTF-8 mode where the locale has another encoding.

    Libraries write notebooks and pages in the locale's, in which there may be no dash.
    """
    if not sys.flags.utf8_mode and locale.getencoding().lower() not in ("utf-8", "utf8"):
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def spare_loopback_proxies() -> None:
    """Reach servers on this machine directly, whatever proxy is set; child processes inherit it.

    A proxy would look for 127.0.0.1 on its own machine.
    """
    named = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    hosts = [host for host in map(str.strip, named.split(",")) if host]
    spared = ",".join([*hosts, *(host for host in LOOPBACK if host not in hosts)])
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = spared


@contextmanager
def temporary(**values: str) -> Iterator[None]:
    """Set names of the environment for a while; an empty value counts as not set."""
    before = {name: os.environ.get(name) for name in values}
    os.environ |= values
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextmanager
def temporary_home(folder: Path) -> Iterator[None]:
    """Use another home for a while; months stay where they are, and nothing waits for approval."""
    # Bundles and deployment are the other home's, also where this one's lie somewhere else.
    others = {"MODELS_DIR": "", "DEPLOYMENT_DIR": "", "AUTO_APPROVE": ""}
    with temporary(DATA_DIR=str(data_dir()), TAXI_HOME=str(folder), **others):
        yield


def data_dir() -> Path:
    """Folder of raw, sample and prepared months: `DATA_DIR`, else data/ in `home`."""
    return _folder("DATA_DIR", home() / "data")


def runs_dir() -> Path:
    """Folder with one sub-folder per pipeline run."""
    return home() / "runs"


def models_dir() -> Path:
    """Folder of saved bundles, `<name>/<version>/model.bin`: `MODELS_DIR`, else in `home`."""
    return _folder("MODELS_DIR", home() / "models")


def tracking_dir() -> Path:
    """Folder of the default MLflow database and artifacts."""
    return home() / "tracking"


def deployment_dir() -> Path:
    """Folder of deployment.json, which says what serves: `DEPLOYMENT_DIR`, else in `home`."""
    return _folder("DEPLOYMENT_DIR", home() / "deployment")


def live_dir() -> Path:
    """Folder of the prediction log and what waits to get into it."""
    return data_dir() / "live"


def scratch_dir() -> Path:
    """Folder of what a process needs on disk while it works, removed when it has ended."""
    return data_dir() / "scratch"


def sqlite_url(path: Path) -> str:
    """Address of a database file; in one `?` begins options, and `%41` is a quoted letter."""
    return f"sqlite:///{re.sub(r'[?]|%(?=[0-9a-fA-F]{2})', lambda sign: quote(sign[0]), str(path))}"


def temporary_folder() -> Path:
    """Folder of temporary files, and of the sockets by which the processes of a run talk.

    Raises:
        SettingError: none can be written, or its path is too long for sockets.
    """
    try:
        folder = tempfile.gettempdir()
    except FileNotFoundError as error:
        raise SettingError("no folder takes temporary files; TMPDIR must name one") from error
    if len(os.fsencode(folder)) > MOST_SOCKET_BYTES:
        raise SettingError(
            f"TMPDIR is {folder!r}; sockets lie in it, so it must have at most "
            f"{MOST_SOCKET_BYTES} bytes"
        )
    return Path(folder)


def log_url() -> str:
    """Database of the prediction log: `LOG_URL`, else SQLite in `live_dir`.

    Raises:
        SettingError: no address of SQLite or PostgreSQL; not shown, as it may hold a password.
    """
    url = setting("LOG_URL") or sqlite_url(live_dir() / "predictions.db")
    if not re.match(r"(sqlite|postgres(ql)?)(\+\w+)?://", url):
        raise SettingError(
            "LOG_URL is no address of SQLite or PostgreSQL; sqlite:////FOLDER/FILE or "
            "postgresql://USER:PASSWORD@HOST/NAME is one"
        )
    return url


def log_archive(url: str) -> Path:
    """Folder of the log's old months: `LOG_ARCHIVE`, else beside the log.

    Args:
        url: of the log. Of a database on a server, the default is a folder in `live_dir`, which
            must be the same for every host that reads the log.
    """
    if setting("LOG_ARCHIVE"):
        return _folder("LOG_ARCHIVE", live_dir())
    path = url.partition("?")[0].removeprefix("sqlite:///")
    if not url.startswith("sqlite:///") or not path:
        return live_dir() / "archive"
    file = Path(unquote(path.removeprefix("file:")))
    return file.with_name(f"{file.stem}-archive")


def log_keep_days() -> int:
    """`LOG_KEEP_DAYS`: days that rides stay in the log before they are archived; 0 for ever.

    The default is a year and the month that it is compared with.
    """
    return _whole("LOG_KEEP_DAYS", 400, 0, NOT_NEGATIVE, MOST_DAYS)


def log_max_mb() -> int:
    """`LOG_MAX_MB`: size beyond which the log's oldest rides are archived; 0 for no limit."""
    return _whole("LOG_MAX_MB", 0, 0, NOT_NEGATIVE)


def tlc_url() -> str:
    """Base of the months: `TLC_URL` without a trailing slash.

    A relative folder is taken from the project's root, so that it means the same
    in a shell, in JupyterLab and under papermill.
    """
    url = (setting("TLC_URL") or PUBLIC_TLC_URL).rstrip("/")
    return url if "://" in url else str(_path("TLC_URL", url))


def local_tracking_uri() -> str:
    """Address of the default MLflow database, as `mlflow` takes it."""
    return sqlite_url(tracking_dir() / "mlflow.db")


def tracking_server() -> str | None:
    """`MLFLOW_TRACKING_URI`: where runs are tracked, None for the local store.

    The local store's own address, which the `mlflow` command needs, means the local store too. A
    relative path of SQLite's is taken from the project's root, as `TLC_URL` is: notebooks have
    another working directory.
    """
    given = setting("MLFLOW_TRACKING_URI")
    path = (given or "").removeprefix("sqlite:///")
    if path != (given or "") and path and not path.startswith(("/", "?", "file:")):
        given = f"sqlite:///{PROJECT_ROOT / path}"
    return None if given == local_tracking_uri() else given


def needs_approval() -> bool:
    """True with `AUTO_APPROVE=manual`: a person approves a challenger before it answers riders.

    Raises:
        SettingError: any other value.
    """
    return choice("AUTO_APPROVE", ("auto", "manual")) == "manual"


def notify_urls() -> list[str]:
    """`NOTIFY_URLS`: who gets messages about alarms and decisions; addresses in apprise's form.

    Between them stand commas, spaces or new lines. A comma inside one (the recipients of a
    mail) is followed by no new address.
    """
    text = setting("NOTIFY_URLS") or ""
    parts = re.split(r"\s+|,(?=[A-Za-z][A-Za-z0-9]*://)", text)
    return [url for part in parts if (url := part.strip(","))]


def public_url() -> str:
    """`PUBLIC_URL`: where people reach the service's pages, without a trailing slash."""
    return (setting("PUBLIC_URL") or "http://127.0.0.1:9696").rstrip("/")


def code_commit() -> str | None:
    """`GIT_COMMIT`: the code's commit where git cannot say it, as in an image."""
    return setting("GIT_COMMIT")


def api_key() -> str | None:
    """`API_KEY`: what `pipeline.py replay` shows to a service that wants a key."""
    return setting("API_KEY")


def data_mode() -> str:
    """`DATA`: `auto` (real months, sample without network), `tlc` or `sample`.

    Raises:
        SettingError: any other value.
    """
    return choice("DATA", DATA_MODES)


def engine() -> str:
    """`ENGINE`: where months are worked on: `local`, in this process, or `dask`, on a cluster.

    Raises:
        SettingError: any other value.
    """
    return choice("ENGINE", ENGINES)


def dask_scheduler() -> str | None:
    """`DASK_SCHEDULER`: address of the cluster; None for one of this machine's own cores.

    Raises:
        SettingError: no address of a scheduler.
    """
    text = setting("DASK_SCHEDULER")
    if text is None:
        return None
    try:
        address = urlsplit(text)
        is_one = address.scheme in ("tcp", "tls") and address.hostname and address.port
    except ValueError:  # the port is no number, or a bracket is open
        is_one = False
    if not is_one or address.path or address.query or address.fragment or address.username:
        raise SettingError(f"DASK_SCHEDULER is {text!r}; it must be {SCHEDULER_FORM}")
    return text


def extra_features() -> Path | None:
    """`EXTRA_FEATURES`: a file of weather or events by hour, or None; see `model/extra_features`.

    A relative path is taken from the project's root, as `TLC_URL` is.
    """
    path = setting("EXTRA_FEATURES")
    return _path("EXTRA_FEATURES", path) if path else None


def atlas_folder() -> Path | None:
    """`ATLAS`: where the atlas lies: `auto`, the default, is the package's own; None for `none`.

    Anything else is a folder that `pipeline.py atlas` wrote; a relative path is taken from the
    project's root, as `TLC_URL` is.
    """
    named = setting("ATLAS") or "auto"
    if named.lower() == "none":
        return None
    return PACKAGE / "model" if named.lower() == "auto" else _path("ATLAS", named)


def boost_rows() -> int | None:
    """`BOOST_ROWS`: most trips of a window that XGBoost learns from; None for `all`.

    Raises:
        SettingError: anything else.
    """
    if (setting("BOOST_ROWS") or "").lower() == "all":
        return None
    return _whole("BOOST_ROWS", BOOST_ROWS, 1, "a positive whole number, or `all`")


def device() -> str:
    """`DEVICE`: what XGBoost learns on, `cpu` or `cuda`.

    Raises:
        SettingError: any other value.
    """
    return choice("DEVICE", ("cpu", "cuda"))


def choice(name: str, allowed: tuple[str, ...]) -> str:
    """The value of a setting that is one of a few words; the first of them when it is not set.

    Raises:
        SettingError: any other value.
    """
    word = (setting(name) or allowed[0]).lower()
    if word not in allowed:
        raise SettingError(f"{name} is {word!r}; allowed are {', '.join(allowed)}")
    return word


def max_bad_share() -> float:
    """`MAX_BAD_SHARE`: share of bad rows (0-1) above which a month stops the run; 0.2.

    Raises:
        SettingError: not a number between 0 and 1.
    """
    text = setting("MAX_BAD_SHARE") or "0.2"
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise SettingError(f"MAX_BAD_SHARE is {text!r}; it must be a number from 0 to 1")
    return share


def utc_times() -> str:
    """`UTC_TIMES`: `convert` times marked UTC to New York, or `local`: the mark is wrong.

    Raises:
        SettingError: any other value.
    """
    return choice("UTC_TIMES", ("convert", "local"))


def signing_key() -> bytes | None:
    """`MODEL_PRIVATE_KEY`, or else `MODEL_SIGNING_KEY`, as bytes; None: bundles need no signature.

    A secret, or one of a pair of keys: see `model/signatures.py`. Where one file of settings is for
    all, as in Compose, the second is what everybody checks with, the first what only makers get.

    Raises:
        SettingError: a key is set under the name that one would guess for the public one: nothing
            reads it, and bundles would be served unchecked.
    """
    if setting("MODEL_PUBLIC_KEY"):
        raise SettingError(
            "MODEL_PUBLIC_KEY is set, and no such setting is read: the public key of a pair is "
            "MODEL_SIGNING_KEY, the private one beside it MODEL_PRIVATE_KEY"
        )
    key = setting("MODEL_PRIVATE_KEY") or setting("MODEL_SIGNING_KEY")
    return key.encode() if key else None


def sample_rows() -> int | None:
    """`SAMPLE_ROWS`: rows of a generated month; None for the generator's default.

    Raises:
        SettingError: not a positive whole number.
    """
    return positive("SAMPLE_ROWS", 1, MOST_SAMPLE_ROWS) if setting("SAMPLE_ROWS") else None


def positive(name: str, default: int, highest: int | None = None) -> int:
    """A whole number above zero from the environment, at most `highest`.

    Raises:
        SettingError: anything else.
    """
    return _whole(name, default, 1, "a positive whole number", highest)


def _whole(name: str, default: int, lowest: int, allowed: str, highest: int | None = None) -> int:
    """A whole number, `lowest` or above, from the environment; raises as `positive`."""
    text = setting(name) or str(default)
    if not text.isdecimal() or len(text) > MOST_DIGITS or int(text) < lowest:
        raise SettingError(f"{name} is {text!r}; it must be {allowed}")
    if highest is not None and int(text) > highest:
        raise SettingError(f"{name} is {text!r}; it must be at most {highest}")
    return int(text)


def is_on(name: str) -> bool:
    """True for a switch that says `1`, `true`, `yes` or `on`; False for their opposites and unset.

    Raises:
        SettingError: any other value.
    """
    word = (setting(name) or NO[0]).lower()
    if word not in YES + NO:
        raise SettingError(f"{name} is {word!r}; allowed are {', '.join(YES + NO)}")
    return word in YES
