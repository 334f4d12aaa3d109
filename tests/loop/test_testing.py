"""A challenger's test and a champion's baking: which rides judge, and what ends each stage."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from msgspec.structs import replace

from taxi_duration.domain.findings import Reason
from taxi_duration.domain.months import Month
from taxi_duration.domain.version import Version
from taxi_duration.errors import BundleError
from taxi_duration.evaluation.bootstrap import Estimate
from taxi_duration.evaluation.health import Health
from taxi_duration.live.audit import read_audit
from taxi_duration.live.deployment import (
    deploy_champion,
    drop_challenger,
    read_deployment,
    read_history,
    roll_back,
    set_challenger,
)
from taxi_duration.loop import turn
from taxi_duration.loop import world as loop_world
from taxi_duration.loop.settings import auto_settings
from taxi_duration.loop.state import State, read_state, write_state
from taxi_duration.loop.turn import next_step, take_turn

CHAMPION, CHALLENGER, OTHER = (Version("green-duration", n, str(n) * 64, "tlc") for n in (1, 2, 3))
SETTINGS = auto_settings()
SINCE, DAY = 1_000_000.0, 86_400.0
WRONG = Reason("error", "alarm", "MAE is twice the validation's")


def rides(
    days=10, a_day=200, gain=0.3, share=0.0, seed=0, champion=CHAMPION, challenger=CHALLENGER
):
    """Rides that both versions answered; the challenger is nearer by `gain` minutes on average.

    It answers a share of the riders. No two rides have the same numbers.
    """
    rng, n = np.random.default_rng(seed), days * a_day
    day = np.repeat(np.arange(days), a_day)
    true = rng.uniform(6, 14, n)
    ours_off = 1 + rng.gamma(2, 1.5, n) + max(gain, 0)
    theirs_off = ours_off - gain - rng.normal(0, 0.03, days)[day]
    theirs = rng.random(n) < share
    ours = ~theirs
    return pd.DataFrame(
        {
            "asked_at": SINCE + day * DAY + rng.uniform(0, DAY, n),
            "ride_id": [f"{seed}-{i}" for i in range(n)],
            "PULocationID": 74,
            "DOLocationID": 42,
            "trip_distance": 3.0,
            "pickup_at": np.datetime64("2021-03-01T12:00:00") + (day * 86_400).astype("m8[s]"),
            "duration": true + np.where(ours, ours_off, -theirs_off),
            "true_duration": true,
            "model_sha256": np.where(ours, champion.sha256, challenger.sha256),
            "shadow_model_sha256": np.where(ours, challenger.sha256, champion.sha256),
            "shadow_duration": true + np.where(ours, -theirs_off, ours_off),
            "latency_ms": rng.uniform(0.1, 0.3, n),
            "failed_as": None,
        }
    )


class World(loop_world.World):
    """A world with the rides that a test puts into it; what it is not asked for is nothing."""

    def __init__(self, rows=None, live=(), arm=(), days=10.0, back_gain=-1.0) -> None:
        self.rows = pd.DataFrame() if rows is None else rows
        self.live, self.arm, self.days, self.back_gain = live, arm, days, back_gain
        self.asked: list = []
        self.damaged: tuple[Version, ...] = ()

    def now(self):
        return SINCE + self.days * DAY

    def live_rows(self, since, pair):
        self.asked.append((since, pair))
        return self.rows

    def _health(self, version, reasons):
        table = pd.DataFrame([{"by": "overall", "group": "all", "rows": 500, "mae": 3.0}])
        return Health("live log", version.ref, 500, 500, table, [], list(reasons))

    def live_health(self, version):
        return self._health(version, self.live)

    def arm_health(self, version):
        return self._health(version, self.arm)

    def compare_live(self, version, earlier):
        return Estimate(self.back_gain, self.back_gain - 0.1, self.back_gain + 0.1), 500

    def months_of(self, version):
        return [Month(2021, 1), Month(2021, 2)]

    def find_published(self, version, months):
        return iter(())

    def fetch_republished(self, version, months):
        return []

    def check_bundle(self, version):
        if version in self.damaged:
            raise BundleError(f"{version.ref} is damaged")


@pytest.fixture(autouse=True)
def _own_home(home):
    """Every test deploys in a home of its own."""


def begin(stage, share=0.0, **changes) -> State:
    """Deploy a test that is at a stage, and return its state."""
    deploy_champion(CHAMPION, "first")
    set_challenger(CHALLENGER, "test", ab_share=share)
    state = State(stage, 5, SINCE, challenger=CHALLENGER, champion=CHAMPION, month="2021-03",
                  ab_share=share)  # fmt: skip
    return replace(state, **changes)


def look(state, world):
    return next_step(world, SETTINGS, state)


# --- which rides judge -----------------------------------------------------------------------


def stray(change):
    """Rides of 10 days on which the challenger is 20 minutes farther off, changed."""
    rows = rides(gain=-20.0, seed=1)
    return rows.assign(**change)


STRAYS = {
    "of another version": {"model_sha256": OTHER.sha256},
    "of another version with the champion's shadow": {
        "model_sha256": OTHER.sha256, "shadow_model_sha256": CHAMPION.sha256,
    },
    "with another version's shadow": {"shadow_model_sha256": OTHER.sha256},
    "of the challenger with another version's shadow": {
        "model_sha256": CHALLENGER.sha256, "shadow_model_sha256": OTHER.sha256,
    },
    "without a shadow": {"shadow_model_sha256": None, "shadow_duration": np.nan},
    "without a truth": {"true_duration": np.nan},
}  # fmt: skip


@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.parametrize("name", STRAYS)
def test_only_rides_of_the_test_that_both_answered_and_whose_truth_is_known_judge(name, share):
    state = begin("ab" if share else "shadow", share)
    own = rides(share=share)
    expected = look(state, World(own)).numbers["test"]
    found = look(state, World(pd.concat([own, stray(STRAYS[name])]))).numbers["test"]
    assert found == expected
    assert expected["verdict"] == "better"
    with_all = look(state, World(pd.concat([own, stray({})]))).numbers["test"]
    assert with_all["gain_min"] < 0


def test_rides_that_took_longer_than_is_scored_judge_nothing():
    own = rides()
    long = np.arange(len(own)) % 20 == 3
    expected = look(begin("shadow"), World(own[~long])).numbers["test"]
    rows = own.assign(true_duration=own["true_duration"].where(~long, 70.0))
    assert look(begin("shadow"), World(rows)).numbers["test"] == expected


@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("gain", [0.4, -0.4])
def test_planted_gain_is_found_again_whoever_answered_the_riders(share, gain):
    """The last day is left out: it may not be over."""
    test = look(begin("ab", share), World(rides(share=share, gain=gain))).numbers["test"]
    assert test["gain_min"] == pytest.approx(gain, abs=0.05)
    assert (test["verdict"], test["trips"]) == ("better" if gain > 0 else "worse", 1800)


def test_rides_are_asked_for_from_the_stages_begin_and_for_its_two_versions():
    world = World(rides())
    look(begin("shadow"), world)
    assert world.asked == [(SINCE, (CHAMPION, CHALLENGER))]


# --- the shadow ------------------------------------------------------------------------------


def test_better_challenger_goes_on_to_the_riders():
    step = look(begin("shadow"), World(rides()))
    assert (step.state.stage, step.state.proven) == ("start_ab", True)


@pytest.mark.parametrize(
    ("rows", "stage"),
    [
        (rides(gain=-0.3), "drop"),
        (rides(gain=0.0, days=29), "drop"),
        (rides(gain=0.0, days=20), None),
        (rides(days=6), None),
        (pd.DataFrame(), None),
    ],
)
def test_operators_challenger_that_is_not_better_stays_out(rows, stage):
    step = look(replace(begin("shadow"), month=None), World(rows))
    assert (step.state and step.state.stage) == stage


@pytest.mark.parametrize(
    ("rows", "stage"),
    [
        (rides(gain=-0.3), "drop"),
        (rides(gain=0.0, days=20), "start_ab"),
        (rides(gain=0.0, days=6), None),
        (rides(days=6), None),
        (pd.DataFrame(), None),
    ],
)
def test_newer_challenger_that_is_surely_no_worse_goes_on(rows, stage):
    step = look(begin("shadow"), World(rows))
    assert (step.state and step.state.stage) == stage


def test_newer_challenger_whose_interval_reaches_beyond_the_margin_stays_out():
    state, world = begin("shadow"), World(rides(gain=0.0, days=20))
    low = look(state, world).numbers["test"]["low_min"]
    assert -0.2 < low < 0
    for margin, stage in ((-low + 0.001, "start_ab"), (-low - 0.001, None)):
        step = next_step(world, replace(SETTINGS, newer_margin_min=margin), state)
        assert (step.state and step.state.stage) == stage


@pytest.mark.parametrize(("with_riders", "stage"), [(3, None), (4, "promote")])
def test_ab_test_counts_the_pairs_of_the_shadow_too_and_the_days_of_its_own(with_riders, stage):
    """Evidence goes on from the shadow; days with riders are counted all the same."""
    began = SINCE + (23 - with_riders) * DAY  # the last day is not over
    state = replace(begin("ab", 0.2, proven=True), since=began, tested_since=SINCE)
    world = World(rides(gain=0.0, days=23, share=0.2), days=23.0)
    step = look(state, world)
    assert world.asked[0][0] == SINCE
    assert step.numbers["test"]["blocks"] == 22
    assert (step.state and step.state.stage) == stage


def test_serving_is_looked_at_since_riders_meet_the_challenger():
    """Failures in the shadow, before a service was mended, are not held against it for ever."""
    rows = rides(gain=0.0, days=23, share=0.2)
    shadowed = rows["asked_at"] < SINCE + 10 * DAY
    failed = shadowed & (np.arange(len(rows)) % 20 == 0)
    rows = rows.assign(failed_as=np.where(failed, "shadow", None))
    state = replace(begin("ab", 0.2, proven=True), since=SINCE + 10 * DAY, tested_since=SINCE)
    assert look(state, World(rows, days=23.0)).state.stage == "promote"


def thinned(share_answered, rows):
    """The challenger answered only a share of the champion's rides."""
    silent = np.random.default_rng(3).random(len(rows)) >= share_answered
    silent &= rows["model_sha256"] == CHAMPION.sha256
    return rows.assign(
        shadow_model_sha256=rows["shadow_model_sha256"].where(~silent, None),
        shadow_duration=rows["shadow_duration"].where(~silent),
    )


