"""From an answer back to source bytes: what is verified, and what every tampering is called."""

from __future__ import annotations

import json
import re
import shutil
import sys
from types import SimpleNamespace

import pytest
from servers import free_port
from traced import (
    NAME,
    card_of,
    child_run,
    entry,
    flip,
    forge_card,
    forge_line,
    forge_month,
    forge_row,
    found,
    lines_of,
    make_world,
    month_file,
    moved,
    put_lines,
    registered_bundle,
    run_folder,
    version_tag,
)

import pipeline
from taxi_duration.domain.version import Version
from taxi_duration.errors import NotFoundError
from taxi_duration.files import read_json, sha256_file, write_json
from taxi_duration.live.deployment import read_deployment
from taxi_duration.live.prediction_log import open_log
from taxi_duration.loop.trace import trace_prediction
from taxi_duration.model.bundle import card_digest, load_card
from taxi_duration.registry import tracking
from taxi_duration.registry.witness import copy_history

pytestmark = pytest.mark.slow  # the first test that needs it waits for the shared chain

CARD, VERSION, MODEL = f"card {NAME}:1", f"version {NAME}:1", f"model {NAME}:1 model.bin"
DEPLOYMENT, HISTORY = f"deployment {NAME}:1 as champion", "history history.jsonl"
AUDIT = "audit audit.jsonl"
TRAIN, VALIDATION = "train month 2021-01", "validation month 2021-02"
PARAMETERS, METRICS = "parameters LR", "metrics LR"
CHANGED, MISSING, UNKNOWN = "CHANGED", "missing", "unknown"
EXCHANGED = "f" * 64


@pytest.fixture(scope="module")
def world(chained, tmp_path_factory):
    """Home of the traced world, which nobody changes, and ids of answers of both arms."""
    home = tmp_path_factory.mktemp("world") / "home"
    shutil.copytree(chained, home)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("TAXI_HOME", str(home)), ("DATA", "sample"), ("SAMPLE_ROWS", "4000")):
            patch.setenv(name, value)
        return home, *make_world(home)


@pytest.fixture
def files(world, tmp_path, monkeypatch):
    """A copy of the world's files, free to change, beside its MLflow store, which is not."""
    home = tmp_path / "copy"
    shutil.copytree(world[0], home, ignore=shutil.ignore_patterns("tracking"))
    monkeypatch.setenv("TAXI_HOME", str(home))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{world[0]}/tracking/mlflow.db")
    return home


@pytest.fixture
def whole(world, tmp_path, monkeypatch):
    """A copy of the whole world, MLflow's store too, free to change."""
    home = tmp_path / "copy"
    shutil.copytree(world[0], home)
    monkeypatch.setenv("TAXI_HOME", str(home))
    return home


@pytest.fixture
def trace(world):
    """Traces the champion's answer, or another one, in the home of the moment."""

    def trace(prediction_id=world[1]):
        log = open_log()
        try:
            return trace_prediction(prediction_id, log)
        finally:
            log.close()

    return trace


def of_kind(trace, kind):
    return [link for link in trace.links if link.kind == kind]


def about(trace, kind):
    (link,) = of_kind(trace, kind)
    return link


# --- nothing was tampered with ---------------------------------------------------------------


def test_untouched_world_is_verified_link_by_link(files, trace):
    traced_now = trace()
    assert (traced_now.status, found(traced_now)) == ("verified", {})
    kinds = [link.kind for link in traced_now.links]
    notebooks, plots = kinds.count("notebook"), kinds.count("file")
    assert notebooks == 4 and plots >= 3
    assert [kind for kind in kinds if kind not in ("notebook", "file")] == [
        "prediction", "feedback", "deployment", "model", "answer", "shadow", "history", "audit",
        "card", "version", "parameters", "metrics", "code", "run", "train month",
        "validation month",
    ]  # fmt: skip
    assert {link.kind for link in traced_now.links if link.status == "recorded"} == {
        "prediction", "feedback",
    }  # fmt: skip


