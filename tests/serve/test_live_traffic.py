"""Answers follow the traffic that ended rides tell of, and say so wherever an answer is kept."""

from __future__ import annotations

import re
import threading
import time
from datetime import datetime, timedelta

import numpy as np
import pytest
from msgspec.structs import replace
from service_samples import RIDE, make_card

from serve.core import live_traffic
from taxi_duration.domain.findings import Reason
from taxi_duration.domain.rides import NEW_YORK, Rides
from taxi_duration.errors import LogError
from taxi_duration.live.deployment import deploy_champion, set_challenger
from taxi_duration.live.log_rows import PredictionRow
from taxi_duration.live.traffic_now import MOST_SLOTS, NO_TRAFFIC, VersionTraffic
from taxi_duration.live.verdict import Verdict, write_verdict

EARLY = datetime(2021, 2, 15, 6)
ASKED = {**RIDE, "pickup_datetime": "2021-02-15T09:00:00"}
FIGURES = ("duration", "p10", "p50", "p90")


def in_a_jam(client, factor: float = 1.3, rides: int = 450, first: datetime = EARLY):
    """Ask rides of three hours, and tell that they took so many times what was answered."""
    pickups = [(first + timedelta(seconds=24 * i)).isoformat() for i in range(rides)]
    asked = [{**RIDE, "pickup_datetime": at} for at in pickups]
    told = [
        {"prediction_id": answer["prediction_id"],
         "duration": factor * answer["duration"] / answer.get("traffic", 1.0)}
        for answer in client.post("/predict", json=asked).json
    ]  # fmt: skip
    kept = client.post("/feedback", json=told).json
    assert len(kept.get("known", ())) == rides, kept


def traffic_of(app):
    return app.extensions["taxi"].traffic


@pytest.fixture
def plain(make_app, models, log):
    """The same model's answers without traffic, from the same log."""
    app = make_app({"TRAFFIC": False}, model=(models[1], make_card(1, "LR")))
    return app.test_client()


@pytest.fixture
def jammed(app, client):
    in_a_jam(client)
    traffic_of(app).refresh()
    return client


def minutes(answer):
    return np.array([answer["duration"], *(answer["interval"][q] for q in FIGURES[1:])])


def test_a_planted_jam_is_in_the_next_answers(jammed, plain):
    now, usual = (c.post("/predict", json=ASKED).json for c in (jammed, plain))
    assert "traffic" not in usual
    assert 1.15 < now["traffic"] < 1.4
    assert now["duration"] == pytest.approx(usual["duration"] * now["traffic"])
    assert now["interval"]["p50"] == pytest.approx(usual["interval"]["p50"] * now["traffic"])
    assert now["interval"]["p10"] < now["interval"]["p50"] < now["interval"]["p90"]


def test_all_ways_of_asking_say_the_same(jammed):
    one = jammed.post("/predict", json=ASKED).json
    (of_array,) = jammed.post("/predict", json=[ASKED]).json
    (frame,) = jammed.post("/invocations", json={"instances": [ASKED]}).json["predictions"]
    assert of_array["traffic"] == frame["traffic"] == one["traffic"]
    assert minutes(of_array) == pytest.approx(minutes(one), abs=1e-4)
    assert [frame[q] for q in FIGURES] == pytest.approx(minutes(one).tolist(), abs=1e-4)


@pytest.mark.parametrize("many", [False, True])
def test_reasons_add_up_with_the_traffic(jammed, many):
    answer = jammed.post("/predict?explain=true", json=[ASKED] if many else ASKED).json
    answer = answer[0] if many else answer
    reasons = {one["name"]: one["minutes"] for one in answer["reasons"]}
    assert sum(reasons.values()) == pytest.approx(answer["duration"], abs=1e-4)
    usual = answer["duration"] / answer["traffic"]
    assert reasons["traffic now"] == pytest.approx(answer["duration"] - usual, abs=1e-4)


@pytest.mark.parametrize("many", [False, True])
def test_the_row_has_what_was_given_and_the_models_own(jammed, plain, log, many):
    body = [ASKED, ASKED] if many else ASKED
    answers = jammed.post("/predict", json=body).json
    usual = plain.post("/predict", json=body).json
    pairs = zip(answers, usual, strict=True) if many else [(answers, usual)]
    for answer, own in pairs:
        row = log.find(answer["prediction_id"])
        assert [row[q] for q in FIGURES] == pytest.approx(minutes(answer).tolist())
        assert [row[f"base_{q}"] for q in FIGURES] == pytest.approx(minutes(own).tolist())
        assert row["traffic"] == answer["traffic"]
        spread = minutes(own) * answer["traffic"]
        assert row["p90"] - row["p50"] == pytest.approx(
            (spread[3] - spread[2]) * row["stretch_high"]
        )
        assert row["p50"] - row["p10"] == pytest.approx(
            (spread[2] - spread[1]) * row["stretch_low"]
        )
        row = log.find(own["prediction_id"])
        new = {name: row[name] for name in PredictionRow.__struct_fields__[-7:]}
        assert new == {"traffic": 1.0, "stretch_low": 1.0, "stretch_high": 1.0,
                       **{f"base_{q}": None for q in FIGURES}}  # fmt: skip


