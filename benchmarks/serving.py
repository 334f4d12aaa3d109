#!/usr/bin/env python3
"""How fast the service answers, against what people use today; same workers, same run.

Starts, side by side and asked in turn: our service with its log on, the same with a challenger
in the shadow, an empty Flask view under gunicorn, the linear-model app of the course
(`course_app.py`), and `mlflow models serve` of the same model; with two workers each, the first
three with one, too. Then arrays, and how even eight connections are in many starts.
`python benchmarks/serving.py` needs a deployed model, wrk (Debian: wrk) and quiet, for which it
waits; requests/s of a busy machine say little, processor time per request still does.
`make bench-serve`.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from results import Results

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent
sys.path.insert(0, str(PROJECT))
WORKERS = 2
CONNECTIONS = 8
ARRAYS = (10_000, 60_000)  # rides
NOTHING_DEPLOYED = "nothing is deployed to ask: `make run` trains a model and deploys it"
ROWS = {  # of README's table
    "ours, XGB, log on": "ours: XGB, interval, log on",
    "ours, a challenger in the shadow": "the same, a challenger in the shadow",
    "empty Flask view": "an empty Flask view",
    "course's linear app": "the course's linear app",
    "mlflow models serve": "mlflow models serve, the same model",
}
PARQUET = "application/vnd.apache.parquet"
RIDE = {"PULocationID": 74, "DOLocationID": 42, "trip_distance": 4.5}
TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass
class Server:
    """One server under test, and what was measured."""

    name: str
    command: list[str]
    path: str
    body: str
    environment: dict[str, str] = field(default_factory=dict)
    port: int = 0
    process: subprocess.Popen | None = None
    cold_seconds: float = 0.0
    rates: list[float] = field(default_factory=list)
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)
    evenness: list[float] = field(default_factory=list)
    rss_mb: float = 0.0
    failed: int = 0

    def start(self, patience: float = 90.0) -> None:
        """Start it and wait for its first answer."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        command = [part.replace("PORT", str(self.port)) for part in self.command]
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # mlflow calls uvicorn by name
        environment = {**os.environ, "PATH": path, **self.environment, "PORT": str(self.port)}
        started = time.perf_counter()
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(
            command, cwd=HERE, env=environment, start_new_session=True, **quiet
        )
        while True:
            try:
                status, _ = self.ask(self.body.encode())
                if status == 200:
                    break
            except OSError:
                time.sleep(0.01)
            if self.process.poll() is not None or time.perf_counter() - started > patience:
                raise SystemExit(f"{self.name} does not answer: {' '.join(command)}")
        self.cold_seconds = time.perf_counter() - started

    def start_often(self, times: int) -> None:
        """Start it, `times` times more than once, and leave it running."""
        colds = []
        for _ in range(times):
            self.start()
            colds.append(self.cold_seconds)
            self.stop()
        self.start()
        self.cold_seconds = statistics.median([*colds, self.cold_seconds])

    def ask(self, body: bytes, kind: str = "application/json") -> tuple[int, bytes]:
        """Send one request and return status and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        connection.request("POST", self.path, body, {"Content-Type": kind})
        response = connection.getresponse()
        content = response.read()
        connection.close()
        return response.status, content

    def load(self, seconds: float, script: Path) -> None:
        """Drive it with wrk and note what came."""
        before = {pid: _cpu_seconds(pid) for pid in self.processes()}
        url = f"http://127.0.0.1:{self.port}{self.path}"
        command = [
            "wrk",
            "-t1",
            f"-c{CONNECTIONS}",
            f"-d{seconds}s",
            "--latency",
            "-s",
            script,
            url,
        ]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        used = [_cpu_seconds(pid) - before.get(pid, 0.0) for pid in self.processes()]
        requests = int(re.search(r"(\d+) requests in", out)[1])
        self.rates.append(float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1]))
        self.p50.append(_milliseconds(re.search(r"\n\s+50%\s+(\S+)", out)[1]))
        self.p99.append(_milliseconds(re.search(r"\n\s+99%\s+(\S+)", out)[1]))
        self.cpu_us.append(1e6 * sum(used) / max(requests, 1))
        busiest, second = sorted(used)[: -WORKERS - 1 : -1] if len(used) > 1 else (1.0, 0.0)
        self.evenness.append(2 * second / (busiest + second))
        bad = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
        self.failed += int(bad[1]) if bad else 0

    def processes(self) -> list[int]:
        """All processes of its session."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                try:
                    session = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[3])
                except OSError:
                    continue
                if session == self.process.pid:
                    found.append(int(entry.name))
        return found

    def note_memory(self) -> None:
        """Note the largest worker's memory, after single rides."""
        workers = [pid for pid in self.processes() if pid != self.process.pid]
        pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in workers]
        sizes = [n * PAGE / 1e6 for n in pages]
        self.rss_mb = max(sizes)

    def stop(self) -> None:
        """End it."""
        if self.process is None or self.process.poll() is not None:
            return
        os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)


