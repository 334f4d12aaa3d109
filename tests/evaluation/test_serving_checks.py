"""Checks of how a challenger serves: each passes, fails, and cannot be told."""

from __future__ import annotations

import numpy as np
import pytest

from taxi_duration.evaluation.serving_checks import (
    check_answers,
    check_failures,
    check_latency,
    check_split,
)


@pytest.mark.parametrize(
    ("challenger", "rides", "share", "passed"),
    [
        (200, 1000, 0.2, True),
        (240, 1000, 0.2, True),  # p 0.0016: chance, at one of many looks
        (260, 1000, 0.2, False),
        (140, 1000, 0.2, False),
        (10, 1000, 0.2, False),  # 1 % of the riders where 20 % were planned
        (0, 20, 0.2, True),  # too few to tell
        (1000, 1000, 1.0, True),
        (999, 1000, 1.0, False),
        (1, 1000, 0.0, False),
        (0, 1000, 0.0, True),
    ],
)
def test_split_is_held_against_the_planned_share(challenger, rides, share, passed):
    assert check_split(challenger, rides, share, min_p=1e-4).passed is passed


def test_chance_of_a_false_mismatch_is_the_bound():
    """Exact rides of 20,000 tests at share 0.2: p is below 0.01 in about 1 % of them."""
    met = np.random.default_rng(0).binomial(2000, 0.2, 20_000)
    wrong = np.mean([check_split(int(n), 2000, 0.2, 0.01).passed is False for n in met])
    assert 0.007 < wrong < 0.013


@pytest.mark.parametrize(
    ("failed", "rides", "passed"),
    [(0, 1000, True), (1, 1000, True), (2, 1000, None), (8, 1000, False), (100, 100, False)],
)
def test_failures_are_held_against_their_bound(failed, rides, passed):
    assert check_failures(failed, rides, most=0.001).passed is passed


@pytest.mark.parametrize(
    ("both", "rides", "passed"),
    [(1000, 1000, True), (950, 1000, True), (940, 1000, None), (900, 1000, False),
     (50, 1000, False), (0, 100, False)],
)  # fmt: skip
def test_answers_are_held_against_their_bound(both, rides, passed):
    assert check_answers(both, rides, least=0.95).passed is passed


def milliseconds(median: float, slow: float, n: int = 1000) -> np.ndarray:
    """n times of which one in ten is slow."""
    return np.where(np.arange(n) % 10 == 0, slow, median)


@pytest.mark.parametrize(
    ("challenger", "passed"),
    [
        (milliseconds(10, 40), True),
        (milliseconds(19, 79), True),
        (milliseconds(21, 40), False),  # the median alone
        (milliseconds(10, 90), False),  # P95 alone
    ],
)
def test_median_and_p95_are_each_held_against_the_champions(challenger, passed):
    found = check_latency(milliseconds(10, 40), challenger, ratio=2.0, free_ms=5.0)
    assert found.passed is passed


def test_milliseconds_below_the_free_ones_never_fail():
    assert check_latency(np.full(500, 0.1), np.full(500, 4.9), 2.0, 5.0).passed
    assert check_latency(np.full(500, 0.1), np.full(500, 5.1), 2.0, 5.0).passed is False


def test_few_slow_answers_cannot_be_told_from_chance():
    few = np.where(np.arange(100) < 6, 90.0, 10.0)
    assert check_latency(np.full(500, 10.0), few, 2.0, 5.0).passed is None


def test_texts_name_figure_and_bound():
    assert check_split(10, 1000, 0.2, 1e-4).text == (
        "10 of 1,000 rides (1.0%) met the challenger, planned are 20% (p 5.4e-51)"
    )
    assert check_failures(3, 1000, 0.001).text == (
        "it failed at 3 of 1,000 rides (0.3%), allowed are 0.1%"
    )
    assert check_answers(50, 1000, 0.95).text == (
        "both answered 50 of 1,000 rides (5.0%), needed are 95%"
    )
    assert check_latency(np.full(9, 10.0), np.full(9, 30.0), 2.0, 5.0).text == (
        "it takes median 30.00 ms (allowed 20.00), P95 30.00 ms (allowed 20.00)"
    )
