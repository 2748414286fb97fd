"""Unlearning in a real Chromium: a real job is started, found again after a reload and cancelled; another one ends."""

import re

import pytest
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.browser
SMALL = (
    "unlearn_what=Random+share&unlearn_random=0.005&unlearn_preset=Longer&unlearn_Longer_objective=ga"
    "&unlearn_Longer_ga_retention=none&unlearn_Longer_batch_size=2&unlearn_Longer_retain_sample=20"
    "&unlearn_Longer_monitor=4&unlearn_Longer_check_every=1"
)
PATIENT = 240_000  # milliseconds: other work may run on these cores


def begin(page: Page, address: str, steps: int) -> str:
    """Start a small run from the form, and the name it has."""
    page.goto(f"{address}/unlearn?{SMALL}")
    field = page.get_by_label("Steps", exact=True)
    field.fill(str(steps))
    field.press("Enter")
    command = page.locator("code", has_text=f"--steps {steps}")
    expect(command).to_be_visible()
    page.get_by_role("button", name="Start unlearning").click()
    found = re.search(r"--run (\S+)", command.inner_text())
    assert found is not None
    return found[1]


def test_a_job_survives_a_reload_and_is_cancelled_and_the_next_one_ends(demo_page: Page, demo_address: str) -> None:
    first = begin(demo_page, demo_address, 400)
    cancel = demo_page.get_by_role("button", name="Cancel")
    expect(cancel).to_be_visible(timeout=PATIENT)
    assert "unlearn_view=Runs" in demo_page.url
    demo_page.reload()
    expect(cancel).to_be_visible(timeout=PATIENT)
    expect(demo_page.get_by_text(f"run {first}").first).to_be_visible()
    cancel.click()
    expect(demo_page.get_by_test_id("stMain").get_by_text("cancelled").first).to_be_visible(timeout=PATIENT)

    second = begin(demo_page, demo_address, 2)
    main = demo_page.get_by_test_id("stMain")
    expect(main.get_by_text("Kept step")).to_be_visible(timeout=PATIENT)
    assert f"unlearn_run={second}" in demo_page.url
    expect(main.get_by_text("2 of 2")).to_be_visible()
    expect(main.get_by_text("all 2 steps were taken").first).to_be_visible()
    demo_page.wait_for_selector(".js-plotly-plot")
    drawn = demo_page.evaluate("document.querySelector('.js-plotly-plot').data.map(one => one.x.length)")
    assert drawn == [3, 3, 3, 3]  # the start and two checks in four panels
