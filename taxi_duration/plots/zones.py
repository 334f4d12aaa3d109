"""Maps of the city by taxi zone, with a colour key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from taxi_duration.domain.zone_shapes import zone_shapes
from taxi_duration.plots.look import FEW_TRIPS, GREY, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ASPECT = 1 / np.cos(np.radians(40.7))  # a degree of longitude is shorter than one of latitude


def plot_zones(zones: pd.DataFrame, about: str = "") -> Figure:
    """Maps of pickups (log scale) and of the median ride from each zone.

    Args:
        zones: as `exploration.by_zone` gives it.
    """
    from matplotlib.colors import LogNorm

    figure, (left, right) = new_figure(1, 2, size=(13, 5.8), about=about)
    places = zones[zones.index.isin(list(zone_shapes()))]
    enough = places["minutes"][places["trips"] >= FEW_TRIPS]
    pickups = draw_zones(left, places["trips"], norm=LogNorm(1, max(places["trips"].max(), 2)))
    minutes = draw_zones(right, enough)
    if len(places):
        figure.colorbar(pickups, ax=left, label="pickups (log)")
    if len(enough):
        figure.colorbar(minutes, ax=right, label="median minutes")
    left.set(title="Where rides begin (white: none)")
    right.set(title=f"How long they take from there (white: under {FEW_TRIPS} rides)")
    for axes in (left, right):
        axes.set(xlabel="longitude, degrees", ylabel="latitude, degrees", aspect=ASPECT)
        axes.grid(visible=False)
    return figure


def draw_zones(axes: Axes, values: pd.Series, **options: Any) -> Any:
    """Draw every zone, coloured by its value; return what a colour key is made of.

    Args:
        axes: to draw on.
        values: by zone; zones without one stay white.
        options: of PolyCollection, such as `norm` or `cmap`.
    """
    from matplotlib.collections import PolyCollection

    known = values.dropna()
    # Zones that share an outline: the one that has a value is drawn last, on top.
    blank = [ring for zone, rings in zone_shapes().items() if zone not in known for ring in rings]
    filled = [(ring, value) for zone, value in known.items() for ring in zone_shapes()[zone]]
    axes.add_collection(PolyCollection(blank, facecolors="white", edgecolors=GREY, linewidths=0.5))
    colored = PolyCollection(
        [ring for ring, _ in filled], array=np.array([value for _, value in filled], dtype=float),
        edgecolors=GREY, linewidths=0.3, **{"cmap": "viridis", **options},
    )  # fmt: skip
    axes.add_collection(colored)
    axes.autoscale_view()
    return colored
