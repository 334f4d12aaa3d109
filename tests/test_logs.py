import logging
import threading

import pytest

from taxi_duration.logs import (
    log_step,
    log_to_file,
    log_to_stdout,
    logged_steps,
    prefix_steps,
    saying_when_slow,
)


@pytest.fixture(autouse=True)
def own_root():
    """The root logger as it was, afterwards."""
    root = logging.getLogger()
    before = root.level, root.handlers[:]
    yield
    for handler in set(root.handlers) - set(before[1]):
        handler.close()
    root.level, root.handlers[:] = before


def test_notebook_shows_our_log_once_also_when_asked_twice(capsys):
    log_to_stdout()
    log_to_stdout()
    logging.getLogger("taxi_duration.x").info("read %d rows", 5)
    assert capsys.readouterr().out.count("read 5 rows") == 1


def test_libraries_that_talk_about_themselves_are_quiet(capsys):
    log_to_stdout()
    logging.getLogger("botocore.hooks").info("Changing event name")
    logging.getLogger("botocore").warning("something is wrong")
    out = capsys.readouterr().out
    assert "Changing event" not in out and "something is wrong" in out


def test_log_of_a_run_is_added_to_its_file(tmp_path):
    (tmp_path / "run.log").write_text("from before the resume\n")
    log_to_file(tmp_path / "run.log")
    logging.getLogger("taxi_duration.x").info("kept")
    lines = (tmp_path / "run.log").read_text().splitlines()
    assert lines[0] == "from before the resume" and lines[1].endswith("INFO taxi_duration.x: kept")


# --- steps ------------------------------------------------------------------------------------


def test_step_names_what_it_belongs_to_and_is_found_in_the_log(capsys):
    log_to_stdout()
    with prefix_steps("XGB"), prefix_steps("rehearsal 2"):
        log_step("120 of 600 trees")
    log_step("score")
    logging.getLogger("taxi_duration.x").info("another line")
    assert logged_steps(capsys.readouterr().out) == [
        "XGB: rehearsal 2: 120 of 600 trees",
        "score",
    ]


def test_threads_tell_their_own_steps(capsys):
    log_to_stdout()
    meet = threading.Barrier(2)

    def work(name: str) -> None:
        with prefix_steps(name):
            meet.wait(30)
            log_step("fit")

    threads = [threading.Thread(target=work, args=(name,)) for name in ("LR", "RF")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(logged_steps(capsys.readouterr().out)) == ["LR: fit", "RF: fit"]


def test_step_that_fails_leaves_no_name_behind(capsys):
    log_to_stdout()
    with pytest.raises(ValueError, match="no"), prefix_steps("XGB"):
        raise ValueError("no")
    log_step("score")
    assert logged_steps(capsys.readouterr().out) == ["score"]


def test_what_is_waited_for_is_said_while_it_lasts_and_not_otherwise(capsys):
    log_to_stdout()
    with saying_when_slow("the store is waited for", 0.01):
        said = threading.Event()
        logging.getLogger("taxi_duration.steps").addFilter(lambda _: said.set() or True)
        assert said.wait(20)
    with saying_when_slow("another", 3600):
        pass
    (step,) = logged_steps(capsys.readouterr().out)
    assert step.startswith("the store is waited for: no answer in 0.01 s yet")
