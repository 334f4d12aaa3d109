"""The tables of the prediction log, the same on SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, TypeVar

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Connection,
    Dialect,
    Double,
    Index,
    Integer,
    MetaData,
    Select,
    Table,
    Text,
    and_,
    func,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite

from taxi_duration.live.log_rows import LastTimes, ShadowRow

T = TypeVar("T")

AT_ONCE = 500  # ids or rows in one statement
MOST_VALUES = 900  # in one of SQLite's; some of its builds allow 999

metadata = MetaData()


def _minutes() -> list[Column[float]]:
    """Return the columns of an answer and its quantiles."""
    return [Column(name, Double, nullable=False) for name in ("duration", "p10", "p50", "p90")]


# What an answer was multiplied and its interval stretched with, see `live/traffic_now.py`.
LIVE = ("traffic", "stretch_low", "stretch_high")
BASE = ("base_duration", "base_p10", "base_p50", "base_p90")


def _live() -> list[Column[float]]:
    """Return the columns of the live traffic in an answer, and of the answer without it."""
    factors = [Column(name, Double, nullable=False, server_default="1") for name in LIVE]
    return [*factors, *(Column(name, Double) for name in BASE)]


predictions = Table(
    "predictions",
    metadata,
    Column("prediction_id", Text, primary_key=True),
    Column("ride_id", Text),
    Column("asked_at", Double, nullable=False),  # unix seconds, UTC
    Column("PULocationID", Integer, nullable=False),
    Column("DOLocationID", Integer, nullable=False),
    Column("pickup_at", Text, nullable=False),  # ISO, New York local time
    Column("trip_distance", Double),  # miles
    *_minutes(),
    Column("support", Integer, nullable=False),  # past trips
    Column("used_distance", Boolean, nullable=False),
    Column("model", Text, nullable=False),  # name:version
    Column("model_sha256", Text, nullable=False),
    Column("arm", Text, nullable=False),
    Column("latency_ms", Double),
    Column("traceparent", Text),  # W3C Trace Context, of requests that came with one
    *_live(),
    Index("predictions_asked_at", "asked_at"),
)
shadow_answers = Table(
    "shadow_answers",
    metadata,
    Column("prediction_id", Text, primary_key=True),
    Column("model_sha256", Text, primary_key=True),
    Column("model", Text, nullable=False),
    *_minutes(),
    *_live(),
    # The rows are the index: they are small, and its key, the digest too, would stand there twice.
    # Logs of older releases keep the table that they have.
    sqlite_with_rowid=False,
)
# A version under test that could not answer: the rider got the champion's answer.
model_failures = Table(
    "model_failures",
    metadata,
    Column("prediction_id", Text, primary_key=True),
    Column("model_sha256", Text, primary_key=True),
    Column("model", Text, nullable=False),
    Column("asked_as", Text, nullable=False),  # the arm, or `shadow`
    Column("error", Text, nullable=False),
)
feedback = Table(
    "feedback",
    metadata,
    Column("prediction_id", Text, primary_key=True),
    Column("duration", Double, nullable=False),  # true minutes
    Column("received_at", Double, nullable=False),
    # A code of `domain.truths`, before days are judged; the hourly sums count it under this code.
    # The default is for rows of an older log: few of them have another code.
    Column("verdict", Text, nullable=False, server_default="scored"),
    Index("feedback_received_at", "received_at"),
)
# Feedback that an operator withdrew from evaluation; later feedback on the same ride counts.
voided_feedback = Table(
    "voided_feedback",
    metadata,
    Column("prediction_id", Text, primary_key=True),
    Column("duration", Double, nullable=False),
    Column("received_at", Double, nullable=False),
    Column("voided_at", Double, primary_key=True),
    Column("voided_by", Text, nullable=False),
    Column("why", Text, nullable=False),
)
# Sums by the hour in which rides were asked (unix hours), see `hourly_sums`.
hourly_rides = Table(
    "hourly_rides",
    metadata,
    Column("hour", Integer, primary_key=True),
    Column("model", Text, primary_key=True),
    Column("arm", Text, primary_key=True),
    Column("rides", BigInteger, nullable=False),
    Column("timed", BigInteger, nullable=False),  # rides with a latency
    Column("latency_ms", Double, nullable=False),  # their sum
    Column("last_asked_at", Double, nullable=False),
)
hourly_truths = Table(
    "hourly_truths",
    metadata,
    Column("hour", Integer, primary_key=True),
    Column("model", Text, primary_key=True),
    Column("arm", Text, primary_key=True),
    Column("day", Text, primary_key=True),  # of the pickup, ISO: days are judged as a whole
    Column("verdict", Text, primary_key=True),  # as in `feedback`
    Column("rides", BigInteger, nullable=False),
    Column("placed", BigInteger, nullable=False),  # these as `truths.Pace` of a day
    Column("quick", BigInteger, nullable=False),
    Column("slow", BigInteger, nullable=False),
    Column("covered", BigInteger, nullable=False),  # within P10-P90
    Column("error", Double, nullable=False),  # sum of absolute minutes
    Column("square", Double, nullable=False),  # of their squares
)
# What true durations said of the traffic, by ten minutes of ride time in which rides ended, see
# `traffic_sums`; a row's figures are described at `traffic_bins`.
traffic_sums = Table(
    "traffic_sums",
    metadata,
    Column("model_sha256", Text, primary_key=True),
    Column("bin", Integer, primary_key=True),
    Column("area", Integer, primary_key=True),
    Column("rides", BigInteger, nullable=False),
    Column("log_sum", Double, nullable=False),
    Column("off_without", Double, nullable=False),
    Column("off_with", Double, nullable=False),
    Column("below", BigInteger, nullable=False),
    Column("above", BigInteger, nullable=False),
    Column("below_base", BigInteger, nullable=False),
    Column("above_base", BigInteger, nullable=False),
    Column("told_at", Double, nullable=False),  # of the last true duration, unix seconds
    # When the first of them was received; None in rows of an older release: nobody knows.
    Column("begun_at", Double),
    Index("traffic_sums_told_at", "told_at"),
)
# Files of the archive; readers look into those that stand here. See `log_archive`.
archive_parts = Table(
    "archive_parts",
    metadata,
    Column("name", Text, primary_key=True),  # path in the archive's folder
    Column("rides", Integer, nullable=False),
    Column("since", Double, nullable=False),  # first and last moment of asking, unix seconds
    Column("until", Double, nullable=False),
    Column("first_id", Text, nullable=False),
    Column("last_id", Text, nullable=False),
    Column("told_since", Double),  # first and last feedback; None without any
    Column("told_until", Double),
    Column("voided_since", Double),  # and of what was voided, when it was received
    Column("voided_until", Double),
    Column("emptied", Boolean, nullable=False),  # its rides are gone from the tables
)
log_schema = Table("log_schema", metadata, Column("version", Integer, primary_key=True))
# How far each spool file was read; written in the transaction of its rows.
spool_offsets = Table(
    "spool_offsets",
    metadata,
    Column("name", Text, primary_key=True),
    Column("bytes", BigInteger, nullable=False),
)

# What a column has in a row that names no value for it, for those that may be left out.
DEFAULTS: dict[str, dict[str, float | None]] = {
    table.name: {
        column.name: 1.0 if column.name in LIVE else None
        for column in table.columns
        if column.nullable or column.name in LIVE
    }
    for table in metadata.tables.values()
}


def insert_new(
    connection: Connection, table: Table, names: Sequence[str], columns: Sequence[Sequence[Any]]
) -> None:
    """Insert rows whose primary key is not there yet.

    Args:
        names: of the columns.
        columns: each one's values; none when there are no rows.
    """
    if not columns:
        return
    if connection.dialect.name == "sqlite":
        _insert_quickly(connection, table, dict(zip(names, columns, strict=True)))
    else:
        values = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
        connection.execute(insert(connection.dialect, table).on_conflict_do_nothing(), values)


def _insert_quickly(
    connection: Connection, table: Table, columns: Mapping[str, Sequence[Any]]
) -> None:
    """Insert into SQLite without SQLAlchemy, whose work on a row takes longer than SQLite's own.

    Many rows in one statement, for to run one takes as long as to write half a row; and without
    the columns in which all rows have what the table puts there itself: they are a third while
    there is no traffic, and to hand a value over takes as long as to write it.
    """
    plain = DEFAULTS[table.name]
    kept = {
        name: values
        for name, values in columns.items()
        if name not in plain or values.count(plain[name]) < len(values)
    }
    rows = list(zip(*kept.values(), strict=True))
    marks = f"({', '.join('?' * len(kept))})"
    head = f"INSERT OR IGNORE INTO {table.name} ({', '.join(kept)}) VALUES "
    at_once = MOST_VALUES // len(kept)
    rest = len(rows) - len(rows) % at_once
    starts = range(0, rest, at_once)
    together = [tuple(chain.from_iterable(rows[at : at + at_once])) for at in starts]
    if together:
        connection.exec_driver_sql(head + ", ".join([marks] * at_once), together)
    if rows[rest:]:
        connection.exec_driver_sql(head + marks, rows[rest:])


def insert_feedback(connection: Connection, rows: Sequence[dict[str, Any]]) -> set[str]:
    """Insert feedback that is not there yet; return the ids that were new."""
    # Sorted: two calls with the same rides lock them in one order and never deadlock. Parameters,
    # not values of the statement: compiling it anew took longer than all else of a call.
    ordered = sorted(rows, key=lambda row: row["prediction_id"])
    statement = insert(connection.dialect, feedback).on_conflict_do_nothing()
    returning = statement.returning(feedback.c.prediction_id)
    return set(connection.scalars(returning, ordered)) if ordered else set()


def received_in(
    connection: Connection, table: Table, since: float, until: float
) -> Iterator[dict[str, Any]]:
    """Yield rows of `feedback` or `voided_feedback` with since <= received_at < until."""
    query = table.select().where(_received(table, since, until))
    yield from map(dict, connection.execute(query).mappings())


def take_out_feedback(connection: Connection, since: float, until: float) -> list[dict[str, Any]]:
    """Delete the feedback with since <= received_at < until, and return its rows."""
    gone = feedback.delete().where(_received(feedback, since, until)).returning(feedback)
    return [dict(row) for row in connection.execute(gone).mappings()]


def _received(table: Table, since: float, until: float) -> ColumnElement[bool]:
    return and_(table.c.received_at >= since, table.c.received_at < until)


def last_times(connection: Connection, now: float) -> LastTimes:
    """Return the times of the last ride and the last true duration in the tables, until now."""
    times = (predictions.c.asked_at, feedback.c.received_at)
    return LastTimes(
        *(connection.scalar(select(func.max(each)).where(each <= now)) for each in times)
    )


def save_offset(connection: Connection, name: str, offset: int) -> None:
    """Remember how far a spool file was read."""
    statement = insert(connection.dialect, spool_offsets).values(name=name, bytes=offset)
    connection.execute(
        statement.on_conflict_do_update(index_elements=["name"], set_={"bytes": offset})
    )


def known_ids(
    connection: Connection, ids: Sequence[str], table: Table = predictions
) -> Iterator[str]:
    """Yield the ids that a table has."""
    column = table.c.prediction_id
    for chunk in chunks(ids):
        yield from connection.scalars(select(column).where(column.in_(chunk)))


def unknown_rows(connection: Connection, rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Return the rows whose id `predictions` does not have yet, each once.

    Args:
        rows: values, the id first.
    """
    first: dict[str, tuple[Any, ...]] = {}
    for row in rows:
        first.setdefault(row[0], row)
    for known in known_ids(connection, list(first)):
        del first[known]
    return list(first.values())


