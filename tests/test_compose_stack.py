"""compose.yaml on a real Docker engine: the stack comes up, works, survives, and goes away.

One stack for all tests of this file, which follow each other; `make test-compose` runs it.
"""

from __future__ import annotations

import http.client
import json
import re
import secrets
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from docker_engine import Stack, docker_engine, wait_until
from servers import answers, ask
from slow_city import SLOWER, SlowCity

pytestmark = [pytest.mark.long, pytest.mark.integration, pytest.mark.compose]

STAYING = ("serve", "auto", "mlflow", "prometheus", "postgres")  # Grafana: the engine has none
CLUSTER = ("dask-scheduler", "dask-worker-1", "dask-worker-2")
# A first model within seconds; rows enough for a boosting that can be met in the middle.
FEW = {"environment": {"SAMPLE_ROWS": "4000", "MODEL": "LR"}}
SMALL = {"services": {"auto": FEW, "lab": FEW}}
BOOSTED = {
    "ENGINE": "dask", "DASK_SCHEDULER": "tcp://dask-scheduler:8786", "MODEL": "XGB",
    "SAMPLE_ROWS": "120000", "PYTHONUNBUFFERED": "1",
}  # fmt: skip
CITY = SlowCity()  # what it is like while these tests run
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
LEVEL = ("traffic", "stretch_low", "stretch_high")
BASE = ("base_duration", "base_p10", "base_p50", "base_p90")


