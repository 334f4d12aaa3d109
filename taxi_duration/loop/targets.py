"""Whom to notify: the addresses in NOTIFY_URLS, each a service that apprise knows.

An address holds passwords and tokens. It is never logged or shown: an error names its position.
"""

from __future__ import annotations

import hashlib
import logging
import queue
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from taxi_duration import environment

PAUSES = (0.0, 1.0, 3.0)  # seconds before each try: a receiver that restarts is back by then
READ_SECONDS = 10.0  # a slow receiver's time to answer; apprise's 4 would send to it twice


class Letter(NamedTuple):
    """What is sent at once; `messages` are those that it is made of."""

    title: str
    text: str
    kind: str
    messages: tuple[Any, ...] = ()


class Posted(NamedTuple):
    """What became of a letter; `problem` is empty when it was taken."""

    key: str
    letter: Letter
    problem: str


@dataclass(frozen=True)
class Target:
    """One address; `key` names it in files, too short to reveal it."""

    position: int
    key: str
    service: Any

    @property
    def name(self) -> str:
        """Its name in messages."""
        return f"address {self.position} ({self.service.service_name})"

    def send(self, letter: Letter) -> str:
        """Send once; return what went wrong, nothing when the target took it."""
        import apprise

        one = apprise.Apprise()
        one.add(self.service)
        sent = one.notify(letter.text, letter.title, letter.kind, body_format="text")
        if sent:
            return ""
        status = next((entry.message for entry in sent.logs()), None)
        return f"it answered {status}" if status else "it did not answer, or refused"


def read_targets() -> tuple[list[Target], list[str]]:
    """Return the usable targets, and a line for each address that cannot be used."""
    urls = environment.notify_urls()
    if not urls:
        return [], []
    import apprise  # takes a second: only where somebody is to be notified

    logger = logging.getLogger("apprise")
    logger.addFilter(_keep_status)
    logger.propagate = False
    # Its own threads would hold up the end of the process; ours have an end.
    asset = apprise.AppriseAsset(
        app_id="Taxi trip duration", app_desc="The loop", service_timeout=0, storage_mode="memory"
    )
    targets: dict[str, Target] = {}
    problems = []
    for position, url in enumerate(urls, 1):
        service = apprise.Apprise.instantiate(url, asset=asset)
        if service is None:
            problems.append(
                f"NOTIFY_URLS: address {position} of {len(urls)} is left out, apprise does not "
                "understand it; such are json://HOST:PORT/PATH, slack://…, mailto://…"
            )
            continue
        if "rto=" not in url:
            service.socket_read_timeout = READ_SECONDS
        key = hashlib.sha256(url.encode()).hexdigest()[:6]
        targets.setdefault(key, Target(position, key, service))
    return list(targets.values()), problems


def _keep_status(record: logging.LogRecord) -> bool:
    """Leave nothing of what apprise logs but a status: the rest may hold the address."""
    status = re.search(r"error=(\d{3})\b", record.getMessage())
    record.msg, record.args, record.exc_info = status[1] if status else "", (), None
    return status is not None


def post(
    letters: Mapping[str, Sequence[Letter]], targets: Sequence[Target], seconds: float
) -> Iterator[Posted]:
    """Send to all targets at once, to each its letters in order, and yield what became of them.

    A target that does not take a letter gets no later one. After `seconds` the wait is over,
    whoever has not answered by then.

    Args:
        letters: by the target's key.
        targets: whose keys they are.
        seconds: that it may take at most.
    """
    end = time.monotonic() + seconds
    done: queue.Queue[Posted | str] = queue.Queue()
    busy = {target.key for target in targets if letters.get(target.key)}
    for target in targets:
        if target.key in busy:
            given = (target, letters[target.key], end, done)
            threading.Thread(target=_post_all, args=given, daemon=True).start()
    while busy:
        try:
            posted = done.get(timeout=max(end - time.monotonic(), 0.0))
        except queue.Empty:
            break
        if isinstance(posted, str):
            busy.remove(posted)
        else:
            yield posted
    for key in busy:
        yield Posted(key, letters[key][0], f"it did not answer within {seconds:g} s")


def _post_all(
    target: Target, letters: Sequence[Letter], end: float, done: queue.Queue[Posted | str]
) -> None:
    for letter in letters:
        problem = _post(target, letter, end)
        done.put(Posted(target.key, letter, problem))
        if problem:
            break
    done.put(target.key)


def _post(target: Target, letter: Letter, end: float) -> str:
    """Try until the target takes it or the time is over; return what went wrong."""
    problem = "there was no time left"
    for pause in PAUSES:
        if time.monotonic() + pause >= end:
            break
        time.sleep(pause)
        try:
            problem = target.send(letter)
        except Exception as error:  # of a plugin; its text may hold the address
            problem = f"it failed with {type(error).__name__}"
        if not problem:
            break
    return problem
