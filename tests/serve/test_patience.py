"""Reads that hang: so long is one waited for, so many may there be."""

from __future__ import annotations

import threading
import time

import pytest

from serve.core import patience
from serve.core.patience import MOST_HANGING, OvertakenError, Patience
from taxi_duration.errors import BundleError


@pytest.fixture
def free(monkeypatch):
    """Ends the reads that hang."""
    monkeypatch.setattr(patience, "READ_SECONDS", 0.02)
    monkeypatch.setattr(patience, "SLICE_SECONDS", 0.01)
    event = threading.Event()
    yield event
    event.set()


def test_so_many_reads_may_hang_and_no_more(free):
    reader = Patience(lambda: False, threading.Event())
    for key in range(MOST_HANGING):
        with pytest.raises(BundleError, match=r"within 0\.02 s"):
            reader.call(key, free.wait, 20)
    with pytest.raises(BundleError, match="still being read"):
        reader.call(0, free.wait, 20)
    with pytest.raises(BundleError, match="4 bundles are being read"):
        reader.call("another", int)
    free.set()
    deadline = time.monotonic() + 20
    while not all(read.done() for read in reader._hanging.values()):
        assert time.monotonic() < deadline
    assert reader.call("another", int) == 0


@pytest.mark.parametrize("newer", [True, False])
def test_a_read_gives_way_to_something_newer_or_a_stop(free, monkeypatch, newer):
    monkeypatch.setattr(patience, "READ_SECONDS", 20.0)
    monkeypatch.setattr(patience, "GIVE_WAY_SECONDS", 0.02)
    stopped = threading.Event()
    if not newer:
        stopped.set()
    with pytest.raises(OvertakenError):
        Patience(lambda: newer, stopped).call("bundle", free.wait, 20)
