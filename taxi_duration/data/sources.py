"""Where months come from: data/raw first, then `TLC_URL`, and the sample only without network.

A file in data/raw is never edited. When the source has published a month anew, its new bytes
are kept beside the old ones (`….v2.parquet`), and the newest edition is the one that is read.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

from taxi_duration import environment
from taxi_duration.data import sample
from taxi_duration.data.addresses import check_source
from taxi_duration.data.parts import choose_parts, digest_of_parts, part_digests
from taxi_duration.data.remote import (
    Stamp,
    ask_source,
    check_layout,
    folder_files,
    names_in,
    open_source,
    present,
    with_retries,
)
from taxi_duration.domain.months import Month, format_months
from taxi_duration.errors import (
    MonthNotPublishedError,
    SettingError,
    SourceError,
    SourceUnreachableError,
    WouldActError,
)
from taxi_duration.files import (
    DISK_FULL,
    atomic_folder,
    atomic_path,
    read_json,
    remove_leftovers,
    sha256_file,
    typed,
    write_bytes,
    write_json,
)

log = logging.getLogger(__name__)

PUBLISHED = (".parquet", ".csv.gz", ".csv")  # what TLC has published months as
# What people and tools make of them; without a suffix it is a folder of part files.
SUFFIXES = (
    *PUBLISHED, ".zip", ".csv.zip", ".parquet.zip", ".csv.bz2", ".csv.zst", ".csv.xz",
    ".parquet.gz", ".tsv", ".txt", "",
)  # fmt: skip
# Between TLC_URL and a month's file: TLC's own, then those of mirrors.
LAYOUTS = ("/trip-data/", "/", "/{service}/")
SAMPLE_BANNER = """\
**********************************************************************
*  SAMPLE: no network, or DATA=sample. This trains on generated      *
*  trips, not on real ones, and the figures describe those. For real *
*  months give TLC_URL (an address or a folder); DATA=tlc forbids    *
*  the sample.                                                       *
**********************************************************************"""

_ONLY_LOOKING: ContextVar[bool] = ContextVar("only looking", default=False)


def only_looking() -> bool:
    """True inside of `without_downloads`."""
    return _ONLY_LOOKING.get()


@contextlib.contextmanager
def without_downloads() -> Iterator[None]:
    """Raise a WouldActError for a while instead of downloading anything."""
    before = _ONLY_LOOKING.set(True)
    try:
        yield
    finally:
        _ONLY_LOOKING.reset(before)


@dataclass(frozen=True)
class RawMonth:
    """A month's file, or folder of part files, on this machine.

    `data_source` is `tlc` or `sample`; `url` is where the file came from, None when the
    user put it into data/raw.
    """

    service: str
    month: Month
    path: Path
    sha256: str
    data_source: str
    url: str | None


def fetch_months(service: str, months: list[Month], mode: str | None = None) -> list[RawMonth]:
    """Return the files of all months, all real or all from the sample.

    Args:
        service: green, yellow, fhv or fhvhv.
        months: in time order.
        mode: `auto`, `tlc` or `sample`; what `DATA` says when None.
    Raises:
        MonthNotPublishedError: the source answers and does not have a month.
        SourceUnreachableError: no network, and `DATA=tlc` forbids the sample or there is none.
        SettingError: the sample is asked for, and there is none.
        SourceError: the source's file cannot be used.
    """
    mode = mode or environment.data_mode()
    if mode == "sample":
        return [_sample(service, month) for month in months]
    try:
        return [fetch_month(service, month) for month in months]
    except SourceUnreachableError:
        if mode == "tlc" or service not in sample.FIRST_MONTH:
            raise
        log.warning("\n%s", SAMPLE_BANNER)
        return [_sample(service, month) for month in months]


def fetch_month(service: str, month: Month) -> RawMonth:
    """Return a real month from data/raw, its newest edition; downloaded when it is not there.

    Raises:
        MonthNotPublishedError, SourceUnreachableError, SourceError: as `fetch_months`.
    """
    stored = newest_edition(service, month)
    if stored is not None:
        return stored
    for name, address in _candidates(service, month):
        path = _raw_dir() / name
        if download(address, path):
            return _stored(service, month, path)
    check_layout(environment.tlc_url(), LAYOUTS)
    raise MonthNotPublishedError(
        f"{service} {month} is not published yet: {environment.tlc_url()} has no "
        f"{_stem(service, month)}{{{','.join(_suffixes())}}} (TLC publishes a month about two "
        "months later)"
    )


def raw_here(raw: RawMonth) -> RawMonth:
    """Return a month as it lies on this machine; fetched when only another machine has it.

    Raises:
        SourceError: the bytes here are others than those that the other machine read.
        MonthNotPublishedError, SourceUnreachableError: as `fetch_months`.
    """
    if raw.path.exists():
        return raw
    (here,) = fetch_months(raw.service, [raw.month], raw.data_source)
    if here.sha256 != raw.sha256:
        raise SourceError(
            f"{raw.service} {raw.month} is another file on this machine ({here.path.name}, SHA-256 "
            f"{here.sha256[:12]}…) than where it was read first ({raw.path.name}, "
            f"{raw.sha256[:12]}…): all machines must have the same TLC_URL, and no other edition "
            "in data/raw"
        )
    return here


def month_here(service: str, month: Month, mode: str) -> RawMonth | None:
    """Return a month that lies on this machine; None when it would have to be fetched or made.

    Args:
        mode: `tlc` or `sample`.
    Raises:
        SourceError: as `newest_edition`.
    """
    if mode == "tlc":
        return newest_edition(service, month)
    return _sample(service, month) if _sample_path(service, month).exists() else None


def newest_edition(service: str, month: Month) -> RawMonth | None:
    """Return the month's newest file in data/raw, None when there is none.

    Raises:
        SourceError: the file is not what was stored.
    """
    editions = _editions(service, month)
    return _stored(service, month, editions[-1]) if editions else None


def edition_of(service: str, month: Month, sha256: str) -> RawMonth | None:
    """Return the month's edition in data/raw with this digest, None when it is not there.

    Raises:
        SourceError: as `newest_edition`.
    """
    stored = (_stored(service, month, path) for path in _editions(service, month))
    return next((edition for edition in stored if edition.sha256 == sha256), None)


def published_months(service: str, months: Iterable[Month]) -> Iterator[Month]:
    """Yield those of the months that can be had, in their order; nothing is downloaded.

    Each is asked for only when the one before it was taken. Without network those in data/raw
    can be had.

    Raises:
        SourceUnreachableError: no network, and none of them is in data/raw.
        SourceError: the source does not say whether it has a month.
    """
    unreachable, found = None, False
    for month in months:
        try:
            there = bool(_editions(service, month)) or (
                unreachable is None and _is_at_source(service, month)
            )
        except SourceUnreachableError as error:
            unreachable, there = error, False
        if there:
            found = True
            yield month
    if unreachable is not None and not found:
        raise unreachable


def existing_months(service: str, months: list[Month], say: Callable[[str], None]) -> list[Month]:
    """Return the months that the source has, and say which it has not.

    All of them when they will come from the sample.
    """
    if environment.data_mode() == "sample":
        return months
    try:
        found = list(published_months(service, months))
    except SourceUnreachableError:
        if environment.data_mode() == "tlc":
            raise
        return months
    if missing := sorted({*months} - {*found}):
        say(f"not published: {format_months(missing)}")
    return found


def fetch_republished(newest: RawMonth) -> RawMonth | None:
    """Fetch a stored month again when the source has other bytes now; they are kept beside.

    Args:
        newest: as `newest_edition`.
    Returns:
        The new edition; None when the bytes are the same, when the source has the month no
        more, or when it is the user's own file.
    Raises:
        SourceUnreachableError, SourceError: as `fetch_months`.
    """
    if newest.url is None:
        return None
    ours = f"{_stem(newest.service, newest.month)}{_suffix(newest.path)}"
    folders = _folders(newest.service).values()
    # As it was called where it came from, which may be in other letters.
    names = dict.fromkeys((newest.url.rpartition("/")[2], ours))
    stamps = (_ask(name, folder + name) for name, folder in product(names, folders))
    stamp = next(filter(None, stamps), None)
    if stamp is None or not _may_differ(newest, stamp):
        return None
    path = _next_edition(newest)
    if not download(stamp.url, path, newest.sha256):
        return None
    if path.exists():
        return _stored(newest.service, newest.month, path)
    # Uploaded again, byte for byte: the marks of the new upload belong to the old file.
    write_json(_beside(newest.path, STAMP), asdict(stamp))
    return None


def download(url: str, path: Path, known: str | None = None) -> bool:
    """Download a file or a folder of part files, with retries and a progress bar.

    Args:
        known: digest of bytes that are here; those get no other name, not even for a moment, in
            which another process would take them for a new edition.
    Returns:
        False when the source has none.

    Raises:
        SourceUnreachableError: no connection, after retries.
        SourceError: the source fails in another way, after retries.
    """
    if only_looking():
        raise WouldActError(f"fetch {path.name}, and decide then")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path)
    except OSError as error:  # said of the folder here, not of the source
        raise _not_written(path.parent, error) from error
    # Asked for before the bytes: marks older than the bytes make them fetched once too often,
    # younger ones would hide a change for ever.
    stamp = ask_source(url)
    if stamp is None or not (path.suffix or stamp.is_folder):
        return False
    get = _download_folder if stamp.is_folder else _download_once
    try:
        return bool(with_retries(url, get, stamp, path, known))
    except SourceError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and _is_of_this_machine(cause, path.parent):
            raise _not_written(path.parent, cause) from error
        raise


def _is_of_this_machine(error: OSError, folder: Path) -> bool:
    """True when the file could not be written here, whatever the source sends."""
    in_folder = str(error.filename or "").startswith(f"{folder}{os.sep}")
    return in_folder or error.errno in (*DISK_FULL, errno.EROFS)


def _not_written(folder: Path, error: OSError) -> SourceError:
    is_full = error.errno in DISK_FULL
    remedy = "free some room" if is_full else "let it be written, or set DATA_DIR"
    return SourceError(
        f"{folder} cannot be written: {error.strerror}; {remedy}, and give the same command again"
    )


class _KnownError(Exception):
    """The bytes are those that are here already."""


def _download_folder(stamp: Stamp, path: Path, known: str | None) -> bool:
    files, found = folder_files(stamp.url)
    try:
        with atomic_folder(path) as folder:
            for name in choose_parts(found, path.name):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                files.get_file(found[name], str(folder / name), callback=_progress(name))
                _check_content(folder / name, found[name])
            _note(folder, path, stamp, known)
    except _KnownError:
        pass
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or not path.is_dir():
            raise
        log.info("%s was fetched by another process meanwhile", path.name)
    return True


def _note(part: Path, path: Path, stamp: Stamp, known: str | None) -> None:
    """Keep checksum and marks of what is about to get its name: a month always has its checksum.

    Raises:
        _KnownError: it is to get none.
    """
    digests = part_digests(part)
    if digest_of_parts(digests) == known:
        raise _KnownError
    write_json(_beside(path, STAMP), asdict(stamp))
    _record_checksum(path, digests, stamp.url)


def _download_once(stamp: Stamp, path: Path, known: str | None) -> bool:
    files, remote = open_source(stamp.url)
    # Over HTTP aiohttp compares the body with its Content-Length itself.
    size = None if stamp.url.startswith("http") else stamp.size
    with contextlib.suppress(_KnownError), atomic_path(path) as part:
        files.get_file(remote, str(part), callback=_progress(path.name))
        if size is not None and part.stat().st_size != size:
            raise OSError(f"got {part.stat().st_size:,} of {size:,} bytes")
        _check_content(part, stamp.url)
        _note(part, path, stamp, known)
    return True


def _check_content(part: Path, url: str) -> None:
    """Refuse a web page that a portal or proxy sent for the file, and half a Parquet file."""
    with part.open("rb") as file:
        head = file.read(64)
        file.seek(max(0, part.stat().st_size - 4))
        tail = file.read()
    if not head:
        raise SourceError(f"{url} answered without any bytes, not with a file of trips")
    if head.lstrip()[:1] == b"<":
        raise SourceError(f"{url} answered with a page ({head[:40]!r}…), not with a file of trips")
    if head[:4] == b"PAR1" and tail != b"PAR1":
        raise OSError(f"got half a Parquet file, it ends in {tail!r}")


def _progress(name: str):
    from fsspec.callbacks import TqdmCallback

    # None: only in a terminal. In a notebook or a log every step of the bar would be a line.
    look = {"desc": name, "unit": "B", "unit_scale": True, "leave": False, "delay": 1}
    return TqdmCallback(tqdm_kwargs={**look, "disable": None})


# --- editions in data/raw --------------------------------------------------------------------

CHECKSUM, STAMP = ".sha256", ".source.json"  # kept beside each file, after its whole name
EDITION = re.compile(r"\.v(\d+)(?=\.|$)")


def _raw_dir() -> Path:
    return environment.data_dir() / "raw"


def _stem(service: str, month: Month) -> str:
    return f"{service}_tripdata_{month}"


def _suffixes() -> tuple[str, ...]:
    """Return the suffixes to look for; TLC's own site has months in its own forms alone."""
    return PUBLISHED if environment.tlc_url() == environment.PUBLIC_TLC_URL else SUFFIXES


