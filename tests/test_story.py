"""The whole story: the real service under load, and the loop that changes what it serves."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from contextlib import contextmanager
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import run_pipeline
from servers import service_process

from taxi_duration import environment
from taxi_duration.data.sample import make_sample_month
from taxi_duration.data.trips import read_dataframe
from taxi_duration.live.deployment import read_deployment
from taxi_duration.live.prediction_log import open_log

pytestmark = pytest.mark.long

SLOWER, LATER = 1.12, np.timedelta64(3, "h")  # the new traffic: longer rides, other rush hours
QUICKER = 0.6  # and a city that empties
DAYS = 28
V1, V2, V3 = (f"green-duration:{number}" for number in (1, 2, 3))


def publish(folder, month, slow):
    """Put a month where `TLC_URL` points; `slow` is one with another traffic pattern."""
    table = make_sample_month("green", month, 6000)
    pickup, dropoff = (table[f"lpep_{end}_datetime"].to_numpy() for end in ("pickup", "dropoff"))
    if slow:
        longer = ((dropoff - pickup) * SLOWER).astype(dropoff.dtype.str.replace("M", "m"))
        for end, times in (("pickup", pickup + LATER), ("dropoff", pickup + LATER + longer)):
            at = table.schema.get_field_index(f"lpep_{end}_datetime")
            table = table.set_column(at, f"lpep_{end}_datetime", pa.array(times))
    path = folder / "trip-data" / f"green_tripdata_{month}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path


class City:
    """Riders who ask without end, and tell how long the ride took as soon as it is answered."""

    def __init__(self, address, path):
        trips = read_dataframe(path)
        trips = trips[trips["pickup_at"].dt.day <= DAYS]
        self.rides = [
            {"PULocationID": int(t.PULocationID), "DOLocationID": int(t.DOLocationID),
             "pickup_datetime": t.pickup_at.isoformat(timespec="seconds"),
             "trip_distance": float(t.trip_distance) if t.trip_distance >= 0 else None}
            for t in trips.itertuples()
        ]  # fmt: skip
        self.minutes = trips["duration"].to_list()
        self.pace = 1.0  # of the rides to come, against those of the file
        self.address = urlsplit(address)
        self.statuses, self.broken, self.answers = Counter(), [], []
        self._over = threading.Event()

    @contextmanager
    def under_load(self, riders=4):
        """Riders ask until the block ends."""
        threads = [threading.Thread(target=self._ride, args=(i,)) for i in range(riders)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join()

    def _ride(self, number):
        connection = http.client.HTTPConnection(self.address.hostname, self.address.port, 30)
        for asked, i in enumerate(
            np.random.default_rng(number).integers(len(self.rides), size=10**6)
        ):
            if self._over.wait(0.02):
                break
            try:
                ride = {**self.rides[i], "ride_id": f"{number}-{asked}"}
                answer = self._post(connection, "/predict", ride)
                truth = min(max(self.minutes[i] * self.pace, 1.0), 60.0)
                told = {"prediction_id": answer["prediction_id"], "duration": truth}
                self._post(connection, "/feedback", told)
                self.answers.append(answer)
            except (OSError, http.client.HTTPException, KeyError) as error:
                self.broken.append(repr(error))
                connection.close()
        connection.close()

    def _post(self, connection, path, content):
        headers = {"Content-Type": "application/json"}
        connection.request("POST", path, json.dumps(content), headers)
        response = connection.getresponse()
        body = response.read()
        self.statuses[response.status] += 1
        return json.loads(body)

    def wait_for(self, rides, by=None):
        """Return when so many more rides were answered, by a version when one is given."""
        count = lambda: sum(by in (None, a["model"]) for a in self.answers)  # noqa: E731
        wanted, deadline = count() + rides, time.monotonic() + 120
        while count() < wanted:
            assert time.monotonic() < deadline, (rides, by, self.broken[:3])
            time.sleep(0.05)


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
        return done.stdout

    return run


def champion():
    return read_deployment().champion.number


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
    for step in (
        "retrain on the months before 2021-03",
        f"made {V2}",
        f"pass {V2}",
        f"refit {V3}",
        f"shadow {V3}",
    ):
        assert step in said, said
    city.wait_for(1200)
    assert f"A/B-test {V3}" in turn("auto")
    assert champion() == 1

    city.wait_for(400, by=V3)
    said = turn("auto")
    assert f"promote {V3}" in said, said
    assert champion() == 3
    city.wait_for(1)
    city.wait_for(5, by=V3)
    late = next(a["prediction_id"] for a in reversed(city.answers) if a["model"] == V3)
    for prediction_id in (early, late):
        assert "every digest is that of the bytes that lie here now" in turn("trace", prediction_id)

    # The answers of version 3 become wrong, and those of version 1 would have been nearer.
    city.pace = QUICKER / SLOWER
    city.wait_for(1200, by=V3)
    said = turn("auto")
    assert f"roll back {V3} to {V1}" in said, said
    assert champion() == 1

    # An operator wants it back; then its bytes are poisoned.
    city.pace = 1.0
    turn("promote", V3)
    city.wait_for(20, by=V3)
    path = environment.models_dir() / "green-duration" / "3" / "model.bin"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    said = turn("auto")
    assert f"roll back {V3} to {V1}" in said, said
    assert champion() == 1
    city.wait_for(20, by=V1)
