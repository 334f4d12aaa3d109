"""Makes `domain/zone_shapes.json` from polygons of the taxi zones, each border stored once.

`python -m taxi_duration.data.zone_borders taxi_zones.geojson` with features that have a
`LocationID`. Zones that share an outline in the source, which keeps one of them, share it here.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from taxi_duration.domain import zone_shapes
from taxi_duration.domain.zone_shapes import STEP_DEGREES

Corner = tuple[int, int]  # longitude and latitude in STEP_DEGREES
SAME_OUTLINE = {57: 56, 104: 103, 105: 103}
FILE = Path(zone_shapes.__file__).with_suffix(".json")


def make_borders(geojson: dict[str, Any]) -> dict[str, Any]:
    """Return borders and zones as `zone_shapes` reads them; corners are rounded to its step."""
    rings = {f["properties"]["LocationID"]: _rings(f["geometry"]) for f in geojson["features"]}
    for zone, same in SAME_OUTLINE.items():
        if same in rings:
            rings.setdefault(zone, rings[same])
    nodes = _nodes(rings)
    numbers: dict[tuple[Corner, ...], int] = {}
    zones = {
        str(zone): [[_number(border, numbers) for border in _split(ring, nodes)] for ring in own]
        for zone, own in sorted(rings.items())
    }
    return {"borders": [_steps(border) for border in numbers], "zones": zones}


def _rings(geometry: dict[str, Any]) -> list[list[Corner]]:
    """Return the outlines of a zone, not closed; islands are outlines of their own."""
    parts = geometry["coordinates"]
    polygons = parts if geometry["type"] == "MultiPolygon" else [parts]
    rings = []
    for polygon in polygons:
        for points in polygon:
            corners = [(round(x / STEP_DEGREES), round(y / STEP_DEGREES)) for x, y in points]
            ring = [c for c, before in zip(corners[1:], corners, strict=False) if c != before]
            if len(ring) >= 3:  # else it is smaller than a step
                rings.append(ring)
    return rings


def _nodes(rings: dict[int, list[list[Corner]]]) -> set[Corner]:
    """Return the corners where a border ends: those where other zones meet, or more than two."""
    owners: dict[frozenset[Corner], set[int]] = defaultdict(set)
    edges = defaultdict(set)
    for zone, own in rings.items():
        for ring in own:
            for corner, after in zip(ring, [*ring[1:], ring[0]], strict=True):
                edge = frozenset((corner, after))
                owners[edge].add(zone)
                edges[corner].add(edge)
                edges[after].add(edge)
    return {
        corner
        for corner, met in edges.items()
        if len(met) != 2 or len({frozenset(owners[edge]) for edge in met}) != 1
    }


def _split(ring: list[Corner], nodes: set[Corner]) -> list[tuple[Corner, ...]]:
    """Return the borders that a ring consists of, each with both of its ends."""
    first = next((i for i, corner in enumerate(ring) if corner in nodes), ring.index(min(ring)))
    closed = [*ring[first:], *ring[: first + 1]]
    borders, border = [], closed[:1]
    for corner in closed[1:]:
        border.append(corner)
        if corner in nodes or len(border) > len(ring):
            borders.append(tuple(border))
            border = [corner]
    return borders


def _number(border: tuple[Corner, ...], numbers: dict[tuple[Corner, ...], int]) -> int:
    """Return the number of a border, as TopoJSON has it: `~i` is border i from its end."""
    backwards = border[::-1]
    if backwards in numbers:
        return ~numbers[backwards]
    return numbers.setdefault(border, len(numbers))


def _steps(border: tuple[Corner, ...]) -> list[int]:
    """Return the first corner, then the steps from corner to corner."""
    before, steps = (0, 0), []
    for corner in border:
        steps += [corner[0] - before[0], corner[1] - before[1]]
        before = corner
    return steps


def write_borders(source: Path, target: Path = FILE) -> None:
    """Write the file anew, a line for each border and zone."""
    made = make_borders(json.loads(source.read_text(encoding="utf-8")))
    borders = ",\n".join(json.dumps(b, separators=(",", ":")) for b in made["borders"])
    zones = ",\n".join(
        f"{json.dumps(zone)}:{json.dumps(rings, separators=(',', ':'))}"
        for zone, rings in made["zones"].items()
    )
    text = f'{{"borders":[\n{borders}\n],"zones":{{\n{zones}\n}}}}\n'
    target.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write_borders(Path(sys.argv[1]))
