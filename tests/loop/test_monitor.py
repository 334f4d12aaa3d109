"""The monitor: live errors, coverage, drift and the verdict."""

from __future__ import annotations

import dataclasses
import json
from importlib.resources import files

import numpy as np
import pandas as pd
import pytest
from cards import make_card
from msgspec.structs import replace

from taxi_duration.domain.rides import Rides
from taxi_duration.domain.version import Version
from taxi_duration.errors import BundleError, SourceUnreachableError
from taxi_duration.evaluation.drift import Sample
from taxi_duration.evaluation.health import (
    check_health,
    expected_error,
    live_errors,
    monitor_settings,
)
from taxi_duration.files import read_json
from taxi_duration.live.deployment import deploy_champion, roll_back
from taxi_duration.live.verdict import write_verdict
from taxi_duration.loop import monitor
from taxi_duration.loop.monitor import (
    answer_trips,
    choose_verdict,
    describe_live,
    load_version,
    log_frame,
    look_at_months,
    make_sample,
    make_verdict,
    serving_since,
    training_sample,
)
from taxi_duration.model.bundle import save_bundle
from taxi_duration.training.fit import fit_model

CARD = make_card("LR")


def live(n=2800, error=4.0, bias=0.0, width=5.1, model="green-duration:1", seed=0, days=28):
    """Answered rides with their truth: normal errors of a chosen spread and bias, minutes.

    The mean absolute error is 0.8 of the spread, and P10-P90 holds 80 % at 1.28 of it.
    """
    rng = np.random.default_rng(seed)
    true = np.minimum(rng.gamma(4, 4.0, n) + 2, 60.0)
    predicted = true + bias + rng.normal(0, error, n)
    return pd.DataFrame(
        {
            "PULocationID": rng.choice([74, 138, 41], n),
            "DOLocationID": rng.choice([68, 90, 100], n),
            "pickup_at": np.datetime64("2021-03-01T00:00:00")
            + rng.integers(0, days * 86400, n).astype("m8[s]"),
            "trip_distance": true / 4,
            "duration": predicted,
            "p10": predicted - width,
            "p50": predicted,
            "p90": predicted + width,
            "support": 50,
            "used_distance": True,
            "model": model,
            "model_sha256": "a" * 64,
            "arm": "champion",
            "true_duration": true,
        }
    )


def sample_of(frame):
    return Sample(
        Rides.from_frame(frame), frame["duration"].to_numpy(), frame["true_duration"].to_numpy()
    )


def health(frame, reference=None):
    return check_health(
        "live log", frame, CARD, sample_of(live(seed=9)) if reference is None else reference
    )


def kinds(found):
    return {(reason.kind, reason.level) for reason in found.reasons}


def test_answers_as_good_as_promised_are_ok():
    found = health(live())
    assert (found.level, found.reasons) == ("ok", [])


@pytest.mark.parametrize(("error", "level"), [(4.9, "watch"), (6.5, "alarm")])
def test_larger_error_is_watched_then_alarms(error, level):
    assert ("error", level) in kinds(health(live(error=error, width=1.28 * error)))


@pytest.mark.parametrize("bias", [-4.0, 4.0])
def test_answers_that_are_off_to_one_side_alarm(bias):
    assert ("bias", "alarm") in kinds(health(live(bias=bias)))


def test_intervals_that_hold_too_little_alarm():
    assert ("coverage", "alarm") in kinds(health(live(width=3.0)))


def test_rides_of_another_kind_alarm_as_drift_and_not_as_wrong_answers():
    other = live().assign(PULocationID=7, DOLocationID=95)
    found = health(other)
    assert ("drift", "alarm") in kinds(found)
    assert not found.is_wrong


def test_wrong_answers_are_told_from_drift():
    assert health(live(error=8.0)).is_wrong


def test_few_rides_with_a_truth_are_not_judged():
    frame = live(error=9.0)
    frame.loc[monitor_settings().min_answered - 1 :, "true_duration"] = np.nan
    found = health(frame)
    assert found.answered == monitor_settings().min_answered - 1
    assert {r.kind for r in found.reasons} <= {"drift"}


