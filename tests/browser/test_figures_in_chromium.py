"""The written pages in a real browser: drawn, silent, offline, and with every text shown as text."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest
from playwright.sync_api import Browser, Page
from synthetic_scores import synthetic_scores

from u2a_core.figures.export import write_html
from u2a_core.figures.influence import InfluenceOptions, influence_figure, paper_influence_figure
from u2a_core.figures.low_reward import LowRewardOptions, low_reward_figure
from u2a_core.store.scores import Scores

pytestmark = pytest.mark.browser

NASTY = "<script>window.ran = 1</script><img src=x onerror='window.ran = 1'> <b>bold</b> &lt;i&gt; ${title}"
SHOWN = "<script>window.ran = 1</script>"


@dataclass
class Visit:
    """An open page and everything it complained about or asked for."""

    page: Page
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@contextmanager
def visiting(browser: Browser, path: Path, scheme: str = "light") -> Iterator[Visit]:
    """Open a written page from the disk; network requests are recorded and refused."""
    context = browser.new_context(viewport={"width": 1400, "height": 1000}, color_scheme=scheme, offline=True)
    visit = Visit(context.new_page())
    visit.page.on("console", lambda message: message.type == "error" and visit.errors.append(message.text))
    visit.page.on("pageerror", lambda error: visit.errors.append(str(error)))
    visit.page.on("request", lambda request: visit.requests.append(request.url))
    try:
        visit.page.goto(path.as_uri())
        visit.page.wait_for_function("document.getElementById('figure').calcdata")
        yield visit
    finally:
        context.close()


def written(folder: Path, draw: Callable[..., go.Figure], options: Any, scores: Scores) -> Path:
    path = folder / "figure.html"
    light, dark = (draw(scores, options(theme=theme)) for theme in ("light", "dark"))
    write_html(
        light, path, title="A title", description="A text", metadata=scores.metadata, dark=dark, samples=scores.table
    )
    return path


@pytest.fixture(scope="module")
def figure_1(chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visit]:
    """Figure 1 with its tables, opened once for the tests that leave it as it is."""
    path = written(tmp_path_factory.mktemp("page"), influence_figure, InfluenceOptions, synthetic_scores(200))
    with visiting(chromium, path) as visit:
        yield visit


@pytest.mark.parametrize(
    ("draw", "options", "n"),
    [
        (influence_figure, InfluenceOptions, 200),
        (paper_influence_figure, InfluenceOptions, 200),
        (low_reward_figure, LowRewardOptions, 3),
    ],
)
def test_every_point_is_drawn_in_silence_and_offline_and_dark_follows_the_reader(
    chromium: Browser, tmp_path: Path, draw: Callable[..., go.Figure], options: Any, n: int
) -> None:
    path = written(tmp_path, draw, options, synthetic_scores(200))
    with visiting(chromium, path, "dark") as visit:
        assert grounds(visit.page) == ("rgb(18, 22, 28)", "#12161c")
        assert drawn_points(visit.page) == n
        visit.page.emulate_media(color_scheme="light")
        visit.page.wait_for_function("document.getElementById('figure')._fullLayout.paper_bgcolor === '#ffffff'")
        assert grounds(visit.page) == ("rgb(255, 255, 255)", "#ffffff")
        assert drawn_points(visit.page) == n
        assert visit.page.locator("table").count() == 2
        assert visit.errors == []
        assert [url for url in visit.requests if not url.startswith(("file:", "data:", "blob:"))] == []


def drawn_points(page: Page) -> int:
    """Points of all marker traces that Plotly made marks for."""
    return page.evaluate(
        """() => document.getElementById('figure').calcdata.map(each => each[0].trace)
             .filter(trace => trace.mode === 'markers')
             .reduce((sum, trace) => sum + (trace.x ?? trace.r).length, 0)"""
    )


def grounds(page: Page) -> tuple[str, str]:
    """The colours behind the page and behind the figure."""
    return (
        page.evaluate("getComputedStyle(document.body).backgroundColor"),
        page.evaluate("document.getElementById('figure')._fullLayout.paper_bgcolor"),
    )


# Counts clearly blue and clearly red pixels of the figure as it would be saved, its legend left out.
COLOURS = """async () => {
  const url = await Plotly.toImage(document.getElementById('figure'), {format: 'png', width: 900, height: 900});
  const image = new Image(); image.src = url; await image.decode();
  const canvas = document.createElement('canvas'); canvas.width = 900; canvas.height = 900;
  const context = canvas.getContext('2d'); context.drawImage(image, 0, 0);
  const pixels = context.getImageData(0, 200, 900, 650).data; let blue = 0, red = 0;
  for (let i = 0; i < pixels.length; i += 4) {
    if (pixels[i + 2] - pixels[i] > 60) { blue += 1; }
    if (pixels[i] - pixels[i + 2] > 60) { red += 1; }
  }
  return {blue, red};
}"""


def test_the_points_of_figure_1_are_on_the_canvas(figure_1: Visit) -> None:
    assert figure_1.page.locator("#figure canvas").count() > 0
    colours = figure_1.page.evaluate(COLOURS)
    assert colours["blue"] > 500
    assert colours["red"] > 500


@pytest.mark.parametrize("kind", ["PNG", "SVG"])
def test_the_figure_can_be_saved(figure_1: Visit, kind: str) -> None:
    with figure_1.page.expect_download() as download:
        figure_1.page.get_by_role("button", name=f"Save as {kind}").click()
    assert download.value.suggested_filename == f"figure.{kind.lower()}"
    start = Path(download.value.path()).read_bytes()[:200]
    assert start.startswith(b"\x89PNG") if kind == "PNG" else b"<svg" in start
    assert figure_1.errors == []


def test_no_button_sends_the_figure_anywhere(figure_1: Visit) -> None:
    buttons = figure_1.page.locator(".modebar-btn").evaluate_all("all => all.map(each => each.dataset.title)")
    assert buttons == ["Download plot as a PNG", "Zoom", "Pan", "Zoom in", "Zoom out", "Autoscale", "Reset axes"]
    assert figure_1.page.locator("a").count() == 0


def test_a_narrow_window_scrolls_the_figure_and_not_the_page(figure_1: Visit) -> None:
    figure_1.page.set_viewport_size({"width": 420, "height": 800})
    width = figure_1.page.evaluate("document.documentElement.scrollWidth")
    figure_1.page.set_viewport_size({"width": 1400, "height": 1000})
    assert width <= 420


@pytest.mark.parametrize(
    ("draw", "options", "shown"),
    [
        (influence_figure, InfluenceOptions(), "Prompt" + SHOWN),
        (low_reward_figure, LowRewardOptions(group_size=1), "<script…"),
    ],
)
def test_text_of_the_data_set_is_shown_literally_in_labels_and_tables(
    chromium: Browser, tmp_path: Path, draw: Callable[..., go.Figure], options: Any, shown: str
) -> None:
    scores = synthetic_scores(3)
    table = scores.table.assign(
        delta_pa=[0.5, -0.25, 0.125], prompt=NASTY, response=NASTY, category=NASTY, id=[f"{NASTY}{i}" for i in range(3)]
    )
    nasty = Scores(table, scores.metadata | {"estimator": NASTY})
    path = tmp_path / "nasty.html"
    write_html(draw(nasty, options), path, title=NASTY, description=NASTY, metadata=nasty.metadata, samples=nasty.table)
    with visiting(chromium, path) as visit:
        hover(visit.page)
        assert shown in (visit.page.locator(".hoverlayer .hovertext").first.text_content() or "")
        cells = visit.page.locator("td.text").all_text_contents()
        assert len(cells) == 6
        assert all(cell == NASTY for cell in cells)
        assert visit.page.locator("h1").text_content() == NASTY
        assert SHOWN in (visit.page.locator("#figure .gtitle-subtitle").text_content() or "")
        assert visit.page.locator("main script, main img").count() == 0
        assert visit.page.evaluate("window.ran") is None
        assert visit.errors == []


def hover(page: Page) -> None:
    """Move the pointer onto the first point of the first marker trace and wait for its label."""
    x, y = page.evaluate(
        """() => {
          const plot = document.getElementById('figure'), layout = plot._fullLayout;
          const trace = plot._fullData.find(each => each.mode === 'markers'), box = plot.getBoundingClientRect();
          return [box.left + layout.xaxis._offset + layout.xaxis.l2p(trace.x[0]),
                  box.top + layout.yaxis._offset + layout.yaxis.l2p(trace.y[0])];
        }"""
    )
    page.mouse.move(x + 30, y + 30)
    page.mouse.move(x, y, steps=4)
    page.wait_for_selector(".hoverlayer .hovertext", timeout=10_000)
