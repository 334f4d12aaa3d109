"""The pages while the service is slow, restarted, partly broken, empty or changing its model."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("selenium", reason="selenium is not installed")

import pandas as pd
from cards import make_card

from taxi_duration import environment
from taxi_duration.domain.version import Version
from taxi_duration.evaluation.health import Health
from taxi_duration.live.deployment import deploy_champion
from taxi_duration.live.verdict import VERDICT_FILE, write_verdict
from taxi_duration.loop.monitor import make_verdict
from taxi_duration.model.bundle import save_bundle

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
CHECKS = (HERE / "accessibility.js").read_text()
FULL = (HERE / "full_monitor.js").read_text()

# Answers to a path come when `held` is called, the first one's first.
HOLD = """
const [start] = arguments, real = window.fetch;
window.held = [];
window.fetch = (path, ...rest) => path.startsWith(start)
  ? new Promise((go) => window.held.push(() => go(real(path, ...rest)))) : real(path, ...rest);
"""
# As if an answer lacked a part.
LACK = """
const real = window.fetch;
window.fetch = async (path, ...rest) => {
  const response = await real(path, ...rest);
  if (!path.startsWith("/monitor/data")) return response;
  return Response.json({ ...await response.json(), traffic: null });
};
"""
# As if the service were stopped until `up` is set.
STOP = """
const real = window.fetch;
window.fetch = async (...asked) => {
  if (!window.up) throw new TypeError("Failed to fetch");
  return real(...asked);
};
"""
# As if the answer had not got into the log.
FORGET = """
const real = window.fetch;
window.fetch = async (path, ...rest) => {
  const response = await real(path, ...rest);
  if (!path.startsWith("/predict")) return response;
  return Response.json({ ...await response.json(), prediction_id: "0".repeat(32) });
};
"""


@pytest.fixture
def injected(browser):
    """Run a script in every page before its own, until the test ends."""
    command, added = "Page.{}ScriptToEvaluateOnNewDocument", []

    def inject(script: str) -> None:
        source = {"source": f"{{ {script} }}"}
        added.append(browser.driver.execute_cdp_cmd(command.format("add"), source))

    yield inject
    for one in added:
        browser.driver.execute_cdp_cmd(command.format("remove"), one)


@pytest.fixture
def blocked(browser):
    """Block addresses; none are blocked after the test."""

    def block(*addresses: str) -> None:
        browser.driver.execute_cdp_cmd("Network.enable", {})
        browser.driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": list(addresses)})

    yield block
    block()


def held(browser, count: int) -> None:
    browser.wait(lambda: browser.run("return window.held.length") == count)


def ask_and_hold(browser) -> None:
    """Ask for a ride whose answer waits until it is released."""
    browser.open_ride("?from=74&to=42")
    browser.run(HOLD, "/predict")
    browser.submit()
    held(browser, 1)


def release(browser, at: int) -> None:
    browser.run("window.held[arguments[0]]()", at)


def test_a_slow_answer_names_the_ride_that_was_asked(browser):
    ask_and_hold(browser)
    browser.type("to", "jfk and then")
    release(browser, 0)
    browser.wait(lambda: browser.text("minutes"))
    assert "East Harlem North → Central Harlem North" in browser.text("arrival")
    assert not browser.text("form-error")


def test_an_answer_that_comes_after_the_next_question_is_not_shown(browser):
    ask_and_hold(browser)
    browser.pick("to", "jfk")
    browser.submit()
    held(browser, 2)
    release(browser, 1)
    browser.wait(lambda: "JFK Airport" in browser.text("arrival"))
    release(browser, 0)
    browser.wait(lambda: browser.element("day").is_displayed())
    browser.run("window.told = 0; fetch('/health').then(() => window.told = 1)")
    browser.wait(lambda: browser.run("return window.told"))
    assert "→ JFK Airport" in browser.text("arrival")
    assert browser.run("return location.search").startswith("?from=74&to=132")


def test_a_ride_is_answered_where_the_map_cannot_be_drawn(browser, blocked):
    blocked("*/zones/shapes")
    browser.open_ride("?from=74&to=42")
    assert "cannot be drawn" in browser.text("no-map")
    assert not browser.element("map-keys").is_displayed()
    assert "other zones are within" in browser.wait(lambda: browser.text("reach-says"))
    browser.submit()
    browser.wait(lambda: browser.text("minutes"))


def test_a_page_that_was_opened_during_a_restart_becomes_ready_by_itself(browser, injected):
    injected(STOP)
    browser.open("/?from=74&to=42")
    browser.wait(lambda: browser.text("form-error"))
    browser.submit()
    assert browser.text("form-error").startswith("The service cannot be reached")
    browser.run("window.up = true")
    browser.wait(lambda: browser.run("return document.documentElement.dataset.ready"))
    assert not browser.text("form-error")
    browser.submit()
    browser.wait(lambda: browser.text("minutes"))


def test_the_day_of_another_ride_does_not_stay_beside_the_answer(browser, blocked):
    browser.open_ride("?from=74&to=42")
    browser.submit()
    browser.wait(lambda: browser.element("day").is_displayed())
    blocked("*/profile*")
    browser.pick("to", "jfk")
    browser.submit()
    browser.wait(lambda: browser.text("form-error"))
    assert "JFK Airport" in browser.text("arrival")
    assert not browser.element("day").is_displayed()


def test_a_duration_of_an_answer_that_is_not_logged_is_not_said_to_count(browser):
    browser.open_ride("?from=74&to=42")
    browser.run(FORGET)
    browser.submit()
    browser.wait(lambda: browser.text("minutes"))
    browser.type("true-minutes", "12", "\ue007")
    assert "not in the log" in browser.wait(lambda: browser.text("thanks"))


def test_the_monitor_of_a_new_installation_shows_all_its_parts(browser):
    health = Health("live log", "green-duration:1", 0, 0, pd.DataFrame(), [], [])
    write_verdict(make_verdict(health))
    try:
        browser.open("/monitor")
        browser.wait(lambda: "0 rides" in browser.text("verdict-about"))
        assert browser.wait(lambda: browser.text("beat")) == "live"
        assert "the first model" in browser.text("history")
        assert browser.text("traffic-about")
    finally:
        (environment.live_dir() / VERDICT_FILE).unlink()


def test_a_part_of_the_monitor_that_cannot_be_shown_hides_no_other(browser, injected):
    injected(LACK)
    browser.open("/monitor")
    browser.wait(lambda: browser.text("beat").startswith("not updated"))
    assert "the first model" in browser.text("history")


@pytest.mark.parametrize("width", [1200, 1000, 820, 700, 390, 320])
def test_no_table_of_the_monitor_is_cut_however_full_it_is(browser, injected, width):
    injected(FULL)
    browser.size(width, 800)
    browser.open("/monitor")
    browser.wait(lambda: browser.text("beat") == "live" and browser.text("decisions"))
    assert browser.run(CHECKS) == []


def test_a_phone_names_the_column_of_each_cell(browser, injected):
    injected(FULL)
    browser.size(390, 800)
    browser.open("/monitor")
    browser.wait(lambda: browser.text("decisions"))
    said = """const cell = document.querySelector("#decisions td:last-child");
              return getComputedStyle(cell, "::before").content"""
    assert browser.run(said) == '"why"'


def test_a_model_that_came_after_the_page_was_opened_is_named_on_it(browser, fitted):
    browser.open_ride("?from=74&to=42")
    browser.wait(lambda: "green-duration:1 " in browser.text("model"))
    model = fitted("RIDGE")
    folder = environment.models_dir() / "green-duration" / "2"
    second = Version.of(save_bundle(folder, model, make_card(model.kind, version=2), None))
    deploy_champion(second, "the second model")

    def answered_by_it() -> bool:
        browser.submit()
        browser.wait(lambda: browser.text("minutes"))
        return "green-duration:2" in browser.text("rests-on")

    browser.wait(answered_by_it)
    assert "Model green-duration:2 (RIDGE)" in browser.text("model")
