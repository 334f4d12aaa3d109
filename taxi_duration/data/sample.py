"""The built-in sample: months of taxi trips that a machine can make without a network.

It is one imaginary city on New York's zones, the same for every seed: where rides start, how far
they reach, which pairs are slow, how traffic runs through the week. A month is a seeded draw of
rides from it, with the columns, types and dirt TLC's files have. Models rank on it as on real
months. No real row is in it: all figures below are counts, shares and curves.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from os import PathLike

import numpy as np
import pyarrow as pa

from taxi_duration.domain.limits import MAX_TRIP_MILES, OUTSIDE_ZONE, UNKNOWN_ZONE
from taxi_duration.domain.pickup_calendar import weekdays
from taxi_duration.domain.zones import zone_table

Trips = dict[str, np.ndarray]  # one array per field, all of shape (n,)

# fmt: off
# Figures. "Measured": counted or fitted on TLC's green months 2020-03 to 2024-03, on samples of the
# yellow months 2019-01 to 2020-06 where it says yellow. "Chosen": set so that distances, durations
# and the error of baselines (2021-01 -> 2021-02) come out as they do on real months. "Log" is the
# natural logarithm; pace is minutes per mile.

CITY_SEED = 265  # the city does not change with a caller's seed
FIRST_MONTH = {"green": "2013-08", "yellow": "2011-01"}  # earliest month TLC has with zones
DEFAULT_ROWS = {"green": 76_518, "yellow": 100_000}  # as 2021-01; few, for laptops

# The city
ZONE_COUNT = UNKNOWN_ZONE - 1  # those that lie somewhere
AIRPORTS = JFK, LAGUARDIA, NEWARK = 132, 138, 1
AIRPORT_ROWS = np.array(AIRPORTS) - 1
EMPTY_ZONES = (103, 104, 105, 199)  # islands where no cab may go
MILES_PER_DEGREE = (52.4, 69.0)  # of longitude and of latitude, at 40.75 degrees north
CORE_EDGE = (-73.945, 40.785)  # Manhattan west and south of here, about 96th Street, is the core
PULL_SD = 0.75  # log, busy and quiet zones of one borough; chosen
AFFINITY_SD = 1.35  # log, busy and quiet pairs equally far apart; chosen for 13,000 pairs a month
SAME_ZONE = 0.6  # of the rides gravity would keep inside a zone, as people walk; chosen
FAR = 0.002  # added to gravity at any distance, as some rides cross the city; chosen
SHORTEST_MILES = 0.3  # hardly anybody takes a cab for less; measured
ZONE_SPREAD = 0.29  # standard deviation of a place in a square, as a share of its side
DETOUR = (1.18, 0.24, 5.0)  # road over straight line: nearby, gain far away, miles to it; measured
DETOUR_PAIR_SD = 0.13  # log, between pairs; measured 0.12 to 0.25 with what rides of a pair differ

# Traffic
PACE_MILES = (0.48, 0.8, 1.24, 1.72, 2.42, 3.44, 4.85, 6.87, 9.59, 13.7, 19.1)  # rides this long
PACE_LOG = (1.88, 1.80, 1.75, 1.72, 1.66, 1.54, 1.36, 1.16, 1.05, 0.92, 0.74)  # measured, less 0.07
PACE_ZONE_SD, PACE_PAIR_SD = 0.16, 0.14  # log pace; chosen
CORE_PACE, CORE_SWING = 0.10, 0.5  # log pace the core adds, and to each hour's effect; yellow
PACE_HOURS = (  # log pace on weekdays and on weekends, from midnight on; measured
    (-.24, -.26, -.25, -.26, -.28, -.26, -.16, -.04, .04, .01, .01, .03,
     .05, .07, .13, .15, .16, .13, .04, -.05, -.11, -.15, -.17, -.20),
    (-.18, -.20, -.22, -.23, -.25, -.26, -.30, -.28, -.23, -.19, -.14, -.10,
     -.06, -.02, .01, .02, .02, -.01, -.03, -.05, -.09, -.14, -.16, -.19),
)
PACE_MONTHS = {  # log pace; measured, the lockdown of 2020 included
    "2020-02": 0, "2020-04": -.21, "2020-05": -.15, "2020-06": -.07, "2020-07": -.03,
    "2020-09": .02, "2020-12": .01, "2021-01": -.03, "2021-02": .03, "2021-06": .06,
    "2023-01": .03, "2024-03": .07,
}
PACE_DAY_SD, DEMAND_DAY_SD = 0.04, 0.05  # log, between days; measured 0.055 with storms, chosen
WINTER = (12, 1, 2, 3)
STORM = (2, 0.20, 0.4)  # snow in a winter month: days, log pace, share of the usual rides; chosen
RAIN = (3, 0.08, 1.1)  # rain in any other month, likewise
HOLIDAYS = ("01-01", "07-04", "12-25")  # run like a Sunday
NOISE_TAIL = 5  # degrees of freedom of Student's t, as residuals have a kurtosis of 2 to 4
NOISE_SHORT_MILES, NOISE_MAX = 0.3, 2.0  # under this noise grows, measured; largest log noise
STOP_SHARE, STOP_MINUTES = 0.05, 6.0  # rides that stop on the way, mean minutes they stop; chosen

# Who goes where
DAY_PARTS = (5, 11, 16)  # hours that split a day into night, morning, midday and evening
CORE_PULL = (0.7, 1.7, 1.1, 0.7)  # weight of the core in each part: to work, home again; chosen
AIRPORT_PULL = (2.0, 1.5, 1.2, 0.7)  # likewise: flights leave early; chosen
GREEN_HUBS = {  # share of pickups; measured
    74: .150, 75: .141, 41: .093, 244: .053, 42: .051, 166: .044, 95: .039, 97: .036, 43: .032,
    65: .028, 7: .021, 116: .019, 130: .018, 82: .016, 25: .015, 33: .014, 52: .013, 152: .012,
    197: .008, 129: .008,
}
YELLOW_HUBS = {
    237: .044, 161: .041, 236: .039, 162: .036, 186: .036, 230: .035, 48: .032, 132: .032,
    170: .030, 142: .030, 234: .030, 163: .027, 239: .026, 138: .025, 79: .025, 68: .023,
    141: .023, 164: .023, 107: .022, 238: .020, 100: .020, 249: .020, 229: .019, 263: .018,
    140: .018, 90: .017, 246: .017,
}
DISPATCH_SHARES = {  # rows with null RatecodeID; measured, yellow from 2021 as TLC users report
    "green": {
        "2019-06": 0, "2020-03": .21, "2020-05": .44, "2021-01": .47, "2021-02": .45,
        "2021-05": .43, "2021-06": .37, "2023-01": .063, "2023-02": .074, "2024-03": .036,
    },
    "yellow": {
        "2019-06": 0, "2020-03": .013, "2020-05": .17, "2020-06": .09, "2021-01": .072,
        "2023-01": .023,
    },
}

# Dirt, as shares of rows; measured where nothing else is said
OUTSIDE_SHARE, OUTSIDE_STRETCH = 0.004, 2.0  # rides that leave the city, how much longer; chosen
INBOUND_SHARE = 0.3  # of these, the ones that come in
UNKNOWN_SHARE = {"green": 0.003, "yellow": 0.008}
OUT_OF_MONTH = 6e-5  # 0 to 26 rows a month
WRONG_CLOCK = 4e-5  # drop-off before pickup, 0 to 38 rows a month
DUPLICATE = 4e-5  # chosen: TLC's files have none, other copies of them do
REFUND = 0.0033  # of metered rows: there again with negative amounts
ODOMETER_MILES = (MAX_TRIP_MILES, 244_000.0)  # lowest and highest broken distance
STAYED_SHARE, ZERO_SECONDS_SHARE = 0.85, 0.03  # of false starts: not moved; no time at all
RESET_CLOCK = np.datetime64("2009-01-01T00:00:00", "us")  # what a meter shows after losing power

# Money in dollars: amounts that files have and no model may use; shares are measured
FARE = {True: (3.0, 2.0, 0.2), False: (10.0, 2.4, 0.0)}  # metered or not: start, a mile, a minute
TOLL, TOLL_MILES = 6.55, 8  # a quarter of the rides longer than that
CONGESTION_SINCE, CONGESTION = "2019-02", {"green": 2.75, "yellow": 2.5}
AIRPORT_FEE_SINCE, AIRPORT_FEE = "2021-01", 1.25
CBD_FEE_SINCE, CBD_FEE = "2025-01", 0.75
CARD_SHARE = {"green": 0.6, "yellow": 0.72}
AGREED_SHARE = {"green": 0.027, "yellow": 0.005}  # fare agreed beforehand, rate code 5
PARTY_SIZES = (0.86, 0.08, 0.02, 0.01, 0.02, 0.01)  # of 1 to 6 passengers
FIRST_VENDOR_SHARE = 0.18

# Columns in TLC's order, under our keys where TLC's names differ between services and eras
AMOUNTS = ("fare_amount", "extra", "mta_tax", "tip_amount", "tolls_amount")
TOTALS = ("improvement_surcharge", "total_amount")
COLUMNS = {
    "green": (
        "VendorID", "pickup", "dropoff", "store_and_fwd_flag", "RatecodeID", "PULocationID",
        "DOLocationID", "passenger_count", "miles", *AMOUNTS, "ehail_fee", *TOTALS,
        "payment_type", "trip_type", "congestion_surcharge",
    ),
    "yellow": (
        "VendorID", "pickup", "dropoff", "passenger_count", "miles", "RatecodeID",
        "store_and_fwd_flag", "PULocationID", "DOLocationID", "payment_type", *AMOUNTS, *TOTALS,
        "congestion_surcharge", "airport_fee",
    ),
}
METER_ONLY = {  # null for dispatched rides
    "store_and_fwd_flag", "RatecodeID", "passenger_count", "payment_type", "trip_type",
    "congestion_surcharge", "airport_fee",
}
TIME_PREFIX = {"green": "lpep", "yellow": "tpep"}
MODERN_SINCE = "2023-02"  # ids are int32, counts nullable int64, text large_string; measured
NUMPY_TYPES = {pa.int32(): np.int32, pa.int64(): np.int64, pa.float64(): np.float64}


@dataclass(frozen=True, eq=False)  # hashed by identity, as a key of caches
class Kind:
    """One way of getting a ride; shares are of its rides, measured where nothing else is said."""

    metered: bool  # if not, times are whole minutes and the columns in METER_ONLY are null
    hubs: Mapping[int, float]  # share of pickups at the busiest zones
    boroughs: Mapping[str, float]  # share of pickups at all other zones
    airports: tuple[float, float, float]  # share of drop-offs at JFK, LaGuardia and Newark
    reach_miles: float  # gravity is (1 + miles / reach) ** -decay; chosen
    decay: float
    weekdays: tuple[float, ...]  # weight of Monday to Sunday
    hours: tuple[float, ...]  # weight of each hour from midnight on, Monday to Friday
    weekend_hours: tuple[float, ...]
    detour_sd: float  # log, between rides of one pair
    noise: float  # log pace, scale of what nothing explains; chosen
    wait_min: float  # minutes at the kerb that count as ride; chosen
    false_start: float  # meter on and off again within a minute
    zero_distance: float
    left_on: float  # meter on for hours
    odometer: float  # distance is a reading instead of a difference


GREEN_HAIL = Kind(
    metered=True,
    hubs=GREEN_HUBS,
    boroughs={"Manhattan": .04, "Queens": .055, "Brooklyn": .058, "Bronx": .05,
              "Staten Island": .002},
    airports=(.002, .003, .0001), reach_miles=1.8, decay=3.4,
    weekdays=(.131, .141, .146, .150, .169, .155, .108),
    hours=(.9, .6, .35, .27, .2, .7, 1.9, 3.9, 5.8, 6.5, 6.4, 6.2,
           6.3, 6.8, 7.2, 7.8, 8.5, 7.6, 6.9, 5.6, 3.8, 2.5, 2.0, 1.5),
    weekend_hours=(1.3, .9, .5, .3, .4, .5, .9, 2.1, 3.5, 4.7, 5.8, 6.6,
                   7.1, 8.2, 8.5, 9.4, 8.4, 7.4, 6.7, 5.5, 3.7, 3.0, 2.5, 2.0),
    detour_sd=.09, noise=.15, wait_min=.3,
    false_start=.035, zero_distance=.018, left_on=.0035, odometer=5e-5,
)
GREEN_DISPATCH = Kind(
    metered=False,
    hubs={},
    boroughs={"Brooklyn": .401, "Bronx": .234, "Queens": .216, "Manhattan": .145,
              "Staten Island": .002},
    airports=(.0005, .0007, .0001), reach_miles=5.2, decay=3.5,
    weekdays=(.152, .170, .175, .170, .170, .091, .073),
    hours=(.25, .17, .1, .2, .65, 1.7, 3.0, 6.0, 8.3, 10.4, 10.6, 9.3,
           8.7, 8.7, 7.5, 6.6, 5.6, 3.8, 2.8, 2.3, 1.5, .9, .7, .4),
    weekend_hours=(.6, .5, .3, .3, 1.2, 1.7, 1.9, 3.8, 5.7, 7.3, 8.0, 8.2,
                   9.3, 9.2, 8.5, 6.9, 5.8, 4.9, 3.9, 3.7, 3.3, 2.0, 1.9, 1.1),
    detour_sd=.14, noise=.15, wait_min=.6,
    false_start=.0006, zero_distance=.014, left_on=.0001, odometer=.0017,
)
YELLOW_HAIL = Kind(
    metered=True,
    hubs=YELLOW_HUBS,
    boroughs={"Manhattan": .245, "Queens": .012, "Brooklyn": .012, "Bronx": .0016},
    airports=(.008, .009, .002), reach_miles=2.0, decay=3.4,
    weekdays=(.130, .145, .150, .156, .155, .143, .121),
    hours=(2.1, 1.2, .8, .5, .5, 1.0, 2.4, 4.5, 5.3, 5.0, 4.8, 4.9,
           5.2, 5.1, 5.7, 5.5, 5.2, 6.0, 6.8, 6.5, 6.0, 5.8, 5.2, 4.0),
    weekend_hours=(5.2, 4.2, 3.2, 2.2, 1.5, .8, 1.1, 1.6, 2.4, 3.8, 4.5, 5.0,
                   5.6, 5.7, 5.8, 5.8, 5.5, 5.7, 6.3, 5.6, 4.9, 4.7, 4.8, 4.2),
    detour_sd=.09, noise=.185, wait_min=.3,
    false_start=.010, zero_distance=.004, left_on=.0024, odometer=0,
)
YELLOW_DISPATCH = Kind(  # too few in the samples to measure: chosen between the other three
    metered=False,
    hubs=YELLOW_HUBS,
    boroughs={"Manhattan": .2, "Brooklyn": .12, "Queens": .10, "Bronx": .06},
    airports=(.004, .004, .001), reach_miles=4.0, decay=3.4,
    weekdays=YELLOW_HAIL.weekdays,
    hours=YELLOW_HAIL.hours,
    weekend_hours=YELLOW_HAIL.weekend_hours,
    detour_sd=.14, noise=.185, wait_min=.6,
    false_start=.0006, zero_distance=.02, left_on=.0001, odometer=0,
)
KINDS = {"green": (GREEN_HAIL, GREEN_DISPATCH), "yellow": (YELLOW_HAIL, YELLOW_DISPATCH)}
# fmt: on


@dataclass(frozen=True)
class City:
    """What stays the same from month to month; arrays start at zone 1 and n is `ZONE_COUNT`."""

    borough: np.ndarray  # (n,) text
    place_miles: np.ndarray  # (n, 2) centroids, east and north
    spread_miles: np.ndarray  # (n,) standard deviation of a place around its centroid
    core: np.ndarray  # (n,) True in the congested part of Manhattan
    pull: np.ndarray  # (n,) how busy a zone is within its borough
    affinity: np.ndarray  # (n, n) how much a pair is travelled, given its distance
    detour_log: np.ndarray  # (n, n) log of road over straight line, less the usual
    pace_log: np.ndarray  # (n, n) log minutes/mile, less the usual


def make_sample_month(service: str, month: str, rows: int | None = None, seed: int = 0) -> pa.Table:
    """Make one month of trips as TLC would have published it.

    Args:
        service: "green" or "yellow".
        month: "YYYY-MM", not before the service's first month.
        rows: how many rows, dirt included; `DEFAULT_ROWS` of the service if None.
        seed: 0 or more; the same arguments give the same table, another seed or month another draw.
    Returns:
        Shape (rows, 20) for green, (rows, 19) for yellow, one more from 2025 on; columns and types
        of TLC's files of that month, times in New York local time; metered rides first, then
        dispatched ones, each in order of pickup, as TLC has them.
    Raises:
        ValueError: a service without sample, a malformed or too early month, negative rows.
    Source: TLC trip record data dictionaries.
    """
    _check(service, month, rows)
    rows = DEFAULT_ROWS[service] if rows is None else rows
    rng = np.random.default_rng([seed, rows, _month_number(month), *service.encode()])
    dispatched = rng.binomial(rows, _at_month(DISPATCH_SHARES[service], month))
    counts = (rows - dispatched, dispatched)
    parts = [
        _draw_rides(rng, service, kind, month, n)
        for kind, n in zip(KINDS[service], counts, strict=True)
    ]
    trips = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    _soil_rows(rng, trips, month)
    return _to_table(trips, service, month)


def write_sample_month(
    path: str | PathLike[str], service: str, month: str, rows: int | None = None, seed: int = 0
) -> None:
    """Write the table `make_sample_month` makes as Parquet, byte for byte the same each time."""
    import pyarrow.parquet as pq  # only a writer pays for it

    pq.write_table(make_sample_month(service, month, rows, seed), path, compression="snappy")


def _check(service: str, month: str, rows: int | None) -> None:
    if service not in FIRST_MONTH:
        raise ValueError(f"no sample for service {service!r}; allowed: {', '.join(FIRST_MONTH)}")
    if not isinstance(month, str) or not re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])", month):
        raise ValueError(f"month {month!r} is not of the form YYYY-MM, such as 2021-01")
    if month < FIRST_MONTH[service]:
        raise ValueError(f"no {service} trips in {month}; allowed: {FIRST_MONTH[service]} or later")
    if rows is not None and rows < 0:
        raise ValueError(
            f"rows is {rows}; allowed: 0 or more, or None for {DEFAULT_ROWS[service]:,}"
        )


def _month_number(month: str) -> int:
    return int(month[:4]) * 12 + int(month[5:]) - 1


def _at_month(figures: Mapping[str, float], month: str) -> float:
    """Read a figure known for some months at any month: straight lines between, flat outside."""
    return float(
        np.interp(_month_number(month), [_month_number(m) for m in figures], list(figures.values()))
    )


# --- The city


@lru_cache(maxsize=1)
def build_city() -> City:
    """Build the city all samples share, from the zone table and `CITY_SEED`."""
    zones, inside = zone_table(), slice(1, ZONE_COUNT + 1)
    lon_lat = np.column_stack([zones.longitude[inside], zones.latitude[inside]])
    borough = zones.borough[inside]
    core = (borough == "Manhattan") & (lon_lat < CORE_EDGE).all(axis=1)
    rng = np.random.default_rng(CITY_SEED)
    zone_pace = rng.normal(0, PACE_ZONE_SD, ZONE_COUNT) + CORE_PACE * core
    pairs = (ZONE_COUNT, ZONE_COUNT)
    return City(
        borough=borough,
        place_miles=lon_lat * MILES_PER_DEGREE,
        spread_miles=ZONE_SPREAD * np.sqrt(zones.area_km2[inside]) / 1.609,
        core=core,
        pull=_pull(rng),
        affinity=rng.lognormal(0, AFFINITY_SD, pairs),
        detour_log=rng.normal(0, DETOUR_PAIR_SD, pairs),
        pace_log=rng.normal(0, PACE_PAIR_SD, pairs) + (zone_pace[:, None] + zone_pace) / 2,
    )


def _pull(rng: np.random.Generator) -> np.ndarray:
    pull = rng.lognormal(0, PULL_SD, ZONE_COUNT)
    pull[np.array(EMPTY_ZONES + AIRPORTS) - 1] = 0  # airports are hubs, or no cab waits there
    return pull


def _pickup_shares(city: City, kind: Kind) -> np.ndarray:
    """Share of pickups at each zone, shape (n,): hubs as measured, other zones by pull."""
    hubs = np.array(list(kind.hubs), dtype=int) - 1
    shares = np.zeros(ZONE_COUNT)
    for borough, share in kind.boroughs.items():
        pull = np.where(city.borough == borough, city.pull, 0)
        pull[hubs] = 0
        shares += share * pull / pull.sum()
    shares[hubs] = list(kind.hubs.values())
    return shares / shares.sum()


@lru_cache(maxsize=4)
def _pair_ladder(kind: Kind) -> np.ndarray:
    """Running total of the chance of every pair of zones, shape (parts of the day * n * n,).

    Part k climbs from k to k + 1, so one `searchsorted` of part + uniform draws for all parts.
    """
    city = build_city()
    starts = _pickup_shares(city, kind)
    weights = _destination_weights(city, kind, starts)
    ladders = []
    for part, (core_pull, airport_pull) in enumerate(zip(CORE_PULL, AIRPORT_PULL, strict=True)):
        drawn = weights * np.where(city.core, core_pull, 1)
        drawn[:, AIRPORT_ROWS] *= airport_pull
        chance = starts[:, None] * drawn / drawn.sum(axis=1, keepdims=True)
        ladders.append(part + np.cumsum(chance) / chance.sum())
    return np.concatenate(ladders)


def _destination_weights(city: City, kind: Kind, starts: np.ndarray) -> np.ndarray:
    """How likely a ride from each zone ends in each, shape (n, n), each row about 1 in all.

    Gravity: busy zones and near ones first, and some pairs are liked far better than others.
    """
    busy = (starts + 0.2 * city.pull / city.pull.sum()) ** 0.6
    gravity = (1 + _typical_miles(city) / kind.reach_miles) ** -kind.decay + FAR
    gravity[np.diag_indices(ZONE_COUNT)] *= SAME_ZONE
    weights = busy * city.affinity * gravity
    weights /= weights.sum(axis=1, keepdims=True)
    weights[:, AIRPORT_ROWS] = kind.airports  # people fly from wherever they are
    weights[AIRPORT_ROWS, AIRPORT_ROWS] *= SAME_ZONE
    return weights


def _typical_miles(city: City) -> np.ndarray:
    """Straight line between places of two zones, shape (n, n): root of the mean square."""
    apart = city.place_miles[:, None] - city.place_miles
    spread = city.spread_miles**2
    return np.sqrt((apart**2).sum(axis=2) + spread[:, None] + spread)


# --- The month


@lru_cache(maxsize=24)
def _weather(month: str) -> tuple[np.ndarray, np.ndarray]:
    """What each day does to all: log pace added, demand as a factor; both of shape (days,)."""
    days = len(_calendar(month))
    stormy = int(month[5:]) in WINTER
    wet_days, slow, factor = STORM if stormy else RAIN
    rng = np.random.default_rng([CITY_SEED, _month_number(month)])
    pace, demand = rng.normal(0, PACE_DAY_SD, days), rng.lognormal(0, DEMAND_DAY_SD, days)
    first = rng.integers(days - wet_days)  # a storm stays, rain comes and goes
    wet = np.arange(first, first + wet_days) if stormy else rng.permutation(days)[:wet_days]
    pace[wet] += slow
    demand[wet] *= factor
    return pace, demand


def _calendar(month: str) -> np.ndarray:
    """Weekday of each day of the month, 0 = Monday, shape (days,); holidays count as Sundays."""
    first = np.datetime64(month, "M")
    dates = np.arange(first.astype("M8[D]"), (first + 1).astype("M8[D]"))
    weekday = weekdays(dates)
    weekday[[str(date)[5:] in HOLIDAYS for date in dates]] = 6
    return weekday


def _draw_pickups(rng: np.random.Generator, kind: Kind, month: str, n: int) -> np.ndarray:
    """Seconds from the month's first midnight to each pickup, in order, shape (n,)."""
    weekday = _calendar(month)
    hours = np.where(
        weekday[:, None] < 5, _unit(kind.hours), _unit(kind.weekend_hours)
    )  # (days, 24)
    demand = np.array(kind.weekdays)[weekday] * _weather(month)[1]
    rides = rng.multinomial(n, _unit(hours * demand[:, None]).ravel())
    seconds = np.repeat(np.arange(len(rides)) * 3600, rides) + rng.integers(0, 3600, n)
    seconds.sort()
    return seconds


