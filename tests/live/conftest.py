"""Logs on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from postgres import postgres_server

from taxi_duration.live.prediction_log import PredictionLog, open_log


@pytest.fixture(scope="module")
def postgres(tmp_path_factory) -> Iterator[str]:
    """Address of a private PostgreSQL server; skips where there are no binaries."""
    with postgres_server(tmp_path_factory.mktemp("postgres")) as server:
        yield server.url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path) -> str:
    """An empty store of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'live' / 'predictions.db'}"
    address = request.getfixturevalue("postgres")
    from sqlalchemy import create_engine

    from taxi_duration.live.log_tables import metadata

    engine = create_engine(address.replace("postgresql:", "postgresql+psycopg:"))
    metadata.drop_all(engine)
    engine.dispose()
    return address


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
