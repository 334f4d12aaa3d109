"""Boosters learn the same from rows in memory, in batches and on disk; nothing stays behind."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from taxi_duration import environment
from taxi_duration.errors import SettingError
from taxi_duration.training import device
from taxi_duration.training.boosting import RowBatch, stages, xgb_parameters
from taxi_duration.training.boosting_engine import boost, learn_booster
from taxi_duration.training.tree_packing import FREE_MINUTES, from_xgboost

ANY = {**xgb_parameters(), "rounds": 8, "min_child_weight": 2}  # may rise and fall
FEW = {**ANY, "monotone_constraints": (1, 0, 0, 0, 0)}
ROWS = 3_000


@pytest.fixture
def learned() -> RowBatch:
    """Rows with holes, as distances and zones that are not known make them."""
    rng = np.random.default_rng(2)
    rows = rng.gamma(2.0, 2.0, (ROWS, 5)).astype("float32")
    minutes = (5 + 2 * rows[:, 0] + rows[:, 1] * rows[:, 2] + rng.random(ROWS)).astype("float32")
    rows[rng.random(ROWS) < 0.1, 3] = np.nan
    return RowBatch(rows, minutes, rng.uniform(0.5, 1.5, ROWS))


def cut(whole: RowBatch, size: int):
    """The batches of so many rows each, made anew at each call, and how often they were read."""
    readings: list[int] = []

    def batches():
        readings.append(0)
        for start in range(0, ROWS, size):
            readings[-1] += 1
            yield RowBatch(*(column[start : start + size].copy() for column in whole))

    return batches, readings


def nodes(booster) -> bytes:
    trees = from_xgboost(booster)
    return trees.nodes.tobytes() + trees.bounded.nodes.tobytes()


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize("size", [ROWS, 1_000, 700])
def test_the_size_of_batches_and_where_they_lie_change_no_tree(learned, size, on_disk):
    expected = nodes(learn_booster(*learned, FEW, 0, 1))
    batches, _ = cut(learned, size)
    assert nodes(boost(batches, FEW, 0, 1, on_disk)) == expected


def test_batches_without_rows_change_nothing(learned):
    """A month may have no ride whose distance is known."""
    none = RowBatch(*(column[:0] for column in learned))
    expected = nodes(learn_booster(*learned, FEW, 0, 1))
    for order in ([none, learned], [learned, none]):
        assert nodes(boost(lambda order=order: iter(order), FEW, 0, 1)) == expected


def test_minutes_weights_and_seed_are_learned_from(learned):
    first = nodes(learn_booster(*learned, FEW, 0, 1))
    alike = nodes(learn_booster(learned.rows, learned.minutes, None, FEW, 0, 1))
    ones = nodes(learn_booster(learned.rows, learned.minutes, np.ones(ROWS), FEW, 0, 1))
    others = [nodes(learn_booster(learned.rows, learned.minutes + 1, learned.weight, FEW, 0, 1)),
              nodes(learn_booster(*learned, FEW, 1, 1)), alike]  # fmt: skip
    assert first not in others
    assert alike == ones


def test_rows_are_asked_for_batch_by_batch_a_few_times(learned):
    batches, readings = cut(learned, 500)
    boost(batches, FEW, 0, 1)
    assert readings[:4] == [6] * 4
    assert sum(readings) <= 4 * 6


def scratch() -> list[str]:
    return [path.name for path in environment.scratch_dir().iterdir()]


def test_what_lay_on_disk_is_removed(learned, monkeypatch):
    import xgboost

    seen, train = [], xgboost.train

    def look(parameters, data, rounds, **more):
        (folder,) = environment.scratch_dir().iterdir()
        seen.extend(path.stat().st_size for path in folder.iterdir())
        return train(parameters, data, rounds, **more)

    monkeypatch.setattr(xgboost, "train", look)
    boost(cut(learned, 700)[0], FEW, 0, 1, on_disk=True)
    assert sum(seen) > ROWS * 5
    assert scratch() == []


@pytest.mark.parametrize("after", [0, 2])
def test_it_is_removed_after_an_error_which_reaches_who_asked(learned, after):
    def broken():
        for number, batch in enumerate(cut(learned, 700)[0]()):
            if number == after:
                raise ValueError("a page of the month is damaged")
            yield batch

    with pytest.raises(ValueError, match="a page of the month is damaged"):
        boost(broken, FEW, 0, 1, on_disk=True)
    assert scratch() == []


@pytest.mark.filterwarnings("ignore:.*external memory cache file:UserWarning")
@pytest.mark.filterwarnings("ignore:.*External memory cache file:UserWarning")
def test_it_is_removed_when_a_fit_is_interrupted(learned, monkeypatch):
    import xgboost

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(xgboost, "train", stop)
    with pytest.raises(KeyboardInterrupt):
        boost(cut(learned, 700)[0], FEW, 0, 1, on_disk=True)
    assert scratch() == []


@pytest.fixture
def gpu(monkeypatch):
    """Stands in for XGBoost on a GPU: notes what reaches it, and learns on the processor."""
    import xgboost

    asked = []
    train, booster = xgboost.train, xgboost.Booster

    def learn(parameters, data, rounds, **more):
        asked.append((parameters.get("device"), type(data).__name__))
        return train({**parameters, "device": "cpu"}, data, rounds, **more)

    def configured(parameters=None, *more, **others):
        """What XGBoost takes of `cuda` where there is a GPU."""
        if parameters != {"device": "cuda"}:
            return booster(parameters, *more, **others)
        config = {"learner": {"generic_param": {"device": "cuda:0"}}}
        return SimpleNamespace(save_config=lambda: json.dumps(config))

    monkeypatch.setattr(xgboost, "train", learn)
    monkeypatch.setattr(xgboost, "Booster", configured)
    monkeypatch.setattr(device, "build_info", lambda: {"USE_CUDA": True})
    monkeypatch.setattr(device, "visible_gpus", lambda: 1)
    return asked


@pytest.mark.parametrize("on_disk", [False, True])
def test_the_device_reaches_xgboost_and_its_trees_are_packed_as_any(
    learned, monkeypatch, gpu, on_disk
):
    expected = nodes(learn_booster(*learned, FEW, 0, 1))
    monkeypatch.setenv("DEVICE", "cuda")
    assert nodes(boost(cut(learned, 700)[0], FEW, 0, 1, on_disk)) == expected
    assert gpu == [(None, "QuantileDMatrix")] * 2 + [("cuda", "QuantileDMatrix")] * 2  # stages


@pytest.mark.filterwarnings("ignore:.*Device is changed from GPU to CPU:UserWarning")
def test_xgboost_that_would_take_the_processor_after_all_is_stopped(learned, monkeypatch):
    """A driver that is too old, say: XGBoost itself would only warn."""
    monkeypatch.setenv("DEVICE", "cuda")
    monkeypatch.setattr(device, "build_info", lambda: {"USE_CUDA": True})
    monkeypatch.setattr(device, "visible_gpus", lambda: 1)
    with pytest.raises(SettingError, match="DEVICE is 'cuda', and XGBoost takes cpu"):
        learn_booster(*learned, FEW, 0, 1)
    assert not environment.scratch_dir().exists()


def test_a_build_without_cuda_is_refused_before_it_learns(learned, monkeypatch):
    monkeypatch.setenv("DEVICE", "cuda")
    monkeypatch.setattr(device, "build_info", lambda: {"USE_CUDA": False})
    with pytest.raises(SettingError, match="built without CUDA"):
        boost(lambda: pytest.fail("rows were asked for"), FEW, 0, 1)


def test_trees_that_may_only_rise_come_first_and_the_others_are_bounded(learned):
    first, then = stages(FEW)
    assert (first[1], then[1]) == (6, 2)
    assert first[0]["monotone_constraints"] == FEW["monotone_constraints"]
    assert not any(then[0]["monotone_constraints"])
    trees = from_xgboost(boost(lambda: iter([learned]), FEW, 0, 1))
    assert (len(trees.roots), len(trees.bounded.roots), trees.bound) == (6, 2, FREE_MINUTES)
    alone = from_xgboost(boost(lambda: iter([learned]), {**FEW, "rounds": 1}, 0, 1))
    assert (len(alone.roots), alone.bounded) == (1, None)


def test_without_constraints_there_is_one_stage(learned):
    assert stages(ANY) == [({n: v for n, v in ANY.items() if n != "rounds"}, 8)]
    assert from_xgboost(boost(lambda: iter([learned]), ANY, 0, 1)).bounded is None
