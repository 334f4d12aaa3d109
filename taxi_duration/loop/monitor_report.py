"""Runs notebook 05 on the live log: one page for people, one verdict for machines."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from taxi_duration import environment
from taxi_duration.chain.notebooks import execute
from taxi_duration.chain.report import write_report
from taxi_duration.chain.run import RUN_FILE, git_commit
from taxi_duration.domain.months import check_available, format_months, parse_months
from taxi_duration.domain.references import name_of
from taxi_duration.files import read_json, write_bytes, write_json
from taxi_duration.live.verdict import PAGE_FILE, VERDICT_FILE
from taxi_duration.loop.monitor import serving_champion

NOTEBOOK = "05_monitor"


def run_monitor(data: str, say: Callable[[str], None]) -> dict[str, Any]:
    """Execute the notebook, write its page, and return the verdict.

    Args:
        data: published months to look at too, as the notebook's `DATA`; may be empty.
        say: prints a line of progress.
    Raises:
        TaxiError: nothing is deployed, a tag is not acceptable, or a cell failed.
    """
    champion = serving_champion()
    if data:
        months = parse_months(data)
        check_available(champion["name"].removesuffix("-duration"), months)
        data = format_months(months)
    folder = environment.runs_dir() / f"monitor-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    folder.mkdir(parents=True)
    say(f"[1/1] {NOTEBOOK} …")
    execute(NOTEBOOK, folder / f"{NOTEBOOK}.ipynb", {"DATA": data})
    verdict = read_json(environment.live_dir() / VERDICT_FILE)
    info = {
        "run_id": folder.name,
        "settings": {"DATA": data or "the live log", "verdict": verdict["verdict"]},
        "data_source": champion["data_source"],
        "git_commit": git_commit(),
        "model": champion,
    }
    write_json(folder / RUN_FILE.replace("run", "monitor"), {**info, "verdict": verdict})
    page: Path = write_report(folder, [NOTEBOOK], info)
    write_bytes(environment.live_dir() / PAGE_FILE, page.read_bytes())  # where the service finds it
    say(f"{name_of(champion)} on the {verdict['source']}: {verdict['verdict'].upper()}")
    for reason in verdict["reasons"]:
        say(f"  {reason['level']}: {reason['text']}")
    say(f"report     {page}")
    return verdict