def main() -> None:
    """Measure and print the tables."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # and stop the servers
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is needed: apt-get install wrk")
    results = Results("serve", wait=options.wait)
    called = _called_directly()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, _own_log(Path(folder)):
        work = Path(folder)
        shadow = _with_challenger(work)
        for workers in (2, 1):
            servers = _servers(work, workers, shadow, options)
            many = _measure(work, servers, options, called if workers == WORKERS else None)
            _print_servers(servers, workers)
            _print_many(many)
            _keep(results, servers, workers)
            _keep_many(results, many)
        _print_spread(work, _ours(2, {}), options.starts, results)
    _print_inside()
    results.write()


def _measure(
    work: Path, servers: list[Server], options: argparse.Namespace, called: Called | None
) -> list[Taken]:
    """Start the servers, ask them in turn, stop them; return what many rides took, if asked."""
    scripts = {server.name: _script(work, server) for server in servers}
    try:
        for server in servers:
            server.start_often(options.cold)
        for server in servers:
            server.load(1, scripts[server.name])  # warm
            server.rates, server.p50, server.p99, server.cpu_us = [], [], [], []
        for _ in range(options.rounds):
            for server in servers:
                server.load(options.seconds, scripts[server.name])
        for server in servers:
            server.note_memory()
        return _many(servers[0], servers[1], called, options.arrays) if called else []
    finally:
        for server in servers:
            server.stop()


def _keep(results: Results, servers: list[Server], workers: int) -> None:
    """Keep what README's table quotes, in its words."""
    empty, median = _empty(servers), statistics.median
    for s in servers:
        of = ROWS[s.name]
        ratio = median(a / b for a, b in zip(s.rates, empty.rates, strict=True))
        if workers != WORKERS:
            results.add(of, "with one worker", ratio, "ratio")
            continue
        results.add(of, "to an empty view", ratio, "ratio")
        results.add(of, "requests/s", median(s.rates), "requests/s")
        results.add(of, "p50 / p99, ms", [median(s.p50), median(s.p99)], "ms")
        results.add(of, "memory a worker", s.rss_mb, "MB")
        results.add(of, "processor time of a request", median(s.cpu_us), "µs")
        results.add(of, "start", s.cold_seconds, "s")


def _keep_many(results: Results, rows: list[Taken]) -> None:
    """Keep the ratios of many rides at once."""
    for row in rows:
        of = row.form if row.rides == ARRAYS[0] else f"{row.form}, {row.rides:,} rides"
        shadow = ", with a challenger" if row.shadow else ""
        results.add(of, f"to XGBoost{shadow}", row.ratio(row.xgboost), "ratio")
        results.add(of, f"to ours{shadow}", row.ratio(row.ours), "ratio")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="of load in each round")
    parser.add_argument("--cold", type=int, default=2, help="cold starts before the measured one")
    parser.add_argument("--arrays", type=int, default=40, help="times that each is asked")
    parser.add_argument("--starts", type=int, default=30, help="to see how even connections are")
    parser.add_argument("--wait", type=float, default=120, help="seconds for the machine's quiet")
    parser.add_argument("--no-mlflow", action="store_true")
    return parser.parse_args()


@contextmanager
def _own_log(folder: Path):
    """Log into a folder of our own: months and models stay where they are."""
    os.environ["LOG_URL"] = f"sqlite:///{folder / 'predictions.db'}"
    from taxi_duration import environment

    os.environ["MODELS_DIR"] = str(environment.models_dir())
    os.environ["DEPLOYMENT_DIR"] = str(environment.deployment_dir())
    os.environ["DATA_DIR"] = str(folder)
    yield


