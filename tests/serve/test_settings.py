"""The service's own settings, and who else may look at the environment."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest
from running import free_port

from serve import __main__ as start
from serve import settings
from serve.server.processes import Processes
from taxi_duration.errors import SettingError

PROJECT = Path(__file__).resolve().parents[2]
READERS = {"taxi_duration/environment.py", "serve/settings.py"}
# These set what libraries read when they start; none of them reads a setting of ours.
OTHERS = {
    "pipeline.py": "matplotlib's backend, which a notebook hands on, is forgotten",
    "taxi_duration/registry/tracking.py": "what MLflow reads: retries, telemetry",
    "taxi_duration/chain/commit.py": "git asks its own variables, but for those of a hook",
    "taxi_duration/chain/kernels.py": "a warm kernel takes over the environment of its run",
    "taxi_duration/chain/warm.py": "how threads of OpenMP and OpenBLAS wait, MLflow's telemetry",
    "taxi_duration/data/cluster.py": "a worker of a cluster takes over the settings of who asks",
    "taxi_duration/training/openmp.py": "OpenMP's threads sleep while they wait",
}


@pytest.mark.parametrize(
    ("name", "read", "default", "given", "value"),
    [
        ("HOST", settings.host, "127.0.0.1", "0.0.0.0", "0.0.0.0"),
        ("PORT", settings.port, 9696, "8080", 8080),
        ("WORKERS", settings.workers, 2, "4", 4),
        ("THREADS", settings.threads, 2, "1", 1),
        ("TRAFFIC", settings.traffic, True, "off", False),
        ("MAX_BODY_MB", settings.max_body_bytes, 16_000_000, "1", 1_000_000),
        ("MAX_RIDES", settings.max_rides, 100_000, "5", 5),
        ("MAX_EXPLAINED", settings.max_explained, 10_000, "5", 5),
        ("MAX_FEEDBACK", settings.max_feedback, 20_000, "5", 5),
        ("API_KEYS", settings.api_keys, (), " a,b ,,", ("a", "b")),
        ("ACCESS_LOG", settings.access_log, False, "1", True),
        ("WAIT_FOR_MODEL", settings.wait_for_model, False, "Yes", True),
        ("PROMETHEUS_MULTIPROC_DIR", settings.metrics_dir, None, "/tmp/x", "/tmp/x"),
    ],
)
def test_each_has_a_default_which_an_empty_one_means_too(
    monkeypatch, name, read, default, given, value
):
    assert read() == default
    monkeypatch.setenv(name, "")
    assert read() == default
    monkeypatch.setenv(name, given)
    assert read() == value


@pytest.mark.parametrize("name", ["PORT", "WORKERS", "THREADS", "MAX_BODY_MB", "MAX_RIDES"])
@pytest.mark.parametrize("bad", ["0", "-1", "2.5", "many"])
def test_bad_number_is_refused_by_name(monkeypatch, name, bad):
    monkeypatch.setenv(name, bad)
    read = {"MAX_BODY_MB": settings.max_body_bytes}.get(name, getattr(settings, name.lower(), None))
    with pytest.raises(SettingError, match=f"{name} is '{re.escape(bad)}'"):
        read()


BAD = {
    "HOST": "no such host", "PORT": "65536", "WORKERS": "1001", "THREADS": "0", "API_KEYS": " , ",
    "MONITOR_ACCESS": "all", "TRAFFIC": "on", "MAX_BODY_MB": "-1", "CLIENT_CONNECTIONS": "1e3",
    "BODY_SECONDS": "86401", "MAX_RIDES": "9" * 400, "MAX_EXPLAINED": "x", "MAX_FEEDBACK": "1.5",
    "WAIT_FOR_MODEL": "perhaps", "ACCESS_LOG": "verbose", "PROMETHEUS_MULTIPROC_DIR": __file__,
    "MODEL_SIGNING_KEY": '"ed25519-public:quoted"', "MODEL_PRIVATE_KEY": "ed25519-private:short",
    "MODEL_PUBLIC_KEY": "ed25519-public:x", "DEPLOYMENT_DIR": __file__, "MODELS_DIR": __file__,
    "DATA_DIR": __file__, "LOG_URL": "mysql://host/taxi",
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_start_is_refused_by_the_settings_name_before_anything_runs(
    home, tmp_path, monkeypatch, capsys, name
):
    """Those that only workers read too: each worker would end by it, again and again."""
    monkeypatch.setattr(sys, "argv", ["serve"])
    monkeypatch.setattr(Processes, "run", lambda _: pytest.fail("it was started"))
    monkeypatch.setenv("WAIT_FOR_MODEL", "1")
    monkeypatch.setenv("PORT", str(free_port()))
    # Or it would make one and set it, for the tests that follow as well.
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path / "metrics"))
    monkeypatch.setenv(name, BAD[name])
    assert start.main() == 1
    assert capsys.readouterr().err.startswith(f"error: {name}")


def test_every_setting_that_can_be_wrong_is_tried_above():
    assert settings.READERS.keys() <= BAD.keys()


def test_image_listens_on_every_address_and_compose_leaves_it_so():
    assert re.search(r"^ +HOST=0\.0\.0\.0 ", (PROJECT / "Dockerfile").read_text(), re.MULTILINE)
    assert not re.search(r"\bHOST:", (PROJECT / "compose.yaml").read_text())


def mentions_the_environment(path: Path) -> bool:
    """Whether a module says os.environ or os.getenv in its code."""
    tree = ast.parse(path.read_text())
    said = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return bool(said & {"os.environ", "os.environb", "os.getenv"})


def test_settings_are_read_in_two_places():
    code = [*PROJECT.glob("taxi_duration/**/*.py"), *PROJECT.glob("serve/**/*.py")]
    code.append(PROJECT / "pipeline.py")
    found = {str(path.relative_to(PROJECT)) for path in code if mentions_the_environment(path)}
    assert found == READERS | OTHERS.keys()
