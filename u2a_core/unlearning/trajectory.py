"""The iterates of one run of the inner solver: what a reverse sweep over its steps must know of each.

Kept in memory, or as one safetensors file a step in `folder`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

FIRST, SECOND = "exp_avg", "exp_avg_sq"


@dataclass(frozen=True)
class Iterate:
    """θ_t and g_t (before clipping) of a step, and AdamW's running means before it; those are empty for SGD and in the
    first step.
    """

    theta: dict[str, Tensor]
    gradient: dict[str, Tensor]
    first: dict[str, Tensor]
    second: dict[str, Tensor]


@dataclass
class Trajectory:
    """Iterates by step; `folder` (None: memory) must be empty and belongs to this trajectory alone."""

    folder: Path | None = None
    _steps: list[Iterate | Path] = field(default_factory=list)
    _names: tuple[str, ...] = ()  # in the policy's order: the same order gives the same sums

    def __len__(self) -> int:
        return len(self._steps)

    def append(self, parameters: Mapping[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
        """Copy what the step that is about to be taken starts from; the gradients lie in `.grad`."""
        states = {name: optimizer.state.get(one, {}) for name, one in parameters.items()}
        moments = [
            {name: state[key].detach().clone() for name, state in states.items() if key in state}
            for key in (FIRST, SECOND)
        ]
        self._names = tuple(parameters)
        theta = {name: one.detach().clone() for name, one in parameters.items()}
        gradient = {name: one.grad.detach().clone() for name, one in parameters.items() if one.grad is not None}
        self._keep(Iterate(theta, gradient, *moments))

    def __getitem__(self, step: int) -> Iterate:
        kept = self._steps[step]
        if isinstance(kept, Iterate):
            return kept
        stored = load_file(kept)
        parts = [{name: stored[f"{at}:{name}"] for name in self._names if f"{at}:{name}" in stored} for at in range(4)]
        return Iterate(*parts)

    def _keep(self, iterate: Iterate) -> None:
        if self.folder is None:
            self._steps.append(iterate)
            return
        path = self.folder / f"iterate-{len(self._steps):06d}.safetensors"
        parts = (iterate.theta, iterate.gradient, iterate.first, iterate.second)
        save_file(
            {f"{at}:{name}": one.cpu().contiguous() for at, part in enumerate(parts) for name, one in part.items()},
            path,
        )
        self._steps.append(path)
