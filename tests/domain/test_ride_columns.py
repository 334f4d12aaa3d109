"""The one rule of names and empty cells: which columns mean what, whoever wrote them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taxi_duration.domain.ride_columns import (
    NULL_WORDS,
    SYNONYMS,
    find_columns,
    is_null_word,
    missing,
    plain_name,
    twice,
)

cases = st.sampled_from([str, str.lower, str.upper, str.title])
around = st.sampled_from(["{}", " {}", "{} ", "\ufeff{}", "\ufeff {}\r", "\t{}\n", "{}\xa0"])


@given(st.data())
def test_every_name_is_found_whatever_its_case_and_what_stands_around_it(data):
    fields = data.draw(st.lists(st.sampled_from(list(SYNONYMS)), unique=True))
    names = [
        data.draw(around).format(data.draw(cases)(data.draw(st.sampled_from(SYNONYMS[field]))))
        for field in fields
    ]
    names += data.draw(st.lists(st.sampled_from(["VendorID", "fare_amount", "request_datetime"])))
    order = data.draw(st.permutations(range(len(names))))
    found = find_columns([names[i] for i in order])
    assert found.positions == {field: [order.index(i)] for i, field in enumerate(fields)}
    assert found.others == [i for i, at in enumerate(order) if at >= len(fields)]


@pytest.mark.parametrize(
    ("names", "positions"),
    [
        (["PULocationID", "PULocationID"], [0, 1]),
        (["PUlocationID", "x", "pulocationid"], [0, 2]),
        (["pickup_location_id", "PULocationID"], [1, 0]),  # best name first
    ],
)
def test_columns_that_mean_the_same_are_all_found(names, positions):
    assert find_columns(names).positions == {"PULocationID": positions}


def test_the_names_of_the_meter_come_before_others():
    names = ["pickup_at", "pickup_datetime", "tpep_pickup_datetime", "request_datetime"]
    found = find_columns(names)
    assert found.positions == {"pickup_datetime": [2, 1, 0]}
    assert found.others == [3]


def test_fields_that_are_not_asked_for_are_others():
    found = find_columns(["dropoff_datetime", "PULocationID"], ["PULocationID"])
    assert (found.positions, found.others) == ({"PULocationID": [1]}, [0])


@pytest.mark.parametrize(
    ("name", "field"),
    [("PU Location ID", "PULocationID"), ("do_location_id", "DOLocationID"),
     ("pickup_locationid", "PULocationID"), ("Trip Distance", "trip_distance"),
     ("tripDistance", "trip_distance"), ("trip-miles", "trip_distance"),
     ("Lpep Pickup Datetime", "pickup_datetime")],
)  # fmt: skip
def test_spaces_and_dashes_in_a_name_do_not_count(name, field):
    assert find_columns([name]).positions == {field: [0]}


def test_no_name_means_two_fields():
    words = [word for names in SYNONYMS.values() for word in names]
    assert len(set(map(plain_name, words))) == len(words)
    assert all(word == word.strip().lower() for word in words)


@pytest.mark.parametrize(
    "text",
    ["", " ", "NULL", "null", "Null", "None", "none", "NONE", "N/A", "n/a", "#N/A", "NA", "na",
     "<NA>", "<na>", "NaN", "nan", "NAN", "-nan", "NaT", "nat", "\\N", " NULL\t"],
)  # fmt: skip
def test_the_usual_words_are_null(text):
    assert is_null_word(text)


@pytest.mark.parametrize("text", ["0", "\\n", "nope", "n", "N", "-", "264", "Unknown", "<>"])
def test_other_words_are_not(text):
    assert not is_null_word(text)


def test_null_words_are_what_pandas_takes_too():
    from pandas._libs.parsers import STR_NA_VALUES  # all that `read_csv` takes by default

    machine = {"#N/A N/A", "#NA", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"}  # of old compilers
    assert STR_NA_VALUES - machine <= NULL_WORDS


def test_the_words_name_the_field_and_what_was_found():
    assert twice("trip_distance", ["trip_miles", "Trip_Distance"]) == (
        "trip_distance comes 2 times, as 'trip_miles' and 'Trip_Distance'; one column is expected"
    )
    assert missing("trip_distance", ["a ", "b"]) == (
        "trip_distance is missing; expected trip_distance or trip_miles (any case), found a, b"
    )
    assert "found no columns" in missing("PULocationID", [])
