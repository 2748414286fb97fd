"""ΔPA for objectives that look at alternatives: both back ends against the gradient of each φ_i, taken by a loop.

The loop takes every response alone, without padding, with the head at every position, in float64.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from u2a_core.data.batch import collate
from u2a_core.data.encode import EncodedResponse
from u2a_core.influence.backends import choose_backend, make_backend
from u2a_core.influence.candidates import padded_lengths, role_by_role
from u2a_core.influence.directional import unit_direction
from u2a_core.influence.first_order import BatchInfluence, batch_influence
from u2a_core.models.policy import Policy
from u2a_core.objectives.config import OBJECTIVES
from u2a_core.objectives.forgetting import ForgettingObjective, forgetting_objective

pytestmark = pytest.mark.usefixtures("one_thread")
BACKENDS = ("forward", "reverse")
ALTERNATIVES = 2
SCALE = 0.7
Candidate = tuple[EncodedResponse, ...]


@dataclass(frozen=True)
class Case:
    """A policy, a unit direction v, examples of three roles, and their log-probabilities with a graph, [T] by role."""

    policy: Policy
    direction: dict[str, Tensor]
    candidates: list[Candidate]
    logps: list[list[Tensor]]

    def slope(self, value: Tensor) -> float:
        """⟨v, ∇value⟩ by a gradient and a flat dot product."""
        parameters = list(self.policy.parameters().values())
        for parameter in parameters:
            parameter.requires_grad_(True)
        gradients = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
        for parameter in parameters:
            parameter.requires_grad_(False)
        pairs = zip(gradients, self.direction.values(), strict=True)
        return float(sum((g * v).sum() for g, v in pairs if g is not None))


def objective_called(name: str) -> ForgettingObjective:
    return forgetting_objective(name, **({"random_answers": ALTERNATIVES} if name == "yao" else {}))


def references_of(rows: Sequence[Tensor], number: int) -> list[Tensor]:
    """Log-probabilities at a made-up reference, different by example and role, so that weights differ too."""
    return [row.detach() + 0.2 * number - 0.3 * role for role, row in enumerate(rows)]


def stacked(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """One example's roles as values and mask, [R, 1, T]."""
    values = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
    lengths = torch.tensor([len(row) for row in rows])
    return values[:, None], (torch.arange(values.shape[1]) < lengths[:, None])[:, None]


@pytest.fixture(
    scope="module",
    params=list(product(("llama", "gpt2"), ("lora", "full"))),
    ids=lambda choice: "-".join(choice),
)
def case(request: pytest.FixtureRequest, build_policy: Any, encode_lengths: Any, naive_logps: Any) -> Case:
    """Four examples with two alternatives each, of all lengths; what is padded differs from role to role."""
    policy = build_policy(*request.param)
    generator = torch.Generator().manual_seed(1)
    parameters = policy.parameters()
    noise = {name: torch.randn(one.shape, generator=generator, dtype=one.dtype) for name, one in parameters.items()}
    lengths = [(3, 4, 2, 6), (1, 2, 5, 1), (6, 1, 3, 2), (2, 7, 1, 3)]  # prompt, own response, alternatives
    candidates = []
    for prompt, *responses in lengths:
        own = encode_lengths(prompt, responses[0])
        others = [replace(encode_lengths(prompt, count), id=own.id, prompt_ids=own.prompt_ids) for count in responses]
        candidates.append((own, *others[1:]))
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    logps = [[naive_logps(policy.model, one) for one in roles] for roles in candidates]
    for parameter in parameters.values():
        parameter.requires_grad_(False)
    return Case(policy, unit_direction(noise)[0], candidates, logps)


def influence_of(
    case: Case, name: str, backend: str, order: Sequence[int], tokens: bool = True, padding_side: str = "right"
) -> BatchInfluence:
    """What scoring computes of the examples in `order`."""
    objective = objective_called(name)
    sequences = role_by_role([case.candidates[index][: objective.roles] for index in order])
    references = [references_of(case.logps[index], index) for index in order]
    flat = torch.cat([row[role] for role in range(objective.roles) for row in references])
    mode = make_backend(backend, case.policy.model, case.direction)
    batch = collate(sequences, 0, padding_side)
    return batch_influence(mode, batch, objective, SCALE, flat if "reference" in objective.needs else None, tokens)


