"""What a finished run leaves for those who trace an answer back to it."""

from __future__ import annotations

import json

import pytest

from taxi_duration.chain import chain
from taxi_duration.chain.digests import keep_finished, keep_registered
from taxi_duration.chain.run import RUN_FILE, load_run
from taxi_duration.files import sha256_file
from taxi_duration.live.audit import AUDIT_FILE, audit_lines, read_audit
from taxi_duration.model.bundle import card_digest, load_card
from taxi_duration.registry import tracking
from taxi_duration.registry.tracking import connect

pytestmark = pytest.mark.slow  # MLflow alone takes seconds to import

NAME = "green-duration"
NOTEBOOKS = ("01_read_data", "02_train_validate", "03_multiple_models", "04_save_model")


@pytest.fixture
def run(moved_home):
    """The chain's run, which is finished."""
    (folder,) = (moved_home / "runs").iterdir()
    return load_run(folder.name)


@pytest.fixture
def card(moved_home):
    return load_card(moved_home / "models" / NAME / "1")


@pytest.fixture
def resume(run, monkeypatch):
    """Resumes the run in this process: a warm one would have another test's home."""
    monkeypatch.setattr(chain, "start_warming", lambda: None)
    monkeypatch.setattr(chain, "call_warm", lambda function, *args: function(*args))
    return lambda: chain.run_chain(run, NOTEBOOKS, say=lambda _: None)


def tags() -> dict[str, str]:
    return connect().get_model_version(NAME, "1").tags


def forget_the_end(home) -> None:
    """As a run that was killed when it was done, before its digests were kept."""
    path = home / "deployment" / AUDIT_FILE
    path.write_text(path.read_text().splitlines(keepends=True)[0])
    for tag in ("run_files", "audit_sha256"):
        connect().delete_model_version_tag(NAME, "1", key=tag)


def test_registration_keeps_digests_of_bundle_and_months(run, card):
    line = read_audit()[0]
    assert (line["what"], line["why"]) == (f"register {NAME}:1", f"made by run {run.run_id}")
    (train,), (validation,) = card["months"]["train"], card["months"]["validation"]
    assert line["sha256"] == {
        "model.bin": card["model_sha256"], "card.json": card_digest(card),
        train["file"]: train["sha256"], validation["file"]: validation["sha256"],
    }  # fmt: skip
    assert tags()["card_sha256"] == card_digest(card)
    keep_registered(card)
    assert len(read_audit()) == 2


def test_run_that_registered_nothing_has_nothing_to_keep(run):
    content = run.read()
    del content["model"]
    (run.folder / RUN_FILE).write_text(json.dumps(content))
    lines = read_audit()
    keep_finished(run)
    assert read_audit() == lines


def test_run_whose_version_was_deleted_in_mlflow_is_finished_all_the_same(run, caplog):
    connect().delete_model_version(NAME, "1")
    lines = read_audit()
    keep_finished(run)
    assert read_audit() == lines
    assert f"the files of run {run.run_id} are not recorded" in caplog.text


def test_finished_run_keeps_the_digests_of_its_files_in_both_places(run):
    line = audit_lines()[1]
    assert (line.record["what"], line.record["why"]) == (
        f"finish run {run.run_id}", f"made {NAME}:1",
    )  # fmt: skip
    kept = line.record["sha256"]
    executed = {f"{name}.ipynb" for name in NOTEBOOKS}
    assert executed | {"run.json", "leaderboard.json", "report.html"} <= set(kept)
    assert {f"plots/{path.name}" for path in (run.folder / "plots").iterdir()} <= set(kept)
    assert kept == {name: sha256_file(run.folder / name) for name in kept}
    assert json.loads(tags()["run_files"]) == kept
    assert tags()["audit_sha256"] == line.sha256


def test_keeping_again_takes_no_other_bytes(run):
    before = (audit_lines(), tags())
    (run.folder / "report.html").write_text("forged")
    keep_finished(run)
    assert (audit_lines(), tags()) == before


def test_resuming_a_finished_run_changes_nothing(run, resume):
    before = (audit_lines(), tags(), sha256_file(run.folder / "run.json"))
    resume()
    assert (audit_lines(), tags(), sha256_file(run.folder / "run.json")) == before


def test_run_killed_before_its_digests_were_kept_keeps_them_when_resumed(run, moved_home, resume):
    expected = (audit_lines()[1].record["sha256"], tags()["run_files"])
    forget_the_end(moved_home)
    resume()
    assert (audit_lines()[1].record["sha256"], tags()["run_files"]) == expected
    assert tags()["audit_sha256"] == audit_lines()[1].sha256


def test_kill_between_trail_and_mlflow_is_made_good(run):
    before = (audit_lines(), tags())
    for tag in ("run_files", "audit_sha256"):
        tracking.connect().delete_model_version_tag(NAME, "1", key=tag)
    keep_finished(run)
    assert (audit_lines(), tags()) == before
