import pyarrow.parquet as pq
import pytest
from planted import some_rows, stuck_minute

from taxi_duration.chain import candidates, inputs
from taxi_duration.chain.candidates import (
    compare_candidates,
    fit_candidate,
    rank_candidates,
    save_candidate,
    score_candidate,
    train_candidate,
    train_candidates,
    winning_candidate,
)
from taxi_duration.chain.run import load_run, new_run
from taxi_duration.chain.run_settings import check_settings
from taxi_duration.data.sample import make_sample_month
from taxi_duration.errors import PipelineError
from taxi_duration.files import read_json
from taxi_duration.model.plain_pickle import dumps
from taxi_duration.model.state import to_state
from taxi_duration.registry import tracking

pytestmark = pytest.mark.slow  # MLflow alone takes seconds to import


@pytest.fixture
def run(moved_home):
    return new_run(check_settings("2021-01", "2021-02", "LR"))


@pytest.fixture
def fits(monkeypatch) -> list[str]:
    """Collects the kinds that are fitted."""
    done = []
    fit = candidates.fit_model
    monkeypatch.setattr(candidates, "fit_model", lambda *a: (done.append(a[0]), fit(*a))[1])
    return done


def children(run) -> list:
    return run.client.search_runs(
        [tracking.experiment_id(run.client)], f"tags.`mlflow.parentRunId` = '{run.parent_run()}'"
    )


def test_candidate_is_fitted_and_logged_once(run, fits):
    first = train_candidate(run, "LR")
    again = train_candidate(load_run(run.run_id), "LR")
    assert fits == ["LR"] and again.card == first.card
    assert [child.info.status for child in children(run)] == ["FINISHED"]