def _folders(service: str) -> dict[str, str]:
    """Where the source may keep months: layout -> address of the folder."""
    check_source()
    base = environment.tlc_url()
    layouts = LAYOUTS[:1] if base == environment.PUBLIC_TLC_URL else LAYOUTS
    return {layout: base + layout.format(service=service) for layout in layouts}


def _candidates(service: str, month: Month) -> Iterator[tuple[str, str]]:
    """Yield name and address of each file that the source may have for a month.

    What its folders list, without their listing all forms in all places. A source that cannot be
    listed is asked where and in which form it had the last month, as long as it still has that.
    """
    folders = list(_folders(service).values())
    suffixes = _suffixes()
    stem = _stem(service, month)
    listed = names_in(folders)
    if listed is not None and any(listed):
        # Of names that differ in case alone the one in small letters comes last, and is taken.
        written = [{name.lower(): name for name in sorted(there)} for there in listed]
        for suffix, (folder, names) in product(suffixes, zip(folders, written, strict=True)):
            if name := names.get(stem + suffix):
                yield stem + suffix, folder + name
        return
    if len(folders) > 1 and (known := _last_download(service, folders)) is not None:
        folders, suffixes = [known[0]], tuple(dict.fromkeys((*PUBLISHED, known[1])))
    # Some stores list nothing of what they have.
    known_as = {f + stem + suffix: stem + suffix for suffix, f in product(suffixes, folders)}
    for address in present(list(known_as)):
        yield known_as[address], address