def rows_of(connection: Connection, table: Table, ids: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield a table's rows with these ids, as dicts."""
    names = table.c.keys()
    for chunk in chunks(ids):
        query = table.select().where(table.c.prediction_id.in_(chunk))
        for row in connection.execute(query).all():
            yield dict(zip(names, row, strict=True))


def count(connection: Connection, table: Table) -> int:
    """Return the number of a table's rows."""
    return int(connection.scalar(select(func.count()).select_from(table)) or 0)


def chunks(items: Sequence[T]) -> Iterator[list[T]]:
    """Yield the items in lists of at most `AT_ONCE`, for one statement each."""
    for start in range(0, len(items), AT_ONCE):
        yield list(items[start : start + AT_ONCE])


def joined() -> Select[Any]:
    """Select predictions with their feedback and shadow answer, None where there is none.

    Each comes once. A ride of several tests has several shadow answers; it comes with one of
    them. To judge one test, select its own with `tested`.
    """
    other = shadow_answers.alias()
    first = (
        select(func.min(other.c.model_sha256))
        .where(other.c.prediction_id == predictions.c.prediction_id)
        .correlate(predictions)
        .scalar_subquery()
    )
    return _with_shadow(shadow_answers.c.model_sha256 == first)


def tested(pair: tuple[str, str]) -> Select[Any]:
    """Select the rides that one of two versions answered, as `joined`, with the other's answer.

    `failed_as` is how the other was asked where it failed: an arm, or `shadow`; else None.

    Args:
        pair: the digests of the two.
    """

    def of_other(table: Table) -> ColumnElement[bool]:
        digest = table.c.model_sha256
        return digest.in_(pair) & (digest != predictions.c.model_sha256)

    return (
        _with_shadow(of_other(shadow_answers))
        .add_columns(model_failures.c.asked_as.label("failed_as"))
        .outerjoin(
            model_failures,
            (model_failures.c.prediction_id == predictions.c.prediction_id)
            & of_other(model_failures),
        )
        .where(predictions.c.model_sha256.in_(pair))
    )


def _with_shadow(wanted: ColumnElement[bool]) -> Select[Any]:
    """Select predictions with their feedback and the shadow answer that meets the condition."""
    return (
        select(
            predictions,
            feedback.c.duration.label("true_duration"),
            feedback.c.received_at,
            *(
                shadow_answers.c[name].label(f"shadow_{name}")
                for name in ShadowRow.__struct_fields__[1:]
            ),
        )
        .outerjoin(feedback, feedback.c.prediction_id == predictions.c.prediction_id)
        .outerjoin(
            shadow_answers,
            (shadow_answers.c.prediction_id == predictions.c.prediction_id) & wanted,
        )
    )


def feedback_rate(since: float, name: str) -> Select[Any]:
    """Select the number of rides asked since then, of those with feedback, and its last time.

    Args:
        name: of the models that answered, without a version's number; empty for all.
    """
    figures: list[ColumnElement[Any]] = [
        func.count().label("rides"),
        func.count(feedback.c.duration).label("with_truth"),
        func.max(feedback.c.received_at).label("last_at"),
    ]
    same_ride = feedback.c.prediction_id == predictions.c.prediction_id
    query = select(*figures).select_from(predictions).outerjoin(feedback, same_ride)
    ours = predictions.c.model.startswith(f"{name}:" if name else "", autoescape=True)
    return query.where(predictions.c.asked_at >= since, ours)


def insert(dialect: Dialect, table: Table) -> Any:
    """Return the dialect's own INSERT, which has ON CONFLICT."""
    return (postgresql if dialect.name == "postgresql" else sqlite).insert(table)
