"""A version of a model: what names it, where it lies, which comes first."""

from __future__ import annotations

import pytest
from msgspec import to_builtins

from taxi_duration.domain.version import Version, bundle_folder, model_name
from taxi_duration.errors import ContentError

FACTS = {
    "name": "fhvhv-duration",
    "version": 12,
    "model_sha256": "0123456789abcdef" * 4,
    "data_source": "tlc",
}


def test_version_of_a_card_has_its_four_facts_and_is_written_as_they_were():
    version = Version.of({**FACTS, "metrics": {"rmse": 5.0}})
    assert version == Version("fhvhv-duration", 12, "0123456789abcdef" * 4, "tlc")
    assert to_builtins(version) == FACTS


def test_version_says_how_it_is_referred_to_whom_it_serves_and_where_it_lies(home):
    version = Version.of(FACTS)
    assert (version.ref, version.service) == ("fhvhv-duration:12", "fhvhv")
    assert version.folder == home / "models" / "fhvhv-duration" / "12"
    assert bundle_folder(version.name, "12") == version.folder
    assert model_name(version.service) == version.name


def test_versions_sort_by_name_and_then_by_number_not_by_letters():
    def version(name: str, number: int) -> Version:
        return Version(name, number, "0" * 64, "tlc")

    versions = [version("yellow-duration", 2), version("green-duration", 10),
                version("green-duration", 9)]  # fmt: skip
    assert [v.ref for v in sorted(versions)] == [
        "green-duration:9", "green-duration:10", "yellow-duration:2"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "../green-duration"}, "name is '../green-duration', expected is `str` matching"),
        ({"name": "green"}, "name is 'green'"),
        ({"name": None}, "name is None, expected is `str`"),
        ({"version": "12"}, "version is '12', expected is `int`"),
        ({"version": 0}, "version is 0, expected is `int` >= 1"),
        ({"version": 1.5}, "version is 1.5, expected is `int`"),
        ({"version": True}, "version is True, expected is `int`"),
        ({"model_sha256": "ab12"}, "model_sha256 is 'ab12'"),
        ({"model_sha256": "A" * 64}, "model_sha256 is 'AAAA"),
        ({"data_source": "internet"}, "data_source is 'internet'"),
    ],
)
def test_card_of_no_version_is_refused_by_the_name_of_its_field(change, said):
    with pytest.raises(ContentError, match=r"^card: ") as error:
        Version.of({**FACTS, **change})
    assert said in str(error.value)


@pytest.mark.parametrize("field", FACTS)
def test_card_that_lacks_a_fact_is_refused(field):
    with pytest.raises(ContentError, match=f"missing required field `{field}`"):
        Version.of({name: value for name, value in FACTS.items() if name != field})
