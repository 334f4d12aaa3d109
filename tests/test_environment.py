import os
import tempfile
from pathlib import Path

import pytest

from taxi_duration import environment
from taxi_duration.errors import SettingError

PROJECT = Path(__file__).resolve().parent.parent


@pytest.fixture
def nothing_set(monkeypatch) -> None:
    monkeypatch.delenv("TAXI_HOME")


def test_without_settings_everything_lies_in_the_project(nothing_set):
    assert environment.home() == PROJECT
    assert environment.data_dir() == PROJECT / "data"
    assert environment.tracking_dir() == PROJECT / "tracking"


def test_taxi_home_moves_every_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("TAXI_HOME", str(tmp_path))
    folders = (environment.data_dir, environment.runs_dir, environment.models_dir,
               environment.tracking_dir, environment.deployment_dir)  # fmt: skip
    assert {folder().parent for folder in folders} == {tmp_path}


def test_temporary_home_is_another_one_also_where_parts_lie_elsewhere(monkeypatch, tmp_path):
    monkeypatch.setenv("DEPLOYMENT_DIR", str(tmp_path / "volume"))
    monkeypatch.setenv("AUTO_APPROVE", "manual")
    data, other = environment.data_dir(), tmp_path / "other"
    with environment.temporary_home(other):
        assert environment.deployment_dir() == other / "deployment"
        assert environment.models_dir() == other / "models"
        assert environment.data_dir() == data
        assert not environment.needs_approval()
    assert environment.deployment_dir() == tmp_path / "volume"
    assert "MODELS_DIR" not in os.environ


def test_folder_of_temporary_files_leaves_room_for_sockets(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", "/tmp")
    assert environment.temporary_folder() == Path("/tmp")
    monkeypatch.setattr(tempfile, "tempdir", f"/tmp/{'é' * 34}")
    with pytest.raises(SettingError, match=r"TMPDIR is '/tmp/é+'; .* at most 70 bytes"):
        environment.temporary_folder()


def test_machine_that_takes_no_temporary_files_is_said(monkeypatch):
    def fail():
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", fail)
    with pytest.raises(SettingError, match="TMPDIR must name one"):
        environment.temporary_folder()


def test_data_dir_moves_the_months_alone(nothing_set, monkeypatch, tmp_path):
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "big disk"))
    assert environment.data_dir() == tmp_path / "big disk"
    assert environment.runs_dir() == PROJECT / "runs"


@pytest.mark.parametrize(
    ("given", "base"),
    [
        ("", "https://d37ci6vzurychx.cloudfront.net"),
        ("https://host/months/", "https://host/months"),
        ("s3://bucket/tlc", "s3://bucket/tlc"),
        ("file:///data/tlc/", "file:///data/tlc"),
        ("/data/tlc", "/data/tlc"),
        ("../shared/tlc", str((PROJECT.parent / "shared" / "tlc").resolve())),
    ],
)
def test_tlc_url_is_an_address_or_a_folder(monkeypatch, tmp_path, given, base):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TLC_URL", given)
    assert environment.tlc_url() == base


@pytest.mark.parametrize(
    ("name", "read", "default", "good", "value"),
    [
        ("DATA", environment.data_mode, "auto", "TLC", "tlc"),
        ("MAX_BAD_SHARE", environment.max_bad_share, 0.2, "0.35", 0.35),
        ("SAMPLE_ROWS", environment.sample_rows, None, "5000", 5000),
        ("BOOST_ROWS", environment.boost_rows, 4_000_000, "1000", 1000),
        ("BOOST_ROWS", environment.boost_rows, 4_000_000, "All", None),
        ("DEVICE", environment.device, "cpu", "CUDA", "cuda"),
        ("UTC_TIMES", environment.utc_times, "convert", "Local", "local"),
        ("MODEL_SIGNING_KEY", environment.signing_key, None, "secret", b"secret"),
        ("MODEL_PRIVATE_KEY", environment.signing_key, None, "secret", b"secret"),
        ("AUTO_APPROVE", environment.needs_approval, False, "Manual", True),
        ("API_KEY", environment.api_key, None, "secret", "secret"),
        ("MLFLOW_TRACKING_URI", environment.tracking_server, None, "http://host", "http://host"),
    ],
)
def test_each_variable_has_a_default_which_an_empty_one_means_too(
    monkeypatch, name, read, default, good, value
):
    assert read() == default
    for nothing in ("", "  ", "\t\n"):
        monkeypatch.setenv(name, nothing)
        assert read() == default
    monkeypatch.setenv(name, f" {good} ")
    assert read() == value
    monkeypatch.setenv(name, good)
    assert read() == value


def test_relative_file_of_a_store_is_the_same_wherever_a_notebook_runs(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///runs.db")
    assert environment.tracking_server() == f"sqlite:///{PROJECT}/runs.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////data/runs.db?timeout=5")
    assert environment.tracking_server() == "sqlite:////data/runs.db?timeout=5"


def test_who_has_the_private_key_of_a_pair_signs_with_it(monkeypatch):
    monkeypatch.setenv("MODEL_SIGNING_KEY", "ed25519-public:x")
    monkeypatch.setenv("MODEL_PRIVATE_KEY", "ed25519-private:y")
    assert environment.signing_key() == b"ed25519-private:y"


