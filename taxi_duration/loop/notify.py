"""Notifies people of what the loop decided, what the monitor found and what failed, once each.

`deployment/notify.json` says how far everything was looked at, and which messages wait for whom.
A message gets into it in the same write as the mark that its cause was seen, and out of it when
its target has taken it, so that a killed turn loses nothing. One killed between a target's
answer and that write sends the message once more.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout
from msgspec import Struct, to_builtins
from msgspec.structs import replace

from taxi_duration import environment
from taxi_duration.errors import TaxiError
from taxi_duration.files import read_json, typed, write_json
from taxi_duration.live.audit import read_audit
from taxi_duration.live.refusals import read_refusals
from taxi_duration.live.verdict import Verdict, read_verdict
from taxi_duration.loop.situation import Step
from taxi_duration.loop.targets import Letter, Target, post, read_targets
from taxi_duration.loop.turn import BusyError

NOTIFY_FILE = "notify.json"
LOCK_FILE = ".notify.lock"
SECONDS = 20.0  # of a turn, for all targets together; a turn that trains takes minutes
TRAINS = ("train", "refit")  # stages that take minutes to hours
UNKNOWN_DAYS = 3  # a weekend without feedback, or a new version's first days, are no news
KEPT_DAYS = 7  # older ones are in the audit trail
KEPT_MESSAGES = 100  # some weeks of decisions
LETTER_CHARACTERS = 1500  # several messages go as one letter; Discord takes 2,000
MESSAGE_CHARACTERS = 600

Kind = Literal["info", "success", "warning", "failure"]
RISING: tuple[Kind, ...] = ("success", "info", "warning", "failure")
DECIDED: dict[str, Kind] = {
    **dict.fromkeys(("promote", "approve"), "success"),
    **dict.fromkeys(("ask", "drop", "refuse", "give", "distrust", "roll", "doubt"), "warning"),
}
LEVELS: dict[str, Kind] = {"ok": "success", "alarm": "failure"}


class Message(Struct, frozen=True):
    """One piece of news; `waits` are the keys of the targets that do not have it yet."""

    at: str
    title: str
    text: str
    kind: Kind
    waits: tuple[str, ...] = ()


class Sent(Struct, frozen=True):
    """How far everything was looked at, and what waits.

    Args:
        decisions: lines of the audit trail that were looked at.
        level: of the verdict that was sent last.
        unknown_since: when the verdict became unknown; empty while it is known.
        problem: what the loop's last turn could not do; empty when it could.
        refused: when the last refusal that was sent began.
        waiting: messages, oldest first.
    """

    decisions: int
    level: str = "ok"
    unknown_since: str = ""
    problem: str = ""
    refused: str = ""
    waiting: tuple[Message, ...] = ()


@contextmanager
def notifying(say: Callable[[str], None]) -> Iterator[Callable[[Step], None]]:
    """Notify people of the turn of the loop that is taken in the block.

    Yields a function to be called with each step. An error in the block is raised as ever.

    Args:
        say: prints a line; what cannot be sent is said there.
    """
    notifier = Notifier(say)
    try:
        yield notifier.note
    except BusyError:  # another turn is at work, and notifies
        raise
    except Exception as error:
        notifier.notify(str(error) if isinstance(error, TaxiError) else repr(error))
        raise
    notifier.notify(notifier.problem)


class Notifier:
    """Finds what is new and sends it to everybody in NOTIFY_URLS; never raises.

    Args:
        say: prints a line.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self.problem: str | None = None  # a paused loop tries nothing
        try:
            self._targets, problems = read_targets()
        except Exception as error:  # of the library; the turn is taken without it
            self._targets, problems = [], [f"nobody can be notified: {type(error).__name__}"]
        for problem in problems:
            say(problem)
        # What was decided before there was anybody to notify is no news.
        if self._targets and not _path().exists():
            self._save(Sent(len(read_audit())))

    def note(self, step: Step) -> None:
        """Note a step; before one that takes long, send what is known so far."""
        self.problem = step.why if step.is_problem else ""
        if step.state is not None and step.state.stage in TRAINS:
            self.notify()

    def notify(self, problem: str | None = None) -> None:
        """Find what is new, and send it and what still waits to everybody.

        Args:
            problem: what the turn could not do, empty when it could; None while it goes on.
        """
        if not self._targets:
            return
        try:
            with FileLock(_path().with_name(LOCK_FILE), timeout=0):
                self._deliver(self._collect(problem))
        except Timeout:
            self._say("another turn is sending the messages")
        except Exception as error:  # whatever goes wrong here, the turn was taken
            self._say(f"nobody could be notified: {error!r}")

    def _collect(self, problem: str | None) -> Sent:
        """Add what is new to what waits."""
        sent = self._read()
        messages: list[Message] = []
        for look in (_decisions, _verdict, _refusals, lambda sent: _problem(sent, problem)):
            sent, found = look(sent)
            messages += found
        keys = tuple(target.key for target in self._targets)
        waiting = [*sent.waiting, *(replace(message, waits=keys) for message in messages)]
        kept = [left for message in waiting if (left := _still_waits(message, keys))]
        if lost := len(waiting) - len(kept[-KEPT_MESSAGES:]):
            self._say(f"{lost} messages are given up: too old or too many")
        sent = replace(sent, waiting=tuple(kept[-KEPT_MESSAGES:]))
        self._save(sent)
        return sent

    def _deliver(self, sent: Sent) -> None:
        letters = {t.key: _letters([m for m in sent.waiting if t.key in m.waits])
                   for t in self._targets}  # fmt: skip
        names = {target.key: target.name for target in self._targets}
        for key, letter, problem in post(letters, self._targets, SECONDS):
            if problem:
                self._say(f"NOTIFY_URLS: {names[key]} gets it with a later turn: {problem}")
                continue
            sent = replace(sent, waiting=_without(sent.waiting, letter.messages, key))
            self._save(sent)

    def _read(self) -> Sent:
        try:
            return typed(read_json(_path()), Sent, NOTIFY_FILE)
        except (OSError, ValueError) as error:
            self._say(f"what was sent is not known any more, it begins anew: {error}")
            return Sent(len(read_audit()))

    def _save(self, sent: Sent) -> None:
        try:
            write_json(_path(), to_builtins(sent))
        except OSError as error:  # the messages were sent all the same
            self._say(f"{NOTIFY_FILE} cannot be written, messages may come twice: {error}")