def test_candidate_saved_by_a_killed_process_is_logged_by_the_next(run, fits, monkeypatch):
    def killed(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(candidates, "_log_candidate", killed)
        train_candidate(run, "LR")
    assert children(run) == []
    train_candidate(load_run(run.run_id), "LR")
    assert fits == ["LR"]
    assert [child.data.tags["model_kind"] for child in children(run)] == ["LR"]


@pytest.mark.parametrize("deleted", ["child", "parent"])
def test_candidate_whose_run_was_deleted_in_mlflow_is_logged_again(run, fits, deleted):
    train_candidate(run, "LR")
    parent, (child,) = run.parent_run(), children(run)
    run.client.delete_run(child.info.run_id if deleted == "child" else parent)
    again = load_run(run.run_id)
    train_candidate(again, "LR")
    assert fits == ["LR"]
    assert [c.data.tags["model_kind"] for c in children(again)] == ["LR"]
    assert (again.parent_run() == parent) == (deleted == "child")


def test_parent_run_shows_the_winners_metrics_under_the_names_of_its_child(run, fits):
    compare_candidates(run)
    parent = run.client.get_run(run.parent_run()).data.metrics
    (child,) = children(run)
    shown = {name: value for name, value in child.data.metrics.items() if name != "fit_seconds"}
    assert shown.items() <= parent.items() and "with_distance.rmse" in shown


def test_candidate_made_step_by_step_is_found_by_the_next_notebook(run, fits):
    fit = fit_candidate(run, "LR")
    stepped = save_candidate(run, fit, score_candidate(run, fit))
    assert train_candidate(load_run(run.run_id), "LR").card == stepped.card
    assert fits == ["LR"]


def test_steps_taken_again_find_what_was_saved_and_log_nothing_twice(run, fits):
    card = train_candidate(run, "LR").card
    fit = fit_candidate(run, "LR")
    scores = score_candidate(run, fit)
    assert scores.metrics == card["metrics"]
    assert save_candidate(run, fit, scores).card == card
    assert fits == ["LR"] and len(children(run)) == 1


def test_fit_that_was_not_saved_is_fitted_again(run, fits):
    score_candidate(run, fit_candidate(run, "LR"))
    train_candidate(run, "LR")
    assert fits == ["LR", "LR"]


def test_candidates_trained_in_a_loop_are_ranked_as_by_the_chain(run):
    looped = rank_candidates(run, [train_candidate(run, kind) for kind in run.settings.kinds])
    assert looped.equals(compare_candidates(run))


@pytest.mark.parametrize("name", ["model.bin", "card.json"])
def test_damaged_candidate_is_fitted_again(run, fits, name):
    path = train_candidate(run, "LR").folder / name
    path.write_bytes(path.read_bytes()[:-100])
    train_candidate(load_run(run.run_id), "LR")
    assert fits == ["LR", "LR"]


def test_candidate_of_changed_code_is_fitted_again(run, fits, monkeypatch):
    train_candidate(run, "LR")
    monkeypatch.setattr(inputs, "code_digest", lambda: "another version")
    train_candidate(run, "LR")
    assert fits == ["LR", "LR"]


@pytest.mark.long
def test_kinds_trained_side_by_side_are_those_trained_one_by_one(home, quick_trees, monkeypatch):
    monkeypatch.setenv("SAMPLE_ROWS", "1500")
    one_by_one, beside = (new_run(check_settings("2021-01", "2021-02")) for _ in range(2))
    kinds = one_by_one.settings.kinds
    expected = [train_candidate(one_by_one, kind) for kind in kinds]
    found = list(train_candidates(beside))
    assert [c.kind for c in found] == list(kinds)
    for ours, theirs in zip(found, expected, strict=True):
        assert dumps(to_state(ours.model)) == dumps(to_state(theirs.model))
        assert ours.card["predictions_sha256"] == theirs.card["predictions_sha256"]
    assert [c.data.tags["model_kind"] for c in reversed(children(beside))] == list(kinds)


def test_fit_that_fails_beside_others_names_its_kind(run, monkeypatch):
    def fail(kind, *_):
        raise FloatingPointError("no solution")

    monkeypatch.setattr(candidates, "fit_model", fail)
    with pytest.raises(PipelineError, match=r"^LR: FloatingPointError: no solution$"):
        list(train_candidates(run))
    assert children(run) == []


def test_lookups_are_fitted_once_for_all_notebooks_of_a_run(run, monkeypatch):
    fitted, fit = [], candidates.fit_baselines
    monkeypatch.setattr(
        candidates, "fit_baselines", lambda window: (fitted.append(1), fit(window))[1]
    )
    first = candidates.score_baselines(run)
    again = candidates.score_baselines(load_run(run.run_id))
    assert len(fitted) == 1
    candidates.pd.testing.assert_frame_equal(again, first)
    monkeypatch.setattr(inputs, "code_digest", lambda *_: "other code")
    candidates.score_baselines(load_run(run.run_id))
    assert len(fitted) == 2


def test_ranking_holds_the_models_and_every_lookup_best_first(run):
    table = compare_candidates(run)
    assert set(table.index) == {"LR", "mean", "od_pair_mean", "od_pair_hour_median"}
    assert table["rmse"].is_monotonic_increasing
    saved = read_json(run.folder / "leaderboard.json")
    assert [row["model"] for row in saved["table"]] == list(table.index)


def test_lookup_never_wins_but_is_said_to_be_better(run, monkeypatch):
    def perfect(run):
        return candidates.pd.DataFrame({"rmse": [0.1]}, index=["od_pair_mean"])

    monkeypatch.setattr(candidates, "score_baselines", perfect)
    winner, beats = winning_candidate(run)
    assert (winner.kind, beats) == ("LR", False)


# --- months with a proven fault --------------------------------------------------------------


@pytest.fixture
def faulty_run(moved_home, monkeypatch):
    """A run of two months, one vendor of each with a clock that stands still."""
    monkeypatch.setenv("DATA", "tlc")
    raw = moved_home / "data" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for tag in ("2021-01", "2021-02"):
        table = make_sample_month("green", tag, 4000)
        table = stuck_minute(table, some_rows(table, 1, 1.0), 7)
        pq.write_table(table, raw / f"green_tripdata_{tag}.parquet")
    return new_run(check_settings("2021-01", "2021-02", "LR"))


def test_faulty_rows_are_not_learned_from_and_the_score_is_told_with_and_without(
    faulty_run, monkeypatch
):
    learned = []
    fit = candidates.fit_model
    monkeypatch.setattr(candidates, "fit_model", lambda *a: (learned.append(len(a[1])), fit(*a))[1])
    (train,), (val,) = faulty_run.train_months, faulty_run.val_months
    candidate = train_candidate(faulty_run, "LR")
    assert learned == [len(train.learnable())] and len(train.learnable()) < len(train.trips())
    scores = candidate.metrics
    assert scores["with_distance"]["rows"] == len(val.trips())  # the course rule alone
    clean = scores["without_suspects"]
    assert (
        clean["with_distance"]["rows"]
        == clean["without_distance"]["rows"]
        == (len(val.learnable()))
    )
    assert clean["with_distance"]["rmse"] != scores["with_distance"]["rmse"]
    told = {entry["month"]: entry["suspects"] for entry in candidate.card["health"]}
    assert told == {"2021-01": train.suspects, "2021-02": val.suspects}
    table = rank_candidates(faulty_run, [candidate])
    assert table.loc["LR", "rmse_without_suspects"] == clean["with_distance"]["rmse"]


def test_findings_are_kept_for_the_chain_to_tell(faulty_run):
    table = faulty_run.keep_health()
    assert set(table["code"]) == {"suspect_clock"} and list(table["vendor"]) == ["1", "1"]
    kept = faulty_run.read()["health"]
    assert [line.split(":")[0] for line in kept] == [
        f"green {month} alarm suspect_clock" for month in ("2021-01", "2021-02")
    ]


def test_months_without_faults_have_one_score_alone(run):
    assert set(train_candidate(run, "LR").metrics) == {"with_distance", "without_distance"}
    assert run.keep_health().empty and run.read()["health"] == []
    assert run.read()["rows"] == sum(month.accounting.rows_kept for month in run.train_months) > 0
