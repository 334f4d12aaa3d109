"""Chains the notebooks of a run: in order, once each, resumable however it was killed.

A notebook that is done is not executed again. It may have been done by an earlier process of this
run, or it is taken from an earlier run that made the same (`current.py`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from taxi_duration.chain.candidates import RESULTS_FILE
from taxi_duration.chain.current import Look, take_current, what_was_made
from taxi_duration.chain.digests import keep_finished
from taxi_duration.chain.expected_cost import expected_cost
from taxi_duration.chain.kernels import KernelsAhead, kernels_ahead
from taxi_duration.chain.notebooks import NotebookError, execute, notebook_parameters
from taxi_duration.chain.released import registered_text
from taxi_duration.chain.report import render_ahead, write_report
from taxi_duration.chain.run import Run
from taxi_duration.chain.warm import begin_warm, call_warm, start_warming
from taxi_duration.data.sources import SAMPLE_BANNER
from taxi_duration.domain.version import bundle_folder
from taxi_duration.errors import DeletedError, MonthNotPublishedError, TrackingError
from taxi_duration.files import read_json, sha256_file
from taxi_duration.logs import log_to_file
from taxi_duration.registry import tracking
from taxi_duration.timestamps import iso_now
from taxi_duration.training.kinds import check_kinds

if TYPE_CHECKING:
    from jupyter_client.manager import AsyncKernelManager

log = logging.getLogger(__name__)

# Errors that are not the notebook's: they are raised as if they had come from outside it.
STORE_ERRORS = {kind.__name__: kind for kind in (TrackingError, DeletedError)}
KEPT = {MonthNotPublishedError.__name__: MonthNotPublishedError, **STORE_ERRORS}


def run_chain(run: Run, notebooks: Sequence[str], say: Callable[[str], None]) -> None:
    """Execute the notebooks of a run that are not done yet, write the report, keep the digests.

    Args:
        run: new, or stopped at any point.
        notebooks: names in order.
        say: prints a line of progress.
    Raises:
        AtWorkError: another process executes the run; nothing was executed here.
        TrackingError: MLflow's store is not there; nothing was executed.
        MonthNotPublishedError: a month is not there yet.
        NotebookError: names the notebook, the cell and the error.
    """
    with run.at_work():
        _run_chain(run, notebooks, say)


def _run_chain(run: Run, notebooks: Sequence[str], say: Callable[[str], None]) -> None:
    """As `run_chain`, in the one process that executes the run."""
    log_to_file(run.folder / "run.log")
    settings = run.settings
    check_kinds(settings.kinds)
    say(
        f"run {run.run_id}: {settings.service}, train {settings.train_data}, "
        f"validate {settings.val_data}, model {settings.model}"
    )
    start_warming()
    import_module("taxi_duration.chain.quick_saves")  # beside it, rather than when it is waited for
    call_warm(tracking.check_store)
    is_finished = _is_finished(run, notebooks)
    if not is_finished:
        run.update(status="running")
    started = time.perf_counter()
    with kernels_ahead() as kernels:
        for place in range(len(notebooks)):
            _run_one(run, notebooks, place, kernels, say)
            if place == 0:
                _say_months(run, say)
    seconds = time.perf_counter() - started
    if not is_finished:
        call_warm(_finish, run, list(notebooks))
        seconds = time.perf_counter() - started
        finished = iso_now()
        run.update(status="done", seconds=round(seconds, 2), finished=finished)
    # Killed before this, the run is finished: what its files are then is kept on resuming.
    call_warm(keep_finished, run)
    _say_result(run, say, seconds)


def _is_finished(run: Run, notebooks: Sequence[str]) -> bool:
    """True when nothing of the run's folder will change any more."""
    return "finished" in run.read() and all(_is_done(run, name) for name in notebooks)


def _run_one(
    run: Run,
    notebooks: Sequence[str],
    place: int,
    kernels: KernelsAhead,
    say: Callable[[str], None],
) -> None:
    """Execute a notebook, or take what an earlier run or process made of it.

    Args:
        place: of the notebook; those before it are done.
    """
    name = notebooks[place]
    label, look = f"[{place + 1}/{len(notebooks)}] {name}", Look(None, "")
    if not _is_done(run, name):
        if place == 0:
            say("months are fetched, prepared and compared with those of earlier runs …")
        if not run.takes_current:  # so it is executed
            kernels.start()
        look = call_warm(take_current, run, notebooks, place)
    if _is_done(run, name):
        taken = run.read()["notebooks"][name].get("taken_from")
        say(f"{label} {f'is current: taken from run {taken}' if taken else 'was done before'}")
        return
    notebook_parameters(name)  # one that somebody spoilt is refused before its kernel is taken
    say(f"{label} …{f' ({look.why})' if look.why else ''}")
    kernel = kernels.take()
    if place + 1 < len(notebooks):
        kernels.start()
    begin_warm(render_ahead, run.folder, notebooks[:place])
    made = _execute(run, name, kernel, say) | call_warm(
        what_was_made, run, name, notebooks[:place], look.inputs
    )
    run.update(notebooks={**run.read()["notebooks"], name: made})
    say(f"{label} done in {made['seconds']:.1f} s")


