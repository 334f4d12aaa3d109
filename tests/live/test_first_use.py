"""SQLAlchemy is imported at the log's first use, which may be that of several threads at once."""

from __future__ import annotations

import subprocess
import sys

FIRST_USES = """
import sys, threading, time
from pathlib import Path
from taxi_duration.live import log_store
from taxi_duration.live.prediction_log import PredictionLog

folder = Path(sys.argv[1])
log = PredictionLog(f"sqlite:///{folder}/predictions.db", folder / "spool")
uses = [log.counts, log.last_times, lambda: log.summary(0), lambda: log.hours(0),
        lambda: log.traffic_bins("0" * 64, 14), lambda: log.find_many(["0"]), log.drain,
        lambda: log.add_feedback([{"prediction_id": "0", "duration": 5.0}]),
        lambda: log._watch.look(probe=True)]
wrong = []

def use(one):
    try:
        one()
    except Exception as error:
        wrong.append(repr(error))

threads = [threading.Thread(target=use, args=(one,)) for one in uses]
with log_store._loading:
    for thread in threads: thread.start()
    time.sleep(0.5)
    early = "sqlalchemy" in sys.modules
for thread in threads: thread.join()
print(early, wrong, log._watch.look(probe=True))
"""


def test_one_thread_imports_what_the_log_needs_while_others_wait(tmp_path):
    command = [sys.executable, "-c", FIRST_USES, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("False [] None\n", "")
