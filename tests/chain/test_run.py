import subprocess
import sys

import pytest

from taxi_duration.chain.chain import run_chain
from taxi_duration.chain.commit import git_commit
from taxi_duration.chain.run import load_run, new_run, open_run, training_minutes
from taxi_duration.chain.run_settings import check_settings
from taxi_duration.data.sources import fetch_republished
from taxi_duration.errors import AtWorkError, NotFoundError, SettingError, TagError
from taxi_duration.files import read_json, write_json
from taxi_duration.registry import tracking
from taxi_duration.training import device

SETTINGS = {"TRAIN_DATA": "2021-01", "VAL_DATA": "2021-02", "MODEL": "LR", "SERVICE": "green"}


@pytest.fixture
def network(monkeypatch, tmp_path, raw_month, write_month):
    """A folder of two real months as the source; returns a function that unplugs it."""
    folder = tmp_path / "public" / "trip-data"
    folder.mkdir(parents=True)
    source = write_month(raw_month).read_bytes()
    for month in ("2021-01", "2021-02"):
        (folder / f"green_tripdata_{month}.parquet").write_bytes(source)
    monkeypatch.setenv("DATA", "auto")
    monkeypatch.setenv("MAX_BAD_SHARE", "1")  # February holds January's trips
    monkeypatch.setattr("taxi_duration.data.remote.ATTEMPTS", 1)

    def switch(on: bool) -> None:
        address = str(tmp_path / "public") if on else "http://no-such-host.invalid"
        monkeypatch.setenv("TLC_URL", address)

    return switch


def test_new_runs_have_folders_of_their_own(home):
    first, second = (new_run(check_settings(**SETTINGS)) for _ in range(2))
    assert first.folder != second.folder
    assert first.folder.parent == home / "runs"


def test_run_file_says_what_was_asked_and_by_which_code(home):
    info = new_run(check_settings(**SETTINGS)).read()
    assert info["settings"] == SETTINGS
    assert (info["status"], info["notebooks"], info["git_commit"]) == ("created", {}, git_commit())


def test_run_is_found_again_by_its_id(home):
    run = new_run(check_settings(**SETTINGS))
    again = load_run(run.run_id)
    assert (again.folder, again.settings) == (run.folder, run.settings)


def test_cost_of_a_run_is_the_time_of_its_notebooks_over_all_tries(home):
    run = new_run(check_settings(**SETTINGS))
    assert training_minutes(run.run_id) is None
    done = {"status": "done", "seconds": 90.0}
    run.update(notebooks={"01": done, "02": done, "03": {"status": "failed"}})
    assert training_minutes(run.run_id) == 3.0


@pytest.mark.parametrize("run_id", [None, "gone"])
def test_cost_of_a_run_that_is_not_there_is_unknown(home, run_id):
    assert training_minutes(run_id) is None


def test_run_is_executed_by_one_process_at_a_time(home):
    """Two would execute each notebook twice in one folder, and register two versions."""
    run = new_run(check_settings(**SETTINGS))
    before = run.read()
    with run.at_work(), pytest.raises(AtWorkError, match=f"{run.run_id} is being executed"):
        run_chain(load_run(run.run_id), [], print)
    assert run.read() == before
    with load_run(run.run_id).at_work():
        pass


def test_process_that_was_killed_at_a_run_keeps_nobody_from_it(home):
    run = new_run(check_settings(**SETTINGS))
    killed = (
        "import os; from taxi_duration.chain.run import load_run\n"
        f"with load_run({run.run_id!r}).at_work(): os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", killed], check=False).returncode == -9
    with run.at_work():
        pass


def test_unknown_run_is_refused_with_those_there_are(home):
    run = new_run(check_settings(**SETTINGS))
    with pytest.raises(NotFoundError, match=run.run_id):
        load_run("20200101-000000-beef")


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"settings": {}}', '{"settings": "none"}', "\0"]
)
def test_damaged_run_is_said_and_notebooks_folder_starts_anew(home, content):
    run = new_run(check_settings(**SETTINGS))
    (run.folder / "run.json").write_text(content)
    with pytest.raises(NotFoundError, match=rf"{run.run_id}/run\.json is damaged"):
        load_run(run.run_id)
    by_hand = open_run("runs/adhoc", **SETTINGS)
    (by_hand.folder / "run.json").write_text(content)
    assert open_run("runs/adhoc", **SETTINGS).read()["settings"] == SETTINGS


