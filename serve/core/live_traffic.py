"""The live traffic of the versions in service: loaded from the log beside the requests."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from serve.core.deadline import Deadline
from serve.core.served_models import LoadedModel, ModelHolder, served
from taxi_duration.errors import ContentError, LogError
from taxi_duration.live.prediction_log import PredictionLog
from taxi_duration.live.traffic_now import VersionTraffic, horizon_days
from taxi_duration.live.verdict import read_verdict

logger = logging.getLogger(__name__)

# A level is known to all workers and hosts within 30 s; a read and a busy log take some of them.
REFRESH_SECONDS = 15.0
LOOK_SECONDS = 0.5  # between looks whether another version serves, whose level is then loaded
STOP_SECONDS = 1.0  # to wait for the thread, which the log may block


class LiveTraffic:
    """Keeps the level of each version in service, from `start` to `close`.

    While the log cannot be read the last levels stay; they fade by the time of the rides. While the
    monitor finds that only some kinds of rides get feedback, there is no level: with feedback on
    long rides alone, all would seem to take longer.

    Args:
        log: has the sums.
        holder: has the models in service.
        deadline: for reading the log.
        is_on: False keeps all answers as the models give them.
        clock: returns seconds that only grow.
    """

    def __init__(
        self,
        log: PredictionLog,
        holder: ModelHolder,
        deadline: Deadline,
        is_on: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.is_on = is_on
        self._log, self._holder, self._deadline, self._clock = log, holder, deadline, clock
        self._levels: dict[str, VersionTraffic | None] = {}
        self.is_held_back = False  # whether only some kinds of rides get feedback
        self._read_at: float | None = None
        self._found: str | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def of(self, loaded: LoadedModel) -> VersionTraffic | None:
        """Return the traffic of a model in service; None when nothing is known of it."""
        return self._levels.get(loaded.sha256)

    @property
    def age_seconds(self) -> float:
        """Since all levels were last read; infinite when they never were."""
        return float("inf") if self._read_at is None else self._clock() - self._read_at

    @property
    def problem(self) -> str | None:
        """Why the levels are not those of now; None when they are, or are switched off."""
        if self._found is None:
            return None
        since = "" if self._read_at is None else f", the last read {self.age_seconds:.0f} s ago"
        return f"the live traffic is not refreshed{since}: {self._found}"

    def refresh(self) -> None:
        """Read the levels of all versions in service; on an error the last ones stay."""
        models = served(self._holder.serving)
        self.is_held_back = _is_selective()
        read = _read_nothing if self.is_held_back else self._read
        try:
            self._levels = {model.sha256: read(model.sha256) for model in models}
        except LogError as error:
            if self._found is None:  # once, not at each look
                logger.warning("the live traffic is not refreshed: %s", error)
            self._found = str(error)
        else:
            self._found, self._read_at = None, self._clock()

    def _read(self, sha256: str) -> VersionTraffic | None:
        bins = self._deadline.call(self._log.traffic_bins, sha256, horizon_days())
        return VersionTraffic(bins) if len(bins.bin) else None

    # --- the thread -------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread, which reads at once."""
        if self.is_on and self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True, name="traffic")
            self._thread.start()

    def close(self) -> None:
        """Stop the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(STOP_SECONDS)
            self._thread = None

    def _run(self) -> None:
        read_at = float("-inf")
        while True:
            if self._clock() >= read_at + REFRESH_SECONDS or self._is_new():
                self._look()
                read_at = self._clock()
            if self._stop.wait(LOOK_SECONDS):
                return

    def _is_new(self) -> bool:
        """Return whether a version serves whose level was not looked for yet."""
        models = served(self._holder.serving)
        return self._found is None and any(model.sha256 not in self._levels for model in models)

    def _look(self) -> None:
        """Refresh, whatever goes wrong: a dead thread would keep levels for ever."""
        try:
            self.refresh()
        except Exception as error:
            logger.exception("the live traffic could not be refreshed")
            self._found = repr(error)


def _read_nothing(_: str) -> None:
    """Stand in for a level that must not be used."""


def _is_selective() -> bool:
    """Return whether the monitor's last verdict gives the alarm that feedback is selective."""
    try:
        verdict = read_verdict()
    except ContentError:  # said on the page
        return False
    return verdict is not None and verdict.levels().get("selection") == "alarm"
