"""The gradient of the inner objective against an explicit loop: one example at a time, no padding, float64."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from u2a_core.data.encode import EncodedResponse
from u2a_core.unlearning.gradient import InnerGradient, StepLoss
from u2a_core.unlearning.material import Material
from u2a_core.unlearning.processes import Processes

Grad = dict[str, Tensor]
Logits = Callable[..., Tensor]
OBJECTIVES = ["npo", "simnpo", "dpo", "flat-kl", "flat-pearson", "yao"]


def weights_of(material: Material) -> dict[str, float]:
    """Uneven ω of the first six candidates, of another mean than 1."""
    return dict(zip(material.ids, [0.6, 4.2, 0.1, 3.4, 2.0, 1.7], strict=False))


def logps(logits: Logits, material: Material, example: EncodedResponse) -> Tensor:
    every = logits(material.policy, example).log_softmax(-1)
    return every[range(len(example.response_ids)), list(example.response_ids)]


class Loop:
    """Σ ω_i φ_i / Σ ω_i + α Σ R_j / m + λ/2 ‖θ − θ0‖², written out."""

    def __init__(self, material: Material, logits: Logits) -> None:
        self.material, self.logits = material, logits
        with torch.no_grad(), material.at_start():
            self.before = {
                one: [logps(logits, material, role).sum() for role in roles]
                for one, roles in material.candidates.items()
            }
            self.logits_before = [logits(material.policy, one).log_softmax(-1) for one in material.retain]

    def phi(self, one: str) -> Tensor:
        own, *others = (logps(self.logits, self.material, role) for role in self.material.candidates[one])
        name, settings = self.material.objective.name, self.material.config.objective.settings()
        beta = settings.get("beta", 0.0)
        match name:
            case "ga" | "graddiff":
                return own.mean()
            case "npo":
                return -2 / beta * logsigmoid(beta * (self.before[one][0] - own.sum()))
            case "simnpo":
                return -2 / beta * logsigmoid(-beta * own.mean())
            case "dpo":
                gain, loss = others[0].sum() - self.before[one][1], own.sum() - self.before[one][0]
                return -2 / beta * logsigmoid(beta * (gain - loss))
            case "flat-kl":
                return (own.exp().mean() - 1).exp() - others[0].exp().mean()
            case "flat-pearson":
                return own.exp().mean() ** 2 / 4 + own.exp().mean() - others[0].exp().mean()
            case "yao":
                first, second, _ = settings["epsilon"]
                return first * own.mean() - second * sum(other.mean() for other in others) / len(others)
        raise AssertionError(name)

    def retain(self, place: int) -> Tensor:
        example = self.material.retain[place]
        if self.material.objective.retention == "nll":
            return -logps(self.logits, self.material, example).mean()
        before, after = self.logits_before[place], self.logits(self.material.policy, example).log_softmax(-1)
        return (before.exp() * (before - after)).sum(-1).mean()

    def gradient(self, weights: dict[str, float]) -> tuple[Grad, StepLoss]:
        parameters = self.material.policy.parameters()
        forget = sum(weight * self.phi(one) for one, weight in weights.items()) / sum(weights.values())
        retain = torch.zeros(())
        if self.material.objective.retention != "none":
            count = len(self.material.retain)
            retain = sum(self.retain(place) for place in range(count)) / count
        far = sum((one - self.material.start[name]).square().sum() for name, one in parameters.items())
        whole = forget + self.material.objective.alpha * retain + self.material.config.proximity / 2 * far
        parts = torch.autograd.grad(whole, list(parameters.values()))
        return dict(zip(parameters, parts, strict=True)), StepLoss(float(forget.detach()), float(retain.detach()))


def accumulated(material: Material, weights: dict[str, float], team: Processes | None = None) -> tuple[Grad, StepLoss]:
    for one in material.policy.parameters().values():
        one.requires_grad_(True)
        one.grad = torch.full_like(one, 17.0)  # what an earlier step left must not count
    loss = InnerGradient(material, team or Processes()).accumulate(weights, material.retain)
    return {name: one.grad.clone() for name, one in material.policy.parameters().items()}, loss


def difference(found: Grad, expected: Grad) -> float:
    """Largest difference, as a share of the largest entry."""
    largest = max(float(part.abs().max()) for part in expected.values())
    return max(float((found[name] - expected[name]).abs().max()) for name in expected) / largest


@pytest.mark.parametrize(
    ("objective", "retention"), [("ga", "none"), ("ga", "nll"), *((objective, "kl") for objective in OBJECTIVES)]
)
def test_every_objective_against_the_loop(
    objective: str,
    retention: str,
    make_exact: Callable[..., Material],
    moved: Callable[..., None],
    naive_logits: Logits,
) -> None:
    alpha = None if retention == "none" else 0.7
    settings = {"proximity": 0.3, "token_budget": 260}
    material = make_exact(objective, retention, alpha, **settings)
    moved(material)
    weights = weights_of(material)
    found, loss = accumulated(material, weights)
    expected, values = Loop(material, naive_logits).gradient(weights)
    assert difference(found, expected) < 1e-10
    assert loss.forget == pytest.approx(values.forget, rel=1e-6)
    assert loss.retain == pytest.approx(values.retain, rel=1e-6, abs=1e-12)
    assert max(float(part.abs().max()) for part in expected.values()) > 0.01


def test_the_parameters_of_a_lora_against_the_loop(
    make_exact: Callable[..., Material], moved: Callable[..., None], naive_logits: Logits
) -> None:
    material = make_exact("npo", "kl", 1.5, parameters="lora", rank=2, proximity=0.2)
    moved(material)
    weights = weights_of(material)
    found, _ = accumulated(material, weights)
    assert all("lora" in name for name in found)
    assert difference(found, Loop(material, naive_logits).gradient(weights)[0]) < 1e-10


@pytest.mark.parametrize("objective", ["dpo", "yao"])
def test_the_token_budget_changes_nothing(
    objective: str, make_exact: Callable[..., Material], moved: Callable[..., None]
) -> None:
    gradients = []
    for budget in (1, 250, 10_000):  # one example at a time; a few; all at once
        material = make_exact(objective, "kl", token_budget=budget)
        moved(material)
        gradients.append(accumulated(material, weights_of(material))[0])
    assert difference(gradients[0], gradients[2]) < 1e-12
    assert difference(gradients[1], gradients[2]) < 1e-12


def test_two_processes_share_the_work_of_one(
    make_exact: Callable[..., Material], moved: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here their gradients and losses are added by hand, as `Processes.total` does."""
    material = make_exact("dpo", "kl", 0.7)
    material.retain.pop()  # an odd number: the shares are not equal
    moved(material)
    weights = dict(list(weights_of(material).items())[:5])
    whole, loss = accumulated(material, weights)
    monkeypatch.setattr(Processes, "total", lambda _, values: values)
    halves = [accumulated(material, weights, Processes(rank, 2)) for rank in range(2)]
    added = {name: halves[0][0][name] + halves[1][0][name] for name in whole}
    assert difference(added, whole) < 1e-12
    assert difference(halves[0][0], whole) > 0.1
    assert halves[0][1].forget + halves[1][1].forget == pytest.approx(loss.forget, rel=1e-6)
    assert halves[0][1].retain + halves[1][1].retain == pytest.approx(loss.retain, rel=1e-6)


