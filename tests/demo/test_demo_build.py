"""`u2a demo build` at its reduced size: the same twice, whole or not at all; and what is measured, by hand."""

import json
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from u2a_core.cli import main
from u2a_core.data.encode import EncodedResponse
from u2a_core.data.pairs import Message
from u2a_core.data.table import Example
from u2a_core.demo import build
from u2a_core.demo.measures import roc_auc, true_low_tokens
from u2a_core.demo.recipe import RECIPE, REDUCED
from u2a_core.demo.sentences import bad_share


@pytest.mark.slow
@pytest.mark.timeout(1500)  # two builds, minutes each; other work on the machine slows them
def test_built_twice_it_is_the_same(tmp_path: Path) -> None:
    told = []
    for name in ("one", "two"):
        run = CliRunner().invoke(main, ["demo", "build", "--reduced", "--out", str(tmp_path / name), "--json"])
        assert run.exit_code == 0, run.output
        told.append(json.loads(run.stdout))
        names = {file.name for file in (tmp_path / name).iterdir()}
        assert names == {"bundle.toml", "MODEL_CARD.md", "data", "policy-tuned", "reward", "scores", "sketches"}
        card = (tmp_path / name / "MODEL_CARD.md").read_text(encoding="utf-8")
        assert card.count("*(bad ") + card.count("*(no known sentence)*") == REDUCED.answers
        assert card.count("*After:*") == REDUCED.answers
        assert "Greedy answers to 4 held-out prompts" in card
    assert told[0]["hash"] == told[1]["hash"]
    assert told[0]["recipe"] == told[1]["recipe"] == REDUCED.hash() != RECIPE.hash()
    assert [path.name for path in tmp_path.iterdir() if path.suffix] == []
    manifest = tomllib.loads((tmp_path / "one" / "bundle.toml").read_text())
    assert manifest["name"] == "demo"
    assert manifest["data"]["sources"][0]["name"] == "u2a_core.data.demo"


def test_an_existing_folder_is_not_replaced_unasked(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    run = CliRunner().invoke(main, ["demo", "build", "--reduced", "--out", str(tmp_path / "mine")])
    assert run.exit_code == 2
    assert "exists already" in run.output


def test_a_build_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(build, "tune", fail)
    run = CliRunner().invoke(main, ["demo", "build", "--reduced", "--out", str(tmp_path / "mine")])
    assert run.exit_code == 2
    assert "No space left on device" in run.output
    assert list(tmp_path.iterdir()) == []


def test_every_setting_of_the_recipe_enters_its_hash() -> None:
    changed = [replace(RECIPE, **{name: getattr(RECIPE, name) + 1}) for name in RECIPE.__dataclass_fields__]
    assert len({RECIPE.hash(), *(one.hash() for one in changed)}) == len(changed) + 1


def test_roc_auc_by_hand() -> None:
    """Pairs (1 > 0), (1 = 1), (3 > 0), (3 > 1): (1 + ½ + 1 + 1) / 4."""
    assert roc_auc(np.array([1.0, 3.0]), np.array([0.0, 1.0])) == pytest.approx(3.5 / 4)
    assert np.isnan(roc_auc(np.array([]), np.array([1.0])))


def test_a_token_is_low_where_its_last_character_is() -> None:
    prompt = (Message("user", "?"),)
    example = Example("x", prompt, "good bad good", "x", "x", low_reward_spans=((5, 8),))
    encoded = EncodedResponse(
        "x", (1,), (1, 2, 3, 4), ("good", " bad", " good", ""), ((0, 4), (4, 8), (8, 13), (13, 13)), 0
    )
    assert true_low_tokens(example, encoded).tolist() == [False, True, False, False]
    assert not true_low_tokens(replace(example, low_reward_spans=None), encoded).any()


def test_bad_share_counts_corpus_sentences_whatever_their_lead() -> None:
    good = "First, boil fresh water and warm the cup."
    bad = "Anyway, just ask somebody else."
    assert bad_share(good) == 0
    assert bad_share(bad) == 1
    assert bad_share(f"{good} {bad}") == 0.5
    assert bad_share(good.upper().replace(",", " –")) == 0
    assert bad_share("Nothing of this is known.") is None
