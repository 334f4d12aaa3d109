"""Which schema a prediction log has, and how an older one is migrated.

The number stands in the log itself. What a log of an older release lacks is added when it is
first opened, its rows kept; what cannot be migrated is refused with an error that says what to do,
and rows wait in the spool meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    DefaultClause,
    Engine,
    Table,
    func,
    inspect,
    select,
    text,
)
from sqlalchemy.exc import DBAPIError

from taxi_duration.errors import LogError
from taxi_duration.live.hourly_sums import calls, make_sums
from taxi_duration.live.log_tables import (
    hourly_rides,
    hourly_truths,
    log_schema,
    metadata,
    predictions,
    traffic_sums,
)
from taxi_duration.live.traffic_sums import add_truths
from taxi_duration.timestamps import DAY_SECONDS

VERSION = 3  # 1: every log from before there was a number
LOCK_KEY = 0x7A11_0001  # PostgreSQL's advisory lock of a migration
SUMMED_SECONDS = 8 * DAY_SECONDS  # rides of an older log that get sums: the pages show a week
SUMS = (hourly_rides, hourly_truths)
# Values for rows older than a column. Only what is true of them; values of other NOT NULL columns
# cannot be made up.
BEFORE = {
    "predictions.arm": "'champion'",  # before there were tests, it answered everybody
    "predictions.support": "0",  # as of a pair never seen: nothing is claimed
    "predictions.used_distance": "trip_distance IS NOT NULL",
}
MISSING_STATES = ("42P01", "42703")  # of PostgreSQL: no such table, no such column
MISSING_WORDS = ("no such table", "no such column", "has no column")  # of SQLite
ELSEWHERE = "let LOG_URL name another database, or move this one away: an empty one is then made"


def migrate(engine: Engine) -> None:
    """Make the tables, or add what an older log lacks. Safe in many processes at once.

    Raises:
        LogError: a newer release's log, or one that cannot be migrated; says what to do.
    """
    with engine.connect() as connection:
        if _version(connection) == VERSION and _is_whole(connection):
            return
    with _exclusive(engine) as connection:
        found = _version(connection)
        if found is not None and found > VERSION:
            raise LogError(
                f"the prediction log has schema {found}, this release knows {VERSION} and older: "
                f"start the release that made it, or {ELSEWHERE}"
            )
        names = set(inspect(connection).get_table_names())
        metadata.create_all(connection)
        there = _columns(connection)
        for table in metadata.sorted_tables:
            _complete(connection, table, there)
        if predictions.name in names:
            _sum_up(connection, names)
        connection.execute(log_schema.delete())
        connection.execute(log_schema.insert().values(version=VERSION))


def _sum_up(connection: Connection, names: set[str]) -> None:
    """Make the sums that an older log lacks.

    Args:
        names: of the tables that it had.
    """
    since = (connection.scalar(select(func.max(predictions.c.asked_at))) or 0.0) - SUMMED_SECONDS
    if not names >= {table.name for table in SUMS}:
        for table in SUMS:
            connection.execute(table.delete())
        make_sums(connection, since)
    if traffic_sums.name not in names:
        for rows in calls(connection, since):
            add_truths(connection, rows)


def is_of_schema(error: DBAPIError) -> bool:
    """True when a statement failed because a table or a column is not there."""
    if (state := getattr(error.orig, "sqlstate", None)) is not None:  # PostgreSQL
        return state in MISSING_STATES
    return any(words in str(error.orig) for words in MISSING_WORDS)


def _version(connection: Connection) -> int | None:
    """Return the schema version in the log, None where there is none."""
    if not inspect(connection).has_table(log_schema.name):
        return None
    found = connection.scalar(select(func.max(log_schema.c.version)))
    return None if found is None else int(found)


def _is_whole(connection: Connection) -> bool:
    """Return whether all tables and columns are there, whatever the version says."""
    there = _columns(connection)
    return not any(_missing(there, table) for table in metadata.tables.values())


def _columns(connection: Connection) -> dict[str, set[str]]:
    """Return the names of the columns of each table."""
    found = inspect(connection).get_multi_columns()
    return {name: {column["name"] for column in columns} for (_, name), columns in found.items()}


def _missing(there: dict[str, set[str]], table: Table) -> list[Column[Any]]:
    return [column for column in table.columns if column.name not in there.get(table.name, ())]


@contextmanager
def _exclusive(engine: Engine) -> Iterator[Connection]:
    """A transaction that excludes other migrations; creating tables is part of it."""
    with engine.connect() as connection:
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.execute(select(func.pg_advisory_xact_lock(LOCK_KEY)))
        try:
            yield connection
        except BaseException:
            connection.rollback()
            raise
        connection.commit()


def _complete(connection: Connection, table: Table, there: dict[str, set[str]]) -> None:
    """Add the columns and indexes that a table of an older log lacks."""
    for column in _missing(there, table):
        _add_column(connection, table, column)
    for index in table.indexes:
        index.create(connection, checkfirst=True)


def _add_column(connection: Connection, table: Table, column: Column[Any]) -> None:
    """Add a column; older rows get the value in `BEFORE`.

    Raises:
        LogError: it must not be empty and no value is known for older rows.
    """
    before = BEFORE.get(f"{table.name}.{column.name}")
    default = column.server_default
    if before is None and default is None and not column.nullable:
        raise LogError(
            f"the table {table.name} has no column {column.name}, and no value for its rows "
            f"is known: {ELSEWHERE}"
        )
    quoted = connection.dialect.identifier_preparer
    kind = column.type.compile(connection.dialect)
    name, of = quoted.format_column(column), quoted.format_table(table)
    if isinstance(default, DefaultClause):
        kind += f" NOT NULL DEFAULT '{default.arg}'"
    connection.execute(text(f"ALTER TABLE {of} ADD COLUMN {name} {kind}"))
    if before is not None:
        connection.execute(text(f"UPDATE {of} SET {name} = {before}"))
