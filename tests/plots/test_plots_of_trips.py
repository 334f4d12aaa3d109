"""What notebook 01 draws of trips."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from taxi_duration.chain.exploration import by_day, by_hour, by_zone
from taxi_duration.domain.months import Month, parse_months
from taxi_duration.plots.trips import (
    FEW_TRIPS,
    NO_DISTANCE,
    plot_days,
    plot_distributions,
    plot_duration_by_distance,
    plot_hours,
    plot_speed,
)
from taxi_duration.plots.zones import plot_zones

JANUARY = [Month(2021, 1)]


def texts(axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


@pytest.mark.parametrize(
    ("plot", "panel"), [(plot_distributions, 1), (plot_duration_by_distance, 0), (plot_speed, 0),
                        (plot_speed, 1)],
)  # fmt: skip
def test_plot_of_a_service_without_distances_says_so(no_distance, plot, panel):
    assert texts(plot(no_distance).axes[panel]) == [NO_DISTANCE]


def test_days_of_a_service_without_distances_show_the_trips_alone(no_distance):
    top, bottom = plot_days(by_day(no_distance, JANUARY)).axes
    assert texts(bottom) == [NO_DISTANCE]
    assert top.lines


def test_holiday_is_marked_and_in_the_key(ridden):
    axes = plot_days(by_day(ridden, JANUARY)).axes[0]
    holidays = [line for line in axes.lines if line.get_linestyle() == "--"]
    assert len(holidays) == 2  # New Year's Day and Martin Luther King's
    assert "federal holiday" in [t.get_text() for t in axes.get_legend().get_texts()]


def test_day_far_off_its_usual_is_marked_and_dated():
    table = pd.DataFrame(
        {"trips": 100.0, "usual_trips": 100.0, "speed_mph": 12.0, "usual_speed_mph": 12.0,
         "holiday": False, "far_off": False},
        index=pd.date_range("2021-02-01", periods=28),
    )  # fmt: skip
    table.loc["2021-02-09", ["trips", "far_off"]] = [10.0, True]
    axes = plot_days(table).axes[0]
    assert texts(axes) == ["Tue 9 Feb"]


def test_months_that_do_not_follow_each_other_are_not_joined(ridden):
    days = by_day(ridden, parse_months("2021-01,2021-03"))
    drawn = plot_days(days).axes[0].lines[0].get_ydata()
    assert len(drawn) == 31 + 28 + 31 and np.isnan(drawn[31:59]).all()


def test_hour_of_few_trips_stays_white():
    hours = by_hour(pd.DataFrame(
        {"pickup_at": pd.to_datetime(["2021-01-04 08:10"] * FEW_TRIPS + ["2021-01-05 09:00"]),
         "duration": np.float32(10)}), JANUARY)  # fmt: skip
    for axes in plot_hours(hours).axes[:2]:
        shown = axes.collections[0].get_array().reshape(7, 24)
        assert (~np.ma.getmaskarray(shown)).sum() == 1 and shown[0, 8] > 0


def test_hours_of_a_tiny_month_say_that_there_are_too_few_trips(ridden):
    for axes in plot_hours(by_hour(ridden.head(5), JANUARY)).axes:
        assert texts(axes) == [f"no hour of the week has {FEW_TRIPS} trips"]


def test_map_colours_zones_that_are_places_and_has_two_keys(ridden):
    figure = plot_zones(by_zone(ridden))
    pickups = figure.axes[0].collections[-1].get_array()
    assert sorted(pickups) == [10] * 5  # 74, 75, 41, 132 and 1; 265 is nowhere
    assert [axes.get_ylabel() for axes in figure.axes[2:]] == ["pickups (log)", "median minutes"]


def test_map_of_no_known_place_is_drawn_white(ridden):
    figure = plot_zones(by_zone(ridden.assign(PULocationID=264)))
    assert len(figure.axes) == 2
