from __future__ import annotations

import math
from typing import Any

import pytest
from cards import make_card, make_month

from taxi_duration.errors import BundleError
from taxi_duration.model.card_checks import MAX_DEPTH, check_card

CARD = {**make_card("XGB"), "model_sha256": "a" * 64}
REQUIRED = sorted(CARD)


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def month(**changes: Any) -> dict[str, Any]:
    return {"train": [{**make_month("2021-01"), **changes}], "validation": []}


def scores(**changes: Any) -> dict[str, Any]:
    return {**CARD["metrics"], "without_distance": {"rmse": 5.0, "mae": 4.0, **changes}}


def test_a_card_as_the_chain_writes_it_is_right():
    check_card(CARD)
    check_card(CARD, expected="green-duration:1")


def test_a_card_without_a_number_yet_is_right():
    check_card({field: CARD[field] for field in CARD if field not in ("name", "version")})


@pytest.mark.parametrize("field", REQUIRED)
def test_a_card_without_a_field_is_refused_by_its_name(field):
    with pytest.raises(BundleError, match=f"has no {field}; expected is"):
        check_card({name: CARD[name] for name in CARD if name != field}, "green-duration:1")


@pytest.mark.parametrize("changes", [
    {"train_data": "2020-01:2021-01,2021-03"}, {"created": "2021-03-01T00:00:00Z"},
    {"data_source": "tlc"}, {"version": 2**31}, {"share": math.nan}, {"more": deep(MAX_DEPTH - 1)},
    {"months": month(url="s3://months/green.parquet")}, {"run_id": "20210301-000000-ab_c.d"},
    {"service": "fhvhv", "name": "fhvhv-duration"}, {"metrics": scores(mae=4)},
    {"more": 2**63 - 1}, {"more": "\N{TAXI}"},
])  # fmt: skip
def test_what_a_card_may_also_say(changes):
    check_card({**CARD, **changes})


@pytest.mark.parametrize(("field", "value"), [
    ("model_sha256", "A" * 64), ("model_sha256", "a" * 63), ("model_sha256", None),
    ("model_sha256", "a" * 64 + "\n"),
    ("created", "2021-03-01T00:00:00"), ("created", "yesterday"), ("created", 1614556800),
    ("model_kind", ""), ("model_kind", "xgb"), ("model_kind", "X" * 21), ("model_kind", 5),
    ("service", "blue"), ("service", ["green"]), ("service", None),
    ("data_source", "made up"), ("data_source", None),
    ("train_data", "2021-13"), ("train_data", "Jan 2021"), ("train_data", ""),
    ("val_data", "2021-02,"), ("val_data", 202102),
    ("months", []), ("months", {"train": []}), ("months", {"train": {}, "validation": []}),
    ("months", month(month="2021-1")), ("months", month(file="../../x.parquet")),
    ("months", month(sha256="0")), ("months", month(url=5)), ("months", month(rows_read=-1)),
    ("months", month(rows_kept=1.5)), ("months", month(data_source="")),
    ("months", month(reasons={"too_short": "many"})), ("months", month(reasons=[])),
    ("metrics", {}), ("metrics", {"with_distance": {"rmse": 1.0, "mae": 1.0}}),
    ("metrics", scores(mae="4")), ("metrics", scores(rmse=-1.0)), ("metrics", scores(mae=True)),
    ("metrics", scores(rmse=math.nan)), ("metrics", scores(rmse=math.inf)),
    ("parameters", []), ("libraries", []), ("libraries", {"numpy": 2}), ("git_commit", None),
    ("git_commit", ""), ("run_id", "../runs"), ("run_id", ""), ("run_id", ".hidden"),
    ("name", 5), ("name", "../green-duration"), ("version", "1"), ("version", 0),
    ("version", True), ("version", 1.0), ("version", 2**31 + 1),
])  # fmt: skip
def test_a_field_that_its_readers_could_not_use_is_refused_by_name(field, value):
    with pytest.raises(BundleError, match=f"has {field} .*; expected is"):
        check_card({**CARD, field: value})


@pytest.mark.parametrize("value", [2**63, -(2**63), "\ud800", deep(MAX_DEPTH), {"\udfff": 1}])
def test_what_no_answer_could_show_is_refused_in_whatever_field(value):
    with pytest.raises(BundleError, match="must hold an object of texts and numbers below"):
        check_card({**CARD, "more": value})


@pytest.mark.parametrize("card", [None, [], "card", 5])
def test_what_is_no_object_is_refused(card):
    with pytest.raises(BundleError, match="must hold an object"):
        check_card(card)


def test_a_long_value_is_not_repeated_in_full():
    with pytest.raises(BundleError) as error:
        check_card({**CARD, "model_kind": "x" * 100_000})
    assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    ("changes", "expected", "message"),
    [
        ({"name": "yellow-duration"}, None, "named yellow-duration, and is of the service green"),
        ({"version": 3}, "green-duration:1", "that of green-duration:3, expected is .*:1"),
        (
            {"name": "yellow-duration", "service": "yellow"},
            "green-duration:1",
            "that of yellow-duration:1, expected is green-duration:1",
        ),
    ],
)
def test_a_card_of_another_model_is_refused(changes, expected, message):
    with pytest.raises(BundleError, match=message):
        check_card({**CARD, **changes}, expected)


@pytest.mark.parametrize("field", ["name", "version"])
def test_a_name_and_a_number_come_together(field):
    with pytest.raises(BundleError, match=f"has no {field}"):
        check_card({name: CARD[name] for name in CARD if name != field})