@pytest.mark.parametrize("run_id", ["..", "../elsewhere", ""])
def test_run_id_that_leaves_the_folder_is_not_found(home, run_id):
    with pytest.raises(NotFoundError):
        load_run(run_id)


def test_update_changes_only_what_it_names(home):
    run = new_run(check_settings(**SETTINGS))
    run.update(status="running")
    assert run.read() == {**read_json(run.folder / "run.json"), "status": "running"}
    assert run.read()["settings"] == SETTINGS


@pytest.mark.slow
def test_updates_of_several_processes_are_all_kept(home):
    run = new_run(check_settings(**SETTINGS))
    code = (
        "import sys\nfrom taxi_duration.chain.run import load_run\nrun = load_run(sys.argv[1])\n"
        "for i in range(20): run.update(**{f'{sys.argv[2]}-{i}': i})\n"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, run.run_id, n]) for n in "ab"]
    assert [process.wait() for process in processes] == [0, 0]
    assert {f"{n}-{i}" for n in "ab" for i in range(20)} <= set(run.read())


def test_notebooks_folder_is_opened_again_for_the_same_settings(home):
    first = open_run("runs/adhoc", **SETTINGS)
    first.update(winner="LR")
    again = open_run("runs/adhoc", **{**SETTINGS, "TRAIN_DATA": "Jan 2021"})
    assert again.folder == home / "runs" / "adhoc"
    assert again.read()["winner"] == "LR"


def test_notebooks_folder_starts_anew_for_other_settings(home):
    open_run("runs/adhoc", **SETTINGS).update(winner="LR")
    other = open_run("runs/adhoc", **{**SETTINGS, "MODEL": "RF"})
    assert "winner" not in other.read()
    assert other.read()["interactive"]


@pytest.mark.parametrize(
    ("change", "error"),
    [({"MODEL": "SVM"}, SettingError), ({"VAL_DATA": "2021-01"}, TagError)],
)
def test_bad_setting_makes_no_folder(home, change, error):
    with pytest.raises(error):
        open_run("runs/adhoc", **{**SETTINGS, **change})
    assert not (home / "runs" / "adhoc").exists()


def test_months_are_split_as_the_settings_say(home):
    settings = check_settings("2020-11:2020-12", "2021-01")
    run = new_run(settings)
    assert [str(month.raw.month) for month in run.train_months] == ["2020-11", "2020-12"]
    assert [str(month.raw.month) for month in run.val_months] == ["2021-01"]
    assert run.data_source == "sample"


def test_real_and_generated_months_are_never_in_one_run(home, network, tmp_path):
    network(True)
    new_run(check_settings("2021-01", "2021-02")).train_months  # noqa: B018 - stores January
    (tmp_path / "home" / "data" / "raw" / "green_tripdata_2021-02.parquet").unlink()
    network(False)
    run = new_run(check_settings("2021-01", "2021-02"))
    assert {m.raw.data_source for m in run.train_months + run.val_months} == {"sample"}


def test_chain_stays_with_the_data_it_began_with(home, network):
    network(False)
    run = new_run(check_settings(**SETTINGS))
    run.update(data_source=run.data_source)
    network(True)
    assert load_run(run.run_id).data_source == "sample"
    assert new_run(check_settings(**SETTINGS)).data_source == "tlc"


def test_chain_stays_with_the_editions_it_began_with(
    home, network, raw_month, write_month, tmp_path
):
    """Each notebook prepares the months in a process of its own."""
    network(True)
    run = new_run(check_settings(**SETTINGS))
    began = [month.raw for month in run.train_months + run.val_months]
    published = tmp_path / "public" / "trip-data" / "green_tripdata_2021-01.parquet"
    published.write_bytes(write_month(raw_month.slice(1)).read_bytes())
    anew = fetch_republished(began[0])  # as a turn of the loop does
    again = load_run(run.run_id)
    assert [month.raw for month in again.train_months + again.val_months] == began
    assert new_run(check_settings(**SETTINGS)).train_months[0].raw == anew
    anew.path.rename(began[0].path)  # a person cleared away
    for left in (began[0].path, anew.path):
        left.with_name(f"{left.name}.sha256").unlink()
    assert load_run(run.run_id).train_months[0].raw.sha256 == anew.sha256


