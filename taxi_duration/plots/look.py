"""What all figures share: the look, the colours and what they mean, words in place of a plot."""

from __future__ import annotations

from functools import cache
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, ORANGE, GREY, RED, GREEN = "#2b6cb0", "#dd6b20", "#a0aec0", "#c53030", "#2f855a"
LEVEL_COLORS = {"ok": BLUE, "unknown": GREY, "watch": "#d69e2e", "alarm": RED}
FEW_TRIPS = 10  # a median of fewer says little: its cell or zone is left white
WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def new_figure(
    rows: int = 1,
    columns: int = 1,
    size: tuple[float, float] = (10, 4),
    about: str = "",
    **options: Any,
) -> tuple[Figure, Any]:
    """Return figure and axes in the project's look.

    Args:
        rows, columns: of axes.
        size: inches.
        about: service and months, such as `green 2021-01`; stands above the titles.
        options: of `Figure.subplots`.
    """
    import seaborn as sns  # slow to import, so here
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    # Nothing stands above the axes that a title would have to make way for: to look for it again
    # and again, as matplotlib does without a place for titles, takes a quarter of the drawing.
    sns.set_theme(style="whitegrid", context="notebook", font_scale=0.9, rc={"axes.titley": 1.0})
    # Past pyplot, which would open a window where MPLBACKEND names one, or fail without a screen.
    figure = _kind()(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, **options)
    if about:
        figure.suptitle(about, fontsize="large", fontweight="bold")
    return figure, axes


@cache
def _kind() -> type[Figure]:
    """Return the class of figures; matplotlib is slow to import, so here."""
    from matplotlib.figure import Figure

    class Shown(Figure):
        """A figure that notebooks show though pyplot, which tells them how to, never met it."""

        def _repr_png_(self) -> bytes:
            picture = BytesIO()
            self.savefig(picture, format="png", dpi="figure")
            return picture.getvalue()

    return Shown


def write_instead(axes: Any, text: str) -> None:
    """Let the axes say why there is nothing to draw; their title stays."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, wrap=True)


def draw_histogram(axes: Any, values: Any, edges: Any) -> None:
    """Draw counts between edges as one shape: a patch a bar would take long to render."""
    axes.stairs(*np.histogram(values, edges), fill=True, color=BLUE, alpha=0.75)
    axes.set_ylim(bottom=0)