def failing(share, rows, how="shadow"):
    """The challenger failed at a share of the rides; the champion answered them."""
    failed = np.random.default_rng(4).random(len(rows)) < share
    return rows.assign(
        model_sha256=rows["model_sha256"].where(~failed, CHAMPION.sha256),
        shadow_model_sha256=rows["shadow_model_sha256"].where(~failed, None),
        shadow_duration=rows["shadow_duration"].where(~failed),
        failed_as=np.where(failed, how, None),
    )


@pytest.mark.parametrize("stage", ["shadow", "ab"])
def test_challenger_that_answers_few_rides_is_dropped_however_near_it_is(stage):
    state = begin(stage, 0.2 if stage == "ab" else 0.0, proven=True)
    step = look(state, World(thinned(0.05, rides(a_day=2000, share=state.ab_share))))
    assert step.state.stage == "drop"
    assert step.why.startswith("both answered ")
    assert step.why.endswith("needed are 95%")
    assert step.numbers["serving"]["answers"] == {"passed": False, "text": step.why}


def test_challenger_that_answers_too_few_by_chance_is_waited_for():
    step = look(begin("shadow"), World(thinned(0.945, rides())))
    assert step.state is None
    assert "better after 9 days" in step.why
    assert "needed are 95%" in step.why


@pytest.mark.parametrize("stage", ["shadow", "ab"])
def test_challenger_that_fails_is_dropped_for_its_failures(stage):
    state = begin(stage, 0.2 if stage == "ab" else 0.0, proven=True)
    step = look(state, World(failing(0.04, rides(share=state.ab_share))))
    assert step.state.stage == "drop"
    assert step.why.startswith("it failed at ")


