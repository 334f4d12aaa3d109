"""A service on a tiny model and a browser in front of it; one of each for all tests here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cards import make_card
from service import running_service

from taxi_duration import environment
from taxi_duration.domain.version import Version
from taxi_duration.live.deployment import deploy_champion
from taxi_duration.model.bundle import save_bundle

if TYPE_CHECKING:  # selenium may not be installed
    from browser import Browser


@pytest.fixture(scope="module")
def address(tmp_path_factory, fitted) -> Iterator[str]:
    """Address of a service that answers with a model learned from the sample."""
    from browser import missing

    if missing():
        pytest.skip(missing())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TAXI_HOME", str(tmp_path_factory.mktemp("browser") / "home"))
        model = fitted("LR")
        folder = environment.models_dir() / "green-duration" / "1"
        champion = Version.of(save_bundle(folder, model, make_card(model.kind), None))
        deploy_champion(champion, "the first model")
        with running_service() as address:
            yield address


@pytest.fixture(scope="module")
def one_browser(address, tmp_path_factory) -> Iterator[Browser]:
    from browser import open_browser

    with open_browser(address, tmp_path_factory.mktemp("profile")) as browser:
        yield browser


HAS_PASSED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    """Let the browser know whether its test passed."""
    report = yield
    if report.when == "call":
        item.stash[HAS_PASSED] = report.passed
    return report


@pytest.fixture
def browser(one_browser: Browser, tmp_path: Path, request) -> Iterator[Browser]:
    """The browser, at its usual size; a picture of how a test that failed left it is kept."""
    one_browser.size(1200, 900)
    one_browser.console()
    one_browser.requests()
    yield one_browser
    if not request.node.stash.get(HAS_PASSED, False):
        one_browser.picture(tmp_path / f"{request.node.originalname}.png", whole=False)