@pytest.mark.parametrize(
    ("name", "read", "bad", "allowed"),
    [
        ("DATA", environment.data_mode, "real", "auto, tlc, sample"),
        ("AUTO_APPROVE", environment.needs_approval, "manul", "auto, manual"),
        ("MAX_BAD_SHARE", environment.max_bad_share, "20 %", "from 0 to 1"),
        ("MAX_BAD_SHARE", environment.max_bad_share, "1.5", "from 0 to 1"),
        ("MAX_BAD_SHARE", environment.max_bad_share, "nan", "from 0 to 1"),
        ("UTC_TIMES", environment.utc_times, "keep", "convert, local"),
        ("SAMPLE_ROWS", environment.sample_rows, "0", "positive whole number"),
        ("BOOST_ROWS", environment.boost_rows, "0", "positive whole number, or `all`"),
        ("BOOST_ROWS", environment.boost_rows, "4e6", "positive whole number, or `all`"),
        ("DEVICE", environment.device, "cuda:0", "cpu, cuda"),
        ("SAMPLE_ROWS", environment.sample_rows, "1e4", "positive whole number"),
        ("SAMPLE_ROWS", environment.sample_rows, "-5", "positive whole number"),
        ("SAMPLE_ROWS", environment.sample_rows, "100000001", "at most 100000000"),
        ("LOG_KEEP_DAYS", environment.log_keep_days, "9" * 18, "at most 36500"),
        ("TAXI_HOME", environment.home, __file__, "a folder"),
        ("DATA_DIR", environment.data_dir, __file__, "a folder"),
        ("MODELS_DIR", environment.models_dir, __file__, "a folder"),
        ("DEPLOYMENT_DIR", environment.deployment_dir, __file__, "a folder"),
        ("TAXI_HOME", environment.home, "~no-such-user/taxi", "no such user"),
        ("TLC_URL", environment.tlc_url, "~no-such-user/taxi", "no such user"),
        ("ACCESS_LOG", lambda: environment.is_on("ACCESS_LOG"), "maybe", "1, true, yes, on, 0"),
    ],
)
def test_bad_value_is_refused_by_name_with_what_is_allowed(monkeypatch, name, read, bad, allowed):
    monkeypatch.setenv(name, bad)
    with pytest.raises(SettingError) as error:
        read()
    message = str(error.value)
    assert name in message and repr(bad) in message and allowed in message


@pytest.mark.parametrize("url", ["mysql://taxi:s3cret@host/taxi", "predictions.db", "sqlit://x"])
def test_log_of_another_kind_is_refused_and_its_password_not_shown(monkeypatch, url):
    monkeypatch.setenv("LOG_URL", url)
    with pytest.raises(
        SettingError, match="LOG_URL is no address of SQLite or PostgreSQL"
    ) as error:
        environment.log_url()
    assert "s3cret" not in str(error.value)


def test_bytes_of_another_encoding_are_refused_by_name(monkeypatch):
    monkeypatch.setitem(os.environb, b"MODEL_SIGNING_KEY", b"cl\xe9")
    with pytest.raises(SettingError, match="MODEL_SIGNING_KEY is no text in UTF-8"):
        environment.signing_key()


@pytest.mark.parametrize("name", ["TAXI_HOME", "DATA_DIR", "MODELS_DIR", "DEPLOYMENT_DIR"])
def test_relative_folder_is_the_same_wherever_a_notebook_runs(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(name, "elsewhere")
    assert FOLDERS[name]() == PROJECT / "elsewhere"


@pytest.mark.parametrize(
    ("given", "urls"),
    [
        ("", []),
        ("json://a", ["json://a"]),
        ("json://a,slack://b", ["json://a", "slack://b"]),
        (" json://a , slack://b,\n\tmsteams://c,", ["json://a", "slack://b", "msteams://c"]),
        ("mailto://u:p@h?to=a@h,b@h, json://a", ["mailto://u:p@h?to=a@h,b@h", "json://a"]),
        ("json://a, nonsense, json://b", ["json://a", "nonsense", "json://b"]),
    ],
)
def test_notify_urls_are_addresses_between_commas_or_spaces(monkeypatch, given, urls):
    monkeypatch.setenv("NOTIFY_URLS", given)
    assert environment.notify_urls() == urls


@pytest.mark.parametrize(
    ("given", "url"),
    [("", "http://127.0.0.1:9696"), ("https://taxi.example/", "https://taxi.example")],
)
def test_public_url_has_no_slash_at_its_end(monkeypatch, given, url):
    monkeypatch.setenv("PUBLIC_URL", given)
    assert environment.public_url() == url


@pytest.mark.parametrize("named", ["NO_PROXY", "no_proxy"])
def test_loopback_never_goes_through_a_proxy_and_who_was_spared_stays_so(monkeypatch, named):
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv(named, "internal.example, 127.0.0.1")
    environment.spare_loopback_proxies()
    environment.spare_loopback_proxies()
    for name in ("NO_PROXY", "no_proxy"):
        assert os.environ[name] == "internal.example,127.0.0.1,localhost,::1"


FOLDERS = {
    "TAXI_HOME": environment.home, "DATA_DIR": environment.data_dir,
    "MODELS_DIR": environment.models_dir, "DEPLOYMENT_DIR": environment.deployment_dir,
    "LOG_ARCHIVE": lambda: environment.log_archive(environment.log_url()),
    "TLC_URL": lambda: Path(environment.tlc_url()), "ATLAS": environment.atlas_folder,
    "EXTRA_FEATURES": environment.extra_features,
}  # fmt: skip


@pytest.mark.parametrize("name", FOLDERS)
def test_tilde_is_the_users_home_also_where_no_shell_put_it_in(name, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(name, "~/taxi")
    assert FOLDERS[name]() == tmp_path / "taxi"