def _last_download(service: str, folders: list[str]) -> tuple[str, str] | None:
    """Return folder and suffix of the newest month that came from one of these folders.

    None without one, or when the source has it no more: it may keep its months elsewhere by now.
    """
    for checksum in sorted(_raw_dir().glob(f"{service}_tripdata_*{CHECKSUM}"), reverse=True):
        path = checksum.with_name(checksum.name.removesuffix(CHECKSUM))
        url = _source_of(path) or ""
        folder = next((f for f in folders if url.startswith(f) and "/" not in url[len(f) :]), None)
        if folder is not None:
            return (folder, _suffix(path)) if _ask(path.name, url) is not None else None
    return None


def _ask(name: str, address: str) -> Stamp | None:
    """What the source says of a file; None when it has none, or has no months in this form."""
    stamp = ask_source(address)
    is_wanted = stamp is not None and (stamp.is_folder or name.lower().endswith(SUFFIXES[:-1]))
    return stamp if is_wanted else None


def _is_at_source(service: str, month: Month) -> bool:
    if any(_ask(*found) is not None for found in _candidates(service, month)):
        return True
    check_layout(environment.tlc_url(), LAYOUTS)
    return False


def _editions(service: str, month: Month) -> list[Path]:
    """The month's files and folders in data/raw, the newest last; empty when there are none."""
    suffixes = "|".join(map(re.escape, SUFFIXES))
    pattern = re.compile(rf"{_stem(service, month)}(?:\.v(\d+))?({suffixes})", re.IGNORECASE)
    found = {}
    for path in _raw_dir().glob("*") if _raw_dir().is_dir() else ():
        match = pattern.fullmatch(path.name)
        if match and (match[2] or path.is_dir()):
            place = int(match[1] or 1), -SUFFIXES.index(match[2].lower())
            found[place] = path
    best = {number: path for (number, _), path in sorted(found.items())}
    return list(best.values())


