"""XGBoost: its stored settings, and boosters that learn from rows given batch by batch.

XGBoost is imported where it fits: serving walks packed trees without it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from msgspec import Meta, Struct

from taxi_duration import environment
from taxi_duration.data.window import Window
from taxi_duration.errors import SettingError
from taxi_duration.files import scratch_folder, typed
from taxi_duration.logs import log_step
from taxi_duration.training.device import NO_GPU, check_device
from taxi_duration.training.openmp import bound_spinning
from taxi_duration.training.tree_packing import FREE_TREES

# Rehearsals only calibrate intervals: their error is 1 % larger in a quarter of the time.
REHEARSAL_ROUNDS = 1 / 3  # of a booster's
REHEARSAL_DEPTH = 8
CONSTRAINTS = "monotone_constraints"  # XGBoost's: 1 for a feature with which answers only rise
# Of the rounds, make trees that may fall. Highways make real longer ways quicker: RMSE to trees
# that may all fall, 2021-01 -> 02, 2021-06 -> 07 and 2022-03 -> 04, is +0.39, +0.85 and +0.44 %
# where none may, +0.03, +0.45 and +0.05 % with 40 of 190 free and their sum within half a minute
# (80 of 230: the same), and -0.15, +0.08 and -0.27 % with their sum free.
FREE_SHARE = 1 / 4
PROGRESS_SECONDS = 5.0  # from one line of progress to the next: seldom enough for a log


class RowBatch(NamedTuple):
    """Rows to learn from, float32 of shape (n, k), their minutes and weights, shape (n,)."""

    rows: np.ndarray
    minutes: np.ndarray
    weight: np.ndarray | None


Batches = Callable[[], Iterator[RowBatch]]  # the same ones whenever it is called


@dataclass(frozen=True)
class WindowRows:
    """Batches of rows that are made of a window's trips, here or where the trips are.

    Args:
        make: of a part of the window too; can be sent to another process.
    """

    make: Callable[[Window], Iterator[RowBatch]]
    window: Window

    def __call__(self) -> Iterator[RowBatch]:
        """As `Batches`."""
        return self.make(self.window)


Count = Annotated[int, Meta(ge=1)]
Parameters = dict[str, int | float | str]


class LongSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """What differs where trees learn from many rows: from so many to so many (docs/history.md)."""

    from_rows: Count
    to_rows: Count
    rounds: Count
    parameters: Parameters

    def of(self, rows: int) -> dict[str, Any]:
        """Return what differs where trees learn from this number of rows."""
        is_long = self.from_rows <= rows <= self.to_rows
        return {"rounds": self.rounds, **self.parameters} if is_long else {}


class XGBSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """The form of `xgb_settings.json`."""

    rounds: Count
    parameters: Parameters
    long: LongSettings

    def __post_init__(self) -> None:
        """A name that XGBoost does not know would change nothing, and so would no rows."""
        if unknown := self.long.parameters.keys() - self.parameters.keys():
            raise ValueError(f"long: {', '.join(sorted(unknown))}: `parameters` has no such name")
        if self.long.from_rows > self.long.to_rows:
            raise ValueError("long: `from_rows` is more than `to_rows`")


@cache
def xgb_settings() -> dict[str, Any]:
    """Return `rounds` and `parameters` as tuned (see `tuning.py`) and stored with the package.

    Returns:
        Beside them `long`, as `LongSettings`.
    Raises:
        ContentError: names what is wrong in the file.
    """
    content = json.loads((files(__package__) / "xgb_settings.json").read_text())
    typed(content, XGBSettings, "xgb_settings.json")
    return dict(content)


def long_settings() -> LongSettings:
    """Return what is stored for long windows."""
    return typed(xgb_settings()["long"], LongSettings, "xgb_settings.json: long")


def xgb_parameters() -> dict[str, Any]:
    """Return the same side by side, as `learn_booster` takes them."""
    return flat_settings(xgb_settings())


def flat_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Return `rounds` and `parameters` side by side."""
    return {"rounds": settings["rounds"], **settings["parameters"]}


