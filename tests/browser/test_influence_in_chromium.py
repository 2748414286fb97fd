"""The influence map in a real Chromium: a lasso selects what it goes around, a click brings a sample into focus."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Page

pytestmark = pytest.mark.browser

TRAY = "(document.querySelector('.st-key-tray')?.textContent ?? '')"
# Every drawn point: id and pixels from the window's corner.
POINTS = """() => {
  const plot = document.querySelector('.js-plotly-plot'), layout = plot._fullLayout, box = plot.getBoundingClientRect();
  const left = box.left + layout.xaxis._offset, top = box.top + layout.yaxis._offset;
  return plot._fullData.filter(trace => trace.customdata).flatMap(trace => Array.from(trace.customdata, (id, i) =>
    [id, left + layout.xaxis.l2p(trace.x[i]), top + layout.yaxis.l2p(trace.y[i])]));
}"""


@pytest.fixture
def page(demo_page: Page, demo_address: str) -> Page:
    """The page, drawn."""
    demo_page.goto(f"{demo_address}/influence?map_radius=signed-log")
    drawn(demo_page)
    return demo_page


def drawn(page: Page) -> None:
    page.wait_for_function(f"document.querySelector('.js-plotly-plot')?._fullData && {TRAY}")
    page.evaluate("document.querySelector('.js-plotly-plot').scrollIntoView({block: 'center'})")
    page.wait_for_timeout(2000)  # Streamlit draws a figure more than once before it is still


def points(page: Page) -> tuple[np.ndarray, np.ndarray]:
    """Ids and pixels [N, 2] of all points."""
    found = page.evaluate(POINTS)
    return np.array([one[0] for one in found]), np.array([one[1:] for one in found], dtype=float)


def lasso_around(page: Page, centre: np.ndarray, radius: float) -> None:
    """Draw a circle that ends a little short of its start."""
    corners = [centre + radius * np.array([math.cos(turn), math.sin(turn)]) for turn in np.arange(0, 2 * math.pi, 0.12)]
    page.mouse.move(*corners[0])
    page.mouse.down()
    for corner in corners[1:]:
        page.mouse.move(*corner)
    page.mouse.up()


def clear_circle(places: np.ndarray, centre: np.ndarray, most: int) -> tuple[float, np.ndarray]:
    """A radius around `centre` at which no point is near, and the points within, fewer than `most`."""
    distance = np.linalg.norm(places - centre, axis=1)
    ascending = np.sort(distance)[3:most]
    gap = int(np.diff(ascending).argmax())
    assert np.diff(ascending)[gap] > 2  # pixels: no doubt about what is inside
    radius = float(ascending[gap : gap + 2].mean())
    return radius, distance < radius


def kept_selection(page: Page, folder: Path) -> Any:
    """What the selection's link in the address names."""
    key = page.evaluate("new URL(location).searchParams.get('selection')")
    return json.loads((folder / "cache" / "demo" / "selections" / f"{key}.json").read_text())


def test_a_lasso_selects_exactly_what_it_goes_around_and_the_forget_set_outlives_a_reload(
    page: Page, demo_folder: Path
) -> None:
    ids, places = points(page)
    assert len(ids) == 2000
    middle = (places.max(0) + places.min(0)) / 2
    reach = np.ptp(places[:, 0]) / 2
    first, second = middle + np.array([0.75 * reach, -0.35 * reach]), middle + np.array([-0.7 * reach, 0.5 * reach])
    radius, inside = clear_circle(places, first, 60)
    lasso_around(page, first, radius)
    page.wait_for_function(f"{TRAY}.startsWith('{inside.sum()} selected')")
    page.wait_for_function("location.search.includes('selection=')")
    assert set(kept_selection(page, demo_folder)["ids"]) == set(ids[inside])
    outlines = "document.querySelector('.js-plotly-plot')._fullLayout.selections.length"
    page.wait_for_timeout(1500)
    assert page.evaluate(outlines) == 1  # the figure was not drawn anew under the lasso

    page.get_by_role("radio", name="Add", exact=True).click()
    page.wait_for_timeout(1500)
    ids, places = points(page)
    radius, others = clear_circle(places, second, 60)
    lasso_around(page, second, radius)
    both = set(ids[inside]) | set(ids[others])
    page.wait_for_function(f"{TRAY}.startsWith('{len(both)} selected')")
    page.wait_for_timeout(1000)
    assert set(kept_selection(page, demo_folder)["ids"]) == both

    page.get_by_role("button", name="Add to the forget set").click()
    told = f"In the forget set 'forget set': {len(both)}; excluded: 0."
    page.wait_for_function(f"{TRAY}.includes({json.dumps(told)})")
    page.reload()
    drawn(page)
    page.wait_for_function(f"{TRAY}.includes({json.dumps(told)})")
    marked = page.evaluate(
        "document.querySelector('.js-plotly-plot')._fullData.filter(trace => trace.customdata)"
        ".flatMap(trace => Array.from(trace.selectedpoints, i => trace.customdata[i]))"
    )
    assert set(marked) == both


def test_a_click_brings_a_sample_into_focus(page: Page) -> None:
    ids, places = points(page)
    middle = (places.max(0) + places.min(0)) / 2
    extreme = int(np.linalg.norm(places - middle, axis=1).argmax())
    x, y = places[extreme]
    page.mouse.move(x + 20, y + 20)
    page.mouse.move(x, y, steps=4)
    page.wait_for_selector(".hoverlayer .hovertext")
    page.mouse.click(x, y)
    page.wait_for_function(f"location.search.includes('sample={ids[extreme]}')")
    page.get_by_text(f"id {ids[extreme]}").wait_for()
    assert page.evaluate(TRAY).startswith("0 selected")
