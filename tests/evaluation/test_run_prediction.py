"""Predicted ΔPA of a whole run: of a run so short that it is linear, the realised one; else refused with the reason."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from u2a_core.bundle import Bundle, open_bundle
from u2a_core.data.forget_set import forget_set
from u2a_core.evaluation.run_prediction import NOT_GRADIENT, NOTHING, predictions, realised, score_prediction
from u2a_core.influence.implicit import ImplicitConfig
from u2a_core.influence.score_config import ScoreConfig
from u2a_core.influence.scoring import score
from u2a_core.influence.sketch_config import SketchConfig
from u2a_core.influence.sketching import sketch
from u2a_core.models.loading import LoadOptions
from u2a_core.objectives.config import ObjectiveConfig
from u2a_core.store.policies import finished_run
from u2a_core.store.runs import Run
from u2a_core.store.scores import Scores
from u2a_core.unlearning.config import UnlearnConfig
from u2a_core.unlearning.run import unlearn

CPU = LoadOptions("cpu")
STEPS, RATE = 2, 1e-4


@pytest.fixture(scope="module")
def linear(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle with a very short run of weighted examples, scores by three estimators and sketches; read only."""
    bundle = open_bundle(shutil.copytree(prepared, tmp_path_factory.mktemp("linear") / "bundle"))
    ids = [one.id for one in bundle.pairs.forget]
    chosen = forget_set({one: 1.0 + 2.0 * (place % 3 == 0) for place, one in enumerate(ids[: len(ids) // 2])})
    config = UnlearnConfig(
        ObjectiveConfig("npo"), parameters="full", optimizer="sgd", learning_rate=RATE, steps=STEPS, deterministic=True,
        clip=0.0, retain_budget=None, trust_region=None, options=CPU,
    )  # fmt: skip
    unlearn(bundle, config, chosen, "short", show=False)
    plain = ScoreConfig(objective=ObjectiveConfig("npo"), parameters="full", options=CPU, tokens=False)
    score(bundle, replace(plain, damping=3.0), "first", show=False)
    implicit = ImplicitConfig(alpha=0.0)
    score(bundle, replace(plain, estimator="implicit", damping=1 / (RATE * STEPS), implicit=implicit), "implicit",
          show=False)  # fmt: skip
    score(bundle, replace(plain, estimator="unrolled", run=config), "unrolled", show=False)
    score(bundle, replace(plain, objective=ObjectiveConfig("ga")), "other", show=False)
    sketch(bundle, SketchConfig(ObjectiveConfig("npo"), parameters="full", options=CPU), "npo", show=False)
    return bundle


def test_every_estimator_foretells_a_linear_run(linear: Bundle) -> None:
    run = finished_run(linear, "short")
    gain = realised(run)
    found = {one.source: one for one in predictions(linear, run)}
    for source in ("scores first", "scores implicit", "scores unrolled", "sketches npo, first order",
                   "sketches npo, second order"):  # fmt: skip
        assert found[source].delta_pa == pytest.approx(gain, rel=0.03), source
        assert found[source].note == ""
    assert found["scores other"].delta_pa is None
    assert "another objective than the run: make some with --objective npo" in found["scores other"].note


def test_realised_is_what_the_report_says(linear: Bundle) -> None:
    report = json.loads((linear.path / "runs" / "short" / "report.json").read_text())
    gain = report["after"]["pa_train"]["alignment"] - report["before"]["pa_train"]["alignment"]
    assert realised(finished_run(linear, "short")) == pytest.approx(gain)
    assert gain != 0


def told(run: Run, scores: Scores, **asked: Any) -> Any:
    return score_prediction(scores, "first", replace(run, asked={**run.asked, **asked}))


def test_what_does_not_fit_is_said_and_what_is_to_mind_too(linear: Bundle) -> None:
    run, scores = finished_run(linear, "short"), linear.scores("first")
    assert told(run, scores, optimizer="adamw").note == NOT_GRADIENT
    assert "clipped" in told(run, scores, clip=1.0).note
    assert "another state of the bundle" in told(run, scores, bundle_hash="x").note
    assert "another J" in told(run, scores, alignment_beta=0.2).note
    implicit = score_prediction(
        linear.scores("implicit"), "implicit", replace(run, asked={**run.asked, "learning_rate": 1.0})
    )
    assert (implicit.delta_pa, "--damping 0.5" in implicit.note) == (None, True)
    unrolled = score_prediction(linear.scores("unrolled"), "unrolled", replace(run, asked={**run.asked, "steps": 3}))
    assert (unrolled.delta_pa, unrolled.note) == (None, "around a run of other settings")
    realised_scores = Scores(scores.table, {**scores.metadata, "estimator": "realised"})
    assert "do not add up" in score_prediction(realised_scores, "r", run).note


def test_a_run_that_kept_no_step_is_foretold_nothing(linear: Bundle) -> None:
    run = finished_run(linear, "short")
    assert run.report is not None
    still = replace(run, report=replace(run.report, kept_step=0))
    found = score_prediction(linear.scores("first"), "first", still)
    assert (found.delta_pa, found.note) == (0.0, NOTHING)


def test_scores_by_hand(linear: Bundle, tmp_path: Path) -> None:
    """Candidates with ΔPA 1, 4 and 9 at λ = 3, ω 2.25, 0.75 and 0: τλn Σ p_i ΔPA_i = (2e-4)(3)(3)(0.75·1 + 0.25·4)."""
    run, scores = finished_run(linear, "short"), linear.scores("first")
    spec = json.loads((run.folder / "spec.json").read_text())
    spec["asked"]["forget_set"] = {"a": 2.25, "b": 0.75, "c": 0.0}
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    three = Scores(pd.DataFrame({"id": ["a", "b", "c"], "delta_pa": [1.0, 4.0, 9.0]}), scores.metadata)
    found = score_prediction(three, "first", replace(run, folder=tmp_path))
    assert math.isclose(found.delta_pa or 0, 2e-4 * 3 * 3 * 1.75)
