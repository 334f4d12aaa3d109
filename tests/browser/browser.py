"""A headless Chromium for tests and screenshots, and what it says about a page."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

BROWSERS = ("chromium", "google-chrome")
DRIVER = "chromedriver"
PATIENCE_SECONDS = 20.0  # on a machine that is busy with other things
ARGUMENTS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--hide-scrollbars",
)  # fmt: skip
Found = TypeVar("Found")


def missing() -> str | None:
    """Return why no browser can be started here, None when one can."""
    if not any(map(shutil.which, BROWSERS)):
        return f"no {' or '.join(BROWSERS)} on this machine"
    return None if shutil.which(DRIVER) else f"no {DRIVER} on this machine"


class Browser:
    """A page in a browser, by the ids of its elements."""

    def __init__(self, driver: webdriver.Chrome, address: str) -> None:
        self.driver = driver
        self.address = address

    def size(self, width: int, height: int, dark: bool = False) -> None:
        """Be a screen of this size and taste; below 600 pixels a phone."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})

    def touch(self, by_fingers: bool) -> None:
        """Be a screen that is touched, or not."""
        self.driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": by_fingers})

    def open(self, path: str) -> None:
        """Open a page of the service."""
        self.driver.get(self.address + path)

    def open_ride(self, query: str = "") -> None:
        """Open the rider's page and wait for its zones."""
        self.open(f"/{query}")
        self.wait(lambda: self.run("return document.documentElement.dataset.ready"))

    def element(self, id: str) -> WebElement:
        """Return an element."""
        return self.driver.find_element(By.ID, id)

    def text(self, id: str) -> str:
        """Return an element's text; empty when it is not shown."""
        return self.element(id).text

    def type(self, id: str, *keys: str) -> None:
        """Put keys into an empty field."""
        field = self.element(id)
        field.clear()
        field.send_keys(*keys)

    def pick(self, id: str, text: str) -> None:
        """Type into a zone's field and take the first suggestion."""
        self.type(id, text)
        self.wait(lambda: self.element(f"{id}-list").is_displayed())
        self.element(id).send_keys("\ue007")  # Enter

    def submit(self) -> None:
        """Ask."""
        self.driver.find_element(By.CSS_SELECTOR, "#ride button[type=submit]").click()

    def run(self, script: str, *arguments: Any) -> Any:
        """Run JavaScript in the page and return what it returns."""
        return self.driver.execute_script(script, *arguments)

    def wait(self, look: Callable[[], Found]) -> Found:
        """Look until something true is seen, and return it.

        Raises:
            TimeoutError: it did not come.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (seen := look()):
            if time.monotonic() > deadline:
                raise TimeoutError("the page did not get there")
            time.sleep(0.05)
        return seen

    def console(self) -> list[str]:
        """Return what was written to the console since the last call."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Return the addresses that were asked for since the last call."""
        messages = [json.loads(e["message"])["message"] for e in self.driver.get_log("performance")]
        return [
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
        ]

    def picture(self, path: Path, whole: bool = True) -> None:
        """Write a PNG of the page, as long as it is."""
        width, height = self.run("return [innerWidth, innerHeight]")
        if whole:
            self._height(width, self.run("return document.documentElement.scrollHeight"))
        path.parent.mkdir(parents=True, exist_ok=True)
        self.driver.save_screenshot(str(path))
        self._height(width, height)

    def _height(self, width: int, height: int) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        time.sleep(0.2)  # charts are drawn again in their new width


@contextmanager
def open_browser(address: str, profile: Path) -> Iterator[Browser]:
    """Start a browser with an empty profile; it ends with the block.

    Args:
        address: of the service.
        profile: a new folder.
    """
    options = Options()
    options.binary_location = next(filter(None, map(shutil.which, BROWSERS)))
    for argument in (*ARGUMENTS, f"--user-data-dir={profile}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    # Both paths are given, so that selenium does not look for a browser on the net.
    driver = webdriver.Chrome(options, Service(shutil.which(DRIVER)))
    try:
        browser = Browser(driver, address)
        browser.size(1200, 900)
        yield browser
    finally:
        driver.quit()