def test_champion_that_fails_in_the_shadow_is_not_the_challengers_failure():
    rows = rides(share=0.2)
    failed = (rows["model_sha256"] == CHALLENGER.sha256) & (np.arange(len(rows)) % 8 == 0)
    rows = rows.assign(
        shadow_model_sha256=rows["shadow_model_sha256"].where(~failed, None),
        failed_as=np.where(failed, "shadow", None),
    )
    numbers = look(begin("ab", 0.2), World(rows)).numbers["serving"]
    assert numbers["failures"]["text"].startswith("it failed at 0 of ")


def test_service_that_never_takes_the_test_up_ends_it_after_a_day():
    """Its bundle is refused there, say: nothing is answered, and nothing fails."""
    silent = rides(days=2).assign(shadow_model_sha256=None, shadow_duration=np.nan)
    state = begin("shadow")
    assert look(state, World(silent, days=0.5)).state is None
    step = look(state, World(silent, days=1.5))
    assert (step.state.stage, step.why) == ("drop", "no service answers with green-duration:2")
    few = silent.head(SETTINGS.min_check_rides - 1)
    assert look(state, World(few, days=1.5)).state is None


def test_rides_before_the_services_took_the_test_up_say_nothing():
    """Half of the rides come before the first shadow answer, some in the seconds after."""
    rows = rides(days=10)
    started = SINCE + 5 * DAY
    early = rows["asked_at"] < started
    first = rows.index[~early][0]
    soon = (~early) & (np.arange(len(rows)) % 4 == 0)
    rows.loc[soon, "asked_at"] = started + 4.0
    rows.loc[first, "asked_at"] = started
    silent = (early | soon) & (rows.index != first)
    rows.loc[silent, ["shadow_model_sha256", "shadow_duration"]] = [None, np.nan]
    found = look(begin("shadow"), World(rows)).numbers["serving"]["answers"]
    assert (found["passed"], found["text"][:13]) == (True, "both answered")


