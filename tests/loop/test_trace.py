"""From an answer back to source bytes."""

from __future__ import annotations

import shutil
from datetime import datetime

import pytest
from commands import run_pipeline
from msgspec import to_builtins

from taxi_duration.domain.rides import Rides
from taxi_duration.errors import NotFoundError
from taxi_duration.files import append_json_line, read_json, write_json
from taxi_duration.live.deployment import read_deployment
from taxi_duration.live.log_rows import PredictionRow
from taxi_duration.live.prediction_log import open_log
from taxi_duration.loop.monitor import load_version
from taxi_duration.loop.trace import trace_prediction
from taxi_duration.model.bundle import load_card, write_card

pytestmark = pytest.mark.slow  # the first test that needs it waits for the shared chain


@pytest.fixture
def answered(moved_home):
    """A home with one logged answer of its champion, and the log."""
    champion = read_deployment().champion
    model, _ = load_version(champion)
    ride = {"PULocationID": 74, "DOLocationID": 41, "trip_distance": 1.5}
    at = "2021-03-01T08:30:00"
    answer = model.answer(Rides.from_dicts([{**ride, "pickup_datetime": at}]))
    minutes = {k: float(getattr(answer, k)[0]) for k in ("duration", "p10", "p50", "p90")}
    log = open_log()
    row = {
        **ride, **minutes, "prediction_id": "early", "ride_id": None, "asked_at": 1.6e9,
        "pickup_at": at, "support": int(answer.support[0]), "used_distance": True,
        "model": champion.ref, "arm": "champion",
        "model_sha256": champion.sha256, "latency_ms": 1.0,
    }  # fmt: skip
    log.add([row, {**row, "prediction_id": "doctored", "duration": minutes["duration"] + 5}])
    yield moved_home, log
    log.close()


def statuses(trace):
    return {(link.kind, link.name): link.status for link in trace.links}


def of_kind(trace, kind):
    return [link for link in trace.links if link.kind == kind]


def test_answer_is_traced_to_verified_source_bytes(answered):
    _, log = answered
    trace = trace_prediction("early", log)
    assert trace.is_verified
    assert [link.status for link in of_kind(trace, "train month")] == ["verified"]
    assert [link.name for link in of_kind(trace, "validation month")] == ["2021-02"]
    assert of_kind(trace, "answer")[0].status == of_kind(trace, "model")[0].status == "verified"


@pytest.mark.parametrize(
    ("asked_at", "arm", "change"),
    [
        ("2031-01-02T00:00:00+00:00", "challenger", "challenge"),
        ("2031-02-02T00:00:00+00:00", "champion", "promote"),
        ("2031-04-02T00:00:00+00:00", "champion", "rollback"),
    ],
)
def test_trace_shows_the_change_that_gave_the_version_its_role(answered, asked_at, arm, change):
    home, log = answered
    ours = to_builtins(read_deployment().champion)
    other = {**ours, "version": 9, "model_sha256": "9" * 64}
    for at, action, champion, challenger in (
        ("2031-01-01", "challenge", other, ours),
        ("2031-02-01", "promote", ours, None),
        ("2031-03-01", "promote", other, None),
        ("2031-04-01", "rollback", ours, None),
    ):
        line = {"at": f"{at}T00:00:00.000+00:00", "action": action, "reason": "because"}
        line |= {"champion": champion, "challenger": challenger, "ab_share": 0.2, "shadow": False}
        append_json_line(home / "deployment" / "history.jsonl", line)
    asked = datetime.fromisoformat(asked_at).timestamp()
    early = {name: log.find("early")[name] for name in PredictionRow.__struct_fields__}
    log.add([{**early, "prediction_id": "late", "asked_at": asked, "arm": arm}])
    (link,) = of_kind(trace_prediction("late", log), "deployment")
    assert link.name == f"green-duration:1 as {arm}"
    assert link.detail.startswith(f"{change} at 2031")


def test_trace_shows_run_notebooks_parameters_commit_and_libraries(answered):
    _, log = answered
    trace = trace_prediction("early", log)
    assert of_kind(trace, "notebook")[0].name == "01_read_data.ipynb"
    assert "seed=" in of_kind(trace, "run")[0].detail
    assert of_kind(trace, "code")[0].name.startswith("git ")
    assert "numpy " in of_kind(trace, "code")[0].detail


