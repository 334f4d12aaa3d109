"""A challenger's whole way, lived through day by day in the simulated world with many seeds."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from msgspec.structs import replace

from taxi_duration import environment
from taxi_duration.domain.months import Month
from taxi_duration.domain.rides import Answers
from taxi_duration.domain.version import Version
from taxi_duration.evaluation.health import Health
from taxi_duration.live.deployment import deploy_champion, read_deployment, set_challenger
from taxi_duration.loop.settings import auto_settings
from taxi_duration.loop.simulated_world import Fitted, SimulatedWorld
from taxi_duration.loop.state import State, read_state, write_state

MARCH, FIRST_DAY = Month(2021, 3), np.datetime64("2021-03-01")
SCALE = 2.5  # mean error of the better model, minutes
# Minutes too many in each answer, for an MAE that is so much worse: b - s + s exp(-b / s).
BIAS = {0.0: 0.0, 0.5: 1.767}
pytestmark = pytest.mark.slow

CHAMPION, CHALLENGER = (Version("green-duration", n, str(n) * 64, "tlc") for n in (1, 2))


class Line:
    """Answers with a line over the distance, and some minutes too many."""

    def __init__(self, worse: float) -> None:
        self.bias = BIAS[worse]

    def answer(self, rides):
        minutes = 5 + 2 * rides.trip_distance.astype("float64") + self.bias
        known = np.ones(len(rides), dtype=bool)
        return Answers(minutes, minutes - 4, minutes, minutes + 4, np.full(len(rides), 9), known)


class Life(SimulatedWorld):
    """Days of as many rides as a test wants; what each day has in common shifts all of them."""

    def __init__(self, a_day: int, champion_worse: float, challenger_worse: float, seed: int):
        super().__init__("green", {}, {}, auto_settings(), fit=None, measure=None)
        self.a_day, self.rng = a_day, np.random.default_rng(seed)
        self.versions = [
            Fitted(version, Line(worse), {}, [Month(2021, 1)], Month(2021, 2), None)
            for version, worse in ((CHAMPION, champion_worse), (CHALLENGER, challenger_worse))
        ]

    def live_health(self, version):
        return Health("live log", version.ref, 0, 0, pd.DataFrame(), [], [])

    arm_health = live_health

    def _in_traffic(self, frame):
        """No test here looks at what riders got; the loop judges answers without traffic."""
        return frame["duration"].to_numpy("float64")

    def trips_of(self, day):
        n, rng = self.a_day, self.rng
        miles = rng.uniform(1, 6, n)
        late = rng.laplace(0, SCALE, n) + rng.normal(0, 0.7)
        return pd.DataFrame(
            {
                "pickup_at": day + rng.integers(0, 86_400, n).astype("m8[s]"),
                "PULocationID": np.full(n, 74, "int16"),
                "DOLocationID": np.full(n, 161, "int16"),
                "trip_distance": miles.astype("float32"),
                "duration": np.clip(5 + 2 * miles + late, 1, 60).astype("float32"),
            }
        )

    def live_day(self, day):
        self.rides, self.answers = {MARCH: self.trips_of(day)}, {}
        self._live_day(MARCH, np.ones(self.a_day, dtype=bool), day)

    def live_until_decided(self, days: int = 70) -> str:
        """Live until the loop is idle again, and return the last decision."""
        for day in range(days):
            self.live_day(FIRST_DAY + day)
            if read_state().stage == "idle":
                return self.decided[-1][0]
        return "nothing"

    @property
    def decided(self) -> list[tuple[str, str]]:
        return [(what, why) for _, what, why in self.decisions]


def lives(tmp_path, seeds, make, stage):
    """Live through a test with each seed in a home of its own."""
    for seed in range(seeds):
        with environment.temporary_home(tmp_path / str(seed)):
            world = make(seed)
            deploy_champion(CHAMPION, "first")
            if stage == "start_ab":
                set_challenger(CHALLENGER, "better")
            world.time = (FIRST_DAY - np.datetime64("1970-01-01")).astype(int) * 86_400.0
            write_state(State(stage, champion=CHAMPION, challenger=CHALLENGER, month="2021-03",
                              why="better", proven=stage == "start_ab"))  # fmt: skip
            yield world, world.live_until_decided()


def few_or(seeds: int, few: int) -> pytest.MarkDecorator:
    """So many lives, or a few of them in seconds."""
    return pytest.mark.parametrize("seeds", [few, pytest.param(seeds, marks=pytest.mark.long)])


@few_or(20, 1)
@pytest.mark.parametrize("stage", ["start_shadow", "start_ab"])
def test_worse_challenger_is_promoted_in_at_most_one_of_20_lives(tmp_path, stage, seeds):
    """Once by a lucky shadow before the riders' stage, too: it must hold by itself."""
    tried = lives(tmp_path, seeds, lambda s: Life(400, 0.0, 0.5, s), stage)
    ends = Counter(end for _, end in tried)
    assert ends["drop green-duration:2"] >= seeds - seeds // 20


