"""docs/extending.md is true: its files are there, its recipe for other trees runs as it stands."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from commands import PROJECT

from taxi_duration.data.window import Window
from taxi_duration.domain.rides import Rides
from taxi_duration.model.state import from_state, to_state
from taxi_duration.training import kinds, tree_models, tree_packing
from taxi_duration.training.fit import fit_model

TEXT = (PROJECT / "docs" / "extending.md").read_text()
NAMES = sorted(set(re.findall(r"`([\w./-]+/[\w./-]*)`", TEXT)))
ELASTIC, LEARN, PACK, LINE = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def test_the_page_names_files():
    assert len(NAMES) > 12


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_the_page_names_is_there(name):
    assert (PROJECT / name).exists()


def added(monkeypatch, line: str, **more) -> str:
    """Add a recipe's line to the table of kinds; return its name."""
    found = eval(f"{{{line}}}", {**vars(kinds), **more})
    for name, kind in found.items():
        monkeypatch.setitem(kinds.KINDS, name, kind)
    return next(iter(found))


def test_another_linear_model_takes_one_line(trips, monkeypatch):
    name = added(monkeypatch, ELASTIC)
    rides, duration = Rides.from_frame(trips), trips["duration"].to_numpy()
    model = fit_model(name, Window.from_frame(trips))
    told = {name: model.parameters[name] for name in ("alpha", "seed", "rows_tables")}
    assert (model.kind, told) == ("ELASTIC", {"alpha": 0.0003, "seed": 0, "rows_tables": 600})
    assert "rows_trees" not in model.parameters
    assert np.abs(model.answer(rides).duration - duration).mean() < 3


def test_trees_of_another_library_take_the_three_pieces(sample_months, monkeypatch, quick_trees):
    learn_hist = piece(LEARN, vars(tree_models), "learn_hist")
    from_hist = piece(PACK, vars(tree_packing), "from_hist")
    fitted = []

    def learn(*arguments):
        fitted.append((arguments[0], learn_hist(*arguments)))
        return fitted[-1][1]

    name = added(monkeypatch, LINE, learn_hist=learn, from_hist=from_hist)
    told = kinds.KINDS[name]
    assert (told.parameters, told.quicker) == ({"max_iter": 300}, {"max_iter": 100})
    few = replace(told, parameters={"max_iter": 30, "max_bins": 32}, quicker={"max_iter": 10})
    monkeypatch.setitem(kinds.KINDS, name, few)
    month = sample_months[0].head(1500)
    rides, duration = Rides.from_frame(month), month["duration"].to_numpy()
    made = fit_model(name, Window.from_frame(month))
    model = from_state(to_state(made))  # as it is saved and loaded
    assert model.parameters["max_iter"] == 30
    assert "eta" not in model.parameters
    assert [boosting.max_iter for _, boosting in fitted] == [30, 30, *[10] * 6]
    for rows, boosting in fitted:
        packed = from_hist(boosting).predict(rows)
        np.testing.assert_allclose(packed, boosting.predict(rows), rtol=1e-5, atol=1e-3)
    assert np.abs(model.answer(rides).duration - duration).mean() < 4


def piece(text: str, module: dict[str, object], name: str):
    """Run a recipe's function as if it stood in the module."""
    scope = dict(module)
    exec(text, scope)
    return scope[name]