def by_the_loop(case: Case, name: str, detached: Sequence[int] = ()) -> Tensor:
    """−scale ⟨v, ∇φ_i⟩ of every example, [N]; the roles in `detached` are held fixed."""
    objective = objective_called(name)
    found = []
    for number, rows in enumerate(case.logps):
        used = [row.detach() if role in detached else row for role, row in enumerate(rows[: objective.roles])]
        logps, mask = stacked(used)
        reference, _ = stacked(references_of(rows, number)[: objective.roles])
        found.append(-SCALE * case.slope(objective.loss(logps, mask, reference)[0]))
    return torch.tensor(found, dtype=torch.float64)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_scores_equal_the_gradient_of_each_objective(case: Case, name: str) -> None:
    """Both back ends, with parts per token and without; the parts of the response and of the alternatives too."""
    whole, own = by_the_loop(case, name), by_the_loop(case, name, detached=(1, 2))
    lengths = [len(roles[0].response_ids) for roles in case.candidates]
    tolerance = 1e-9 * float(whole.abs().max())
    for backend, tokens in product(BACKENDS, (True, False)):
        found = influence_of(case, name, backend, range(4), tokens)
        torch.testing.assert_close(found.samples, whole, rtol=0, atol=tolerance)
        torch.testing.assert_close(found.alternatives, whole - own, rtol=0, atol=tolerance)
        naive = torch.cat([rows[0] for rows in case.logps]).detach()
        torch.testing.assert_close(found.logps, naive, rtol=0, atol=1e-10)
        if not tokens:
            assert found.tokens is None
            continue
        assert found.tokens is not None
        parts = torch.stack([part.sum() for part in found.tokens.split(lengths)])
        torch.testing.assert_close(parts, own, rtol=0, atol=tolerance)
        torch.testing.assert_close(parts + found.alternatives, found.samples, rtol=0, atol=1e-3 * tolerance)
    if objective_called(name).roles == 1:
        assert found.alternatives.tolist() == [0.0] * 4
    else:
        assert (found.alternatives != 0).all()


@pytest.mark.parametrize("name", ["dpo", "flat-js", "yao"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_depends_on_the_batch(case: Case, name: str, backend: str) -> None:
    """Batch size, order and padding side change no example's numbers, its alternatives beside it."""
    together = influence_of(case, name, backend, range(4))
    assert together.tokens is not None
    lengths = [len(roles[0].response_ids) for roles in case.candidates]
    expected = list(zip(together.samples, together.alternatives, together.tokens.split(lengths), strict=True))
    for order, side in (((2,), "right"), ((3, 1), "right"), ((3, 2, 1, 0), "right"), ((1, 0, 2, 3), "left")):
        found = influence_of(case, name, backend, order, padding_side=side)
        assert found.tokens is not None
        parts = found.tokens.split([lengths[index] for index in order])
        for place, index in enumerate(order):
            row = (found.samples[place], found.alternatives[place], parts[place])
            for one, other in zip(row, expected[index], strict=True):
                torch.testing.assert_close(one, other, rtol=0, atol=1e-11)


def test_roles_are_laid_out_one_after_the_other(case: Case) -> None:
    """A batch lists all own responses, then all first alternatives, then all second ones; its size counts them all."""
    laid = role_by_role(case.candidates[:2])
    (a, a1, a2), (b, b1, b2) = case.candidates[:2]
    assert laid == [a, b, a1, b1, a2, b2]
    # prompt 3 with responses of 4, 2, 6: the longest has 9 tokens, three times; prompt 1 with 2, 5, 1: 6, three times.
    assert padded_lengths(case.candidates[:2]) == [27, 18]


def test_a_batch_that_does_not_divide_into_roles_is_a_fault(case: Case) -> None:
    mode = make_backend("forward", case.policy.model, case.direction)
    batch = collate([roles[0] for roles in case.candidates[:3]], 0)
    with pytest.raises(AssertionError, match="flat-kl: 3 sequences in 2 roles"):
        batch_influence(mode, batch, forgetting_objective("flat-kl"), 1.0)


def test_a_back_end_is_chosen_with_room_for_all_roles(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory for one sequence is not memory for one example with its alternatives."""
    from u2a_core.influence import backends

    sequences = role_by_role(case.candidates)
    longest = max(one.length for one in sequences)
    need = backends.bytes_per_token(case.policy, "forward", longest) * longest / backends.SHARE_OF_MEMORY
    monkeypatch.setattr(backends, "available_memory", lambda _: int(1.5 * need))
    assert choose_backend("auto", True, case.policy, sequences).name == "forward"
    choice = choose_backend("auto", True, case.policy, sequences, roles=3)
    assert choice.name == "reverse"
    assert "forward would need about" in choice.reason
