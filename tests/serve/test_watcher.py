"""A bad deployment costs no more than itself: what serves goes on, the next good one is taken."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from service_samples import RIDE

from serve.app import close_app
from serve.core import bundle_reading
from taxi_duration import environment
from taxi_duration.domain.version import Version
from taxi_duration.live.deployment import (
    HISTORY_FILE,
    MAX_DEPLOYMENT_BYTES,
    deploy_champion,
    roll_back,
    set_challenger,
)

TWO_SECONDS = 2.0  # a good deployment serves within


def folder(version: int) -> Path:
    return environment.models_dir() / "green-duration" / str(version)


def deployment_file() -> Path:
    return environment.deployment_dir() / "deployment.json"


class Watched:
    """A service that follows the deployment by itself."""

    def __init__(self, app) -> None:
        self.app, self.client = app, app.test_client()

    @property
    def holder(self):
        return self.app.extensions["taxi"].holder

    def serves(self) -> str:
        return self.client.post("/predict", json=RIDE).json["model"]

    def trouble(self) -> str | None:
        return self.client.get("/model").json["trouble"]

    def wait(self, reached: Callable[[], bool], seconds: float = 20.0) -> bool:
        until = time.monotonic() + seconds
        while not reached() and time.monotonic() < until:
            time.sleep(0.02)
        return reached()


@pytest.fixture
def loads(monkeypatch) -> list[Path]:
    """Folders of the bundles that are read, one for each time."""
    read: list[Path] = []
    real = bundle_reading.load_bundle

    def load(path, *others):
        read.append(path)
        return real(path, *others)

    monkeypatch.setattr("serve.core.bundle_reading.load_bundle", load)
    return read


@pytest.fixture
def watched(registered, make_app) -> Iterator[Watched]:
    """It serves version 1."""
    deploy_champion(registered[1], "first")
    yield Watched(make_app({"BACKGROUND": True}))


def replace(path: Path, make: Callable[[Path], object]) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    make(path)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        here = Path.cwd()
        os.chdir(path.parent)  # a socket's path may not be long
        one.bind(path.name)
        os.chdir(here)


def make_huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)  # takes no space


KINDS: dict[str, tuple[Callable[[Path], object], str]] = {
    "pipe": (os.mkfifo, "is a pipe, no file"),
    "socket": (make_socket, "is a socket, no file"),
    "folder": (Path.mkdir, "is a folder, no file"),
    "endless device": (lambda path: path.symlink_to("/dev/zero"), "is a device, no file"),
    "loop of links": (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
    "huge": (make_huge, "is larger than"),
    "nothing": (lambda _: None, "No such file"),
    "garbage": (lambda path: path.write_bytes(b"\xff" * 999), ""),
    "nested": (lambda path: path.write_bytes(b"[" * 200_000), ""),
}


@pytest.mark.parametrize("file", ["model.bin", "card.json"])
@pytest.mark.parametrize("kind", KINDS)
def test_bundle_of_what_is_no_file_is_refused_and_the_next_good_one_taken(
    watched, registered, metric_of, file, kind
):
    make, said = KINDS[kind]
    replace(folder(2) / file, make)
    deploy_champion(registered[2], "bad")
    assert watched.wait(lambda: watched.trouble() is not None)
    assert "green-duration:2 is refused" in watched.trouble()
    assert said in watched.trouble()
    assert str(environment.models_dir()) not in watched.trouble()
    assert watched.serves() == "green-duration:1"
    ready = watched.client.get("/ready")
    assert (ready.status_code, ready.json["problems"]) == (200, [watched.trouble()])
    assert metric_of(watched.client, "taxi_deployment_refused") == 1
    assert metric_of(watched.client, "taxi_reload_failures_total") == 1
    replace_folder_by_good(registered)
    deploy_champion(registered[3], "good")
    assert watched.wait(lambda: watched.serves() == "green-duration:3", TWO_SECONDS)
    assert watched.trouble() is None


def test_who_is_answered_by_the_new_one_finds_no_old_trouble(watched, registered, monkeypatch):
    replace(deployment_file(), lambda path: path.write_text("{"))
    assert watched.wait(lambda: watched.holder.problem is not None)
    found: list[str | None] = []
    counter = watched.holder._instruments.reloads  # raised when the new one has taken over
    monkeypatch.setattr(counter, "inc", lambda: found.append(watched.holder.problem))
    deploy_champion(registered[2], "good")
    assert watched.wait(lambda: found != [])
    assert found == [None]


def replace_folder_by_good(registered: dict[int, Version]) -> None:
    """Register a good version 3."""
    from cards import make_card

    from taxi_duration.model.bundle import load_bundle, save_bundle

    model, _ = load_bundle(folder(1))
    registered[3] = Version.of(save_bundle(folder(3), model, make_card("LR", version=3), None))


@pytest.fixture
def metric_of():
    def read(client, name: str) -> float:
        lines = client.get("/metrics").text.splitlines()
        return float(next(line for line in lines if line.startswith(name + " ")).split(" ")[-1])

    return read


DEPLOYMENTS = {
    **KINDS,
    "huge": (lambda path: path.write_bytes(b" " * (MAX_DEPLOYMENT_BYTES + 1)), "is larger than"),
    "missing version": (
        lambda path: path.write_text(
            '{"champion": {"name": "green-duration", "version": 99, "model_sha256": "'
            + "0" * 64 + '", "data_source": "sample"}}'
        ),
        "green-duration:99 is refused",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", [kind for kind in DEPLOYMENTS if kind != "nothing"])
def test_deployment_of_what_is_no_file_is_said_and_the_next_good_one_taken(
    watched, registered, kind
):
    make, said = DEPLOYMENTS[kind]
    replace(deployment_file(), make)
    assert watched.wait(lambda: watched.trouble() is not None)
    assert said in watched.trouble()
    assert watched.serves() == "green-duration:1"
    replace(deployment_file(), lambda _: None)
    deploy_champion(registered[2], "good")
    assert watched.wait(lambda: watched.serves() == "green-duration:2", TWO_SECONDS)
    assert watched.trouble() is None


def test_what_serves_goes_on_without_a_deployment_and_that_is_said(watched, registered):
    for version in (1, 2):
        shutil.rmtree(folder(version))  # a single bundle would serve by itself
    content = deployment_file().read_bytes()
    deployment_file().unlink()
    assert watched.wait(lambda: watched.trouble() == "deployment.json is gone")
    assert watched.serves() == "green-duration:1"
    deployment_file().write_bytes(content)
    assert watched.wait(lambda: watched.trouble() is None, TWO_SECONDS)


@pytest.fixture
def stalled(monkeypatch) -> Iterator[threading.Event]:
    """A disk that does not answer for the files of version 2, until the event is set."""
    released = threading.Event()
    released.reads = reads = []
    real = bundle_reading.load_bundle

    def load(path, *others):
        if path == folder(2):
            reads.append(path)
            released.wait(60)
        return real(path, *others)

    monkeypatch.setattr("serve.core.bundle_reading.load_bundle", load)
    yield released
    released.set()


def test_disk_that_stalls_keeps_nobody_from_the_next_deployment(watched, registered, stalled):
    replace_folder_by_good(registered)
    deploy_champion(registered[2], "on a disk that stalls")
    time.sleep(1)
    deploy_champion(registered[3], "good")
    assert watched.wait(lambda: watched.serves() == "green-duration:3", TWO_SECONDS)


def test_disk_that_stalls_is_said_and_tried_again(watched, registered, stalled, monkeypatch):
    monkeypatch.setattr("serve.core.patience.READ_SECONDS", 0.3)
    monkeypatch.setattr("serve.core.served_models.RETRY_SECONDS", 0.3)
    deploy_champion(registered[2], "on a disk that stalls")
    assert watched.wait(lambda: watched.trouble() is not None)
    assert "could not be read within 0.3 s" in watched.trouble()
    assert watched.wait(lambda: "still being read" in watched.trouble())
    assert watched.serves() == "green-duration:1"
    assert len(stalled.reads) == 1  # not one more at each try
    stalled.set()
    assert watched.wait(lambda: watched.serves() == "green-duration:2")
    assert watched.trouble() is None


def test_challenger_that_stalls_does_not_keep_the_champion_back(
    watched, registered, stalled, monkeypatch
):
    monkeypatch.setattr("serve.core.patience.READ_SECONDS", 0.3)
    replace_folder_by_good(registered)
    deploy_champion(registered[3], "good")
    set_challenger(registered[2], "on a disk that stalls")
    assert watched.wait(lambda: watched.serves() == "green-duration:3")
    assert watched.wait(lambda: "challenger green-duration:2" in (watched.trouble() or ""))


def test_stopping_does_not_wait_for_a_disk(watched, registered, stalled):
    deploy_champion(registered[2], "on a disk that stalls")
    time.sleep(1)
    began = time.monotonic()
    close_app(watched.app)
    assert time.monotonic() - began < 5  # it would be waited for a minute


def test_service_that_starts_on_a_stalled_disk_serves_the_version_before(
    registered, make_app, stalled, monkeypatch
):
    monkeypatch.setattr("serve.core.patience.READ_SECONDS", 0.3)
    deploy_champion(registered[1], "first")
    deploy_champion(registered[2], "on a disk that stalls")
    service = Watched(make_app())
    assert service.serves() == "green-duration:1"
    assert "green-duration:2 is refused" in service.trouble()


def test_refused_bundle_is_read_again_when_it_changes_and_only_then(
    watched, registered, loads, monkeypatch
):
    monkeypatch.setattr("serve.core.served_models.WATCH_SECONDS", 0.02)
    content = (folder(2) / "model.bin").read_bytes()
    (folder(2) / "model.bin").write_bytes(content[:-1])
    deploy_champion(registered[2], "cut")
    assert watched.wait(lambda: watched.trouble() is not None)
    time.sleep(1)  # fifty looks
    assert loads.count(folder(2)) == 1
    (folder(2) / "model.bin").write_bytes(content)
    assert watched.wait(lambda: watched.serves() == "green-duration:2", TWO_SECONDS)
    assert watched.trouble() is None


def test_disk_that_failed_is_asked_again_less_and_less_often(
    watched, registered, monkeypatch, loads
):
    """No file of it changes when it is well again."""
    monkeypatch.setattr("serve.core.served_models.WATCH_SECONDS", 0.02)
    monkeypatch.setattr("serve.core.served_models.RETRY_SECONDS", 0.1)
    failing, real = [True], bundle_reading.load_bundle

    def load(path, *others):
        if path == folder(2) and failing:
            loads.append(path)
            raise OSError(5, "Input/output error")
        return real(path, *others)

    monkeypatch.setattr("serve.core.bundle_reading.load_bundle", load)
    deploy_champion(registered[2], "on a disk that fails")
    time.sleep(1.5)  # after 0, 0.1, 0.3, 0.7, 1.5: not fifteen times
    assert 3 <= loads.count(folder(2)) <= 6
    assert "Input/output error" in watched.trouble()
    failing.clear()
    assert watched.wait(lambda: watched.serves() == "green-duration:2")


def test_deployment_that_flaps_ends_at_its_last_word(watched, registered):
    (folder(2) / "model.bin").write_bytes(b"no model")
    for _ in range(15):
        deploy_champion(registered[2], "bad")
        time.sleep(0.03)
        roll_back("no, the other")
        time.sleep(0.03)
    assert watched.wait(lambda: watched.trouble() is None, TWO_SECONDS)
    assert watched.serves() == "green-duration:1"


@pytest.mark.parametrize("kind", ["pipe", "folder", "garbage", "nested"])
@pytest.mark.parametrize("name", [HISTORY_FILE, "audit.jsonl", "monitor.json", "monitor.html"])
def test_page_says_which_of_its_files_is_damaged(watched, name, kind):
    is_live = name.startswith("monitor")
    path = (environment.live_dir() if is_live else environment.deployment_dir()) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    KINDS[kind][0](path)
    assert watched.client.get("/metrics").status_code == 200
    assert watched.client.get("/monitor/report").status_code in (200, 404)
    page = watched.client.get("/monitor/data")
    assert page.status_code == 200
    is_said = any(name in trouble for trouble in page.json["trouble"])
    # Lines that are none are passed over, and the report is not of the page.
    assert is_said == (name != "monitor.html" and (is_live or kind in ("pipe", "folder")))


@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_loops_note_of_refusals_never_holds_the_watcher(watched, registered, kind):
    note = environment.live_dir() / "refused.json"
    note.parent.mkdir(parents=True, exist_ok=True)
    note.unlink(missing_ok=True)
    KINDS[kind][0](note)
    (folder(2) / "model.bin").write_bytes(b"no model")
    deploy_champion(registered[2], "bad")
    assert watched.wait(lambda: watched.trouble() is not None)
    roll_back("no")
    assert watched.wait(lambda: watched.trouble() is None, TWO_SECONDS)
