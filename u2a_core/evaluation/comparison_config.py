"""What a comparison is told, checked before a model is loaded."""

from dataclasses import asdict, dataclass, field
from typing import Any

from u2a_core.bundle import Bundle
from u2a_core.errors import UnlearningError
from u2a_core.evaluation.baselines import SETTINGS, BaselineConfig
from u2a_core.evaluation.comparison_rows import OBJECTIVES, ROWS
from u2a_core.evaluation.evaluate_config import EvaluateConfig
from u2a_core.evaluation.robustness import RobustnessConfig
from u2a_core.models.loading import LoadOptions
from u2a_core.objectives.config import ObjectiveConfig
from u2a_core.unlearning.config import UnlearnConfig
from u2a_core.unlearning.material import loaded_options
from u2a_core.unlearning.outer import OuterConfig

LIMIT = 0.5  # nats per token: of the rise of the retain NLL, and of the KL to the original


@dataclass(frozen=True)
class ComparisonConfig:
    """Which rows (`original` is always one), how many seeds, and how every run is made and measured.

    Every run but `retrain`, which repeats the recorded tuning, has the same `learning_rate`, `steps` of `batch_size`
    examples (of DPO: pairs) and `parameters`. `limits`: unlearning stops at `LIMIT`. The U2A
    search solves at most `rounds` inner problems and narrows the selection down to the share `narrow`.
    `random_answers` of `yao` (None: its default). The others as in `EvaluateConfig`; `robustness`: attacked, too.
    """

    seeds: int = 5
    rows: tuple[str, ...] = tuple(ROWS)
    learning_rate: float = 2e-4
    steps: int = 10
    batch_size: int = 32
    parameters: str = "lora"
    limits: bool = True
    rounds: int = 5
    narrow: float = 0.125
    random_answers: int | None = None
    count: int = 40
    max_new_tokens: int = 96
    examples: int | None = None
    robustness: bool = True
    alignment_beta: float = 0.1
    token_budget: int = 8192
    options: LoadOptions = field(default_factory=LoadOptions)

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise UnlearningError(f"--seeds must be at least 1; it is {self.seeds}.")
        unknown = [name for name in self.rows if name not in ROWS]
        if unknown:
            raise UnlearningError(f"There is no row '{unknown[0]}'; choose among {', '.join(ROWS)}.")
        object.__setattr__(self, "rows", tuple(name for name in ROWS if name == "original" or name in self.rows))
        for objective in OBJECTIVES:
            _ = self.unlearning(objective, 0)
        _ = self.evaluation, self.search

    def unlearning(self, objective: str, seed: int) -> UnlearnConfig:
        """How an unlearning run is made."""
        answers = self.random_answers if objective == "yao" else None
        limit = LIMIT if self.limits else None
        return UnlearnConfig(
            ObjectiveConfig(objective, random_answers=answers), self.parameters, learning_rate=self.learning_rate,
            steps=self.steps, batch_size=self.batch_size, token_budget=self.token_budget, retain_budget=limit,
            trust_region=limit, monitor=64, alignment_beta=self.alignment_beta, seed=seed, options=self.options,
        )  # fmt: skip

    def baseline(self, method: str, seed: int) -> BaselineConfig:
        """How a baseline is made."""
        names = ("parameters", "learning_rate", "steps", "batch_size")
        told = {name: getattr(self, name) for name in names if name in SETTINGS[method]}
        return BaselineConfig(
            method, **told, token_budget=self.token_budget, alignment_beta=self.alignment_beta, seed=seed,
            options=self.options,
        )  # fmt: skip

    @property
    def search(self) -> OuterConfig:
        """How U2A weights are sought."""
        return OuterConfig(self.rounds, narrow=self.narrow, retain_budget=self.unlearning("ga", 0).retain_budget)

    @property
    def evaluation(self) -> EvaluateConfig:
        """How every policy is measured."""
        return EvaluateConfig(
            self.count, self.max_new_tokens, self.alignment_beta, self.examples, 0,
            RobustnessConfig() if self.robustness else None, self.token_budget, self.options,
        )  # fmt: skip

    def seeds_of(self, row: str) -> range:
        """The seeds of a row: the original policy is measured once."""
        return range(1 if row == "original" else self.seeds)

    def asked(self, bundle: Bundle) -> dict[str, Any]:
        """Everything that the table depends on, as plain JSON values."""
        plain = {name: value for name, value in asdict(self).items() if name != "options"}
        resolved = {**loaded_options(self.options), "attention": self.options.attention}
        measured = self.evaluation.settings(bundle)
        reworded = {"paraphrases": measured["paraphrases"]} if "paraphrases" in measured else {}
        return {**plain, "rows": list(self.rows), **resolved, **reworded, "bundle_hash": bundle.hash}