def test_errors_are_not_believed_before_the_serving_was_seen():
    few = rides(a_day=9, days=9)
    assert len(few) < SETTINGS.min_check_rides
    settings = replace(SETTINGS, min_block_trips=1)
    step = next_step(World(few), settings, begin("shadow"))
    assert step.numbers["test"]["verdict"] == "better"
    assert step.state is None
    assert "of 100 rides to see how it serves" in step.why


# --- the A/B test ----------------------------------------------------------------------------


def test_challenger_that_is_better_for_riders_is_promoted():
    step = look(begin("ab", 0.2), World(rides(share=0.2)))
    assert step.state.stage == "promote"


UNSURE = {"gain": 0.0, "share": 0.2}


@pytest.mark.parametrize(
    ("proven", "rows", "stage"),
    [
        (True, rides(**UNSURE), "promote"),
        (False, rides(**UNSURE), None),  # riders who do not object are no proof
        (True, rides(**UNSURE, days=3), None),  # two days are over
        (True, rides(gain=-0.2, share=0.2), "drop"),
        (False, rides(**UNSURE, days=29), "drop"),
    ],
)
def test_challenger_that_is_no_worse_for_riders_needs_the_shadows_proof(proven, rows, stage):
    step = look(begin("ab", 0.2, proven=proven), World(rows))
    assert (step.state and step.state.stage) == stage


def test_interval_that_reaches_beyond_the_margin_promotes_nothing():
    state, world = begin("ab", 0.2, proven=True), World(rides(**UNSURE))
    low = look(state, world).numbers["test"]["low_min"]
    assert -0.1 < low < 0
    for margin, stage in ((-low + 0.001, "promote"), (-low - 0.001, None)):
        step = next_step(world, replace(SETTINGS, newer_margin_min=margin), state)
        assert (step.state and step.state.stage) == stage


