"""One turn of the loop: what it decides, and that no death leaves it stuck."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from importlib.resources import files
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock
from msgspec.structs import replace

from taxi_duration import environment
from taxi_duration.domain.findings import Reason
from taxi_duration.domain.months import Month
from taxi_duration.domain.version import Version
from taxi_duration.errors import (
    AtWorkError,
    BadMonthError,
    BundleError,
    MonthNotPublishedError,
    PipelineError,
    SettingError,
    SourceUnreachableError,
    TrackingError,
    TripFileError,
)
from taxi_duration.evaluation.bootstrap import Estimate
from taxi_duration.evaluation.gate import Check, Decision
from taxi_duration.evaluation.health import Health
from taxi_duration.files import read_json, write_json
from taxi_duration.live.audit import read_audit, record
from taxi_duration.live.deployment import (
    deploy_champion,
    drop_challenger,
    read_deployment,
    read_history,
    set_challenger,
)
from taxi_duration.loop.settings import auto_settings
from taxi_duration.loop.state import State, read_state, write_state
from taxi_duration.loop.turn import LOCK_FILE, BusyError, take_turn
from taxi_duration.loop.world import Republished

JANUARY, FEBRUARY, MARCH, APRIL = (Month(2021, month) for month in (1, 2, 3, 4))
PATIENT = replace(auto_settings(), max_age_months=3)
WRONG = Reason("error", "alarm", "MAE is twice the validation's")


def version(number: int, data_source: str = "tlc") -> Version:
    return Version("green-duration", number, str(number) * 64, data_source)


class FakeWorld:
    """A world in which everything is quick, and every outcome is a field.

    What it makes is kept in files, so that it outlives the process like the real one's.
    """

    published: tuple[Month, ...] = (JANUARY, FEBRUARY, MARCH)
    month_reasons: tuple[Reason, ...] = (Reason("drift", "watch", "trips are longer"),)
    live_reasons: tuple[Reason, ...] = ()
    arm_reasons: tuple[Reason, ...] = ()
    damaged: tuple[int, ...] = ()
    gone: tuple[int, ...] = ()
    gate_passes = True
    shadow_gain, split_gain = 0.5, 0.5
    baking_gain = -0.5  # of the champion before, against the one that it made room for
    feedback_days = 12
    rollback_gain = 1.0
    new_source = "tlc"
    broken: Exception | None = None
    broken_refit: Exception | None = None
    republished: tuple[Republished, ...] = ()
    refit_adds = 0  # to the number: 0 lets a test follow one version all the way
    outage: TrackingError | None = None

    def __init__(self, **fields) -> None:
        self.__dict__.update(fields)
        self.time = datetime(2021, 12, 2, tzinfo=UTC).timestamp()
        self.trained: list = []
        self.logged: list = []
        self.asked: list = []
        self.refitted: list = []

    def now(self):
        return self.time

    def months_of(self, model):
        return [JANUARY, FEBRUARY] if model.number == 1 else [FEBRUARY, MARCH]

    def find_published(self, model, months):
        for month in months:
            self.asked.append(month)
            if isinstance(self.broken, SourceUnreachableError):
                raise self.broken
            if month in self.published:
                yield month

    def fetch_republished(self, model, months):
        return [found for found in self.republished if found.month in months]

    def refit(self, judged, months, run_id, remember):
        remember(run_id or f"refit-{time.time_ns()}")
        self.refitted.append((judged.number, months))
        if self.broken_refit:
            raise self.broken_refit
        return version(judged.number + self.refit_adds)

    def _health(self, source, model, reasons):
        table = pd.DataFrame([{"by": "overall", "group": "all", "rows": 500, "mae": 3.0}])
        name = model.ref
        return Health(source, name, 500, 500, table, [], list(reasons))

    def month_health(self, model, month):
        return self._health(f"green {month}", model, self.month_reasons)

    def live_health(self, model):
        self.check_bundle(model)
        reasons = self.live_reasons if model.number == 2 or self.published == () else ()
        return self._health("live log", model, reasons)

    def arm_health(self, model):
        return self._health("live log", model, self.arm_reasons)

    def compare_live(self, model, earlier):
        gain = self.rollback_gain
        return Estimate(gain, gain - 0.1, gain + 0.1), 500

    def train(self, settings, run_id, remember):
        run_id = run_id or f"run-{time.time_ns()}"
        remember(run_id)
        self.trained.append((settings.train_data, settings.val_data, settings.model))
        if self.broken:
            raise self.broken
        made = environment.runs_dir() / "versions.json"
        versions = read_json(made) if made.exists() else {}
        versions.setdefault(run_id, 2 + len(versions))  # a run keeps its version
        write_json(made, versions)
        return version(versions[run_id], self.new_source)

    def gate(self, champion, challenger, month):
        self.opponents = [*getattr(self, "opponents", []), champion]
        if champion is not None and champion.number == 9:
            raise SettingError("the champion was trained on this month")
        check = Check("better", self.gate_passes, "nearer by 0.5 min", {"gain_min": 0.5})
        return Decision(self.gate_passes, 5000, 28, (check,))

    def live_rows(self, since, pair):
        """Twelve days of feedback on rides that both versions of deployment.json answered."""
        deployment = read_deployment()
        days, share = self.feedback_days, deployment.ab_share
        if deployment.challenger is None or days == 0:
            return pd.DataFrame()
        gain = self.split_gain if share else self.shadow_gain
        gain = self.baking_gain if deployment.is_baking else gain
        n = days * 200
        rng = np.random.default_rng(0)
        error = rng.gamma(2, 1.5, n)
        day = np.repeat(np.arange(days), 200)
        noon = np.datetime64("2021-03-01T12:00:00")
        nearer = gain + rng.normal(0, 0.05, days)[day]
        theirs = rng.random(n) < share
        champion, challenger = deployment.champion.sha256, deployment.challenger.sha256
        return pd.DataFrame(
            {
                "asked_at": since + day * 86400.0,
                "ride_id": None,
                "pickup_at": noon + (day * 86400).astype("m8[s]"),
                "PULocationID": 74,
                "DOLocationID": 75,
                "trip_distance": 1.5,
                "received_at": np.arange(n) * 60.0,
                "duration": 10 + error - np.where(theirs, nearer, 0.0),
                "true_duration": 10.0,
                "model_sha256": np.where(theirs, challenger, champion),
                "shadow_model_sha256": np.where(theirs, champion, challenger),
                "shadow_duration": 10 + error - np.where(theirs, 0.0, nearer),
                "latency_ms": 1.0,
                "failed_as": None,
            }
        )

    def restore_bundle(self, model):
        if model.number not in self.gone:
            return False
        self.gone = tuple(n for n in self.gone if n != model.number)
        return True

    def check_bundle(self, model):
        if model.number in self.damaged:
            raise BundleError(f"{model.ref} is damaged")

    def mirror(self):
        if self.outage:
            raise self.outage

    def log(self, line, model):
        self.mirror()
        self.logged.append((line["what"], model and model.number))


@pytest.fixture
def deployed(home):
    deploy_champion(version(1), "the first")
    return home


def whats(lines) -> list[str]:
    return [line["what"] for line in lines]


def serving() -> int:
    return read_deployment().champion.number


# --- looking ---------------------------------------------------------------------------------


def test_nothing_deployed_waits_and_says_how_to_begin(home):
    (line,) = take_turn(FakeWorld())
    assert line["what"] == "wait"
    assert "pipeline.py run" in line["why"]


def test_no_new_month_does_nothing(deployed):
    (line,) = take_turn(FakeWorld(published=(JANUARY, FEBRUARY)))
    assert (line["what"], line["why"]) == ("nothing", "no month after 2021-02 is published")


def test_stage_that_a_wrong_clock_put_into_the_future_begins_now(deployed):
    """Its rides would count, and its bound of days be reached, only when that future has come."""
    world = FakeWorld(feedback_days=0)
    ahead = world.time + 400 * 86400
    under_test = {"champion": version(1), "challenger": version(2)}
    set_challenger(version(2), "test")
    write_state(State("shadow", since=ahead, tested_since=ahead, **under_test))
    assert whats(take_turn(world)) == ["wait"]
    assert (read_state().since, read_state().tested_since) == (world.time, world.time)
    world.time += 61 * 86400
    assert whats(take_turn(world))[0] == "doubt green-duration:2"


@pytest.mark.parametrize("stage", ["shadow", "baking"])
def test_stage_is_no_older_for_a_clock_that_was_behind_for_some_turns(deployed, stage):
    """A machine that asks for the time only after it began: the test would have lasted a year."""
    set_challenger(version(2), "test")
    champion, challenger = version(1), version(2)
    if stage == "baking":
        deploy_champion(champion := version(2), "better", bake=True)
        challenger = version(1)
    world = FakeWorld(feedback_days=0)
    since, tested = world.time - 5, world.time - 9
    under_test = {"champion": champion, "challenger": challenger}
    write_state(State(stage, since=since, tested_since=tested, **under_test))
    right = world.time
    for behind in (400 * 86400, 400 * 86400 - 3600):
        world.time = right - behind
        assert whats(take_turn(world)) == ["wait"]
    world.time = right + 3600
    assert whats(take_turn(world)) == ["wait"]
    assert (read_state().since, read_state().tested_since) == (since, tested)


def test_clock_that_goes_on_from_where_it_was_set_back_to_is_believed(deployed):
    """When the time comes that the stage was noted to begin at, it does not begin once more."""
    set_challenger(version(2), "test")
    world = FakeWorld(feedback_days=0)
    began, ahead = world.time, world.time + 30 * 86400
    under_test = {"champion": version(1), "challenger": version(2)}
    write_state(State("shadow", since=ahead, tested_since=ahead, **under_test))
    for day in (0, 0.9, 1.1, 29, 31):
        world.time = began + day * 86400
        assert whats(take_turn(world)) == ["wait"]
        assert read_state().since == began


def test_stage_that_began_before_keeps_its_time(deployed):
    world = FakeWorld(feedback_days=0)
    since, tested = world.time - 5, world.time - 9
    under_test = {"champion": version(1), "challenger": version(2)}
    set_challenger(version(2), "test")
    write_state(State("shadow", since=since, tested_since=tested, **under_test))
    take_turn(world)
    assert (read_state().since, read_state().tested_since) == (since, tested)


def test_what_is_done_is_explained_by_the_line_that_stands_in_the_trail(deployed):
    """A turn that died after its line said why; the next one, on newer rides, says it otherwise."""
    set_challenger(version(2), "test")
    under_test = {"champion": version(1), "challenger": version(2)}
    write_state(State("shadow", since=1.0, **under_test))
    key = "0:shadow:try green-duration:2"
    record("try green-duration:2", "better after 7 days", key=key)
    take_turn(FakeWorld())
    assert "better after 7 days" in [change.reason for change in read_history()]


def test_source_that_cannot_be_reached_is_waited_for(deployed):
    (line,) = take_turn(FakeWorld(broken=SourceUnreachableError("no route")))
    assert line["what"] == "wait"
    assert "no route" in line["why"]


def test_quiet_month_is_not_worth_a_new_version(deployed):
    lines = take_turn(FakeWorld(month_reasons=()), settings=PATIENT)
    assert whats(lines) == ["not worth it 2021-03", "nothing"]
    assert read_state().looked_at == "2021-03"


@pytest.mark.parametrize(
    ("reasons", "what"),
    [((), "not worth it 2021-03"), ((WRONG,), "retrain on the months before 2021-03")],
)
def test_what_a_months_columns_say_is_told_and_decides_nothing(deployed, reasons, what):
    world, found = FakeWorld(month_reasons=reasons), ["alarm suspect_clock: …", "watch volume: …"]
    say = world.month_health
    world.month_health = lambda *asked: dataclasses.replace(say(*asked), columns=found)
    line = take_turn(world, settings=PATIENT)[0]
    assert line["what"] == what
    assert line["why"].endswith("; its columns say: alarm suspect_clock: … and 1 more")
    assert line["numbers"]["columns"] == found


def test_old_champion_is_challenged_though_nothing_speaks_against_it(deployed):
    world = FakeWorld(month_reasons=(), published=(JANUARY, FEBRUARY, MARCH, APRIL, Month(2021, 5)))
    lines = take_turn(world)
    assert "retrain on the months before 2021-05" in whats(lines)


def test_month_that_is_missing_for_good_is_stepped_over(deployed):
    lines = take_turn(FakeWorld(published=(JANUARY, FEBRUARY, APRIL), feedback_days=0))
    assert whats(lines)[0] == "retrain on the months before 2021-04"


def test_gap_of_any_length_hides_nothing_that_follows(deployed):
    months = (JANUARY, FEBRUARY, Month(2021, 9), Month(2021, 10), Month(2021, 11))
    world = FakeWorld(published=months, feedback_days=0)
    take_turn(world)
    assert world.trained[0][:2] == ("2021-01:2021-02,2021-09:2021-10", "2021-11")


def test_backlog_is_learned_from_and_its_newest_month_judges(deployed):
    world = FakeWorld(published=tuple(JANUARY.shift(i) for i in range(-6, 9)), gate_passes=False)
    take_turn(world)
    assert world.trained == [("2020-09:2021-08", "2021-09", auto_settings().model)]  # a year
    assert read_state().looked_at == "2021-09"
    assert whats(take_turn(world)) == ["nothing"]  # none of the older ones is tried after it


def test_only_months_that_are_over_and_that_nobody_has_seen_are_asked_for(deployed):
    world = FakeWorld(published=())
    take_turn(world)
    assert (max(world.asked), min(world.asked)) == (Month(2021, 11), MARCH)
    assert len(world.asked) == 9


def test_month_without_any_to_learn_from_does_not_judge(deployed):
    far = Month(2021, 3).shift(auto_settings().window_reach_months + 1)
    world = FakeWorld(published=(MARCH, far), feedback_days=0)
    world.time = datetime(2022, 12, 1, tzinfo=UTC).timestamp()
    world.months_of = lambda model: [JANUARY, FEBRUARY]
    assert whats(take_turn(world)) == ["nothing"]
    world.published = (MARCH, far.shift(-1), far)
    take_turn(world)
    assert world.trained[0][:2] == (str(far.shift(-1)), str(far))


@pytest.mark.parametrize("error", [BadMonthError("40 % are bad"), TripFileError("half a file")])
def test_month_that_cannot_be_read_is_given_up_and_not_tried_for_ever(deployed, error):
    world = FakeWorld()
    world.month_health = Mock(side_effect=error)
    assert whats(take_turn(world)) == ["give up on 2021-03", "nothing"]
    assert whats(take_turn(world)) == ["nothing"]


def test_month_that_its_source_takes_back_is_waited_for(deployed):
    world = FakeWorld()
    world.month_health = Mock(side_effect=MonthNotPublishedError("gone again"))
    assert take_turn(world)[0]["what"] == "wait"
    assert read_state().looked_at is None


def anew(month, learned=True):
    return Republished(month, "0" * 64, "1" * 64, learned)


def test_version_whose_training_month_was_published_anew_gets_a_successor(deployed):
    world = FakeWorld(published=(JANUARY, FEBRUARY), republished=(anew(JANUARY),))
    lines = take_turn(world)
    assert whats(lines)[:2] == ["retrain on 2021-01 anew", "made green-duration:2"]
    assert lines[0]["numbers"]["republished"] == {"2021-01": ["0" * 64, "1" * 64]}
    assert world.trained[0][:2] == ("2021-01", "2021-02")
    assert world.opponents == [None]  # the champion knows the month
    assert serving() == 2


def test_months_published_anew_are_judged_by_a_newer_one_where_there_is_one(deployed):
    world = FakeWorld(republished=(anew(FEBRUARY),))
    take_turn(world)
    assert world.trained[0][:2] == ("2021-01:2021-02", "2021-03")
    assert world.opponents == [version(1)]


def test_months_published_anew_are_dealt_with_once(deployed):
    world = FakeWorld(
        published=(JANUARY, FEBRUARY), republished=(anew(JANUARY),), gate_passes=False
    )
    take_turn(world)
    assert whats(take_turn(world)) == ["nothing"]
    world.republished = (anew(JANUARY)._replace(after="2" * 64),)
    assert whats(take_turn(world))[0] == "retrain on 2021-01 anew"


def test_month_that_is_published_as_it_was_before_is_learned_from_again(deployed):
    """Anew, then otherwise, then as the first time: each champion knows other bytes."""
    first = anew(JANUARY)
    world = FakeWorld(published=(JANUARY, FEBRUARY), republished=(first,), gate_passes=False)
    assert whats(take_turn(world))[0] == "retrain on 2021-01 anew"
    other = first._replace(before=first.after, after="2" * 64)
    back = other._replace(before=other.after, after=first.after)
    for found in (other, back):
        world.republished = (found,)
        assert whats(take_turn(world))[0] == "retrain on 2021-01 anew"
        assert whats(take_turn(world)) == ["nothing"]


def test_what_an_older_release_dealt_with_is_not_dealt_with_again(deployed):
    write_state(replace(read_state(), republished=("1" * 64,)))
    world = FakeWorld(published=(JANUARY, FEBRUARY), republished=(anew(JANUARY),))
    assert whats(take_turn(world)) == ["nothing"]


def test_validation_month_published_anew_is_noted_and_makes_no_successor(deployed):
    world = FakeWorld(published=(JANUARY, FEBRUARY), republished=(anew(FEBRUARY, False),))
    assert whats(take_turn(world)) == ["keep 2021-02 anew", "nothing"]
    assert whats(take_turn(world)) == ["nothing"]


# --- making a challenger ---------------------------------------------------------------------


def test_window_moves_to_the_months_before_the_new_one(deployed):
    world = FakeWorld(feedback_days=0)
    take_turn(world)
    assert world.trained == [("2021-01:2021-02", "2021-03", auto_settings().model)]


def test_challenger_refused_by_the_gate_is_never_deployed(deployed):
    lines = take_turn(FakeWorld(gate_passes=False))
    assert whats(lines)[-1] == "refuse green-duration:2"
    assert [line.action for line in read_history()] == ["promote"]


def test_challenger_from_the_sample_does_not_follow_one_from_real_trips(deployed):
    lines = take_turn(FakeWorld(new_source="sample"))
    assert "it learned from sample, the champion from tlc" in [line["why"] for line in lines]


def test_challenger_from_real_trips_may_follow_one_from_the_sample(home):
    """A machine that began without network must not stay with generated trips for ever."""
    deploy_champion(version(1, "sample"), "the first, without network")
    take_turn(FakeWorld())
    assert serving() == 2


def test_training_that_fails_is_tried_again_next_turn_and_then_given_up(deployed):
    world = FakeWorld(broken=PipelineError("disk full"))
    turns = [whats(take_turn(world)) for _ in range(3)]
    assert turns[0][-1] == turns[1][-1] == "wait"
    assert turns[2] == ["give up on 2021-03"]


def test_month_after_one_given_up_begins_a_run_of_its_own(deployed):
    """Neither the run nor the failures of the month before are its own."""
    world = FakeWorld(broken=PipelineError("disk full"), published=(JANUARY, FEBRUARY, MARCH))
    for _ in range(auto_settings().max_attempts):
        take_turn(world)
    given_up = read_state()
    assert (given_up.looked_at, given_up.run_id, given_up.attempts) == ("2021-03", None, 0)
    world.published = (*world.published, APRIL)
    assert whats(take_turn(world))[-1] == "wait"
    assert read_state().attempts == 1


def test_training_goes_on_with_the_run_it_began(deployed):
    world = FakeWorld(broken=PipelineError("power cut"))
    take_turn(world)
    began = read_state().run_id
    world.broken = None
    world.feedback_days = 0
    take_turn(world)
    assert list(read_json(environment.runs_dir() / "versions.json")) == [began]


def test_cost_of_making_a_challenger_stands_beside_its_gain(deployed):
    world = FakeWorld()
    train = world.train

    def train_for_three_minutes(settings, run_id, remember):
        made = train(settings, run_id, remember)
        notebooks = {"01": {"seconds": 60.0}, "02": {"seconds": 120.0}}
        write_json(
            environment.runs_dir() / read_state().run_id / "run.json", {"notebooks": notebooks}
        )
        return made

    world.train = train_for_three_minutes
    lines = {line["what"].split()[0]: line["numbers"] for line in take_turn(world)}
    cost = {what: numbers.get("training_minutes") for what, numbers in lines.items()}
    assert cost["retrain"] is None
    assert {cost[what] for what in ("made", "pass", "refit", "shadow", "trust", "promote")} == {3.0}


def test_alarm_shortens_the_window_to_what_the_new_world_looks_like(deployed):
    world = FakeWorld(feedback_days=0, month_reasons=(WRONG,))
    take_turn(world)
    assert world.trained[0][:2] == ("2021-02", "2021-03")


def test_challenger_that_passed_learns_from_the_month_that_judged_it(deployed):
    world = FakeWorld(feedback_days=0, refit_adds=3)
    lines = take_turn(world)
    assert world.refitted == [(2, [FEBRUARY, MARCH])]
    assert whats(lines)[-3:] == ["refit green-duration:5", "shadow green-duration:5", "wait"]
    assert read_deployment().challenger == version(5)


def test_refit_after_an_alarm_learns_from_the_newest_month_alone(deployed):
    world = FakeWorld(feedback_days=0, month_reasons=(WRONG,))
    take_turn(world)
    assert world.refitted == [(2, [MARCH])]


def test_refit_that_fails_is_tried_again_and_then_given_up(deployed):
    world = FakeWorld(broken_refit=PipelineError("disk full"))
    turns = [whats(take_turn(world))[-1] for _ in range(auto_settings().max_attempts)]
    assert turns == ["wait", "wait", "give up on 2021-03"]
    assert len(world.trained) == 1
    assert read_deployment().challenger is None


def test_refit_is_left_when_somebody_changed_the_champion(deployed):
    write_state(State("refit", month="2021-03", challenger=version(2), champion=version(1)))
    deploy_champion(version(9), "by hand")
    world = FakeWorld()
    assert whats(take_turn(world)) == ["leave green-duration:2"]
    assert world.refitted == []


# --- testing it ------------------------------------------------------------------------------


def test_whole_way_from_a_month_to_a_promotion(deployed):
    assert whats(take_turn(FakeWorld())) == [
        "retrain on the months before 2021-03", "made green-duration:2", "pass green-duration:2",
        "refit green-duration:2", "shadow green-duration:2", "try green-duration:2",
        "A/B-test green-duration:2", "trust green-duration:2", "promote green-duration:2",
        "keep green-duration:2", "baked green-duration:2",
    ]  # fmt: skip
    assert serving() == 2
    assert read_deployment().challenger is None


def test_promotion_after_an_undecided_ab_test_says_what_speaks_for_it(deployed):
    """The shadow found it better; the A/B test only had to find it not worse."""
    world = FakeWorld(split_gain=0.0, feedback_days=15)
    promoted = next(line for line in take_turn(world) if line["what"].startswith("promote"))
    expected = "proven in the shadow, and not worse for riders by 0.2 min (undecided after"
    assert expected in promoted["why"]


def test_champion_that_is_wrong_is_replaced_without_an_ab_test(deployed):
    world = FakeWorld(live_reasons=(WRONG,), rollback_gain=-1.0)
    world.live_health = lambda model: world._health("live log", model, world.live_reasons)
    lines = take_turn(world)
    assert "promote green-duration:2" in whats(lines)
    assert "A/B-test green-duration:2" not in whats(lines)


def test_shadow_answers_wait_for_feedback(deployed):
    lines = take_turn(FakeWorld(feedback_days=0))
    assert lines[-1]["what"] == "wait"
    assert (read_deployment().shadow, read_deployment().ab_share) == (True, 0.0)


def test_few_days_of_feedback_are_waited_on(deployed):
    lines = take_turn(FakeWorld(feedback_days=5))
    assert "4 days and 800 rides" in lines[-1]["why"]


def test_challenger_worse_in_the_shadow_is_dropped(deployed):
    lines = take_turn(FakeWorld(shadow_gain=-0.5))
    assert "drop green-duration:2" in whats(lines)
    assert read_deployment().challenger is None


def test_newer_challenger_that_is_as_good_is_promoted(deployed):
    lines = take_turn(FakeWorld(shadow_gain=0.0, split_gain=0.0, feedback_days=30))
    assert "promote green-duration:2" in whats(lines)
    assert serving() == 2


def test_newer_challenger_that_four_weeks_cannot_tell_apart_is_dropped(deployed):
    narrow = replace(auto_settings(), newer_margin_min=0.0)
    lines = take_turn(FakeWorld(shadow_gain=0.0, feedback_days=30), settings=narrow)
    assert "drop green-duration:2" in whats(lines)
    assert serving() == 1


def test_challenger_worse_for_riders_is_dropped_though_its_shadow_was_better(deployed):
    lines = take_turn(FakeWorld(split_gain=-3.0, feedback_days=20))
    assert "A/B-test green-duration:2" in whats(lines)
    assert "drop green-duration:2" in whats(lines)
    assert serving() == 1


def test_challenger_that_alarms_is_dropped_before_its_week_is_over(deployed):
    world = FakeWorld(arm_reasons=(WRONG,), feedback_days=9)
    lines = take_turn(world)
    assert ("drop green-duration:2", WRONG.text) == (lines[-1]["what"], lines[-1]["why"])


def test_challenger_damaged_on_disk_is_not_promoted(deployed):
    lines = take_turn(FakeWorld(damaged=(2,)))
    assert whats(lines)[-1] == "drop green-duration:2"
    assert serving() == 1


def test_challenger_judged_on_a_month_that_a_new_champion_knows_is_refused(deployed):
    deploy_champion(version(9), "by hand")
    write_state(State("gate", month="2021-03", challenger=version(2), champion=version(1)))
    assert whats(take_turn(FakeWorld())) == ["refuse green-duration:2"]


def test_challenger_without_feedback_is_dropped_after_two_months(deployed):
    world = FakeWorld(feedback_days=0)
    take_turn(world)
    world.time += 61 * 86400
    assert "drop green-duration:2" in whats(take_turn(world))


def test_challenger_set_by_an_operator_is_judged_too(deployed):
    set_challenger(version(7), "by hand", shadow=True)
    lines = take_turn(FakeWorld(published=()))
    assert whats(lines)[0] == "adopt green-duration:7"
    assert serving() == 7


@pytest.mark.parametrize(("split_gain", "serves"), [(0.0, 1), (0.5, 7)])
def test_challenger_of_an_operators_ab_test_is_not_promoted_without_proof(
    deployed, split_gain, serves
):
    """That it is surely no worse is enough only after a shadow test that it passed."""
    set_challenger(version(7), "by hand", ab_share=0.3)
    take_turn(FakeWorld(published=(), split_gain=split_gain, shadow_gain=0.5))
    assert serving() == serves


def test_challenger_of_an_operators_ab_test_is_dropped_when_nothing_speaks_for_it(deployed):
    set_challenger(version(7), "by hand", ab_share=0.2, shadow=True)
    world = FakeWorld(published=(), split_gain=0.0, shadow_gain=0.0)
    take_turn(world)
    world.time += 86400 * (auto_settings().max_test_days + 1)
    assert "drop green-duration:7" in whats(take_turn(world))
    assert serving() == 1


def test_test_that_an_operator_ended_is_left(deployed):
    world = FakeWorld(feedback_days=0)
    take_turn(world)
    drop_challenger("by hand")
    assert whats(take_turn(world)) == ["leave green-duration:2"]


# --- feedback that cannot be -----------------------------------------------------------------

SECONDS = "2,400 of 2,400 true durations cannot be"


class WrongUnit(FakeWorld):
    """Clients send seconds, and the answers look wrong for it."""

    factor = 60.0

    def live_rows(self, since, pair):
        rows = super().live_rows(since, pair)
        return rows.assign(true_duration=10.0 * self.factor) if len(rows) else rows


@pytest.mark.parametrize("ab_share", [0.0, 0.2], ids=["shadow", "A/B"])
@pytest.mark.parametrize("gain", [0.5, -3.0], ids=["better", "worse"])
def test_test_on_truths_that_cannot_be_waits_and_says_what_to_do(deployed, ab_share, gain):
    """Neither promoted nor dropped; with the right durations it goes on."""
    set_challenger(version(7), "by hand", ab_share=ab_share, shadow=True)
    world = WrongUnit(published=(), shadow_gain=gain, split_gain=gain)
    *_, line = take_turn(world)
    assert line["what"] == "wait"
    assert SECONDS in line["why"] and "pipeline.py feedback void --from" in line["why"]
    world.factor = 1.0
    take_turn(world)
    assert serving() == (7 if gain > 0 else 1)


def test_champion_is_neither_rolled_back_nor_retrained_on_truths_that_cannot_be(deployed):
    deploy_champion(version(2), "new")

    class Held(FakeWorld):
        def live_health(self, model):
            return dataclasses.replace(super().live_health(model), hold="seconds; void them")

    held = Held(live_reasons=(WRONG,))
    (line,) = take_turn(held)
    assert (line["what"], line["why"]) == ("wait", "seconds; void them")
    assert (serving(), held.trained) == (2, [])


def test_test_whose_truths_stay_impossible_is_dropped_in_the_end(deployed):
    world = WrongUnit()
    take_turn(world)
    world.time += 61 * 86400
    lines = take_turn(world)
    assert "drop green-duration:2" in whats(lines)
    assert any(SECONDS in line["why"] for line in lines)


# --- going back ------------------------------------------------------------------------------


def test_alarm_on_a_new_champion_rolls_back(deployed):
    deploy_champion(version(2), "new")
    lines = take_turn(FakeWorld(live_reasons=(WRONG,)))
    assert "roll back green-duration:2 to green-duration:1" in whats(lines)
    assert serving() == 1


@pytest.mark.parametrize("gain_min", [-0.2, 0.05, 0.14])
def test_alarm_that_the_earlier_version_would_share_does_not_roll_back(deployed, gain_min):
    """Worse, better by chance (0.05 +- 0.1 min), and better by less than 5 % of 3 minutes."""
    deploy_champion(version(2), "new")
    take_turn(FakeWorld(live_reasons=(WRONG,), rollback_gain=gain_min, published=()))
    assert serving() == 2


def test_champion_damaged_on_disk_rolls_back(deployed):
    deploy_champion(version(2), "new")
    take_turn(FakeWorld(damaged=(2,)))
    assert serving() == 1


def test_champion_whose_bundle_is_gone_is_pulled_once_and_said_so(deployed):
    world = FakeWorld(gone=(1,), published=())
    for _ in range(2):
        take_turn(world)
    pulled = [line for line in read_audit() if line["what"] == "pull green-duration:1"]
    assert len(pulled) == 1
    assert "gone from disk" in pulled[0]["why"]
    assert serving() == 1


def test_champion_that_cannot_be_pulled_again_is_rolled_back_from(deployed):
    deploy_champion(version(2), "new")
    world = FakeWorld(published=())
    world.restore_bundle = Mock(side_effect=BundleError("green-duration:2 is gone"))
    lines = take_turn(world)
    assert lines[0]["what"] == "distrust green-duration:2"
    assert lines[0]["why"] == "green-duration:2 is gone"
    assert serving() == 1


def test_champion_damaged_with_nothing_before_it_is_an_error(deployed):
    with pytest.raises(BundleError, match=r"green-duration:\d is .*doctor` says what mends it"):
        take_turn(FakeWorld(damaged=(1,)))


def test_drift_alone_does_not_roll_back(deployed):
    deploy_champion(version(2), "new")
    drift = Reason("drift", "alarm", "trips are longer")
    take_turn(FakeWorld(live_reasons=(drift,), published=()))
    assert serving() == 2


def test_alarm_during_a_test_ends_the_test_too(deployed):
    deploy_champion(version(2), "new")
    set_challenger(version(3), "by hand", shadow=True)
    take_turn(FakeWorld(live_reasons=(WRONG,), published=()))
    assert serving() == 1
    assert read_deployment().challenger is None


def test_rollback_cut_after_its_act_goes_back_one_version_only(deployed):
    """Deployment already went back, the state does not know: version 0 must not come back."""
    deploy_champion(version(2), "new")
    deploy_champion(version(3), "newer")
    state = State(
        stage="roll_back", serial=5, champion=version(3), challenger=version(2), why="bad"
    )
    write_state(state)
    take_turn(FakeWorld(published=()))
    write_state(state)
    take_turn(FakeWorld(published=()))
    assert serving() == 2


# --- without MLflow --------------------------------------------------------------------------


def test_mlflow_that_is_gone_does_not_hold_up_a_rollback(deployed):
    deploy_champion(version(2), "new")
    said = []
    world = FakeWorld(live_reasons=(WRONG,), outage=TrackingError("no connection"))
    take_turn(world, say=said.append)
    assert serving() == 1
    assert "MLflow gets this with a later turn: no connection" in said


def test_mlflow_that_is_back_gets_everything_once(deployed):
    world = FakeWorld(outage=TrackingError("no connection"))
    decided = whats(take_turn(world))
    assert serving() == 2
    assert world.logged == []
    world.outage = None
    for _ in range(2):
        take_turn(world)
    assert [what for what, _ in world.logged] == decided
    assert ("promote green-duration:2", 2) in world.logged


@pytest.mark.parametrize("stage", ["train", "gate", "refit"])
def test_step_that_needs_mlflow_waits_for_it_and_does_not_give_up(deployed, stage):
    write_state(State(stage, month="2021-03", challenger=version(2), champion=version(1)))
    world = FakeWorld()
    setattr(world, stage, Mock(side_effect=TrackingError("no connection")))
    for _ in range(auto_settings().max_attempts + 1):
        (line,) = take_turn(world)
        assert (line["what"], line["why"]) == ("wait", "MLflow is needed: no connection")
    assert read_state().stage == stage


# --- turns -----------------------------------------------------------------------------------


def test_every_step_is_heard_once_it_is_written_down(deployed):
    heard = []
    lines = take_turn(FakeWorld(), on_step=lambda step: heard.append((step.what, read_audit()[-1])))
    assert [what for what, _ in heard] == whats(lines)
    assert [line for _, line in heard] == lines


@pytest.mark.parametrize(
    ("fields", "is_problem"),
    [
        ({"broken": SourceUnreachableError("no route")}, True),
        ({"broken": PipelineError("disk full")}, True),
        ({"broken": TrackingError("no connection")}, True),
        ({"feedback_days": 0}, False),
        ({"published": ()}, False),
    ],
)
def test_step_that_cannot_go_on_is_a_problem_and_one_that_waits_is_none(
    deployed, fields, is_problem
):
    heard = []
    take_turn(FakeWorld(**fields), on_step=heard.append)
    assert [step.is_problem for step in heard] == [False] * (len(heard) - 1) + [is_problem]


def test_nothing_deployed_is_a_problem(home):
    heard = []
    take_turn(FakeWorld(), on_step=heard.append)
    assert [step.is_problem for step in heard] == [True]


def test_second_turn_at_the_same_time_is_refused(deployed):
    with FileLock(deployed / "deployment" / LOCK_FILE), pytest.raises(BusyError):
        take_turn(FakeWorld())


def test_turn_after_everything_is_done_changes_nothing(deployed):
    world = FakeWorld()
    take_turn(world)
    before = (read_deployment(), read_state())
    take_turn(world)
    assert (read_deployment(), read_state()) == before


def test_every_setting_carries_its_reason():
    content = json.loads((files("taxi_duration.loop") / "auto_settings.json").read_text())
    assert all(len(entry["why"]) > 20 for entry in content.values())


# --- death -----------------------------------------------------------------------------------


def fork_turn(prepare) -> int:
    """Take a turn in a child process; return its id."""
    child = os.fork()
    if child == 0:
        try:
            prepare()
            take_turn(FakeWorld())
        finally:
            os._exit(0)
    return child


def die_at_write(number: int) -> None:
    """Kill this process with -9 at its n-th change of the file system."""
    seen = Counter()

    def count(event, args):
        writes = event == "open" and isinstance(args[1], str) and args[1][:1] in "wax"
        if writes or event in ("os.rename", "os.remove", "tempfile.mkstemp", "os.mkdir"):
            seen["writes"] += 1
            if seen["writes"] == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)


def new_home(tmp_path, monkeypatch, name) -> None:
    monkeypatch.setenv("TAXI_HOME", str(tmp_path / name))
    deploy_champion(version(1), "the first")


def assert_finished() -> None:
    """The next turn ended where an undisturbed one ends, with one line for each decision."""
    take_turn(FakeWorld())
    assert read_state().stage == "idle"
    champion, history = read_deployment().champion, [line.action for line in read_history()]
    assert champion.number == serving() > 1
    assert read_deployment().challenger is None
    # A change is written to the history before it is made: a death between leaves two lines.
    assert (history[0], history[-1]) == ("promote", "drop")
    decisions = Counter(line["key"] for line in read_audit() if line["key"])
    assert set(decisions.values()) == {1}
    promoted = [w for w in whats(read_audit()) if w.startswith("promote")]
    assert promoted == [f"promote {champion.ref}"]


@pytest.mark.slow
@pytest.mark.parametrize(("step", "least"), [(9, 7), pytest.param(2, 30, marks=pytest.mark.long)])
def test_death_at_a_write_is_finished_by_the_next_turn(tmp_path, monkeypatch, step, least):
    deaths = 0
    for number in range(1, 200, step):
        new_home(tmp_path, monkeypatch, f"write-{number}")
        _, status = os.waitpid(fork_turn(lambda n=number: die_at_write(n)), 0)
        assert_finished()
        if not os.WIFSIGNALED(status):
            break  # the turn has fewer writes than that
        deaths += 1
    assert deaths >= least
    assert not os.WIFSIGNALED(status)


@pytest.mark.slow
@pytest.mark.parametrize("wanted", [5, pytest.param(30, marks=pytest.mark.long)])
def test_death_at_random_moments_is_finished_by_the_next_turn(tmp_path, monkeypatch, wanted):
    rng = np.random.default_rng(0)
    new_home(tmp_path, monkeypatch, "undisturbed")
    started = time.perf_counter()
    os.waitpid(fork_turn(lambda: None), 0)
    seconds = time.perf_counter() - started
    deaths = tries = 0
    while deaths < wanted and tries < 200:  # some are over before they can be killed
        new_home(tmp_path, monkeypatch, f"random-{tries}")
        child = fork_turn(lambda: None)
        time.sleep(rng.uniform(0, seconds))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        deaths += os.WIFSIGNALED(status)
        tries += 1
        assert_finished()
    assert deaths == wanted


@pytest.mark.slow
def test_turns_that_all_die_get_there_in_the_end(tmp_path, monkeypatch):
    """Each turn is killed at its 20th write: the story moves on from death to death."""
    new_home(tmp_path, monkeypatch, "again")
    deaths = 0
    while read_deployment().champion == version(1) and deaths < 60:
        _, status = os.waitpid(fork_turn(lambda: die_at_write(20)), 0)
        deaths += os.WIFSIGNALED(status)
    assert 3 <= deaths < 60
    assert_finished()


@pytest.mark.parametrize("step", ["broken", "broken_refit"])
def test_run_that_a_person_goes_on_with_is_waited_for_and_not_given_up(deployed, step):
    world = FakeWorld(**{step: AtWorkError("run 7 is being executed by another process")})
    for _ in range(auto_settings().max_attempts + 1):
        (*_, line) = take_turn(world)
        assert (line["what"], read_state().attempts) == ("wait", 0)
        assert "run 7 is being executed" in line["why"]
    world.broken = world.broken_refit = None
    take_turn(world)
    assert serving() == 2
