"""Forgetting objectives φ: one value a sample, minimised by unlearning; the formulae, and their one interface.

Each takes per-token log-probabilities (nats) and a response mask, so that weighting, scoring and training share one
definition. Role 0 is the negative example's own response; roles 1 to R − 1 are its alternatives, other answers to the
same prompt. An objective declares what it needs, and the retention term that belongs to it; that term is a batch's,
not a sample's, and no part of φ.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from u2a_core.errors import ScoringError
from u2a_core.objectives.config import ObjectiveConfig, Retention
from u2a_core.objectives.flat import DIVERGENCES, flat


def gradient_ascent(logps: Tensor, mask: Tensor) -> Tensor:
    """GA: −ℓ_i, the negated mean NLL of the response, [N, T] -> [N], nats per token.

    With a retention term beside it this is GradDiff (Maini et al., arXiv 2401.06121, sec. 4).
    """
    return (logps * mask).sum(-1) / mask.sum(-1)


def negative_preference_optimisation(logps: Tensor, mask: Tensor, reference: Tensor, beta: float = 0.1) -> Tensor:
    """NPO: −(2/β) log σ(β (NLL_i − NLL°_i)), [N, T] -> [N] (Zhang et al., arXiv 2404.05868, eq. 3).

    NLL is the sum over response tokens, in nats; tends to gradient ascent on the sum (up to a constant) as β → 0.
    """
    drop = ((reference - logps) * mask).sum(-1)  # NLL − NLL at the reference
    return -2 / beta * logsigmoid(beta * drop)


def simple_negative_preference_optimisation(
    logps: Tensor, mask: Tensor, beta: float = 2.5, gamma: float = 0.0
) -> Tensor:
    """SimNPO: −(2/β) log σ(−(β/|y|) log π(y|x) − γ), [N, T] -> [N] (Fan et al., arXiv 2410.07163, the loss ℓ_SimNPO).

    Needs no reference. Its gradient tends to 2σ(γ) times that of GA, the mean over tokens, as β → 0.
    """
    return -2 / beta * logsigmoid(-beta * gradient_ascent(logps, mask) - gamma)


def direct_preference_optimisation(logps: Tensor, mask: Tensor, reference: Tensor, beta: float = 0.1) -> Tensor:
    """DPO with a template answer: −(2/β) log σ(β [(log π − log π°)(y_e) − (log π − log π°)(y_f)]), [R, N, T] -> [N].

    Role 0 is y_f, the response to forget, role 1 is y_e, the refusal (R = 2); sums over response tokens, in nats. The
    factor is 2/β, not the 1/β of Zhang et al. (arXiv 2404.05868, eq. 1), so that dropping the refusal (R = 1) gives
    NPO, in value and gradient.
    """
    ratios = ((logps - reference) * mask).sum(-1)  # [R, N]
    return -2 / beta * logsigmoid(beta * (ratios[1:].sum(0) - ratios[0]))


def random_mismatch(logps: Tensor, mask: Tensor) -> Tensor:
    """L_rdn: the mean over K random answers of the mean NLL of that answer given the forget prompt, [K, N, T] -> [N],
    nats per token (Yao et al., arXiv 2310.10683, sec. 4).
    """
    return -gradient_ascent(logps, mask).mean(0)


def ascent_with_mismatch(logps: Tensor, mask: Tensor, ascent: float, mismatch: float) -> Tensor:
    """ε1 · GA + ε2 · random mismatch, [1 + K, N, T] -> [N], nats per token (Yao et al., arXiv 2310.10683, eq. 1).

    The third term of that equation, ε3 · KL on retain data, is the retention term with α = ε3. As in the authors' code
    an answer counts by the mean over its tokens; the paper writes sums.
    """
    return ascent * gradient_ascent(logps[0], mask[0]) + mismatch * random_mismatch(logps[1:], mask[1:])


class SampleLoss(Protocol):
    """One value a sample from (log-probabilities, mask, log-probabilities at θ0 where they are needed)."""

    def __call__(self, logps: Tensor, mask: Tensor, reference: Tensor | None, /) -> Tensor:
        """[R, N, T], [R, N, T], [R, N, T] -> [N]."""
        ...


@dataclass(frozen=True)
class ForgettingObjective:
    """A named φ with its declared needs, and the retention term R and its weight α that it is trained with.

    `needs` holds `reference` (log-probabilities at θ0, of every role), `refusal` (one alternative), `random_answers`
    (K alternatives, drawn from retain data) and `retain` (retain data, for the retention term).
    """

    name: str
    loss: SampleLoss
    needs: frozenset[str]
    retention: Retention
    alpha: float
    config: ObjectiveConfig

    @property
    def alternatives(self) -> int:
        """Number of alternatives of every example, R − 1."""
        if "random_answers" in self.needs:
            return int(self.config.settings()["random_answers"])
        return 1 if "refusal" in self.needs else 0

    @property
    def roles(self) -> int:
        """Number of responses of every example, R: its own and its alternatives."""
        return 1 + self.alternatives

    def token_weights(self, logps: Tensor, mask: Tensor, reference: Tensor | None) -> Tensor:
        """∂φ_i/∂log π(y_t), [R, N, T]: with it ⟨v, ∇φ_i⟩ = Σ_t weight_t ⟨v, ∇log π(y_t)⟩ over the tokens of all roles
        (chain rule); 0 off the mask. `ScoringError` where a reference is needed and None is given.
        """
        if "reference" in self.needs and reference is None:
            raise ScoringError(
                f"The objective {self.name} needs log-probabilities at the reference model, and has none."
            )
        with torch.enable_grad():
            variable = logps.detach().requires_grad_(True)
            (weights,) = torch.autograd.grad(self.loss(variable, mask, reference).sum(), variable)
        return weights * mask


def forgetting_objective(config: ObjectiveConfig | str, **parameters: Any) -> ForgettingObjective:
    """The objective of `config`, changed by `parameters`; a name alone takes its defaults.

    Raises `ScoringError` for an unknown name and for parameters that do not fit it, as `ObjectiveConfig` does.
    """
    asked = ObjectiveConfig(config, **parameters) if isinstance(config, str) else replace(config, **parameters)
    settings = asked.settings()
    needs = {"refusal", "random_answers"} & settings.keys()
    if asked.name in ("npo", "dpo"):
        needs.add("reference")
    if settings["retention"] != "none":
        needs.add("retain")
    loss = _LOSSES[asked.name](settings)
    return ForgettingObjective(
        asked.name, loss, frozenset(needs), settings["retention"], float(settings["alpha"]), asked
    )


def _of_own_response(value: Callable[[Tensor, Tensor], Tensor]) -> SampleLoss:
    return lambda logps, mask, _reference: value(logps[0], mask[0])


def _of_all_roles(value: Callable[[Tensor, Tensor], Tensor]) -> SampleLoss:
    return lambda logps, mask, _reference: value(logps, mask)


def _against_reference(value: Callable[[Tensor, Tensor, Tensor], Tensor], own_response: bool = False) -> SampleLoss:
    def loss(logps: Tensor, mask: Tensor, reference: Tensor | None, /) -> Tensor:
        assert reference is not None  # noqa: S101 - `needs` is checked before every call
        return value(logps[0], mask[0], reference[0]) if own_response else value(logps, mask, reference)

    return loss


_LOSSES: Mapping[str, Callable[[Mapping[str, Any]], SampleLoss]] = {
    "ga": lambda _: _of_own_response(gradient_ascent),
    "graddiff": lambda _: _of_own_response(gradient_ascent),
    "npo": lambda settings: _against_reference(
        partial(negative_preference_optimisation, beta=settings["beta"]), own_response=True
    ),
    "simnpo": lambda settings: _of_own_response(
        partial(simple_negative_preference_optimisation, beta=settings["beta"], gamma=settings["gamma"])
    ),
    "dpo": lambda settings: _against_reference(partial(direct_preference_optimisation, beta=settings["beta"])),
    "flat-kl": lambda _: _of_all_roles(partial(flat, divergence=DIVERGENCES["kl"])),
    "flat-tv": lambda _: _of_all_roles(partial(flat, divergence=DIVERGENCES["tv"])),
    "flat-js": lambda _: _of_all_roles(partial(flat, divergence=DIVERGENCES["js"])),
    "flat-pearson": lambda _: _of_all_roles(partial(flat, divergence=DIVERGENCES["pearson"])),
    "yao": lambda settings: _of_all_roles(
        partial(ascent_with_mismatch, ascent=settings["epsilon"][0], mismatch=settings["epsilon"][1])
    ),
}