def test_every_witness_is_named(files, trace):
    traced_now, card = trace(), card_of(files)
    model = about(traced_now, "model").detail
    assert model == (f"SHA-256 {card['model_sha256']}, as the log, MLflow, the audit trail "
                     "and the card knew")  # fmt: skip
    assert about(traced_now, "card").detail == (
        f"SHA-256 {card_digest(card)}, as MLflow, the audit trail and MLflow's copy knew; "
        f"LR of {card['created']}, run {card['run_id']}"
    )
    month = about(traced_now, "train month").detail
    assert month.startswith(f"SHA-256 {card['months']['train'][0]['sha256']}, as the card, "
                            "MLflow and the audit trail knew")  # fmt: skip
    assert f"SHA-256 {card_digest(card)}" not in month
    for link in (*of_kind(traced_now, "file"), about(traced_now, "run")):
        assert "as MLflow and the audit trail knew" in link.detail
    for link in of_kind(traced_now, "notebook"):
        assert "as MLflow, the audit trail and run.json knew" in link.detail


def test_answer_of_a_refitted_challenger_is_verified_too(world, files, trace):
    traced_now = trace(world[2])
    assert found(traced_now) == {}
    assert [link.name for link in of_kind(traced_now, "deployment")] == [f"{NAME}:2 as challenger"]
    assert about(traced_now, "run").status == "verified"
    assert not of_kind(traced_now, "notebook") and not of_kind(traced_now, "shadow")


def put_in_traffic(home, prediction_id, factor, low, high):
    """Make the logged answer one that was given in traffic."""
    log = open_log()
    row = log.find(prediction_id)
    log.close()
    base = {name: row[name] for name in ("duration", "p10", "p50", "p90")}
    given = {
        "duration": base["duration"] * factor,
        "p10": factor * (base["p50"] - low * (base["p50"] - base["p10"])),
        "p50": factor * base["p50"],
        "p90": factor * (base["p50"] + high * (base["p90"] - base["p50"])),
        "traffic": factor, "stretch_low": low, "stretch_high": high,
    }  # fmt: skip
    given |= {f"base_{name}": value for name, value in base.items()}
    for field, value in given.items():
        forge_row(home, "predictions", field, value)


def test_an_answer_in_traffic_is_multiplied_again(world, files, trace):
    put_in_traffic(files, world[1], 1.05, 1.1, 0.9)
    answer = about(trace(), "answer")
    assert answer.status == "verified"
    assert answer.detail.endswith(
        "times 1.05 for the traffic, its interval stretched by 1.1 below and 0.9 above its middle"
    )


@pytest.mark.parametrize(
    ("field", "value"), [("traffic", 1.07), ("stretch_low", 1.0), ("base_p90", 3.0)]
)
def test_traffic_that_was_not_applied_is_named(world, files, trace, field, value):
    put_in_traffic(files, world[1], 1.05, 1.1, 0.9)
    forge_row(files, "predictions", field, value)
    assert about(trace(), "answer").status == CHANGED


def test_months_address_and_row_accounting_are_shown(files, trace):
    detail = about(trace(), "train month").detail
    assert "; data/sample/green_tripdata_2021-01.parquet; 4,000 rows, " in detail
    assert "too_short" in detail
    forge_month(files, url="https://tlc.example/green_tripdata_2021-01.parquet")
    assert (
        "; https://tlc.example/green_tripdata_2021-01.parquet; "
        in about(trace(), "train month").detail
    )


def test_parameters_commit_and_libraries_are_shown(files, trace):
    traced_now = trace()
    assert "seed=" in about(traced_now, "parameters").detail
    assert about(traced_now, "code").name.startswith("git ")
    assert "numpy " in about(traced_now, "code").detail
    forge_card(files, git_commit="a" * 40 + "-dirty")
    assert about(trace(), "code").name == f"git {'a' * 12}, changed since"


def test_commit_that_nobody_knew_is_recorded_and_not_verified(whole, trace):
    forge_card(whole, git_commit="unknown")
    tracking.connect().set_tag(child_run(whole), "git_commit", "unknown")
    link = about(trace(), "code")
    assert (link.name, link.status) == ("git unknown", "recorded")
    assert link.detail.startswith("no commit was known when it was made; python ")


def test_first_deployment_is_the_change_that_is_shown(files, trace):
    link = about(trace(), "deployment")
    assert link.name == f"{NAME}:1 as champion"
    assert link.detail.startswith("promote at 2")
    assert "first model that beats the lookups" in link.detail