@pytest.mark.slow
def test_parent_run_is_made_once_and_anew_when_a_persons_data_change(home, network):
    network(False)
    run = open_run("runs/adhoc", **SETTINGS)
    first = run.parent_run()
    assert open_run("runs/adhoc", **SETTINGS).parent_run() == first
    assert run.client.get_run(first).data.tags["data_source"] == "sample"
    network(True)
    second = open_run("runs/adhoc", **SETTINGS).parent_run()
    assert run.client.get_run(second).data.tags["data_source"] == "tlc"
    assert run.read()["data_source"] == "tlc"


@pytest.mark.slow
def test_parent_run_made_by_a_killed_process_is_taken_over(home):
    run = new_run(check_settings(**SETTINGS))
    first = run.parent_run()
    child = tracking.start_run(run.client, "LR", run.tags, first)
    info = {k: v for k, v in run.read().items() if k not in ("mlflow_run_id", "data_source")}
    write_json(run.folder / "run.json", info)
    again = load_run(run.run_id).parent_run()
    assert again == first != child
    assert len(run.client.get_run(first).inputs.dataset_inputs) == 2
    assert new_run(check_settings(**SETTINGS)).parent_run() != first


@pytest.mark.slow
def test_parent_run_deleted_in_mlflow_is_followed_by_another_that_gets_everything(home, caplog):
    run = new_run(check_settings(**SETTINGS))
    first = run.parent_run()
    run.update(logged={"a fingerprint": "a child"})
    run.client.delete_run(first)
    again = load_run(run.run_id)
    second = again.parent_run()
    assert second != first
    assert "was deleted; a new one is begun" in caplog.text
    assert again.parent_run() == load_run(run.run_id).parent_run() == second
    assert (again.read()["mlflow_run_id"], again.read()["logged"]) == (second, {})
    parent = again.client.get_run(second)
    assert len(parent.inputs.dataset_inputs) == 2
    assert parent.data.tags["run_id"] == run.run_id


@pytest.mark.slow
def test_parent_run_deleted_with_its_experiment_goes_on_when_that_is_restored(home):
    run = new_run(check_settings(**SETTINGS))
    first = run.parent_run()
    run.client.delete_experiment(tracking.experiment_id(run.client))
    tracking.experiment_id(run.client)  # as a turn of the loop begins
    assert load_run(run.run_id).parent_run() == first


@pytest.mark.slow
def test_figure_is_kept_and_shown_as_the_very_same_picture(home):
    from matplotlib.figure import Figure

    run = new_run(check_settings("2021-01", "2021-02"))
    shown = run.keep_figure(Figure(), "residuals")
    saved = run.folder / "plots" / "residuals.png"
    assert shown.data == saved.read_bytes() and shown.data[:4] == b"\x89PNG"
    kept = run.client.list_artifacts(run.parent_run(), "plots")
    assert [file.path for file in kept] == ["plots/residuals.png"]


@pytest.mark.parametrize(("name", "bad"), [("DEVICE", "cuda"), ("BOOST_ROWS", "most")])
def test_what_cannot_be_boosted_here_is_told_before_anything_is_done(home, monkeypatch, name, bad):
    """Not after minutes, by the first fit; a model that is not boosted does not care."""
    monkeypatch.setattr(device, "build_info", lambda: {"USE_CUDA": False})
    boosted = new_run(check_settings("2021-01", "2021-02", "best"))
    monkeypatch.setenv(name, bad)
    with pytest.raises(SettingError, match=name):
        run_chain(boosted, ["01_read_data"], say=pytest.fail)
    with pytest.raises(SettingError, match=name):
        open_run("runs/own", TRAIN_DATA="2021-01", VAL_DATA="2021-02", MODEL="XGB")
    assert not (home / "runs" / "own").exists()
    open_run("runs/own", TRAIN_DATA="2021-01", VAL_DATA="2021-02", MODEL="LR")
