"""−⟨v, ∇φ_i⟩ / n of chosen candidates, where a loaded policy is now: one directional derivative a candidate."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from u2a_core.data.encode import token_budget_batches
from u2a_core.errors import UnlearningError
from u2a_core.influence.backends import BackendChoice, choose_backend, make_backend
from u2a_core.influence.candidates import padded_lengths, role_by_role
from u2a_core.influence.directional import Direction, unit_direction
from u2a_core.influence.first_order import batch_influence
from u2a_core.store.progress import Progress
from u2a_core.unlearning.material import Material


class CandidateInfluence:
    """The candidates `ids` of a material; the back end is chosen once."""

    def __init__(self, material: Material, ids: Sequence[str], show: bool = True) -> None:
        self.material, self.ids, self.show = material, list(ids), show
        sequences = role_by_role([material.candidates[one] for one in self.ids])
        roles, budget = material.objective.roles, material.config.token_budget
        self.choice: BackendChoice = choose_backend("auto", False, material.policy, sequences, budget, roles)

    def along(self, direction: Direction, places: Sequence[int] | None = None) -> NDArray[np.float64]:
        """−⟨v, ∇φ_i⟩ / n, n = all of `ids`, of those at `places` (None: all), in their order.

        Raises `UnlearningError`, naming ids, where a number is not finite.
        """
        material, count = self.material, len(self.ids)
        unit, norm = unit_direction(direction)
        mode = make_backend(self.choice.name, material.policy.model, unit)
        ids = self.ids if places is None else [self.ids[place] for place in places]
        members = [material.candidates[one] for one in ids]
        derivative = np.zeros(len(ids))
        with Progress("influence", len(members), show=self.show) as progress:
            for part in token_budget_batches(padded_lengths(members), self.choice.token_budget):
                batch = material.batch(role_by_role([members[index] for index in part]))
                reference = material.reference_tokens([ids[index] for index in part])
                found = batch_influence(mode, batch, material.objective, norm / count, reference, tokens=False)
                derivative[part] = found.samples.cpu().numpy()
                progress.step(len(part))
        if not np.isfinite(derivative).all():
            bad = [ids[index] for index in np.flatnonzero(~np.isfinite(derivative))[:5]]
            raise UnlearningError(f"The influence of {', '.join(bad)} is not finite: lower --learning-rate.")
        return derivative