def _with_challenger(work: Path) -> dict[str, str]:
    """Deploy the champion's twin beside it, in the shadow; return the settings that serve both."""
    from taxi_duration import environment
    from taxi_duration.domain.version import Version, bundle_folder
    from taxi_duration.live.deployment import deploy_champion, read_deployment, set_challenger
    from taxi_duration.model.bundle import load_bundle, save_bundle

    deployed, key = read_deployment(), environment.signing_key()
    if deployed is None:
        raise SystemExit(NOTHING_DEPLOYED)
    champion = deployed.champion
    model, card = load_bundle(champion.folder, key)
    places = {"MODELS_DIR": str(work / "models"), "DEPLOYMENT_DIR": str(work / "deployment")}
    with environment.temporary(**places):
        versions = []
        for number in (1, 2):
            named = {**card, "name": champion.name, "version": number}
            folder = bundle_folder(champion.name, number)
            versions.append(Version.of(save_bundle(folder, model, named, key)))
        deploy_champion(versions[0], "benchmark")
        set_challenger(versions[1], "benchmark")
    log = f"sqlite:///{work / 'shadow' / 'predictions.db'}"
    return {**places, "DATA_DIR": str(work / "shadow"), "LOG_URL": log}


def _ours(workers: int, places: dict[str, str]) -> Server:
    settings = {"PYTHONPATH": str(PROJECT), "HOST": "127.0.0.1", "WORKERS": str(workers), **places}
    name = "ours, a challenger in the shadow" if places else "ours, XGB, log on"
    ride = json.dumps(RIDE)
    return Server(name, [sys.executable, "-m", "serve"], "/predict", ride, settings)


def _servers(
    work: Path, workers: int, shadow: dict[str, str], options: argparse.Namespace
) -> list[Server]:
    from serve import settings

    threads = settings.threads()  # all have what we have
    more = f"-w {workers} -k gthread --threads {threads} --keep-alive 30 --no-control-socket"
    gunicorn = [sys.executable, "-m", "gunicorn", *more.split(), "-b", "127.0.0.1:PORT"]
    ride = json.dumps(RIDE)
    servers = [
        _ours(workers, {}),
        _ours(workers, shadow),
        Server("empty Flask view", [*gunicorn, "empty_app:app"], "/predict", ride),
    ]
    if workers != WORKERS:
        return servers
    course = {"COURSE_MODEL": str(_course_model(work))}
    servers.append(Server("course's linear app", [*gunicorn, "course_app:app"], "/predict", ride,
                          course))  # fmt: skip
    if not options.no_mlflow:
        serve = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(_mlflow_model(work)),
                 "-p", "PORT", "-w", str(WORKERS), "--env-manager", "local"]  # fmt: skip
        wrapped = json.dumps({"dataframe_records": [RIDE]})
        servers.append(Server("mlflow models serve", serve, "/invocations", wrapped))
    return servers


def _course_model(work: Path) -> Path:
    """Fit the course's first model on generated trips and pickle it as the course does."""
    import pickle

    import numpy as np
    from sklearn.feature_extraction import DictVectorizer
    from sklearn.linear_model import LinearRegression

    rng = np.random.default_rng(0)
    pairs = rng.integers(1, 266, (40_000, 2))
    miles = rng.gamma(2, 1.5, len(pairs))
    rides = [
        {"PU_DO": f"{pickup}_{dropoff}", "trip_distance": distance}
        for (pickup, dropoff), distance in zip(pairs.tolist(), miles.tolist(), strict=True)
    ]
    vectorizer = DictVectorizer()
    model = LinearRegression().fit(vectorizer.fit_transform(rides), 3 + 3 * miles)
    path = work / "lin_reg.bin"
    path.write_bytes(pickle.dumps((vectorizer, model)))
    return path


def _mlflow_model(work: Path) -> Path:
    """Save the deployed bundle as the registry does (`registry.register_bundle`)."""
    import mlflow

    from taxi_duration.live.deployment import read_deployment
    from taxi_duration.registry.pyfunc import input_example, requirements, signature
    from taxi_duration.registry.versions import MODEL_SCRIPT

    bundle = read_deployment().champion.folder
    mlflow.set_tracking_uri(f"sqlite:///{work / 'mlflow.db'}")
    mlflow.pyfunc.save_model(
        path=work / "model",
        python_model=str(MODEL_SCRIPT),
        artifacts={"bundle": str(bundle)},
        signature=signature(),
        input_example=input_example(),
        pip_requirements=requirements(),
    )
    return work / "model"


def _script(work: Path, server: Server) -> Path:
    """wrk's script that posts the server's body."""
    path = work / f"{server.name.replace(' ', '-')}.lua"
    path.write_text(
        f"wrk.method = 'POST'\nwrk.body = [[{server.body}]]\n"
        "wrk.headers['Content-Type'] = 'application/json'\n"
    )
    return path


# --- many rides at once -----------------------------------------------------------------


class Called(NamedTuple):
    """What the service is compared with, and what both are asked: rides as they were."""

    ours: Any
    xgboost: Any
    rides: Any