def test_undecided_at_the_end_is_a_drop_though_the_shadow_was_better():
    """Days so unlike each other that four weeks show nothing."""
    rows = rides(days=29, share=0.2, gain=0.0)
    day = (rows["pickup_at"].to_numpy().astype("M8[D]") - np.datetime64("2021-03-01")).astype(int)
    theirs = rows["model_sha256"] == CHALLENGER.sha256
    shift = np.random.default_rng(5).normal(0, 1.5, 29)[day]
    rows = rows.assign(
        duration=rows["duration"] + np.where(theirs, 0, shift),
        shadow_duration=rows["shadow_duration"] + np.where(theirs, shift, 0),
    )
    step = look(begin("ab", 0.2, proven=True), World(rows))
    assert step.state.stage == "drop"
    assert step.why.startswith("undecided after 28 days")


@pytest.mark.parametrize(("share", "serves"), [(0.2, "promote"), (0.01, "drop"), (0.35, "drop")])
def test_split_that_is_not_the_planned_one_ends_the_test(share, serves):
    step = look(begin("ab", 0.2), World(rides(share=share, a_day=400)))
    assert step.state.stage == serves
    assert (serves == "drop") == ("met the challenger, planned are 20%" in step.why)


def test_ride_that_is_asked_again_counts_once_in_the_split():
    rows = rides(share=0.2)
    again = rows[rows["model_sha256"] == CHALLENGER.sha256].head(30)
    rows = pd.concat([rows, *[again] * 20], ignore_index=True)
    assert look(begin("ab", 0.2), World(rows)).numbers["serving"]["split"]["passed"] is True


def test_rides_without_an_id_are_each_their_own_in_the_split():
    rows = rides(share=0.2).assign(ride_id=None)
    found = look(begin("ab", 0.2), World(rows)).numbers["serving"]["split"]
    assert found["passed"] is True
    assert "of 2,000" in found["text"] or "of 1,99" in found["text"]


def test_rides_at_which_the_challenger_failed_were_given_to_it():
    """Half of its rides: of these the champion's arm would have 90 %, where 80 % are planned."""
    rows = rides(share=0.2)
    failed = (rows["model_sha256"] == CHALLENGER.sha256) & (np.arange(len(rows)) % 2 == 0)
    rows = rows.assign(
        model_sha256=rows["model_sha256"].where(~failed, CHAMPION.sha256),
        shadow_model_sha256=rows["shadow_model_sha256"].where(~failed, None),
        failed_as=np.where(failed, "challenger", None),
    )
    step = look(begin("ab", 0.2), World(rows))
    assert step.numbers["serving"]["split"]["passed"] is True
    assert step.why.startswith("it failed at ")


def test_slow_challenger_is_dropped_for_its_latency():
    rows = rides(share=0.2)
    theirs = rows["model_sha256"] == CHALLENGER.sha256
    step = look(begin("ab", 0.2), World(rows.assign(latency_ms=np.where(theirs, 20.0, 0.2))))
    assert step.state.stage == "drop"
    assert step.why == ("it takes median 20.00 ms (allowed 5.00), P95 20.00 ms (allowed 5.00)")


def test_latency_needs_rides_of_both_arms():
    """Rides that were logged without their time, and few of the challenger."""
    rows = rides(share=0.2)
    theirs = np.flatnonzero(rows["model_sha256"] == CHALLENGER.sha256)
    rows.loc[theirs[99:], "latency_ms"] = None
    step = look(begin("ab", 0.2), World(rows))
    assert step.state is None
    assert "of 100 rides of each arm to see how long it takes" in step.why


def test_alarm_on_the_challengers_arm_ends_the_test():
    step = look(begin("ab", 0.2), World(rides(share=0.2), arm=(WRONG,)))
    assert (step.state.stage, step.why) == ("drop", WRONG.text)


def test_alarm_that_both_arms_share_does_not_end_the_test():
    step = look(begin("ab", 0.2), World(rides(share=0.2), arm=(WRONG,), live=(WRONG,)))
    assert step.state.stage == "promote"


