"""The bench of windows: its rival learns, pieces are kept, and tables say what pieces say."""

from __future__ import annotations

import numpy as np
import plain_lightgbm
import pytest
import windows

from taxi_duration.domain.rides import Rides


def piece(rmse: float, **figures) -> dict:
    errors = {"rmse": rmse, "mae": rmse / 2, "bias": 0.0}
    return {"with": errors, "without": {**errors, "rmse": rmse + 1}, "fit_cpu_seconds": 8.0,
            "peak_mb": 500.0, "code": "", **figures}  # fmt: skip


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Kept files of the test's own, and two targets."""
    monkeypatch.setattr(windows, "RIVALS_FILE", tmp_path / "rivals.json")
    monkeypatch.setattr(windows, "OURS_FILE", tmp_path / "ours.json")
    monkeypatch.setattr(windows, "TARGETS", ("2021-10", "2021-11"))


def test_rows_are_compared_target_by_target_with_the_version_before():
    figures = windows._figures([piece(4.0), piece(5.0)], [piece(5.0), piece(5.0)])
    assert figures["RMSE / MAE"][0] == pytest.approx([4.5, 2.25])
    assert figures["no distance"][0] == pytest.approx([5.5, 2.25])
    assert figures["to the version before"][0] == pytest.approx([-10.0, -100 / 12])
    assert figures["on its worst target"][0] == pytest.approx([0.0, 0.0])
    assert "holds (nominal 80 %)" not in figures  # a rival without intervals


def test_what_is_there_is_not_measured_again(files, monkeypatch):
    asked = []

    def measure(who, target):
        asked.append((who, target))
        return piece(4.0)

    monkeypatch.setattr(windows, "_in_own_process", measure)
    windows.measure_missing(["lookups-1"], ["2021-10"])
    windows.measure_missing(["lookups-1", "lookups-12"], ["2021-10"])
    assert asked == [("lookups-1", "2021-10"), ("lookups-12", "2021-10")]
    monkeypatch.setattr(windows, "code_digest", lambda: "another")
    windows.measure_missing(["xgb-1", "lookups-1"], ["2021-10"])
    windows.measure_missing(["xgb-1"], ["2021-10"])
    monkeypatch.setattr(windows, "code_digest", lambda: "a change")
    windows.measure_missing(["xgb-1"], ["2021-10"])
    assert asked[2:] == [("xgb-1", "2021-10")] * 2  # ours anew with other code, rivals not


def test_the_rival_learns_pairs_hours_and_distance():
    pytest.importorskip("lightgbm")
    random, n = np.random.default_rng(0), 6_000
    at = np.datetime64("2021-01-01T00:00:00") + np.sort(random.integers(0, 28 * 86_400, n))
    pickup, dropoff = (random.choice([74, 75, 236], n).astype("int16") for _ in range(2))
    miles = random.uniform(0.5, 6, n).astype("float32")
    rides = Rides(pickup, dropoff, at.astype("datetime64[s]"), miles)
    minutes = (4 * miles + 3 * (pickup == 236) + random.normal(0, 0.5, n)).astype("float32")
    past = np.arange(n) < 5_000
    both = plain_lightgbm.fit_plain_lightgbm(rides.take(past), minutes[past], threads=1)
    off = [np.sqrt(np.mean((f(rides.take(~past)) - minutes[~past]) ** 2)) for f in both]
    assert off[0] < 1.0 < off[1] < 1.1 * minutes.std()
