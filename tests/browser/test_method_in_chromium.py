"""The page Method in a real Chromium: the lesson by its keys, full screen, and the quiz."""

import pytest
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.browser
FITS = "(main => main.scrollHeight <= main.clientHeight + 20)(document.querySelector('[data-testid=stMain]'))"


def open_screen(page: Page, address: str, query: str) -> None:
    page.set_viewport_size({"width": 1280, "height": 720})
    page.goto(f"{address}/method?{query}")
    expect(page.locator(".st-key-lesson h1")).to_be_visible(timeout=60_000)


def press_until_heard(page: Page, expected: str) -> None:
    """PageDown, again while the page is still being built up and hears no keys."""
    for _ in range(20):
        page.keyboard.press("PageDown")
        try:
            return expect(page.locator(".st-key-lesson h1")).to_contain_text(expected, timeout=5000)
        except AssertionError:
            continue
    raise AssertionError(f"20 times PageDown did not lead to {expected}")


def test_the_keys_walk_through_the_steps_and_each_fits_on_the_screen(demo_page: Page, demo_address: str) -> None:
    open_screen(demo_page, demo_address, "present=true")
    heading = demo_page.locator(".st-key-lesson h1")
    for number in range(1, 7):
        expect(heading).to_contain_text(f"{number}. ", timeout=60_000)
        if number > 2:
            expect(demo_page.locator(".js-plotly-plot .main-svg").first).to_be_visible(timeout=60_000)
        demo_page.wait_for_function(FITS, timeout=30_000)
        if number > 1:
            demo_page.wait_for_url(f"**step={number}*")
            demo_page.keyboard.press("PageDown")
        else:
            press_until_heard(demo_page, "2. ")
    expect(heading).to_contain_text("Quiz", timeout=60_000)
    demo_page.keyboard.press("PageUp")
    expect(heading).to_contain_text("6. ", timeout=60_000)


def test_full_screen_hides_the_sidebar_enlarges_and_is_in_the_address(demo_page: Page, demo_address: str) -> None:
    open_screen(demo_page, demo_address, "step=2")
    sidebar, heading = demo_page.get_by_test_id("stSidebar"), demo_page.locator(".st-key-lesson h1")
    size = "one => parseFloat(getComputedStyle(one).fontSize)"
    expect(sidebar).to_be_visible()
    before = heading.evaluate(size)
    demo_page.get_by_text("Full screen").click()
    expect(sidebar).to_be_hidden()
    demo_page.wait_for_url("**present=true**")
    assert heading.evaluate(size) > before
    demo_page.reload()
    expect(heading).to_contain_text("2. ", timeout=60_000)
    expect(sidebar).to_be_hidden()
    demo_page.get_by_text("Full screen").click()
    expect(sidebar).to_be_visible()


def test_a_question_from_the_address_is_answered_revealed_and_followed_by_another(
    demo_page: Page, demo_address: str
) -> None:
    open_screen(demo_page, demo_address, "step=Quiz&question=3")
    cards = demo_page.locator(".st-key-quiz .card")
    expect(cards).to_have_count(4)
    question = cards.all_inner_texts()
    expect(demo_page.locator(".js-plotly-plot")).to_have_count(0)
    demo_page.locator(".st-key-quiz").get_by_text("B", exact=True).click()
    demo_page.get_by_role("button", name="Reveal").click()
    bars = demo_page.locator(".js-plotly-plot .bars .point")
    expect(bars).to_have_count(4, timeout=60_000)
    assert demo_page.locator(".js-plotly-plot .ytick", has_text="hurts most").count() == 1
    expect(demo_page.get_by_text("of 1 right")).to_be_visible()
    demo_page.keyboard.press("PageDown")
    demo_page.wait_for_url("**question=4**")
    expect(demo_page.locator(".js-plotly-plot")).to_have_count(0)
    assert cards.all_inner_texts() != question