# --- what others change ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stage", "share", "shadow", "begins"),
    [
        ("shadow", 0.5, True, "start_ab"),
        ("ab", 0.5, True, "start_ab"),
        ("ab", 0.0, True, "start_shadow"),
        ("shadow", 0.0, False, "start_shadow"),
        ("ab", 0.2, False, "start_ab"),
    ],
)
def test_stage_begins_anew_when_share_or_shadow_was_changed(stage, share, shadow, begins):
    state = begin(stage, 0.2 if stage == "ab" else 0.0)
    set_challenger(CHALLENGER, "by hand", ab_share=share, shadow=shadow)
    world = World()
    assert look(state, world).state.stage == begins
    write_state(state)
    take_turn(world)
    deployment = read_deployment()
    assert (deployment.ab_share, deployment.shadow) == (share, True)
    now = read_state()
    assert (now.stage, now.ab_share) == ("ab" if share else "shadow", share)
    assert now.since == world.now()


def test_ab_test_that_an_earlier_release_began_begins_anew():
    """Its challenger's rides have no answer of the champion beside them."""
    state = begin("ab", 0.2, ab_share=0.0, proven=True)
    silent = rides(share=0.2)
    theirs = silent["model_sha256"] == CHALLENGER.sha256
    silent.loc[theirs, "shadow_model_sha256"] = None
    step = look(state, World(silent))
    assert (step.state.stage, step.state.proven) == ("start_ab", True)


@pytest.mark.parametrize("stage", ["start_shadow", "shadow", "start_ab", "ab"])
def test_test_whose_champion_was_replaced_is_left(stage):
    state = begin(stage, 0.2 if stage == "ab" else 0.0)
    deploy_champion(OTHER, "by hand")
    step = look(state, World(rides()))
    assert (step.what, step.state.stage) == ("leave green-duration:2", "idle")
    assert read_deployment().challenger is None


@pytest.mark.parametrize("stage", ["shadow", "ab"])
def test_test_whose_challenger_was_replaced_is_left(stage):
    state = begin(stage, 0.2 if stage == "ab" else 0.0)
    set_challenger(OTHER, "by hand", ab_share=state.ab_share)
    assert look(state, World(rides())).what == "leave green-duration:2"


# --- promoting -------------------------------------------------------------------------------


def test_promotion_keeps_the_champion_before_in_the_shadow():
    step = look(begin("promote", 0.2, why="better", serial=7), World())
    deployment = read_deployment()
    assert (deployment.champion, deployment.challenger) == (CHALLENGER, CHAMPION)
    assert deployment.is_baking
    assert step.state == State("baking", 7, World().now(), challenger=CHAMPION,
                               champion=CHALLENGER, looked_at="2021-03")  # fmt: skip


def test_promotion_overtaken_by_somebody_else_promotes_nothing():
    state = begin("promote", 0.2)
    deploy_champion(OTHER, "by hand")
    step = look(state, World())
    assert (step.what, step.state.stage) == ("leave green-duration:2", "idle")
    assert read_deployment().champion == OTHER
    assert [line.action for line in read_history()] == ["promote", "challenge", "promote"]


@pytest.mark.parametrize(
    "stage", ["start_shadow", "start_ab", "promote", "drop", "roll_back", "end_baking"]
)
def test_an_act_leaves_alone_what_somebody_has_deployed_since_it_was_decided(stage, monkeypatch):
    state = begin(stage, why="decided")
    if stage in ("roll_back", "end_baking"):
        deploy_champion(CHALLENGER, "better", bake=True)
        state = replace(state, champion=CHALLENGER, challenger=CHAMPION)

    def read_before_the_operator_acts():
        found = read_deployment()
        deploy_champion(OTHER, "by hand")
        return found

    monkeypatch.setattr(turn, "read_deployment", read_before_the_operator_acts)
    step = look(state, World())
    assert (step.what, step.state) == ("wait", None)
    assert "changed by somebody else" in step.why
    assert (read_deployment().champion, read_deployment().challenger) == (OTHER, None)
    assert read_history()[-1].reason == "by hand"


