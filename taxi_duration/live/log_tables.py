"""The tables of the prediction log, the same on SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Connection,
    Double,
    Engine,
    Index,
    Integer,
    MetaData,
    Select,
    Table,
    Text,
    and_,
    create_engine,
    event,
    func,
    make_url,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError

from taxi_duration.live.log_rows import LastTimes

metadata = MetaData()

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
    Column("duration", Double, nullable=False),  # minutes, as the quantiles
    Column("p10", Double, nullable=False),
    Column("p50", Double, nullable=False),
    Column("p90", Double, nullable=False),
    Column("support", Integer, nullable=False),  # past trips
    Column("used_distance", Boolean, nullable=False),
    Column("model", Text, nullable=False),  # name:version
    Column("model_sha256", Text, nullable=False),
    Column("arm", Text, nullable=False),
    Column("latency_ms", Double),
    Index("predictions_asked_at", "asked_at"),
)
shadow_answers = Table(
    "shadow_answers",
    metadata,
    Column("prediction_id", Text, primary_key=True),
    Column("model_sha256", Text, primary_key=True),
    Column("model", Text, nullable=False),
    Column("duration", Double, nullable=False),
    Column("p10", Double, nullable=False),
    Column("p50", Double, nullable=False),
    Column("p90", Double, nullable=False),
)
# A version of a test that could not answer: the rider got the champion's answer all the same.
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
    Index("feedback_received_at", "received_at"),
)
# Feedback that an operator took out of every judgement; what came after it is judged.
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
# How far each spool file was read; written in the transaction of its rows.
spool_offsets = Table(
    "spool_offsets",
    metadata,
    Column("name", Text, primary_key=True),
    Column("bytes", BigInteger, nullable=False),
)


def make_engine(url: str, lock_seconds: float) -> Engine:
    """Return an engine for the address, with the tables made.

    Args:
        url: `sqlite:///file` or `postgresql://user@host/name`.
        lock_seconds: how long SQLite waits for another writer.
    """
    address = make_url(url)
    if address.query.get("mode") == "ro":
        return create_engine(address)
    if address.get_backend_name() == "sqlite":
        if address.database:
            Path(address.database).parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(address, connect_args={"timeout": lock_seconds})
        event.listen(engine, "connect", _prepare_sqlite)
    else:
        engine = create_engine(
            address.set(drivername="postgresql+psycopg"),
            pool_pre_ping=True,  # the server may have been restarted
            # A network that is gone says nothing: without these it is waited for a quarter hour.
            connect_args={
                "connect_timeout": 5,
                "tcp_user_timeout": 10_000,
                "keepalives_idle": 10,
                "keepalives_interval": 5,
                "keepalives_count": 2,
            },
        )
    try:
        _make_tables(engine)
    except DBAPIError:
        _make_tables(engine)  # another process made them at the same moment
    return engine


def read_only_address(url: str) -> str:
    """Return an address under which nobody can write to the log; an empty one without a file."""
    address = make_url(url)
    if address.query.get("mode") == "ro":
        return url
    if address.get_backend_name() != "sqlite":
        return f"{url}{'&' if address.query else '?'}options=-cdefault_transaction_read_only%3Don"
    path = Path(address.database or "").resolve()
    if not path.is_file():
        return "sqlite://"
    waiting = Path(f"{path}-wal")
    # Without a writer beside it, opening the file must not make one's files of it either.
    alone = not waiting.exists() or waiting.stat().st_size == 0
    return f"sqlite:///file:{quote(str(path))}?mode=ro{'&immutable=1' * alone}&uri=true"


def _make_tables(engine: Engine) -> None:
    metadata.create_all(engine)
    for index in feedback.indexes:  # a log from before there was one keeps its table
        index.create(engine, checkfirst=True)


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    # Synced at each commit: commits are batches and feedback, both off the path of a ride.
    connection.execute("PRAGMA synchronous=FULL")


def insert_new(
    connection: Connection, table: Table, names: Sequence[str], rows: Sequence[tuple[Any, ...]]
) -> None:
    """Insert rows whose primary key is not there yet.

    Args:
        names: columns, in the order of each row's values.
    """
    if not rows:
        return
    if connection.dialect.name == "sqlite":
        # SQLAlchemy's handling of each row would take twice as long as SQLite's own.
        columns, marks = ", ".join(names), ", ".join("?" * len(names))
        statement = f"INSERT OR IGNORE INTO {table.name} ({columns}) VALUES ({marks})"
        connection.exec_driver_sql(statement, list(rows))
    else:
        values = [dict(zip(names, row, strict=True)) for row in rows]
        connection.execute(_insert(connection, table).on_conflict_do_nothing(), values)


def insert_feedback(connection: Connection, rows: Sequence[dict[str, Any]]) -> set[str]:
    """Insert feedback that is not there yet; return the ids that were new."""
    statement = _insert(connection, feedback).values(list(rows)).on_conflict_do_nothing()
    return set(connection.scalars(statement.returning(feedback.c.prediction_id)))


def count_feedback(
    connection: Connection, since: float, until: float, table: Table = feedback
) -> int:
    """Return how many true durations were received since <= received_at < until."""
    query = select(func.count()).select_from(table).where(_received(table, since, until))
    return int(connection.execute(query).scalar_one())


def void_feedback(
    connection: Connection, since: float, until: float, voided_at: float, by: str, why: str
) -> int:
    """Move what was received since <= received_at < until to the voided.

    Returns:
        How many of that time are voided now, those of an earlier call among them.
    """
    kept = (feedback.c.prediction_id, feedback.c.duration, feedback.c.received_at)
    # Deleted first: what another host adds meanwhile is never deleted without being kept.
    gone = feedback.delete().where(_received(feedback, since, until)).returning(*kept)
    note = {"voided_at": voided_at, "voided_by": by, "why": why}
    rows = [{**row, **note} for row in connection.execute(gone).mappings()]
    if rows:
        connection.execute(voided_feedback.insert(), rows)
    return count_feedback(connection, since, until, voided_feedback)


def _received(table: Table, since: float, until: float) -> ColumnElement[bool]:
    return and_(table.c.received_at >= since, table.c.received_at < until)


def last_times(connection: Connection) -> LastTimes:
    """Return when the last ride and the last true duration came."""
    times = (predictions.c.asked_at, feedback.c.received_at)
    return LastTimes(*(connection.scalar(select(func.max(each))) for each in times))


def save_offset(connection: Connection, name: str, offset: int) -> None:
    """Remember how far a spool file was read."""
    statement = _insert(connection, spool_offsets).values(name=name, bytes=offset)
    connection.execute(
        statement.on_conflict_do_update(index_elements=["name"], set_={"bytes": offset})
    )


def known_ids(connection: Connection, ids: Sequence[str], at_once: int = 500) -> list[str]:
    """Return those of the ids that were answered."""
    column = predictions.c.prediction_id
    found: list[str] = []
    for start in range(0, len(ids), at_once):
        query = select(column).where(column.in_(ids[start : start + at_once]))
        found += connection.scalars(query)
    return found


def joined() -> Select[Any]:
    """Select predictions with their feedback and shadow answer, None where there is none.

    Each comes once. Of several shadow answers, of tests that followed each other, it has one;
    whoever judges a test asks for its own with `tested`.
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
    """Select predictions with their feedback and the shadow answer that is wanted."""
    return (
        select(
            predictions,
            feedback.c.duration.label("true_duration"),
            feedback.c.received_at,
            *(
                shadow_answers.c[name].label(f"shadow_{name}")
                for name in ("model", "model_sha256", "duration", "p10", "p50", "p90")
            ),
        )
        .outerjoin(feedback, feedback.c.prediction_id == predictions.c.prediction_id)
        .outerjoin(
            shadow_answers,
            (shadow_answers.c.prediction_id == predictions.c.prediction_id) & wanted,
        )
    )


def feedback_rate(since: float) -> Select[Any]:
    """Select the rides asked for, those of them with their truth, and when the last one came."""
    figures: list[ColumnElement[Any]] = [
        func.count().label("rides"),
        func.count(feedback.c.duration).label("with_truth"),
        func.max(feedback.c.received_at).label("last_at"),
    ]
    told = feedback.c.prediction_id == predictions.c.prediction_id
    query = select(*figures).select_from(predictions).outerjoin(feedback, told)
    return query.where(predictions.c.asked_at >= since)


def _insert(connection: Connection, table: Table) -> Any:
    """An INSERT of the dialect at hand, which knows ON CONFLICT."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    return dialect.insert(table)
