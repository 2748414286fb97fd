"""Forgetting objectives φ: values worked by hand, masks, normalisers, limits, and the weights of single tokens."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from u2a_core.errors import ScoringError
from u2a_core.objectives.config import OBJECTIVES, ObjectiveConfig
from u2a_core.objectives.forgetting import (
    ForgettingObjective,
    ascent_with_mismatch,
    direct_preference_optimisation,
    forgetting_objective,
    gradient_ascent,
    negative_preference_optimisation,
    random_mismatch,
    simple_negative_preference_optimisation,
)

WITH_BETA = ("npo", "simnpo", "dpo")


def table(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


# Two responses of three and of two tokens, and two alternatives to each; 99 stands where there is no token.
LOGPS = table([[-1.0, -2.0, -3.0], [-0.5, -1.5, 99.0]])
REFERENCE = table([[-1.5, -1.5, -2.0], [-1.0, -1.5, -99.0]])
MASK = torch.tensor([[True, True, True], [True, True, False]])
LOGPS_BY_ROLE = torch.stack(
    [LOGPS, table([[-0.5, -0.5, 99.0], [-2.0, -1.0, -3.0]]), table([[-4.0, 99.0, 99.0], [-1.0, -2.0, 99.0]])]
)
REFERENCE_BY_ROLE = torch.stack(
    [REFERENCE, table([[-1.0, -1.0, -99.0], [-1.5, -1.5, -2.0]]), table([[-3.0, -99.0, -99.0], [-2.0, -2.0, -99.0]])]
)
MASK_BY_ROLE = torch.tensor(
    [MASK.tolist(), [[True, True, False], [True, True, True]], [[True, False, False], [True, True, False]]]
)
Inputs = tuple[Tensor, Tensor, Tensor]


def objective_called(name: str, beta: float | None = None) -> ForgettingObjective:
    """The objective, with two random answers where it takes some, and with `beta` where it has one."""
    answers = {"random_answers": 2} if name == "yao" else {}
    return forgetting_objective(name, **answers, **({"beta": beta} if beta and name in WITH_BETA else {}))


def inputs_of(objective: ForgettingObjective) -> Inputs:
    """Log-probabilities, mask and reference of the roles that it looks at, [R, 2, 3] each."""
    return tuple(part[: objective.roles] for part in (LOGPS_BY_ROLE, MASK_BY_ROLE, REFERENCE_BY_ROLE))


def weights_of(name: str, beta: float = 0.1, logps: Tensor = LOGPS, mask: Tensor = MASK) -> Tensor:
    """Weights of an objective that looks at one response, [N, T]."""
    return objective_called(name, beta).token_weights(logps[None], mask[None], REFERENCE[None])[0]


def test_gradient_ascent_by_hand() -> None:
    # φ = mean log π: (−1 − 2 − 3)/3 = −2 and (−0.5 − 1.5)/2 = −1. Minimising it makes the response unlikelier.
    assert gradient_ascent(LOGPS, MASK).tolist() == [-2.0, -1.0]


def test_npo_by_hand() -> None:
    # NLL − NLL° summed: (6 − 5) = 1 and (2 − 2.5) = −½. With β = ½:
    # −(2/½) log σ(½)  = 4 log(1 + e^−½) = 4 log(1.6065306597) = 4 · 0.4740769842 = 1.8963079368
    # −(2/½) log σ(−¼) = 4 log(1 + e^¼)  = 4 log(2.2840254167) = 4 · 0.8259394198 = 3.3037576792
    values = negative_preference_optimisation(LOGPS, MASK, REFERENCE, beta=0.5)
    assert values.tolist() == pytest.approx([1.8963079368, 3.3037576792], abs=1e-9)


def test_simnpo_by_hand() -> None:
    # The means of log π are −2 and −1. With β = ½ and γ = ¼ the arguments of σ are ½·2 − ¼ = ¾ and ½·1 − ¼ = ¼:
    # −(2/½) log σ(¾) = 4 log(1 + e^−¾) = 4 log(1.4723665527) = 4 · 0.3868710061 = 1.5474840245
    # −(2/½) log σ(¼) = 4 log(1 + e^−¼) = 4 log(1.7788007831) = 4 · 0.5759394199 = 2.3037576795
    values = simple_negative_preference_optimisation(LOGPS, MASK, beta=0.5, gamma=0.25)
    assert values.tolist() == pytest.approx([1.5474840245, 2.3037576795], abs=1e-9)


def test_dpo_by_hand() -> None:
    # log π − log π° summed: y_f −6 + 5 = −1 and −2 + 2.5 = ½; y_e −1 + 2 = 1 and −6 + 5 = −1.
    # With β = ½ the arguments of σ are ½ (1 + 1) = 1 and ½ (−1 − ½) = −¾:
    # −(2/½) log σ(1)  = 4 log(1 + e^−1) = 4 log(1.3678794412) = 4 · 0.3132616875 = 1.2530467501
    # −(2/½) log σ(−¾) = 4 log(1 + e^¾)  = 4 log(3.1170000166) = 4 · 1.1368710061 = 4.5474840245
    values = direct_preference_optimisation(LOGPS_BY_ROLE[:2], MASK_BY_ROLE[:2], REFERENCE_BY_ROLE[:2], beta=0.5)
    assert values.tolist() == pytest.approx([1.2530467501, 4.5474840245], abs=1e-9)


def test_random_mismatch_by_hand() -> None:
    # Mean NLL of the first answer: (½ + ½)/2 = ½ and (2 + 1 + 3)/3 = 2; of the second: 4 and (1 + 2)/2 = 1½.
    # Mean over the two: 2¼ and 1¾. With ε1 = ½ and ε2 = 2: ½·(−2) + 2·2¼ = 3½ and ½·(−1) + 2·1¾ = 3.
    assert random_mismatch(LOGPS_BY_ROLE[1:], MASK_BY_ROLE[1:]).tolist() == [2.25, 1.75]
    assert ascent_with_mismatch(LOGPS_BY_ROLE, MASK_BY_ROLE, 0.5, 2.0).tolist() == [3.5, 3.0]
    assert ascent_with_mismatch(LOGPS_BY_ROLE, MASK_BY_ROLE, 1.0, 0.0).tolist() == [-2.0, -1.0]  # GA


def test_values_through_the_interface() -> None:
    """Every parameter of the configuration reaches its formula, and every role its place."""
    roles = (LOGPS_BY_ROLE, MASK_BY_ROLE, REFERENCE_BY_ROLE)
    found = {
        name: forgetting_objective(name, **parameters).loss(*(part[:count] for part in roles)).tolist()
        for name, count, parameters in (
            ("ga", 1, {}),
            ("graddiff", 1, {}),
            ("npo", 1, {"beta": 0.5}),
            ("simnpo", 1, {"beta": 0.5, "gamma": 0.25}),
            ("dpo", 2, {"beta": 0.5}),
            ("yao", 3, {"epsilon": (0.5, 2.0, 7.0), "random_answers": 2}),  # ε3 weighs the retention term, not φ
        )
    }
    by_hand = {
        "ga": [-2.0, -1.0],
        "graddiff": [-2.0, -1.0],
        "npo": [1.8963079368, 3.3037576792],
        "simnpo": [1.5474840245, 2.3037576795],
        "dpo": [1.2530467501, 4.5474840245],
        "yao": [3.5, 3.0],
    }
    for name, values in by_hand.items():
        assert found[name] == pytest.approx(values, abs=1e-9), name


def test_at_the_reference() -> None:
    """π = π°: NPO and DPO are −(2/β) log ½ for every response, however long."""
    for name in ("npo", "dpo"):
        objective = forgetting_objective(name)
        logps, mask, _ = inputs_of(objective)
        assert objective.loss(logps, mask, logps).tolist() == pytest.approx([20 * math.log(2)] * 2, abs=1e-12)


def test_dpo_without_its_refusal_is_npo() -> None:
    """R = 1, or a refusal as likely as at the reference: the value of NPO, and its weights on the response."""
    logps, mask, reference = (part[:2] for part in (LOGPS_BY_ROLE, MASK_BY_ROLE, REFERENCE_BY_ROLE))
    npo = negative_preference_optimisation(LOGPS, MASK, REFERENCE, beta=0.3)
    alone = direct_preference_optimisation(logps[:1], mask[:1], reference[:1], beta=0.3)
    torch.testing.assert_close(alone, npo, rtol=0, atol=1e-14)
    unchanged = torch.stack([LOGPS, reference[1]])
    still = direct_preference_optimisation(unchanged, mask, reference, beta=0.3)
    torch.testing.assert_close(still, npo, rtol=0, atol=1e-14)
    weights = forgetting_objective("dpo", beta=0.3).token_weights(unchanged, mask, reference)
    torch.testing.assert_close(weights[0], weights_of("npo", 0.3), rtol=0, atol=1e-14)
    assert not torch.allclose(direct_preference_optimisation(logps, mask, reference, beta=0.3), npo)


def test_normalisers() -> None:
    """GA weighs a token by 1/T_i. NPO sums: at the reference every token weighs 2σ(0) = 1, however many there are."""
    torch.testing.assert_close(weights_of("ga"), table([[1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0.0]]))
    torch.testing.assert_close(weights_of("npo", logps=REFERENCE), MASK.double())


def test_weights_of_alternatives_by_hand() -> None:
    """At the reference DPO weighs a token of y_f by 2σ(0) = 1 and one of y_e by −1.

    Yao et al., ε = (½, 2), K = 2: ε1/T = ½/3, ½/2 on the response; −ε2/(K T) = −1/2, −1/3 on the first answer, −1/1,
    −1/2 on the second.
    """
    dpo = forgetting_objective("dpo")
    logps, mask, _ = inputs_of(dpo)
    torch.testing.assert_close(dpo.token_weights(logps, mask, logps), mask * table([[1.0], [-1.0]])[:, :, None])
    yao = forgetting_objective("yao", epsilon=(0.5, 2.0, 1.0), random_answers=2)
    expected = torch.stack([table([[1 / 6], [1 / 4]]), table([[-1 / 2], [-1 / 3]]), table([[-1.0], [-1 / 2]])])
    torch.testing.assert_close(yao.token_weights(LOGPS_BY_ROLE, MASK_BY_ROLE, None), MASK_BY_ROLE * expected)


def test_npo_tends_to_gradient_ascent() -> None:
    """∂φ/∂log π(y_t) = 2σ(−β (NLL − NLL°)) → 1 as β → 0: the gradient of GA on the sum of the log-probabilities.

    The value tends to that sum, but for a constant: φ − (2/β) log 2 → Σ (log π − log π°) = −1 and ½.
    """
    for beta in (1e-2, 1e-4, 1e-6):
        torch.testing.assert_close(weights_of("npo", beta), MASK.double(), rtol=0, atol=beta)
    shifted = negative_preference_optimisation(LOGPS, MASK, REFERENCE, beta=1e-6) - 2e6 * math.log(2)
    assert shifted.tolist() == pytest.approx([-1.0, 0.5], abs=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.7])
def test_simnpo_tends_to_gradient_ascent_on_the_mean(gamma: float) -> None:
    """∂φ/∂log π(y_t) = 2σ(β · mean + γ)/T → 2σ(γ)/T as β → 0: that of GA where γ = 0."""
    limit = 2 / (1 + math.exp(-gamma)) * weights_of("ga")
    for beta in (1e-2, 1e-4, 1e-6):
        objective = forgetting_objective("simnpo", beta=beta, gamma=gamma)
        weights = objective.token_weights(LOGPS[None], MASK[None], None)[0]
        torch.testing.assert_close(weights, limit, rtol=0, atol=beta)


@pytest.mark.parametrize("name", ["npo", "simnpo"])
def test_what_is_forgotten_is_let_go(name: str) -> None:
    """The weight falls to 0 as the response grows unlikely: NPO and SimNPO do not run away as GA does."""
    drops = [0.0, 10.0, 100.0, 1000.0]
    weights = [float(weights_of(name, 0.1, REFERENCE - drop * MASK)[0, 0]) for drop in drops]
    assert weights == sorted(weights, reverse=True)
    assert weights[-1] < 1e-20
    assert weights_of("ga", logps=REFERENCE - 1000 * MASK)[0, 0] == 1 / 3


@pytest.mark.parametrize("name", OBJECTIVES)
def test_masked_positions_never_count(name: str) -> None:
    """What stands off the mask changes no value and gets no weight; further masked columns neither."""
    objective = objective_called(name)
    logps, mask, reference = inputs_of(objective)
    expected = objective.loss(logps, mask, reference)
    changed = [part.masked_fill(~mask, filler) for part, filler in ((logps, 777.0), (reference, -1234.5))]
    pad = torch.full((objective.roles, 2, 4), 5.0, dtype=torch.float64)
    wider = [torch.cat([part, pad], -1) for part in (logps, reference)]
    wide_mask = torch.cat([mask, torch.zeros_like(pad, dtype=torch.bool)], -1)
    torch.testing.assert_close(objective.loss(changed[0], mask, changed[1]), expected, rtol=0, atol=0)
    torch.testing.assert_close(objective.loss(wider[0], wide_mask, wider[1]), expected, rtol=1e-15, atol=0)
    weights = objective.token_weights(logps, mask, reference)
    assert (weights[~mask] == 0).all()
    torch.testing.assert_close(objective.token_weights(changed[0], mask, changed[1]), weights, rtol=0, atol=0)
    wide = objective.token_weights(wider[0], wide_mask, wider[1])
    torch.testing.assert_close(wide[..., :3], weights, rtol=1e-15, atol=0)


def test_no_weight_off_the_mask_whatever_the_loss() -> None:
    """A loss that looks past its mask moves no padding."""
    careless = replace(forgetting_objective("ga"), loss=lambda logps, _mask, _reference: logps.sum((0, 2)))
    assert torch.equal(careless.token_weights(LOGPS[None], MASK[None], None), MASK[None].double())


@pytest.mark.parametrize("name", OBJECTIVES)
def test_token_weights_equal_differences(name: str) -> None:
    objective, step = objective_called(name, 0.7), 1e-5
    logps, mask, reference = inputs_of(objective)
    found = objective.token_weights(logps, mask, reference)
    assert found.shape == (objective.roles, 2, 3)
    for role, row, column in torch.cartesian_prod(*(torch.arange(size) for size in logps.shape)).tolist():
        change = torch.zeros_like(logps)
        change[role, row, column] = step
        ahead, behind = (objective.loss(logps + sign * change, mask, reference) for sign in (1, -1))
        slopes = (ahead - behind) / (2 * step)
        assert float(slopes[row]) == pytest.approx(float(found[role, row, column]), abs=1e-8)
        assert float(slopes[1 - row]) == 0.0  # no sample's value depends on another sample


@pytest.mark.parametrize("name", OBJECTIVES)
def test_order_of_samples_and_of_random_answers(name: str) -> None:
    """Values and weights follow their samples; random answers are interchangeable, other roles are not."""
    objective = objective_called(name, 0.7)
    logps, mask, reference = inputs_of(objective)
    expected = objective.loss(logps, mask, reference)
    turned = [part.flip(1) for part in (logps, mask, reference)]
    torch.testing.assert_close(objective.loss(*turned), expected.flip(0), rtol=1e-15, atol=0)
    torch.testing.assert_close(
        objective.token_weights(*turned), objective.token_weights(logps, mask, reference).flip(1), rtol=1e-15, atol=0
    )
    if name == "yao":
        swapped = [part[[0, 2, 1]] for part in (logps, mask, reference)]
        torch.testing.assert_close(objective.loss(*swapped), expected, rtol=1e-15, atol=0)
    if objective.roles > 1:
        displaced = [part.flip(0) for part in (logps, mask, reference)]
        assert not torch.allclose(objective.loss(*displaced), expected)


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(OBJECTIVES), st.integers(0, 2**31), st.floats(0.1, 5.0))
def test_forgetting_lowers_the_response_and_raises_the_alternatives(name: str, seed: int, spread: float) -> None:
    """No objective, whatever the probabilities, gains by a likelier response or by an unlikelier alternative."""
    objective = objective_called(name, 0.7)
    generator = torch.Generator().manual_seed(seed)
    shape = (objective.roles, 4, 5)
    logps, reference = (
        -spread * torch.rand(shape, generator=generator, dtype=torch.float64).log().neg() for _ in range(2)
    )
    mask = torch.rand(shape, generator=generator) < 0.7
    mask[..., 0] = True
    weights = objective.token_weights(logps, mask, reference)
    assert (weights[0] >= 0).all()
    assert (weights[1:] <= 0).all()
    assert (weights[0].sum(-1) > 0).all()
    assert (weights[1:].sum(-1) < 0).all()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_token_weights_need_no_gradient_mode(name: str) -> None:
    """Under `no_grad`, and for log-probabilities that belong to a graph, the weights are the same and have no graph."""
    objective = objective_called(name)
    logps, mask, reference = inputs_of(objective)
    attached = logps.clone().requires_grad_(True) * 1.0
    with torch.no_grad():
        found = objective.token_weights(attached, mask, reference)
    assert not found.requires_grad
    torch.testing.assert_close(found, objective.token_weights(logps, mask, reference), rtol=0, atol=0)


def test_missing_reference_is_refused() -> None:
    for name in ("npo", "dpo"):
        with pytest.raises(ScoringError, match=f"{name} needs log-probabilities at the reference"):
            forgetting_objective(name).token_weights(LOGPS_BY_ROLE[:2], MASK_BY_ROLE[:2], None)
    assert forgetting_objective("ga").token_weights(LOGPS[None], MASK[None], None).shape == (1, 2, 3)


def test_declared_needs_and_roles() -> None:
    """What each objective needs, how many alternatives it looks at, and the retention term that belongs to it."""
    declared = {
        name: (objective.needs, objective.alternatives, objective.roles, objective.retention, objective.alpha)
        for name in OBJECTIVES
        for objective in [forgetting_objective(name)]
    }
    flat = (frozenset({"refusal"}), 1, 2, "none", 0.0)
    assert declared == {
        "ga": (frozenset(), 0, 1, "none", 0.0),
        "graddiff": (frozenset({"retain"}), 0, 1, "nll", 1.0),
        "npo": (frozenset({"reference"}), 0, 1, "none", 0.0),
        "simnpo": (frozenset(), 0, 1, "none", 0.0),
        "dpo": (frozenset({"reference", "refusal"}), 1, 2, "none", 0.0),
        "flat-kl": flat,
        "flat-tv": flat,
        "flat-js": flat,
        "flat-pearson": flat,
        "yao": (frozenset({"random_answers", "retain"}), 5, 6, "kl", 1.0),
    }


def test_another_retention_term_may_be_chosen() -> None:
    anchored = forgetting_objective("npo", retention="kl", alpha=0.3)
    assert (anchored.retention, anchored.alpha, anchored.needs) == ("kl", 0.3, {"reference", "retain"})
    assert (forgetting_objective("graddiff", retention="kl").retention) == "kl"
    free = forgetting_objective("graddiff", retention="none")
    assert (free.retention, free.alpha, free.needs) == ("none", 0.0, set())
    assert forgetting_objective("yao", epsilon=(1.0, 1.0, 0.25)).alpha == 0.25


def test_built_from_a_configuration_or_from_a_name() -> None:
    config = ObjectiveConfig("npo", beta=0.4)
    assert forgetting_objective(config).config == forgetting_objective("npo", beta=0.4).config == config
    assert forgetting_objective(config, beta=0.5).config.beta == 0.5
    with pytest.raises(ScoringError, match=r"'tofu'; choose one of ga, graddiff, npo"):
        forgetting_objective("tofu")
