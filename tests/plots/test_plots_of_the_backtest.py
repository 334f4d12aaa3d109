"""What the backtest draws: decisions and alarms on the months' errors."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from taxi_duration.loop.backtest import STRATEGIES, Backtest
from taxi_duration.plots.backtest import plot_backtest, save_plot


def frame(rows, columns):
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(day=pd.to_datetime(table["day"]))


@pytest.fixture
def lived() -> Backtest:
    """Three months, one promotion, and alarms on 1, 4 and 20 April."""
    months = ["2021-03", "2021-04", "2021-05"]
    table = pd.DataFrame({f"{name}_mae": np.arange(3.0, 6.0) for name in STRATEGIES}, index=months)
    decisions = frame(
        [("2021-05-02", "promote green-duration:2", "better"), ("2021-05-01", "wait", "no month")],
        ["day", "what", "why"],
    )
    alarms = frame(
        [("2021-04-01", "alarm", "x"), ("2021-04-03", "ok", ""), ("2021-04-04", "alarm", "x"),
         ("2021-04-20", "alarm", "x")], ["day", "level", "why"],
    )  # fmt: skip
    return Backtest(table, decisions, alarms)


def test_each_strategy_has_its_own_line(lived):
    for at, name in enumerate(STRATEGIES):
        lived.table[f"{name}_mae"] += at
    axes = plot_backtest(lived).axes[0]
    drawn = {line.get_label(): line.get_ydata()[0] for line in axes.get_lines()[: len(STRATEGIES)]}
    assert drawn == {"frozen": 3.0, "monthly": 4.0, "auto": 5.0, "auto with live traffic": 6.0}


def test_decisions_that_change_something_are_marked(lived):
    texts = [text.get_text() for text in plot_backtest(lived).axes[0].texts]
    assert " promote 2" in texts and not any("wait" in text for text in texts)


def test_alarm_soon_after_a_named_one_has_no_room_for_its_name(lived):
    texts = [text.get_text() for text in plot_backtest(lived).axes[0].texts]
    assert [text for text in texts if "alarm" in text] == [" alarm 01 Apr", " alarm 20 Apr"]


def test_plot_is_saved_as_png_with_its_service_and_months(lived, tmp_path):
    save_plot(lived, tmp_path / "docs" / "backtest.png", "green 2021-01:2021-05")
    assert (tmp_path / "docs" / "backtest.png").read_bytes()[:4] == b"\x89PNG"
