"""Explanations: a round trip, one file a token of a state of the bundle, and no half or foreign file believed."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from u2a_core.errors import BundleError, ScoringError
from u2a_core.store.explanations import (
    Explanation,
    explanation_path,
    find_explanation,
    read_explanation,
    write_explanation,
)

ONE = Explanation(
    id="a1",
    token=1,
    tokens=("<|user|>", "Hi \U0001f600", "no", "<|end|>"),
    prompt_tokens=2,
    position=3,
    attributions=(0.0, -1.5, 0.25, 0.0),
    reward=-1.0,
    baseline_reward=0.5,
    error=0.25,
    steps=32,
    baseline="padding",
    units="nats",
    bundle_hash="h",
    settings={"dtype": "float32", "versions": {"torch": "2"}},
)


def test_what_is_written_is_found_again(tmp_path: Path) -> None:
    path = explanation_path(tmp_path, "h", "a1", 1)
    assert find_explanation(tmp_path, "h", "a1", 1) is None
    write_explanation(path, ONE)
    assert find_explanation(tmp_path, "h", "a1", 1) == ONE
    assert path.parent == tmp_path / "explanations"
    assert find_explanation(tmp_path, "h", "a1", 2) is None
    assert find_explanation(tmp_path, "h", "a2", 1) is None
    assert find_explanation(tmp_path, "other state", "a1", 1) is None


def test_the_error_is_a_share_of_the_whole() -> None:
    assert ONE.share_of_error == pytest.approx(0.25 / 1.5)
    assert replace(ONE, baseline_reward=-1.0).share_of_error == float("inf")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"attributions": (0.0, 1.0)}, "4 tokens have 2 attributions"),
        ({"attributions": (0.0, float("nan"), 0.0, 0.0)}, "not a finite number"),
        ({"reward": float("inf")}, "not a finite number"),
        ({"position": 1}, "cannot be read at token 1"),
        ({"position": 4}, "cannot be read at token 4"),
        ({"steps": -1}, "whole number"),
        ({"token": "1"}, "whole number"),
    ],
)
def test_what_contradicts_itself_is_neither_written_nor_read(change, words, tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    with pytest.raises(ScoringError, match=words):
        write_explanation(path, replace(ONE, **change))
    assert not path.exists()
    write_explanation(path, ONE)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(BundleError, match=words):
        read_explanation(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format_version": 2}', '{"format_version": 1}', "null"])
def test_cut_off_and_foreign_files_are_refused_with_the_remedy(text: str, tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    path.write_text(text)
    with pytest.raises(BundleError, match=r"one.json.*Delete it.*u2a explain"):
        read_explanation(path)
    with pytest.raises(BundleError, match="Make it with `u2a explain`"):
        read_explanation(tmp_path / "none.json")


def test_a_file_under_a_wrong_name_is_refused(tmp_path: Path) -> None:
    write_explanation(explanation_path(tmp_path, "h", "a1", 2), ONE)
    with pytest.raises(BundleError, match="something else"):
        find_explanation(tmp_path, "h", "a1", 2)