@pytest.mark.parametrize("stage", ["start_ab", "promote"])
def test_test_that_a_person_ended_while_a_turn_decided_is_not_taken_up_again(stage):
    """`drop` and `rollback` do not wait for a turn at work: it decides on what it has read."""
    state = begin(stage, why="decided")
    drop_challenger("by hand")
    step = look(state, World())
    assert (step.what, step.state.stage) == (f"leave {CHALLENGER.ref}", "idle")
    assert (read_deployment().champion, read_deployment().challenger) == (CHAMPION, None)


def test_promotion_cut_after_its_act_is_done_once():
    state = begin("promote", 0.2, why="better")
    look(state, World())
    before = read_deployment()
    step = look(state, World())
    assert read_deployment() == before
    assert step.state.stage == "baking"
    assert len(read_history()) == 3


def test_promotion_of_a_damaged_version_is_a_drop():
    world = World()
    world.damaged = (CHALLENGER,)
    assert look(begin("promote", 0.2), world).state.stage == "drop"
    assert read_deployment().champion == CHAMPION


def test_drop_cut_after_its_act_leaves_the_challenger_of_somebody_else_alone():
    state = begin("drop", why="worse")
    drop_challenger("by the turn that was cut")
    set_challenger(OTHER, "by hand")
    assert look(state, World()).state.stage == "idle"
    assert read_deployment().challenger == OTHER


def test_same_decision_on_another_day_is_a_line_of_its_own():
    """Its key carries the state's number, which grows with every change of state."""
    for _ in range(2):
        write_state(replace(begin("shadow"), serial=read_state().serial))
        drop_challenger("by hand")
        take_turn(World())
    left = [line for line in read_audit() if line["what"] == "leave green-duration:2"]
    assert [line["key"] for line in left] == [
        "0:shadow:leave green-duration:2", "1:shadow:leave green-duration:2",
    ]  # fmt: skip
    assert read_state().serial == 2


# --- baking ----------------------------------------------------------------------------------


def baking(**changes) -> State:
    """The challenger has won and bakes beside the champion before."""
    deploy_champion(CHAMPION, "first")
    deploy_champion(CHALLENGER, "won", bake=True)
    state = State("baking", 9, SINCE, challenger=CHAMPION, champion=CHALLENGER, looked_at="2021-03")
    return replace(state, **changes)


def baked_rides(**how):
    return rides(champion=CHALLENGER, challenger=CHAMPION, **how)


def whats(lines):
    return [line["what"] for line in lines]


def test_champion_before_takes_over_again_when_it_is_nearer_on_the_same_rides():
    write_state(baking())
    assert whats(take_turn(World(baked_rides(gain=0.5)))) == [
        "distrust green-duration:2", "roll back green-duration:2 to green-duration:1",
    ]  # fmt: skip
    deployment = read_deployment()
    assert (deployment.champion, deployment.challenger, deployment.earlier) == (CHAMPION, None, ())
    assert (read_state().stage, read_state().looked_at) == ("idle", "2021-03")


def test_spoiled_champion_need_not_serve_a_whole_week():
    assert look(baking(), World(baked_rides(gain=2.0, days=6))).state.stage == "roll_back"


def test_champion_that_is_the_nearer_one_is_baked_at_once():
    write_state(baking())
    assert whats(take_turn(World(baked_rides(gain=-0.5)))) == [
        "keep green-duration:2", "baked green-duration:2",
    ]  # fmt: skip
    deployment = read_deployment()
    assert (deployment.champion, deployment.challenger) == (CHALLENGER, None)
    assert deployment.previous == CHAMPION
    assert (read_state().stage, read_state().looked_at) == ("idle", "2021-03")


