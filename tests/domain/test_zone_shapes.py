"""Every zone can be drawn, where its centroid says that it lies."""

from __future__ import annotations

import numpy as np
import pytest

from taxi_duration.domain.limits import UNKNOWN_ZONE
from taxi_duration.domain.zone_shapes import zone_shapes
from taxi_duration.domain.zones import zone_table


def area_and_centre(ring: np.ndarray) -> tuple[float, np.ndarray]:
    """Square degrees and centroid of an outline (the shoelace formula)."""
    after = np.roll(ring, -1, axis=0)
    cross = ring[:, 0] * after[:, 1] - after[:, 0] * ring[:, 1]
    return abs(cross.sum() / 2), ((ring + after) * cross[:, None]).sum(axis=0) / (3 * cross.sum())


def test_every_place_has_a_shape_and_no_place_that_is_none():
    assert set(zone_shapes()) == set(range(1, UNKNOWN_ZONE))


def test_outlines_enclose_something():
    assert all(len(ring) >= 3 for rings in zone_shapes().values() for ring in rings)
    assert all(area_and_centre(ring)[0] > 0 for rings in zone_shapes().values() for ring in rings)


@pytest.mark.parametrize("zone", [1, 56, 57, 74, 103, 105, 132, 138, 237, 263])
def test_shape_lies_where_the_zone_table_has_its_centroid(zone):
    parts = [area_and_centre(ring) for ring in zone_shapes()[zone]]
    centre = np.average([c for _, c in parts], axis=0, weights=[a for a, _ in parts])
    table = zone_table()
    expected = [table.longitude[zone], table.latitude[zone]]
    np.testing.assert_allclose(centre, expected, atol=0.006)  # about 500 metres: simplified


def test_area_is_that_of_the_zone_table():
    table = zone_table()
    areas = {z: sum(area_and_centre(r)[0] for r in rings) for z, rings in zone_shapes().items()}
    km2 = np.array([areas[zone] for zone in range(1, UNKNOWN_ZONE)]) * 84.39 * 111.2
    np.testing.assert_allclose(km2.sum(), np.nansum(table.area_km2[1:UNKNOWN_ZONE]), rtol=0.02)
