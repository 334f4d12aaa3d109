import pytest
from hypothesis import given
from hypothesis import strategies as st

from taxi_duration.domain.references import Reference, check_alias, parse_reference
from taxi_duration.domain.version import model_name
from taxi_duration.errors import SettingError

DIGEST = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("green-duration:7", Reference("green-duration", "7", None, None)),
        ("green-duration:champion", Reference("green-duration", None, "champion", None)),
        ("yellow-duration:latest", Reference("yellow-duration", None, "latest", None)),
        (f"green-duration@sha256:{DIGEST}", Reference("green-duration", None, None, DIGEST)),
        ("green-duration@sha256:01234567", Reference("green-duration", None, None, "01234567")),
        (" green-duration:7\n", Reference("green-duration", "7", None, None)),
    ],
)
def test_version_alias_and_digest_are_understood(text, reference):
    assert parse_reference(text) == reference


@pytest.mark.parametrize(
    "text",
    ["", "7", "champion", "green:7", "green-duration", "green-duration:", "Green-duration:7",
     "green-duration@champion", "green-duration@sha256:0123", "green-duration@sha256:XYZ12345",
     f"green-duration@sha256:{DIGEST}0", "green-duration@md5:01234567", "green-duration:7:8",
     "../green-duration:7", "green-duration:../7"],
)  # fmt: skip
def test_anything_else_is_refused_with_the_accepted_forms(text):
    with pytest.raises(SettingError, match=r"green-duration:champion \(alias\)") as error:
        parse_reference(text)
    assert repr(text) in str(error.value)


@given(st.integers(1, 10**6), st.sampled_from(["green", "yellow", "fhv", "fhvhv"]))
def test_every_version_of_every_service_can_be_referred_to(version, service):
    reference = parse_reference(f"{model_name(service)}:{version}")
    assert (reference.name, reference.version) == (f"{service}-duration", str(version))


@given(st.text(max_size=40))
def test_any_text_parses_or_raises_a_setting_error(text):
    try:
        reference = parse_reference(text)
    except SettingError:
        return
    assert sum(part is not None for part in reference[1:]) == 1


@pytest.mark.parametrize(
    "alias", ["stable", "2021-winter", "Winter_2021", "v1-rc", "vienna", "x" * 128]
)
def test_word_is_an_alias_and_a_reference_by_it_is_understood(alias):
    assert check_alias(alias) == alias
    assert parse_reference(f"green-duration:{alias}").alias == alias


@pytest.mark.parametrize(
    "alias",
    ["", " stable", "stable\n", "a b", "a.b", "a:b", "-stable", "_stable", "grün", "x" * 129,
     "7", "007", "v7", "V12", "latest", "Latest"],
)  # fmt: skip
def test_other_alias_is_refused_with_what_is_allowed(alias):
    with pytest.raises(SettingError, match="such as stable; not a number") as error:
        check_alias(alias)
    assert repr(alias) in str(error.value)


@pytest.mark.parametrize("alias", ["champion", "challenger", "Champion"])
def test_alias_that_says_what_is_deployed_is_refused_with_the_command_that_moves_it(alias):
    with pytest.raises(SettingError, match=r"`python pipeline\.py promote`") as error:
        check_alias(alias)
    assert repr(alias) in str(error.value)
