"""The address that `make mlflow` prints opens our runs, on MLflow's real server."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from commands import PROJECT
from servers import answers

from taxi_duration.registry import tracking

pytestmark = pytest.mark.slow  # MLflow alone takes seconds to import


def routes_of_the_pages() -> str:
    """All of the scripts that MLflow's pages are made of."""
    import mlflow

    folder = Path(mlflow.__file__).parent / "server" / "js" / "build" / "static" / "js"
    return "\n".join(path.read_text() for path in folder.glob("*.js"))


def test_address_is_a_route_of_mlflows_pages(home):
    address = urlsplit(tracking.pages_of_runs("http://127.0.0.1:5000/"))
    assert (address.netloc, address.path) == ("127.0.0.1:5000", "/")
    route = re.sub(r"/\d+/", "/:experimentId/", address.fragment)
    assert f'"{route}"' in routes_of_the_pages()
    assert f'"{tracking.OUR_KIND}"' in routes_of_the_pages()


def test_experiment_is_shown_as_runs_also_one_of_an_earlier_release(home):
    client = tracking.connect()
    old = client.create_experiment(tracking.EXPERIMENT)
    assert tracking.KIND_TAG not in client.get_experiment(old).tags
    assert tracking.experiment_id(client) == old
    assert client.get_experiment(old).tags[tracking.KIND_TAG] == tracking.OUR_KIND


@pytest.mark.long
def test_printed_address_answers_and_is_of_our_experiment_also_when_5000_is_taken(home):
    run = tracking.start_run(client := tracking.connect(), "a run", {})
    number = tracking.experiment_id(client)
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):  # another program has it already
            other.bind(("127.0.0.1", 5000))
            other.listen()
        pages = subprocess.Popen(
            [sys.executable, str(PROJECT / "pipeline.py"), "mlflow"], stdout=subprocess.PIPE,
            text=True, start_new_session=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        try:
            said = re.match(r"MLflow on (\S+) ", pages.stdout.readline())[1]
            base, _, route = said.partition("/#")
            assert route == f"/experiments/{number}/runs" and not base.endswith(":5000")
            while not answers(f"{base}/health"):
                assert pages.poll() is None
            with urllib.request.urlopen(f"{base}/") as page:
                assert b"<title>MLflow" in page.read()
            body = json.dumps({"experiment_ids": [number]}).encode()
            search = urllib.request.Request(
                f"{base}/api/2.0/mlflow/runs/search", body, {"Content-Type": "application/json"}
            )
            with urllib.request.urlopen(search) as found:
                runs = json.load(found)["runs"]
            assert [r["info"]["run_id"] for r in runs] == [run]
            started = [one.cmdline() for one in psutil.Process(pages.pid).children(recursive=True)]
            assert started and not [line for line in started if "jobs" in " ".join(line)]
        finally:
            os.killpg(pages.pid, signal.SIGTERM)
            pages.wait()


def test_pages_of_a_server_are_only_pointed_at(monkeypatch):
    from click.testing import CliRunner

    import pipeline

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5999/")
    monkeypatch.setattr(tracking, "experiment_id", lambda _: "7")
    monkeypatch.setattr(tracking, "connect", lambda: None)
    done = CliRunner().invoke(pipeline.cli, ["mlflow"])
    assert done.output == "MLflow on http://127.0.0.1:5999/#/experiments/7/runs\n"
