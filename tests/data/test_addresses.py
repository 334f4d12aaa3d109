"""What can be an address of months, and of a file of answers."""

from __future__ import annotations

import pytest

from taxi_duration.data.addresses import READ, WRITTEN, check_address
from taxi_duration.data.sources import fetch_month, published_months
from taxi_duration.domain.months import Month
from taxi_duration.errors import SettingError


@pytest.mark.parametrize(
    "address",
    ["/data/tlc", "../shared/tlc", "C:/data", "a:b", "https://tlc.example/x", "s3://months",
     "s3://my_months/tlc", "file:///data/tlc", "ftp://tlc.example:21/x", "simplecache::s3://months",
     "https://me:secret@tlc.example", "memory://months"],
)  # fmt: skip
def test_addresses_and_paths_are_taken(address):
    check_address("TLC_URL", address, READ)


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("htp://x", "Protocol not known: htp"),
        ("://x", "no scheme"),
        ("s3:/x", "two slashes"),
        ("http:", "two slashes"),
        ("http://", "no host or bucket"),
        ("s3:///x", "no host or bucket"),
        ("http://[x", "IPv6"),
        ("http://x:99999", "Port out of range"),
        ("s3://x:port", "Port"),
    ],
)
@pytest.mark.parametrize("allowed", [READ, WRITTEN])
def test_what_is_no_address_is_refused_with_name_value_and_what_is_allowed(address, why, allowed):
    with pytest.raises(SettingError) as refused:
        check_address("TLC_URL", address, allowed)
    said = str(refused.value)
    assert said.startswith(f"TLC_URL is {address!r}: ")
    assert why in said
    assert said.endswith(f"; it may be {allowed}")


def test_library_that_is_not_installed_is_named(monkeypatch):
    def ask(scheme):
        raise ImportError(f"Please install what reads {scheme}")

    monkeypatch.setattr("taxi_duration.data.addresses.fsspec.get_filesystem_class", ask)
    with pytest.raises(SettingError, match="TLC_URL is 'gs://x': Please install what reads gs"):
        check_address("TLC_URL", "gs://x", READ)


def test_password_is_not_shown():
    with pytest.raises(SettingError) as refused:
        check_address("TLC_URL", "htp://me:secret@x/y", READ)
    assert "TLC_URL is 'htp://x/y'" in str(refused.value)


@pytest.mark.parametrize("address", ["s3://months/a.parquet", "file:///tmp/a", "https://x/a"])
def test_file_at_an_address_can_be_written(address):
    check_address("--to", address, WRITTEN)


@pytest.mark.parametrize("address", ["s3://months", "s3://months/", "s3://months/folder/"])
def test_file_needs_a_name(address):
    with pytest.raises(SettingError, match="it names no file"):
        check_address("--to", address, WRITTEN)


def test_path_needs_a_folder_and_is_none(tmp_path):
    check_address("--to", str(tmp_path / "a.parquet"), WRITTEN)
    with pytest.raises(SettingError, match="that is a folder"):
        check_address("--to", str(tmp_path), WRITTEN)
    with pytest.raises(SettingError, match="there is no folder"):
        check_address("--to", str(tmp_path / "none" / "a.parquet"), WRITTEN)


def test_file_in_memory_is_written_for_nobody():
    with pytest.raises(SettingError, match="is gone when this command has ended"):
        check_address("--to", "memory://a", WRITTEN)


def test_months_are_not_looked_for_where_nothing_can_be(monkeypatch):
    monkeypatch.setenv("TLC_URL", "htp://x")
    with pytest.raises(SettingError, match="TLC_URL is 'htp://x'"):
        fetch_month("green", Month(2021, 1))
    with pytest.raises(SettingError, match="TLC_URL is 'htp://x'"):
        list(published_months("green", [Month(2021, 1)]))