def _is_done(run: Run, name: str) -> bool:
    return run.read()["notebooks"].get(name, {}).get("status") == "done"


def _execute(
    run: Run, name: str, kernel: AsyncKernelManager | None, say: Callable[[str], None]
) -> dict[str, Any]:
    """Execute a notebook, in a kernel that was started, and return its entry for run.json."""
    started = time.perf_counter()
    parameters = {**run.settings.as_parameters(), "RUN_DIR": str(run.folder)}
    executed = run.folder / f"{name}.ipynb"
    try:
        execute(name, executed, parameters, kernel, say)
    except NotebookError as error:
        _fail(run, name, error)
        if kind := KEPT.get(error.ename):
            raise kind(error.evalue) from error
        raise
    seconds = round(time.perf_counter() - started, 2)
    return {"status": "done", "seconds": seconds, "sha256": sha256_file(executed)}


def _say_months(run: Run, say: Callable[[str], None]) -> None:
    """Say what was found about the months before anything is learned from them."""
    info = run.read()
    for line in info.get("health", ()):
        say(f"months     {line}")
    if cost := expected_cost(run.settings.model, info.get("rows", 0)):
        say(f"expected   {cost}")
    if info.get("data_source") == "sample":
        say(SAMPLE_BANNER)


def _finish(run: Run, notebooks: list[str]) -> None:
    """Write the report, keep it in MLflow, and end the parent run."""
    report = write_report(run.folder, notebooks, run.read())
    parent = run.parent_run()
    run.client.log_artifact(parent, str(report))
    run.client.set_terminated(parent)


def _fail(run: Run, name: str, error: NotebookError) -> None:
    """Keep what failed; whatever fails beside it is logged, so that the first error is shown."""
    log.error("%s", error)
    entry = {"status": "failed", "cell": error.cell, "error": f"{error.ename}: {error.evalue}"}
    try:
        info = run.read()
        run.update(status="failed", notebooks={**info["notebooks"], name: entry})
        if "mlflow_run_id" in info and error.ename not in STORE_ERRORS:
            call_warm(_mark_failed, run, name, info["mlflow_run_id"])
    except Exception as another:
        log.warning("the failure could not be written down everywhere: %s", another)


def _mark_failed(run: Run, name: str, mlflow_run_id: str) -> None:
    tracking.log_run(run.client, mlflow_run_id, tags={"failed_notebook": name})
    run.client.set_terminated(mlflow_run_id, "FAILED")


def _say_result(run: Run, say: Callable[[str], None], seconds: float) -> None:
    info, results = run.read(), read_json(run.folder / RESULTS_FILE)
    say(f"\n{'model':<22}{'RMSE':>9}{'MAE':>9}{'no distance':>13}{'P10-P90':>9}   minutes")
    for row in results["table"]:
        unaided, coverage = row["rmse_no_distance"], row["coverage"]
        say(
            f"{row['model'] + (' *' if row['model'] == results['winner'] else ''):<22}"
            f"{row['rmse']:>9.4f}{row['mae']:>9.4f}"
            f"{f'{unaided:.4f}' if unaided is not None else '–':>13}"
            f"{f'{coverage:.1%}' if coverage is not None else '–':>9}"
        )
        if row.get("rmse_without_suspects"):
            say(f"{'  without faulty rows':<22}{row['rmse_without_suspects']:>9.4f}"
                f"{row['mae_without_suspects']:>9.4f}")  # fmt: skip
    say(f"\n{registered_text(info)}")
    if words := results.get("longer_window"):
        say(f"window     {words}")
    # Where it lies now: what was taken from an earlier run may name a home that was moved since.
    say(f"bundle     {bundle_folder(info['model']['name'], info['model']['version'])}")
    say(f"report     {run.folder / 'report.html'}")
    say(f"data       {info['data_source']}")
    say(f"done in {seconds:.1f} s; `make mlflow` shows every run")
    if info["data_source"] == "sample":
        say(SAMPLE_BANNER)
