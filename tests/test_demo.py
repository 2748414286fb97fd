"""The embedded demo, at a reduced size: made from nothing, kept, and only drawn the second time."""

from pathlib import Path

import pytest

from u2a_core import demo
from u2a_core.bundle import open_bundle


def test_the_demo_is_made_once_and_then_only_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "TUNE_EPOCHS", 0.5)
    bundle = demo.build_demo(tmp_path / "demo", count=80)
    pictures = demo.demo_pictures(bundle, tmp_path / "demo")
    for path in pictures.values():
        assert "Plotly" in path.read_text(encoding="utf-8")
    spans = [example.low_reward_spans for example in bundle.pairs.forget]
    assert any(spans)
    assert None not in spans
    assert {"harmlessness", "helpfulness", "truthfulness"} == {example.category for example in bundle.pairs.forget}
    monkeypatch.setattr(demo, "_finished", None)  # nothing may be made again
    assert demo.build_demo(tmp_path / "demo", count=80).hash == open_bundle(tmp_path / "demo").hash
