"""The pages as people use them, in headless Chromium."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("selenium", reason="selenium is not installed")

from browser import Browser
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from service import running_service

pytestmark = pytest.mark.slow

ASKED = "?from=74&to=42&when=2021-02-15T08:30&miles=2.5"
CHECKS = (Path(__file__).parent / "accessibility.js").read_text()
NAMED_ROLES = {"textbox", "combobox", "button", "link", "image", "img", "heading", "table"}


@pytest.fixture
def answered(browser):
    """The rider's page with an answer."""
    browser.open_ride(ASKED)
    browser.submit()
    browser.wait(lambda: browser.text("minutes"))
    browser.wait(lambda: browser.element("day").is_displayed())
    return browser


# --- a ride ---------------------------------------------------------------------------------


def test_a_ride_picked_by_name_is_answered(browser):
    browser.open_ride()
    browser.pick("from", "east harlem n")
    browser.pick("to", "jfk")
    browser.submit()
    browser.wait(lambda: browser.text("minutes"))
    assert 1 <= int(browser.text("minutes")) <= 60
    assert "East Harlem North → JFK Airport" in browser.text("arrival")
    assert re.search(r"take \d+ to \d+ minutes", browser.text("interval"))


def test_the_answer_says_what_it_rests_on(answered):
    said = answered.text("rests-on")
    assert re.search(r"Like [\d,]+ past trips? between these zones", said)
    assert "Your distance was used" in said
    assert "green-duration:1" in said


def test_reasons_are_shown_on_demand_and_add_up(answered):
    assert not answered.text("reasons")
    answered.element("why").click()
    parts = [
        float(cell.text.replace("−", "-").replace(" ", "").replace("+", ""))
        for cell in answered.driver.find_elements(By.CSS_SELECTOR, "#reasons td")
    ]
    assert sum(parts[:-1]) == pytest.approx(parts[-1], abs=0.06 * len(parts))


def test_the_day_is_drawn_with_its_24_hours(answered):
    assert len(answered.driver.find_elements(By.CSS_SELECTOR, "#profile .hit")) == 24
    assert len(answered.driver.find_elements(By.CSS_SELECTOR, "#hours tr")) == 24
    assert answered.text("best")


def test_the_map_sets_from_and_to(browser):
    browser.open_ride()
    for zone, field in ((132, "from"), (1, "to")):
        x, y = browser.run(PLACE_OF_ZONE, zone)
        picture = browser.element("map")
        ActionChains(browser.driver).move_to_element_with_offset(picture, x, y).click().perform()
        browser.wait(lambda field=field: browser.element(field).get_attribute("value"))
    assert browser.element("from").get_attribute("value") == "JFK Airport, Queens"
    assert browser.element("to").get_attribute("value") == "Newark Airport, EWR"


def test_a_ride_can_be_asked_with_the_keyboard_alone(browser):
    browser.open_ride()
    keys = ActionChains(browser.driver)
    browser.run("document.getElementById('from').focus()")
    keys.send_keys("harlem", Keys.ARROW_DOWN, Keys.ENTER, Keys.TAB).perform()
    ActionChains(browser.driver).send_keys("laguardia", Keys.ENTER, Keys.ENTER).perform()
    browser.wait(lambda: browser.text("minutes"))
    assert "LaGuardia Airport" in browser.text("arrival")


def test_a_question_can_be_sent_as_an_address(answered):
    assert answered.run("return location.search") == (
        "?from=74&to=42&when=2021-02-15T08%3A30&miles=2.5"
    )


def test_a_sample_model_is_said_to_know_nothing_of_new_york(browser):
    browser.open_ride()
    assert "built-in sample" in browser.wait(lambda: browser.text("source"))


# --- errors ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("miles", "said"),
    [("-3", "trip_distance is -3"), ("far", "trip_distance")],
)
def test_a_bad_distance_shows_the_services_error_beside_it(browser, miles, said):
    browser.open_ride("?from=74&to=42")
    browser.type("miles", miles)
    browser.submit()
    assert said in browser.wait(lambda: browser.text("trip_distance-error"))
    assert browser.element("miles").get_attribute("aria-invalid") == "true"
    assert browser.run("return document.activeElement.id") == "miles"
    assert not browser.text("form-error")


def test_a_word_that_is_no_zone_is_said_beside_its_field(browser):
    browser.open_ride("?from=74")
    browser.type("to", "Atlantis")
    browser.submit()
    assert "“Atlantis” is no zone" in browser.text("DOLocationID-error")
    assert not browser.text("PULocationID-error")


def test_a_mended_field_loses_its_error(browser):
    browser.open_ride("?from=74&to=42")
    browser.type("miles", "-3")
    browser.submit()
    browser.wait(lambda: browser.text("trip_distance-error"))
    browser.type("miles", "3")
    browser.submit()
    browser.wait(lambda: browser.text("minutes"))
    assert not browser.text("trip_distance-error")


# --- the monitor ----------------------------------------------------------------------------


def told(browser) -> int:
    """True durations that the monitor knows of."""
    # In one step: the table is made anew every few seconds.
    rows = browser.run(
        "return [...document.querySelectorAll('#versions tr')]"
        ".map((row) => [...row.cells].map((cell) => cell.textContent))"
    )
    return next((int(row[3]) for row in rows if row[0] == "green-duration:1"), 0)


