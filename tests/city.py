"""A city for stories: months that it publishes, and riders who ask the service without end."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from contextlib import contextmanager
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from taxi_duration.data.sample import make_sample_month
from taxi_duration.data.trips import read_month
from taxi_duration.domain.limits import LONGEST_FEEDBACK_MINUTES

SLOWER, LATER = 1.12, np.timedelta64(3, "h")  # the new traffic: longer rides, other rush hours
DAYS = 28
LATE, NEVER = 0.05, 0.10  # shares of the feedback
SPOILED_DAY = 10  # of which durations come in seconds


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
    """Riders who ask without end, and say how long the ride took as soon as it is answered.

    Their true durations are those of the file's scored trips.
    """

    def __init__(self, address, path):
        trips = self.trips_of(path)
        self.trips = trips[trips["pickup_at"].dt.day <= DAYS].reset_index(drop=True)
        self.rides = [
            {"PULocationID": int(t.PULocationID), "DOLocationID": int(t.DOLocationID),
             "pickup_datetime": t.pickup_at.isoformat(timespec="seconds"),
             "trip_distance": float(t.trip_distance) if t.trip_distance >= 0 else None}
            for t in self.trips.itertuples()
        ]  # fmt: skip
        self.minutes = self.trips["duration"].to_list()
        self.pace = 1.0  # of the rides to come, against those of the file
        self.address = urlsplit(address)
        self.statuses, self.broken, self.answers = Counter(), [], []
        self._over = threading.Event()

    def trips_of(self, path):
        return read_month(path).trips

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
        dice = np.random.default_rng(number)
        for asked, i in enumerate(dice.integers(len(self.rides), size=10**6)):
            if self._over.wait(0.02):
                break
            try:
                ride = {**self.rides[i], "ride_id": f"{number}-{asked}"}
                answer = self._post(connection, "/predict", ride)
                self.give_feedback(connection, answer["prediction_id"], i, dice)
                self.answers.append(answer)
            except (OSError, http.client.HTTPException, KeyError) as error:
                self.broken.append(repr(error))
                connection.close()
        connection.close()

    def give_feedback(self, connection, prediction_id, i, _dice):
        truth = {"prediction_id": prediction_id, "duration": self.minutes[i] * self.pace}
        self._post(connection, "/feedback", truth)

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


class RealCity(City):
    """Riders as they are: all durations come, some late, some never, one day's in seconds."""

    def __init__(self, address, path):
        super().__init__(address, path)
        self.day = self.trips["pickup_at"].dt.day.to_list()
        self.late = []

    def trips_of(self, path):
        month = read_month(path)
        outside = month.quarantine[month.quarantine["reason"] != "bad_time"]
        return pd.concat([month.trips, outside]).query("duration > 0")

    def give_feedback(self, connection, prediction_id, i, dice):
        seconds = 60 if self.day[i] == SPOILED_DAY else 1
        truth = min(self.minutes[i] * self.pace * seconds, LONGEST_FEEDBACK_MINUTES)
        content = {"prediction_id": prediction_id, "duration": truth}
        fate = dice.random()
        if fate < LATE:
            self.late.append(content)
        elif fate >= LATE + NEVER:
            self._post(connection, "/feedback", content)

    def give_late_feedback(self):
        """Send what riders kept to themselves so far."""
        late, self.late = self.late, []
        connection = http.client.HTTPConnection(self.address.hostname, self.address.port, 30)
        if late:
            self._post(connection, "/feedback", late)
        connection.close()
