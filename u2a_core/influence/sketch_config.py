"""What `u2a sketch` is told, checked before a model is loaded."""

from dataclasses import asdict, dataclass, field
from typing import Any

from u2a_core.errors import ScoringError
from u2a_core.influence.projection import KINDS
from u2a_core.models.loading import LoadOptions
from u2a_core.objectives.alignment import alignment
from u2a_core.objectives.config import ObjectiveConfig


@dataclass(frozen=True)
class SketchConfig:
    """What `u2a sketch` is told. `k` numbers a sketch; `seed` draws the projection, a new LoRA and random answers;
    `token_budget` bounds the batches of the reference pass.
    """

    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    alignment: str = "dpo"
    alignment_beta: float = 0.1
    k: int = 2048
    kind: str = "rademacher"
    parameters: str = "lora"
    rank: int = 8
    token_budget: int = 4096
    seed: int = 0
    options: LoadOptions = field(default_factory=LoadOptions)

    def asked(self, bundle_hash: str) -> dict[str, Any]:
        """Plain values that two runs must share to give the same sketches."""
        return {**asdict(self), "objective": self.objective.settings(), "bundle_hash": bundle_hash}

    def check(self) -> None:
        """Raise `ScoringError` for what cannot work."""
        if self.k < 1:
            raise ScoringError(f"--k must be at least 1; it is {self.k}.")
        if self.kind not in KINDS:
            raise ScoringError(f"There is no projection '{self.kind}'; choose --kind {' or '.join(KINDS)}.")
        if not self.alignment_beta > 0:
            raise ScoringError(f"--j-beta must be greater than 0; it is {self.alignment_beta}.")
        alignment(self.alignment)
