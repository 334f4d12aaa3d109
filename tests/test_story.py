"""The whole story: the real service under load, and the loop that changes what it serves."""

from __future__ import annotations

import re

import pytest
from city import SLOWER, City, RealCity, publish
from commands import run_pipeline
from servers import service_process

from taxi_duration import environment
from taxi_duration.domain.version import Version, bundle_folder
from taxi_duration.live.deployment import read_deployment, set_challenger
from taxi_duration.live.prediction_log import open_log
from taxi_duration.model.bundle import load_card, reference_of

pytestmark = [pytest.mark.long, pytest.mark.first]

QUICKER = 0.6  # of the first traffic's minutes: a city that empties
V1, V2, V3 = (f"green-duration:{number}" for number in range(1, 4))


@pytest.fixture
def turn(tmp_path, monkeypatch):
    """Run a command on the story's home, as a timer or an operator does; return what it said."""
    home, tlc = tmp_path / "home", tmp_path / "tlc"
    real = {"DATA": "tlc", "TLC_URL": str(tlc), "SAMPLE_ROWS": ""}
    for name, value in {"TAXI_HOME": str(home), **real}.items():
        monkeypatch.setenv(name, value)

    def run(*args):
        done = run_pipeline(home, *args, **real)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "warning" not in done.stderr.lower()  # of a library: nobody can mend it
        return done.stdout

    return run


def champion():
    return read_deployment().champion.ref


def turns_until(text, city, turn, rides, by=None):
    """Let riders ride and the loop take its turns until it says something; return all it said."""
    said = ""
    for _ in range(5):
        city.wait_for(rides, by)
        said += turn("auto")
        if text in said:
            return said
    raise AssertionError(f"no {text!r} in: {said}")


def under_test(said):
    """The version that a turn says it put under test."""
    found = re.search(r"^shadow (green-duration:\d+)", said, re.MULTILINE)
    assert found, said
    return found[1]


def check_it_met_some_riders_first(new, said):
    """It met some riders before it met all, unless the champion was too wrong to wait for that."""
    assert f"A/B-test {new}" in said or "no time for an A/B test" in said, said


def test_new_traffic_is_learned_tested_and_served_and_what_is_poisoned_goes(turn, tmp_path):
    tlc = tmp_path / "tlc"
    publish(tlc, "2021-01", slow=False)
    publish(tlc, "2021-02", slow=True)
    turn("run", "--model", "XGB")
    march = publish(tmp_path / "not yet", "2021-03", slow=True)
    with service_process(tmp_path) as address:
        city = City(address, march)
        with city.under_load():
            play(city, turn, tlc)
    assert city.broken == []
    assert set(city.statuses) == {200}
    assert len(city.answers) > 3000
    log = open_log()
    logged = {row["prediction_id"] for row in log.answered()}
    log.close()
    assert {answer["prediction_id"] for answer in city.answers} <= logged


def play(city, turn, tlc):
    """What happens while riders ask."""
    city.wait_for(300)
    early = city.answers[0]["prediction_id"]
    assert "no month after 2021-02 is published" in turn("auto")

    publish(tlc, "2021-03", slow=True)
    said = turn("auto")
    new = under_test(said)
    for step in ("retrain on the months before 2021-03", f"made {V2}", f"pass {V2}"):
        assert step in said, said
    assert champion() == V1
    check_it_met_some_riders_first(new, turns_until(f"promote {new}", city, turn, 1200))
    assert champion() == new
    city.wait_for(5, by=new)
    late = next(a["prediction_id"] for a in reversed(city.answers) if a["model"] == new)
    for prediction_id in (early, late):
        assert "every digest is that of the bytes that lie here now" in turn("trace", prediction_id)

    # The new version's answers become wrong, and those of the first would have been nearer.
    city.pace = QUICKER / SLOWER
    turns_until(f"roll back {new} to {V1}", city, turn, 1200, by=new)
    assert champion() == V1

    # An operator wants it back; then its bytes are poisoned.
    city.pace = 1.0
    turn("promote", new)
    city.wait_for(20, by=new)
    path = read_deployment().champion.folder / "model.bin"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    said = turn("auto")
    assert f"roll back {new} to {V1}" in said, said
    assert champion() == V1
    city.wait_for(20, by=V1)


# A model that is flaky, as a bug in one of its branches would make it: it loads, is warmed, and
# then fails at every other ride.
FLAKY = """
from itertools import count
from taxi_duration.model.ride_predictor import RidePredictor

begin, answer, calls = RidePredictor.__init__, RidePredictor.answer, count()

def remember(self, model):
    begin(self, model)
    self.kind = model.kind

def fail(self, *question):
    if self.kind == "RIDGE" and next(calls) > 50 and next(calls) % 4 == 0:
        raise ArithmeticError("no answer on this branch")
    return answer(self, *question)

RidePredictor.__init__, RidePredictor.answer = remember, fail
"""


def test_the_better_one_serves_in_the_world_as_it_is(turn, tmp_path):
    tlc = tmp_path / "tlc"
    publish(tlc, "2021-01", slow=False)
    publish(tlc, "2021-02", slow=True)
    for kind in ("XGB", "LASSO", "RIDGE"):  # versions 1 to 3
        turn("run", "--model", kind)
    march = publish(tmp_path / "not yet", "2021-03", slow=True)
    (tmp_path / "flaky").mkdir()
    (tmp_path / "flaky" / "sitecustomize.py").write_text(FLAKY)
    with service_process(tmp_path, PYTHONPATH=str(tmp_path / "flaky")) as address:
        city = RealCity(address, march)
        with city.under_load():
            try_three(city, turn, tlc)
    assert city.broken == []
    assert set(city.statuses) == {200}


def try_three(city, turn, tlc):
    """One challenger fails, one is worse, one is better."""
    assert champion() == V1
    try_by_hand(3)
    said = turns_until(f"drop {V3}", city, turn, 600)
    assert f"adopt {V3}" in said
    assert f"doubt {V3}: it failed at" in said, said

    try_by_hand(2)
    city.give_late_feedback()
    said = turns_until(f"drop {V2}", city, turn, 700)
    assert f"adopt {V2}" in said
    assert f"doubt {V2}: worse after" in said, said

    publish(tlc, "2021-03", slow=True)
    new = under_test(turn("auto"))
    city.wait_for(1500)
    city.give_late_feedback()
    check_it_met_some_riders_first(new, turns_until(f"promote {new}", city, turn, 700))
    city.wait_for(300, by=new)
    turn("auto")  # the champion before looks on, and is not nearer
    assert champion() == new


def try_by_hand(number):
    """Let an operator test a version in the shadow."""
    folder = bundle_folder("green-duration", number)
    version = Version.of(load_card(folder, environment.signing_key(), reference_of(folder)))
    set_challenger(version, "an operator wants to see it", shadow=True)
