"""`u2a score` by every estimator: what is written, and that it is what the estimator says."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from u2a_core.bundle import Bundle
from u2a_core.errors import ScoringError
from u2a_core.influence.alignment_gradient import alignment_gradient
from u2a_core.influence.candidate_influence import CandidateInfluence
from u2a_core.influence.curvature import Forgetting
from u2a_core.influence.implicit import ImplicitConfig, implicit_direction
from u2a_core.influence.realised import Counterfactuals
from u2a_core.influence.score_config import ScoreConfig
from u2a_core.influence.scoring import score
from u2a_core.influence.unrolled import unrolled
from u2a_core.models.loading import LoadOptions
from u2a_core.objectives.alignment import alignment
from u2a_core.store.scores import Scores, read_scores
from u2a_core.unlearning.config import UnlearnConfig
from u2a_core.unlearning.inner import InnerSolver, Outcome
from u2a_core.unlearning.material import Material
from u2a_core.unlearning.measures import measure_alignment
from u2a_core.unlearning.processes import Processes

MakeConfig = Callable[..., UnlearnConfig]


def scored(bundle: Bundle, name: str = "tried", **settings: Any) -> Scores:
    usual = {"parameters": "full", "options": LoadOptions("cpu"), "low_reward_quantile": 0.25}
    return read_scores(score(bundle, ScoreConfig(**{**usual, **settings}), name, show=False).path)


def by_run(run: UnlearnConfig, estimator: str, **settings: Any) -> dict[str, Any]:
    return {"estimator": estimator, "objective": run.objective, "run": run, **settings}


def test_the_implicit_scores_are_those_of_the_direction(bundle: Bundle, make_config: MakeConfig) -> None:
    config = make_config("npo", "kl", alpha=0.8)
    implicit = ImplicitConfig(alpha=0.8, tolerance=1e-4, iterations=200)
    asked = {"estimator": "implicit", "objective": config.objective, "implicit": implicit, "damping": 0.3}
    found = scored(bundle, **asked, tokens=False)
    material = Material(bundle, config, show=False)
    gradient = alignment_gradient(
        material.policy, material.pairs("pa_train"), alignment("dpo", 0.1), 8192, show=False
    ).gradient
    candidates = list(material.candidates.values())
    references = list(zip(*material.references.values(), strict=True))
    direction, _ = implicit_direction(
        material.policy, gradient, replace(implicit, damping=0.3), material.retain,
        Forgetting(material.objective, candidates, references), 8192, show=False,
    )  # fmt: skip
    expected = CandidateInfluence(material, material.ids, show=False).along(direction)
    assert found.table["delta_pa"].to_numpy() == pytest.approx(expected, rel=1e-3, abs=1e-7 * np.abs(expected).max())
    told = found.metadata["implicit"]
    assert told["converged"]
    assert told["settings"]["damping"] == 0.3
    assert "H = λI + α·GGN of the retain KL with λ = 0.3 and α = 0.8" in found.metadata["units"]
    plain = scored(bundle, "plain", objective=config.objective, damping=0.3, tokens=False)
    assert np.corrcoef(plain.table["delta_pa"], expected)[0, 1] < 0.9999, "the curvature counts"


def test_without_curvature_the_implicit_scores_are_first_order(bundle: Bundle, make_config: MakeConfig) -> None:
    objective = make_config("npo").objective
    asked = {"objective": objective, "damping": 0.7}
    found = scored(bundle, "implicit", estimator="implicit", implicit=ImplicitConfig(alpha=0.0), **asked)
    plain = scored(bundle, "plain", **asked)
    assert found.table["delta_pa"].to_numpy() == pytest.approx(plain.table["delta_pa"].to_numpy(), rel=1e-5)
    assert found.table["token_delta_pa"][0] == pytest.approx(plain.table["token_delta_pa"][0], rel=1e-4, abs=1e-9)


def test_the_unrolled_scores_are_the_derivative_of_the_run(bundle: Bundle, make_config: MakeConfig) -> None:
    run = make_config("npo", "nll", learning_rate=0.02, steps=3)
    found = scored(bundle, **by_run(run, "unrolled"))
    material = Material(bundle, run, show=False)
    expected = unrolled(material, dict.fromkeys(material.ids, 1.0), material.pairs("pa_train"), show=False)
    assert list(found.table["id"]) == list(material.ids)
    assert dict(zip(found.table["id"], found.table["delta_pa"], strict=True)) == pytest.approx(expected.derivative)
    assert found.table["token_delta_pa"].isna().all()
    assert found.metadata["unrolled"]["adjoint_growth"] == pytest.approx(expected.growth)
    assert found.metadata["units"].endswith("and the exact derivative of J after 3 sgd steps of 0.02 with every ω = 1")
    assert found.metadata["estimator"] == "unrolled"


def test_realised_scores_are_differences_of_runs_and_are_resumed_run_by_run(
    bundle: Bundle, make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_config("ga", learning_rate=0.02, steps=2)
    original, calls = InnerSolver.solve, []

    def solve(self: InnerSolver, weights: Mapping[str, float], *rest: Any, **named: Any) -> Outcome:
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append(sorted(weights))
        return original(self, weights, *rest, **named)

    monkeypatch.setattr(InnerSolver, "solve", solve)
    with pytest.raises(KeyboardInterrupt):
        scored(bundle, **by_run(run, "realised", repetitions=1))
    assert not (bundle.scores_folder / "tried.parquet").exists()
    monkeypatch.setattr(InnerSolver, "solve", original)
    more = []
    monkeypatch.setattr(
        InnerSolver, "solve", lambda self, weights: (more.append(sorted(weights)), original(self, weights))[1]
    )
    found = scored(bundle, **by_run(run, "realised", repetitions=1))
    ids = list(found.table["id"])
    assert sorted(map(tuple, calls + more)) == sorted(
        tuple(sorted(one for one in ids if one != left)) for left in [*ids, None]
    ), "every run once"
    assert not list(bundle.scores_folder.glob("*.part"))
    material = Material(bundle, run, show=False)
    pairs = material.pairs("pa_train")

    def aligned(members: list[str]) -> float:
        InnerSolver(material, pairs).solve(dict.fromkeys(members, 1.0))
        return measure_alignment(material, pairs, Processes()).alignment

    whole = aligned(ids)
    for place in (0, 5):
        expected = whole - aligned([one for one in ids if one != ids[place]])
        assert found.table["delta_pa"][place] == pytest.approx(expected, rel=1e-4, abs=1e-7)


def test_realised_scores_agree_with_the_unrolled_ones(bundle: Bundle, make_config: MakeConfig) -> None:
    """Leaving one of n out: ω_i from 1 to 0, and the others from 1 to n/(n − 1)."""
    run = make_config("npo", "nll", learning_rate=0.001, steps=3)
    derivative = scored(bundle, "unrolled", **by_run(run, "unrolled")).table["delta_pa"].to_numpy()
    realised = scored(bundle, "realised", **by_run(run, "realised", repetitions=1)).table["delta_pa"].to_numpy()
    n = len(derivative)
    expected = derivative - (derivative.sum() - derivative) / (n - 1)
    assert np.corrcoef(expected, realised)[0, 1] > 0.98
    assert np.polyfit(expected, realised, 1)[0] == pytest.approx(1.0, abs=0.15)


def test_counterfactual_runs_are_measured_on_retain_data_and_repeated_by_seed(
    bundle: Bundle, make_config: MakeConfig, tmp_path: Path
) -> None:
    config = make_config("npo", "kl", deterministic=False, batch_size=3, steps=3)
    material = Material(bundle, config, show=False)
    runs = Counterfactuals(material, material.pairs("pa_train"), material.retain, tmp_path, Processes(), show=False)
    cases = {"first": dict.fromkeys(material.ids[:5], 1.0), "other": dict.fromkeys(material.ids[5:], 1.0)}
    found = runs.run(cases, [0, 1])
    assert found["first"][0].delta_pa != found["first"][1].delta_pa, "another order"
    assert all(one.kl > 0 and math.isfinite(one.retain_rise) and one.kept_step == 3 for one in found["first"])
    assert material.config == config
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.glob("run-*.json")}
    assert len(stamps) == 4
    assert runs.run(cases, [0, 1]) == found
    assert stamps == {path: path.stat().st_mtime_ns for path in tmp_path.glob("run-*.json")}


def test_processes_share_the_runs_whatever_the_other_has_done_already(
    bundle: Bundle, make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Process 1 is through with its share when process 0 begins with its own."""
    material = Material(bundle, make_config("ga", steps=1), show=False)
    cases = {str(number): {one: 1.0} for number, one in enumerate(material.ids[:5])}
    original, calls = InnerSolver.solve, []
    monkeypatch.setattr(
        InnerSolver, "solve", lambda self, weights: (calls.append([*weights]), original(self, weights))[1]
    )

    def team(rank: int, at_the_end: Callable[[], Any]) -> Counterfactuals:
        state = SimpleNamespace(wait_for_everyone=at_the_end)
        return Counterfactuals(
            material, material.pairs("pa_train"), [], tmp_path, Processes(rank, 2, state), show=False
        )

    other = team(0, lambda: None)
    found = team(1, lambda: other.run(cases, [0])).run(cases, [0])
    assert calls == [[material.ids[place]] for place in (1, 3, 0, 2, 4)]
    assert list(found) == list(cases)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"estimator": "guess"}, "no estimator 'guess'; choose first_order, implicit, unrolled, realised"),
        ({"estimator": "unrolled"}, "unrolled needs settings of the kind 'run'"),
        ({"implicit": ImplicitConfig()}, "first_order has no settings of the kind 'implicit'"),
    ],
)
def test_settings_that_do_not_belong_together(settings: dict[str, Any], message: str, bundle: Bundle) -> None:
    with pytest.raises(ScoringError, match=message):
        scored(bundle, **settings)


def test_minibatches_cannot_be_unrolled(bundle: Bundle, make_config: MakeConfig) -> None:
    run = make_config("ga", deterministic=False)
    with pytest.raises(ScoringError, match="say --deterministic"):
        scored(bundle, **by_run(run, "unrolled"))
