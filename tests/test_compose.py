"""compose.yaml, the alarms and the dashboard: what can be checked where no engine runs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from exported import metrics_text
from prometheus_client.parser import text_string_to_metric_families

from taxi_duration.live.interval_stretch import stretch_settings
from taxi_duration.live.traffic_level import traffic_settings

PROJECT = Path(__file__).resolve().parent.parent
OPS = PROJECT / "ops"
# Of the compose specification, those that may be wanted here: a misspelt one is none of them.
SERVICE_KEYS = {
    "build", "cap_drop", "command", "depends_on", "entrypoint", "environment", "healthcheck",
    "image", "init", "logging", "network_mode", "ports", "profiles", "read_only", "restart",
    "security_opt", "tmpfs", "user", "volumes",
}  # fmt: skip
METRIC = re.compile(r"\b(taxi_\w+)")
ENDS_BY_ITSELF = "prepare"


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load((PROJECT / "compose.yaml").read_text())


@pytest.fixture(scope="module")
def services(compose) -> dict[str, Any]:
    return compose["services"]


# --- compose.yaml ---------------------------------------------------------------------------


def test_the_whole_loop_is_there(services):
    assert {"serve", "auto", "mlflow", "postgres", "prometheus", "grafana"} <= services.keys()
    assert services["lab"]["profiles"] == ["lab"]


def test_a_dask_cluster_is_there_for_who_asks(services):
    cluster = {name: s for name, s in services.items() if s.get("profiles") == ["dask"]}
    assert cluster.keys() == {"dask-scheduler", "dask-worker-1", "dask-worker-2"}
    auto = services["auto"]
    for service in cluster.values():  # the versions of who sends them work, its months, its source
        assert service["image"] == auto["image"]
        assert service["environment"].items() <= auto["environment"].items()
        assert not service.get("ports")
    for name in ("dask-worker-1", "dask-worker-2"):
        _, _, address, *options = cluster[name]["command"]
        assert address == "tcp://dask-scheduler:8786"
        assert options[:2] == ["--nthreads", "1"]
        assert "data:/data" in cluster[name]["volumes"]
    assert {auto["environment"][name] for name in ("ENGINE", "DASK_SCHEDULER")} == {
        "${ENGINE:-local}", "${DASK_SCHEDULER:-}",
    }  # fmt: skip


def test_no_key_is_misspelt(compose):
    assert {key for key in compose if not key.startswith("x-")} == {"services", "volumes"}
    for name, service in compose["services"].items():
        assert service.keys() <= SERVICE_KEYS, name


PORT = re.compile(r"127\.0\.0\.1:\$\{([A-Z]+)_PORT:-(\d+)\}:(\d+)")


def test_ports_are_bound_to_this_machine_alone_and_each_may_be_another(services):
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert "127.0.0.1:${SERVE_PORT:-9696}:9696" in ports
    names, usual, inside = zip(*(PORT.fullmatch(port).groups() for port in ports), strict=True)
    assert usual == inside
    for different in (names, usual):
        assert len(different) == len(set(different))


def test_images_have_a_version(services):
    for name, service in services.items():
        image = re.sub(r"\$\{\w+:-(.*?)\}", r"\1", service["image"])
        assert re.fullmatch(r"[\w/-]+:v?\d+\.\d+[\w.-]*", image), name


def test_every_service_that_stays_says_how_it_is(services):
    for name, service in services.items():
        assert ("healthcheck" in service) == (name != ENDS_BY_ITSELF), name


def test_what_is_waited_for_exists_and_can_be_told(services):
    for service in services.values():
        for name, how in service.get("depends_on", {}).items():
            ended = how["condition"] == "service_completed_successfully"
            assert ended == (name == ENDS_BY_ITSELF)
            assert ended or how["condition"] == "service_healthy"
            assert name in services


def test_the_first_docker_compose_reads_every_setting_too():
    # 1.29.2 ends a default at the first closing brace: another one inside gives a stray sign.
    texts = re.findall(r"\$\{[^}]*", (PROJECT / "compose.yaml").read_text())
    assert texts
    assert [text for text in texts if text.count("${") > 1] == []


def test_the_service_never_gets_the_key_that_signs(services):
    assert "MODEL_PRIVATE_KEY" not in services["serve"]["environment"]
    assert services["auto"]["environment"]["MODEL_PRIVATE_KEY"] == "${MODEL_PRIVATE_KEY:-}"
    given = {services[name]["environment"]["MODEL_SIGNING_KEY"] for name in ("serve", "auto")}
    assert given == {"${MODEL_SIGNING_KEY:-}"}


def test_volumes_are_declared_and_mounted_files_exist(compose):
    for service in compose["services"].values():
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            assert (PROJECT / source).exists() if source[0] == "." else source in compose["volumes"]


def test_the_service_cannot_write_what_it_serves(services):
    assert {"models:/models:ro", "deployment:/deployment:ro"} <= set(services["serve"]["volumes"])
    assert services["serve"]["read_only"] is True


def test_mlflow_starts_no_processes_for_jobs_that_nobody_gives_it(services):
    """With them a server has 890 MB more, and a start on a busy machine takes minutes longer."""
    assert services["mlflow"]["environment"]["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    kubernetes = (OPS / "k8s" / "mlflow.yaml").read_text()
    assert 'name: MLFLOW_SERVER_ENABLE_JOB_EXECUTION, value: "false"' in kubernetes


def test_all_share_one_log_and_one_deployment(services):
    for name in ("LOG_URL", "DEPLOYMENT_DIR", "MODELS_DIR", "DATA_DIR"):
        assert len({services[s]["environment"][name] for s in ("serve", "auto", "lab")}) == 1


def test_builds_find_their_files(services):
    for service in services.values():
        if "build" in service:
            build = service["build"]
            assert (PROJECT / build["context"] / build.get("dockerfile", "Dockerfile")).is_file()


@pytest.mark.parametrize("name", ["Dockerfile", "ops/workshop.Dockerfile"])
def test_images_are_built_from_files_that_are_sent_to_them(name):
    """By the one ignore file that builders without BuildKit read too."""
    sent = [line[1:] for line in (PROJECT / ".dockerignore").read_text().split()
            if line.startswith("!")]  # fmt: skip
    text = (PROJECT / name).read_text()
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE)
    for file in (word for line in copied for word in line.split()):
        folder = re.sub(r"\[(\w)\]", r"\1", file).rstrip("*.py").rstrip("/")
        assert any(file == one or folder == one or file.startswith(f"{one}/") for one in sent), file
    assert not list((PROJECT / "ops").glob("*.dockerignore"))


def test_a_first_turn_trains_and_the_next_ones_look(tmp_path):
    """ops/auto.sh with a stub in Python's place; `sleep` ends it."""
    calls, stubs = tmp_path / "calls", tmp_path / "bin"
    stubs.mkdir()
    (stubs / "python").write_text(
        f'#!/bin/sh\necho "$*" >>{calls}\ntouch {tmp_path}/deployment.json\n'
    )
    (stubs / "sleep").write_text(f'#!/bin/sh\n[ "$(wc -l <{calls})" -lt 2 ] || kill $PPID\n')
    (stubs / "touch").symlink_to("/usr/bin/touch")
    for stub in (stubs / "python", stubs / "sleep"):
        stub.chmod(0o755)
    subprocess.run(
        ["sh", OPS / "auto.sh"], check=False, timeout=20,
        env={"PATH": f"{stubs}:/usr/bin:/bin", "DEPLOYMENT_DIR": str(tmp_path),
             "AUTO_SECONDS": " 9 "},
    )  # fmt: skip
    assert calls.read_text().splitlines() == ["pipeline.py run", "pipeline.py auto"]