def test_the_monitor_shows_feedback_within_seconds_without_a_reload(answered):
    browser = answered
    page = browser.driver.current_window_handle
    browser.driver.switch_to.new_window("tab")
    browser.open("/monitor")
    browser.wait(lambda: browser.text("serving"))
    monitor, before = browser.driver.current_window_handle, told(browser)
    browser.driver.switch_to.window(page)
    browser.type("true-minutes", "12")
    browser.element("true-minutes").send_keys(Keys.ENTER)
    assert "Thank you" in browser.wait(lambda: browser.text("thanks"))
    browser.driver.switch_to.window(monitor)
    browser.wait(lambda: told(browser) == before + 1)
    browser.driver.close()
    browser.driver.switch_to.window(page)


def test_the_monitor_says_who_serves_and_since_when(browser):
    browser.open("/monitor")
    assert "green-duration:1" in browser.wait(lambda: browser.text("serving"))
    assert "the first model" in browser.wait(lambda: browser.text("history"))
    assert browser.wait(lambda: browser.text("beat")) == "live"


def test_the_monitor_says_when_it_is_cut_off(browser):
    browser.open("/monitor")
    browser.wait(lambda: browser.text("beat") == "live")
    offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
    browser.driver.execute_cdp_cmd("Network.enable", {})
    browser.driver.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
    try:
        browser.wait(lambda: browser.text("beat").startswith("not updated"))
    finally:
        online = {**offline, "offline": False, "downloadThroughput": -1, "uploadThroughput": -1}
        browser.driver.execute_cdp_cmd("Network.emulateNetworkConditions", online)
    browser.wait(lambda: browser.text("beat") == "live")


# --- every page -----------------------------------------------------------------------------


def visit(browser, path: str) -> None:
    """Open a page and fill it with what it can show."""
    if path == "/":
        browser.open_ride(ASKED)
        browser.submit()
        browser.wait(lambda: browser.element("day").is_displayed())
        browser.run("for (const d of document.querySelectorAll('details')) d.open = true")
        return
    browser.open(path)
    if path == "/monitor":
        browser.wait(lambda: browser.text("serving") and browser.text("rides") != "–")


@pytest.mark.parametrize("path", ["/", "/monitor", "/docs"])
def test_pages_write_no_error_and_ask_no_other_host(browser, address, path):
    visit(browser, path)
    assert browser.console() == []
    asked = browser.requests()
    assert len(asked) > 1
    assert [url for url in asked if not url.startswith((address, "data:"))] == []


@pytest.mark.parametrize(
    ("width", "dark"), [(1200, False), (1200, True), (390, False), (320, True)]
)
@pytest.mark.parametrize("path", ["/", "/monitor", "/docs"])
def test_pages_can_be_read_and_tapped(browser, path, width, dark):
    browser.size(width, 800, dark)
    visit(browser, path)
    assert browser.run(CHECKS) == []


@pytest.mark.parametrize("path", ["/", "/monitor"])
def test_controls_and_pictures_have_names(browser, path):
    visit(browser, path)
    nodes = browser.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    nameless = [
        node["role"]["value"]
        for node in nodes
        if not node["ignored"]
        and node.get("role", {}).get("value") in NAMED_ROLES
        and not node.get("name", {}).get("value", "").strip()
    ]
    assert nameless == []


PLACE_OF_ZONE = """
// Where on the map a zone's disc lies, from the middle of the map's holder, in pixels.
const disc = document.querySelector(`#map [data-zone="${arguments[0]}"]`);
disc.scrollIntoView({ block: "center" }); // the driver measures from the middle of what is seen
const a = disc.getBoundingClientRect();
const b = document.getElementById("map").getBoundingClientRect();
const middle = (box) => [box.x + box.width / 2, box.y + box.height / 2];
return middle(a).map((at, i) => Math.round(at - middle(b)[i]));
"""


# --- with keys ------------------------------------------------------------------------------


@pytest.fixture
def keyed(browser, monkeypatch):
    """The same browser in front of a service that wants a key for all but its pages."""
    monkeypatch.setenv("API_KEYS", "first-key")
    monkeypatch.setenv("MONITOR_ACCESS", "key")
    with running_service() as address:
        yield Browser(browser.driver, address)


def test_a_rider_is_asked_for_a_key_and_then_answered(keyed):
    keyed.open_ride(ASKED)
    assert not keyed.text("source")
    assert not keyed.element("key-field").is_displayed()
    keyed.submit()
    keyed.wait(lambda: keyed.element("key-field").is_displayed())
    keyed.type("key", "first-key")
    keyed.submit()
    keyed.wait(lambda: keyed.text("minutes"))
    assert "green-duration:1" in keyed.wait(lambda: keyed.text("model"))
    assert "built-in sample" in keyed.text("source")


def test_an_operator_gives_the_key_as_a_password(keyed):
    with_password = keyed.address.replace("://", "://anybody:first-key@")
    keyed.driver.get(f"{with_password}/monitor")  # as if typed where the browser asks for it
    keyed.open("/monitor")
    keyed.wait(lambda: keyed.text("beat") == "live")
    assert "green-duration:1" in keyed.text("serving")
