"""Runs notebook 05 on the live log: one page for people, one verdict for machines."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from msgspec import to_builtins

from taxi_duration import environment
from taxi_duration.chain.commit import git_commit
from taxi_duration.chain.notebooks import execute
from taxi_duration.chain.report import write_report
from taxi_duration.chain.run import RUN_FILE
from taxi_duration.data.sources import fetch_months
from taxi_duration.domain.months import check_available, format_months, parse_months
from taxi_duration.errors import NotFoundError
from taxi_duration.files import write_bytes, write_json
from taxi_duration.live.verdict import Verdict, page_path, read_verdict
from taxi_duration.loop.monitor import serving_champion

NOTEBOOK = "05_monitor"


def run_monitor(data: str, say: Callable[[str], None]) -> Verdict:
    """Execute the notebook, write its page, and return the verdict.

    Args:
        data: published months to look at too, as the notebook's `DATA`; may be empty.
        say: prints a line of progress.
    Raises:
        MonthNotPublishedError: a month cannot be had yet.
        TaxiError: nothing is deployed, a tag is not acceptable, or a cell failed.
    """
    champion = serving_champion()
    if data:
        months = parse_months(data)
        check_available(champion.service, months)
        # As the notebook has them; one that is not published needs none.
        fetch_months(champion.service, months, "tlc" if champion.data_source == "tlc" else None)
        data = format_months(months)
    name = f"monitor-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    folder = environment.runs_dir() / name
    folder.mkdir(parents=True)
    say(f"[1/1] {NOTEBOOK} …")
    execute(NOTEBOOK, folder / f"{NOTEBOOK}.ipynb", {"DATA": data})
    verdict = read_verdict()
    if verdict is None:
        raise NotFoundError(f"{NOTEBOOK} wrote no verdict")
    info = {
        "run_id": folder.name,
        "settings": {"DATA": data or "the live log", "verdict": verdict.verdict},
        "data_source": champion.data_source,
        "git_commit": git_commit(),
        "model": to_builtins(champion),
    }
    write_json(folder / RUN_FILE.replace("run", "monitor"), {**info, "verdict": verdict.as_dict()})
    page: Path = write_report(folder, [NOTEBOOK], info)
    write_bytes(page_path(), page.read_bytes())  # where the service finds it
    say(f"{champion.ref} on the {verdict.source}: {verdict.verdict.upper()}")
    for reason in verdict.reasons:
        say(f"  {reason.level}: {reason.text}")
    say(f"report     {page}")
    return verdict
