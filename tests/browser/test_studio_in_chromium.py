"""`u2a serve` in a real Chromium: both pages draw, nothing leaves the machine, texts of the data set stay text."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from studio_server import serving
from synthetic_scores import synthetic_scores

from u2a_core.bundle import FORMAT_VERSION, open_bundle, write_manifest
from u2a_core.store.scores import write_scores

pytestmark = pytest.mark.browser
CANDIDATES = 320


def bundle_with_scores(folder: Path) -> Path:
    """A bundle to show, not to score: manifest, a model folder to fingerprint, and two scores files, one stale."""
    (folder / "policy").mkdir(parents=True)
    (folder / "policy" / "config.json").write_text("{}")
    data = {"sha256": "0" * 64, "seed": 0, "max_length": 64}
    write_manifest(
        folder, {"format_version": FORMAT_VERSION, "name": "synthetic", "data": data, "policy": {"path": "policy"}}
    )
    scores = synthetic_scores(CANDIDATES)
    for name, bundle_hash in (("default", open_bundle(folder).hash), ("stale", "another")):
        write_scores(
            folder / "scores" / f"{name}.parquet", scores.table, {**scores.metadata, "bundle_hash": bundle_hash}
        )
    return folder


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("studio")
    with serving(folder, str(bundle_with_scores(folder / "bundle"))) as address:
        yield address


@pytest.fixture
def elsewhere() -> list[str]:
    """Addresses other than the studio's own that the page asked for."""
    return []


@pytest.fixture
def page(chromium: Browser, address: str, elsewhere: list[str]) -> Iterator[Page]:
    opened = chromium.new_page(viewport={"width": 1300, "height": 1000})
    opened.on(
        "request", lambda request: address in request.url.replace("ws://", "http://") or _note(elsewhere, request.url)
    )
    yield opened
    opened.close()


def _note(elsewhere: list[str], url: str) -> None:
    if not url.startswith(("data:", "blob:")):
        elsewhere.append(url)


def test_the_low_reward_page_opens_from_its_own_address_on_a_fresh_server(
    page: Page, address: str, elsewhere: list[str]
) -> None:
    page.goto(f"{address}/low_reward")
    page.wait_for_selector(".js-plotly-plot", timeout=60_000)
    page.wait_for_function(
        "[...document.querySelectorAll('.js-plotly-plot')].some(p => p.textContent.includes('Spearman'))"
    )
    assert page.locator("text=Page not found").count() == 0
    expect(page.get_by_test_id("stSidebar").get_by_role("combobox").first).to_have_value("bundle", timeout=30_000)
    assert elsewhere == []


def test_the_influence_page_draws_every_candidate(page: Page, address: str, elsewhere: list[str]) -> None:
    page.goto(f"{address}/influence")
    page.wait_for_selector(".js-plotly-plot", timeout=60_000)
    drawn = page.evaluate(
        "document.querySelector('.js-plotly-plot')._fullData.filter(t => t.type === 'scattergl')"
        ".reduce((n, t) => n + t._length, 0)"
    )
    assert drawn == CANDIDATES
    assert elsewhere == []
    assert page.locator("[data-title='Share chart…'], [data-title*='Chart Studio']").count() == 0


def test_other_scores_are_chosen_by_the_address_and_stale_ones_are_refused(page: Page, address: str) -> None:
    page.goto(f"{address}/influence?scores=stale")
    page.wait_for_selector("text=These scores cannot be shown", timeout=60_000)
    assert page.locator("text=changed since").count() >= 1
