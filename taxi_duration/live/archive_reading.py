"""Reads archived rides as if they were still in the log's tables.

Files never change. Later feedback and voidings of their rides are in the tables and take precedence
over the file. A ride that is in both, while it is being moved, is taken from the tables.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, func, inspect, select

from taxi_duration.domain.trace_context import trace_id_of
from taxi_duration.errors import LogError
from taxi_duration.live.log_rows import LastTimes, PredictionRow, ShadowRow
from taxi_duration.live.log_tables import (
    archive_parts,
    feedback,
    known_ids,
    predictions,
    rows_of,
    voided_feedback,
)

# Files read for one list of ids: each takes some 50 ms, and anybody may send ids that look
# archived. A client with feedback on rides of more files sends it in parts.
MOST_PARTS = 40
Part = Row[Any]
ANSWERED = (*PredictionRow.__struct_fields__, "true_duration", "received_at")
Ride = dict[str, Any]  # as `archive_files` has it


class ArchiveReader:
    """The archive of one log.

    Args:
        folder: where the files lie; need not exist while the log has none.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(
        self, connection: Connection, ids: Iterable[str], bounded: bool = True
    ) -> dict[str, Ride]:
        """Return the rides with these ids and their current true durations, by id.

        Args:
            bounded: refuse to read more than MOST_PARTS files.
        Raises:
            LogError: a file is missing or damaged, or too many would be read.
        """
        wanted = sorted(set(ids))
        spans = []
        for part in parts_of(connection) if wanted else []:
            first, end = bisect_left(wanted, part.first_id), bisect_right(wanted, part.last_id)
            if first < end:
                spans.append((part, set(wanted[first:end])))
        if bounded and len(spans) > MOST_PARTS:
            raise LogError(
                f"these ids may lie in {len(spans)} files of the log's archive; "
                f"send those of at most {MOST_PARTS} at once"
            )
        found: dict[str, Ride] = {}
        for part, some in spans:
            for ride in self.read(part):
                if ride["prediction_id"] in some:
                    _merge(found, ride)
        return {ride["prediction_id"]: ride for ride in settled(connection, list(found.values()))}

    def in_trace(self, connection: Connection, trace_id: str) -> dict[str, Ride]:
        """Return the archived rides that were asked in a trace, by id."""
        return {
            ride["prediction_id"]: ride
            for part in parts_of(connection)
            for ride in self.read(part)
            if trace_id_of(ride["traceparent"] or "") == trace_id
        }

    def answered(
        self,
        connection: Connection,
        since: float | None,
        until: float | None,
        model: str | None,
        pair: tuple[str, str] | None,
    ) -> Iterator[dict[str, Any]]:
        """Yield the archive's rides in the order asked; as `PredictionLog.answered`."""
        for ride in self._rides(connection, since, until):
            if model in (None, ride["model"]) and (pair is None or ride["model_sha256"] in pair):
                yield as_answered(ride, pair)

    def received(self, connection: Connection, since: float, until: float) -> Iterator[Ride]:
        """Yield the rides whose archived true duration was received since <= received_at < until.

        Left out are those voided since, or with newer feedback in the tables.
        """
        for cluster in _clusters(parts_of(connection)):
            if any(_overlaps(one.told_since, one.told_until, since, until) for one in cluster):
                rides = [ride for ride in self._merged(cluster) if _received(ride, since, until)]
                later = set(known_ids(connection, [r["prediction_id"] for r in rides], feedback))
                for ride in settled(connection, rides):
                    if ride["received_at"] is not None and ride["prediction_id"] not in later:
                        yield ride

    def voided(self, connection: Connection, since: float, until: float) -> set[tuple[str, float]]:
        """Return (id, time of voiding) of the files' voided feedback received in the period."""
        return {
            (row["prediction_id"], row["voided_at"])
            for part in parts_of(connection)
            if _overlaps(part.voided_since, part.voided_until, since, until)
            for ride in self.read(part)
            for row in ride["voided_feedback"]
            if since <= row["received_at"] < until
        }

    def counts(self, connection: Connection) -> dict[str, int]:
        """Return numbers of rides that are only in the archive, of shadow answers and feedback.

        Feedback that is in the table is left out.
        """
        counts = {"predictions": 0, "shadow_answers": 0, "feedback": 0}
        for cluster in _clusters(parts_of(connection)):
            rides = self._merged(cluster)
            ids = [ride["prediction_id"] for ride in rides]
            here, newer = (set(known_ids(connection, ids, of)) for of in (predictions, feedback))
            for ride in settled(connection, rides):
                if ride["prediction_id"] not in here:
                    counts["predictions"] += 1
                    counts["shadow_answers"] += len(ride["shadow_answers"])
                    has_truth = ride["true_duration"] is not None
                    counts["feedback"] += has_truth and ride["prediction_id"] not in newer
        return counts

    def _rides(
        self, connection: Connection, since: float | None, until: float | None
    ) -> Iterator[Ride]:
        parts = parts_of(connection)
        near = [part for part in parts if _overlaps(part.since, part.until, since, until)]
        for cluster in _clusters(near):
            rides = self._merged(cluster)
            inside = [ride for ride in rides if _is_in(ride["asked_at"], since, until)]
            yield from settled(connection, sorted(inside, key=order_of))

    def _merged(self, cluster: Iterable[Part]) -> list[Ride]:
        """Return the rides of some files, each once."""
        found: dict[str, Ride] = {}
        for part in cluster:
            for ride in self.read(part):
                _merge(found, ride)
        return list(found.values())

    def read(self, part: Part) -> list[Ride]:
        """Return a file's rides, as they were when it was written.

        Raises:
            LogError: it is missing or damaged.
        """
        from taxi_duration.live.archive_files import read_rides  # megabytes, rarely needed

        try:
            rides = read_rides(self._folder / part.name)
        except FileNotFoundError:
            raise LogError(
                f"{part.name} of the log's archive is not in {self._folder}; LOG_ARCHIVE must "
                "name the folder that has it, on every host"
            ) from None
        except (OSError, ValueError) as error:
            raise LogError(f"the log's archive cannot be read: {error}") from error
        if len(rides) != part.rides:
            raise LogError(f"{part.name} of the log's archive has {len(rides)} rides, not "
                           f"{part.rides}")  # fmt: skip
        return rides