# --- tampering with files --------------------------------------------------------------------


def no_months(role):
    def tamper(home):
        forge_card(home, months={**card_of(home)["months"], role: []})

    return tamper


def other_scores(home):
    metrics = card_of(home)["metrics"]
    scores = {**metrics["with_distance"], "rmse": metrics["with_distance"]["rmse"] / 2}
    return forge_card(home, metrics={**metrics, "with_distance": scores})


def other_coverage(home):
    metrics = card_of(home)["metrics"]
    forge_card(home, metrics={**metrics, "without_distance": {
        **metrics["without_distance"], "coverage": 0.5}})  # fmt: skip


def exchange_model(home):
    """Another whole bin, with its digest on the card."""
    folder = home / "models" / NAME
    shutil.copy(folder / "2" / "model.bin", folder / "1" / "model.bin")
    forge_card(home, model_sha256=load_card(folder / "2")["model_sha256"])


def remove(pattern):
    def tamper(home):
        (path,) = home.glob(pattern)
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return tamper


def flip_one(pattern):
    return lambda home: flip(next(iter(sorted(home.glob(pattern)))))


def notebook_with_its_digest(home):
    """Change a notebook, and run.json with it."""
    flip(run_folder(home) / "02_train_validate.ipynb")
    info = read_json(run_folder(home) / "run.json")
    digest = sha256_file(run_folder(home) / "02_train_validate.ipynb")
    info["notebooks"]["02_train_validate"]["sha256"] = digest
    write_json(run_folder(home) / "run.json", info)


def other_run_json(home):
    info = read_json(run_folder(home) / "run.json")
    write_json(run_folder(home) / "run.json", {**info, "seconds": 1.0})


def empty(name):
    return lambda home: (home / "deployment" / name).write_text("")


def lose_last_line(home):
    put_lines(home, "history.jsonl", lines_of(home, "history.jsonl")[:-1], chained=False)


def lose_first_line(home):
    put_lines(home, "history.jsonl", lines_of(home, "history.jsonl")[1:], chained=False)


def another_champion(home):
    """A whole new history in which version 2 served."""
    second = Version.of(load_card(home / "models" / NAME / "2"))
    forge_line(home, "history.jsonl", 1, True, champion=entry(second), challenger=None)


def finish_line(home):
    lines = lines_of(home, "audit.jsonl")
    number = [line["what"].split()[0] for line in lines].index("finish")  # the chain's run
    return number, lines[number]["sha256"]


def audit_digest(chained):
    """Change a notebook, and the audit trail with it."""

    def tamper(home):
        flip(run_folder(home) / "01_read_data.ipynb")
        digest = sha256_file(run_folder(home) / "01_read_data.ipynb")
        number, sha256 = finish_line(home)
        sha256 = {**sha256, "01_read_data.ipynb": digest}
        forge_line(home, "audit.jsonl", number, chained, sha256=sha256)

    return tamper


def row(field, value, table="predictions"):
    return lambda home: forge_row(home, table, field, value)


