"""FLAT: its table of g* and f*, against arithmetic by hand, the authors' composed form, and the definition of f*."""

import math

import pytest
import torch
from torch import Tensor

from u2a_core.objectives.flat import DIVERGENCES, flat, mean_probability
from u2a_core.objectives.forgetting import forgetting_objective

NAMES = tuple(DIVERGENCES)
GRID = torch.linspace(0.0, 1.0, 21, dtype=torch.float64)  # what P can be


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


# Tokens of probability ½ and ¼: P(y_f) = ⅜. Tokens of probability ½ and 1: P(y_e) = ¾. 777 stands where there is none.
LOGPS = torch.stack([column(math.log(0.5), math.log(0.25), 777.0), column(math.log(0.5), 777.0, 0.0)])[:, None]
MASK = torch.tensor([[[True, True, False]], [[True, False, True]]])


def test_mean_probability_by_hand() -> None:
    """A mean of probabilities, not the probability of the mean: (½ + ¼)/2 = ⅜ and (½ + 1)/2 = ¾."""
    assert mean_probability(LOGPS, MASK).tolist() == [[pytest.approx(0.375)], [pytest.approx(0.75)]]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        # KL: e^(⅜ − 1) − ¾ = 0.5352614285 − 0.75
        ("kl", -0.2147385715),
        # TV: ½ tanh ⅜ − ½ tanh ¾ = ½ (0.3583573984 − 0.6351489524)
        ("tv", -0.1383957770),
        # JS: f*(g*(⅜)) = ⅜ + log(1 + e^−⅜) − log 2 = 0.375 + 0.5231232641 − 0.6931471806 = 0.2049760836, and
        #     g*(¾) = log 2 − log(1 + e^−¾) = 0.6931471806 − 0.3868710061 = 0.3062761745
        ("js", -0.1013000909),
        # Pearson: (⅜)²/4 + ⅜ − ¾ = 0.03515625 − 0.375
        ("pearson", -0.33984375),
    ],
)
def test_values_by_hand(name: str, value: float) -> None:
    assert flat(LOGPS, MASK, DIVERGENCES[name]).tolist() == [pytest.approx(value, abs=1e-9)]
    assert forgetting_objective(f"flat-{name}").loss(LOGPS, MASK, None).tolist() == [pytest.approx(value, abs=1e-9)]


@pytest.mark.parametrize("name", NAMES)
def test_composition_is_that_of_the_authors_code(name: str) -> None:
    """g*(v) and f*(g*(v)) as UCSC-REAL/FLAT composes them, v between 0 and 1."""
    v = GRID
    activation, composed = {
        "kl": (v, torch.exp(v - 1)),
        "tv": (torch.tanh(v) / 2, torch.tanh(v) / 2),
        "js": (
            -torch.log(1 + torch.exp(-v)) + math.log(2),
            v + torch.log(1 + torch.exp(-v)) - math.log(2),
        ),
        "pearson": (v, v * v / 4 + v),
    }[name]
    divergence = DIVERGENCES[name]
    torch.testing.assert_close(divergence.activation(v), activation, rtol=0, atol=1e-14)
    torch.testing.assert_close(divergence.conjugate(divergence.activation(v)), composed, rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", NAMES)
def test_conjugate_is_the_supremum_of_its_definition(name: str) -> None:
    """f*(t) = sup over u > 0 of ut − f(u), maximised on a fine grid of u, at every t = g*(v)."""
    divergence = DIVERGENCES[name]
    u = torch.logspace(-6, 2, 400_001, base=10, dtype=torch.float64)
    for t in divergence.activation(GRID).tolist():
        largest = float((u * t - divergence.generator(u)).max())
        assert largest == pytest.approx(float(divergence.conjugate(column(t))), abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_variational_bound_is_tight(name: str) -> None:
    """sup over t of p t − q f*(t) = q f(p/q), the term of the f-divergence that FLAT's loss is the bound of."""
    divergence = DIVERGENCES[name]
    reach = 0.5 if name == "tv" else math.log(2) - 1e-9 if name == "js" else 4.0
    t = torch.linspace(-0.5 if name == "tv" else -2.0, reach, 400_001, dtype=torch.float64)
    for p, q in ((0.3, 0.6), (0.5, 0.5), (0.7, 0.4)):
        bound = float((p * t - q * divergence.conjugate(t)).max())
        term = q * float(divergence.generator(column(p / q)))
        assert bound == pytest.approx(term, abs=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_generator_is_convex_and_zero_at_one(name: str) -> None:
    u = torch.linspace(0.05, 5.0, 500, dtype=torch.float64)
    values = DIVERGENCES[name].generator(u)
    assert (values[2:] - 2 * values[1:-1] + values[:-2] >= -1e-12).all()
    assert float(DIVERGENCES[name].generator(column(1.0))) == 0.0


@pytest.mark.parametrize("name", NAMES)
def test_hopeless_and_certain_tokens_stay_finite(name: str) -> None:
    """Probabilities of 0 and 1: value and weights are finite numbers, also in float32."""
    extremes = torch.tensor([[[0.0, -2000.0]], [[-2000.0, 0.0]]])
    everywhere = torch.ones_like(extremes, dtype=torch.bool)
    objective = forgetting_objective(f"flat-{name}")
    assert objective.loss(extremes, everywhere, None).isfinite().all()
    assert objective.token_weights(extremes, everywhere, None).isfinite().all()
