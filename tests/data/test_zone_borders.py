"""Borders of zones are stored once, and make the outlines that they were taken from."""

from __future__ import annotations

import json

import numpy as np
import pytest

from taxi_duration.data.zone_borders import make_borders, write_borders
from taxi_duration.domain import zone_shapes

# Two squares side by side (1, 2), an island that 2 has and no other, and 3 inside a bay of 2.
SQUARES = {
    1: [[(0, 0), (2, 0), (2, 1), (2, 2), (0, 2)]],
    2: [[(2, 2), (2, 1), (2, 0), (5, 0), (5, 2), (4, 2), (4, 1), (3, 1), (3, 2)],
        [(8, 8), (9, 8), (9, 9)]],
    3: [[(3, 2), (4, 2), (4, 1), (3, 1)]],
}  # fmt: skip


def geojson(zones, single: bool = False):
    """The polygons as a file of the city's has them: closed, in degrees."""
    degrees = {
        zone: [[[[x * 1e-4, y * 1e-4] for x, y in [*ring, ring[0]]]] for ring in rings]
        for zone, rings in zones.items()
    }
    return {
        "features": [
            {
                "properties": {"LocationID": zone},
                "geometry": {"type": "Polygon", "coordinates": parts[0]}
                if single
                else {"type": "MultiPolygon", "coordinates": parts},
            }
            for zone, parts in degrees.items()
        ]
    }


def turned(ring) -> list[tuple[int, int]]:
    """The ring from its least corner, in the direction of its lesser neighbour."""
    points = [tuple(map(int, point)) for point in ring]
    at = points.index(min(points))
    ahead = points[at:] + points[:at]
    return min(ahead, [ahead[0], *ahead[:0:-1]])


@pytest.fixture
def read(tmp_path, monkeypatch):
    """Write shapes and read them as the package does."""

    def written(zones, **options):
        source, target = tmp_path / "zones.geojson", tmp_path / "zone_shapes.json"
        source.write_text(json.dumps(geojson(zones, **options)))
        write_borders(source, target)
        monkeypatch.setattr(zone_shapes, "stored_shapes", target.read_bytes)
        return zone_shapes.zone_shapes.__wrapped__()

    return written


def test_outlines_come_back(read):
    found = read(SQUARES)
    back = {z: [turned(np.round(r / 1e-4)) for r in rings] for z, rings in found.items()}
    assert back == {zone: [turned(ring) for ring in rings] for zone, rings in SQUARES.items()}


def test_a_polygon_of_one_part_is_read_too(read):
    found = read({1: SQUARES[1]}, single=True)
    assert turned(np.round(found[1][0] / 1e-4)) == turned(SQUARES[1][0])


def test_a_border_of_two_zones_is_stored_once():
    made = make_borders(geojson(SQUARES))
    ends = [number for rings in made["zones"].values() for ring in rings for number in ring]
    used = [number if number >= 0 else ~number for number in ends]
    assert sorted(set(used)) == list(range(len(made["borders"])))
    shared = {number for number in used if used.count(number) == 2}
    assert len(shared) == 2  # of 1 with 2, and of 2 with 3
    corners = [border for border in made["borders"] if border[:2] in ([2, 0], [2, 2])]
    assert any(len(border) == 6 for border in corners)  # 2,0 to 2,2 over 2,1, in one piece


def test_corners_nearer_than_a_step_become_one():
    zones = {1: [[(0, 0), (0.2, 0.1), (2, 0), (2, 2)], [(5, 5), (5.1, 5), (5, 5.1)]]}
    made = make_borders(geojson(zones))
    assert made == {"borders": [[0, 0, 2, 0, 0, 2, -2, -2]], "zones": {"1": [[0]]}}


def test_zones_that_share_an_outline_in_the_source_share_its_borders():
    made = make_borders(geojson({56: SQUARES[1], 103: SQUARES[3]}))
    assert set(made["zones"]) == {"56", "57", "103", "104", "105"}
    assert made["zones"]["57"] == made["zones"]["56"]
    assert len(made["borders"]) == 2
