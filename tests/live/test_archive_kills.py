"""The archiver is killed with signal 9 at any moment: no ride is lost, none comes twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from log_samples import row

from taxi_duration.live.prediction_log import open_log

ARCHIVER = """
import sys
from pathlib import Path
from taxi_duration.live import log_archive, log_tables
from taxi_duration.live.prediction_log import open_log
log_archive.PART_RIDES, log_tables.AT_ONCE = 60, 7
log = open_log({url!r}, Path({spool!r}))
print("ready", flush=True)
log.archive(1, 0)
"""
RIDES = 1500


@pytest.mark.long
def test_killed_at_random_moments_nothing_is_lost_or_doubled(url, tmp_path):
    spool = tmp_path / "live" / "spool"
    log = open_log(url, spool)
    log.add([row(f"{i:032x}", 1e9 + 60 * i) for i in range(RIDES)])
    log.add_feedback([{"prediction_id": f"{i:032x}", "duration": 9.0} for i in range(0, RIDES, 3)])
    before, kills = list(log.answered()), 0
    while kills < 12:
        script = ARCHIVER.format(url=url, spool=str(spool))
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        time.sleep(0.02 + 0.06 * kills)
        process.send_signal(signal.SIGKILL)
        was_killed = process.wait() == -signal.SIGKILL
        process.stdout.close()
        assert list(log.answered()) == before
        kills += 1
        if not was_killed:  # it was done
            break
    assert log.archive(1, 0) is not None
    assert list(log.answered()) == before
    assert log.counts() == {"predictions": RIDES, "shadow_answers": 0, "feedback": RIDES // 3}
    with log._store._begin() as connection:
        from taxi_duration.live.log_tables import count, predictions

        assert count(connection, predictions) == 0
    assert os.listdir(log._store._archive_folder)  # noqa: PTH208
    log.close()
