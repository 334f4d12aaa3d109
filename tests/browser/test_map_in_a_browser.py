"""The map of zones and how far one gets, by mouse, finger and keys."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("selenium", reason="selenium is not installed")

from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.actions.wheel_input import ScrollOrigin
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

pytestmark = pytest.mark.slow

JFK, NEWARK, MIDTOWN, HARLEM = 132, 1, 161, 74
WITHIN_ZONE = """
// A point of the screen that lies on a zone: the middle of its box need not.
const path = document.querySelector(`#map [data-zone="${arguments[0]}"]`);
document.getElementById("map").scrollIntoView({ block: "center" });
const { x, y, width, height } = path.getBoundingClientRect();
for (let i = 1; i < 20; i++) for (let j = 1; j < 20; j++) {
  const across = (10 + (i % 2 ? i : -i) / 2) / 20; // from the middle outwards
  const at = [x + width * across, y + (height * j) / 20].map(Math.round);
  if (document.elementFromPoint(...at) === path) return at;
}
"""


@pytest.fixture
def here(browser):
    """The page with a start and how far one gets from it."""
    browser.open_ride(f"?from={HARLEM}&when=2021-02-15T08:30")
    browser.wait(lambda: browser.text("reach-says"))
    return browser


def on(browser, zone: int) -> ActionChains:
    """A mouse over a zone."""
    chain = ActionChains(browser.driver)
    x, y = browser.run(WITHIN_ZONE, zone)
    chain.w3c_actions.pointer_action.move_to_location(x, y)
    return chain


def touch(browser, kind: str, *points: tuple[float, float]) -> None:
    """Fingers as they are now."""
    places = [{"x": x, "y": y, "id": i} for i, (x, y) in enumerate(points)]
    content = {"type": kind, "touchPoints": places}
    browser.driver.execute_cdp_cmd("Input.dispatchTouchEvent", content)


def seen(browser) -> list[float]:
    """What part of the city the map shows: left, top, width, height in km."""
    box = browser.run("return document.querySelector('#map svg').getAttribute('viewBox')")
    return [float(figure) for figure in box.split()]


def value(browser, id: str) -> str:
    return browser.element(id).get_attribute("value")


def test_two_clicks_on_the_map_give_a_ride(browser):
    browser.open_ride()
    on(browser, JFK).click().perform()
    browser.wait(lambda: browser.text("reach-says"))
    assert value(browser, "from") == "JFK Airport, Queens"
    assert not browser.element("answer").is_displayed()
    on(browser, NEWARK).click().perform()
    browser.wait(lambda: browser.text("minutes"))
    assert "JFK Airport → Newark Airport" in browser.text("arrival")


def test_a_zone_under_the_mouse_is_named_with_its_minutes(here):
    on(here, JFK).perform()
    said = here.wait(lambda: here.driver.find_element(By.CLASS_NAME, "zone-name").text)
    assert re.fullmatch(r"JFK Airport, Queens: \d+ minutes?", said)


def test_every_zone_is_coloured_counted_and_in_the_table(here):
    steps = here.run("return [...document.querySelectorAll('#map [data-zone]')]"
                     ".map((path) => path.dataset.reach)")  # fmt: skip
    assert len(steps) == 260  # of 263: three share an outline with another
    assert set(steps) <= set("012345")
    assert len(here.driver.find_elements(By.CSS_SELECTOR, "#legend li")) == 6
    minutes = here.run("return [...document.querySelectorAll('#zones tr')]"
                       ".map((row) => Number(row.cells[1].textContent))")  # fmt: skip
    assert len(minutes) == 263
    assert minutes == sorted(minutes)
    near, of = map(int, re.search(r"(\d+) of (\d+)", here.text("reach-says")).groups())
    assert of == 262
    # The zone itself is in the table, and 20.4 is 20 there.
    assert sum(m < 20 for m in minutes) - 1 <= near <= sum(m <= 20 for m in minutes)


def test_more_minutes_reach_more_zones_and_are_outlined(here):
    counts, outlines = [], []
    here.run("document.getElementById('within').focus()")
    for _ in range(3):
        counts.append(int(re.search(r"(\d+) of", here.text("reach-says"))[1]))
        outlines.append(here.run("return document.querySelector('.reached').getAttribute('d')"))
        ActionChains(here.driver).send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT).perform()
    assert counts[0] < counts[1] <= counts[2]
    assert outlines[0] != outlines[1]
    assert all(outlines)
    assert "within 50 minutes" in here.text("reach-says")


def test_the_hour_is_asked_once_the_slider_rests(here):
    here.requests()
    here.run("document.getElementById('hour').focus()")
    ActionChains(here.driver).send_keys(Keys.ARROW_RIGHT * 3).perform()
    here.wait(lambda: "at 11:00" in here.text("reach-says"))
    assert value(here, "when") == "2021-02-15T11:00"
    asked = [url for url in here.requests() if "/reach" in url]
    assert asked[-1].endswith("PULocationID=74&when=2021-02-15T11%3A00")


def test_an_hour_that_was_seen_is_not_asked_again(here):
    here.run("document.getElementById('hour').focus()")
    for key, hour in ((Keys.ARROW_RIGHT, "09"), (Keys.ARROW_RIGHT, "10")):
        ActionChains(here.driver).send_keys(key).perform()
        here.wait(lambda hour=hour: f"at {hour}:00" in here.text("reach-says"))
    here.requests()
    ActionChains(here.driver).send_keys(Keys.ARROW_LEFT).perform()
    here.wait(lambda: "at 09:00" in here.text("reach-says"))
    assert [url for url in here.requests() if "/reach" in url] == []


def test_keys_go_from_zone_to_zone_and_choose(here):
    here.run("document.querySelector('#map svg').focus()")
    at = "return document.querySelector('#map svg').getAttribute('aria-activedescendant')"
    ActionChains(here.driver).send_keys(Keys.ARROW_DOWN).perform()
    first = here.wait(lambda: here.run(at))
    ActionChains(here.driver).send_keys(Keys.ARROW_DOWN, Keys.ARROW_RIGHT).perform()
    second = here.run(at)
    assert first != second
    label = here.run("return document.getElementById(arguments[0]).ariaLabel", second)
    assert re.search(r": \d+ minutes?$", label)
    ActionChains(here.driver).send_keys(Keys.ENTER).perform()
    here.wait(lambda: here.text("minutes"))
    assert value(here, "to") == label.split(":")[0]


def test_wheel_buttons_and_keys_zoom_and_nothing_leads_out_of_the_city(here):
    whole = seen(here)
    on(here, JFK).perform()
    ActionChains(here.driver).scroll_from_origin(
        ScrollOrigin.from_element(here.element("map")), 0, -600
    ).perform()
    here.wait(lambda: seen(here)[2] < whole[2] / 2)
    here.driver.find_element(By.CSS_SELECTOR, "[data-zoom='0.625']").click()
    wide = seen(here)[2]
    here.run("document.querySelector('#map svg').focus()")
    ActionChains(here.driver).send_keys("+").perform()
    assert seen(here)[2] < wide
    for _ in range(4):
        here.driver.find_element(By.CSS_SELECTOR, "[data-zoom='0.625']").click()
    assert seen(here) == whole
    here.driver.find_element(By.CSS_SELECTOR, "[data-view=manhattan]").click()
    assert seen(here)[2] < whole[2] / 1.5
    ActionChains(here.driver).send_keys("0")
    here.driver.find_element(By.CSS_SELECTOR, "[data-view=city]").click()
    assert seen(here) == whole


def test_fingers_pinch_and_a_small_zone_is_brought_nearer_before_it_is_chosen(browser):
    browser.size(390, 844)
    browser.open_ride()
    x, y = browser.run(WITHIN_ZONE, MIDTOWN)
    whole = seen(browser)
    taps = 0
    while not value(browser, "from"):
        x, y = browser.run(WITHIN_ZONE, MIDTOWN)
        touch(browser, "touchStart", (x, y))
        touch(browser, "touchEnd")
        taps += 1
        assert taps < 4
    assert value(browser, "from") == "Midtown Center, Manhattan"
    assert taps > 1
    assert seen(browser)[2] < whole[2] / 2
    browser.driver.find_element(By.CSS_SELECTOR, "[data-view=city]").click()
    x, y = browser.run(WITHIN_ZONE, JFK)
    touch(browser, "touchStart", (x - 10, y), (x + 10, y))
    for apart in range(20, 80, 10):
        touch(browser, "touchMove", (x - apart, y), (x + apart, y))
    touch(browser, "touchEnd")
    browser.wait(lambda: seen(browser)[2] < whole[2] / 2)
    assert not value(browser, "to")  # a pinch is no tap


@pytest.mark.parametrize(("by_fingers", "said"), [(False, "Wheel"), (True, "Two fingers zoom")])
def test_the_map_says_how_it_is_moved_here(browser, by_fingers, said):
    browser.touch(by_fingers)
    try:
        browser.open_ride()
        assert browser.text("map-keys").startswith(said)
    finally:
        browser.touch(False)