@pytest.mark.parametrize("seconds", ["0", "-60", "1h", "1 2", "9" * 10])
def test_loop_without_a_pause_between_turns_is_refused(tmp_path, seconds):
    """`sleep` would fail, and turn follow upon turn."""
    done = subprocess.run(
        ["/bin/sh", OPS / "auto.sh"], check=False, timeout=20, capture_output=True, text=True,
        env={"PATH": str(tmp_path), "DEPLOYMENT_DIR": str(tmp_path), "AUTO_SECONDS": seconds},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"AUTO_SECONDS is '{seconds}'")


@pytest.mark.parametrize(("code", "made"), [(0, True), (3, False)])
def test_one_turn_ends_with_its_code(tmp_path, code, made):
    (tmp_path / "python").write_text(f'#!/bin/sh\necho "$*"\nexit {code}\n')
    (tmp_path / "touch").write_text("#!/bin/sh\necho touched\n")
    for stub in ("python", "touch"):
        (tmp_path / stub).chmod(0o755)
    done = subprocess.run(
        ["sh", OPS / "auto.sh", "--once"], check=False, timeout=20, capture_output=True, text=True,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "DEPLOYMENT_DIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == code
    assert done.stdout == "pipeline.py run\n" + "touched\n" * made


# --- alarms and dashboard -------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> set[str]:
    """Names of all samples of /metrics, of a service that has met everything it counts."""
    families = text_string_to_metric_families(metrics_text(tmp_path_factory.mktemp("exported")))
    return {sample.name for family in families for sample in family.samples}


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((OPS / "prometheus" / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    return json.loads((OPS / "grafana" / "dashboards" / "taxi.json").read_text())


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_alarms_look_at_metrics_that_exist(exported, rule):
    names = set(METRIC.findall(rule["expr"]))
    assert names <= exported
    assert names or "up{" in rule["expr"]


@pytest.mark.parametrize("panel", dashboard()["panels"], ids=lambda panel: panel["title"])
def test_panels_show_metrics_that_exist(exported, panel):
    names = {name for target in panel["targets"] for name in METRIC.findall(target["expr"])}
    assert names
    assert names <= exported


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_every_alarm_is_explained_in_the_handbook(rule):
    assert f"### {rule['alert']}\n" in (PROJECT / "docs" / "operations.md").read_text()
    assert rule["annotations"]["summary"]


def test_panels_do_not_lie_over_each_other():
    cells = set()
    for panel in dashboard()["panels"]:
        at = panel["gridPos"]
        own = {(x, y) for x in range(at["x"], at["x"] + at["w"])
               for y in range(at["y"], at["y"] + at["h"])}  # fmt: skip
        assert max(x for x, _ in own) < 24
        assert not own & cells, panel["title"]
        cells |= own


def test_the_dashboard_asks_the_provisioned_source():
    source = yaml.safe_load(
        (OPS / "grafana" / "provisioning" / "datasources" / "prometheus.yml").read_text()
    )["datasources"][0]
    assert {panel["datasource"]["uid"] for panel in dashboard()["panels"]} == {source["uid"]}
    assert source["url"] == "http://prometheus:9090"


@pytest.mark.parametrize(
    ("keys", "shown"), [("", ""), ("one", "one"), ("first,second", "first"), (" a , b", " a ")]
)
def test_prometheus_shows_the_service_a_key_where_it_wants_one(services, tmp_path, keys, shown):
    config = yaml.safe_load((OPS / "prometheus" / "prometheus.yml").read_text())
    file = config["scrape_configs"][0]["authorization"]["credentials_file"]
    shell, option, script, *name = services["prometheus"]["entrypoint"]
    written = tmp_path / "key"
    here = script.replace("$$", "$").replace(file, str(written)).replace("/bin/prometheus", "echo")
    run = subprocess.run(
        [shell, option, here, *name, *services["prometheus"]["command"]],
        env={"PATH": "/usr/bin:/bin", "API_KEYS": keys}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert run.stdout.split() == services["prometheus"]["command"]
    assert written.read_text() == shown  # Prometheus takes spaces off both ends
    assert written.stat().st_mode & 0o077 == 0


def test_prometheus_asks_the_service_where_it_listens():
    content = yaml.safe_load((OPS / "prometheus" / "prometheus.yml").read_text())
    targets = content["scrape_configs"][0]["static_configs"][0]["targets"]
    assert targets == ["serve:9696"]


@pytest.mark.parametrize(
    "arguments", [["rules", "alerts.yml"], ["config", "--syntax-only", "prometheus.yml"]]
)
def test_promtool_finds_nothing_wrong(arguments):
    if shutil.which("promtool") is None:
        pytest.skip("promtool (Debian's package prometheus) is not on this machine")
    done = subprocess.run(
        ["promtool", "check", *arguments], cwd=OPS / "prometheus", check=False,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_alarms_of_the_traffic_come_when_they_must_and_only_then():
    if shutil.which("promtool") is None:
        pytest.skip("promtool (Debian's package prometheus) is not on this machine")
    done = subprocess.run(
        ["promtool", "test", "rules", "traffic_alerts.yml"], cwd=Path(__file__).parent,
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_alarms_and_panels_of_the_traffic_name_the_bounds_of_its_settings():
    rules = yaml.safe_load((OPS / "prometheus" / "alerts.yml").read_text())["groups"]
    texts = {rule["alert"]: rule["expr"] for group in rules for rule in group["rules"]}
    titles = " ".join(panel["title"] for panel in dashboard()["panels"])
    for alarm, bounds in (
        ("TrafficAtBound", traffic_settings()), ("StretchAtBound", stretch_settings())
    ):  # fmt: skip
        assert f">= {bounds.highest:g} or " in texts[alarm]
        assert texts[alarm].endswith(f"<= {bounds.lowest:g}")
        assert f"(within {bounds.lowest:g} and {bounds.highest:g})" in titles
    loss = 1 + traffic_settings().worst_loss
    assert f"> {loss:g} *" in texts["TrafficDoesNotHelp"]


# --- systemd --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["taxi-auto.service", "taxi-auto.timer"])
def test_systemd_units_are_well_formed(name, tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not on this machine")
    # Where the project lies on this machine does not matter here.
    for unit in (OPS / "systemd").iterdir():
        text = re.sub(r"ExecStart=\S+", "ExecStart=/bin/true", unit.read_text())
        (tmp_path / unit.name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", tmp_path / name], check=False,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_shellcheck_finds_nothing():
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not on this machine")
    done = subprocess.run(
        ["shellcheck", OPS / "auto.sh"], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
