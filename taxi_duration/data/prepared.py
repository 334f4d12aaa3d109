"""Prepared months: cleaned trips cached under the digest of their source and the rules."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from msgspec import Struct, to_builtins

from taxi_duration import environment
from taxi_duration.data import (
    cells,
    cluster,
    columns,
    csv_files,
    packing,
    parquet_files,
    parts,
    times,
    trips,
)
from taxi_duration.data.health import clocks, look, marks, profile
from taxi_duration.data.health.finding import MonthFinding
from taxi_duration.data.health.look import SUSPECT
from taxi_duration.data.health.profile import Profile
from taxi_duration.data.sources import (
    SAMPLE_BANNER,
    RawMonth,
    fetch_months,
    month_here,
    only_looking,
    raw_here,
)
from taxi_duration.data.trips import (
    COLUMNS,
    COURSE_RULES,
    Accounting,
    TripRules,
    check_bad_share,
    read_month,
)
from taxi_duration.domain import ride_columns, zones
from taxi_duration.domain.months import Month, parse_month
from taxi_duration.errors import ContentError, SourceError, SourceUnreachableError
from taxi_duration.files import (
    atomic_path,
    modules_digest,
    read_json,
    remove_leftovers,
    sha256_file,
    typed,
    write_json,
)

log = logging.getLogger(__name__)

# Some megabytes of columns: large enough that numpy's calls cost nothing, small beside a model.
GROUP_ROWS = 500_000
# Times hardly repeat, and follow each other: as differences they take half the time to write and
# half the space, and are read as fast (docs/scale.md).
TIMES = ("pickup_at", "dropoff_at")
ENCODING = {
    "use_dictionary": ["PULocationID", "DOLocationID", "trip_distance", "duration", "reason"],
    "column_encoding": dict.fromkeys(TIMES, "DELTA_BINARY_PACKED"),
}

READING = (
    trips, columns, cells, times, csv_files, parquet_files, packing, parts, ride_columns, zones,
    clocks, look, marks, profile,
)  # fmt: skip


class Facts(Struct, frozen=True):
    """What is kept of a month beside its rows; as `PreparedMonth`."""

    accounting: Accounting
    faults: list[MonthFinding]
    profile: Profile


class Kept(Facts, frozen=True):
    """The same as it lies in a manifest: where the month is from, and by which rule it was made."""

    data_source: str
    rule: str


@dataclass(frozen=True)
class PreparedMonth:
    """A month ready for training: two Parquet files and where they come from.

    `faults` are those that its rows prove (`health.look`), `profile` is what it is compared by.
    """

    raw: RawMonth
    trips_path: Path
    quarantine_path: Path
    accounting: Accounting
    faults: list[MonthFinding]
    profile: Profile

    @classmethod
    def of(cls, raw: RawMonth, folder: Path, stem: str, facts: Facts) -> PreparedMonth:
        """Name a month's files by their stem."""
        files = folder / f"{stem}.parquet", folder / f"{stem}.quarantine.parquet"
        return cls(raw, *files, facts.accounting, facts.faults, facts.profile)

    def moved(self, there: Path, here: Path) -> PreparedMonth:
        """Return the month as of another data folder, where its files need not lie yet."""
        raw, trips, quarantine = (
            here / path.relative_to(there)
            for path in (self.raw.path, self.trips_path, self.quarantine_path)
        )
        return replace(
            self, raw=replace(self.raw, path=raw), trips_path=trips, quarantine_path=quarantine
        )

    def trips(self) -> pd.DataFrame:
        """Return the kept trips, columns as `read_dataframe`."""
        return pd.read_parquet(file_here(self.raw, self.trips_path), columns=list(COLUMNS))

    @property
    def suspects(self) -> int:
        """How many rows carry a proven fault, kept or not."""
        return self.accounting.reasons[SUSPECT]

    def learnable(self) -> pd.DataFrame:
        """Return the kept trips without those that carry a proven fault, as `trips`."""
        if not self.suspects:
            return self.trips()
        trips = pd.read_parquet(file_here(self.raw, self.trips_path))
        return trips.loc[~trips[SUSPECT], list(COLUMNS)].reset_index(drop=True)

    def quarantine(self) -> pd.DataFrame:
        """Return the dropped rows with their `reason`."""
        return pd.read_parquet(file_here(self.raw, self.quarantine_path))

    def every_ride(self) -> pd.DataFrame:
        """Return the kept trips and those outside the rules' minutes, in the order of pickups."""
        outside = self.quarantine()
        outside = outside[outside["reason"] != "bad_time"].drop(columns="reason")
        every = pd.concat([self.trips(), outside])
        return every.sort_values("pickup_at", kind="stable", ignore_index=True)

    def lineage(self) -> dict[str, object]:
        """Return what the card keeps of this month, as plain JSON types."""
        return {
            "service": self.raw.service,
            "month": str(self.raw.month),
            "file": self.raw.path.name,
            "url": self.raw.url,
            "sha256": self.raw.sha256,
            "data_source": self.raw.data_source,
            **self.accounting.as_dict(),
        }


