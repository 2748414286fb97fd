"""The outer problem of a bundle: its inner solver, J on two folds of `pa_train`, and dJ/dω by one of three estimators.

`first_order`, `implicit`: dJ/dω_i ∝ −⟨v, ∇φ_i⟩ / n, with ∇J taken at θ*(ω) and ∇φ_i half-way between θ0 and θ*; v is
what the inner solver's steps make of ∇J (`step_direction`), or H⁻¹∇J. `unrolled`: exactly, through the run. `pa_test`
is never touched.
"""

from collections.abc import Sequence
from contextlib import ExitStack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from u2a_core.errors import UnlearningError
from u2a_core.influence.alignment_gradient import EncodedPair, alignment_gradient
from u2a_core.influence.candidate_influence import CandidateInfluence
from u2a_core.influence.curvature import Forgetting
from u2a_core.influence.implicit import ImplicitConfig, implicit_direction
from u2a_core.influence.unrolled import check_unrollable, recording, sweep, unrolled
from u2a_core.objectives.alignment import alignment
from u2a_core.unlearning.batches import step_examples
from u2a_core.unlearning.inner import InnerSolver, Outcome, drawn
from u2a_core.unlearning.material import Material
from u2a_core.unlearning.measures import measure_alignment, measure_retain
from u2a_core.unlearning.processes import Processes
from u2a_core.unlearning.step_direction import adam_scaling, step_direction
from u2a_core.unlearning.trajectory import Trajectory
from u2a_core.unlearning.weights import Flags, Floats

ESTIMATORS = ("first_order", "implicit", "unrolled")
Places = NDArray[np.intp]
LARGEST_SAMPLE = 256  # examples that the step's direction is estimated from