NOT_REPEATED = {"answer": UNKNOWN}
TAMPERINGS = {
    # the card
    "metrics": (other_scores, {CARD: CHANGED, VERSION: CHANGED, METRICS: CHANGED}),
    "a metric that no tag has": (other_coverage, {CARD: CHANGED, METRICS: CHANGED}),
    "commit": (
        lambda home: forge_card(home, git_commit="f" * 40),
        {CARD: CHANGED, VERSION: CHANGED, f"code git {'f' * 12}": CHANGED},
    ),
    "parameters": (
        lambda home: forge_card(home, parameters={**card_of(home)["parameters"], "seed": 99}),
        {CARD: CHANGED, PARAMETERS: CHANGED},
    ),
    "a parameter more": (
        lambda home: forge_card(home, parameters={**card_of(home)["parameters"], "depth": 9}),
        {CARD: CHANGED, PARAMETERS: CHANGED},
    ),
    "rows": (lambda home: forge_month(home, rows_read=9), {CARD: CHANGED, TRAIN: CHANGED}),
    "rows kept": (lambda home: forge_month(home, rows_kept=9), {CARD: CHANGED, TRAIN: CHANGED}),
    "row accounting": (lambda home: forge_month(home, reasons={}), {CARD: CHANGED, TRAIN: CHANGED}),
    "address": (
        lambda home: forge_month(home, url="https://elsewhere.example/month.parquet"),
        {CARD: CHANGED, TRAIN: CHANGED},
    ),
    "month's digest": (
        lambda home: forge_month(home, sha256=EXCHANGED),
        {CARD: CHANGED, TRAIN: CHANGED},
    ),
    "run id": (
        lambda home: forge_card(home, run_id="20210101-000000-beef"),
        {CARD: CHANGED, VERSION: CHANGED, "run 20210101-000000-beef": MISSING},
    ),
    "no training months": (no_months("train"), {CARD: CHANGED, TRAIN: MISSING}),
    "no validation months": (no_months("validation"), {CARD: CHANGED, VALIDATION: MISSING}),
    "training months in words": (
        lambda home: forge_card(home, train_data="2020-01"),
        {CARD: CHANGED, VERSION: CHANGED},
    ),
    "libraries": (lambda home: forge_card(home, libraries={"numpy": "1.0"}), {CARD: CHANGED}),
    "predictions' digest": (
        lambda home: forge_card(home, predictions_sha256=EXCHANGED),
        {CARD: CHANGED},
    ),
    "a field more": (lambda home: forge_card(home, note="checked"), {CARD: CHANGED}),
    "date": (
        lambda home: forge_card(home, created="2020-01-01T00:00:00+00:00"),
        {CARD: CHANGED, VERSION: CHANGED, **NOT_REPEATED},
    ),
    "card is none": (
        lambda home: (home / "models" / NAME / "1" / "card.json").write_text("{"),
        {CARD: CHANGED, **NOT_REPEATED},
    ),
    "card deleted": (remove(f"models/{NAME}/1/card.json"), {CARD: MISSING, **NOT_REPEATED}),
    # the model
    "model's bytes": (flip_one(f"models/{NAME}/1/model.bin"), {MODEL: CHANGED, **NOT_REPEATED}),
    "model deleted": (remove(f"models/{NAME}/1/model.bin"), {MODEL: MISSING, **NOT_REPEATED}),
    "another model with its card": (
        exchange_model,
        {MODEL: CHANGED, CARD: CHANGED, VERSION: CHANGED, **NOT_REPEATED},
    ),
    "models deleted": (
        remove("models"),
        {CARD: MISSING, MODEL: MISSING, "shadow": UNKNOWN, **NOT_REPEATED},
    ),
    # the run
    "runs deleted": (remove("runs"), {"run": MISSING}),
    "run.json": (other_run_json, {"run run.json": CHANGED}),
    "run.json deleted": (
        lambda home: (run_folder(home) / "run.json").unlink(),
        {"run run.json": MISSING},
    ),
    "run.json is none": (
        lambda home: (run_folder(home) / "run.json").write_text("[]"),
        {"run run.json": CHANGED},
    ),
    "executed notebook": (
        flip_one("runs/*/02_*.ipynb"),
        {"notebook 02_train_validate.ipynb": CHANGED},
    ),
    "executed notebook deleted": (
        remove("runs/*/03_*.ipynb"),
        {"notebook 03_multiple_models.ipynb": MISSING},
    ),
    "executed notebook with its digest": (
        notebook_with_its_digest,
        {"notebook 02_train_validate.ipynb": CHANGED, "run run.json": CHANGED},
    ),
    "report": (flip_one("runs/*/report.html"), {"file report.html": CHANGED}),
    "ranking": (flip_one("runs/*/leaderboard.json"), {"file leaderboard.json": CHANGED}),
    "plot": (flip_one("runs/*/plots/*.png"), {"file plots/*": CHANGED}),
    "plots deleted": (remove("runs/*/plots"), {"file plots/*": MISSING}),
    # the months
    "month's bytes": (lambda home: flip(month_file(home, "2021-01")), {TRAIN: CHANGED}),
    "validation month's bytes": (
        lambda home: flip(month_file(home, "2021-02")),
        {VALIDATION: CHANGED},
    ),
    "month deleted": (lambda home: month_file(home, "2021-02").unlink(), {VALIDATION: MISSING}),
    # history and audit trail
    "history emptied": (empty("history.jsonl"), {HISTORY: MISSING, DEPLOYMENT: MISSING}),
    "history deleted": (
        remove("deployment/history.jsonl"),
        {HISTORY: MISSING, DEPLOYMENT: MISSING},
    ),
    "reason in the history": (
        lambda home: forge_line(home, "history.jsonl", 0, False, reason="because"),
        {HISTORY: CHANGED, DEPLOYMENT: CHANGED},
    ),
    "history with a new chain": (
        lambda home: forge_line(home, "history.jsonl", 0, True, reason="because"),
        {HISTORY: CHANGED, DEPLOYMENT: CHANGED},
    ),
    "last line of the history": (lose_last_line, {HISTORY: MISSING, "shadow": CHANGED}),
    "first line of the history": (lose_first_line, {HISTORY: CHANGED}),
    "another champion then": (another_champion, {HISTORY: CHANGED, DEPLOYMENT: CHANGED}),
    "time in the history": (
        lambda home: forge_line(home, "history.jsonl", 0, True, at="yesterday"),
        {HISTORY: CHANGED, DEPLOYMENT: CHANGED},
    ),
    "line of the audit trail": (
        lambda home: forge_line(home, "audit.jsonl", 0, False, why="because"),
        {AUDIT: CHANGED},
    ),
    "audit trail with a new chain": (
        lambda home: forge_line(home, "audit.jsonl", 0, True, why="because"),
        {AUDIT: CHANGED},
    ),
    "audit trail emptied": (empty("audit.jsonl"), {AUDIT: MISSING}),
    "audit trail deleted": (remove("deployment/audit.jsonl"), {AUDIT: MISSING}),
    "notebook and audit trail": (
        audit_digest(False),
        {"notebook 01_read_data.ipynb": CHANGED, AUDIT: CHANGED},
    ),
    "notebook and audit trail with a new chain": (
        audit_digest(True),
        {"notebook 01_read_data.ipynb": CHANGED, AUDIT: CHANGED},
    ),
    # the log
    **{
        f"logged {field}": (row(field, value), {"answer": CHANGED})
        for field, value in (
            ("duration", 3.25),
            ("p10", 0.5),
            ("p50", 3.25),
            ("p90", 59.0),
            ("support", 12345),
            ("used_distance", 0),
        )
    },
    **{
        f"logged {field} {value}": (row(field, value), {"answer": CHANGED, "shadow": CHANGED})
        for field, value in (
            ("PULocationID", 75),
            ("DOLocationID", 166),
            ("trip_distance", 9500.0),
            ("trip_distance", None),
        )
    },
    **{
        f"logged ride that none can be: {value}": (
            row(field, value),
            {"answer": CHANGED, "shadow": CHANGED},
        )
        for field, value in (("PULocationID", 999), ("DOLocationID", 99999), ("pickup_at", "?"))
    },
    "logged arm": (
        row("arm", "challenger"),
        {f"deployment {NAME}:1 as challenger": CHANGED},
    ),
    "logged time": (
        row("asked_at", 1.6e9),
        {"prediction": CHANGED, DEPLOYMENT: MISSING, "shadow": CHANGED},
    ),
    "logged digest": (
        row("model_sha256", EXCHANGED),
        {
            MODEL: CHANGED,
            CARD: CHANGED,
            VERSION: CHANGED,
            DEPLOYMENT: CHANGED,
            AUDIT: MISSING,
            **NOT_REPEATED,
        },
    ),
    **{
        f"shadow's {field}": (row(field, value, "shadow_answers"), {"shadow": CHANGED})
        for field, value in (
            ("duration", 3.25),
            ("p10", 0.5),
            ("p50", 3.25),
            ("p90", 59.0),
            ("model_sha256", EXCHANGED),
        )
    },
    "feedback from before the ride": (
        row("received_at", 1.6e9, "feedback"),
        {"feedback": CHANGED},
    ),
}


