"""One screenshot of every page of the studio, on the embedded demo with a forget set, a selection and a short run.

.venv/bin/python docs/screenshots.py [--out docs/screenshots] [--only NAME …] [--chromium PATH]   (five minutes or more)

Everything is computed in a temporary folder, but for the comparison of all methods, which came with the demo. The
pictures are 1280 × 800, light; the map is also there in dark.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

from playwright.sync_api import Browser, Error, Page, sync_playwright

from u2a_core.bundle import open_bundle
from u2a_core.store import forget_commands
from u2a_core.store.forget_log import ForgetLog
from u2a_core.store.selections import Selection, save

FLAGS = ("--no-sandbox", "--disable-quic", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
U2A = (sys.executable, "-m", "u2a_core.cli")
SET, RUN = "forget set", "npo-top"
UNLEARNING = (
    ("unlearn", "demo", "--top", "0.02", "--objective", "npo", "--retention", "nll", "--steps", "6", "--run", RUN),
    ("evaluate", "demo", "--run", RUN, "--count", "4", "--max-new-tokens", "48"),
)
PAGES = {  # name of the picture: page and what its address says beside the selection
    "home": ("", {}),
    "influence": ("influence", {}),
    "low_reward": ("low_reward", {}),
    "inspect": ("inspect", {}),
    "forget_set": ("forget_set", {}),
    "unlearn": ("unlearn", {"unlearn_view": "Runs"}),
    "compare": ("compare", {}),
    "compare-methods": ("compare", {"compare_view": "All methods"}),
    "method": ("method", {"step": "5"}),
}
DARK = ("influence",)
DRAWN = """() => {
  const app = document.querySelector('[data-testid=stApp]')
  const plots = [...document.querySelectorAll('[data-testid=stPlotlyChart]')]
  return app?.dataset.testScriptState === 'notRunning' && document.querySelector('h1')
    && !document.querySelector('[data-testid=stSkeleton], [data-testid=stSpinner]')
    && plots.every(one => one.querySelector('.js-plotly-plot .main-svg'))
}"""


def main() -> None:
    """Prepare, serve, photograph; says at the end which pages did not come to rest."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "screenshots")
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    parser.add_argument("--only", nargs="+", help="names of pictures; the others are left as they are")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        os.environ["U2A_CACHE"] = str(Path(folder) / "cache")
        address = curated()
        for command in UNLEARNING:
            subprocess.run([*U2A, *command], check=True)  # noqa: S603 - our own
        with serving(Path(folder)) as studio:
            browser = playwright.chromium.launch(executable_path=asked.chromium, args=[*FLAGS])
            shots = [(name, False) for name in PAGES] + [(name, True) for name in DARK]
            shots = [one for one in shots if not asked.only or one[0] in asked.only]
            missed = [name for name, dark in shots if not photographed(browser, studio, name, address, dark, asked.out)]
            browser.close()
    if missed:
        sys.exit(f"These pages were still busy when they were photographed: {', '.join(missed)}")


def curated() -> dict[str, str]:
    """A curator's work: the samples that help most are selected and put into the forget set, the worst is excluded;
    what an address says of it.
    """
    bundle = open_bundle("demo")
    table = bundle.scores("default").table.sort_values("delta_pa", ascending=False)
    best = table["id"].tolist()[:40]
    selection = Selection(tuple(best), "ΔPA above a threshold")
    save(bundle.results / "selections", selection)
    log = ForgetLog(bundle.results, bundle.candidate_ids)
    for command in (
        forget_commands.add(best),
        forget_commands.set_weight(dict.fromkeys(best[:5], 2.0)),
        forget_commands.lock(best[:2]),
        forget_commands.exclude([table["id"].iloc[-1]]),
    ):
        log.change(SET, command, log.version(SET), "screenshots")
    return {"selection": selection.key, "sample": best[0]}


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The studio on the demo, on a free port; its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ("serve", "demo", "--port", str(port), "--no-browser", "--workspace", str(folder))
    with (folder / "server.txt").open("w") as log:
        server = subprocess.Popen([*U2A, *options], stdout=log, stderr=log, start_new_session=True)  # noqa: S603 - our own
    try:
        for _ in range(300):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(20)


def photographed(browser: Browser, studio: str, name: str, address: dict[str, str], dark: bool, out: Path) -> bool:
    """Take one picture; whether the page had come to rest."""
    path, more = PAGES[name]
    page = browser.new_page(viewport={"width": 1280, "height": 800}, color_scheme="dark" if dark else "light")
    page.goto(f"{studio}/{path}?{urlencode({**address, **more})}")
    done = rested(page)
    page.screenshot(path=out / f"{name}{'-dark' if dark else ''}.png")
    page.close()
    return done


def rested(page: Page) -> bool:
    """Wait until the script has ended and every figure is drawn, twice, a while apart."""
    try:
        for _ in range(2):
            page.wait_for_function(DRAWN, timeout=90_000)
            page.wait_for_timeout(2500)
    except Error:
        return False
    return True


if __name__ == "__main__":
    main()