def test_rides_before_the_jam_and_long_after_are_as_usual(jammed, plain):
    for at in ("2021-02-15T05:00:00", "2021-06-01T09:00:00"):
        now, usual = (c.post("/predict", json={**ASKED, "pickup_datetime": at}).json
                      for c in (jammed, plain))  # fmt: skip
        assert "traffic" not in now
        assert (now["duration"], now["interval"]) == (usual["duration"], usual["interval"])


def test_plans_follow_the_traffic_and_its_fading(jammed, plain):
    path = "/profile?PULocationID=74&DOLocationID=42&date=2021-02-15"
    now, usual = (c.get(path).json["hours"] for c in (jammed, plain))
    factors = [a["duration"] / b["duration"] for a, b in zip(now, usual, strict=True)]
    assert factors[:6] == [1.0] * 6
    assert factors[9] > 1.15
    assert factors[9] > factors[12] > factors[23] > 1.0
    ask = "/leave-by?PULocationID=74&DOLocationID=42&arrive=2021-02-15T09:30"
    assert jammed.get(ask).json["leave_by"] < plain.get(ask).json["leave_by"]
    ask = "/reach?PULocationID=74&when=2021-02-15T09:00"
    there = [next(z for z in c.get(ask).json["zones"] if z["DOLocationID"] == 42)["duration"]
             for c in (jammed, plain)]  # fmt: skip
    assert there[0] > 1.15 * there[1]


def test_without_feedback_nothing_is_applied(app, client, plain):
    traffic_of(app).refresh()
    assert traffic_of(app).of(app.extensions["taxi"].serving().champion) is None
    now, usual = (c.post("/predict", json=ASKED).json for c in (client, plain))
    assert now.keys() == usual.keys()
    assert minutes(now).tolist() == minutes(usual).tolist()


def test_no_answer_leaves_the_limits(jammed, plain):
    for miles in (0.2, 17.5, 18.5, 90.0):
        asked = {**ASKED, "trip_distance": miles}
        now, usual = (minutes(c.post("/predict", json=asked).json) for c in (jammed, plain))
        assert (now <= np.maximum(usual, 60.0)).all()
        assert (now >= np.minimum(usual, 1.0)).all()


def test_voided_feedback_is_gone_with_the_next_look(app, jammed, log):
    assert "traffic" in jammed.post("/predict", json=ASKED).json
    log.void_feedback(0, 4e9, "ann", "false")
    traffic_of(app).refresh()
    assert "traffic" not in jammed.post("/predict", json=ASKED).json


def test_truths_of_rides_to_come_say_nothing(app, client):
    in_a_jam(client, first=datetime.now() + timedelta(days=40))
    traffic_of(app).refresh()
    assert traffic_of(app).of(app.extensions["taxi"].serving().champion) is None


# --- versions ---------------------------------------------------------------------------


def test_each_version_has_its_own_level_and_keeps_it_when_promoted(home, registered, make_app, log):
    one, two = registered[1], registered[2]
    deploy_champion(one, "first")
    set_challenger(two, "test", shadow=True)
    app = make_app()
    client, traffic = app.test_client(), traffic_of(app)
    in_a_jam(client)
    traffic.refresh()
    levels = [traffic.of(m) for m in live_traffic.served(app.extensions["taxi"].holder.serving)]
    assert [level.bins.rides.sum() for level in levels] == [450, 450]
    for body in (ASKED, [ASKED] * 2):
        answer = client.post("/predict", json=body).json
        answer = answer[0] if isinstance(answer, list) else answer
        row = log.find(answer["prediction_id"])
        assert (row["traffic"], row["shadow_traffic"]) == tuple(
            level.at(74, datetime(2021, 2, 15, 9)).factor for level in levels
        )
        assert row["shadow_duration"] == pytest.approx(
            row["shadow_base_duration"] * row["shadow_traffic"], abs=1e-4
        )
    deploy_champion(two, "better")
    later = make_app()  # a worker that starts anew
    traffic_of(later).refresh()
    promoted = later.test_client().post("/predict", json=ASKED).json
    assert (promoted["model"], promoted["traffic"]) == (two.ref, row["shadow_traffic"])