def test_the_sum_over_processes_is_the_gradient(
    make_exact: Callable[..., Material], monkeypatch: pytest.MonkeyPatch
) -> None:
    """λ (θ − θ0) is every process's own and is not added up."""
    material = make_exact("ga", proximity=0.5)
    for one in material.policy.parameters().values():
        one.data = one.data + 1.0
    alone, _ = accumulated(material, weights_of(material))
    monkeypatch.setattr(Processes, "total", lambda _, values: 3 * values)
    found, _ = accumulated(material, weights_of(material))
    assert all(torch.allclose(found[name] - 0.5, 3 * (alone[name] - 0.5), rtol=1e-10, atol=1e-12) for name in found)


def test_no_retention_term_leaves_retain_data_out(make_exact: Callable[..., Material]) -> None:
    material = make_exact("npo", "none")
    with_data, loss = accumulated(material, weights_of(material))
    material.retain.clear()
    without, _ = accumulated(material, weights_of(material))
    assert all(torch.equal(with_data[name], without[name]) for name in without)
    assert loss.retain == 0.0


# The limits


def test_npo_tends_to_gradient_ascent_on_the_sum_as_beta_vanishes(
    make_exact: Callable[..., Material], moved: Callable[..., None], naive_logits: Logits
) -> None:
    """∇ NPO_i → −∇ NLL_i = T_i ∇ GA_i: gradient ascent with weights ω_i T_i (and Σ ω_i T_i in place of Σ ω_i)."""
    distances = []
    for beta in (1e-2, 1e-4, 1e-6):
        npo = make_exact("npo", beta=beta)
        moved(npo, 0.1)
        found, _ = accumulated(npo, weights_of(npo))
        ga = make_exact("ga")
        moved(ga, 0.1)
        lengths = {one: len(roles[0].response_ids) for one, roles in ga.candidates.items()}
        weights = {one: weight * lengths[one] for one, weight in weights_of(ga).items()}
        limit, _ = accumulated(ga, weights)
        scale = sum(weights.values()) / sum(weights_of(ga).values())
        distances.append(difference(found, {name: scale * part for name, part in limit.items()}))
    assert distances[2] < 1e-5
    assert distances[0] > 50 * distances[1] > 50 * 50 * distances[2]


