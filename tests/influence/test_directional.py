"""Four ways to ⟨v, ∇log π(y_t)⟩ and ⟨v, ∇φ_i⟩: forward back end, reverse back end, a loop of autograd, differences.

The loop and the differences take every example alone, without padding, with the head at every position.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from u2a_core.data.batch import collate
from u2a_core.data.encode import EncodedResponse
from u2a_core.errors import ScoringError
from u2a_core.influence.backends import choose_backend, make_backend
from u2a_core.influence.directional import DirectionalBackend, unit_direction
from u2a_core.influence.first_order import batch_influence
from u2a_core.influence.logprobs import response_logps
from u2a_core.models.policy import Policy
from u2a_core.objectives.forgetting import ForgettingObjective, forgetting_objective

pytestmark = pytest.mark.usefixtures("one_thread")
ARCHITECTURES = ("llama", "gpt2", "qwen3", "gemma3")
SCORED = ("lora", "full")
BACKENDS = ("forward", "reverse")
OBJECTIVES = ("ga", "npo")
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-9}
DIFFERENCE_TOLERANCE, DIFFERENCE_STEP = 1e-4, 1e-3


@dataclass(frozen=True)
class Case:
    """A policy, a unit direction v, and what the loop makes of them: log π and ⟨v, ∇log π⟩, [T_i] by example."""

    policy: Policy
    direction: dict[str, Tensor]
    logps: list[Tensor]
    tangents: list[Tensor]

    def backend(self, name: str) -> DirectionalBackend:
        return make_backend(name, self.policy.model, self.direction)

    @property
    def tolerance(self) -> float:
        return TOLERANCE[self.policy.dtype]


def random_direction(policy: Policy) -> dict[str, Tensor]:
    """v with normal entries, ‖v‖ = 1."""
    generator = torch.Generator().manual_seed(1)
    entries = {
        name: torch.randn(parameter.shape, generator=generator, dtype=policy.dtype)
        for name, parameter in policy.parameters().items()
    }
    return unit_direction(entries)[0]


@contextmanager
def trainable(policy: Policy) -> Iterator[list[nn.Parameter]]:
    """θ with requires_grad, within the block."""
    parameters = list(policy.parameters().values())
    for parameter in parameters:
        parameter.requires_grad_(True)
    yield parameters
    for parameter in parameters:
        parameter.requires_grad_(False)


def slope(value: Tensor, parameters: Sequence[nn.Parameter], direction: dict[str, Tensor]) -> Tensor:
    """⟨v, ∇value⟩ by a gradient and a flat dot product."""
    gradients = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
    kept = [(g, v) for g, v in zip(gradients, direction.values(), strict=True) if g is not None]
    return torch.cat([g.flatten() for g, _ in kept]) @ torch.cat([v.flatten() for _, v in kept])


def references_of(logps: list[Tensor]) -> list[Tensor]:
    """Log-probabilities at a made-up reference, so that NPO's weights differ between the examples."""
    return [row.detach() + 0.3 * number for number, row in enumerate(logps)]


def chosen(objective: str) -> ForgettingObjective:
    return forgetting_objective(objective, **({"beta": 0.3} if objective == "npo" else {}))


def sample_value(objective: str, logps: Tensor, reference: Tensor) -> Tensor:
    """φ_i from one example's log-probabilities [T]."""
    mask = torch.ones(1, 1, len(logps), dtype=torch.bool)
    return chosen(objective).loss(logps[None, None], mask, reference[None, None])[0]


def sample_slopes(case: Case, batch: Any, backend: str, objective: str, tokens: bool) -> Tensor:
    """⟨v, ∇φ_i⟩ as scoring computes it (a scale of −1 turns ΔPA back into it)."""
    reference = torch.cat(references_of(case.logps)) if objective == "npo" else None
    return batch_influence(case.backend(backend), batch, chosen(objective), -1.0, reference, tokens).samples