def _suffix(path: Path) -> str:
    fitting = (suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix))
    return path.name[len(path.name) - max(map(len, fitting)):]  # fmt: skip


def _next_edition(newest: RawMonth) -> Path:
    match = EDITION.search(newest.path.name)
    number = int(match[1]) + 1 if match else 2
    stem = _stem(newest.service, newest.month)
    return newest.path.with_name(f"{stem}.v{number}{_suffix(newest.path)}")


def _stored(service: str, month: Month, path: Path) -> RawMonth:
    return RawMonth(service, month, path, _checked_sha256(path), "tlc", _source_of(path))


def _may_differ(newest: RawMonth, stamp: Stamp) -> bool:
    """True when a mark of the source's file is another, or when none was kept to compare."""
    # A folder at the source also holds what is not fetched: marks of its writer, checksums.
    if not stamp.is_folder and stamp.size not in (None, newest.path.stat().st_size):
        return True
    kept = _beside(newest.path, STAMP)
    if not kept.exists():
        return True
    known = typed(read_json(kept), Stamp, kept.name)
    pairs = zip(known.marks(), stamp.marks(), strict=True)
    return any(None not in pair and pair[0] != pair[1] for pair in pairs)


# --- checksums beside raw files --------------------------------------------------------------


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def _record_checksum(path: Path, digests: dict[str, str], url: str | None) -> None:
    # The format of `sha256sum`; the address is in a comment line, which `sha256sum -c` skips.
    lines = [f"{digest}  {_named(path, part)}\n" for part, digest in digests.items()]
    content = (f"# {url}\n" if url else "") + "".join(lines)
    write_bytes(_beside(path, CHECKSUM), content.encode())