# --- refreshing -------------------------------------------------------------------------


def test_a_log_that_cannot_be_read_leaves_the_last_level(app, jammed, monkeypatch):
    before = jammed.post("/predict", json=ASKED).json

    def broken(*_):
        raise LogError("gone")

    monkeypatch.setattr(app.extensions["taxi"].log, "traffic_bins", broken)
    traffic_of(app).refresh()
    after = jammed.post("/predict", json=ASKED).json
    assert minutes(after).tolist() == minutes(before).tolist()
    ready = jammed.get("/ready")
    assert ready.status_code == 200
    assert "the live traffic is not refreshed" in ready.json["problems"][0]
    assert "gone" in jammed.get("/monitor/data").json["traffic"]["trouble"]
    monkeypatch.undo()
    traffic_of(app).refresh()
    assert jammed.get("/ready").json["problems"] == []


def test_answers_do_not_wait_for_a_log_that_hangs(app, jammed, monkeypatch):
    release = threading.Event()
    read = app.extensions["taxi"].log.traffic_bins

    def hanging(*asked):
        release.wait(30)
        return read(*asked)

    monkeypatch.setattr(app.extensions["taxi"].log, "traffic_bins", hanging)
    looking = threading.Thread(target=traffic_of(app).refresh)
    looking.start()
    try:
        for _ in range(20):
            assert jammed.post("/predict", json=ASKED).status_code == 200
        assert looking.is_alive()
    finally:
        release.set()
        looking.join()


def test_the_thread_looks_again_and_at_once_for_a_new_version(make_app, models, monkeypatch):
    monkeypatch.setattr(live_traffic, "LOOK_SECONDS", 0.01)
    app = make_app(model=(models[1], make_card(1, "LR")))
    traffic, holder = traffic_of(app), app.extensions["taxi"].holder
    read: list[str] = []
    level = app.extensions["taxi"].log.traffic_bins

    def counted(sha256, *rest):
        read.append(sha256)
        return level(sha256, *rest)

    monkeypatch.setattr(app.extensions["taxi"].log, "traffic_bins", counted)
    traffic.start()
    until(lambda: read)
    time.sleep(0.1)
    assert len(read) == 1  # the next is due in REFRESH_SECONDS
    other = make_app(model=(models[2], make_card(2, "RIDGE"))).extensions["taxi"].holder.serving
    holder.serving = other
    until(lambda: len(read) == 2)
    assert read[1] == other.champion.sha256
    monkeypatch.setattr(live_traffic, "REFRESH_SECONDS", 0.0)
    until(lambda: len(read) > 4)
    traffic.close()
    assert traffic.age_seconds < 30


def until(what):
    ends = time.monotonic() + 20
    while not what():
        assert time.monotonic() < ends
        time.sleep(0.01)


def test_one_level_is_computed_for_all_rides_of_ten_minutes(app, jammed, monkeypatch):
    level = traffic_of(app).of(app.extensions["taxi"].serving().champion)
    computed: list[int] = []
    whole = VersionTraffic._remember

    def counted(self, slot):
        computed.append(slot)
        return whole(self, slot)

    monkeypatch.setattr(VersionTraffic, "_remember", counted)
    for minute in range(40):
        level.at(74, datetime(2021, 2, 15, 9) + timedelta(seconds=15 * minute))
    assert len(computed) == 1
    for day in range(MOST_SLOTS + 10):
        level.at(74, datetime(2021, 3, 1) + timedelta(days=day))
    assert len(level._known) <= MOST_SLOTS


def test_one_ride_and_many_are_in_the_same_traffic(app, jammed):
    level = traffic_of(app).of(app.extensions["taxi"].serving().champion)
    rng = np.random.default_rng(3)
    pickups = np.datetime64("2021-02-15T04:00:00") + rng.integers(0, 2 * 86_400, 300).astype(
        "m8[s]"
    )
    zones = rng.integers(1, 266, 300).astype("int16")
    of_all = level.of(Rides(zones, zones, pickups, np.full(300, np.nan, "float32")))
    alone = [level.at(zone, at) or NO_TRAFFIC
             for zone, at in zip(zones.tolist(), pickups.tolist(), strict=True)]  # fmt: skip
    assert np.array(alone).tolist() == np.array(of_all).T.tolist()


# --- what is shown ----------------------------------------------------------------------