class Taken(NamedTuple):
    """Seconds that an array took the service each time, and the models called directly."""

    rides: int
    form: str
    shadow: bool
    service: list[float]
    ours: list[float]
    xgboost: list[float]

    def ratio(self, directly: list[float]) -> float:
        """Return the median of the service's seconds to those."""
        return statistics.median(a / b for a, b in zip(self.service, directly, strict=True))


def _called_directly() -> Called:
    """Fit the champion's trees once more, to be asked by XGBoost's own predictor on all cores.

    They are of the same settings and months; asked are rides of the month after those.
    """
    from dataclasses import replace

    from taxi_duration import environment
    from taxi_duration.data.prepared import prepare_months
    from taxi_duration.data.window import Window
    from taxi_duration.domain.months import parse_months
    from taxi_duration.live.deployment import read_deployment
    from taxi_duration.model.bundle import load_bundle
    from taxi_duration.training.kinds import KINDS

    deployed = read_deployment()
    if deployed is None:
        raise SystemExit(NOTHING_DEPLOYED)
    model, card = load_bundle(deployed.champion.folder, environment.signing_key())
    if model.kind != "XGB":
        raise SystemExit(f"an XGB is to be asked, and {deployed.champion.name} is of {model.kind}")
    months = [
        Window.learnable(prepare_months(card["service"], parse_months(card[name])))
        for name in ("train_data", "val_data")
    ]
    point = replace(KINDS["XGB"], pack=_OwnPredictor).fit(months[0])
    return Called(model, replace(model, point=point), months[1].whole()[0])


class _OwnPredictor:
    """An XGBoost booster in the place of our packed trees."""

    def __init__(self, booster: Any) -> None:
        self.predict = booster.inplace_predict


def _many(ours: Server, shadow: Server, called: Called, times: int) -> list[Taken]:
    """Time arrays and Parquet bodies against the models called directly on a frame."""
    import io

    import numpy as np
    import pandas as pd

    taken = []
    for n in ARRAYS:
        some = np.random.default_rng(n).choice(len(called.rides), n, replace=False)
        frame = pd.DataFrame(vars(called.rides.take(some)))
        asked = frame.drop(columns="pickup_at").assign(
            pickup_datetime=frame["pickup_at"].dt.strftime("%Y-%m-%dT%H:%M:%S")
        )
        packed = io.BytesIO()
        frame.rename(columns={"pickup_at": "pickup_datetime"}).to_parquet(packed)
        known = asked.astype(object).where(asked.notna(), None)
        body, file = json.dumps(known.to_dict("records")).encode(), packed.getvalue()
        bodies = (("as JSON", body, "application/json"), ("as Parquet", file, PARQUET))
        calls = {
            (form, server is shadow): partial(server.ask, content, kind)
            for server in (ours, shadow)
            for form, content, kind in bodies
        }
        direct = [partial(_answer, model, frame) for model in (called.ours, called.xgboost)]
        by_ours, by_xgboost, *seconds = _in_turn(*direct, *calls.values(), times=times)
        taken += [
            Taken(n, *of, took, by_ours, by_xgboost)
            for of, took in zip(calls, seconds, strict=True)
        ]
    return taken


def _answer(model: Any, frame: Any) -> None:
    from taxi_duration.domain.rides import Rides

    model.answer(Rides.from_frame(frame))


def _in_turn(*calls: Callable[[], object], times: int) -> list[list[float]]:
    """Seconds of each call, asked in turn.

    Another order each time: what an array leaves behind, as its rows for the log, takes from the
    call after it, which must not always be the same one.
    """
    seconds: list[list[float]] = [[] for _ in calls]
    order, chance = list(range(len(calls))), random.Random(times)
    for _ in range(times):
        chance.shuffle(order)
        for at in order:
            started = time.perf_counter()
            calls[at]()
            seconds[at].append(time.perf_counter() - started)
    return seconds


def _frame(n: int):
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(1)
    start = np.datetime64("2021-02-01T00:00:00", "us")
    return pd.DataFrame(
        {
            "PULocationID": rng.integers(1, 266, n).astype("int16"),
            "DOLocationID": rng.integers(1, 266, n).astype("int16"),
            "pickup_at": start + rng.integers(0, 28 * 86400, n).astype("m8[s]"),
            "trip_distance": rng.gamma(2, 1.5, n).astype("float32"),
        }
    )


# --- reports ----------------------------------------------------------------------------


def _empty(servers: list[Server]) -> Server:
    return next(server for server in servers if server.name == "empty Flask view")