@pytest.mark.parametrize("parameters", ["full", "lora"])
def test_the_kl_and_its_gradient_vanish_at_the_start(parameters: str, make_material: Callable[..., Material]) -> None:
    material = make_material("ga", "kl", 1000.0, parameters=parameters)
    alone = make_material("ga", parameters=parameters)
    found, loss = accumulated(material, weights_of(material))
    expected, _ = accumulated(alone, weights_of(alone))
    assert loss.retain == 0.0
    assert difference(found, expected) < 1e-3  # α = 1000 times the rounding of float32
    assert max(float(part.abs().max()) for part in expected.values()) > 0.01


def test_the_proximity_vanishes_at_the_start(make_exact: Callable[..., Material]) -> None:
    near, free = make_exact("ga", proximity=1e6), make_exact("ga")
    found, expected = (accumulated(one, weights_of(one))[0] for one in (near, free))
    assert all(torch.equal(found[name], expected[name]) for name in found)


# Weights


def test_weights_are_the_factors_of_the_samples(
    make_exact: Callable[..., Material], moved: Callable[..., None]
) -> None:
    """Linear in ω: the gradient of a weighted set is the weighted mean of the gradients of its members."""
    material = make_exact("npo")
    moved(material)
    weights = weights_of(material)
    whole, _ = accumulated(material, weights)
    parts = [accumulated(material, {one: 1.0})[0] for one in weights]
    mean = {
        name: sum(weight * part[name] for weight, part in zip(weights.values(), parts, strict=True)) / 12.0
        for name in whole
    }
    assert difference(whole, mean) < 1e-12


def test_the_model_is_left_where_it_was(make_exact: Callable[..., Material], moved: Callable[..., None]) -> None:
    material = make_exact("npo", "kl")
    moved(material)
    before = {name: one.detach().clone() for name, one in material.policy.parameters().items()}
    start = {name: one.clone() for name, one in material.start.items()}
    accumulated(material, weights_of(material))
    assert all(torch.equal(one, before[name]) for name, one in material.policy.parameters().items())
    assert all(torch.equal(one, start[name]) for name, one in material.start.items())