def prepare_months(
    service: str, months: list[Month], rules: TripRules = COURSE_RULES, mode: str | None = None
) -> list[PreparedMonth]:
    """Fetch, read, check and cache months; in time order.

    With `ENGINE=dask` the cluster's workers do it, each in its own data folder, and only what is
    known of a month comes back; where its rows are needed later, `file_here` brings them.

    Args:
        service: green, yellow, fhv or fhvhv.
        months: in time order.
        rules: which rows are kept.
        mode: `auto`, `tlc` or `sample`; what `DATA` says when None.
    Raises:
        TaxiError: a month cannot be fetched, read, or too much of it is bad.
    """
    mode = mode or environment.data_mode()
    if environment.engine() == "local" or only_looking():
        return [prepare_month(raw, rules) for raw in fetch_months(service, months, mode)]
    try:
        # Were each worker to decide for itself, some months might come from the sample.
        return _prepare_on_cluster(service, months, rules, "sample" if mode == "sample" else "tlc")
    except SourceUnreachableError:
        if mode != "auto":
            raise
        log.warning("\n%s", SAMPLE_BANNER)
        return _prepare_on_cluster(service, months, rules, "sample")


def _prepare_on_cluster(
    service: str, months: list[Month], rules: TripRules, mode: str
) -> list[PreparedMonth]:
    """As `prepare_months`; months that lie prepared on this machine are not asked for."""
    found = {month: _cached_here(service, month, rules, mode) for month in months}
    missing = [(month, month.ordinal()) for month, here in found.items() if here is None]
    made = cluster.map_in_order(partial(_prepare_there, service, rules, mode), missing)
    for month, _ in missing:
        there, folder = next(made)
        log.info("%s %s: prepared by a worker", service, month)
        found[month] = there.moved(folder, environment.data_dir())
    return [month for month in found.values() if month is not None]


def _prepare_there(
    service: str, rules: TripRules, mode: str, month: Month
) -> tuple[PreparedMonth, Path]:
    """Return the month, and the data folder that it lies in."""
    (raw,) = fetch_months(service, [month], mode)
    return prepare_month(raw, rules), environment.data_dir()


def _cached_here(service: str, month: Month, rules: TripRules, mode: str) -> PreparedMonth | None:
    raw = month_here(service, month, mode)
    if raw is None or not (_folder() / f"{_stem(raw, rules)}.json").exists():
        return None
    return prepare_month(raw, rules)


def file_here(raw: RawMonth, path: Path) -> Path:
    """Return a prepared month's file on this machine; made here when only another one has it.

    Args:
        raw: the month.
        path: of the file, where it was prepared; its name holds the digest of source and rules.
    Raises:
        SourceError: this machine makes another month of it.
        TaxiError: as `prepare_months`.
    """
    if path.exists():
        return path
    here = _folder() / path.name
    stem = path.name.partition(".")[0]
    if (_folder() / f"{stem}.json").exists():  # written last
        return here
    made = prepare_month(raw_here(raw))
    if made.trips_path.stem != stem:
        raise SourceError(
            f"{raw.service} {raw.month} comes out otherwise on this machine "
            f"({made.trips_path.stem} instead of {stem}): its code or UTC_TIMES is another"
        )
    return here