def waiting_messages() -> list[Message]:
    """Return the messages that somebody does not have yet, oldest first."""
    path = _path()
    return list(typed(read_json(path), Sent, NOTIFY_FILE).waiting) if path.exists() else []


def send_test() -> Iterator[tuple[Target, str]]:
    """Send a message to each usable address; yield it with what went wrong, if anything."""
    targets, _ = read_targets()
    by_key = {target.key: target for target in targets}
    letter = Letter("Taxi trip duration: test", f"This is a test.\n{_link()}", "info")
    for key, _, problem in post({key: [letter] for key in by_key}, targets, SECONDS):
        yield by_key[key], problem


# --- what is new --------------------------------------------------------------------------------

News = tuple[Sent, list[Message]]


def _decisions(sent: Sent) -> News:
    """Lines with a key changed something; those without look again at every turn.

    Lines with digests only record them: what was made stands in the loop's own lines. A reason is
    told once: that of `trust` is the one of the promotion that follows, too.
    """
    lines = read_audit()
    told = [line for line in lines[sent.decisions :] if line.get("key") and "sha256" not in line]
    reasons = ["", *(line["why"] for line in told)]
    return replace(sent, decisions=len(lines)), [
        _message("decision", line["what"] + f": {line['why']}" * (line["why"] != before),
                 _kind(line["what"]), line["at"])
        for line, before in zip(told, reasons, strict=False)
    ]  # fmt: skip


def _kind(what: str) -> Kind:
    return DECIDED.get(what.split()[0].rstrip(":"), "info")


def _verdict(sent: Sent) -> News:
    """A level is sent when it changes; `unknown` once it has lasted."""
    try:
        verdict = read_verdict()
    except TaxiError:  # damaged; the next look writes it anew
        return sent, []
    if verdict is None:
        return sent, []
    level = str(verdict.verdict)
    # The earlier: what a clock ahead noted would hold the message back until then.
    since = min(sent.unknown_since or verdict.at, verdict.at) if level == "unknown" else ""
    sent = replace(sent, unknown_since=since)
    if level == sent.level or (since and not _is_older(since, UNKNOWN_DAYS)):
        return sent, []
    kind, text = LEVELS.get(level, "warning"), _in_words(verdict, sent.level)
    return replace(sent, level=level), [_message(level.upper(), text, kind, verdict.at)]


