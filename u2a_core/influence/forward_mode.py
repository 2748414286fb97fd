"""Forward mode: dual numbers carry v through one forward pass; every token's derivative comes out, no graph is kept.

Memory is that of two forward passes. Needs a forward rule for every operation, so attention runs on the math kernel.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

from u2a_core.errors import ScoringError
from u2a_core.influence.directional import Direction, TokenLogps, TokenWeights, scored_parameters


class _Caller(nn.Module):
    """Makes (model, compute) one module, so that its parameters can be replaced by dual numbers."""

    def __init__(self, model: nn.Module, compute: TokenLogps) -> None:
        super().__init__()
        self.model = model
        self.compute = compute

    def forward(self, batch: Any) -> Tensor:
        return self.compute(self.model, batch)


class ForwardMode:
    """⟨v, ∇log π⟩ by `torch.func.jvp`."""

    name = "forward"

    def __init__(self, model: nn.Module, direction: Direction, compute: TokenLogps) -> None:
        parameters = scored_parameters(model, direction)
        self._caller = _Caller(model, compute)
        self._primals = {f"model.{name}": parameter.detach() for name, parameter in parameters.items()}
        self._tangents = {f"model.{name}": direction[name].to(parameter) for name, parameter in parameters.items()}

    def tokens(self, batch: Any) -> tuple[Tensor, Tensor]:
        """log π(y_t) and ⟨v, ∇log π(y_t)⟩, [M] each; `ScoringError` where an operation has no forward rule."""
        try:
            with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
                logps, tangents = jvp(  # type: ignore[misc]
                    lambda theta: functional_call(self._caller, theta, (batch,)), (self._primals,), (self._tangents,)
                )
        except (NotImplementedError, RuntimeError) as error:
            if not _lacks_rule(error):
                raise
            raise ScoringError(
                "The model refuses the dual pass of the forward back end (an operation, most often its attention, "
                f"has no forward-mode rule): {_first_line(error)}. Use --backend reverse, or load the model with "
                "--attention eager."
            ) from error
        return logps, tangents

    def samples(self, batch: Any, weights: TokenWeights) -> tuple[Tensor, Tensor]:
        """log π(y_t), [M], and Σ_t w_t ⟨v, ∇log π(y_t)⟩, [N]."""
        logps, tangents = self.tokens(batch)
        return logps, batch.per_sample(weights(logps) * tangents)


def _lacks_rule(error: Exception) -> bool:
    text = str(error)
    return any(sign in text for sign in ("forward AD", "forward mode", "forward-mode", "jvp", "JVP"))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(". ")[:240]