def prepare_month(raw: RawMonth, rules: TripRules = COURSE_RULES) -> PreparedMonth:
    """Return the prepared month, from the cache when source and rules are unchanged."""
    started = time.perf_counter()
    folder, stem = _folder(), _stem(raw, rules)
    facts = _read_cached(folder, stem)
    how = "from cache"
    if facts is None:
        facts, how = _build(raw, rules, folder, stem), "read"
    accounting = facts.accounting
    for note in accounting.notes:
        log.warning("%s: %s", raw.path.name, note)
    check_bad_share(accounting, raw.path.name, environment.max_bad_share())
    log.info(
        "%s %s: %s of %s rows kept, %s in %.2f s",
        raw.service, raw.month, f"{accounting.rows_kept:,}", f"{accounting.rows_read:,}", how,
        time.perf_counter() - started,
    )  # fmt: skip
    return PreparedMonth.of(raw, folder, stem, facts)


def prepared_profiles(raw: RawMonth, first: Month) -> dict[Month, Profile]:
    """Return the profiles of months that lie prepared here, by month.

    Args:
        raw: a month of the same service and source, the last one wanted.
        first: the first one.
    """
    folder, rule = _folder(), _rule()
    found: dict[Month, Profile] = {}
    written = folder.glob(f"{raw.service}_*.json")
    for path in sorted(written, key=lambda path: path.stat().st_mtime_ns):
        tag = path.name.removeprefix(f"{raw.service}_")[:7]
        if not str(first) <= tag <= str(raw.month):
            continue
        with contextlib.suppress(OSError, ValueError, ContentError):
            kept = typed(read_json(path), Kept, path.name)
            if (kept.data_source, kept.rule) == (raw.data_source, rule):
                found[parse_month(tag)] = kept.profile
    return found


def _folder() -> Path:
    return environment.data_dir() / "prepared"


def _stem(raw: RawMonth, rules: TripRules) -> str:
    """Beginning of the names of a month's files."""
    return f"{raw.service}_{raw.month}-{_digest(raw, rules)[:16]}"


def _digest(raw: RawMonth, rules: TripRules) -> str:
    """Digest of source and rules; the reading code is part of the rules."""
    of = [raw.sha256, str(raw.month), json.dumps(asdict(rules), sort_keys=True)]
    of += [environment.utc_times(), _rule()]
    return hashlib.sha256("\n".join(of).encode()).hexdigest()


def _rule() -> str:
    """Digest of the code that decides what a prepared month is."""
    return modules_digest(READING)


def _build(raw: RawMonth, rules: TripRules, folder: Path, stem: str) -> Facts:
    utc_is_local = environment.utc_times() == "local"
    month = read_month(raw.path, raw.month, rules, raw.service, utc_is_local)
    digests = {}
    kept = month.trips.assign(**{SUSPECT: month.suspects})
    for name, frame in (("", kept), (".quarantine", month.quarantine)):
        path = folder / f"{stem}{name}.parquet"
        remove_leftovers(path)
        with atomic_path(path) as part:
            table = pa.Table.from_pandas(frame, preserve_index=False)
            pq.write_table(table, part, GROUP_ROWS, **ENCODING)
            digests[path.name] = sha256_file(part)
    facts = Facts(month.accounting, month.look.faults, month.look.profile)
    manifest = {
        "source_sha256": raw.sha256, "data_source": raw.data_source, "rule": _rule(),
        "files": digests,
        **to_builtins(facts),
    }  # fmt: skip
    # Written last: a month without its manifest is not in the cache.
    write_json(folder / f"{stem}.json", {**manifest, "sha256": _digest_json(manifest)})
    return facts


def _digest_json(content: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _read_cached(folder: Path, stem: str) -> Facts | None:
    """Facts of a cached month, or None when it is absent or damaged in any way."""
    manifest = folder / f"{stem}.json"
    if not manifest.exists():
        return None
    try:
        content = read_json(manifest)
        whole = content.pop("sha256") == _digest_json(content)
        whole &= all(sha256_file(folder / f) == d for f, d in content["files"].items())
        facts = typed(content, Facts, manifest.name)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ContentError) as error:
        log.warning("prepared month %s is damaged (%r), rebuilding it", stem, error)
        return None
    if not whole:
        log.warning("prepared month %s does not match its checksum, rebuilding it", stem)
        return None
    return facts