def _unit(weights: np.ndarray | tuple[float, ...]) -> np.ndarray:
    return np.asarray(weights) / np.sum(weights)


# --- The rides


def _draw_rides(rng: np.random.Generator, service: str, kind: Kind, month: str, n: int) -> Trips:
    """Draw n rides of one kind, with the dirt a meter makes; `pickup` in seconds of the month."""
    city, pickup = build_city(), _draw_pickups(rng, kind, month, n)
    part = np.digitize(pickup // 3600 % 24, DAY_PARTS)
    pair = np.searchsorted(_pair_ladder(kind), part + rng.random(n), side="right") % ZONE_COUNT**2
    outside = rng.random(n) < OUTSIDE_SHARE
    miles = _draw_miles(rng, city, kind, pair) * np.where(outside, OUTSIDE_STRETCH, 1)
    minutes = _draw_minutes(rng, kind, miles, _usual_pace(city, month, pickup, pair, miles))
    rides = {"pickup": pickup, "miles": miles, "minutes": minutes}
    rides["metered"] = np.full(n, kind.metered)
    start, end = np.divmod(pair, ZONE_COUNT)
    rides["PULocationID"], rides["DOLocationID"] = start + 1, end + 1
    _name_outer_zones(rng, rides, outside, UNKNOWN_SHARE[service])
    _start_falsely(rng, rides, kind)
    rides |= _draw_payment(rng, rides, service, kind, month, city.core[start] | city.core[end])
    _break_meters(rng, rides, kind)
    return rides


def _draw_miles(rng: np.random.Generator, city: City, kind: Kind, pair: np.ndarray) -> np.ndarray:
    """Miles on the road between two places inside the zones, shape (n,)."""
    start, end = np.divmod(pair, ZONE_COUNT)
    apart = city.place_miles[end] - city.place_miles[start]  # (n, 2)
    spread = np.hypot(city.spread_miles[start], city.spread_miles[end])
    straight = np.hypot(*(apart + spread[:, None] * rng.standard_normal(apart.shape)).T)
    straight = np.hypot(straight, SHORTEST_MILES)
    near, gain, reach = DETOUR
    usual = near + gain * (1 - np.exp(-straight / reach))
    unusual = city.detour_log.ravel()[pair] + rng.normal(0, kind.detour_sd, len(pair))
    return straight * usual * np.exp(unusual)


def _usual_pace(
    city: City, month: str, pickup: np.ndarray, pair: np.ndarray, miles: np.ndarray
) -> np.ndarray:
    """Log pace to expect, shape (n,): by length, pair, hour of the week, day and month."""
    day, hour = np.divmod(pickup // 3600, 24)
    weekend = (_calendar(month) >= 5)[day]
    by_hour = np.array(PACE_HOURS)[weekend.astype(int), hour]
    swing = 1 + CORE_SWING * (city.core[:, None] & city.core).ravel()[pair]
    by_length = np.interp(np.log(miles.clip(0.01)), np.log(PACE_MILES), PACE_LOG)
    by_day = _weather(month)[0][day] + _at_month(PACE_MONTHS, month)
    return by_length + city.pace_log.ravel()[pair] + swing * by_hour + by_day


def _draw_minutes(
    rng: np.random.Generator, kind: Kind, miles: np.ndarray, log_pace: np.ndarray
) -> np.ndarray:
    """Minutes each ride takes, shape (n,): miles times noisy pace, a wait, now and then a stop."""
    n = len(miles)
    shaky = kind.noise * np.sqrt(1 + NOISE_SHORT_MILES / (miles + 0.1))
    noise = (rng.standard_t(NOISE_TAIL, n) * shaky).clip(-NOISE_MAX, NOISE_MAX)
    stops = np.where(rng.random(n) < STOP_SHARE, rng.exponential(STOP_MINUTES, n), 0)
    return miles * np.exp(log_pace + noise) + kind.wait_min + stops


# --- The dirt. These functions change the arrays they get: copies would double the memory needed.


def _pick(rng: np.random.Generator, n: int, share: float) -> np.ndarray:
    """Row numbers for about `share` of n rows, in no order."""
    return rng.integers(0, max(n, 1), rng.poisson(n * share))


def _name_outer_zones(
    rng: np.random.Generator, rides: Trips, outside: np.ndarray, unknown_share: float
) -> None:
    """Write 265 at the end outside the city and 264 at both ends of the rides nobody located."""
    inbound = outside & (rng.random(len(outside)) < INBOUND_SHARE)
    rides["PULocationID"][inbound] = OUTSIDE_ZONE
    rides["DOLocationID"][outside & ~inbound] = OUTSIDE_ZONE
    unknown = _pick(rng, len(outside), unknown_share)
    rides["PULocationID"][unknown] = rides["DOLocationID"][unknown] = UNKNOWN_ZONE


def _start_falsely(rng: np.random.Generator, rides: Trips, kind: Kind) -> None:
    """Make rides of seconds, most of them without a distance or another zone."""
    rows = _pick(rng, len(rides["miles"]), kind.false_start)
    seconds = rng.integers(0, 60, len(rows)) * (rng.random(len(rows)) > ZERO_SECONDS_SHARE)
    stood, stayed = rng.random((2, len(rows))) < STAYED_SHARE
    rides["minutes"][rows] = seconds / 60
    rides["miles"][rows] = np.where(stood, 0, seconds * 0.002)  # 7 miles an hour
    rides["DOLocationID"][rows[stayed]] = rides["PULocationID"][rows[stayed]]


def _break_meters(rng: np.random.Generator, rides: Trips, kind: Kind) -> None:
    """Lose distances, read odometers, leave meters on; the fares of such rides are right."""
    n = len(rides["miles"])
    rides["miles"][_pick(rng, n, kind.zero_distance)] = 0
    readings = _pick(rng, n, kind.odometer)
    low, high = ODOMETER_MILES  # the root below gives the quartiles measured: 3,000, 35,000, 63,000
    rides["miles"][readings] = low * (high / low) ** np.sqrt(rng.random(len(readings)))
    left_on = _pick(rng, n, kind.left_on)
    rides["minutes"][left_on] = rng.triangular(60, 1439, 1439, len(left_on))  # mostly a day


def _soil_rows(rng: np.random.Generator, trips: Trips, month: str) -> None:
    """Repeat rows, refund rides, then turn seconds into times, some wrong or out of the month."""
    n = len(trips["pickup"])
    trips["miles"] = np.round(trips["miles"], 2)  # as a meter shows them
    _repeat_rows(trips, _pick(rng, n, DUPLICATE))
    refunded = _repeat_rows(trips, _pick(rng, trips["metered"].sum(), REFUND))  # metered come first
    for name in (*AMOUNTS, *TOTALS):
        trips[name][refunded] *= -1
    _set_times(trips, month)
    wrong, stray = _pick(rng, n, WRONG_CLOCK), _pick(rng, n, OUT_OF_MONTH)
    trips["dropoff"][wrong] -= 2 * (trips["dropoff"] - trips["pickup"])[wrong]
    _leave_month(trips, stray, month)


def _repeat_rows(trips: Trips, rows: np.ndarray) -> np.ndarray:
    """Write each of the rows over the one after it; the row numbers that are now copies."""
    copies = (rows + 1).clip(max=len(trips["pickup"]) - 1)
    for values in trips.values():
        values[copies] = values[rows]
    return copies


def _set_times(trips: Trips, month: str) -> None:
    """Replace seconds by times, `pickup` and `dropoff`, of dispatched rides in whole minutes."""
    began = np.datetime64(month, "s")
    dropoff = trips["pickup"] + np.rint(trips.pop("minutes") * 60).astype(np.int64)
    for name, seconds in (("pickup", trips["pickup"]), ("dropoff", dropoff)):
        seconds = np.where(trips["metered"], seconds, seconds // 60 * 60)
        trips[name] = (began + seconds.astype("m8[s]")).astype("M8[us]")


def _leave_month(trips: Trips, rows: np.ndarray, month: str) -> None:
    """Move half the rows to where a reset clock starts, the others minutes beyond the month."""
    lasted = (trips["dropoff"] - trips["pickup"])[rows]
    minutes = np.timedelta64(10, "m")
    beyond = [
        np.datetime64(month, "s") - minutes,
        (np.datetime64(month) + 1).astype("M8[s]") + minutes,
    ]
    moved = np.resize(
        np.array([RESET_CLOCK, beyond[0], RESET_CLOCK, beyond[1]], "M8[us]"), len(rows)
    )
    trips["pickup"][rows], trips["dropoff"][rows] = moved, moved + lasted


# --- The money: plausible amounts, as files have them; no model may use them


def _draw_payment(
    rng: np.random.Generator, rides: Trips, service: str, kind: Kind, month: str, core: np.ndarray
) -> Trips:
    """The rate code, passengers, payment and all amounts in dollars, each of shape (n,)."""
    n = len(core)
    agreed, card = rng.random((2, n)) < np.array([[AGREED_SHARE[service]], [CARD_SHARE[service]]])
    start, mile, minute = FARE[kind.metered]
    fare = start + mile * rides["miles"] + minute * rides["minutes"]
    fare = np.round(fare if kind.metered else fare * rng.lognormal(0, 0.2, n), 2)
    money = {
        "fare_amount": fare,
        "extra": np.zeros(n),
        "mta_tax": np.full(n, 0.5 * kind.metered),
        "tip_amount": np.round(fare * card * rng.normal(0.2, 0.06, n).clip(0), 2),
        "tolls_amount": TOLL * (rng.random(n) < 0.25 * (rides["miles"] > TOLL_MILES)),
        "improvement_surcharge": np.full(n, 0.3),
        "congestion_surcharge": core * kind.metered * CONGESTION[service]
        * (month >= CONGESTION_SINCE),
    }  # fmt: skip
    if service == "yellow":
        at_airport = np.isin(rides["PULocationID"], (JFK, LAGUARDIA)) & kind.metered
        money["airport_fee"] = at_airport * AIRPORT_FEE
    if month >= CBD_FEE_SINCE:
        money["cbd_congestion_fee"] = core * CBD_FEE
    money["total_amount"] = np.round(sum(money.values()), 2)
    return money | {
        "RatecodeID": np.where(agreed, 5, 1),
        "payment_type": np.where(card, 1, 2),
        "passenger_count": np.searchsorted(np.cumsum(PARTY_SIZES), rng.random(n)) + 1,
        "VendorID": np.where(kind.metered & (rng.random(n) < FIRST_VENDOR_SHARE), 1, 2),
    }


# --- The table


def _columns(service: str, month: str) -> list[tuple[str, str, pa.DataType]]:
    """Our key, TLC's name and type of each column of that service and month, in TLC's order."""
    modern = month >= MODERN_SINCE
    number = pa.int32() if modern else pa.int64()
    count = (
        pa.int64() if modern else pa.float64()
    )  # before, pandas wrote a column with nulls as doubles
    types = dict.fromkeys(("VendorID", "PULocationID", "DOLocationID"), number)
    types |= dict.fromkeys(("RatecodeID", "passenger_count", "trip_type"), count)
    types |= dict.fromkeys(("pickup", "dropoff"), pa.timestamp("us"))
    types["payment_type"] = count if service == "green" else pa.int64()
    types["store_and_fwd_flag"] = pa.large_string() if modern else pa.string()
    types["ehail_fee"] = pa.float64() if modern else pa.null()
    types["airport_fee"] = pa.null() if month < AIRPORT_FEE_SINCE else pa.float64()
    names = {key: f"{TIME_PREFIX[service]}_{key}_datetime" for key in ("pickup", "dropoff")}
    names |= {"miles": "trip_distance", "airport_fee": "Airport_fee" if modern else "airport_fee"}
    order = COLUMNS[service] + (("cbd_congestion_fee",) if month >= CBD_FEE_SINCE else ())
    return [(key, names.get(key, key), types.get(key, pa.float64())) for key in order]


def _to_table(trips: Trips, service: str, month: str) -> pa.Table:
    """Give the trips TLC's names and types, and nulls where only a meter would know."""
    metered = trips.pop("metered")
    trips["trip_type"] = np.where(trips["RatecodeID"] == 5, 2, 1)
    if service == "yellow":  # here 0 stands for a payment not known
        trips["payment_type"] *= metered
    columns = _columns(service, month)
    arrays = [
        _to_array(key, kind, trips, _is_null(key, service, month, metered))
        for key, _, kind in columns
    ]
    return pa.table(arrays, names=[name for _, name, _ in columns])


def _is_null(key: str, service: str, month: str, metered: np.ndarray) -> np.ndarray | None:
    """True where a column has no value, shape (n,), or None if it has all."""
    if key == "congestion_surcharge" and month < CONGESTION_SINCE:
        return np.ones(len(metered), dtype=bool)
    if key not in METER_ONLY or (service == "yellow" and key == "payment_type"):
        return None
    return ~metered


def _to_array(key: str, kind: pa.DataType, trips: Trips, null: np.ndarray | None) -> pa.Array:
    n = len(trips["pickup"])
    if key == "ehail_fee" or pa.types.is_null(kind):
        return pa.nulls(n, kind)
    if key == "store_and_fwd_flag":  # kept in the cab until it was online again: every 300th ride
        codes = (trips["pickup"].astype(np.int64) // 1_000_000 % 300 == 0).astype(np.int8)
        return pa.DictionaryArray.from_arrays(pa.array(codes, mask=null), ["N", "Y"]).cast(kind)
    values = trips[key] if key == "pickup" else trips.pop(key)  # popped: frees memory as we go
    return pa.array(values.astype(NUMPY_TYPES.get(kind, values.dtype), copy=False), kind, mask=null)