def named(links: dict[str, str]) -> dict[str, str]:
    """Links without what the test did not spell out: the prediction's id, names of plots."""
    short = {}
    for link, status in links.items():
        link = re.sub(r"^(prediction|feedback|answer|shadow) [0-9a-f]{32}$", r"\1", link)
        short[re.sub(r"plots/.*", "plots/*", link)] = status
    return short


@pytest.mark.parametrize("name", TAMPERINGS)
def test_tampering_is_named_by_its_link(files, trace, name):
    tamper, expected = TAMPERINGS[name]
    run_id = card_of(files)["run_id"]
    tamper(files)
    links = named(found(trace()))
    if expected == {"run": MISSING}:
        expected = {f"run {run_id}": MISSING}
    assert links == expected


def test_unknown_prediction_says_so(files):
    with pytest.raises(NotFoundError, match="nobody is not in the log"):
        trace_prediction("nobody", open_log())


# --- tampering with MLflow -------------------------------------------------------------------


def forge_metric(home):
    tracking.connect().log_metric(child_run(home), "with_distance.rmse", 1.0)


def forge_tag(home):
    tracking.connect().set_tag(child_run(home), "git_commit", "f" * 40)


def card_and_tags(home):
    """Better figures, and the version's tags with them."""
    card = other_scores(home)
    version_tag("rmse", str(card["metrics"]["with_distance"]["rmse"]))
    version_tag("card_sha256", card_digest(card))