def _in_words(verdict: Verdict, before: str) -> str:
    about = f"{verdict.model} ({verdict.source})"
    reasons = "; ".join(reason.text for reason in verdict.reasons[:3])
    if verdict.verdict == "ok":
        return f"{about} is well again; the monitor said {before} before"
    counted = f"{verdict.rides:,} rides, {verdict.answered:,} of them with their true duration"
    if str(verdict.verdict) == "unknown":
        return f"for {UNKNOWN_DAYS} days it is not known how right {about} is: {reasons or counted}"
    return f"the monitor says {verdict.verdict} about {about}: {reasons} ({counted})"


def _refusals(sent: Sent) -> News:
    known = read_refusals()
    # By its place: a clock that was ahead dates what comes after it earlier.
    seen = max((i for i, one in enumerate(known, 1) if one.at == sent.refused), default=0)
    new = known[seen:]
    messages = [
        _message("refused bundle", f"the service refuses what is deployed: {r.problem}"
                 f"{f' (until {r.until[:16]})' if r.until else ''}", "failure", r.at)
        for r in new
    ]  # fmt: skip
    return replace(sent, refused=new[-1].at if new else sent.refused), messages


def _problem(sent: Sent, problem: str | None) -> News:
    """A problem is sent once until it is another or gone."""
    if problem is None:
        return sent, []
    if _without_numbers(problem) == _without_numbers(sent.problem):
        return sent, []
    if problem:
        text = f"the loop cannot go on, the next turn tries again: {problem}"
    else:
        text = f"the loop goes on again, after: {sent.problem}"
    kind: Kind = "failure" if problem else "success"
    return replace(sent, problem=problem), [_message("loop", text, kind)]


def _without_numbers(problem: str) -> str:
    """Blank out counts and addresses, which differ in the same problem from turn to turn."""
    return re.sub(r"0x[0-9a-f]+|[\d.,]+", "#", problem)


# --- messages and letters -----------------------------------------------------------------------


def _message(title: str, text: str, kind: Kind, at: str = "") -> Message:
    text = re.sub(r"\s+", " ", text)  # an error may show a notebook's cell
    text = text if len(text) <= MESSAGE_CHARACTERS else f"{text[: MESSAGE_CHARACTERS - 1]}…"
    return Message(at or _now().isoformat(timespec="seconds"), title, text, kind)


def _letters(messages: Sequence[Message]) -> list[Letter]:
    """Put messages together: one letter for a turn, not ten."""
    letters: list[Letter] = []
    these: list[Message] = []
    for message in messages:
        if these and sum(len(m.text) for m in (*these, message)) > LETTER_CHARACTERS:
            letters.append(_letter(these))
            these = []
        these.append(message)
    return [*letters, _letter(these)] if these else letters


def _letter(messages: Sequence[Message]) -> Letter:
    titles = ", ".join(dict.fromkeys(message.title for message in messages))
    lines = [f"{message.at[:16].replace('T', ' ')} {message.text}" for message in messages]
    kind = max((message.kind for message in messages), key=RISING.index)
    text = "\n".join([*lines, _link()])
    return Letter(f"Taxi trip duration: {titles}", text, kind, tuple(messages))


def _still_waits(message: Message, keys: Sequence[str]) -> Message | None:
    """The message for the targets that there still are; None when it is too old, or has none."""
    waits = tuple(key for key in message.waits if key in keys)
    return replace(message, waits=waits) if waits and not _is_older(message.at, KEPT_DAYS) else None


def _without(waiting: Sequence[Message], taken: Sequence[Message], key: str) -> tuple[Message, ...]:
    """Return what still waits after a target took some messages."""
    rest = []
    for message in waiting:
        same = [m for m in taken if (m.at, m.text) == (message.at, message.text)]
        waits = tuple(k for k in message.waits if not (same and k == key))
        if waits:
            rest.append(replace(message, waits=waits))
    return tuple(rest)


def _link() -> str:
    return f"{environment.public_url()}/monitor"


def _is_older(at: str, days: float) -> bool:
    return _now() - datetime.fromisoformat(at) > timedelta(days=days)


def _now() -> datetime:
    return datetime.now(UTC)


def _path() -> Path:
    return environment.deployment_dir() / NOTIFY_FILE
