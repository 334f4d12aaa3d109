"""A gain is told by a word and a figure without a sign: nobody is "nearer by -0.435 min"."""

from __future__ import annotations

from math import inf

import pytest

from taxi_duration.evaluation.gain_words import gain_in_words


@pytest.mark.parametrize(
    ("gain", "low", "high", "said"),
    [
        (0.3124, 0.1, 0.5236, "nearer by 0.312 min (0.100 to 0.524)"),
        (-0.435, -0.9, -0.05, "farther off by 0.435 min (0.050 to 0.900)"),
        (0.3, -0.1, 0.7, "nearer by 0.300 min (0.100 farther off to 0.700 nearer)"),
        (-0.3, -0.7, 0.1, "farther off by 0.300 min (0.700 farther off to 0.100 nearer)"),
        (-0.0004, -0.2, 0.2, "as near (0.200 farther off to 0.200 nearer)"),
        (0.25, -inf, inf, "nearer by 0.250 min"),
        (-0.25, -inf, 0.1, "farther off by 0.250 min"),
    ],
)
def test_gain_in_words(gain, low, high, said):
    assert gain_in_words(gain, low, high) == said
