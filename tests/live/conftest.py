"""Logs on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from postgres import postgres_server
from sqlalchemy import Connection, create_engine, inspect

from taxi_duration.live import prediction_log
from taxi_duration.live.log_schema import VERSION
from taxi_duration.live.log_tables import log_schema, metadata
from taxi_duration.live.prediction_log import PredictionLog, open_log


@pytest.fixture(scope="session")
def postgres(tmp_path_factory) -> Iterator[str]:
    """Address of a private PostgreSQL server; skips where there are no binaries."""
    with postgres_server(tmp_path_factory.mktemp("postgres")) as server:
        yield server.url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path, monkeypatch) -> str:
    """An empty store of each kind; on a server, nobody waits for rows of another host."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'live' / 'predictions.db'}"
    monkeypatch.setattr(prediction_log, "DRAIN_SECONDS", 0.0)
    address = request.getfixturevalue("postgres")
    engine = create_engine(address.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        if is_as_made(connection):  # emptied in a tenth of the time that new tables take
            for table in metadata.tables.values():
                if table is not log_schema:
                    connection.execute(table.delete())
        else:
            metadata.drop_all(connection)
    engine.dispose()
    return address


def is_as_made(connection: Connection) -> bool:
    """True when the last test left tables, indexes and version as a new store has them."""
    found, tables = inspect(connection), metadata.tables.values()
    columns = {name: {column["name"] for column in columns}
               for (_, name), columns in found.get_multi_columns().items()}  # fmt: skip
    indexes = {index["name"] for many in found.get_multi_indexes().values() for index in many}
    return (
        columns == {table.name: set(table.columns.keys()) for table in tables}
        and indexes == {index.name for table in tables for index in table.indexes}
        and connection.scalars(log_schema.select()).all() == [VERSION]
    )


@pytest.fixture
def log(url, tmp_path) -> Iterator[PredictionLog]:
    log = open_log(url, tmp_path / "live" / "spool")
    yield log
    log.close()


@pytest.fixture
def local(tmp_path) -> Iterator[PredictionLog]:
    """A log on SQLite, where the kind of store does not matter."""
    log = open_log(f"sqlite:///{tmp_path / 'live' / 'predictions.db'}", tmp_path / "live" / "spool")
    yield log
    log.close()
