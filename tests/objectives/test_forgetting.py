"""Forgetting objectives φ: values worked by hand, masks, normalisers, limits, and the weights of single tokens."""

import math

import pytest
import torch
from torch import Tensor

from u2a_core.errors import ScoringError
from u2a_core.objectives.forgetting import (
    forgetting_objective,
    gradient_ascent,
    negative_preference_optimisation,
)


def table(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


# Two responses of three and of two tokens; 99 stands where there is none.
LOGPS = table([[-1.0, -2.0, -3.0], [-0.5, -1.5, 99.0]])
REFERENCE = table([[-1.5, -1.5, -2.0], [-1.0, -1.5, -99.0]])
MASK = torch.tensor([[True, True, True], [True, True, False]])


def test_gradient_ascent_by_hand() -> None:
    # φ = mean log π: (−1 − 2 − 3)/3 = −2 and (−0.5 − 1.5)/2 = −1. Minimising it makes the response unlikelier.
    assert gradient_ascent(LOGPS, MASK).tolist() == [-2.0, -1.0]


def test_npo_by_hand() -> None:
    # NLL − NLL° summed: (6 − 5) = 1 and (2 − 2.5) = −½. With β = ½:
    # −(2/½) log σ(½)  = 4 log(1 + e^−½) = 4 log(1.6065306597) = 4 · 0.4740769842 = 1.8963079368
    # −(2/½) log σ(−¼) = 4 log(1 + e^¼)  = 4 log(2.2840254167) = 4 · 0.8259394198 = 3.3037576792
    values = negative_preference_optimisation(LOGPS, MASK, REFERENCE, beta=0.5)
    assert values.tolist() == pytest.approx([1.8963079368, 3.3037576792], abs=1e-9)


def test_npo_at_the_reference() -> None:
    """π = π°: −(2/β) log ½ for every response, however long."""
    values = negative_preference_optimisation(LOGPS, MASK, LOGPS, beta=0.1)
    assert values.tolist() == pytest.approx([20 * math.log(2)] * 2, abs=1e-12)


def weights_of(name: str, beta: float = 0.1, logps: Tensor = LOGPS, mask: Tensor = MASK) -> Tensor:
    objective = forgetting_objective(name, beta)
    return objective.token_weights(logps, mask, REFERENCE)


def test_normalisers() -> None:
    """GA weighs a token by 1/T_i. NPO sums: at the reference every token weighs 2σ(0) = 1, however many there are."""
    torch.testing.assert_close(weights_of("ga"), table([[1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0.0]]))
    torch.testing.assert_close(weights_of("npo", logps=REFERENCE), MASK.double())


def test_npo_tends_to_gradient_ascent() -> None:
    """∂φ/∂log π(y_t) = 2σ(−β (NLL − NLL°)) → 1 as β → 0: the gradient of GA on the sum of the log-probabilities."""
    for beta in (1e-2, 1e-4, 1e-6):
        torch.testing.assert_close(weights_of("npo", beta), MASK.double(), rtol=0, atol=beta)


def test_npo_lets_go_of_what_is_forgotten() -> None:
    """The weight 2σ(−β (NLL − NLL°)) falls from 1 at the reference to 0: NPO does not run away as GA does."""
    drops = [0.0, 10.0, 100.0, 1000.0]
    weights = [float(weights_of("npo", 0.1, REFERENCE - drop * MASK)[0, 0]) for drop in drops]
    assert weights[0] == pytest.approx(1.0)
    assert weights == sorted(weights, reverse=True)
    assert weights[-1] < 1e-20


@pytest.mark.parametrize("name", ["ga", "npo"])
def test_masked_positions_never_count(name: str) -> None:
    """What stands off the mask changes no value and gets no weight; further masked columns neither."""
    objective = forgetting_objective(name)
    changed, reference = LOGPS.clone(), REFERENCE.clone()
    changed[1, 2], reference[1, 2] = -1234.5, 777.0
    wider = [torch.cat([part, torch.full((2, 4), 5.0)], 1) for part in (LOGPS, REFERENCE)]
    wide_mask = torch.cat([MASK, torch.zeros(2, 4, dtype=torch.bool)], 1)
    expected = objective.loss(LOGPS, MASK, REFERENCE)
    torch.testing.assert_close(objective.loss(changed, MASK, reference), expected, rtol=0, atol=0)
    torch.testing.assert_close(objective.loss(wider[0], wide_mask, wider[1]), expected, rtol=0, atol=0)
    assert float(weights_of(name)[1, 2]) == 0.0
    torch.testing.assert_close(
        objective.token_weights(wider[0], wide_mask, wider[1])[:, :3], weights_of(name), rtol=0, atol=0
    )


@pytest.mark.parametrize("name", ["ga", "npo"])
def test_token_weights_equal_differences(name: str) -> None:
    objective, step = forgetting_objective(name, 0.7), 1e-5
    found = weights_of(name, 0.7)
    for row in range(2):
        for column in range(3):
            change = torch.zeros_like(LOGPS)
            change[row, column] = step
            ahead, behind = (objective.loss(LOGPS + sign * change, MASK, REFERENCE) for sign in (1, -1))
            slopes = (ahead - behind) / (2 * step)
            assert float(slopes[row]) == pytest.approx(float(found[row, column]), abs=1e-8)
            assert float(slopes[1 - row]) == 0.0  # no sample's value depends on another sample


@pytest.mark.parametrize("name", ["ga", "npo"])
def test_token_weights_need_no_gradient_mode(name: str) -> None:
    """Under `no_grad`, and for log-probabilities that belong to a graph, the weights are the same and have no graph."""
    attached = LOGPS.clone().requires_grad_(True) * 1.0
    with torch.no_grad():
        found = weights_of(name, logps=attached)
    assert not found.requires_grad
    torch.testing.assert_close(found, weights_of(name), rtol=0, atol=0)


def test_beta_reaches_npo() -> None:
    values = forgetting_objective("npo", 0.5).loss(LOGPS, MASK, REFERENCE)
    torch.testing.assert_close(values, negative_preference_optimisation(LOGPS, MASK, REFERENCE, 0.5), rtol=0, atol=0)


def test_missing_reference_is_refused() -> None:
    with pytest.raises(ScoringError, match="npo needs log-probabilities at the reference"):
        forgetting_objective("npo").token_weights(LOGPS, MASK, None)
    assert forgetting_objective("ga").token_weights(LOGPS, MASK, None).shape == (2, 3)
    assert (forgetting_objective("ga").needs, forgetting_objective("npo").needs) == (set(), {"reference"})


def test_unknown_objective_is_refused() -> None:
    with pytest.raises(ScoringError, match="'dpo'; choose one of ga, npo"):
        forgetting_objective("dpo")
