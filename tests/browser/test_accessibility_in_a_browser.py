"""What the pages say and show in every state, for people who see, hear or tap less well."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("selenium", reason="selenium is not installed")

from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

pytestmark = pytest.mark.slow

CHECKS = (Path(__file__).parent / "accessibility.js").read_text()
ANSWERED = "?from=74&to=42&when=2021-02-15T08:30&miles=2.5"
SAID = "[aria-live], [role=status], [role=alert]"
# What has the focus, and how wide the line around it is.
FOCUSED = """
const { activeElement: at } = document, { outlineStyle, outlineWidth } = getComputedStyle(at);
if (at === document.body) return null;
return [at.id || at.textContent.trim(), outlineStyle === "none" ? 0 : parseFloat(outlineWidth)];
"""
# Where Tab stops; of radio buttons at the chosen one only.
STOPS = """
const all = "a[href], button, input:not([type=radio]), input:checked, select, summary, [tabindex]";
return [...document.querySelectorAll(all)].filter((one) => one.checkVisibility())
  .map((one) => one.id || one.textContent.trim());
"""


def with_errors(browser) -> None:
    """The form with every field refused, and a list of zones open."""
    browser.open_ride("?to=42&when=1931-02-15T08:30")
    browser.type("miles", "-3")
    browser.submit()
    browser.wait(lambda: browser.text("trip_distance-error"))
    browser.type("from", "harlem")
    browser.wait(lambda: browser.element("from-list").is_displayed())


def with_arrival(browser) -> None:
    """When to leave, with an error of the service's."""
    browser.open_ride("?from=74&to=42")
    browser.driver.find_element(By.CSS_SELECTOR, "[name=mode][value=arrive]").click()
    browser.run("document.getElementById('when').value = '2098-02-14T09:00'")
    browser.submit()
    browser.wait(lambda: browser.text("leave-by"))
    browser.run("document.getElementById('when').value = '1931-02-14T09:00'")
    browser.submit()
    browser.wait(lambda: browser.text("pickup_datetime-error"))


def with_answer(browser) -> None:
    """An answer with its day and reasons, as a table too."""
    browser.open_ride(ANSWERED)
    browser.submit()
    browser.wait(lambda: browser.element("day").is_displayed())
    browser.run("for (const d of document.querySelectorAll('details')) d.open = true")


def with_a_wrong_duration(browser) -> None:
    """An answer, and a true duration that cannot be."""
    with_answer(browser)
    browser.type("true-minutes", "soon", Keys.ENTER)
    browser.wait(lambda: browser.text("duration-error"))


def with_sliders_moved(browser) -> None:
    """The map coloured for another hour and other minutes."""
    browser.open_ride("?from=74&when=2021-02-15T08:30")
    for id in ("hour", "within"):
        browser.wait(lambda: browser.text("reach-says"))
        browser.run("document.getElementById(arguments[0]).focus()", id)
        ActionChains(browser.driver).send_keys(Keys.ARROW_RIGHT).perform()
    browser.wait(lambda: "at 09:00" in browser.text("reach-says"))
    assert "within 25 minutes" in browser.text("reach-says")
    browser.run("document.querySelector('#map svg').focus()")
    ActionChains(browser.driver).send_keys(Keys.ARROW_DOWN).perform()


STATES = [with_errors, with_arrival, with_a_wrong_duration, with_sliders_moved]


@pytest.mark.parametrize(("width", "dark"), [(1200, True), (320, False)])
@pytest.mark.parametrize("state", STATES)
def test_the_riders_page_can_be_read_and_tapped_whatever_it_says(browser, state, width, dark):
    browser.size(width, 800, dark)
    state(browser)
    assert browser.run(CHECKS) == []


@pytest.mark.parametrize("id", ["arrival", "leave-by", "form-error", "reach-says", "thanks"])
def test_what_comes_later_is_read_out(browser, id):
    browser.open_ride()
    said = "return document.getElementById(arguments[0]).closest(arguments[1])"
    assert browser.run(said, id, SAID)


def with_monitor(browser) -> None:
    """The monitor with its charts and tables."""
    browser.open("/monitor")
    browser.wait(lambda: browser.text("serving") and browser.text("rides") != "–")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("state", [with_answer, with_monitor])
def test_tab_shows_where_it_is_at_every_stop_and_leads_out_again(browser, state, dark):
    browser.size(1200, 900, dark)
    state(browser)
    wanted, outlines = set(browser.run(STOPS)), {}
    keys = ActionChains(browser.driver)
    browser.run("document.querySelector('.brand').focus()")
    keys.key_down(Keys.SHIFT).send_keys(Keys.TAB).key_up(Keys.SHIFT).perform()
    for _ in range(3 * len(wanted)):
        if (at := browser.run(FOCUSED)) is None:
            break
        # A date's parts are stops of their own; its button has the browser's own line.
        outlines[at[0]] = max(at[1], outlines.get(at[0], 0))
        ActionChains(browser.driver).send_keys(Keys.TAB).perform()
    else:
        pytest.fail("Tab never leads out of the page")
    assert wanted - set(outlines) == set()
    assert [name for name, width in outlines.items() if width < 2] == []