@pytest.fixture(scope="module")
def stack(tmp_path_factory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("stack")
    with docker_engine() as engine:
        token = secrets.token_hex(16)
        made = Stack(engine, folder, SMALL, DATA="sample", AUTO_SECONDS="3600", JUPYTER_TOKEN=token)
        try:
            made.compose("up", "-d", "--build", *STAYING, timeout=1500)
            yield made
        finally:
            made.down()


@pytest.fixture(scope="module")
def served(stack) -> Stack:
    """The stack with a model that `auto` trained on the sample."""
    is_ready = lambda: answers(stack.url("SERVE", "/ready"))  # noqa: E731
    wait_until(is_ready, "auto's first model is served", 600, lambda: stack.logs("auto"))
    return stack


def post(stack: Stack, path: str, content: object) -> Any:
    status, body = ask(stack.url("SERVE", path), content)
    assert status == 200, body
    return json.loads(body)


def got(stack: Stack, server: str, path: str, content: object = None) -> Any:
    status, body = ask(stack.url(server, path), content)
    assert status == 200, body
    return json.loads(body)


def among(ids: list[str]) -> str:
    return f"prediction_id IN ({', '.join(map(repr, ids))})"


def logged(stack: Stack, answered: list[dict[str, Any]], table: str = "predictions") -> list[dict]:
    """Rows of all answers in their order, as soon as they are in PostgreSQL."""
    ids = [answer["prediction_id"] for answer in answered]

    def look() -> list[dict]:
        found = {row["prediction_id"]: row for row in
                 stack.rows(f"SELECT * FROM {table} WHERE {among(ids)}")}  # fmt: skip
        return [found[one] for one in ids] if found.keys() >= set(ids) else []

    return wait_until(look, f"{len(ids)} rows in {table}", 60)


def wait_for(stack: Stack, *services: str) -> None:
    for service in services:
        wait_until(
            lambda name=service: stack.state(name) == "healthy", f"{service} is well", 300,
            lambda name=service: stack.logs(name),
        )  # fmt: skip


def test_every_service_comes_up_healthy(stack):
    wait_for(stack, "serve", "mlflow", "prometheus", "postgres")
    assert stack.state("prepare") == "exited"
    assert stack.state("auto") in ("starting", "healthy")  # healthy a minute after its first turn


def test_the_first_turn_trains_a_model_which_mlflow_knows(served):
    assert got(served, "SERVE", "/model")["model"] == "green-duration:1"
    (found,) = got(served, "MLFLOW", "/api/2.0/mlflow/experiments/search?max_results=9"
                                     "&filter=name%20!=%20'Default'")["experiments"]  # fmt: skip
    runs = got(served, "MLFLOW", "/api/2.0/mlflow/runs/search",
               {"experiment_ids": [found["experiment_id"]]})["runs"]  # fmt: skip
    assert {run["info"]["status"] for run in runs} == {"FINISHED"}
    measured = {metric["key"] for run in runs for metric in run["data"]["metrics"]}
    assert "with_distance.rmse" in measured
    version = got(served, "MLFLOW", "/api/2.0/mlflow/model-versions/get"
                                    "?name=green-duration&version=1")["model_version"]  # fmt: skip
    assert version["run_id"] in {run["info"]["run_id"] for run in runs}


def test_rides_and_truths_stand_in_postgresql_as_they_were_asked_and_told(served):
    asked = {**CITY.ride(7, minutes_ago=90), "PULocationID": 48, "DOLocationID": 74}
    before = time.time()
    connection = http.client.HTTPConnection("127.0.0.1", served.ports["SERVE"], timeout=30)
    headers = {"Content-Type": "application/json", "traceparent": f"00-{TRACE}-{'b' * 16}-01"}
    connection.request("POST", "/predict", json.dumps(asked), headers)
    response = connection.getresponse()
    answer = json.loads(response.read())
    connection.close()
    truth = {"prediction_id": answer["prediction_id"], "duration": 17.5}
    assert post(served, "/feedback", truth)["known"] == [answer["prediction_id"]]

    (row,) = logged(served, [answer])
    assert before <= row.pop("asked_at") <= time.time()
    assert row.pop("latency_ms") > 0
    assert re.fullmatch("[0-9a-f]{64}", row.pop("model_sha256"))
    assert row == {
        **{name: asked[name] for name in ("ride_id", "PULocationID", "DOLocationID",
                                          "trip_distance")},
        **{name: answer[name] for name in ("prediction_id", "duration", "support",
                                           "used_distance", "model", "arm")},
        **answer["interval"], "pickup_at": asked["pickup_datetime"],
        "traceparent": response.headers["traceparent"],
        **dict.fromkeys(LEVEL, 1), **dict.fromkeys(BASE),
    }  # fmt: skip
    (row,) = logged(served, [answer], "feedback")
    assert before <= row.pop("received_at") <= time.time()
    assert row == {**truth, "verdict": "scored"}


def test_the_traffic_that_riders_tell_of_is_in_answers_and_rows(served):
    # Over an hour: of rides that begin at once the short ones end first, and say too little.
    early = post(served, "/predict", [CITY.ride(n, minutes_ago=70 + n / 10) for n in range(600)])
    for call in CITY.calls(early):  # among them strays, and fleets that count in seconds
        assert len(post(served, "/feedback", call)["known"]) == len(call)

    def now() -> Any:
        answer = post(served, "/predict", CITY.ride(1, minutes_ago=0))
        # One true duration of another test may have made a level before these are counted.
        return answer if answer.get("traffic", 1) > 1.1 else None

    answer = wait_until(now, "the level of the traffic is in an answer", 60)
    (row,) = logged(served, [answer])
    # A usual hour's level is a few per cent below 1 (`centre`), so that 1.3 times may be 1.33.
    assert 1.1 < row["traffic"] == answer["traffic"] < 1.05 * SLOWER
    assert row["base_duration"] * row["traffic"] == pytest.approx(answer["duration"], abs=1e-3)
    assert [row[name] for name in ("p10", "p50", "p90")] == list(answer["interval"].values())
    assert row["base_p10"] < row["base_p50"] < row["base_p90"]


def test_prometheus_reads_the_service_and_our_rules(served):
    def target() -> bool:
        (one,) = got(served, "PROMETHEUS", "/api/v1/targets")["data"]["activeTargets"]
        return one["health"] == "up"

    wait_until(target, "the target is up", 60)
    groups = got(served, "PROMETHEUS", "/api/v1/rules")["data"]["groups"]
    assert {rule["health"] for group in groups for rule in group["rules"]} <= {"ok", "unknown"}
    assert alarm(served, "ServiceDown") is None


class Riders:
    """Two who ask without end and tell how long each ride took, again until it is taken."""

    def __init__(self, stack: Stack) -> None:
        self.stack, self.over = stack, threading.Event()
        self.answered: list[dict[str, Any]] = []
        self.told: list[dict[str, Any]] = []
        self.refused: list[str] = []

    @contextmanager
    def riding(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._ride, args=(n * 10_000,)) for n in range(2)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.over.set()
            for thread in threads:
                thread.join()

    def _ride(self, n: int) -> None:
        while not self.over.wait(0.05):
            n += 1
            try:
                status, body = ask(
                    self.stack.url("SERVE", "/predict"), CITY.ride(n, minutes_ago=70)
                )
            except OSError as error:
                status, body = 0, repr(error)
            if status != 200:
                self.refused.append(body)
                continue
            self.answered.append(json.loads(body))
            truth = CITY.told(self.answered[-1])
            with suppress(OSError):
                if ask(self.stack.url("SERVE", "/feedback"), truth)[0] == 200:
                    self.told.append(truth)


def test_postgresql_restarts_under_load_and_nothing_acknowledged_is_lost(served):
    riders = Riders(served)
    with riders.riding():
        wait_until(lambda: len(riders.told) > 20, "riders ride", 60)
        served.compose("restart", "-t", "3", "postgres")
        before = len(riders.told)
        wait_until(lambda: len(riders.told) > before + 20, "feedback is taken again", 90)
    assert riders.refused == []
    assert not any("logged" in answer for answer in riders.answered)
    rows = logged(served, riders.answered)
    assert [row["duration"] for row in rows] == [one["duration"] for one in riders.answered]
    truths = {row["prediction_id"]: row["duration"] for row in
              logged(served, riders.told, "feedback")}  # fmt: skip
    assert truths == {one["prediction_id"]: one["duration"] for one in riders.told}


def alarm(stack: Stack, name: str) -> str | None:
    """The state of an alarm in Prometheus; None while it is silent."""
    alerts = got(stack, "PROMETHEUS", "/api/v1/alerts")["data"]["alerts"]
    return next((a["state"] for a in alerts if a["labels"]["alertname"] == name), None)


def test_an_alarm_fires_and_clears_and_the_loop_takes_its_turn_without_the_service(served):
    looked = ["stat", "-c", "%Y", "/tmp/last-turn"]
    last = served.engine.docker("exec", served.container("auto"), *looked)
    served.compose("stop", "-t", "20", "serve")
    served.compose("restart", "-t", "3", "auto")  # so it takes a turn at once, not in an hour
    turn = lambda: served.engine.docker("exec", served.container("auto"), *looked) != last  # noqa: E731
    wait_until(turn, "auto took a turn", 300, lambda: served.logs("auto"))
    said = served.engine.docker(
        "exec", served.container("auto"), "python", "pipeline.py", "status", timeout=120
    )
    assert "green-duration:1" in said
    wait_until(lambda: alarm(served, "ServiceDown") == "firing", "ServiceDown fires", 150)
    served.compose("start", "serve")
    wait_until(lambda: alarm(served, "ServiceDown") is None, "ServiceDown is over", 90)
    assert post(served, "/predict", CITY.ride(1, minutes_ago=0))["model"] == "green-duration:1"


def trained(stack: Stack, log: Path, *args: str) -> subprocess.Popen[bytes]:
    """A run on the cluster, begun in the container of `auto`; what it says goes into a file."""
    env = [word for name, value in BOOSTED.items() for word in ("-e", f"{name}={value}")]
    command = ["docker", "exec", *env, stack.container("auto"), "python", "pipeline.py", "run"]
    with log.open("wb") as output:
        return subprocess.Popen([*command, *args], env=dict(stack.engine.env), stdout=output,
                                stderr=subprocess.STDOUT)  # fmt: skip


def boosting_on(log: Path) -> str:
    """The address of the last worker that a run said to boost on; empty before."""
    return next(iter(re.findall(r"boost on worker (tcp://\S+)", log.read_text())[::-1]), "")


def test_a_worker_killed_in_boosting_ends_the_run_which_resumes_without_it(served, tmp_path):
    served.compose("--profile", "dask", "up", "-d", *CLUSTER)
    wait_for(served, *CLUSTER)
    log, resumed = tmp_path / "run.log", tmp_path / "resumed.log"
    run = trained(served, log)
    worker = wait_until(
        lambda: boosting_on(log) or run.poll() is not None, "a worker boosts", 400, log.read_text
    )
    time.sleep(1)
    assert run.poll() is None, log.read_text()[-3000:]
    (container,) = [
        c for c in map(served.container, CLUSTER[1:]) if f"//{served.address(c)}:" in worker
    ]
    served.engine.docker("kill", container)
    assert run.wait(timeout=60) != 0
    said = log.read_text()
    assert re.search(r"boosting ended: worker tcp://\S+ was lost with the rows", said), said[-3000:]
    run_id = re.search(r"^run (\S+): green", said, re.MULTILINE)
    assert run_id, said[-3000:]

    run = trained(served, resumed, "--resume", run_id[1])
    assert run.wait(timeout=600) == 0, resumed.read_text()[-3000:]
    assert boosting_on(resumed)
    (version,) = re.findall(r"^registered green-duration:(\d+);", resumed.read_text(), re.MULTILINE)
    got(served, "MLFLOW",
        f"/api/2.0/mlflow/model-versions/get?name=green-duration&version={version}")  # fmt: skip


def test_the_doctor_looks_at_the_workshop(served):
    said = served.engine.docker(
        "exec", served.container("auto"), "sh", "-c", "python pipeline.py doctor --json || true"
    )
    levels = {line["check"]: line["level"] for line in json.loads(said)}
    assert {levels[name] for name in ("settings", "tracking", "deployment", "log")} == {"ok"}


def run_all_cells(browser: Any) -> None:
    """Run the open notebook as a reader does: by JupyterLab's menu."""
    for kind, words in (("MenuBar", "Run"), ("Menu", "Run All Cells")):
        path = f"//div[contains(@class, 'lm-{kind}-itemLabel') and text()='{words}']"
        wait_until(lambda path=path: browser.driver.find_elements("xpath", path), words, 60)[
            0
        ].click()


def test_jupyterlab_lists_the_notebooks_and_runs_one_without_a_red_line(served, tmp_path):
    pytest.importorskip("selenium", reason="selenium is not installed")
    from browser import missing, open_browser

    if missing():
        pytest.skip(missing())
    served.compose("--profile", "lab", "up", "-d", "lab")
    wait_for(served, "lab")
    token = f"token={served.settings['JUPYTER_TOKEN']}"

    def is_idle() -> bool:
        kernels = got(served, "LAB", f"/api/kernels?{token}")
        return [kernel["execution_state"] for kernel in kernels] == ["idle"]

    def cells_run() -> list[dict[str, Any]]:
        """The cells of code, saved after all of them were run; none before."""
        if not is_idle():
            return []
        browser.driver.find_element("tag name", "body").send_keys("\ue009s\ue000")  # Ctrl-S
        path = f"/api/contents/02_train_validate.ipynb?{token}"
        status, body = ask(served.url("LAB", path))
        if status != 200:  # it is being saved
            return []
        cells = [c for c in json.loads(body)["content"]["cells"] if c["cell_type"] == "code"]
        return cells if all(cell["execution_count"] for cell in cells) else []

    with open_browser(served.url("LAB", ""), tmp_path / "profile") as browser:
        browser.open(f"/lab/tree/02_train_validate.ipynb?{token}")
        listed = "return document.querySelector('.jp-DirListing-content')?.innerText ?? ''"
        wait_until(lambda: "05_monitor.ipynb" in browser.run(listed), "notebooks are listed", 120)
        assert len(re.findall(r"0\d_\w+\.ipynb", browser.run(listed))) == 5
        wait_until(is_idle, "the kernel is ready", 120)
        run_all_cells(browser)
        cells = wait_until(cells_run, "all cells were run", 600, lambda: served.logs("lab"))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"] == []


def test_taken_down_nothing_of_it_is_left(stack):
    stack.down()
    assert stack.left() == []