def assert_close(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    """Equal within `tolerance` of the largest magnitude expected."""
    assert actual.shape == expected.shape
    error = float((actual.double() - expected.double()).abs().max() / expected.double().abs().max())
    assert error <= tolerance, f"relative error {error:.2e} > {tolerance:.0e}"


@pytest.fixture(
    scope="module",
    params=list(product(ARCHITECTURES, SCORED, (torch.float32, torch.float64))),
    ids=lambda choice: f"{choice[0]}-{choice[1]}-{str(choice[2])[6:]}",
)
def case(request: pytest.FixtureRequest, build_policy: Any, responses: Any, naive_logps: Any) -> Case:
    """One architecture, scored parameters and dtype, with the loop's answer."""
    policy = build_policy(*request.param)
    direction = random_direction(policy)
    with trainable(policy) as parameters:
        logps = [naive_logps(policy.model, example) for example in responses]
        tangents = [torch.stack([slope(token, parameters, direction) for token in row]) for row in logps]
    return Case(policy, direction, [row.detach() for row in logps], tangents)


@pytest.fixture(scope="module")
def case_in_float64(build_policy: Any) -> Callable[..., Case]:
    """A function that makes a case without the loop's answer, in float64."""

    def make(architecture: str, scored: str = "full") -> Case:
        policy = build_policy(architecture, scored)
        return Case(policy, random_direction(policy), [], [])

    return make


@pytest.mark.parametrize("backend", BACKENDS)
def test_token_derivatives_equal_the_autograd_loop(case: Case, backend: str, responses: list[EncodedResponse]) -> None:
    logps, tangents = case.backend(backend).tokens(collate(responses, pad_id=0))
    assert_close(logps, torch.cat(case.logps), case.tolerance)
    assert_close(tangents, torch.cat(case.tangents), case.tolerance)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_sample_derivatives_equal_per_sample_gradients(
    case: Case, objective: str, responses: list[EncodedResponse], naive_logps: Any
) -> None:
    """⟨v, ∇φ_i⟩ of both back ends, with and without parts per token, against the gradient of each φ_i."""
    with trainable(case.policy) as parameters:
        rows = [naive_logps(case.policy.model, example) for example in responses]
        values = [sample_value(objective, *both) for both in zip(rows, references_of(case.logps), strict=True)]
        expected = torch.stack([slope(value, parameters, case.direction) for value in values])
    batch = collate(responses, pad_id=0)
    for backend, tokens in product(BACKENDS, (True, False)):
        assert_close(sample_slopes(case, batch, backend, objective, tokens), expected, case.tolerance)


@pytest.mark.parametrize("backend", BACKENDS)
def test_tokens_sum_to_their_sample(case: Case, backend: str, responses: list[EncodedResponse]) -> None:
    batch = collate(responses, pad_id=0)
    _, tangents = case.backend(backend).tokens(batch)
    _, samples = case.backend(backend).samples(batch, torch.ones_like)
    by_hand = torch.stack([part.sum() for part in tangents.split([len(one.response_ids) for one in responses])])
    assert_close(samples, by_hand, case.tolerance)
    found = batch_influence(case.backend(backend), batch, forgetting_objective("ga"), 2.5)
    assert found.tokens is not None
    assert_close(batch.per_sample(found.tokens), found.samples, 1e-12)


@pytest.mark.parametrize("scored", SCORED)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_central_differences_agree(
    architecture: str, scored: str, case_in_float64: Any, responses: list[EncodedResponse], naive_logps: Any
) -> None:
    """(f(θ + εv) − f(θ − εv)) / 2ε for f = log π(y_t) and f = φ_i, in float64."""
    case = case_in_float64(architecture, scored)
    policy, batch = case.policy, collate(responses, pad_id=0)

    def logps_at(step: float) -> list[Tensor]:
        with torch.no_grad():
            for name, parameter in policy.parameters().items():
                parameter += step * case.direction[name]
            rows = [naive_logps(policy.model, example) for example in responses]
            for name, parameter in policy.parameters().items():
                parameter -= step * case.direction[name]
        return rows

    here, ahead, behind = (logps_at(step) for step in (0.0, DIFFERENCE_STEP, -DIFFERENCE_STEP))
    case = Case(policy, case.direction, here, [])
    tokens = (torch.cat(ahead) - torch.cat(behind)) / (2 * DIFFERENCE_STEP)
    for backend, objective in product(BACKENDS, OBJECTIVES):
        assert_close(case.backend(backend).tokens(batch)[1], tokens, DIFFERENCE_TOLERANCE)
        rises = [
            sample_value(objective, one, reference) - sample_value(objective, other, reference)
            for one, other, reference in zip(ahead, behind, references_of(here), strict=True)
        ]
        samples = torch.stack(rises) / (2 * DIFFERENCE_STEP)
        assert_close(sample_slopes(case, batch, backend, objective, tokens=False), samples, DIFFERENCE_TOLERANCE)


def parts_by_id(
    backend: DirectionalBackend, examples: Sequence[EncodedResponse], pad_id: int = 0, padding_side: str = "right"
) -> dict[str, Tensor]:
    """log π, ⟨v, ∇log π⟩ by token and in sum, of each example, [2 T_i + 1]."""
    batch = collate(examples, pad_id, padding_side)
    logps, tangents = backend.tokens(batch)
    _, samples = backend.samples(batch, torch.ones_like)
    lengths = [len(one.response_ids) for one in examples]
    rows = zip(logps.split(lengths), tangents.split(lengths), samples[:, None], strict=True)
    return {one.id: torch.cat(row) for one, row in zip(examples, rows, strict=True)}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_nothing_depends_on_the_batch(
    architecture: str, backend: str, case_in_float64: Any, responses: list[EncodedResponse], encode_lengths: Any
) -> None:
    """Batch size, order, the filler's id, the side and the amount of padding change no example's numbers."""
    mode = case_in_float64(architecture).backend(backend)
    alone = {key: row for one in responses for key, row in parts_by_id(mode, [one]).items()}
    longer = encode_lengths(20, 9)
    variations = {
        "together": parts_by_id(mode, responses),
        "in reverse order": parts_by_id(mode, responses[::-1]),
        "padded with a word": parts_by_id(mode, responses, pad_id=5),
        "padded on the left": parts_by_id(mode, responses, padding_side="left"),
        "padded far": parts_by_id(mode, [longer, *responses]),
        "padded far on the left": parts_by_id(mode, [*responses, longer], padding_side="left"),
    }
    for variation, found in variations.items():
        for key, expected in alone.items():
            torch.testing.assert_close(
                found[key], expected, rtol=0, atol=1e-10, msg=lambda text, v=variation, k=key: f"{v}, {k}: {text}"
            )


@pytest.mark.parametrize("padding_side", ["right", "left"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_head_sees_response_positions_only(
    architecture: str, padding_side: str, build_policy: Any, responses: list[EncodedResponse], naive_logps: Any
) -> None:
    """The head computes M = 16 rows of logits, and they are the right ones."""
    policy = build_policy(architecture)
    batch = collate(responses, 0, padding_side)
    seen: list[torch.Size] = []
    head = policy.model.get_output_embeddings()
    handle = head.register_forward_hook(lambda _module, _inputs, output: seen.append(output.shape))
    logps = response_logps(policy.model, batch)
    handle.remove()
    first_or_last = 0 if padding_side == "right" else -1
    assert batch.attention_mask[:, first_or_last].all()
    assert not batch.attention_mask.all()
    assert batch.token_count == 16
    assert [tuple(shape) for shape in seen] == [(1, 16, head.out_features)]
    expected = torch.cat([naive_logps(policy.model, example) for example in responses])
    torch.testing.assert_close(logps, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("backend", BACKENDS)
def test_tied_weights_count_in_both_roles(backend: str, build_policy: Any, responses: list[EncodedResponse]) -> None:
    """A direction in GPT-2's tied matrix: the derivative is that of the embedding plus that of the head."""
    tied, untied = (build_policy("gpt2").model for _ in range(2))
    assert tied.lm_head.weight is tied.transformer.wte.weight
    untied.lm_head.weight = nn.Parameter(untied.lm_head.weight.detach().clone(), requires_grad=False)
    v = random_direction(build_policy("gpt2"))["transformer.wte.weight"]
    batch = collate(responses, pad_id=0)

    def derivative(model: nn.Module, name: str) -> Tensor:
        mode = make_backend(backend, model, {name: v})
        tokens = mode.tokens(batch)[1]
        assert_close(mode.samples(batch, torch.ones_like)[1], batch.per_sample(tokens), 1e-10)
        return tokens

    roles = [derivative(untied, name) for name in ("transformer.wte.weight", "lm_head.weight")]
    assert all(float(role.abs().max()) > 1e-3 for role in roles)
    assert_close(derivative(tied, "transformer.wte.weight"), sum(roles), 1e-10)


@pytest.mark.parametrize("architecture", ["gpt2", "qwen3"])
def test_each_parameter_alone(
    architecture: str, case_in_float64: Any, responses: list[EncodedResponse], naive_logps: Any
) -> None:
    """A direction in one weight, bias or norm only: small parts cannot hide behind large ones."""
    case = case_in_float64(architecture)
    batch, example = collate(responses[:2], pad_id=0), responses[0]
    with trainable(case.policy) as parameters:
        gradients = torch.autograd.grad(naive_logps(case.policy.model, example).sum(), parameters)
    for (name, v), gradient in zip(case.direction.items(), gradients, strict=True):
        expected = (gradient * v).sum()
        for backend in BACKENDS:
            samples = make_backend(backend, case.policy.model, {name: v}).samples(batch, torch.ones_like)[1]
            torch.testing.assert_close(
                samples[0], expected, rtol=1e-8, atol=1e-13, msg=lambda text, n=name: f"{n}: {text}"
            )


class Straight(torch.autograd.Function):
    """Identity with a backward rule only."""

    @staticmethod
    def forward(_ctx: Any, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(_ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


class StraightInNewStyle(torch.autograd.Function):
    """The same, written for torch.func."""

    @staticmethod
    def forward(value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(_ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


class RowModel(nn.Module):
    """Logits of three classes for rows of four numbers, through a function of the caller's."""

    def __init__(self, between: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second, self.between = nn.Linear(4, 4), nn.Linear(4, 3), between

    def forward(self, inputs: Tensor) -> Tensor:
        return self.second(self.between(self.first(inputs)))


def row_logps(model: nn.Module, batch: Any) -> Tensor:
    """log p(target | input), [N]."""
    return log_softmax(model(batch.inputs), -1).gather(1, batch.targets[:, None])[:, 0]


@pytest.fixture
def rows(row_batch: Any) -> Any:
    generator = torch.Generator().manual_seed(2)
    return row_batch(torch.randn(5, 4, generator=generator), torch.tensor([0, 2, 1, 1, 0]))


def first_layer(model: nn.Module) -> dict[str, Tensor]:
    return {name: torch.ones_like(value) for name, value in model.named_parameters() if name.startswith("first")}


@pytest.mark.parametrize("function", [Straight, StraightInNewStyle])
def test_operation_without_forward_rule_names_the_other_backend(function: Any, rows: Any) -> None:
    model = RowModel(function.apply)
    with pytest.raises(ScoringError, match="--backend reverse"):
        make_backend("forward", model, first_layer(model), row_logps).tokens(rows)
    _, found = make_backend("reverse", model, first_layer(model), row_logps).samples(rows, torch.ones_like)
    model.between = nn.Identity()
    _, expected = make_backend("forward", model, first_layer(model), row_logps).samples(rows, torch.ones_like)
    assert_close(found, expected, 1e-6)


class MixedRows(nn.Module):
    """A linear layer across the batch: its output [4, N] has no row for each of the N samples."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(count, count), nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.second(self.first(inputs.T).T)


def test_module_that_mixes_rows_is_refused_by_reverse_samples(rows: Any) -> None:
    model = MixedRows(count=5)
    reverse = make_backend("reverse", model, first_layer(model), row_logps)
    with pytest.raises(ScoringError, match=r"(?s)module first .*--backend forward"):
        reverse.samples(rows, torch.ones_like)
    forward = make_backend("forward", model, first_layer(model), row_logps)
    assert_close(reverse.tokens(rows)[1], forward.tokens(rows)[1], 1e-5)


def test_module_that_sees_only_some_positions_is_refused_by_reverse_samples() -> None:
    """An expert that is sent two of the 2 × 3 positions, both of the first sequence: two rows are not two samples."""
    hidden = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(3))
    batch = SimpleNamespace(shape=(2, 3), token_count=2)
    expert = nn.Sequential(nn.Linear(4, 1))
    mode = make_backend(
        "reverse", expert, {"0.weight": torch.ones(1, 4)}, lambda model, _batch: model(hidden[0, :2])[:, 0]
    )
    with pytest.raises(ScoringError, match="cannot be told apart by sample"):
        mode.samples(batch, torch.ones_like)


class Crosswise(nn.Module):
    """Scales hidden states [N, L, d] as [L, N, d], within a module that owns the scale."""

    class Scale(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(width, dtype=torch.float64))

        def forward(self, hidden: Tensor) -> Tensor:
            return self.weight * hidden

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = self.Scale(width)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.scale(hidden.transpose(0, 1)).transpose(0, 1)


def test_choice_avoids_a_backend_that_cannot_tell_rows_apart(
    build_policy: Any, responses: list[EncodedResponse]
) -> None:
    """The trial before scoring meets what a batch would meet: one example alone would not show it."""
    policy = build_policy("llama")
    assert choose_backend("auto", False, policy, responses).name == "reverse"
    policy.model.model.norm = Crosswise(32)
    crossed = replace(
        policy, theta=(*(name for name in policy.theta if name != "model.norm.weight"), "model.norm.scale.weight")
    )
    choice = choose_backend("auto", False, crossed, responses)
    assert (choice.name, "reverse is not supported" in choice.reason) == ("forward", True)
    with pytest.raises(ScoringError, match=r"model\.norm\.scale returns"):
        choose_backend("reverse", False, crossed, responses)


class Pair(nn.Linear):
    """A linear layer that returns its output twice."""

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        return super().forward(inputs), inputs


def test_module_of_two_outputs_is_refused_by_reverse(rows: Any) -> None:
    model = RowModel(lambda both: both[0])
    model.first = Pair(4, 4)
    with pytest.raises(ScoringError, match=r"(?s)first \(Pair\).*--backend forward"):
        make_backend("reverse", model, first_layer(model), row_logps).tokens(rows)


@pytest.mark.parametrize("backend", BACKENDS)
def test_direction_that_does_not_fit_is_refused(backend: str) -> None:
    model = RowModel(nn.Identity())
    with pytest.raises(ScoringError, match=r"'third\.weight' that the model does not have"):
        make_backend(backend, model, {"third.weight": torch.zeros(4, 4)}, row_logps)
    with pytest.raises(ScoringError, match=r"'first\.weight' has shape \(4, 3\), the parameter \(4, 4\)"):
        make_backend(backend, model, {"first.weight": torch.zeros(4, 3)}, row_logps)


def test_unit_direction() -> None:
    """‖(3, 0, 4)‖ = 5 over all tensors together; a zero direction stays zero."""
    unit, norm = unit_direction({"a": torch.tensor([[3.0, 0.0]]), "b": torch.tensor([4.0])})
    assert norm == 5.0
    assert (unit["a"].tolist(), unit["b"].tolist()) == ([[pytest.approx(0.6), 0.0]], [pytest.approx(0.8)])
    zero, norm = unit_direction({"a": torch.zeros(2)})
    assert (zero["a"].tolist(), norm) == ([0.0, 0.0], 1.0)


def test_unknown_backend_is_refused() -> None:
    with pytest.raises(ScoringError, match="no back end 'sideways'"):
        make_backend("sideways", nn.Linear(1, 1), {}, row_logps)


def hooks_of(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


class InterruptedPassError(Exception):
    """What the test raises in the middle of a pass."""


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("way", ["tokens", "samples"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_model_is_left_as_it_was(
    backend: str, way: str, fails: bool, case_in_float64: Any, responses: list[EncodedResponse]
) -> None:
    """No hook remains and every requires_grad is restored, after an exception too."""
    case = case_in_float64("gpt2")
    model, batch = case.policy.model, collate(responses, pad_id=0)
    for number, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(number % 2 == 0)
    wanted = [parameter.requires_grad for parameter in model.parameters()]
    values = {name: value.clone() for name, value in model.state_dict().items()}
    if fails:
        model.transformer.h[1].mlp.act = Failing()
    mode = case.backend(backend)
    arguments = (batch,) if way == "tokens" else (batch, torch.ones_like)
    if fails:
        with pytest.raises(InterruptedPassError):
            getattr(mode, way)(*arguments)
    else:
        getattr(mode, way)(*arguments)
    assert hooks_of(model) == 0
    assert [parameter.requires_grad for parameter in model.parameters()] == wanted
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, values[name]) for name, value in model.state_dict().items())


class Failing(nn.Module):
    """An activation that breaks off."""

    def forward(self, _hidden: Tensor) -> Tensor:
        raise InterruptedPassError
