"""A service on a tiny model and a browser in front of it; one of each for all tests here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cards import make_card
from service import running_service

from taxi_duration import environment
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
        deploy_champion(save_bundle(folder, model, make_card(model.kind), None), "the first model")
        with running_service() as address:
            yield address


@pytest.fixture(scope="module")
def one_browser(address, tmp_path_factory) -> Iterator[Browser]:
    from browser import open_browser

    with open_browser(address, tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def browser(one_browser: Browser, tmp_path: Path, request) -> Iterator[Browser]:
    """The browser, at its usual size; a picture of how the test left it is kept."""
    one_browser.size(1200, 900)
    one_browser.console()
    one_browser.requests()
    yield one_browser
    one_browser.picture(tmp_path / f"{request.node.originalname}.png", whole=False)
