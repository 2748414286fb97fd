"""The outer problem of a bundle: its inner solver, J on two folds of `pa_train`, and first-order derivatives at θ*(ω).

dJ/dω_i ≈ −(1/n) ⟨∇J(θ*), ∇φ_i(θ*)⟩ / λ (Proposition 4.2 of arXiv 2504.06659 with H = λI): one gradient of J and one
directional derivative a candidate, by the scoring's own back ends. `pa_test` is never touched.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from u2a_core.data.batch import collate
from u2a_core.data.encode import token_budget_batches
from u2a_core.errors import UnlearningError
from u2a_core.influence.alignment_gradient import EncodedPair, alignment_gradient
from u2a_core.influence.backends import choose_backend, make_backend
from u2a_core.influence.candidates import padded_lengths, role_by_role
from u2a_core.influence.directional import unit_direction
from u2a_core.influence.first_order import batch_influence
from u2a_core.objectives.alignment import alignment
from u2a_core.store.progress import Progress
from u2a_core.unlearning.inner import InnerSolver, Outcome, drawn
from u2a_core.unlearning.material import Material
from u2a_core.unlearning.measures import measure_alignment, measure_retain
from u2a_core.unlearning.processes import Processes
from u2a_core.unlearning.weights import Floats


class BundleProblem:
    """Implements `OuterProblem` for the candidates `ids` of a material, in that order."""

    def __init__(self, material: Material, ids: Sequence[str], aside: float, show: bool = True) -> None:
        self.material, self.ids, self.show = material, list(ids), show
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
        sequences = role_by_role([material.candidates[one] for one in self.ids])
        roles = material.objective.roles
        self.backend = choose_backend("auto", False, material.policy, sequences, material.config.token_budget, roles)

    def solve(self, weights: Floats) -> Outcome:
        """θ*(ω) by the inner solver; the model is left there."""
        return self.solver.solve(
            {one: float(weight) for one, weight in zip(self.ids, weights, strict=True) if weight > 0}
        )

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

    def gradient(self, solution: Outcome | None, weights: Floats) -> Floats:  # noqa: ARG002 - that of H = λI is not in ω
        """dJ/dω_i at θ*(ω) on the training fold, for λ = 1, [n]."""
        self._place(solution)
        material = self.material
        budget = self.backend.token_budget
        measure = alignment("dpo", material.config.alignment_beta)
        found = alignment_gradient(material.policy, self.train, measure, budget, show=False)
        direction, norm = unit_direction(found.gradient)
        mode = make_backend(self.backend.name, material.policy.model, direction)
        members = [material.candidates[one] for one in self.ids]
        derivative = np.zeros(len(self.ids))
        with Progress("influence", len(members), show=self.show) as progress:
            for part in token_budget_batches(padded_lengths(members), budget):
                batch = collate(
                    role_by_role([members[index] for index in part]), material.policy.tokenizer.pad_token_id
                )
                batch = batch.to(material.policy.device)
                reference = self._reference(part)
                scale = norm / len(members)
                influence = batch_influence(mode, batch, material.objective, scale, reference, tokens=False)
                derivative[part] = influence.samples.cpu().numpy()
                progress.step(len(part))
        if not np.isfinite(derivative).all():
            bad = [self.ids[index] for index in np.flatnonzero(~np.isfinite(derivative))[:5]]
            raise UnlearningError(f"The influence of {', '.join(bad)} is not finite: lower --learning-rate.")
        return derivative

    def _reference(self, part: Sequence[int]) -> Tensor | None:
        references = self.material.references
        if references is None:
            return None
        roles = range(self.material.objective.roles)
        flat = torch.cat([references[self.ids[index]][role] for role in roles for index in part])
        return flat.to(self.material.policy.device)

    def _place(self, solution: Outcome | None) -> None:
        self.material.reset(solution.theta if solution else None)

    def _alignment(self, fold: Sequence[EncodedPair]) -> float:
        return measure_alignment(self.material, fold, Processes()).alignment

    def _nll(self) -> float | None:
        found = measure_retain(self.material, self.material.retain, Processes())
        return found.nll if found else None
