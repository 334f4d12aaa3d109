"""One history: rounds in which loop, operator and service act at once, and what must hold."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from simulation.machine import Crash, Machine, Process, simulated
from simulation.scripted_world import FIRST, Elsewhere, ScriptedWorld, version
from taxi_duration import environment
from taxi_duration.chain import release
from taxi_duration.errors import TaxiError
from taxi_duration.files import BROKEN
from taxi_duration.live import log_engine
from taxi_duration.live.arms import arm_of
from taxi_duration.live.audit import audit_lines
from taxi_duration.live.deployment import (
    Deployment,
    deploy_champion,
    history_lines,
    read_deployment,
    roll_back,
    set_challenger,
)
from taxi_duration.live.log_rows import PredictionRow
from taxi_duration.live.prediction_log import PredictionLog, open_log
from taxi_duration.loop import baking, testing
from taxi_duration.loop.approving import approve, read_approval
from taxi_duration.loop.by_hand import end_test
from taxi_duration.loop.pausing import pause, read_pause, resume
from taxi_duration.loop.state import read_state
from taxi_duration.loop.turn import take_turn

MEMORY = Path("/dev/shm")  # files in it cost no disk; a temporary folder elsewhere will do
ROUNDS = 6
USER = "operator"
HOUR, DAY = 3600.0, 86_400.0
OLD_LOG_SHARE = 0.8  # of histories that find a log; making one takes a quarter of all their time
MOST_TURNS = 80  # of a day each, until a loop that is left alone has nothing to do; tests end in 60


class BrokenPromiseError(AssertionError):
    """Something did not hold; the message tells the history up to there."""


class History:
    """What happens on one machine, drawn from a seed, and what its processes were told."""

    def __init__(self, seed: int, root: Path) -> None:
        self.seed = seed
        self.machine = Machine(root, seed)
        self.chance = self.machine.chance
        self.elsewhere = Elsewhere()
        self.service = Process("service")
        self.log: PredictionLog | None = None
        self.asked = 0
        self.answered: dict[str, None] = {}  # ids of rides whose answer left, in their order
        self.unsafe: dict[str, None] = {}  # those that a power cut may take
        self.lost: dict[str, None] = {}  # those that one may have taken
        self.truths: dict[str, float] = {}  # true minutes that were acknowledged
        self.deployed: list[str] = []  # times of the changes that were acknowledged
        self.recorded: list[str] = []  # keys of the decisions that were acknowledged
        self.serial = 0
        self.paused: bool | None = False  # None: not known

    # --- telling ------------------------------------------------------------------------

    def tell(self, text: str) -> None:
        """Add a line to the story."""
        self.machine.story.append(text)

    def demand(self, holds: bool, promise: str) -> None:
        """Stop the history where a promise is broken."""
        if not holds:
            story = "\n".join(self.machine.story)
            raise BrokenPromiseError(f"seed {self.seed}: {promise}\n{story}")

    # --- playing ------------------------------------------------------------------------

    def play(self) -> None:
        """Play all rounds, then let everything come to rest, and check all along."""
        (first,) = self.machine.run([(Process("run"), self._begin)])
        self.deployed.append(first.updated)
        for number in range(ROUNDS):
            self.tell(f"round {number + 1}, {self.machine.clock:.0f}")
            self._play_round()
            self.check()
        self._come_to_rest()
        self.check()
        self._check_log()

    def _begin(self) -> Deployment:
        """What is there already: a first model, one under test, or one that bakes."""
        first = deploy_champion(version(1), "the first", who=USER)
        beginning = self.chance.choice(("first", "test", "baking"))
        if beginning == "test":
            share = self.chance.choice((0.0, 0.2))
            return set_challenger(version(2), "try it", share, who=USER)
        if beginning == "baking":
            return deploy_champion(version(2), "it is better", bake=True, who=USER)
        return first

    def _play_round(self) -> None:
        machine, chance = self.machine, self.chance
        with_word = chance.random() < 0.3
        os.environ["AUTO_APPROVE"] = "manual" if with_word else "auto"
        if chance.random() < 0.4:
            self.elsewhere.published.append(FIRST.shift(len(self.elsewhere.published)))
        tasks = self._draw_tasks()
        if chance.random() < 0.25:
            machine.refusal = chance.choice(("full", "read-only", "failing"))
            machine.refusal_share = chance.choice((0.05, 0.3, 1.0))
            self.tell(f"  the disk is {machine.refusal} for {machine.refusal_share:.0%} of calls")
        if chance.random() < 0.4:
            machine.crash_at = machine.calls + chance.randint(1, 60 * len(tasks))
            machine.power_fails = chance.random() < 0.4
        power = machine.power_fails
        outcomes = machine.run([(process, act) for process, act, _ in tasks])
        refused, crashed = machine.refusal is not None, any(p.dead for p, _, _ in tasks)
        machine.refusal = machine.crash_at = None
        machine.power_fails = False
        for (process, _, done), outcome in zip(tasks, outcomes, strict=True):
            self._note(process, outcome, done, refused)
        if crashed and power:
            self._lose_power()
        if self.service.dead:
            self.service, self.log = Process("service"), None
        self._move_clock()

    def _draw_tasks(self) -> list[tuple[Process, Callable[[], Any], Callable[[Any], None]]]:
        """Who acts in this round: the process, what it does, and what to note when it is done."""
        chance = self.chance
        tasks: list[tuple[Process, Callable[[], Any], Callable[[Any], None]]] = []
        if chance.random() < 0.8:
            tasks.append((Process("loop"), self._turn(calm=False), self._note_turn))
        if chance.random() < 0.1:
            tasks.append((Process("second loop"), self._turn(calm=False), self._note_turn))
        if chance.random() < 0.6:
            tasks.append((Process("operator"), *self._draw_command()))
        if chance.random() < 0.3 or not tasks:
            tasks.append((self.service, self._serve, lambda _: None))
        if chance.random() < 0.05:
            reader = Process("reader")
            tasks.append((reader, lambda: self._read(reader), lambda _: None))
        return tasks

    def _note(
        self, process: Process, outcome: Any, done: Callable[[Any], None], refused: bool
    ) -> None:
        if isinstance(outcome, Crash):
            self.tell(f"  {process.name} is dead")
        elif isinstance(outcome, OSError):
            self.tell(f"  {process.name} failed: {outcome}")
            self.demand(refused, f"{process.name} failed on a healthy disk: {outcome!r}")
            told = process.name not in ("service", "reader")
            self.demand(told, f"no LogError, so nobody answers it: {outcome!r}")
        elif isinstance(outcome, TaxiError):
            self.tell(f"  {process.name} was refused: {outcome}")
        elif isinstance(outcome, Exception):
            raise BrokenPromiseError(
                f"seed {self.seed}\n" + "\n".join(self.machine.story)
            ) from outcome
        else:
            done(outcome)

    def _lose_power(self) -> None:
        self.service.dead = True
        self.machine.end(self.service)
        self.machine.cut_power()
        self.lost |= self.unsafe
        self.unsafe = {}

    def _move_clock(self) -> None:
        chance = self.chance
        step = chance.choice((HOUR, 2 * DAY, 4 * DAY)) * chance.random()
        if chance.random() < 0.1:
            step = -chance.choice((HOUR, DAY, 400 * DAY)) * chance.random()
            self.tell(f"  the clock goes back by {-step / DAY:.1f} days")
        self.machine.clock += step

    # --- the loop -----------------------------------------------------------------------

    def _turn(self, calm: bool) -> Callable[[], Any]:
        world = ScriptedWorld(self.elsewhere, self.chance, self.machine.now, calm)

        def look(now: Any, min_blocks: int) -> Any:
            return now.world.look(now, min_blocks)

        def act() -> Any:
            return take_turn(world, say=lambda line: self.tell(f"    loop: {line}"))

        testing.look_at_rides = baking.look_at_rides = look
        return act

    def _note_turn(self, lines: list[dict[str, Any]]) -> None:
        self.recorded += [line["key"] for line in lines if line["key"]]
        serials = [int(line["key"].split(":")[0]) + 1 for line in lines if line["key"]]
        self.serial = max([self.serial, *serials])

    # --- the operator -------------------------------------------------------------------

    def _draw_command(self) -> tuple[Callable[[], Any], Callable[[Any], None]]:
        chance = self.chance
        number = chance.randint(1, len(self.elsewhere.months))
        reason = f"the operator's wish {self.machine.calls}"
        command = chance.choice(
            ("promote", "rollback", "drop", "challenge", "pause", "resume", "approve")
        )
        self.tell(f"  operator: {command} ({number}: {reason})")
        if command == "promote":
            return lambda: release.deploy_by_hand(version(number), reason), self._note_deployed
        if command == "rollback":
            return lambda: roll_back(reason, who=USER), self._note_deployed
        if command == "drop":
            return lambda: end_test(reason), lambda _: None
        if command == "challenge":
            share, shadow = chance.choice((0.0, 0.1, 0.5, 1.0)), chance.random() < 0.7
            return lambda: set_challenger(version(number), reason, share, shadow, USER), (
                self._note_deployed
            )
        if command == "pause":
            self.paused = None if self.paused is False else self.paused
            return lambda: pause(reason), lambda _: setattr(self, "paused", True)
        if command == "resume":
            self.paused = None
            return resume, lambda _: setattr(self, "paused", False)
        return lambda: approve(None), self._note_word

    def _note_deployed(self, deployment: Deployment) -> None:
        self.deployed.append(deployment.updated)

    def _note_word(self, approval: Any) -> None:
        self.recorded.append(f"approve:{approval.since}")

    # --- the service --------------------------------------------------------------------

    def _serve(self) -> None:
        self._open_log(self.service)
        for _ in range(self.chance.randint(1, 3)):
            act = self.chance.choice((self._answer, self._answer, self._take_truths, self._drain))
            try:
                act()
            except TaxiError as error:
                self.tell(f"    service: {error}")
                self.demand(self.machine.refusal is not None, f"the log is not kept: {error}")

    def _open_log(self, process: Process) -> None:
        if self.log is None:
            self.log = open_log()
            process.at_death.append(partial(_abandon, self.log))

    def _answer(self) -> None:
        deployment = read_deployment()
        self.demand(deployment is not None, "nobody serves")
        names = []
        for _ in range(self.chance.randint(1, 3)):
            self.asked += 1
            names.append(f"ride-{self.asked}")
        self.log.add([_row(name, deployment, self.machine.clock) for name in names])
        self.answered |= dict.fromkeys(names)
        self.unsafe |= dict.fromkeys(names)

    def _take_truths(self) -> None:
        names = self.chance.sample(list(self.answered), min(3, len(self.answered)))
        rows = [{"prediction_id": n, "duration": float(self.chance.randint(1, 60))} for n in names]
        before = dict(self.unsafe)
        result = self.log.add_feedback(rows)
        self._are_safe(before)
        unknown = [name for name in result.unknown if name not in self.lost]
        self.demand(not unknown, f"feedback of answered rides is unknown: {unknown}")
        for row in rows:
            if row["prediction_id"] in result.known:
                self.truths.setdefault(row["prediction_id"], row["duration"])

    def _drain(self) -> None:
        before = dict(self.unsafe)
        self.log.drain()
        self._are_safe(before)

    def _are_safe(self, moved: dict[str, None]) -> None:
        self.unsafe = {name: None for name in self.unsafe if name not in moved}

    def _read(self, process: Process) -> Any:
        log, before = open_log(), dict(self.unsafe)
        process.at_death.append(partial(_abandon, log))
        found = log.counts()
        self._are_safe(before)
        log.close()
        return found

    # --- what must hold -----------------------------------------------------------------

    def check(self) -> None:
        """Check what lies on disk, as whoever comes next would read it."""
        deployment, history, audit = read_deployment(), history_lines(), audit_lines()
        self.demand(deployment is not None, "nobody serves")
        state = read_state()
        self.demand(state.serial >= self.serial, f"the loop is back at step {state.serial}")
        for line in (*audit, *(line for line, _ in history)):
            self.demand(line.tie != BROKEN, f"the chain is broken at line {line.number}")
        keys = [line.record["key"] for line in audit if line.record["key"]]
        self.demand(len(keys) == len(set(keys)), "a decision is in the trail twice")
        missing = [key for key in self.recorded if key not in keys]
        self.demand(not missing, f"the trail has lost {missing}")
        self._check_changes(deployment, [change for _, change in history], audit)
        self._check_shares(deployment)
        if self.paused is not None:
            paused = read_pause() is not None
            self.demand(paused == self.paused, f"paused: {paused}, acknowledged: {self.paused}")
        read_approval()

    def _check_changes(self, deployment: Deployment, changes: list[Any], audit: list[Any]) -> None:
        """Who serves is a line of the history, no acknowledged one is lost, each has a decision."""
        what = [c.at for c in changes]
        names = ("champion", "challenger", "ab_share", "shadow")
        same = [
            n
            for n, change in enumerate(changes)
            if change.at == deployment.updated
            and all(getattr(change, name) == getattr(deployment, name) for name in names)
        ]
        self.demand(bool(same), f"no line of the history says what serves: {deployment}")
        missing = [at for at in self.deployed if at not in what]
        self.demand(not missing, f"the history has lost {missing}")
        newest = max(map(what.index, self.deployed))
        self.demand(same[0] >= newest, "an acknowledged change of who serves is undone")
        reasons = {line.record["why"] for line in audit}
        bare = [c.reason for c in changes if c.reason not in reasons]
        self.demand(not bare, f"nobody decided on {bare}")

    def _check_shares(self, deployment: Deployment) -> None:
        champion, challenger, share = (
            deployment.champion, deployment.challenger, deployment.ab_share,
        )  # fmt: skip
        self.demand(challenger != champion, f"{champion.ref} challenges itself")
        self.demand(0 <= share <= 1, f"the challenger's share is {share}")
        self.demand(challenger is not None or share == 0, "a share is nobody's")
        arms = [arm_of(f"ride-{n}", share, champion.sha256) for n in range(8)]
        self.demand(share not in (0, 1) or len(set(arms)) == 1, "a share of all is not all")

    def _come_to_rest(self) -> None:
        """Nothing fails any more and nobody interferes: the loop deals with all that it began."""
        os.environ["AUTO_APPROVE"] = "auto"
        self.tell("everything works again")
        self.machine.run([(Process("operator"), resume)])
        self.paused = False
        for _ in range(MOST_TURNS):
            self.machine.clock += DAY
            (lines,) = self.machine.run([(Process("loop"), self._turn(calm=True))])
            self.demand(isinstance(lines, list), f"the loop cannot go on: {lines!r}")
            state = read_state()
            if lines[-1]["what"] == "nothing" and state.stage == "idle":
                self.demand(not state.unlogged, "MLflow was never told some decisions")
                return
        self.demand(False, f"the loop is still at work after {MOST_TURNS} days")

    def _check_log(self) -> None:
        """Every answer and every truth that was acknowledged is in the log, with its value."""
        if not self.asked:
            return
        log = self.log or open_log()
        rows = {row["prediction_id"]: row["true_duration"] for row in log.answered()}
        self.service.at_death.append(partial(_abandon, log))
        self.service.dead = True
        self.machine.end(self.service)
        missing = [n for n in self.answered if n not in rows and n not in self.lost]
        self.demand(not missing, f"answers are lost: {missing}")
        wrong = {n: (t, rows.get(n)) for n, t in self.truths.items() if rows.get(n) != t}
        self.demand(not wrong, f"true durations are lost or others: {wrong}")
        strays = [n for n in rows if int(n.split("-")[1]) > self.asked]
        self.demand(not strays, f"nobody asked for {strays}")


def _abandon(log: PredictionLog) -> None:
    """Close what a dead process has open, as the kernel would: nothing of its code runs."""
    opened = log._store._now
    if opened is not None and opened.file is not None:
        opened.file.close()


def _row(name: str, deployment: Deployment, now: float) -> PredictionRow:
    champion = deployment.champion
    return PredictionRow(
        name, None, now, 10, 50, "2021-02-01T08:30:00", 4.5, 21.25, 12.0, 20.0, 33.0, 7, True,
        champion.ref, champion.sha256, "champion", 0.4,
    )  # fmt: skip


def quick_engines(create: Callable[..., Any]) -> Callable[..., Any]:
    """Let all engines share a dialect: statements are compiled once, not for each of the logs."""
    first = create("sqlite://")
    first.connect().close()

    def make(*args: Any, **options: Any) -> Any:
        engine = create(*args, _initialize=False, **options)
        engine.dialect, engine._compiled_cache = first.dialect, first._compiled_cache
        return engine

    return make


def play(seeds: range, told: Callable[[History], None] = lambda _: None) -> None:
    """Play a history for each seed.

    Raises:
        BrokenPromiseError: with the seed and the story.
    """
    where = MEMORY if os.access(MEMORY, os.W_OK) else None
    unset = {"MODELS_DIR": "", "DEPLOYMENT_DIR": "", "DATA_DIR": "", "LOG_URL": ""}
    with tempfile.TemporaryDirectory(dir=where) as folder, ExitStack() as stack:
        stack.enter_context(patch.dict(os.environ, {**unset, "AUTO_APPROVE": "auto"}))
        for module in (testing, baking):
            stack.enter_context(patch.object(module, "look_at_rides"))
        engines = quick_engines(log_engine.create_engine)
        stack.enter_context(patch.object(log_engine, "create_engine", engines))
        stack.enter_context(patch.object(release, "mirror_or_warn", lambda client=None: None))
        # Asked for at every call, and resolved by looking at each folder above it.
        place = [Path(), Path()]
        stack.enter_context(patch.object(environment, "deployment_dir", lambda: place[1]))
        stack.enter_context(patch.object(environment, "home", lambda: place[0]))
        place[0] = installed = Path(folder, "installed").resolve()
        log = open_log()
        log.counts()  # makes it
        log.close()
        put_in_charge = stack.enter_context(simulated())
        for seed in seeds:
            home = Path(folder, str(seed)).resolve()
            (home / "deployment").mkdir(parents=True)
            place[:] = home, home / "deployment"
            history = History(seed, home)
            if history.chance.random() < OLD_LOG_SHARE:
                shutil.copytree(installed / "data", home / "data")
            put_in_charge(history.machine)
            try:
                history.play()
            finally:
                told(history)
                shutil.rmtree(home)