def card_tags_and_trail(home):
    """The audit trail too, with a consistent chain."""
    card_and_tags(home)
    lines = lines_of(home, "audit.jsonl")
    sha256 = {**lines[0]["sha256"], "card.json": card_digest(card_of(home))}
    forge_line(home, "audit.jsonl", 0, True, sha256=sha256)


def rewritten_and_mirrored(home):
    """A history with a new chain, given to MLflow by the next promotion."""
    forge_line(home, "history.jsonl", 0, True, reason="because")
    copy_history(tracking.connect(), NAME)


GONE = {PARAMETERS: MISSING, METRICS: MISSING}
IN_MLFLOW = {
    "nothing": (lambda home: None, {}),
    "the log: another version": (
        lambda home: forge_row(home, "predictions", "model", f"{NAME}:2"),
        {f"deployment {NAME}:2 as champion": CHANGED, f"model {NAME}:2 model.bin": CHANGED,
         f"card {NAME}:2": CHANGED, f"version {NAME}:2": CHANGED, AUDIT: MISSING, **NOT_REPEATED},
    ),
    "tag with a figure": (lambda home: version_tag("rmse", "1.0"), {VERSION: CHANGED}),
    "tag with the card's digest": (
        lambda home: version_tag("card_sha256", EXCHANGED), {CARD: CHANGED},
    ),
    "tag with the model's digest": (
        lambda home: version_tag("model_sha256", EXCHANGED), {MODEL: CHANGED, VERSION: CHANGED},
    ),
    "metric": (forge_metric, {METRICS: CHANGED}),
    "commit": (forge_tag, {"code": CHANGED}),
    "run deleted": (
        lambda home: tracking.connect().delete_run(child_run(home)), {**GONE, "code": MISSING},
    ),
    "version deleted": (
        lambda home: tracking.connect().delete_model_version(NAME, "1"),
        {**GONE, "code": MISSING, VERSION: MISSING, MODEL: UNKNOWN, CARD: UNKNOWN,
         "run run.json": UNKNOWN, "notebook": UNKNOWN, "file": UNKNOWN, TRAIN: UNKNOWN,
         VALIDATION: UNKNOWN},
    ),
    "bin": (lambda home: flip(registered_bundle(home) / "model.bin"), {VERSION: CHANGED}),
    "bundle deleted": (
        lambda home: shutil.rmtree(registered_bundle(home)), {VERSION: MISSING},
    ),
    "card and tags": (card_and_tags, {CARD: CHANGED, METRICS: CHANGED}),
    "card, tags and audit trail": (
        card_tags_and_trail, {CARD: CHANGED, METRICS: CHANGED, AUDIT: CHANGED},
    ),
    "rewritten history": (
        rewritten_and_mirrored, {HISTORY: CHANGED, DEPLOYMENT: CHANGED},
    ),
}  # fmt: skip


def by_kind(links: dict[str, str]) -> dict[str, str]:
    """Links with the run's files and the code by their kind alone."""
    return {re.sub(r"^(notebook|file|code) .*", r"\1", link): s for link, s in links.items()}


@pytest.mark.parametrize("name", IN_MLFLOW)
def test_tampering_with_mlflow_is_named_by_its_link(whole, trace, name):
    tamper, expected = IN_MLFLOW[name]
    tamper(whole)
    assert by_kind(named(found(trace()))) == expected