def test_executed_notebooks_are_verified_and_a_changed_one_is_shown(answered):
    home, log = answered
    before = of_kind(trace_prediction("early", log), "notebook")
    assert [link.status for link in before] == ["verified"] * 4
    (path,) = home.glob("runs/*/02_train_validate.ipynb")
    path.write_text(path.read_text().replace("LR", "XGB"))
    trace = trace_prediction("early", log)
    assert not trace.is_verified
    changed = [link.name for link in of_kind(trace, "notebook") if link.status == "MISMATCH"]
    assert changed == ["02_train_validate.ipynb"]


def test_run_from_before_notebooks_had_digests_is_traced_all_the_same(answered):
    home, log = answered
    (path,) = home.glob("runs/*/run.json")
    info = read_json(path)
    old = {name: {"status": "done", "seconds": 1.0} for name in info["notebooks"]}
    write_json(path, {**info, "notebooks": old})
    trace = trace_prediction("early", log)
    assert trace.is_verified
    assert {link.status for link in of_kind(trace, "notebook")} == {"recorded"}


def test_code_that_was_changed_since_its_commit_says_so(answered):
    home, log = answered
    path = home / "models" / "green-duration" / "1"
    card = load_card(path)
    for commit, shown in (("a" * 40, "git " + "a" * 12), ("a" * 40 + "-dirty", "changed since")):
        write_card(path, {**card, "git_commit": commit}, None)
        assert shown in of_kind(trace_prediction("early", log), "code")[0].name


def test_trace_shows_row_accounting_of_the_source(answered):
    _, log = answered
    (month,) = of_kind(trace_prediction("early", log), "train month")
    assert "4,000 rows" in month.detail
    assert "too_short" in month.detail


def test_source_month_changed_by_one_byte_is_shown(answered):
    home, log = answered
    (path,) = (home / "data" / "sample").glob("*/green_tripdata_2021-01.parquet")
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    trace = trace_prediction("early", log)
    assert not trace.is_verified
    assert statuses(trace)["train month", "2021-01"] == "MISMATCH"
    assert statuses(trace)["validation month", "2021-02"] == "verified"


def test_source_month_that_is_gone_is_shown(answered):
    home, log = answered
    (path,) = (home / "data" / "sample").glob("*/green_tripdata_2021-02.parquet")
    path.unlink()
    trace = trace_prediction("early", log)
    assert statuses(trace)["validation month", "2021-02"] == "missing"
    assert "`pipeline.py data`" in of_kind(trace, "validation month")[0].detail


def test_exchanged_model_is_shown(answered):
    home, log = answered
    path = home / "models" / "green-duration" / "1" / "model.bin"
    path.write_bytes(path.read_bytes() + b"x")
    trace = trace_prediction("early", log)
    assert of_kind(trace, "model")[0].status == of_kind(trace, "answer")[0].status == "MISMATCH"


def test_answer_changed_in_the_log_is_shown(answered):
    _, log = answered
    trace = trace_prediction("doctored", log)
    assert of_kind(trace, "answer")[0].status == "MISMATCH"
    assert of_kind(trace, "model")[0].status == "verified"


def test_version_no_longer_deployed_is_traced_all_the_same(answered):
    home, log = answered
    shutil.rmtree(home / "deployment")
    assert trace_prediction("early", log).is_verified


def test_run_folder_that_was_cleaned_leaves_the_rest_of_the_chain(answered):
    home, log = answered
    shutil.rmtree(home / "runs")
    trace = trace_prediction("early", log)
    assert trace.is_verified
    assert "removed" in of_kind(trace, "run")[0].detail


def test_version_that_was_deleted_is_shown_as_missing(answered):
    home, log = answered
    shutil.rmtree(home / "models")
    trace = trace_prediction("early", log)
    assert not trace.is_verified
    assert of_kind(trace, "card")[0].status == "missing"


def test_unknown_prediction_says_so(answered):
    _, log = answered
    with pytest.raises(NotFoundError, match="nobody is not in the log"):
        trace_prediction("nobody", log)


def test_command_ends_in_an_error_when_the_chain_is_broken(answered):
    home, _ = answered
    whole = run_pipeline(home, "trace", "early")
    assert (whole.returncode, whole.stderr) == (0, "")
    (home / "models" / "green-duration" / "1" / "model.bin").write_bytes(b"another model")
    broken = run_pipeline(home, "trace", "early")
    assert broken.returncode == 1
    assert "MISMATCH" in broken.stdout