def parts_of(connection: Connection) -> Sequence[Part]:
    """Return the archive's files, the oldest first."""
    if not inspect(connection).has_table(archive_parts.name):  # an older log, opened read-only
        return []
    return connection.execute(archive_parts.select().order_by(archive_parts.c.since)).all()


def order_of(row: Any) -> tuple[float, str]:
    """Return the sort key of rides."""
    return row["asked_at"], row["prediction_id"]


def settled(connection: Connection, rides: list[Ride]) -> list[Ride]:
    """Return archived rides with their current true durations.

    Feedback in the tables takes precedence over the file's, which may also be voided since.
    """
    ids = [ride["prediction_id"] for ride in rides]
    late = {row["prediction_id"]: row for row in rows_of(connection, feedback, ids)}
    gone: dict[str, list[dict[str, Any]]] = {}
    for row in rows_of(connection, voided_feedback, ids):
        gone.setdefault(row["prediction_id"], []).append(row)
    return [
        _settle(ride, late.get(ride["prediction_id"]), gone.get(ride["prediction_id"], ()))
        for ride in rides
    ]


def unique(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the first row of each ride, of sorted rows."""
    last = None
    for row in rows:
        if row["prediction_id"] != last:
            yield row
        last = row["prediction_id"]


def as_answered(ride: Ride, pair: tuple[str, str] | None = None) -> dict[str, Any]:
    """Return a ride as `log_tables.joined` selects it; with a pair, as `log_tables.tested`."""
    shadows = ride["shadow_answers"]  # in the order of their digests
    row = {name: ride[name] for name in ANSWERED}
    if pair is not None:
        other = [digest for digest in pair if digest != ride["model_sha256"]]
        shadows = [shadow for shadow in shadows if shadow["model_sha256"] in other]
        failed = [f["asked_as"] for f in ride["model_failures"] if f["model_sha256"] in other]
        row["failed_as"] = next(iter(failed), None)
    shadow: dict[str, Any] = next(iter(shadows), {})
    return row | {f"shadow_{name}": shadow.get(name) for name in ShadowRow.__struct_fields__[1:]}


def last_archived(connection: Connection, now: float) -> LastTimes:
    """Return the times of the archive's last ride and last true duration, of files until now."""
    times = (archive_parts.c.until, archive_parts.c.told_until)
    return LastTimes(
        *(connection.scalar(select(func.max(each)).where(each <= now)) for each in times)
    )


def _merge(found: dict[str, Ride], ride: Ride) -> None:
    """Add a ride; of one that is in two files, the later feedback counts."""
    other = found.setdefault(ride["prediction_id"], ride)
    if other is not ride:
        first, last = sorted((other, ride), key=lambda one: one["received_at"] or 0.0)
        voided = first["voided_feedback"] + last["voided_feedback"]
        found[ride["prediction_id"]] = last | {"voided_feedback": voided}


def _settle(ride: Ride, late: dict[str, Any] | None, gone: Iterable[dict[str, Any]]) -> Ride:
    voided = [*ride["voided_feedback"], *gone]
    if late is not None:
        truth = (late["duration"], late["received_at"], late["verdict"])
    elif ride["received_at"] in {row["received_at"] for row in voided}:
        truth = (None, None, None)
    else:
        return ride
    return ride | dict(zip(("true_duration", "received_at", "verdict"), truth, strict=True))


def _clusters(parts: Iterable[Part]) -> Iterator[list[Part]]:
    """Yield groups of parts whose times overlap, as when rows waited long in a spool."""
    cluster: list[Part] = []
    for part in parts:
        if cluster and part.since >= max(one.until for one in cluster):
            yield cluster
            cluster = []
        cluster.append(part)
    if cluster:
        yield cluster


def _overlaps(
    first: float | None, last: float | None, since: float | None, until: float | None
) -> bool:
    if first is None or last is None:  # no row of the part has such a time
        return False
    return (since is None or last >= since) and (until is None or first < until)


def _is_in(at: float, since: float | None, until: float | None) -> bool:
    return (since is None or at >= since) and (until is None or at < until)


def _received(ride: Ride, since: float, until: float) -> bool:
    return ride["received_at"] is not None and since <= ride["received_at"] < until
