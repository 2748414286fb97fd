"""Retention terms: values by hand, zero at θ0, the direction of the divergence, and its gradient."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import kl_div

from u2a_core.objectives.forgetting import gradient_ascent
from u2a_core.objectives.retention import forward_kl, retain_nll

FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def random_logits(seed: int, rows: int = 6, width: int = 50, spread: float = 4.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return spread * torch.randn(rows, width, generator=generator, dtype=torch.float64)


def test_retain_nll_by_hand() -> None:
    # (1 + 2 + 3)/3 = 2 and (½ + 1½)/2 = 1; 99 stands where there is no token.
    logps = torch.tensor([[-1.0, -2.0, -3.0], [-0.5, -1.5, 99.0]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    assert retain_nll(logps, mask).tolist() == [2.0, 1.0]
    assert retain_nll(logps, mask).tolist() == (-gradient_ascent(logps, mask)).tolist()


def test_forward_kl_by_hand() -> None:
    # π° = (½, ½), π = (¼, ¾): ½ log 2 + ½ log ⅔ = 0.3465735903 − 0.2027325541 = 0.1438410362.
    # The other way round, KL(π ‖ π°) = ¼ log ½ + ¾ log 3/2 = −0.1732867951 + 0.3040988311 = 0.1308120359.
    even, uneven = torch.tensor([[0.5, 0.5]]).double().log(), torch.tensor([[0.25, 0.75]]).double().log()
    assert forward_kl(even, uneven).tolist() == [pytest.approx(0.1438410362, abs=1e-10)]
    assert forward_kl(uneven, even).tolist() == [pytest.approx(0.1308120359, abs=1e-10)]


@pytest.mark.parametrize("dtype", FLOATS)
def test_kl_and_its_gradient_are_exactly_zero_where_nothing_changed(dtype: torch.dtype) -> None:
    logits = random_logits(0).to(dtype)
    variable = logits.clone().requires_grad_(True)
    values = forward_kl(logits, variable)
    values.sum().backward()
    assert values.tolist() == [0.0] * 6
    assert (variable.grad == 0.0).all()


@pytest.mark.parametrize("dtype", FLOATS)
def test_kl_is_computed_in_float32_or_better(dtype: torch.dtype) -> None:
    """The value is that of the same logits in float64, to the precision of float32 (of float64 where given)."""
    before, after = random_logits(1).to(dtype), random_logits(2).to(dtype)
    found = forward_kl(before, after)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    exact = kl_div(after.double().log_softmax(-1), before.double().softmax(-1), reduction="none").sum(-1)
    torch.testing.assert_close(
        found.double(),
        exact,
        rtol=1e-12 if dtype == torch.float64 else 1e-5,
        atol=0 if dtype == torch.float64 else 1e-6,
    )


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.0, 30.0), st.floats(0.0, 30.0))
def test_kl_is_never_negative_beyond_rounding(seed: int, spread: float, change: float) -> None:
    before = random_logits(seed, spread=spread).float()
    after = before + change * random_logits(seed + 1, spread=1.0).float()
    assert (forward_kl(before, after) >= -1e-6).all()
    assert forward_kl(before, after + 3.0).isfinite().all()
    torch.testing.assert_close(forward_kl(before, after + 3.0), forward_kl(before, after), rtol=1e-4, atol=1e-5)


def test_gradient_is_the_difference_of_the_probabilities() -> None:
    """∂KL(π° ‖ π)/∂logit_k = π_k − π°_k; the reference gets no gradient."""
    before, after = random_logits(3).requires_grad_(True), random_logits(4).requires_grad_(True)
    forward_kl(before, after).sum().backward()
    expected = after.detach().softmax(-1) - before.detach().softmax(-1)
    torch.testing.assert_close(after.grad, expected, rtol=0, atol=1e-13)
    assert before.grad is None


def test_second_order_at_no_change_is_the_fisher_form() -> None:
    """KL(π° ‖ π° + εδ) = ½ ε² (Σ p δ² − (Σ p δ)²) + O(ε³), what the implicit estimator's curvature builds on."""
    before, change, step = random_logits(5), random_logits(6, spread=1.0), 1e-4
    p = before.softmax(-1)
    quadratic = 0.5 * ((p * change**2).sum(-1) - (p * change).sum(-1) ** 2)
    torch.testing.assert_close(forward_kl(before, before + step * change) / step**2, quadratic, rtol=1e-3, atol=1e-6)


def test_rows_do_not_touch_each_other() -> None:
    before, after = random_logits(7), random_logits(8)
    whole = forward_kl(before, after)
    for row in range(len(before)):
        torch.testing.assert_close(forward_kl(before[row, None], after[row, None])[0], whole[row], rtol=1e-14, atol=0)
    assert math.isfinite(float(whole.sum()))
