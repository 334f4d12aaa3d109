"""Clients of all kinds in a process of their own: `python load.py PORT RATE SEED FILE`.

Asks so many times a second, on one kept connection, until its stdin is closed: single rides of any
two zones, with a distance or without one, believable or not; now and then an array or a Parquet
file; and tells what some of them took, one by one and together, some twice. Writes what was
promised into the file: `a ID` for an answer, `t ID` for a true duration that was taken, `f WHAT`
for what failed, and in the end `n TIMES`.
"""

from __future__ import annotations

import http.client
import io
import json
import random
import sys
import threading
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TextIO

JSON = "application/json"
PARQUET = "application/vnd.apache.parquet"
ARRAYS = (2, 50, 1000, 4000)  # rides
EVERY_ARRAY, EVERY_FILE, EVERY_FEEDBACK = 1000, 5000, 5  # times
TOLD = 50  # of an array


class Load:
    """The clients.

    Args:
        port: of the service, here.
        rate: times a second; infinite for as often as it can.
        promised: where to write.
    """

    def __init__(self, port: int, rate: float, seed: int, promised: TextIO) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._rate, self._chance, self._promised = rate, random.Random(seed), promised

    def run(self, stop: threading.Event) -> None:
        """Ask until it is to stop."""
        due, times = time.monotonic(), 0
        while not stop.is_set():
            due += 1 / self._rate
            time.sleep(max(0.0, due - time.monotonic()))
            times += 1
            if times % EVERY_FILE == 0:
                self._ask(_packed([self._ride() for _ in range(3000)]), PARQUET)
            elif times % EVERY_ARRAY == 0:
                n = self._chance.choice(ARRAYS)
                self._ask(json.dumps([self._ride() for _ in range(n)]), JSON)
            else:
                self._ask(json.dumps(self._ride()), JSON, times % EVERY_FEEDBACK == 0)
        self._promised.write(f"n {times}\n")

    def _ride(self) -> dict[str, Any]:
        chance = self._chance
        ride: dict[str, Any] = {
            "PULocationID": chance.choice((74, 75, 41, 42, chance.randint(1, 265))),
            "DOLocationID": chance.choice((74, 236, chance.randint(1, 265))),
        }
        if chance.random() < 0.8:
            ride["trip_distance"] = round(chance.gammavariate(2, 1.5), 2)
        if chance.random() < 0.3:
            at = datetime.now() - timedelta(minutes=chance.randint(0, 40_000))
            ride["pickup_datetime"] = at.isoformat(timespec="seconds")
        if chance.random() < 0.1:
            ride["ride_id"] = f"{chance.getrandbits(40):x}"
        return ride

    def _ask(self, body: str | bytes, kind: str, is_told: bool = True) -> None:
        answers = self._post("/predict", body, kind)
        if answers is None:
            return
        one = isinstance(answers, dict)
        answers = [answers] if one else answers
        self._promised.writelines(f"a {answer['prediction_id']}\n" for answer in answers)
        if not is_told:
            return
        told = [
            {"prediction_id": answer["prediction_id"], "duration": self._took(answer["duration"])}
            for answer in self._chance.sample(answers, min(TOLD, len(answers)))
        ]
        if self._chance.random() < 0.05:
            told.append(told[0])
        found = self._post("/feedback", json.dumps(told if len(told) > 1 else told[0]), JSON)
        if found is None:
            return
        if found["unknown"]:
            self._promised.write(f"f unknown: {found}\n")
        self._promised.writelines(f"t {ride['prediction_id']}\n" for ride in told)

    def _took(self, minutes: float) -> float:
        """A true duration; some are no ride's: a meter that ran all night, or a few seconds."""
        if self._chance.random() < 0.02:
            return self._chance.choice((0.1, 700.0, 1439.0))
        return minutes * self._chance.lognormvariate(0.0, 0.35)

    def _post(self, path: str, body: str | bytes, kind: str) -> Any:
        try:
            self._connection.request("POST", path, body, {"Content-Type": kind})
            response = self._connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            self._promised.write(f"f {path}: {error!r}\n")
            self._connection.close()
            return None
        if response.status == 200:
            return json.loads(content)
        self._promised.write(f"f {path}: {response.status} {content[:300]!r}\n")
        return None


def _packed(rides: list[dict[str, Any]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kept = ("PULocationID", "DOLocationID", "trip_distance")
    file = io.BytesIO()
    pq.write_table(pa.table({name: [ride.get(name) for ride in rides] for name in kept}), file)
    return file.getvalue()


def main(port: str, rate: str, seed: str, path: str) -> None:
    """Run until stdin is closed."""
    stop = threading.Event()

    def wait() -> None:
        sys.stdin.read()
        stop.set()

    threading.Thread(target=wait, daemon=True).start()
    with Path(path).open("w", encoding="utf-8") as promised:
        Load(int(port), float(rate), int(seed), promised).run(stop)


if __name__ == "__main__":
    main(*sys.argv[1:])
