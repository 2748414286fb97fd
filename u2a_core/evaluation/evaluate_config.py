"""What an evaluation is told, checked before a model is loaded."""

from dataclasses import asdict, dataclass, field
from typing import Any

from u2a_core.bundle import Bundle
from u2a_core.data.paraphrases import paraphrases_path
from u2a_core.errors import ScoringError
from u2a_core.evaluation.robustness import RobustnessConfig
from u2a_core.models.loading import LoadOptions
from u2a_core.store.answers import AnswerSettings
from u2a_core.store.files import file_sha256

MEMORY_ONLY = ("token_budget", "options", "robustness")


@dataclass(frozen=True)
class EvaluateConfig:
    """`count` prompts of `test` and as many of candidates are answered, each with `max_new_tokens` at most; `seed` of
    sampled answers. Of each kind of examples `examples` at most are measured, drawn by the bundle's seed (None: all).
    `alignment_beta` is β of J; `robustness`: attacks on what was forgotten (None: none); `token_budget` padded tokens
    are held at once.
    """

    count: int = 40
    max_new_tokens: int = 96
    alignment_beta: float = 0.1
    examples: int | None = None
    seed: int = 0
    robustness: RobustnessConfig | None = None
    token_budget: int = 8192
    options: LoadOptions = field(default_factory=LoadOptions)

    def __post_init__(self) -> None:
        for name, value in (("count", self.count), ("token-budget", self.token_budget), ("examples", self.examples)):
            if value is not None and value < 1:
                raise ScoringError(f"--{name} must be at least 1; it is {value}.")
        if not 0 < self.alignment_beta < float("inf"):
            raise ScoringError(f"--j-beta must be a number above 0; it is {self.alignment_beta}.")
        _ = self.answers

    @property
    def answers(self) -> AnswerSettings:
        """How prompts are answered greedily."""
        return AnswerSettings(self.max_new_tokens)

    @property
    def sampled(self) -> AnswerSettings:
        """How they are answered by sampling."""
        return AnswerSettings(self.max_new_tokens, 1.0, self.seed)

    def settings(self, bundle: Bundle) -> dict[str, Any]:
        """Everything that the numbers depend on, besides bundle and run; `paraphrases` only where it has some."""
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in MEMORY_ONLY}
        attacks = None if self.robustness is None else asdict(self.robustness)
        dtype = str(self.options.resolve_dtype()).removeprefix("torch.")
        path = paraphrases_path(bundle.path)
        reworded = {"paraphrases": file_sha256(path)} if attacks and path.is_file() else {}
        return {**plain, "robustness": attacks, "dtype": dtype, **reworded}