@pytest.mark.parametrize(
    ("feedback_days", "clock_days", "stage"),
    [(10, 10.0, None), (16, 2.0, "end_baking"), (10, 14.0, "end_baking"), (0, 13.9, None),
     (0, 14.0, "end_baking")],
)  # fmt: skip
def test_baking_ends_after_its_days_of_feedback_or_by_the_clock(feedback_days, clock_days, stage):
    rows = baked_rides(gain=0.0, days=feedback_days) if feedback_days else pd.DataFrame()
    step = look(baking(), World(rows, days=clock_days))
    assert (step.state and step.state.stage) == stage


@pytest.mark.parametrize(
    ("gain", "clock_days", "stage"),
    [(0.15, 27.9, None), (0.15, 28.0, "end_baking"), (0.05, 14.0, "end_baking")],
)
def test_champion_that_looks_worse_bakes_longer(gain, clock_days, stage):
    """Days so few that nothing is proved; one that is a little worse is not held up for it."""
    rows = baked_rides(gain=gain, days=3)
    step = look(baking(), World(rows, days=clock_days))
    assert (step.state and step.state.stage) == stage


def test_baking_waits_with_its_evidence():
    step = look(baking(), World(baked_rides(gain=0.0), days=5.0))
    assert step.state is None
    assert step.why.startswith(
        "green-duration:2 is baking; green-duration:1 against it: undecided after 9 days"
    )


def test_champion_before_does_not_take_over_on_truths_that_cannot_be():
    rows = baked_rides(gain=0.5)
    rows = rows.assign(true_duration=60 * rows["true_duration"], received_at=SINCE)
    step = look(baking(), World(rows, days=13.0))
    assert step.state is None
    assert "2,000 of 2,000 true durations cannot be" in step.why
    assert look(baking(), World(rows, days=27.9)).state is None
    assert look(baking(), World(rows, days=28.0)).state.stage == "end_baking"


def test_champion_before_that_answers_few_rides_does_not_take_over():
    rows = baked_rides(gain=0.5, a_day=2000)
    silent = np.random.default_rng(0).random(len(rows)) > 0.05
    rows.loc[silent, "shadow_model_sha256"] = None
    step = look(baking(), World(rows))
    assert step.state.stage == "end_baking"
    assert step.why.startswith("green-duration:1 cannot be compared: both answered ")


def test_champion_in_alarm_that_the_earlier_one_would_share_bakes_no_longer():
    """The next turn may make a new version."""
    step = look(baking(), World(baked_rides(gain=0.0), live=(WRONG,)))
    assert step.state.stage == "end_baking"
    assert step.why.startswith(WRONG.text)


def test_champion_in_alarm_goes_back_when_the_earlier_one_would_be_nearer():
    world = World(baked_rides(gain=0.0), live=(WRONG,), back_gain=1.0)
    assert look(baking(), world).state.stage == "roll_back"


@pytest.mark.parametrize(
    "change",
    [
        lambda: drop_challenger("by hand"),
        lambda: roll_back("by hand"),
        lambda: deploy_champion(OTHER, "by hand"),
        lambda: set_challenger(OTHER, "by hand"),
        lambda: set_challenger(CHAMPION, "by hand", ab_share=0.2),
    ],
)
def test_baking_that_somebody_ended_is_left(change):
    state = baking()
    change()
    before = read_deployment()
    step = look(state, World(baked_rides(gain=0.5)))
    assert (step.what, step.state.stage) == ("leave green-duration:1", "idle")
    assert look(replace(state, stage="end_baking"), World()).what == "baked green-duration:2"
    assert read_deployment() == before


def test_end_of_baking_cut_after_its_act_is_done_once():
    state = replace(baking(), stage="end_baking", why="it is nearer")
    for _ in range(2):
        step = look(state, World())
        assert (step.what, step.state.stage) == ("baked green-duration:2", "idle")
    assert len(read_history()) == 3


def test_version_that_an_operator_promoted_bakes_too():
    deploy_champion(CHAMPION, "first")
    deploy_champion(CHALLENGER, "by hand", bake=True)
    lines = take_turn(World(baked_rides(gain=0.5)))
    assert whats(lines) == [
        "bake green-duration:2", "distrust green-duration:2",
        "roll back green-duration:2 to green-duration:1",
    ]  # fmt: skip
