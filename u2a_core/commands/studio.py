"""`u2a serve` and `u2a demo`: the dashboard in the browser, and the embedded demo, shown or made from nothing."""

import os
import subprocess
import sys
from pathlib import Path

import click

from u2a_core.commands.options import json_option, printed
from u2a_core.errors import BundleError


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--port", default=8501, show_default=True)
@click.option(
    "--browser/--no-browser", default=None, help="Open a browser window.  [default: where there is a display]"
)
def serve(bundle: Path, port: int, browser: bool | None) -> None:
    """Show the scores of BUNDLE in the browser, at http://127.0.0.1:8501 and nowhere else.

    \b
    Example:
      u2a serve my-bundle
    """
    from u2a_core.bundle import open_bundle

    opened = open_bundle(bundle)
    app = studio_script()
    headless = not (has_display() if browser is None else browser)
    settings = {
        "server.address": "127.0.0.1",
        "server.port": port,
        "server.headless": str(headless).lower(),
        "server.fileWatcherType": "none",
        "browser.gatherUsageStats": "false",
    }
    options = [f"--{name}={value}" for name, value in settings.items()]
    command = [
        sys.executable,
        "-m",
        "u2a_core.dashboard.launch",
        "run",
        str(app),
        *options,
        "--",
        opened.reference if opened.read_only else str(opened.path.resolve()),
    ]
    click.echo(f"Studio at http://127.0.0.1:{port} (Ctrl-C ends it)")
    raise SystemExit(subprocess.run(command, cwd=app.parent, check=False).returncode)  # noqa: S603 - our own command line


@click.group(invoke_without_command=True)
@click.option("--open/--no-open", "open_", default=None, help="Open the picture.  [default: where there is a display]")
@json_option
@click.pass_context
def demo(context: click.Context, open_: bool | None, as_json: bool) -> None:
    """Show the pictures of the embedded demo, the bundle that every command knows as `demo`.

    \b
    Example:
      u2a demo
      u2a score demo --objective npo --scores npo
    """
    if context.invoked_subcommand:
        return
    from u2a_core.bundle import DEMO, demo_results
    from u2a_core.demo.show import demo_pictures

    pictures = demo_pictures(demo_results())
    printed({"bundle": DEMO, **{name: str(path) for name, path in pictures.items()}}, as_json)
    if has_display() if open_ is None else open_:
        click.launch(pictures["influence"].resolve().as_uri())


@demo.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the new bundle.")
@click.option("--reduced", is_flag=True, help="A small one in seconds, to try the recipe; it shows no phenomenon.")
@click.option("--overwrite", is_flag=True, help="Replace an existing bundle.")
@json_option
def build(out: Path, reduced: bool, overwrite: bool, as_json: bool) -> None:
    """Make the demo bundle from nothing, as the embedded one was made: data, models, scores and model card.

    \b
    Example:
      u2a demo build --out my-demo
    """
    from u2a_core.demo.build import build_demo
    from u2a_core.demo.recipe import RECIPE, REDUCED

    bundle = build_demo(out, REDUCED if reduced else RECIPE, overwrite)
    recipe = bundle.manifest["demo"]["recipe_hash"]
    printed({"bundle": str(bundle.path), "hash": bundle.hash, "recipe": recipe}, as_json)


def studio_script() -> Path:
    """`app.py`: inside the installed package, else beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    for candidate in (package / "_studio" / "app.py", package.parent / "app.py"):
        if candidate.is_file():
            return candidate
    raise BundleError("The dashboard's app.py is missing from this installation; install u2a-studio again.")


def has_display() -> bool:
    """Whether a browser window could open here."""
    if sys.platform.startswith(("win", "darwin")):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")) and "CI" not in os.environ
