"""Preference alignment J: values worked by hand, signs, and its value at the reference."""

import math

import pytest
import torch

from u2a_core.errors import ScoringError
from u2a_core.objectives.alignment import alignment, dpo_alignment, preference_margin


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


# Pair 1: chosen −4 where the reference has −5: +1; rejected −6 where it has −3: −3. Margin 1 − (−3) = 4.
# Pair 2: chosen −2 where the reference has −2:  0; rejected −1 where it has −2: +1. Margin 0 − 1 = −1.
PAIRS = (column(-4.0, -2.0), column(-6.0, -1.0), column(-5.0, -2.0), column(-3.0, -2.0))


def test_margin_by_hand() -> None:
    assert preference_margin(*PAIRS).tolist() == [4.0, -1.0]


def test_dpo_by_hand() -> None:
    # β = ½. Pair 1: log σ(2) = −log(1 + e⁻²) = −log(1.1353352832) = −0.1269280110.
    # Pair 2: log σ(−½) = −log(1 + e^½) = −log(2.6487212707) = −0.9740769842.
    assert dpo_alignment(*PAIRS, beta=0.5).tolist() == pytest.approx([-0.1269280110, -0.9740769842], abs=1e-10)


def test_value_at_the_reference() -> None:
    """π = π°: the margin is 0 and J = log σ(0) = log ½, whatever β."""
    at_reference = (PAIRS[0], PAIRS[1], PAIRS[0], PAIRS[1])
    assert preference_margin(*at_reference).tolist() == [0.0, 0.0]
    for beta in (0.01, 0.1, 3.0):
        assert dpo_alignment(*at_reference, beta=beta).tolist() == pytest.approx([math.log(0.5)] * 2, abs=1e-15)


@pytest.mark.parametrize("name", ["dpo", "margin"])
def test_higher_is_better(name: str) -> None:
    """J rises with log π of the chosen and falls with that of the rejected response, each as much as the other."""
    chosen, rejected = (part.clone().requires_grad_(True) for part in PAIRS[:2])
    alignment(name)(chosen, rejected, *PAIRS[2:]).sum().backward()
    assert (chosen.grad > 0).all()
    torch.testing.assert_close(rejected.grad, -chosen.grad)


def test_beta_belongs_to_dpo_alone() -> None:
    torch.testing.assert_close(alignment("dpo", 0.5)(*PAIRS), dpo_alignment(*PAIRS, beta=0.5), rtol=0, atol=0)
    assert alignment("margin", 0.5)(*PAIRS).tolist() == [4.0, -1.0]


def test_small_beta_is_the_margin() -> None:
    """log σ(z) = log ½ + z/2 + O(z²): (J − log ½) · 2/β tends to the margin."""
    slope = (dpo_alignment(*PAIRS, beta=1e-6) - math.log(0.5)) * 2 / 1e-6
    torch.testing.assert_close(slope, preference_margin(*PAIRS), rtol=1e-5, atol=0)


def test_hopeless_pair_stays_finite() -> None:
    """β · margin = 0.1 · (−20000 − 0) = −2000, far below where e^2000 overflows; log σ(−2000) = −2000."""
    far = (column(-20000.0), column(0.0), column(0.0), column(0.0))
    assert dpo_alignment(*far).tolist() == [-2000.0]


def test_unknown_measure_is_refused() -> None:
    with pytest.raises(ScoringError, match=r"'ppo'; choose dpo or margin"):
        alignment("ppo")
