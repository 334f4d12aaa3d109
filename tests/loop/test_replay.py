"""Real trips played to a running service, and what is said when there is none."""

from __future__ import annotations

import pytest
from commands import run_pipeline
from servers import free_port, service_process

from taxi_duration.errors import ReplayError, SettingError
from taxi_duration.live.prediction_log import open_log
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
            moved_home, *url, "--data", "Feb 2021", "--days", "3", "--rides", "50", API_KEY="secret"
        )
    assert done.returncode == 0, done.stderr
    assert "green-duration:1" in done.stdout
    log = open_log()
    rows = list(log.answered())
    log.close()
    assert len(rows) == 50
    assert all(row["true_duration"] is not None for row in rows)
    days = [row["pickup_at"][:10] for row in rows]  # rows of one request were asked at one time
    assert days == sorted(days)
    assert set(days) == {"2021-02-01", "2021-02-02", "2021-02-03"}
    assert len({row["ride_id"] for row in rows}) == 50
