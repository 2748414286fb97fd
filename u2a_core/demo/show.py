"""Figure 1 and Figure 2 of the embedded demo, drawn from the scores that ship with it."""

from pathlib import Path

from u2a_core.bundle import DEMO, open_bundle
from u2a_core.figures.show import ShowConfig, show


def demo_pictures(folder: Path) -> dict[str, Path]:
    """Write both figures as stand-alone HTML files to `folder`; their paths by name."""
    pictures = {name: folder / f"{name}.html" for name in ("influence", "low-reward")}
    for name, path in pictures.items():
        show(open_bundle(DEMO), "default", ShowConfig(name), path)
    return pictures
