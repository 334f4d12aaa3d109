"""One fit in this process: what it takes, how right it is, and whether it comes out as before."""

from __future__ import annotations

import hashlib
import time
from typing import Any

import numpy as np

from taxi_duration.data.prepared import prepare_months
from taxi_duration.data.window import Window
from taxi_duration.domain.months import parse_months


def timed_fit(kind: str, service: str, train: str, val: str, most: int) -> dict[str, Any]:
    """Fit a kind with its intervals on some months, and score it on later ones.

    Args:
        train, val: months, as a run takes them.
        most: later trips that are scored, evenly spread; up to twice as many.
    Returns:
        `rows` to fit on; seconds to `prepare` them and to `fit`, and `cpu_seconds` of the fit;
        `rmse` with distance and `rmse_none` without, minutes; a digest of the `answers`.
    """
    import xgboost  # noqa: F401  (loading it is not counted)

    from taxi_duration.training.fit import fit_model

    started = time.perf_counter()
    window = Window.learnable(prepare_months(service, parse_months(train)))
    prepared, cpu = time.perf_counter(), time.process_time()
    model = fit_model(kind, window)
    fitted, cpu = time.perf_counter(), time.process_time() - cpu
    rides, actual = Window.scored(prepare_months(service, parse_months(val))).evenly(most)
    minutes = [model.answer(of).duration for of in (rides, rides.without_distance())]
    errors = [float(np.sqrt(np.mean((some - actual) ** 2))) for some in minutes]
    digest = hashlib.sha256(b"".join(some.tobytes() for some in minutes)).hexdigest()
    return {
        "rows": len(window), "prepare": prepared - started, "fit": fitted - prepared,
        "cpu_seconds": cpu, "rmse": errors[0], "rmse_none": errors[1], "answers": digest[:12],
    }  # fmt: skip
