"""The monitor: live errors, coverage, drift and the verdict."""

from __future__ import annotations

import dataclasses
import json
import time
from datetime import UTC, datetime
from importlib.resources import files

import numpy as np
import pandas as pd
import pytest
from cards import make_card
from log_samples import row
from msgspec import to_builtins
from msgspec.structs import replace
from truth_sets import changed, feedback_rows, log_rows, told_rides

from taxi_duration.data.window import Window
from taxi_duration.domain.months import Month
from taxi_duration.domain.rides import Rides
from taxi_duration.domain.truths import OFF_BY_FACTOR
from taxi_duration.domain.version import Version
from taxi_duration.errors import BundleError, SourceUnreachableError
from taxi_duration.evaluation.drift import Sample
from taxi_duration.evaluation.health import (
    Health,
    check_health,
    expected_error,
    live_errors,
    monitor_settings,
)
from taxi_duration.evaluation.silence import Activity
from taxi_duration.files import read_json
from taxi_duration.live.deployment import deploy_champion, roll_back
from taxi_duration.live.log_rows import PredictionRow, ShadowRow
from taxi_duration.live.prediction_log import open_log
from taxi_duration.live.verdict import write_verdict
from taxi_duration.loop import monitor
from taxi_duration.loop.monitor import (
    answer_trips,
    choose_verdict,
    compare_estimate,
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
            "model_sha256": CARD["model_sha256"],
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
    assert {r.kind for r in found.reasons} <= {"drift", "unknown"}


def test_rides_of_another_version_do_not_count():
    both = pd.concat([live(), live(error=20.0, model="green-duration:2")])
    found = health(both)
    assert (found.rides, found.level) == (2800, "ok")


def test_rides_of_another_projects_version_of_the_same_name_do_not_count():
    """Two projects may share a log; each has a version 1."""
    found = health(pd.concat([live(), live(error=20.0).assign(model_sha256="b" * 64)]))
    assert (found.rides, found.level) == (2800, "ok")


def test_no_rides_are_unknown_and_say_so():
    found = check_health("live log", log_frame([]), CARD, monitor.EMPTY)
    assert (found.rides, found.answered, found.level, found.overall()) == (0, 0, "unknown", {})


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
    found = check_health("live log", both, CARD, sample_of(live(seed=9)), compare=True)
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
    ride = to_builtins(row("p", pickup_at="2021-03-01T08:30:00", trip_distance=None))
    unknown = ["true_duration", "received_at", "base_duration", "base_p10", "base_p50", "base_p90"]
    unknown += [f"shadow_{name}" for name in ShadowRow.__struct_fields__[1:]]
    frame = log_frame([{**ride, **dict.fromkeys(unknown)}])
    assert frame["pickup_at"][0] == pd.Timestamp("2021-03-01 08:30")
    assert frame[["trip_distance", "true_duration"]].isna().all(axis=None)


def test_published_month_is_looked_at_as_if_it_had_been_answered_live(trips):
    model = fit_model("LR", Window.from_frame(trips))
    frame = answer_trips(model, CARD, trips)
    found = check_health(
        "green 2021-01",
        frame,
        CARD,
        make_sample(model, Window.from_frame(trips), Window.from_frame(trips)),
        whole_month=True,
    )
    assert (found.rides, found.answered) == (len(trips), len(trips))


def test_whole_bundle_that_is_not_the_deployed_one_is_refused(home, trips):
    """As the service does: what was deployed is a digest, not a number."""
    model = fit_model("LR", Window.from_frame(trips))
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
    monkeypatch.setattr("taxi_duration.data.remote.ATTEMPTS", 1)
    model = fit_model("LR", Window.from_frame(trips))
    months = {"service": "green", "train_data": "2021-01", "val_data": "2021-02"}
    card = {**CARD, **months, "data_source": "tlc"}
    with pytest.raises(SourceUnreachableError):
        training_sample(model, card)
    assert training_sample(model, {**card, "data_source": "sample"}).actual is not None


def test_version_serves_since_it_last_became_champion(home, monkeypatch):
    first, second = (Version("green-duration", n, str(n) * 64, "sample") for n in (1, 2))
    deploy_champion(first, "first")
    began = serving_since(first)
    deploy_champion(second, "second")
    roll_back("worse")
    assert serving_since(first) > began
    assert serving_since(replace(first, sha256="9" * 64)) == 0
    monkeypatch.setattr(time, "time", lambda: began - 1)  # the clock was ahead, and is right now
    assert serving_since(first) == 0


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


# --- what is not known -----------------------------------------------------------------------


def reason_of(found, kind):
    return next(reason for reason in found.reasons if reason.kind == kind)


@pytest.mark.parametrize("truths", [0, 199])
def test_too_few_truths_are_unknown_however_well_they_were_answered(truths):
    found = young(2800, truths)
    assert found.level == "unknown"
    assert not (found.is_worrying or found.is_wrong)
    assert "of the 200 true durations" in reason_of(found, "unknown").text


def test_health_of_nothing_is_never_ok():
    """Whoever makes one without a reason."""
    nothing = Health("live log", "unknown", 0, 0, pd.DataFrame(), [], [])
    assert (nothing.level, nothing.is_worrying) == ("unknown", False)


def silent(ride_days, feedback_days):
    at = (None if d is None else 1e9 - d * 86_400 for d in (ride_days, feedback_days))
    return check_health(
        "live log", live(), CARD, sample_of(live(seed=9)), activity=Activity(*at, now=1e9)
    )


@pytest.mark.parametrize(
    ("ride_days", "feedback_days", "said"),
    [(0.5, 1, 0), (25, 25, 2), (0.1, 15, 1), (0.1, None, 1), (None, None, 1)],
)
def test_silence_of_a_log_that_was_well_is_unknown(ride_days, feedback_days, said):
    found = silent(ride_days, feedback_days)
    assert [r.kind for r in found.reasons] == ["silence"] * said
    assert found.level == ("unknown" if said else "ok")


def test_drift_is_said_beside_what_is_unknown():
    other = live().assign(PULocationID=7, DOLocationID=95, true_duration=np.nan)
    found = health(other)
    assert (found.level, found.is_wrong) == ("alarm", False)
    assert {"drift", "unknown"} <= {r.kind for r in found.reasons}
    assert found.reasons[-1].kind == "unknown"  # worst first


def test_feedback_of_short_rides_is_named():
    frame = live()
    found = health(frame.assign(true_duration=frame["true_duration"].where(frame["duration"] < 14)))
    assert "min were predicted for them" in reason_of(found, "selection").text


# --- a fault of yesterday --------------------------------------------------------------------


def steady(last_days=0, error=4.0, n=9800, days=14):
    """Two weeks of 700 rides a day, of which the last days have another error."""
    frame = live(n=n, days=days).sort_values("pickup_at", ignore_index=True)
    late = frame["pickup_at"] >= frame["pickup_at"].max() - pd.Timedelta(days=last_days)
    scale = np.where(late, error / 4.0, 1.0)
    off = (frame["duration"] - frame["true_duration"]) * scale
    return frame.assign(duration=frame["true_duration"] + off).assign(
        p10=frame["true_duration"] + off - 5.1, p90=frame["true_duration"] + off + 5.1
    )


def newest(found):
    return {(r.kind, r.level) for r in found.reasons if r.text.startswith("the newest day")}


@pytest.mark.parametrize(("last_days", "level"), [(0, None), (1, "watch"), (2, "alarm")])
def test_wrong_answers_of_the_last_days_are_not_thinned_by_two_weeks(last_days, level):
    found = health(steady(last_days, error=9.0))
    assert newest(found) >= ({("error", level)} if level else set())
    assert bool(newest(found)) == (level is not None)
    assert found.is_wrong == (level == "alarm")


def test_published_month_is_judged_as_a_whole():
    found = check_health(
        "green 2021-03", steady(2, error=9.0), CARD, sample_of(live(seed=9)), whole_month=True
    )
    assert newest(found) == set()


def test_few_days_are_held_to_a_days_bounds():
    """One day of snow after a promotion is no alarm; the same error over weeks is one."""
    error = 5.4
    for days, level in ((2, "watch"), (28, "alarm")):
        found = health(live(error=error, width=1.28 * error, days=days))
        assert ("error", level) in kinds(found), days


def test_alarm_names_the_segment_and_the_feature_that_drive_it():
    frame = live(error=4.0)
    airport = frame["PULocationID"] == 138
    frame = frame.assign(duration=frame["duration"] + np.where(airport, 12.0, 0.0))
    text = reason_of(health(frame), "error").text
    assert "most of it: airport (" in text
    assert "pickup zone 138 LaGuardia Airport (" in text


def test_even_error_is_said_to_be_even():
    assert (
        "about the same for all kinds of rides"
        in reason_of(health(live(error=6.5, width=8.3)), "error").text
    )


def test_drift_is_said_with_the_minutes_that_answers_moved():
    text = next(r.text for r in health(live(bias=3.0)).reasons if r.kind == "drift")
    assert "answers are 3." in text or "answers are 2.9" in text


# --- live log and published month ------------------------------------------------------------


def test_number_of_rides_tells_in_a_month_and_not_in_a_log():
    """A log may hold a part of the rides."""
    few = live(n=900)
    for whole_month in (False, True):
        found = check_health("it", few, CARD, sample_of(live(seed=9)), whole_month=whole_month)
        volumes = [d for d in found.drifts if d.feature == "volume"]
        assert [d.level for d in volumes] == ["alarm"] * whole_month


def test_coverage_of_a_segment_is_that_of_its_rides():
    frame = live()
    frame.loc[frame["PULocationID"] == 138, ["p10", "p90"]] += 100.0
    table = live_errors(frame).set_index("group")
    assert table.loc["airport", "coverage"] == 0.0
    inner = frame["PULocationID"] != 138  # all other zones lie in Manhattan
    inside = frame["true_duration"].between(frame["p10"], frame["p90"])
    assert table.loc["manhattan_internal", "coverage"] == pytest.approx(inside[inner].mean())
    assert table.loc["all", "coverage"] == pytest.approx(inside.mean())


def test_month_of_a_model_of_real_trips_is_never_the_sample(home, trips, monkeypatch):
    model = fit_model("LR", Window.from_frame(trips))
    monkeypatch.setenv("DATA", "auto")
    monkeypatch.setenv("TLC_URL", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setattr("taxi_duration.data.remote.ATTEMPTS", 1)
    months = {"service": "green", "train_data": "2021-01", "val_data": "2021-02"}
    for source in ("tlc", "sample"):
        card = {**CARD, **months, "data_source": source}
        monkeypatch.setattr(monitor, "load_version", lambda version, card=card: (model, card))
        if source == "tlc":
            with pytest.raises(SourceUnreachableError):
                monitor.check_month(Version.of(CARD), Month(2021, 3))
        else:
            assert monitor.check_month(Version.of(CARD), Month(2021, 3)).rides > 1000


def row_of(key, version, asked_at):
    return PredictionRow(
        key, None, asked_at, 74, 75, "2021-03-01T09:00:00", 2.5, 10.0, 7.0, 10.0, 14.0, 50,
        True, version.ref, version.sha256, "champion",
    )  # fmt: skip


def test_rides_of_an_earlier_reign_and_of_long_ago_do_not_count(home):
    """A version that was rolled back to is judged from then on; others' rides are not its own."""
    first, second = (Version("green-duration", n, str(n) * 64, "sample") for n in (1, 2))
    log, now = open_log(), time.time()
    deploy_champion(first, "first")
    log.add([row_of("earlier reign", first, time.time())])
    deploy_champion(second, "second")
    log.add([row_of("another's", second, time.time())])
    roll_back("worse")
    log.add([row_of("now", first, time.time()), row_of("long ago", first, now - 30 * 86_400)])
    assert list(monitor.recent_rides(first, log)["prediction_id"]) == ["now"]
    log.close()


def test_rides_are_looked_at_when_the_time_has_come_by_which_they_are_dated(home):
    """By a clock that was ahead: they would be among the last days for as long."""
    version, log, now = Version("green-duration", 1, "1" * 64, "sample"), open_log(), time.time()
    other = replace(version, sha256="2" * 64)  # of another project
    log.add([row_of("skewed", version, now + 60), row_of("ahead", version, now + 30 * 86_400),
             row_of("other", other, now + 60)])  # fmt: skip
    assert list(monitor.recent_rides(version, log)["prediction_id"]) == ["skewed"]
    log.close()


@pytest.fixture
def deployed(home, trips):
    """A version that serves; its answers are looked at."""
    model = fit_model("LR", Window.from_frame(trips))
    months = {"service": "green", "train_data": "2021-01", "val_data": "2021-02"}
    card = save_bundle(
        Version.of(CARD).folder, model, {**CARD, **months, "data_source": "sample"}, None
    )
    deploy_champion(Version.of(card), "first")
    return Version.of(card)


def test_rides_of_another_service_on_the_same_log_hide_no_silence(deployed):
    now, log = time.time(), open_log()
    yellow = replace(deployed, name="yellow-duration")
    log.add([row_of("ours", deployed, now - 3 * 86_400), row_of("theirs", yellow, now - 60)])
    log.add_feedback([{"prediction_id": "theirs", "duration": 11.0}])
    found = monitor.check_live(deployed, log)
    log.close()
    assert found.activity.last_ride == now - 3 * 86_400
    days = monitor_settings().live_days
    assert found.activity.last_feedback == pytest.approx(now - days * 86_400, abs=60)
    silences = [r.text for r in found.reasons if r.kind == "silence"]
    assert [text[:16] for text in silences] == ["no ride came sin", "no true duration"]


def health_of_a_tenth(version, others):
    """The health of a version that answered a tenth of a day told in too many minutes."""
    now = time.time()
    day = changed(told_rides(days=1), True, 2.4).assign(model=others)
    day.loc[::10, ["model", "model_sha256"]] = version.ref, version.sha256
    day["received_at"] = now + np.arange(len(day))  # each told by itself
    log = open_log()
    log.add([replace(row, asked_at=now) for row in log_rows(day)])
    log.add_feedback(feedback_rows(day))
    found = monitor.check_live(version, log)
    log.close()
    return found


def test_days_of_another_service_on_the_same_log_say_nothing_of_ours(deployed):
    """Its client sends other units."""
    found = health_of_a_tenth(deployed, "yellow-duration:1")
    assert found.rides == 20 and OFF_BY_FACTOR not in found.truths
    assert {row["group"] for row in found.errors.to_dict("records") if row["by"] == "version"} == {
        deployed.ref
    }


def test_live_health_knows_when_the_last_ride_and_feedback_came(home, trips):
    model = fit_model("LR", Window.from_frame(trips))
    months = {"service": "green", "train_data": "2021-01", "val_data": "2021-02"}
    card = save_bundle(
        Version.of(CARD).folder, model, {**CARD, **months, "data_source": "sample"}, None
    )
    version, log = Version.of(card), open_log()
    deploy_champion(version, "first")
    nothing = monitor.check_live(version, log)
    assert [r.text for r in nothing.reasons if r.kind == "silence"] == ["no ride was ever answered"]
    asked_at = time.time()
    log.add([row_of("one", version, asked_at), row_of("two", version, asked_at + 0.01)])
    log.add_feedback([{"prediction_id": "two", "duration": 11.0}])
    found = monitor.check_live(version, log)
    log.close()
    assert found.activity.last_ride == asked_at + 0.01
    assert found.activity.last_feedback == pytest.approx(time.time(), abs=20)
    assert (found.rides, found.answered, found.level) == (2, 1, "unknown")
    assert found.estimate.rides == 1  # the one without a truth
    verdict = make_verdict(found)
    assert verdict.estimate == found.estimate
    assert verdict.last_ride_at[:13] == datetime.fromtimestamp(asked_at, UTC).isoformat()[:13]
    table = compare_estimate(found)
    assert list(table["rides"]) == [1, 1]
    assert table.loc["measured", "mae"] == pytest.approx(1.0)


def test_few_rides_of_a_version_are_judged_by_the_whole_day_that_they_were_part_of(home, trips):
    """A day told in too many minutes is found by all its rides; a small arm has too few."""
    model = fit_model("LR", Window.from_frame(trips))
    months = {"service": "green", "train_data": "2021-01", "val_data": "2021-02"}
    card = save_bundle(
        Version.of(CARD).folder, model, {**CARD, **months, "data_source": "sample"}, None
    )
    found = health_of_a_tenth(Version.of(card), "green-duration:2")
    assert (found.rides, found.answered, found.truths) == (20, 0, {OFF_BY_FACTOR: 20})


def test_verdict_of_a_month_tells_what_is_missing_in_the_log():
    """A validation month answered well is no word on how riders are answered."""
    month = dataclasses.replace(health(live(seed=3)), source="green 2021-02")
    assert month.level == "ok"
    chosen = choose_verdict(young(1), [month])
    assert (chosen.source, chosen.level) == ("green 2021-02", "unknown")
    assert chosen.reasons[0].text.startswith("live log: 0 of the 200")
    assert choose_verdict(young(400, 300), [month]).level == "ok"
