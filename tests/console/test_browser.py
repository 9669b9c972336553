"""The pages in a real browser, by mouse and by keyboard, wide and narrow."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from console_parts import ADA, MODEL, RUTH
from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

if TYPE_CHECKING:
    from collections.abc import Callable

    from console_parts import Console
    from selenium.webdriver.chrome.webdriver import WebDriver

pytestmark = pytest.mark.contract
SCREENSHOTS = os.environ.get("HOLDFAST_SCREENSHOTS", "")


def until(browser: WebDriver, holds: Callable[[], object]) -> None:
    # One page is leaving while the next one comes.
    leaving = (NoSuchElementException, StaleElementReferenceException)
    wait = WebDriverWait(browser, 15, poll_frequency=0.05, ignored_exceptions=leaving)
    wait.until(lambda _: holds())


def text(browser: WebDriver) -> str:
    return browser.find_element(By.TAG_NAME, "main").text


def sign_in(browser: WebDriver, console: Console, token: str, path: str = "/models") -> None:
    browser.get(console.url + path)
    # The page puts the cursor there.
    until(browser, lambda: browser.switch_to.active_element.get_attribute("id") == "token")
    browser.switch_to.active_element.send_keys(token, Keys.ENTER)
    until(browser, lambda: browser.find_elements(By.CSS_SELECTOR, "header .user"))
    until(browser, lambda: browser.execute_script("return document.readyState") == "complete")


def shot(browser: WebDriver, name: str) -> None:
    if SCREENSHOTS:
        browser.save_screenshot(str(Path(SCREENSHOTS, f"{name}.png")))


def complaints(browser: WebDriver) -> list[str]:
    """Return what the browser says against a page: refused content, script errors."""
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


def test_a_wrong_token_is_told_and_a_right_one_leads_where_one_wanted_to_go(
    console: Console, browser: WebDriver
) -> None:
    browser.get(f"{console.url}/models/{MODEL}")
    shot(browser, "sign-in")
    browser.find_element(By.ID, "token").send_keys("hft_nobodys", Keys.ENTER)
    until(browser, lambda: "does not know this token" in text(browser))
    browser.find_element(By.ID, "token").send_keys(ADA, Keys.ENTER)
    until(browser, lambda: browser.current_url == f"{console.url}/models/{MODEL}")


def test_a_card_shows_what_it_says_and_runs_and_loads_nothing(
    console: Console, browser: WebDriver
) -> None:
    sign_in(browser, console, ADA, f"/models/{MODEL}")
    shot(browser, "card")
    assert "Tiny <script>alert(1)</script>" in text(browser)
    assert not browser.find_elements(By.CSS_SELECTOR, ".card img, .card script")
    assert browser.find_element(By.CSS_SELECTOR, ".card table").text.split() == ["a", "b", "1", "2"]
    link = browser.find_element(By.CSS_SELECTOR, ".card a")
    assert "noopener" in link.get_attribute("rel")
    loaded = browser.execute_script(
        "return performance.getEntriesByType('resource').map(entry => entry.name)"
    )
    assert loaded
    assert all(name.startswith(console.url) for name in loaded)
    assert complaints(browser) == []


def test_the_list_narrows_as_one_types(console: Console, browser: WebDriver) -> None:
    sign_in(browser, console, ADA)
    until(browser, lambda: MODEL in text(browser))
    assert "/models" in browser.current_url
    shot(browser, "models")
    browser.find_element(By.ID, "search").send_keys("nothing-like-it")
    until(browser, lambda: "Nothing here" in text(browser))
    assert "search=nothing-like-it" in browser.current_url
    assert complaints(browser) == []


def test_files_are_listed_and_text_is_shown(console: Console, browser: WebDriver) -> None:
    sign_in(browser, console, ADA, f"/models/{MODEL}/files/main")
    shot(browser, "files")
    for name in ("tokenizer/", "deep/", "größe 100% #1.txt"):
        until(browser, lambda name=name: browser.find_elements(By.LINK_TEXT, name))
        browser.find_element(By.LINK_TEXT, name).click()
    until(browser, lambda: browser.find_elements(By.CSS_SELECTOR, "pre.file"))
    assert browser.find_element(By.CSS_SELECTOR, "pre.file").text == "ü"
    browser.get(f"{console.url}/models/{MODEL}/file/main/model.safetensors")
    assert "This file is not text" in text(browser)


def test_provenance_names_every_link(console: Console, browser: WebDriver) -> None:
    sign_in(browser, console, ADA, f"/models/{MODEL}/provenance/main")
    shot(browser, "provenance")
    assert len(browser.find_elements(By.CSS_SELECTOR, "tbody tr")) >= 3
    assert "jurisdiction: de" in text(browser)


def test_a_reviewer_approves_by_keyboard_on_a_phone(console: Console, browser: WebDriver) -> None:
    browser.set_window_size(390, 800)
    sign_in(browser, console, RUTH, "/models?state=scanned")
    until(browser, lambda: MODEL in text(browser))
    shot(browser, "phone-list")
    browser.find_element(By.LINK_TEXT, MODEL).send_keys(Keys.ENTER)
    until(browser, lambda: "/review/" in browser.current_url)
    shot(browser, "phone-review")
    wide = browser.execute_script(
        "return document.documentElement.scrollWidth > document.documentElement.clientWidth"
    )
    assert not wide, "a phone would have to scroll sideways"
    note = browser.find_element(By.ID, "note")
    note.send_keys("weights compared", Keys.TAB)
    button = browser.switch_to.active_element
    assert button.text == "Approve"
    button.send_keys(Keys.ENTER)
    until(browser, lambda: "1 of 1" in browser.find_element(By.ID, "review").text)
    shot(browser, "phone-approved")
    assert "ruth" in text(browser)
    assert "weights compared" in text(browser)
    assert complaints(browser) == []
    assert {"model.approve", "review"} & {
        str(event.get("event") or event.get("operation")) for event in console.registry.ledger()
    }, json.dumps(console.registry.ledger()[-3:])


def test_one_who_may_not_review_has_no_button(console: Console, browser: WebDriver) -> None:
    sign_in(browser, console, ADA, f"/models/{MODEL}/review/main")
    shot(browser, "review")
    assert "State" in text(browser)
    assert not browser.find_elements(By.ID, "note")


def test_every_control_has_a_name_and_focus_shows(console: Console, browser: WebDriver) -> None:
    sign_in(browser, console, RUTH, f"/models/{MODEL}/review/main")
    nameless = browser.execute_script(
        "return [...document.querySelectorAll('a, button, input, select, textarea')]"
        ".filter(e => !(e.innerText || e.labels?.length || e.ariaLabel)).map(e => e.outerHTML)"
    )
    assert nameless == []
    browser.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
    skip = browser.switch_to.active_element
    assert skip.text == "Skip to the content"
    style = browser.execute_script("return getComputedStyle(arguments[0]).outlineStyle", skip)
    assert style == "solid"