def test_the_page_draws_the_level_and_what_it_bought(app, jammed, metric):
    in_a_jam(jammed, first=datetime(2021, 2, 15, 9))  # answered in traffic
    traffic_of(app).refresh()
    shown = jammed.get("/monitor/data").json["traffic"]
    (version,) = shown["versions"]
    assert (shown["is_on"], shown["trouble"]) == (True, None)
    assert (version["model"], version["arm"]) == ("green-duration:1", "champion")
    assert version["until"] == version["last_ended"]  # a replay: years ago
    (area,) = version["areas"]
    assert area["name"] == "Manhattan"
    assert area["factor"] == area["line"][-1] > 1.2
    since = datetime.fromisoformat(version["since"])
    assert datetime.fromisoformat(version["until"]) - since == timedelta(days=2)
    assert len(area["line"]) == 2 * 24 * 60 // shown["step_minutes"] + 1
    assert set(area["line"][: 2 * 18]) == {1.0}
    assert version["rides"] == 900
    assert 0 < version["with"] < 0.75 * version["without"]
    rows = list(app.extensions["taxi"].log.answered())
    for name, of in (("covered_with", ""), ("covered_without", "base_")):
        low, high = ([row[of + end] or row[end] for row in rows] for end in ("p10", "p90"))
        truth = [row["true_duration"] for row in rows]
        inside = (np.array(low) <= truth) & (truth <= np.array(high))
        assert version[name] == pytest.approx(inside.mean())
        which = name.removeprefix("covered_")
        line = f'taxi_traffic_coverage{{traffic="{which}",version="green-duration:1"}}'
        assert metric(line) == version[name]
    assert version["covered_with"] > version["covered_without"]
    assert re.fullmatch(r"green-duration:1, \S+ \S+ to \S+ \S+ \(New York\): 900 rides, off by "
                        r"[.0-9]+ minutes with it and [.0-9]+ without \([.0-9]+ % less\); "
                        r"[.0-9]+% and [.0-9]+% in P10–P90\.",
                        shown["said"])  # fmt: skip


def test_metrics_have_level_gain_and_ages(app, jammed, metric):
    label = 'version="green-duration:1"'
    errors = [metric(f'taxi_traffic_error_minutes{{traffic="{which}",{label}}}')
              for which in ("with", "without")]  # fmt: skip
    assert errors[0] == errors[1] > 1  # all were answered before it was known
    assert metric(f'taxi_traffic{{area="Manhattan",{label}}}') == 1.0  # it is years ago
    for side in ("below", "above"):
        assert metric(f'taxi_interval_stretch{{side="{side}",{label}}}') == 1.0
    age = metric(f"taxi_traffic_last_ended_age_seconds{{{label}}}")
    assert timedelta(seconds=age) > timedelta(days=365)
    assert metric("taxi_traffic_refresh_age_seconds") < 30


def test_metrics_have_the_level_and_the_stretch_of_now(app, client, metric):
    now = datetime.now(NEW_YORK).replace(tzinfo=None)
    in_a_jam(client, first=now - timedelta(hours=4))
    traffic_of(app).refresh()
    answer = client.post("/predict", json={**RIDE, "pickup_datetime": now.isoformat()}).json
    row = app.extensions["taxi"].log.find(answer["prediction_id"])
    label = 'version="green-duration:1"'
    assert metric(f'taxi_traffic{{area="Manhattan",{label}}}') == answer["traffic"] > 1.1
    stretch = [metric(f'taxi_interval_stretch{{side="{side}",{label}}}')
               for side in ("below", "above")]  # fmt: skip
    assert stretch == [row["stretch_low"], row["stretch_high"]] != [1.0, 1.0]


def test_off_means_off(plain):
    in_a_jam(plain)
    assert traffic_of(plain.application).is_on is False
    traffic_of(plain.application).start()
    assert traffic_of(plain.application)._thread is None
    assert plain.get("/monitor/data").json["traffic"] == {
        "is_on": False, "trouble": None, "step_minutes": 20, "versions": [],
        "said": "Off (TRAFFIC=off): answers are the model's own.",
    }  # fmt: skip
    assert "taxi_traffic" not in plain.get("/metrics").text


@pytest.mark.parametrize(("level", "follows"), [("alarm", False), ("watch", True)])
def test_feedback_of_some_kinds_of_rides_alone_is_not_followed(jammed, app, level, follows):
    reason = Reason("selection", level, "only long rides tell")
    verdict = Verdict("2021-02-15T09:00:00+00:00", level, "live log", "green-duration:1", 450, 450,
                      [reason], [], [])  # fmt: skip
    write_verdict(verdict)
    traffic_of(app).refresh()
    assert ("traffic" in jammed.post("/predict", json=ASKED).json) == follows
    said = jammed.get("/monitor/data").json["traffic"]["said"]
    assert ("only some kinds of rides get feedback" in said) != follows
    assert "no true duration has come in" not in said
    write_verdict(replace(verdict, reasons=[]))
    traffic_of(app).refresh()
    assert "traffic" in jammed.post("/predict", json=ASKED).json