@pytest.mark.parametrize("how", ["deleted", "spoiled", "not there"])
def test_mlflow_that_cannot_be_asked_is_one_unknown_line(whole, trace, monkeypatch, how):
    if how == "deleted":
        shutil.rmtree(whole / "tracking")
    elif how == "spoiled":
        (whole / "tracking" / "mlflow.db").write_bytes(b"no database" * 1000)
    else:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    traced_now = trace()
    assert by_kind(found(traced_now)) == {
        "MLflow store": UNKNOWN, PARAMETERS: UNKNOWN, METRICS: UNKNOWN, "code": UNKNOWN,
    }  # fmt: skip
    said = about(traced_now, "MLflow").detail
    assert said.startswith("MLflow's store") and "\n" not in said
    if how == "deleted":
        assert not (whole / "tracking").exists()  # nothing is made by looking


def test_tampering_is_named_though_mlflow_cannot_be_asked(whole, trace):
    shutil.rmtree(whole / "tracking")
    other_scores(whole)
    flip(month_file(whole, "2021-01"))
    links = found(trace())
    assert (links[CARD], links[TRAIN]) == (CHANGED, CHANGED)


# --- who had which role when -----------------------------------------------------------------


def serve_otherwise(home, asked_at, *served):
    """Rewrite the history: seconds from the answer, champion, challenger."""
    ours = entry(read_deployment().champion)
    lines = [
        {
            "at": moved(asked_at, seconds), "action": f"at {seconds}", "reason": "because",
            "champion": {**ours, "version": champion}, "ab_share": 0.2, "shadow": True,
            "challenger": challenger and {**ours, "version": challenger},
        }
        for seconds, champion, challenger in served
    ]  # fmt: skip
    put_lines(home, "history.jsonl", lines, chained=True)


@pytest.mark.parametrize(
    ("served", "status", "told"),
    [
        ([(-900, 1, None)], UNKNOWN, "at -900 at "),
        ([(-900, 2, None), (-600, 1, None), (-300, 1, 2)], UNKNOWN, "at -600 at "),
        ([(-900, 1, None), (-600, 2, None), (-300, 1, None)], UNKNOWN, "at -300 at "),
        ([(-900, 1, None), (-30, 2, None)], UNKNOWN, "at -900 at "),  # it was still being loaded
        ([(-900, 1, None), (-300, 2, None)], CHANGED, f"{NAME}:2 was champion then"),
        ([(-900, 1, None), (-600, 2, 1), (300, 1, None)], CHANGED, f"{NAME}:2 was champion then"),
        ([(300, 1, None)], MISSING, "history.jsonl begins later, at "),
    ],
)
def test_version_must_have_had_its_role_when_it_answered(
    files, trace, monkeypatch, served, status, told
):
    asked_at = trace().prediction["asked_at"]
    serve_otherwise(files, asked_at, *served)
    later = SimpleNamespace(time=lambda: asked_at + 3600)  # than all of these changes
    monkeypatch.setattr("taxi_duration.loop.trace_answer.time", later)
    link = about(trace(), "deployment")
    assert (link.status, link.detail[: len(told)]) == (status, told)


@pytest.mark.parametrize(
    "served",
    [
        [(3600, 1, None)],  # the first deployment, by a clock that was an hour ahead
        [(-900, 2, None), (3600, 1, None)],
        [(-900, 2, None), (86_400, 1, None), (60, 1, 2)],
    ],
)
def test_change_by_a_clock_that_was_set_back_since_is_unknown_and_not_wrong(files, trace, served):
    serve_otherwise(files, trace().prediction["asked_at"], *served)
    link = about(trace(), "deployment")
    assert link.status == UNKNOWN
    assert "a clock was set back" in link.detail


def test_clock_set_back_excuses_nobody_who_never_served(files, trace):
    served = [(-900, 2, None), (86_400, 3, None), (60, 2, None)]
    serve_otherwise(files, trace().prediction["asked_at"], *served)
    link = about(trace(), "deployment")
    assert (link.status, link.detail) == (CHANGED, f"{NAME}:2 was champion then")


# --- from before digests were kept -----------------------------------------------------------


