"""The README's picture: Figure 1 and Figure 2 of the embedded demo side by side, as a real Chromium draws them.

.venv/bin/python docs/pictures.py [/usr/bin/chromium]
"""

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from u2a_core.demo.show import demo_pictures

FLAGS = ("--no-sandbox", "--disable-quic", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
WIDTH, HEIGHT = 900, 900


def main() -> None:
    """Draw, photograph, write docs/demo.png."""
    chromium = sys.argv[1] if len(sys.argv) > 1 else "/usr/bin/chromium"
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        frames = "".join(
            f'<iframe src="{path.as_uri()}" style="width:{WIDTH}px;height:{HEIGHT}px;border:0"></iframe>'
            for path in demo_pictures(Path(folder)).values()
        )
        page_file = Path(folder) / "both.html"
        page_file.write_text(f'<body style="margin:0;display:flex">{frames}</body>', encoding="utf-8")
        browser = playwright.chromium.launch(executable_path=chromium, args=[*FLAGS, "--allow-file-access-from-files"])
        page = browser.new_page(viewport={"width": 2 * WIDTH, "height": HEIGHT})
        page.goto(page_file.as_uri())
        page.wait_for_timeout(4000)
        page.screenshot(path=Path(__file__).parent / "demo.png")
        browser.close()


if __name__ == "__main__":
    main()