class BundleProblem:
    """Implements `OuterProblem` for the candidates `ids` of a material, in that order."""

    def __init__(
        self, material: Material, ids: Sequence[str], aside: float, show: bool = True, estimator: str = "first_order"
    ) -> None:
        if estimator not in ESTIMATORS:
            raise UnlearningError(f"--estimator {estimator} is unknown; choose one of {', '.join(ESTIMATORS)}.")
        if estimator == "unrolled":
            check_unrollable(material.config)
        self.material, self.ids, self.show, self.estimator = material, list(ids), show, estimator
        pairs = material.pairs("pa_train")
        count = round(aside * len(pairs))
        if not 0 < count < len(pairs):
            raise UnlearningError(
                f"--aside {aside:g} of the {len(pairs)} pairs of pa_train leaves a fold empty; give a share like 0.33."
            )
        order = drawn(tuple(range(len(pairs))), 0, len(pairs), f"{material.config.seed}:folds")
        self.aside = [pairs[index] for index in sorted(order[:count])]
        self.train = [pairs[index] for index in sorted(order[count:])]
        self.solver = InnerSolver(material, self.train, show=show)
        self.start_nll = self._nll()
        self.influence = CandidateInfluence(material, self.ids, show)
        self._held = ExitStack()
        self._recorded: tuple[Outcome, Trajectory] | None = None  # of the last run, where its steps are wanted

    def solve(self, weights: Floats) -> Outcome:
        """θ*(ω) by the inner solver; the model is left there."""
        active = {one: float(weight) for one, weight in zip(self.ids, weights, strict=True) if weight > 0}
        if self.estimator != "unrolled":
            return self.solver.solve(active)
        self._recorded = None
        self._held.close()  # the steps of the run before
        trajectory = self._held.enter_context(recording(self.material))
        outcome = self.solver.solve(active, trajectory=trajectory)
        self._recorded = outcome, trajectory
        return outcome

    def value(self, solution: Outcome | None) -> tuple[float, float]:
        """J on the training fold and on the fold kept aside."""
        self._place(solution)
        first, second = (self._alignment(fold) for fold in (self.train, self.aside))
        return first, second

    def retain(self, solution: Outcome | None) -> float | None:
        """The rise of the NLL on all retain data, nats per token."""
        if self.start_nll is None:
            return None
        self._place(solution)
        return (self._nll() or 0.0) - self.start_nll

    def gradient(self, solution: Outcome | None, weights: Floats, wanted: Flags) -> Floats:
        """dJ/dω_i at θ*(ω) on the training fold, [n], in units of its own standard deviation; 0 for examples not
        `wanted`.
        """
        derivative = np.zeros(len(self.ids))
        places = np.flatnonzero(wanted)
        if self.estimator == "unrolled" and solution is not None:
            derivative[places] = self._unrolled(solution, weights, places)
        else:
            derivative[places] = self._along_direction(solution, weights, places)
        return derivative / (float(derivative[places].std()) or 1.0)  # the unit changes from round to round

    def _along_direction(self, solution: Outcome | None, weights: Floats, places: Places) -> Floats:
        """−⟨v, ∇φ_i⟩ / n of the candidates at `places`."""
        self._place(solution)
        measure = alignment("dpo", self.material.config.alignment_beta)
        found = alignment_gradient(
            self.material.policy, self.train, measure, self.influence.choice.token_budget, show=False
        )
        if self.estimator == "implicit":
            direction = self._implicit(found.gradient)
            self._place_midway(solution)
            return self.influence.along(direction, places.tolist())
        self._place_midway(solution)
        step, scaling = self._step(weights), None
        if solution is not None and solution.second_moments is not None:
            scaling = adam_scaling(solution.second_moments, solution.step)
        return self.influence.along(step_direction(found.gradient, step, scaling), places.tolist())

    def _implicit(self, gradient: dict[str, Tensor]) -> dict[str, Tensor]:
        """H⁻¹∇J where the model is now; λ as the steps have it."""
        material = self.material
        settings = ImplicitConfig(alpha=material.objective.alpha, damping=1 / material.config.horizon)
        forgetting = Forgetting(material.objective, [], None)  # its own part is left out
        budget = self.influence.choice.token_budget
        return implicit_direction(
            material.policy, gradient, settings, material.retain, forgetting, budget, show=self.show
        )[0]

    def _unrolled(self, solution: Outcome, weights: Floats, places: Places) -> Floats:
        """The exact derivative, of the run with `weights` that led to `solution`: the last one, else run anew. Raises
        `UnlearningError` where the sweep exploded.
        """
        wanted = {self.ids[place]: float(weights[place]) for place in places}
        held = {one: float(weight) for one, weight in zip(self.ids, weights, strict=True) if weight > 0}
        if self._recorded is not None and self._recorded[0] is solution:
            found = sweep(self.material, held | wanted, self.train, *self._recorded, show=self.show)
        else:
            found = unrolled(self.material, held | wanted, self.train, show=self.show)
        if found.warning:
            raise UnlearningError(
                f"The unrolled derivative predicts nothing here: {found.warning}. Or take --estimator first_order."
            )
        return np.array([found.derivative[one] for one in wanted])

    def _step(self, weights: Floats) -> dict[str, Tensor] | None:
        """g, the inner objective's gradient over a weighted sample; None where a step is as long as the gradient."""
        config = self.material.config
        parameters = self.material.policy.parameters()
        for one in parameters.values():
            one.requires_grad_(True)
        active = {one: float(weight) for one, weight in zip(self.ids, weights, strict=True) if weight > 0}
        sample = step_examples(active, 0, LARGEST_SAMPLE, f"{config.seed}:direction")
        self.solver.gradient.accumulate(sample, self.material.retain)
        found = {name: one.grad for name, one in parameters.items() if one.grad is not None}
        for one in parameters.values():
            one.requires_grad_(False)
            one.grad = None
        norm = float(torch.stack([one.double().square().sum() for one in found.values()]).sum().sqrt())
        return found if config.optimizer == "adamw" or 0 < config.clip < norm else None

    def _place(self, solution: Outcome | None) -> None:
        self.material.reset(solution.theta if solution else None)

    def _place_midway(self, solution: Outcome | None) -> None:
        """Half-way between θ0 and θ*: ∇φ_i there stands for its mean along the run."""
        if solution is not None:
            start = self.material.start
            self.material.reset({name: (one + start[name]) / 2 for name, one in solution.theta.items()})

    def _alignment(self, fold: Sequence[EncodedPair]) -> float:
        return measure_alignment(self.material, fold, Processes()).alignment

    def _nll(self) -> float | None:
        found = measure_retain(self.material, self.material.retain, Processes())
        return found.nll if found else None
