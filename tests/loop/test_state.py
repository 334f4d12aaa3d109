"""Where the loop stands, as it lies on disk."""

from __future__ import annotations

from typing import get_args

import pytest
from msgspec.structs import replace

from taxi_duration.domain.version import Version
from taxi_duration.errors import ContentError
from taxi_duration.files import read_json, write_json
from taxi_duration.live.deployment import deploy_champion
from taxi_duration.loop.settings import auto_settings
from taxi_duration.loop.state import Stage, State, Unlogged, read_state, write_state
from taxi_duration.loop.turn import STEPS, next_step

CHAMPION, CHALLENGER = (Version("green-duration", n, str(n) * 64, "tlc") for n in (1, 2))
ENTRIES = [
    {"name": "green-duration", "version": n, "model_sha256": str(n) * 64, "data_source": "tlc"}
    for n in (1, 2)
]
STATE = State(
    stage="shadow",
    serial=6,
    since=1_614_556_800.5,
    month="2021-03",
    window=3,
    run_id="20210301-040506-ab12",
    attempts=2,
    training_minutes=3.25,
    challenger=CHALLENGER,
    champion=CHAMPION,
    looked_at="2021-02",
    republished=("d" * 64,),
    proven=True,
    ab_share=0.25,
    tested_since=1_614_500_000.5,
    noted_since=(1_614_600_000.5, 1_614_500_000.5),
    why="nearer by 0.5 min",
    unlogged=(Unlogged("5:gate:pass green-duration:2", CHALLENGER), Unlogged("4:train:x", None)),
)
CONTENT = {
    "stage": "shadow",
    "serial": 6,
    "since": 1_614_556_800.5,
    "month": "2021-03",
    "window": 3,
    "run_id": "20210301-040506-ab12",
    "attempts": 2,
    "training_minutes": 3.25,
    "challenger": ENTRIES[1],
    "champion": ENTRIES[0],
    "looked_at": "2021-02",
    "republished": ["d" * 64],
    "proven": True,
    "ab_share": 0.25,
    "tested_since": 1_614_500_000.5,
    "noted_since": [1_614_600_000.5, 1_614_500_000.5],
    "why": "nearer by 0.5 min",
    "untold": [
        {"key": "5:gate:pass green-duration:2", "model": ENTRIES[1]},
        {"key": "4:train:x", "model": None},
    ],
}


@pytest.fixture
def path(home):
    return home / "deployment" / "auto.json"


def test_loop_that_never_ran_is_idle(home):
    assert read_state() == State()


def test_state_keeps_its_form_on_disk_and_comes_back_whole(path):
    write_state(STATE)
    assert read_json(path) == CONTENT
    assert read_state() == STATE


def test_state_of_the_release_before_is_read(path):
    """It knew neither share nor clocks; its stages all have their names still."""
    new = ("ab_share", "noted_since")
    before = {name: value for name, value in CONTENT.items() if name not in new}
    for stage in ("idle", "train", "gate", "start_shadow", "shadow", "start_ab", "ab", "promote",
                  "drop", "roll_back"):  # fmt: skip
        write_json(path, {**before, "stage": stage})
        assert read_state() == replace(STATE, stage=stage, ab_share=0.0, noted_since=None)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"stage": "asleep"}, "stage"),
        ({"serial": "6"}, "serial is '6', expected is `int`"),
        ({"challenger": {**ENTRIES[1], "version": "2"}}, "challenger.version is '2'"),
        ({"untold": [{"model": None}]}, "missing required field `key`"),
        ({"proven": 1}, "proven is 1, expected is `bool`"),
    ],
)
def test_state_of_another_form_is_refused_with_what_to_do(path, change, said):
    write_json(path, {**CONTENT, **change})
    with pytest.raises(ContentError, match=r"auto\.json cannot be read .*begins anew") as error:
        read_state()
    assert said in str(error.value)


@pytest.mark.parametrize("content", ["", "[]", "{", "null"])
def test_state_that_is_no_state_is_refused(path, content):
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(ContentError, match=r"auto\.json"):
        read_state()


def test_every_stage_has_its_step():
    assert set(STEPS) == set(get_args(Stage))


@pytest.mark.parametrize("lacks", ["challenger", "champion"])
def test_stage_that_lacks_what_it_needs_says_so(home, lacks):
    deploy_champion(CHAMPION, "first")
    with pytest.raises(ContentError, match=rf"auto\.json: stage shadow needs {lacks}"):
        next_step(None, auto_settings(), replace(STATE, **{lacks: None}))
