"""Real trips played to a running service, and what is said when there is none."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from commands import run_pipeline
from servers import free_port, service_process

from taxi_duration.data.prepared import prepare_month
from taxi_duration.data.sources import RawMonth
from taxi_duration.domain.months import Month
from taxi_duration.errors import ReplayError, SettingError
from taxi_duration.live.prediction_log import open_log
from taxi_duration.loop import replay
from taxi_duration.loop.replay import replay_months


def test_without_a_service_it_says_how_to_start_one(home):
    with pytest.raises(ReplayError, match=r"no service answers at .* `make serve` starts one"):
        replay_months("2021-02", url=f"http://127.0.0.1:{free_port()}", rides=3)


@pytest.mark.parametrize("wrong", [{"days": 0}, {"rides": -1}])
def test_numbers_below_one_are_refused(home, wrong):
    with pytest.raises(SettingError, match="must be at least 1"):
        replay_months("2021-02", "http://127.0.0.1", **wrong)


@pytest.mark.slow
def test_rides_ask_in_the_order_of_time_and_tell_their_durations(moved_home, tmp_path):
    with service_process(tmp_path, API_KEYS="secret") as address:
        url = ("replay", "--url", address)
        refused = run_pipeline(moved_home, *url, "--data", "2021-02")
        assert refused.returncode == 1
        assert "answered 401" in refused.stderr
        done = run_pipeline(
            moved_home, *url, "--data", "Feb 2021", "--days", "3", "--rides", "50",
            API_KEY="secret", HTTP_PROXY="http://127.0.0.1:9", http_proxy="http://proxy.invalid:3128",
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "green-duration:1" in done.stdout
    log = open_log()
    rows = list(log.answered())
    log.close()
    assert len(rows) == 50
    outside = [r for r in rows if not 1 <= (r["true_duration"] or 0) <= 60]
    assert sum(row["true_duration"] is None for row in rows) <= len(outside) < 10
    days = [row["pickup_at"][:10] for row in rows]  # rows of one request were asked at one time
    assert days == sorted(days)
    assert set(days) == {"2021-02-01", "2021-02-02", "2021-02-03"}
    assert len({row["ride_id"] for row in rows}) == 50


class FakeService:
    """Answers 20 minutes to every ride; even ones by the champion, odd ones by the challenger."""

    def __init__(self):
        self.asked, self.told = [], []

    def post(self, session, address, content):
        if address.endswith("/feedback"):
            self.told += content
            return {}
        start = len(self.asked)
        self.asked += content
        return [
            {"prediction_id": f"p{i}", "model": f"green-duration:{1 + i % 2}",
             "arm": ("champion", "challenger")[i % 2], "duration": 20.0,
             "interval": {"p10": 12.0, "p90": 30.0}}
            for i in range(start, len(self.asked))
        ]  # fmt: skip


@pytest.fixture
def month(home, raw_month, write_month, monkeypatch):
    """A month of eight rides: no time, short, four scored, long, longer than /feedback takes."""
    minutes = np.array([0, 0.5, 10, 25, 40, 60, 95, 11_000])
    table = pa.concat_tables([raw_month, raw_month.slice(0, 3)])
    pickup = table["lpep_pickup_datetime"].to_numpy()
    dropoff = pickup + (minutes * 60).astype("timedelta64[s]")
    at = table.column_names.index("lpep_dropoff_datetime")
    table = table.set_column(at, "lpep_dropoff_datetime", pa.array(dropoff))
    path = write_month(table)
    raw = RawMonth("green", Month(2021, 1), path, "0" * 64, "tlc", None)
    monkeypatch.setattr(replay, "prepare_months", lambda service, months: [prepare_month(raw)])
    service = FakeService()
    monkeypatch.setattr(replay, "_post", service.post)
    return service


def test_every_ride_asks_and_tells_what_feedback_takes(month):
    answers = replay_months("2021-01", "http://service", say=lambda line: None)
    assert len(month.asked) == 8
    assert sorted(row["duration"] for row in month.told) == [0.5, 10, 25, 40, 60, 95]
    assert len({row["prediction_id"] for row in month.told}) == 6
    assert answers["rides"].tolist() == [4, 4]
    assert answers["scored"].sum() == 4
    assert answers["quarantined"].tolist() == [0, 0]
    weights = answers["scored"] / 4
    assert (answers["mae"] * weights).sum() == pytest.approx((10 + 5 + 20 + 40) / 4)
    assert (answers["coverage"] * weights).sum() == pytest.approx(1 / 4)


def test_summary_is_by_model_and_arm_over_the_durations_that_count():
    frame = pd.DataFrame(
        [("m:1", "champion", "scored", 2.0, True), ("m:1", "champion", "scored", 4.0, False),
         ("m:1", "champion", "short", 30.0, False), ("m:1", "champion", "", 50.0, False),
         ("m:1", "champion", "too_fast", 60.0, False), ("m:2", "challenger", "long", 70.0, False)],
        columns=["model", "arm", "truth", "error", "covered"],
    )  # fmt: skip
    first, second = replay._summary(frame).to_dict("records")
    assert first == {"model": "m:1", "arm": "champion", "rides": 5, "scored": 2, "quarantined": 1,
                     "outside": pytest.approx(1 / 3), "mae": 3.0, "coverage": 0.5}  # fmt: skip
    assert (second["rides"], second["scored"], second["outside"]) == (1, 0, 1.0)
    assert np.isnan(second["mae"])


def test_rides_of_the_rule_alone_can_be_asked_for(month):
    replay_months("2021-01", "http://service", only_scored=True, say=lambda line: None)
    assert sorted(row["duration"] for row in month.told) == [10, 25, 40, 60]
    assert len(month.asked) == 4