def make_old(home):
    """The world as an older release left it: no tags of ours, no chain, no digests of notebooks."""
    client = tracking.connect()
    for tag in ("card_sha256", "run_files", "audit_sha256"):
        client.delete_model_version_tag(NAME, "1", key=tag)
    for tag in client.get_registered_model(NAME).tags:
        client.delete_registered_model_tag(NAME, tag)
    (home / "deployment" / "audit.jsonl").unlink()
    bare = [{k: v for k, v in line.items() if k != "sha256_before"}
            for line in lines_of(home, "history.jsonl")]  # fmt: skip
    put_lines(home, "history.jsonl", bare, chained=False)
    info = read_json(run_folder(home) / "run.json")
    old = {name: {"status": "done", "seconds": 1.0} for name in info["notebooks"]}
    write_json(run_folder(home) / "run.json", {**info, "notebooks": old})


def test_older_releases_version_is_unknown_where_nobody_kept_a_digest(whole, trace):
    make_old(whole)
    traced_now = trace()
    assert by_kind(named(found(traced_now))) == {
        CARD: UNKNOWN, DEPLOYMENT: UNKNOWN, HISTORY: UNKNOWN, AUDIT: UNKNOWN,
        "run run.json": UNKNOWN, "notebook": UNKNOWN,
    }  # fmt: skip
    assert traced_now.status == UNKNOWN
    # The next promotion or turn of the loop copies the old lines to MLflow.
    copy_history(tracking.connect(), NAME)
    links = found(trace())
    assert HISTORY not in links and DEPLOYMENT not in links


# --- the command -----------------------------------------------------------------------------


def run_here(monkeypatch, *args):
    """Run a command in this process and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["pipeline.py", *args])
    return pipeline.main()


@pytest.mark.parametrize(
    ("tamper", "code", "said"),
    [
        (lambda home: None, 0, "every digest is that of the bytes that lie here now"),
        (lambda home: flip(month_file(home, "2021-01")), 4, f"CHANGED: {TRAIN}\n"),
        (remove("runs"), 5, "missing: run "),
        (remove("tracking"), 6, f"unknown: MLflow store, {PARAMETERS}, {METRICS}, code git "),
    ],
)
def test_command_ends_with_the_code_of_the_worst_link(
    world, whole, monkeypatch, capsys, tamper, code, said
):
    tamper(whole)
    assert run_here(monkeypatch, "trace", world[1]) == code
    shown = capsys.readouterr()
    assert said in (shown.err if code else shown.out)


def test_command_names_all_that_is_wrong_and_ends_with_the_worst(world, whole, monkeypatch, capsys):
    flip(month_file(whole, "2021-01"))
    month_file(whole, "2021-02").unlink()
    shutil.rmtree(whole / "tracking")
    assert run_here(monkeypatch, "trace", world[1]) == 4
    assert [line.partition(":")[0] for line in capsys.readouterr().err.splitlines()] == [
        "CHANGED", "missing", "unknown",
    ]  # fmt: skip


def test_version_no_longer_deployed_is_traced_all_the_same(files, trace):
    deployment = json.loads((files / "deployment" / "deployment.json").read_text())
    deployment["champion"] = {**deployment["champion"], "version": 2}
    write_json(files / "deployment" / "deployment.json", {**deployment, "challenger": None})
    assert trace().status == "verified"


GIVEN = "4bf92f3577b34da6a3ce929d0e0e4736"  # a trace id


def test_command_finds_an_answer_by_the_trace_of_its_request(world, whole, monkeypatch, capsys):
    told = f"00-{GIVEN}-00f067aa0ba902b7-01"
    forge_row(whole, "predictions", "traceparent", told)
    _, first, second = world
    for word in (GIVEN, told):
        assert run_here(monkeypatch, "trace", word) == 0
        shown = capsys.readouterr().out
        assert f"Trace of {first}" in shown
        assert f"2 more in the same trace: {second}, " in shown
    assert run_here(monkeypatch, "trace", GIVEN.replace("4b", "5b")) == 1


def test_the_trace_of_its_request_is_shown_with_an_answer(files, trace):
    assert "trace" not in about(trace(), "prediction").detail
    forge_row(files, "predictions", "traceparent", "00-…")
    assert about(trace(), "prediction").detail.endswith(", in trace 00-…")
