import pytest
from hypothesis import given
from hypothesis import strategies as st

from taxi_duration.domain.months import (
    MONTH_NAMES,
    Month,
    check_available,
    check_order,
    check_service,
    format_months,
    parse_month,
    parse_months,
)
from taxi_duration.errors import SettingError, TagError

months = st.builds(Month, st.integers(2009, 2060), st.integers(1, 12))


@pytest.mark.parametrize(
    "tag", ["2021-01", "2021/01", "Jan 2021", "january 2021", "JANUARY 2021", " jan  2021 "]
)
def test_every_accepted_form_is_the_same_month(tag):
    assert str(parse_month(tag)) == "2021-01"


@pytest.mark.parametrize(
    "tag",
    ["2021-13", "2021-00", "2021", "21-01", "2021-1", "Janvier 2021", "Ja 2021", "Jan2021", "",
     "01-2021", "2021_01", "٢٠٢١-٠١", "2021-01-01", "None"],
)  # fmt: skip
def test_anything_else_is_refused_with_the_accepted_forms(tag):
    with pytest.raises(TagError, match="Jan 2021") as error:
        parse_month(tag)
    assert repr(tag) in str(error.value)


@given(months)
def test_numeric_and_named_forms_agree(month):
    name = MONTH_NAMES[month.month - 1]
    forms = (str(month), f"{month.year}/{month.month:02d}", f"{name[:3]} {month.year}",
             f"{name.title()} {month.year}")  # fmt: skip
    assert {parse_month(form) for form in forms} == {month}


@given(st.lists(months, min_size=1, max_size=20))
def test_formatted_months_parse_to_the_same_months(some):
    assert parse_months(format_months(some)) == sorted(set(some))


@given(st.lists(months, min_size=1, max_size=5))
def test_list_of_tags_means_the_same_as_text_with_commas(some):
    tags = [str(month) for month in some]
    assert parse_months(tags) == parse_months(tuple(tags)) == parse_months(",".join(tags))
    assert parse_months(["Jan 2021", "2021-02:2021-03"]) == parse_months("2021-01:2021-03")


@pytest.mark.parametrize("tags", [[], ["2021-01", ""], ["2021-01", None], [["2021-01"]]])
def test_list_with_anything_else_in_it_is_refused(tags):
    with pytest.raises(TagError, match="Jan 2021"):
        parse_months(tags)


@given(months, st.integers(0, 30))
def test_range_holds_every_month_between_its_ends(first, count):
    got = parse_months(f"{first}:{first.shift(count)}")
    assert (got[0], got[-1], len(got)) == (first, first.shift(count), count + 1)


@given(st.text(max_size=12))
def test_any_text_parses_or_raises_a_tag_error(text):
    try:
        result = parse_months(text)
    except TagError:
        return
    assert all(isinstance(month, Month) for month in result)


def test_list_is_sorted_and_without_repeats():
    assert [str(m) for m in parse_months("2021-03, Jan 2021,2021-03")] == ["2021-01", "2021-03"]


def test_neighbouring_months_are_stored_as_a_range():
    assert (
        format_months(parse_months("2021-01,2021-02,2021-03,2021-06")) == "2021-01:2021-03,2021-06"
    )


@pytest.mark.parametrize("tags", ["2021-03:2021-01", "2021-01:", ":2021-01", "2021-01,,2021-02",
                                  "2021-01:2021-02:2021-03"])  # fmt: skip
def test_malformed_ranges_are_refused(tags):
    with pytest.raises(TagError):
        parse_months(tags)


@pytest.mark.parametrize(
    ("service", "last_missing", "first"),
    [("green", "2013-07", "2013-08"), ("yellow", "2010-12", "2011-01"),
     ("fhv", "2014-12", "2015-01"), ("fhvhv", "2019-01", "2019-02")],
)  # fmt: skip
def test_months_before_a_service_had_zones_are_refused(service, last_missing, first):
    check_available(service, parse_months(first))
    with pytest.raises(TagError, match=f"start in {first}"):
        check_available(service, parse_months(last_missing))


def test_unknown_service_names_the_allowed_ones():
    assert check_service("Green") == "green"
    with pytest.raises(SettingError, match="green, yellow, fhv, fhvhv"):
        check_service("blue")


@pytest.mark.parametrize("validation", ["2021-01", "2020-12", "2021-01,2021-03"])
def test_validation_at_or_before_training_is_leakage(validation):
    with pytest.raises(TagError, match="leakage"):
        check_order(parse_months("2020-12:2021-01"), parse_months(validation))


def test_validation_after_all_of_training_is_accepted():
    check_order(parse_months("2020-12:2021-01"), parse_months("2021-02"))