def _print_servers(servers: list[Server], workers: int) -> None:
    empty = _empty(servers)
    print(f"\nOne ride, {workers} workers, {CONNECTIONS} connections, medians of rounds\n")
    print(
        "| | req/s | ratio to empty | p50 ms | p99 ms "
        "| CPU us/request | CPU ratio | RSS MB | cold s |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for s in servers:
        ratio = statistics.median(a / b for a, b in zip(s.rates, empty.rates, strict=True))
        cpu = statistics.median(b / a for a, b in zip(s.cpu_us, empty.cpu_us, strict=True))
        median = statistics.median
        print(
            f"| {s.name} | {median(s.rates):,.0f} | {ratio:.2f} | {median(s.p50):.2f} | "
            f"{median(s.p99):.1f} | {median(s.cpu_us):.0f} | {cpu:.2f} | {s.rss_mb:.0f} | "
            f"{s.cold_seconds:.2f} |{f' {s.failed} failed' if s.failed else ''}"
        )
    for other in servers[3:]:
        ratio = statistics.median(a / b for a, b in zip(servers[0].rates, other.rates, strict=True))
        print(f"\nours / {other.name}: {ratio:.1f} x the requests/s", end="")
    print()


def _print_many(rows: list[Taken]) -> None:
    if not rows:
        return
    print("\nMany rides, against models called directly on a frame, medians\n")
    print("| | service ms | ours ms | ratio | XGBoost ms | ratio |")
    print("| --- | --- | --- | --- | --- | --- |")
    for row in rows:
        name = f"{row.rides:,} rides {row.form}{', with a shadow' if row.shadow else ''}"
        service, ours, xgboost = (
            1000 * statistics.median(taken) for taken in (row.service, row.ours, row.xgboost)
        )
        print(f"| {name} | {service:.0f} | {ours:.0f} | {row.ratio(row.ours):.2f} "
              f"| {xgboost:.0f} | {row.ratio(row.xgboost):.2f} |")  # fmt: skip


def _print_spread(work: Path, server: Server, starts: int, results: Results) -> None:
    """Start two workers again and again: have the connections spread over both each time?

    They are driven as they start, and once more, by new connections. Beside each start one service
    that goes on is driven as long: what the machine does to a service whose connections have long
    been spread, it does to one that starts.
    """
    if not starts:
        return
    apart = {"DATA_DIR": str(work / "on"), "LOG_URL": f"sqlite:///{work / 'on' / 'p.db'}"}
    going_on, script = _ours(2, apart), _script(work, server)
    going_on.start()
    try:
        going_on.load(2, script)
        going_on.rates, going_on.evenness = [], []
        for _ in range(starts):
            server.start()
            try:
                server.load(2, script)
                server.load(2, script)
            finally:
                server.stop()
            going_on.load(2, script)
    finally:
        going_on.stop()
    print(f"\n{starts} times, {CONNECTIONS} connections for 2 s each:")
    for of, rates, evenness in (
        ("slowest of many starts", server.rates[::2], server.evenness[::2]),
        ("the 2 s after them", server.rates[1::2], server.evenness[1::2]),
        ("slowest of as many times without a start", going_on.rates, going_on.evenness),
    ):
        middle, least = statistics.median(rates), min(rates)
        results.add(of, "to the middle one", least / middle, "ratio")
        results.add(of, "the less busy worker, to both", min(evenness), "ratio")
        print(f"{of}: {least:,.0f} of {middle:,.0f} requests/s ({least / middle:.2f}); "
              f"the less busy worker, to the mean of both: {min(evenness):.2f}")  # fmt: skip


def _print_inside() -> None:
    """Time one prediction in this process, features included."""
    from datetime import datetime

    from taxi_duration import environment
    from taxi_duration.live.deployment import read_deployment
    from taxi_duration.model.bundle import load_bundle
    from taxi_duration.model.ride_predictor import RidePredictor

    folder = read_deployment().champion.folder
    predictor = RidePredictor(load_bundle(folder, environment.signing_key())[0])
    frame = _frame(2000)
    rides = list(zip(frame.PULocationID.tolist(), frame.DOLocationID.tolist(),
                     [t.to_pydatetime() for t in frame.pickup_at], frame.trip_distance.tolist(),
                     strict=True))  # fmt: skip
    taken = []
    for pickup, dropoff, at, miles in rides:
        started = time.perf_counter_ns()
        predictor.answer(pickup, dropoff, datetime.fromisoformat(at.isoformat()), miles)
        taken.append((time.perf_counter_ns() - started) / 1000)
    print(f"\nOne prediction in the process, another ride each time: median "
          f"{statistics.median(taken):.0f} us")  # fmt: skip


def _cpu_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICK


def _milliseconds(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", text).groups()
    return float(number) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[unit]


if __name__ == "__main__":
    main()