def test_rides_of_another_version_do_not_count():
    both = pd.concat([live(), live(error=20.0, model="green-duration:2")])
    found = health(both)
    assert (found.rides, found.level) == (2800, "ok")


def test_no_rides_are_ok_and_say_so():
    found = check_health("live log", log_frame([]), CARD, monitor.EMPTY)
    assert (found.rides, found.answered, found.level, found.overall()) == (0, 0, "ok", {})


def test_training_months_that_cannot_be_read_are_watched():
    assert ("data", "watch") in kinds(check_health("live log", live(), CARD, None))


def test_expected_error_follows_the_share_of_rides_without_distance():
    used = np.array([True, True, True, False])
    assert expected_error(CARD, used) == pytest.approx(0.75 * 3.2 + 0.25 * 4.0)


def test_errors_come_overall_and_by_version_arm_and_segment():
    both = pd.concat([live(), live(model="green-duration:2").assign(arm="challenger")])
    table = live_errors(both)
    assert list(table["by"].unique()) == ["overall", "version", "arm", "segment"]
    assert set(table.loc[table["by"] == "version", "group"]) == {
        f"green-duration:{i}" for i in (1, 2)
    }
    assert {"airport", "manhattan_internal", "rush_hour"} <= set(table["group"])


def test_versions_and_arms_are_compared_beside_the_one_that_is_judged():
    """A challenger's rides are in the table, and the verdict is the champion's own."""
    challenger = live(error=20.0, model="green-duration:2", seed=1).assign(arm="challenger")
    both = pd.concat([live(), challenger])
    found = check_health("live log", live(), CARD, sample_of(live(seed=9)), beside=both)
    table = found.errors.set_index(["by", "group"])
    assert table.loc[("arm", "challenger"), "mae"] == pytest.approx(16, rel=0.1)
    assert table.loc[("version", "green-duration:1"), "mae"] == found.overall()["mae"]
    assert found.level == "ok"


def test_error_of_a_group_is_that_of_its_rides():
    frame = live()
    row = live_errors(frame).query("group == 'airport'").iloc[0]
    at_airport = frame[frame["PULocationID"] == 138]
    error = at_airport["duration"] - at_airport["true_duration"]
    assert row["rows"] == len(at_airport)
    assert row["mae"] == pytest.approx(error.abs().mean())
    assert row["rmse"] == pytest.approx(np.sqrt((error**2).mean()))
    assert row["mae_low"] < row["mae"] < row["mae_high"]


def test_one_day_of_rides_has_an_interval_too():
    row = live_errors(live(days=1)).iloc[0]
    assert row["mae_low"] < row["mae"] < row["mae_high"]


def test_verdict_is_json_for_the_service(home):
    write_verdict(make_verdict(health(live(error=9.0))))
    content = read_json(home / "data" / "live" / "monitor.json")
    assert content["verdict"] == "alarm"
    assert content["reasons"][0]["kind"] == "error"


def test_log_rows_become_a_frame_with_unknowns_as_nan():
    row = {
        "prediction_id": "p", "pickup_at": "2021-03-01T08:30:00", "trip_distance": None,
        "true_duration": None, "received_at": None,
        "shadow_duration": None, "shadow_p10": None, "shadow_p90": None,
    }  # fmt: skip
    frame = log_frame([row])
    assert frame["pickup_at"][0] == pd.Timestamp("2021-03-01 08:30")
    assert frame[["trip_distance", "true_duration"]].isna().all(axis=None)


def test_published_month_is_looked_at_as_if_it_had_been_answered_live(trips):
    model = fit_model("LR", Rides.from_frame(trips), trips["duration"].to_numpy())
    frame = answer_trips(model, CARD, trips)
    found = check_health(
        "green 2021-01", frame, CARD, make_sample(model, trips, trips), whole_month=True
    )
    assert (found.rides, found.answered) == (len(trips), len(trips))


