"""What the traffic makes of an answer: one arithmetic for one ride and for columns of them."""

from __future__ import annotations

import numpy as np
import pytest

from taxi_duration.domain.rides import Answer, Answers
from taxi_duration.live.traffic_now import Traffic, all_in_traffic, in_traffic

MINUTES = ("duration", "p10", "p50", "p90")


@pytest.mark.parametrize(
    ("own", "traffic", "given"),
    [
        ((20, 14, 19, 30), (1.2, 1, 1), (24, 16.8, 22.8, 36)),
        ((20, 14, 19, 30), (0.8, 1, 1), (16, 11.2, 15.2, 24)),
        ((20, 14, 19, 30), (1.0, 1.5, 0.5), (20, 11.5, 19, 24.5)),
        ((20, 14, 19, 30), (1.2, 1.5, 0.5), (24, 13.8, 22.8, 29.4)),
        ((55, 40, 52, 60), (1.2, 1, 1), (60, 48, 60, 60)),  # no longer than a trip
        ((1.5, 1.2, 1.4, 2.5), (0.6, 1, 1), (1, 1, 1, 1.5)),  # nor shorter
        ((20, 4, 19, 30), (1.0, 2, 1), (20, 1, 19, 30)),
        ((1.5, 0.7, 1.4, 2.5), (1.2, 2, 1), (1.8, 0.7, 1.68, 3.0)),  # as the model has it
        ((-3.0, 0.7, 1.0, 2.0), (1.2, 1, 1), (-3.0, 0.84, 1.2, 2.4)),  # a linear model's
        ((72.0, 40, 50, 60), (0.9, 1, 1), (64.8, 36, 45, 54)),
        ((72.0, 40, 50, 60), (1.1, 1, 1), (72.0, 44, 55, 60)),
    ],
)
def test_answer_and_interval_are_multiplied_stretched_and_kept_within_limits(own, traffic, given):
    one = in_traffic(Answer(*map(float, own), 7, True), Traffic(*traffic))
    assert one == (*(pytest.approx(value) for value in given), 7, True)


def test_columns_come_out_as_each_ride_alone():
    rng = np.random.default_rng(5)
    p50 = rng.uniform(0.5, 58, 400)
    own = (p50 + rng.normal(0, 4, 400), 0.7 * p50, p50, np.minimum(1.5 * p50, 60))
    columns = [column.astype("float32") for column in own]
    support, used = np.arange(400, dtype="int32"), rng.random(400) < 0.5
    traffic = Traffic(*rng.uniform(0.6, 1.7, (3, 400)))
    many = all_in_traffic(Answers(*columns, support, used), traffic)
    rows = zip(*(c.tolist() for c in (*columns, support, used)), strict=True)
    each = zip(*(part.tolist() for part in traffic), strict=True)
    alone = [in_traffic(Answer(*row), Traffic(*one)) for row, one in zip(rows, each, strict=True)]
    for name in MINUTES:
        found = getattr(many, name)
        assert found.dtype == "float32"
        np.testing.assert_allclose(found, [getattr(one, name) for one in alone], rtol=1e-6)
    assert many.support.tolist() == support.tolist()
    assert many.used_distance.tolist() == used.tolist()
