"""What a run says that it has registered: whether it serves, and how to promote it."""

from __future__ import annotations

import pytest

from taxi_duration import environment
from taxi_duration.chain.released import registered_text
from taxi_duration.domain.version import Version
from taxi_duration.live.deployment import deploy_champion, set_challenger

FIRST, SECOND, THIRD = (Version("green-duration", n, str(n) * 64, "sample") for n in (1, 2, 3))
PROMOTE = "`python pipeline.py promote green-duration:2` lets it serve"


def said(made_by: str = "this", beats: bool = True) -> str:
    model = {"name": "green-duration", "version": 2, "made_by": made_by, "beats_lookups": beats}
    return registered_text({"run_id": "this", "model": model})


def test_first_version_serves(home):
    deploy_champion(SECOND, "first")
    assert said() == "registered green-duration:2 (champion): it serves"


@pytest.mark.parametrize(
    ("made_by", "what"),
    [("this", "registered green-duration:2"),
     ("another", "nothing new to register: green-duration:2 is this very model")],
)  # fmt: skip
def test_version_beside_a_champion_is_told_with_who_serves_and_how_to_promote(home, made_by, what):
    deploy_champion(FIRST, "first")
    assert said(made_by) == f"{what}; green-duration:1 still serves. {PROMOTE} instead"
    set_challenger(THIRD, "test", shadow=True)
    assert said(made_by) == f"{what}; green-duration:1 still serves. {PROMOTE} instead"


def test_version_that_is_there_and_serves_is_current(home):
    deploy_champion(SECOND, "first")
    assert said("another") == (
        "nothing new to register: green-duration:2 is this very model, is current and serves"
    )


def test_version_under_test_is_told_as_such(home):
    deploy_champion(FIRST, "first")
    set_challenger(SECOND, "test", shadow=True)
    assert said() == (
        "registered green-duration:2, which is under test; green-duration:1 still serves. "
        f"{PROMOTE} now"
    )


def test_version_that_no_lookup_loses_to_does_not_serve_and_why_is_said(home):
    assert said(beats=False) == (
        "registered green-duration:2; nothing serves: it does not beat every lookup. "
        f"{PROMOTE} all the same"
    )


def test_deployment_that_is_damaged_is_no_champion(home):
    deploy_champion(SECOND, "first")
    (environment.deployment_dir() / "deployment.json").write_text("{")
    assert said() == f"registered green-duration:2; nothing serves. {PROMOTE} all the same"