def test_whole_bundle_that_is_not_the_deployed_one_is_refused(home, trips):
    """As the service does: what was deployed is a digest, not a number."""
    model = fit_model("LR", Rides.from_frame(trips), trips["duration"].to_numpy())
    card = save_bundle(Version.of(CARD).folder, model, CARD, None)
    assert load_version(Version.of(card))[1] == card
    with pytest.raises(BundleError, match="deployed is bbbb"):
        load_version(replace(Version.of(card), sha256="b" * 64))


def test_real_training_months_that_are_out_of_reach_are_never_replaced_by_the_sample(
    home, trips, monkeypatch
):
    """Generated trips as the reference would show a drift that is not there."""
    monkeypatch.setenv("DATA", "auto")
    monkeypatch.setenv("TLC_URL", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setattr("taxi_duration.data.sources.ATTEMPTS", 1)
    model = fit_model("LR", Rides.from_frame(trips), trips["duration"].to_numpy())
    months = {"service": "green", "train_data": "2021-01", "val_data": "2021-02"}
    card = {**CARD, **months, "data_source": "tlc"}
    with pytest.raises(SourceUnreachableError):
        training_sample(model, card)
    assert training_sample(model, {**card, "data_source": "sample"}).actual is not None


def test_version_serves_since_it_last_became_champion(home):
    first, second = (Version("green-duration", n, str(n) * 64, "sample") for n in (1, 2))
    deploy_champion(first, "first")
    began = serving_since(first)
    deploy_champion(second, "second")
    roll_back("worse")
    assert serving_since(first) > began
    assert serving_since(replace(first, sha256="9" * 64)) == 0


def test_every_setting_carries_its_reason():
    content = json.loads((files("taxi_duration.evaluation") / "monitor_settings.json").read_text())
    assert all(len(entry["why"]) > 20 for entry in content.values())


# --- what is looked at while the log is young --------------------------------------------


def young(n: int, truths: int = 0):
    """Health of a log of n rides, of which the first have their true duration."""
    frame = live(n=n)
    frame.loc[frame.index[truths:], "true_duration"] = np.nan
    return health(frame)


@pytest.mark.parametrize(
    ("rides", "truths", "source"),
    [(1, 0, "green 2021-02"), (199, 199, "green 2021-02"), (400, 200, "live log"),
     (2000, 0, "live log")],
)  # fmt: skip
def test_log_gives_the_verdict_as_soon_as_it_says_something(rides, truths, source):
    month = dataclasses.replace(health(live(seed=3)), source="green 2021-02")
    assert choose_verdict(young(rides, truths), [month]).source == source
    assert choose_verdict(young(rides, truths), []).source == "live log"


def test_young_log_says_what_is_missing_and_an_old_one_does_not():
    words = describe_live(young(1))
    assert words.startswith("Rides: 1; with their true duration: 0.")
    assert "`POST /feedback`" in words and "once 200 rides" in words and "Drift is" in words
    assert describe_live(young(2800, 2800)) == "Rides: 2,800; with their true duration: 2,800."


def test_published_months_asked_for_are_looked_at_and_validation_months_only_while_young(
    monkeypatch,
):
    monkeypatch.setattr(monitor, "check_month", lambda entry, month: str(month))
    monkeypatch.setattr(monitor, "load_version", lambda entry: (None, {"val_data": "2021-02"}))
    assert look_at_months(Version.of(CARD), young(1), "") == ["2021-02"]
    assert look_at_months(CARD, young(2800, 2800), "") == []
    assert look_at_months(CARD, young(2800, 2800), "2021-03:2021-04") == ["2021-03", "2021-04"]


def test_validation_month_that_is_gone_does_not_stop_a_monitor_that_nobody_asked_for_it(
    monkeypatch,
):
    def unreachable(entry, month):
        raise SourceUnreachableError("away")

    monkeypatch.setattr(monitor, "check_month", unreachable)
    monkeypatch.setattr(monitor, "load_version", lambda entry: (None, {"val_data": "2021-02"}))
    assert look_at_months(Version.of(CARD), young(1), "") == []
    with pytest.raises(SourceUnreachableError):
        look_at_months(Version.of(CARD), young(1), "2021-03")