def _named(path: Path, part: str) -> str:
    return f"{path.name}/{part}" if part else path.name


def _checked_sha256(path: Path) -> str:
    """Digest of a raw month; raw files are never edited, so a changed one is an error."""
    try:
        found = part_digests(path)
    except OSError as error:
        raise SourceError(f"{path.name} in data/raw cannot be read: {error.strerror}") from error
    checksum = _beside(path, CHECKSUM)
    if not checksum.exists():
        _record_checksum(path, found, None)
    lines = (line.split(maxsplit=1) for line in _checksum_of(path).splitlines())
    known = {
        line[1].removeprefix(path.name).lstrip("/"): line[0]
        for line in lines
        if len(line) == 2 and line[0] != "#"
    }
    digest = digest_of_parts(found)
    if found != known:
        recorded = digest_of_parts(known)[:12] if known else "none"
        raise SourceError(
            f"{path.name} in data/raw changed since it was stored (SHA-256 {digest[:12]}…, "
            f"recorded {recorded}…); delete it and its .sha256 to fetch it again"
        )
    return digest


def _checksum_of(path: Path) -> str:
    checksum = _beside(path, CHECKSUM)
    try:
        return checksum.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(
            f"{checksum.name} in data/raw is no checksum ({error}); delete it, and the month too "
            "where it is to be fetched again"
        ) from error


def _source_of(path: Path) -> str | None:
    """Where a file came from; None for one that the user put there."""
    first = _checksum_of(path).split("\n", 1)[0]
    return first.removeprefix("# ") if first.startswith("# ") else None


def _sample(service: str, month: Month) -> RawMonth:
    """The month from the project's own generator, kept apart from real months."""
    path, rows = _sample_path(service, month), environment.sample_rows()
    if not path.exists():
        remove_leftovers(path)
        try:
            with atomic_path(path) as part:
                sample.write_sample_month(part, service, str(month), rows)
        except ValueError as error:  # a service or a month that is not generated
            raise SettingError(f"the sample (DATA) has no {service} {month}: {error}") from error
    return RawMonth(service, month, path, sha256_file(path), "sample", None)


def _sample_path(service: str, month: Month) -> Path:
    rows = environment.sample_rows()
    # One folder for each size and each version of the generator: two runs at once never
    # change a file under each other, and an old sample never passes for a new one.
    kind = f"{rows or 'default'}-{sha256_file(sample.__file__)[:8]}"
    return environment.data_dir() / "sample" / kind / f"{service}_tripdata_{month}.parquet"
