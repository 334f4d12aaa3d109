"""The pages as people use them, in headless Chromium."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import requests

pytest.importorskip("selenium", reason="selenium is not installed")

from browser import Browser
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from service import running_service

pytestmark = pytest.mark.slow

ASKED = "?from=74&to=42&when=2021-02-15T08:30&miles=2.5"
CHECKS = (Path(__file__).parent / "accessibility.js").read_text()
NAMED_ROLES = {
    "textbox", "combobox", "button", "link", "image", "img", "heading", "table", "slider", "radio",
    "listbox", "option", "DateTime", "Date",
}  # fmt: skip


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


def test_what_an_answer_without_past_trips_rests_on_is_told(browser, address):
    zones = requests.get(f"{address}/reach?PULocationID=74", timeout=30).json()["zones"]
    never = next(zone["DOLocationID"] for zone in zones if zone["support"] == 0)
    browser.open_ride(f"?from=74&to={never}")
    browser.wait(lambda: browser.text("model"))  # a linear one
    browser.submit()
    browser.wait(lambda: browser.text("minutes"))
    assert "No past trip went from East Harlem North to" in browser.text("rests-on")
    assert "the answer rests on the mean of all trips" in browser.text("rests-on")


# --- when to leave --------------------------------------------------------------------------

ADVISE = """
const done = arguments[2];
const starts = arguments[0].map((duration, i) => ({ at: 60 * i, duration }));
import("/static/times.js").then(({ advise }) => done(advise(starts, ...arguments[1])));
"""


@pytest.mark.parametrize(
    ("quick", "asked", "now", "expected"),
    [
        # A quick start at 12:00 that has passed at 14:58 is not advised; 16:00 is.
        (
            {12: 5, 16: 9},
            898,
            898,
            (False, 15, 960, 9),
        ),
        # More than three hours away is not near.
        ({19: 5}, 898, 898, (False, 15, 900, 15)),
        # Near midnight the next hours are tomorrow's.
        ({25: 5}, 1400, 1400, (False, 15, 1500, 5)),
        # A start that is to come may be shifted both ways, but not into the past.
        ({9: 5, 12: 4}, 660, 600, (False, 15, 720, 4)),
        ({9: 5}, 660, 500, (False, 15, 540, 5)),
        ({9: 5}, 660, 541, (False, 15, 600, 15)),
        # Of a start in the past, the quickest of its day is told, and never tomorrow's.
        ({5: 6, 25: 5}, 600, 5000, (True, 15, 300, 6)),
        # A minute ago is still now; between full hours lies a line.
        ({10: 10}, 570, 572, (False, 12.5, 600, 10)),
        # The day's last hour is over and tomorrow was not asked for.
        ({}, 1430, 2875, (True, 15, 0, 15)),
    ],
)
def test_advice_is_of_starts_that_can_still_be_made(browser, quick, asked, now, expected):
    browser.open_ride()
    hours = [quick.get(hour, 15) for hour in range(48 if max(quick, default=0) > 23 else 24)]
    found = browser.driver.execute_async_script(ADVISE, hours, [asked, now])
    passed, own, at, duration = expected
    assert found == {"passed": passed, "own": own, "best": {"at": at, "duration": duration}}


def test_a_start_of_long_ago_is_said_to_have_passed(answered):
    said = answered.text("best")
    assert said.startswith("This start has passed") or "no difference" in said


def arrive(browser, moment: str) -> None:
    """Ask when to leave to be there by then."""
    browser.open_ride("?from=74&to=42")
    browser.driver.find_element(By.CSS_SELECTOR, "[name=mode][value=arrive]").click()
    browser.run("document.getElementById('when').value = arguments[0]", moment)
    browser.submit()


def test_arriving_by_a_time_says_when_to_leave_and_the_ride_follows(browser):
    arrive(browser, "2098-02-14T09:00")
    leave = browser.wait(lambda: browser.text("leave-by"))
    assert "08:00" <= leave < "09:00"
    assert "by 09:00, 9 times of 10" in browser.text("leave-why")
    assert not browser.element("miles").is_displayed()
    assert browser.text("hour-says").startswith("now")  # the map is of starts, not of arrivals
    browser.element("leave-ask").click()
    browser.wait(lambda: browser.text("minutes"))
    assert f"leave {leave}" in browser.text("arrival")
    assert browser.wait(lambda: browser.text("hour-says") == f"at {leave}")
    assert not browser.element("leave").is_displayed()


def test_a_time_that_has_passed_is_too_late(browser):
    arrive(browser, "2021-02-15T09:00")
    assert browser.wait(lambda: browser.text("leave-why")).startswith("Too late")
    assert not browser.element("leave-ask").is_displayed()


def test_arriving_needs_a_time(browser):
    arrive(browser, "")
    assert browser.text("pickup_datetime-error") == "Choose a day and a time."
    assert not browser.element("leave").is_displayed()


# --- errors ---------------------------------------------------------------------------------


@pytest.mark.parametrize("miles", ["-3", "far", "2000000"])  # the last one is the service's no
def test_a_bad_distance_is_told_beside_it_in_words_for_people(browser, miles):
    browser.open_ride("?from=74&to=42")
    browser.type("miles", miles)
    browser.submit()
    said = browser.wait(lambda: browser.text("trip_distance-error"))
    assert said.startswith("Miles are a number such as 2.5")
    assert "null" not in said
    assert "trip_distance" not in said
    assert browser.element("miles").get_attribute("aria-invalid") == "true"
    assert browser.run("return document.activeElement.id") == "miles"
    assert not browser.text("form-error")


def test_a_year_that_is_not_answered_is_told_beside_the_time(browser):
    browser.open_ride("?from=74&to=42&when=1931-02-15T08:30")
    browser.submit()
    said = browser.wait(lambda: browser.text("pickup_datetime-error"))
    assert said == "Choose a day and a time between the years 2000 and 2099."


@pytest.mark.parametrize("typed", ["-1", "soon", ""])
def test_a_bad_true_duration_is_told_in_words_for_people(answered, typed):
    answered.type("true-minutes", typed, Keys.ENTER)
    said = answered.wait(lambda: answered.text("duration-error"))
    assert said.startswith("Minutes are a number above 0")


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


def test_the_monitor_begins_with_one_line_and_the_last_hours(answered):
    answered.open("/monitor")
    said = answered.wait(lambda: answered.text("headline"))
    assert said.startswith(("No feedback yet", "Too early to tell"))
    marks = "return document.querySelectorAll('#rides-plot .bar').length"
    assert answered.run(marks) > 0
    assert "24 h ago" in answered.text("rides-plot")


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


# --- with keys ------------------------------------------------------------------------------


@pytest.fixture
def keyed(browser, monkeypatch):
    """The same browser in front of a service that wants a key for all but its pages."""
    monkeypatch.setenv("API_KEYS", "first-key")
    monkeypatch.setenv("MONITOR_ACCESS", "key")
    with running_service() as address:
        yield Browser(browser.driver, address)


def test_a_rider_is_asked_for_a_key_and_then_answered(keyed):
    keyed.open_ride()
    assert not keyed.text("source")
    assert not keyed.element("key-field").is_displayed()
    keyed.open_ride(ASKED)  # the map asks how far one gets
    keyed.wait(lambda: keyed.element("key-field").is_displayed())
    assert "wants a key" in keyed.text("reach-error")
    keyed.type("key", "first-key")
    keyed.submit()
    keyed.wait(lambda: keyed.text("minutes"))
    assert "green-duration:1" in keyed.wait(lambda: keyed.text("model"))
    assert "built-in sample" in keyed.text("source")
    assert "other zones are within" in keyed.wait(lambda: keyed.text("reach-says"))
    assert not keyed.text("reach-error")


def test_an_operator_gives_the_key_as_a_password(keyed):
    with_password = keyed.address.replace("://", "://anybody:first-key@")
    keyed.driver.get(f"{with_password}/monitor")  # as if typed where the browser asks for it
    keyed.open("/monitor")
    keyed.wait(lambda: keyed.text("beat") == "live")
    assert "green-duration:1" in keyed.text("serving")