def quicker_boosting(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return what a booster changes to learn about as much in a quarter of the time."""
    return {
        "rounds": max(round(parameters["rounds"] * REHEARSAL_ROUNDS), 1),
        "eta": min(parameters["eta"] / REHEARSAL_ROUNDS, 1.0),
        "max_depth": REHEARSAL_DEPTH,
    }


def boost_here(
    batches: Batches, parameters: dict[str, Any], seed: int, threads: int, on_disk: bool = False
) -> Any:
    """Return a booster that this process fits; the same one whatever the size of the batches.

    Of the rows XGBoost keeps the bin of each value, and reads the batches four times for that.

    Args:
        parameters: XGBoost's, and `rounds`.
        on_disk: the bins lie in files until the end, and are read again for each level of a tree.
    Raises:
        SettingError: XGBoost cannot compute where `DEVICE` says.
    """
    bound_spinning()  # before the import
    device = environment.device()
    if device != "cpu":
        _check_used(device)
    own = {"seed": seed, "nthread": threads} | ({} if device == "cpu" else {"device": device})
    bins = {"max_bin": parameters["max_bin"], "nthread": threads}
    # A GPU takes its bins from memory: XGBoost has no pages for it that were made without one.
    is_paged = on_disk and device == "cpu"
    with scratch_folder(environment.scratch_dir()) if is_paged else nullcontext() as folder:
        return _train({**parameters, **own}, _matrix(batches, folder, bins))


def _train(parameters: dict[str, Any], matrix: Any) -> Any:
    """Fit on a matrix that nobody else holds: it removes its files before their folder goes."""
    import xgboost

    booster, progress = None, _log_rounds(parameters["rounds"])
    for given, rounds in stages(parameters):
        booster = xgboost.train(given, matrix, rounds, xgb_model=booster, callbacks=[progress])
    return with_free_trees(booster, parameters)


def stages(parameters: dict[str, Any]) -> list[tuple[dict[str, Any], int]]:
    """Return what XGBoost is given in each stage of a fit, one after the other, and the rounds.

    Trees that may only rise with the distance come first, where there are any; the last FREE_SHARE
    of the rounds correct them, and may fall.
    """
    given = {name: value for name, value in parameters.items() if name != "rounds"}
    rounds, free = parameters["rounds"], free_rounds(parameters)
    if not free:
        return [(given, rounds)]
    may_fall = {**given, CONSTRAINTS: (0,) * len(given[CONSTRAINTS])}
    return [(given, rounds - free), (may_fall, free)]


def free_rounds(parameters: dict[str, Any]) -> int:
    """Return how many of the rounds make trees that may fall."""
    return round(FREE_SHARE * parameters["rounds"]) if any(parameters.get(CONSTRAINTS, ())) else 0


def with_free_trees(booster: Any, parameters: dict[str, Any]) -> Any:
    """Return a fitted booster that says which of its trees may fall (see `from_xgboost`)."""
    booster.set_attr(**{FREE_TREES: str(free_rounds(parameters))})
    return booster


def _matrix(batches: Batches, folder: Path | None, bins: dict[str, int]) -> Any:
    """Return the bins of all rows, in memory, or in files of a folder."""
    import xgboost

    if folder is None:
        return xgboost.QuantileDMatrix(_iterate(batches), **bins)
    return xgboost.ExtMemQuantileDMatrix(_iterate(batches, str(folder / "pages")), **bins)


def _check_used(device: str) -> None:
    """Make sure that XGBoost computes where `DEVICE` says: without a GPU it only warns.

    Raises:
        SettingError: it would not.
    """
    import xgboost

    check_device()
    row = xgboost.DMatrix(np.zeros((1, 1)))
    config = json.loads(xgboost.Booster({"device": device}, [row]).save_config())
    used = config["learner"]["generic_param"]["device"]
    if not used.startswith(device):
        raise SettingError(f"DEVICE is {device!r}, and XGBoost takes {used}: {NO_GPU}")


def _iterate(batches: Batches, pages: str | None = None) -> Any:
    """Return the batches as XGBoost asks for them.

    Args:
        pages: how the names of files begin that they are kept in; None for none.
    """
    from xgboost import DataIter

    class RowIterator(DataIter):  # type: ignore[misc, unused-ignore]
        def reset(self) -> None:
            self.left = batches()

        def next(self, input_data: Callable[..., None]) -> bool:
            batch = next(self.left, None)
            if batch is not None:
                input_data(data=batch.rows, label=batch.minutes, weight=batch.weight)
            return batch is not None

    return RowIterator(cache_prefix=pages)


def _log_rounds(rounds: int) -> Any:
    """Return a callback that logs now and then how many trees a booster has."""
    from xgboost.callback import TrainingCallback

    class LogRounds(TrainingCallback):  # type: ignore[misc, unused-ignore]
        logged_at = time.monotonic()

        def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
            if time.monotonic() - self.logged_at >= PROGRESS_SECONDS:
                self.logged_at = time.monotonic()
                log_step(f"{epoch + 1} of {rounds} trees")
            return False  # go on

    return LogRounds()
