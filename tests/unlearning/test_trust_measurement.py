"""`u2a trust` on a tiny bundle: what is predicted, what is run, what is written, and that it goes on when killed."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from u2a_core.bundle import Bundle
from u2a_core.cli import main
from u2a_core.errors import BundleError, ScoringError
from u2a_core.evaluation.predictions import Predictor
from u2a_core.evaluation.trust import TrustConfig, trust
from u2a_core.influence.score_config import ScoreConfig
from u2a_core.influence.scoring import score
from u2a_core.influence.sketching import SketchConfig, sketch
from u2a_core.models.loading import LoadOptions
from u2a_core.objectives.config import ObjectiveConfig
from u2a_core.store.scores import read_scores
from u2a_core.store.trust import NOT_MEASURED, read_trust, trust_told
from u2a_core.unlearning.config import UnlearnConfig
from u2a_core.unlearning.inner import InnerSolver, Outcome
from u2a_core.unlearning.material import Material
from u2a_core.unlearning.measures import measure_alignment
from u2a_core.unlearning.processes import Processes

MakeConfig = Callable[..., UnlearnConfig]
CONFIG = TrustConfig(groups=12, singles=6, sample=8)


def aligned(material: Material, members: list[str]) -> float:
    pairs = material.pairs("pa_train")
    InnerSolver(material, pairs).solve(dict.fromkeys(members, 1.0))
    return measure_alignment(material, pairs, Processes()).alignment


def test_what_is_measured_and_what_is_predicted(bundle: Bundle, make_config: MakeConfig) -> None:
    inner = make_config("npo", "nll", learning_rate=0.002, steps=3)
    path, report = trust(bundle, inner, CONFIG, "tried", show=False)
    assert path == bundle.results / "trust" / "tried.json"
    assert len(report.groups.cases) == 12
    assert {case.size for case in report.groups.cases} == {4}
    universe = {one for case in report.groups.cases for one in case.ids}
    assert len(universe) == 8
    material = Material(bundle, inner, show=False)
    start = np.log(0.5)
    for case in report.groups.cases[:2]:
        assert case.realised == (pytest.approx(aligned(material, list(case.ids)) - start, abs=1e-6),)
    assert set(report.groups.agreements) == {"first_order", "implicit", "unrolled"}
    assert report.groups.agreements["unrolled"].rho.value > 0.9
    assert report.groups.agreements["unrolled"].slope.value == pytest.approx(1.0, abs=0.1)
    assert report.singles.agreements["first_order"].rho.value > 0.9
    assert report.singles.agreements["first_order"].slope.value == pytest.approx(1.0, abs=0.15)
    assert report.groups.ceiling.rho.value == 1.0
    assert "unrolled" in report.verdict
    assert not list(path.parent.glob("*.part"))


def test_a_prediction_is_linear_in_the_weights_and_exact_for_small_steps(
    bundle: Bundle, make_config: MakeConfig
) -> None:
    """Size and sign too: ΔPA of the group that the run is about."""
    inner = make_config("npo", learning_rate=1e-5, steps=2)
    material = Material(bundle, inner, show=False)
    ids = list(material.ids[:6])
    predictor = Predictor(material, ids, material.pairs("pa_train"), show=False)
    members = np.array([0, 2, 5])
    weights = np.zeros(6)
    weights[members] = 2.0
    realised = aligned(material, [ids[place] for place in members]) - np.log(0.5)
    material.reset()
    for found in (predictor.first_order(), predictor.unrolled()):
        assert found.group(weights) == pytest.approx(realised, rel=0.05, abs=2e-7)


def test_a_killed_measurement_goes_on_and_asked_again_it_is_read_back(
    bundle: Bundle, make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = make_config("npo", "nll", learning_rate=0.002, steps=2)
    original, calls = InnerSolver.solve, []

    def solve(self: InnerSolver, weights: Mapping[str, float], *rest: Any, **named: Any) -> Outcome:
        if len(calls) == 6:
            raise KeyboardInterrupt
        calls.append(weights)
        return original(self, weights, *rest, **named)

    monkeypatch.setattr(InnerSolver, "solve", solve)
    with pytest.raises(KeyboardInterrupt):
        trust(bundle, inner, CONFIG, "tried", show=False)
    assert not (bundle.results / "trust" / "tried.json").exists()
    done, calls[:] = len(calls), []
    monkeypatch.setattr(
        InnerSolver, "solve", lambda self, *rest, **named: (calls.append(0), original(self, *rest, **named))[1]
    )
    _, report = trust(bundle, inner, CONFIG, "tried", show=False)
    assert done + len(calls) == 1 + 12 + 6, "the unrolled run, the groups and the singles, each once"
    monkeypatch.setattr(InnerSolver, "solve", original)
    _, whole = trust(bundle, inner, CONFIG, "whole", show=False)
    assert [case.realised for case in report.groups.cases] == [case.realised for case in whole.groups.cases]
    assert [case.predicted for case in report.groups.cases] == [case.predicted for case in whole.groups.cases]
    monkeypatch.setattr(InnerSolver, "solve", lambda *_: pytest.fail("nothing is run again"))
    assert trust(bundle, inner, CONFIG, "tried", show=False)[1] == report
    with pytest.raises(BundleError, match=r"measured otherwise, .* Choose another name with --trust, or say --restart"):
        trust(bundle, inner, TrustConfig(groups=5, singles=6, sample=8), "tried", show=False)


def test_minibatch_runs_are_repeated_and_have_a_noise_ceiling(bundle: Bundle, make_config: MakeConfig) -> None:
    inner = make_config("npo", learning_rate=0.01, steps=3, deterministic=False, batch_size=2)
    config = TrustConfig(groups=10, singles=0, sample=8, repetitions=2)
    _, report = trust(bundle, inner, config, "noisy", show=False)
    assert all(len(case.realised) == 2 for case in report.groups.cases)
    assert report.groups.ceiling.repetitions == 2
    assert report.groups.ceiling.rho.value < 1
    assert set(report.groups.agreements) == {"first_order"}, "nothing to unroll, no retention term"


def test_set_predictions_from_sketches(bundle: Bundle, make_config: MakeConfig) -> None:
    """Exact sketches: the plain sum is the first-order prediction, and the second order is nearer to what happens."""
    options = LoadOptions("cpu")
    sketch(
        bundle, SketchConfig(ObjectiveConfig("npo"), parameters="full", k=10**6, options=options), "exact", show=False
    )
    inner = make_config("npo", learning_rate=0.002, steps=4)
    config = TrustConfig(groups=12, singles=0, sample=8, sketch="exact")
    _, report = trust(bundle, inner, config, "sets", show=False)
    for case in report.groups.cases:
        assert case.predicted["plain_sum"] == pytest.approx(case.predicted["first_order"], rel=1e-3, abs=1e-6)
        assert case.predicted["second_order"] != pytest.approx(case.predicted["plain_sum"], rel=1e-3)
    other = make_config("ga", learning_rate=0.002, steps=4)
    with pytest.raises(
        ScoringError, match=r"The sketches exact are of the objective .*'npo'.* make others with `u2a sk"
    ):
        trust(bundle, other, config, "wrong", show=False)


def test_the_report_is_found_by_the_scores_that_it_is_about(bundle: Bundle, make_config: MakeConfig) -> None:
    settings = {"parameters": "full", "objective": ObjectiveConfig("npo"), "options": LoadOptions("cpu")}
    metadata = read_scores(score(bundle, ScoreConfig(**settings), "npo", show=False).path).metadata
    assert trust_told(bundle, metadata) == NOT_MEASURED
    inner = make_config("npo", "nll", learning_rate=0.002, steps=2)
    trust(bundle, inner, CONFIG, "tried", show=False)
    assert trust_told(bundle, metadata).startswith("Trust: ρ = ")
    other = read_scores(
        score(bundle, ScoreConfig(**{**settings, "objective": ObjectiveConfig("ga")}), "ga", show=False).path
    )
    assert trust_told(bundle, other.metadata) == NOT_MEASURED


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"groups": 2}, "--groups must be at least 3"), ({"sample": 3}, "--sample must be at least 4")],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ScoringError, match=message):
        TrustConfig(**settings)


def test_the_report_is_plain_json(bundle: Bundle, make_config: MakeConfig) -> None:
    path, report = trust(bundle, make_config("ga", learning_rate=0.002, steps=1), CONFIG, "plain", show=False)
    stored = json.loads(path.read_text(encoding="utf-8"))
    assert stored["bundle_hash"] == bundle.hash
    assert stored["verdict"] == report.verdict
    assert any("random halves of 8 candidates" in note for note in report.notes)


def test_the_command(bundle: Bundle, tmp_path: Path) -> None:
    """The defaults are a full-batch run; minibatches and all retain data can be asked for."""
    page = tmp_path / "trust.html"
    command = ["trust", str(bundle.path), "--groups", "3", "--singles", "0", "--sample", "6", "--steps", "2", "--json"]
    told = CliRunner().invoke(main, [*command, "--learning-rate", "0.002", "--out", str(page)])
    assert told.exit_code == 0, told.output
    unlearning = read_trust(Path(json.loads(told.stdout)["report"])).unlearning
    assert (unlearning["deterministic"], unlearning["optimizer"], unlearning["retain_sample"]) == (True, "sgd", 200)
    assert unlearning["objective"]["retention"] == "nll"
    assert "Predicted against realised" in page.read_text(encoding="utf-8")
    other = [*command, "--no-deterministic", "--batch-size", "3", "--retain-sample", "0", "--trust", "noisy"]
    told = CliRunner().invoke(main, other)
    assert told.exit_code == 0, told.output
    report = read_trust(Path(json.loads(told.stdout)["report"]))
    assert not report.unlearning["deterministic"]
    assert "retain_sample" not in report.unlearning
    assert report.groups.ceiling.repetitions == 2
