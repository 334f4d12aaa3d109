import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taxi_duration.data.columns import FIELDS, MARKS, OPTIONAL, resolve_columns
from taxi_duration.domain.ride_columns import SYNONYMS
from taxi_duration.errors import TripFileError

# Of one alias for each of our columns, in any order, case and padding, among strangers.
ALIASES = {ours: SYNONYMS[field] for ours, field in FIELDS.items()} | MARKS
spellings = st.fixed_dictionaries({ours: st.sampled_from(a) for ours, a in ALIASES.items()})
cases = st.sampled_from([str.lower, str.upper, str.title, lambda s: f" {s} "])
strangers = st.lists(
    st.sampled_from(["extra", "fare_amount", "Airport_fee", "cbd_congestion_fee", "tip "]),
    unique=True,
)


@given(spellings, cases, strangers, st.randoms(use_true_random=False))
def test_every_era_maps_whatever_case_order_and_company(chosen, case, others, rng: random.Random):
    written = {ours: case(alias) for ours, alias in chosen.items()}
    names = [*written.values(), *others]
    rng.shuffle(names)
    assert resolve_columns(names, "month.parquet") == written


@given(spellings, st.sampled_from([c for c in ALIASES if c not in OPTIONAL]))
def test_any_missing_column_is_named_with_what_was_found(chosen, missing):
    names = [alias for ours, alias in chosen.items() if ours != missing]
    with pytest.raises(TripFileError) as error:
        resolve_columns(names, "month.parquet")
    message = str(error.value).lower()
    expected = ("month.parquet", FIELDS[missing].lower(), *ALIASES[missing])
    assert all(word in message for word in (*expected, *names))


def test_distance_alone_may_be_missing():
    names = ["pickup_datetime", "dropOff_datetime", "PUlocationID", "DOlocationID"]
    assert "trip_distance" not in resolve_columns(names, "fhv.parquet")


def test_first_of_two_columns_with_the_same_name_but_case_is_taken():
    names = ["lpep_pickup_datetime", "lpep_dropoff_datetime", "PULocationID", "pulocationid",
             "DOLocationID", "trip_distance"]  # fmt: skip
    assert resolve_columns(names, "month.parquet")["PULocationID"] == "PULocationID"


def test_times_of_the_meter_are_preferred_to_others():
    names = ["request_datetime", "pickup_datetime", "tpep_pickup_datetime", "dropoff_datetime",
             "PULocationID", "DOLocationID"]  # fmt: skip
    columns = resolve_columns(names, "month.parquet")
    assert (columns["pickup_at"], columns["dropoff_at"]) == (
        "tpep_pickup_datetime", "dropoff_datetime",
    )  # fmt: skip


@pytest.mark.parametrize("coordinates", ["Pickup_longitude", " pickup_latitude", "Start_Lon"])
def test_coordinates_instead_of_zones_are_said_so(coordinates):
    names = ["pickup_datetime", "dropoff_datetime", coordinates]
    with pytest.raises(TripFileError, match=r"coordinates .* instead of taxi zones"):
        resolve_columns(names, "old.csv")


def test_file_without_any_column_says_so():
    with pytest.raises(TripFileError, match="found no columns"):
        resolve_columns([], "empty.parquet")


def test_same_name_twice_is_refused_for_a_needed_column_alone():
    names = ["pickup_datetime", "dropoff_datetime", "PULocationID", "DOLocationID", "tip", "tip"]
    assert resolve_columns(names, "month.csv")["PULocationID"] == "PULocationID"
    with pytest.raises(TripFileError, match=r"month\.csv: column PULocationID comes 2 times"):
        resolve_columns([*names, "PULocationID"], "month.csv")
