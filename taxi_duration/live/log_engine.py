"""Opening the prediction log's database, and what SQLite and PostgreSQL do not do alike."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event, func, make_url, select

from taxi_duration.live.log_schema import migrate

PROGRESS_STEPS = 100_000  # SQLite's instructions between looks at the clock, some milliseconds
FREED_PAGES = 200  # of 4 kB in one step: more than one deletion frees


def make_engine(url: str, lock_seconds: float) -> Engine:
    """Return an engine for the address, its tables created or migrated.

    Args:
        url: `sqlite:///file` or `postgresql://user@host/name`.
        lock_seconds: how long SQLite waits for another writer.
    Raises:
        LogError: as `migrate`.
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
            # Without these, a broken network is noticed after a quarter of an hour.
            connect_args={
                "connect_timeout": 5,
                "tcp_user_timeout": 10_000,
                "keepalives_idle": 10,
                "keepalives_interval": 5,
                "keepalives_count": 2,
            },
        )
    try:
        migrate(engine)
    except BaseException:
        engine.dispose()
        raise
    return engine


def read_only_address(url: str) -> str:
    """Return an address that opens the log read-only; of an empty database without a file."""
    address = make_url(url)
    if address.query.get("mode") == "ro":
        return url
    if address.get_backend_name() != "sqlite":
        return f"{url}{'&' if address.query else '?'}options=-cdefault_transaction_read_only%3Don"
    path = Path(address.database or "").resolve()
    if not path.is_file():
        return "sqlite://"
    waiting = Path(f"{path}-wal")
    # With no writer, opening it must not create side files: immutable.
    alone = not waiting.exists() or waiting.stat().st_size == 0
    return f"sqlite:///file:{quote(str(path))}?mode=ro{'&immutable=1' * alone}&uri=true"


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    # Both are stored in the file, and setting them waits for writers: only set what is missing.
    if connection.execute("PRAGMA page_count").fetchone() == (0,):
        # Lets the archive return freed pages to the file system step by step.
        connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
    if connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
        connection.execute("PRAGMA journal_mode=WAL")
    # Synced at each commit: commits are batches and feedback; no ride waits for them.
    connection.execute("PRAGMA synchronous=FULL")


def give_back_space(connection: Connection) -> None:
    """Return some free pages of SQLite's file to the file system; PostgreSQL does so by itself.

    A file made by an older release keeps its size and reuses them.
    """
    if connection.dialect.name == "sqlite":
        driver: Any = connection.connection.driver_connection
        # It frees a page at each step, and `execute` takes one step only.
        driver.executescript(f"PRAGMA incremental_vacuum({FREED_PAGES})")


@contextmanager
def end_after(connection: Connection, seconds: float) -> Iterator[None]:
    """Let the database cancel queries of the block after so long; SQLAlchemy's error is raised."""
    if connection.dialect.name != "sqlite":
        limit = select(func.set_config("statement_timeout", f"{round(seconds * 1000)}", True))
        connection.execute(limit)
        yield
        return
    ends = time.monotonic() + seconds
    driver: Any = connection.connection.driver_connection
    driver.set_progress_handler(lambda: time.monotonic() > ends, PROGRESS_STEPS)
    try:
        yield
    finally:
        driver.set_progress_handler(None, 0)
