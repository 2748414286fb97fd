"""Predicted ΔPA of groups of candidates, by every estimator, for one unlearning configuration.

A group G of the n candidates in question is unlearned alone, with ω = n/|G| on its members (mean 1 over all n). At θ0,
with a derivative D_i per unit of ω, the prediction is Σ_i ω_i D_i; the unrolled derivative is taken around the run with
every ω = 1, so there it is ΔPA of that run + Σ_i (ω_i − 1) D_i. λ = 1/(learning rate × steps): what plain steps of that
rate make of the inner problem.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from u2a_core.errors import ScoringError
from u2a_core.influence.alignment_gradient import AlignmentGradient, EncodedPair, alignment_gradient
from u2a_core.influence.candidate_influence import CandidateInfluence
from u2a_core.influence.curvature import Forgetting
from u2a_core.influence.implicit import ImplicitConfig, implicit_direction
from u2a_core.influence.unrolled import unrolled
from u2a_core.influence.what_if_bundle import BundleWhatIf
from u2a_core.objectives.alignment import alignment
from u2a_core.unlearning.material import Material

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Linear:
    """ΔPA of a group with weights ω [n]: `offset` + Σ_i ω_i `derivative`_i, nats per pair; `report` says how it was
    found.
    """

    derivative: Floats
    offset: float
    report: dict[str, Any]

    def group(self, weights: Floats) -> float:
        """The prediction for one group."""
        return self.offset + float(self.derivative @ weights)


class Predictor:
    """The estimators for the candidates `ids` of a material, J taken over `pairs`."""

    def __init__(self, material: Material, ids: Sequence[str], pairs: Sequence[EncodedPair], show: bool) -> None:
        self.material, self.ids, self.pairs, self.show = material, list(ids), pairs, show
        self._gradient: AlignmentGradient | None = None
        self._influence: CandidateInfluence | None = None

    def first_order(self) -> Linear:
        """H = λI."""
        gradient = self._at_start().gradient
        derivative = self.material.config.horizon * self._along(gradient)
        return Linear(derivative, 0.0, {"damping": 1 / self.material.config.horizon})

    def implicit(self, config: ImplicitConfig) -> Linear:
        """H = λI + α·GGN of the retain KL (+ the objective's own part); λ as above."""
        material = self.material
        settings = replace(config, damping=1 / material.config.horizon)
        candidates = [material.candidates[one] for one in self.ids]
        references = None
        if material.references is not None:
            references = list(zip(*(material.references[one] for one in self.ids), strict=True))
        forgetting = Forgetting(material.objective, candidates, references)
        gradient = self._at_start().gradient
        direction, report = implicit_direction(
            material.policy, gradient, settings, material.retain, forgetting, material.config.token_budget,
            show=self.show,
        )  # fmt: skip
        return Linear(self._along(direction), 0.0, report)

    def unrolled(self) -> Linear:
        """The exact derivative around the run with every ω = 1. Raises `ScoringError` where the run is not
        deterministic.
        """
        start = self._at_start().value
        found = unrolled(self.material, dict.fromkeys(self.ids, 1.0), self.pairs, show=self.show)
        self.material.reset()
        derivative = np.array([found.derivative[one] for one in self.ids])
        return Linear(derivative, found.value - start - float(derivative.sum()), found.metadata())

    def second_order(self, sketch: str, groups: Sequence[Floats]) -> tuple[list[float], list[float]]:
        """Set predictions from the stored sketches: to second order, and the plain sum that they go beyond.

        Raises `ScoringError` where the sketches are of another objective.
        """
        config, bundle = self.material.config, self.material.bundle
        alpha = self.material.objective.alpha if self.material.objective.retention == "nll" else 0.0  # ∇KL is 0 at θ0
        model = BundleWhatIf(bundle, sketch, config.horizon, alpha=alpha)
        wanted, given = config.objective.settings(), model.objective
        if any(wanted[name] != given.get(name) for name in wanted if name not in ("retention", "alpha")):
            raise ScoringError(
                f"The sketches {sketch} are of the objective {given}, the runs of {wanted}: make others with "
                f"`u2a sketch {bundle.reference} --objective {wanted['name']} --sketch NAME`."
            )
        rows = [model.places[one] for one in self.ids]
        found = []
        for group in groups:
            weights = np.zeros(len(model.ids))
            weights[rows] = group
            found.append(model.model.predict(weights))
        return [one.second_order for one in found], [one.first_order for one in found]

    def _at_start(self) -> AlignmentGradient:
        if self._gradient is None:
            config = self.material.config
            self.material.reset()
            measure = alignment("dpo", config.alignment_beta)
            policy = self.material.policy
            self._gradient = alignment_gradient(policy, self.pairs, measure, config.token_budget, show=self.show)
        return self._gradient

    def _along(self, direction: Mapping[str, Any]) -> Floats:
        self.material.reset()
        if self._influence is None:
            self._influence = CandidateInfluence(self.material, self.ids, self.show)
        return self._influence.along(direction)
