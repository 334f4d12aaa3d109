"""Runs checks side by side, each with a time limit: one that hangs is a finding itself."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from taxi_duration.errors import SettingError

MEND = "mend it or unset it (docs/reference.md#settings)"
OK, NOTE, PROBLEM = "ok", "note", "problem"
# With the second in which Python and the command itself are loaded, a doctor is done in three.
DEADLINE_SECONDS = 1.7


@dataclass(frozen=True)
class Finding:
    """One line: what was found and what to do.

    `level` is `problem` when a command will fail or answers would be wrong, `note` when something
    is worth knowing; `remedy` is empty when nothing needs to be done.
    """

    check: str
    level: str
    found: str
    remedy: str = ""

    @property
    def line(self) -> str:
        """As people read it."""
        remedy = f" → {self.remedy}" if self.remedy else ""
        return f"{self.level:<8}{self.check:<12}{self.found}{remedy}"

    def as_dict(self) -> dict[str, Any]:
        """As machines read it."""
        return asdict(self)


@dataclass(frozen=True)
class Check:
    """One thing to look at.

    Args:
        name: of its findings.
        look: finds; writes nothing that lasts.
        hangs: what it means that there is no answer in time, and what to do: found and remedy.
            Where it means nothing but a slow machine, that is a note and no problem.
    """

    name: str
    look: Callable[[str], Iterable[Finding]]
    hangs: tuple[str, str] = ("", "try again when the machine has less to do")


def examine(checks: list[Check], seconds: float = DEADLINE_SECONDS) -> list[Finding]:
    """Return the findings of all checks, in their order; of one that hangs, that it does."""
    answers: queue.SimpleQueue[tuple[int, list[Finding]]] = queue.SimpleQueue()
    for number, check in enumerate(checks):
        # Nothing waits for a daemon: one that a dead disk holds ends with the process.
        threading.Thread(target=_answer, args=(number, check, answers), daemon=True).start()
    until, found = time.monotonic() + seconds, dict[int, list[Finding]]()
    while len(found) < len(checks):
        try:
            number, findings = answers.get(timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            break
        found[number] = findings
    silent = {n: [_silent(check, seconds)] for n, check in enumerate(checks) if n not in found}
    return [finding for n in range(len(checks)) for finding in (found | silent)[n]]


def _answer(number: int, check: Check, answers: queue.SimpleQueue[Any]) -> None:
    try:
        findings = list(check.look(check.name))
    except SettingError as error:
        findings = [Finding(check.name, PROBLEM, one_line(error), MEND)]
    except Exception as error:  # an unforeseen state is reported, not raised
        said = f"cannot be looked at: {one_line(error)}"
        findings = [Finding(check.name, PROBLEM, said, "mend what it names")]
    answers.put((number, findings))


def _silent(check: Check, seconds: float) -> Finding:
    what, remedy = check.hangs
    said = f"no answer in {seconds:g} s{f': {what}' if what else ''}"
    return Finding(check.name, PROBLEM if what else NOTE, said, remedy)


def one_line(error: object) -> str:
    """Return what an error says, as one line."""
    return " ".join(str(error).split()) or type(error).__name__