@few_or(6, 1)
def test_better_challenger_is_promoted_and_baked(tmp_path, seeds):
    ends = Counter()
    for world, end in lives(tmp_path, seeds, lambda s: Life(400, 0.5, 0.0, s), "start_shadow"):
        ends[end] += 1
        done = [what for what, _ in world.decided]
        assert done.index("A/B-test green-duration:2") < done.index("promote green-duration:2")
    assert ends["baked green-duration:2"] >= seeds - seeds // 6


class Failing(Life):
    """The better challenger fails at one ride in fifty; the champion answers it."""

    def _answer(self, deployment, month, rows, asked_at):
        frame = super()._answer(deployment, month, rows, asked_at)
        if deployment.challenger is None:
            return frame
        failed = np.arange(len(frame)) % 50 == 0
        alone = super()._answer(replace(deployment, ab_share=0.0), month, failed, asked_at)
        alone = alone.assign(shadow_model_sha256=None, failed_as="shadow")
        return pd.concat([frame[~failed], alone], ignore_index=True)


class Silent(Life):
    """The better challenger answers 5 % of the rides in the shadow."""

    def _answer(self, deployment, month, rows, asked_at):
        frame = super()._answer(deployment, month, rows, asked_at)
        silent = self.rng.random(len(frame)) > 0.05
        return frame.assign(shadow_model_sha256=frame["shadow_model_sha256"].where(~silent, None))


class WrongSplit(Life):
    """The better challenger gets 1 % of the riders where 20 % were planned."""

    def _answer(self, deployment, month, rows, asked_at):
        few = min(deployment.ab_share, 0.01)
        return super()._answer(replace(deployment, ab_share=few), month, rows, asked_at)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (Failing, "it failed at "),
        (Silent, "both answered "),
        (WrongSplit, " met the challenger, planned are 20%"),
    ],
)
def test_challenger_with_a_fault_is_dropped_for_it_though_it_is_nearer(tmp_path, kind, reason):
    for world, end in lives(tmp_path, 1, lambda s: kind(400, 0.5, 0.0, s), "start_shadow"):
        assert end == "drop green-duration:2"
        assert reason in world.decided[-1][1]


@few_or(10, 1)
def test_worse_champion_that_was_promoted_goes_back_while_it_bakes(tmp_path, seeds):
    """An operator's, say: the earlier version's shadow answers bring it back."""
    ends = Counter()
    for seed in range(seeds):
        with environment.temporary_home(tmp_path / str(seed)):
            world = Life(400, 0.0, 0.5, seed)
            deploy_champion(CHAMPION, "first")
            deploy_champion(CHALLENGER, "by hand", bake=True)
            world.time = (FIRST_DAY - np.datetime64("1970-01-01")).astype(int) * 86_400.0
            world.live_day(FIRST_DAY)
            assert read_state().stage == "baking"
            ends[world.live_until_decided()] += 1
            back = read_deployment().champion == CHAMPION
            assert back == (world.decided[-1][0].startswith("roll back"))
    assert ends["roll back green-duration:2 to green-duration:1"] >= seeds - seeds // 5
