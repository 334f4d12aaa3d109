"""Calls that wait for workers run at the same time, and end together when one fails."""

from __future__ import annotations

import threading
import time

import pytest

from taxi_duration.data.engine import call_all, failed_beside

WAIT_S = 60


@pytest.fixture
def with_dask(monkeypatch):
    monkeypatch.setenv("ENGINE", "dask")


def fail():
    raise ValueError("the cause")


def wait_for_failure():
    until = time.monotonic() + WAIT_S
    while not failed_beside():
        assert time.monotonic() < until, "nobody told of the failure"
        time.sleep(0.01)
    raise RuntimeError("given up")


def test_answers_come_in_the_order_of_the_calls(with_dask):
    both = threading.Barrier(2, timeout=WAIT_S)  # passed by two that run at once

    def call(number):
        both.wait()
        return number

    assert call_all([lambda: call(1), lambda: call(2)]) == [1, 2]


def test_one_process_calls_one_after_the_other():
    seen = []
    assert call_all([lambda: seen.append(1), lambda: seen.append(2)]) == [None, None]
    assert seen == [1, 2]


def test_a_failure_ends_the_calls_beside_it_and_those_of_an_outer_call(with_dask):
    def inner():
        return call_all([wait_for_failure, fail])

    with pytest.raises(ValueError, match="the cause"):
        call_all([wait_for_failure, inner])


def test_a_later_call_knows_nothing_of_an_earlier_failure(with_dask):
    with pytest.raises(ValueError, match="the cause"):
        call_all([fail])
    assert call_all([failed_beside]) == [[]]
