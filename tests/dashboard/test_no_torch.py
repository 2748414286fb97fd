"""The web process draws every page without torch, transformers and peft."""

import os
import subprocess
import sys
from pathlib import Path

from u2a_core.dashboard.frame import PAGES
from u2a_core.dashboard.served import VARIABLE, Served

ROOT = Path(__file__).resolve().parents[2]
CODE = """
import sys
from streamlit.testing.v1 import AppTest
for page in sys.argv[1:]:
    opened = AppTest.from_file(page, default_timeout=300).run()
    assert not opened.exception, (page, opened.exception)
    assert opened.title, page
    loaded = {'torch', 'transformers', 'peft'} & {*sys.modules}
    assert not loaded, (page, loaded)
print('drawn:', len(sys.argv) - 1)
"""


def test_every_page_is_drawn_on_the_demo_without_torch(tmp_path: Path) -> None:
    (tmp_path / "pages").mkdir()
    scripts = []
    for page in PAGES:
        path = ROOT / "pages" / f"{page}.py"
        (tmp_path / "pages" / path.name).write_text("")  # for the navigation
        script = tmp_path / f"only_{page}.py"
        script.write_text(
            "from u2a_core.dashboard.frame import close, frame, navigation\n"
            f"navigation()\nframe()\nexec(compile(open({str(path)!r}).read(), {str(path)!r}, 'exec'))\nclose()\n"
        )
        scripts.append(str(script))
    told = Served(("demo",), tmp_path).written()
    environment = {**os.environ, "U2A_CACHE": str(tmp_path / "cache"), VARIABLE: told, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [sys.executable, "-c", CODE, *scripts],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert f"drawn: {len(PAGES)}" in run.stdout
