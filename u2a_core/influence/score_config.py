"""What `u2a score` is told, checked before a model is loaded, and what of it the scores depend on."""

from dataclasses import asdict, dataclass, field
from typing import Any

from u2a_core.errors import ScoringError
from u2a_core.influence.implicit import ImplicitConfig
from u2a_core.models.loading import LoadOptions
from u2a_core.objectives.alignment import alignment
from u2a_core.objectives.config import ObjectiveConfig
from u2a_core.unlearning.config import UnlearnConfig

AT_START = ("first_order", "implicit")  # one direction v at θ0
BY_RUNS = ("unrolled", "realised")  # from runs of the inner solver
ESTIMATORS = AT_START + BY_RUNS


@dataclass(frozen=True)
class ScoreConfig:
    """What `u2a score` is told. `damping` is λ; `low_reward` an absolute τ, else `low_reward_quantile` of all token
    rewards; `seed` draws a new LoRA and random answers. The objective's retention term enters no first-order score.
    `implicit` are the settings of that estimator, whose λ is `damping`; `run` the run that `unrolled` and `realised`
    are about, whose objective, parameters and seed are those above; `repetitions`: seeds that realised scores are the
    mean over.
    """

    estimator: str = "first_order"
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    alignment: str = "dpo"
    alignment_beta: float = 0.1
    damping: float = 1.0
    parameters: str = "lora"
    rank: int = 8
    backend: str = "auto"
    tokens: bool = True
    token_budget: int | None = None
    low_reward: float | None = None
    low_reward_quantile: float = 0.25
    seed: int = 0
    options: LoadOptions = field(default_factory=LoadOptions)
    implicit: ImplicitConfig | None = None
    run: UnlearnConfig | None = None
    repetitions: int | None = None

    def asked(self, bundle_hash: str) -> dict[str, Any]:
        """Plain values that two runs must share to give the same scores; a line a parameter of the objective."""
        settings = self.objective.settings()
        own = {f"objective_{name}": value for name, value in settings.items() if name not in ("name", *RETENTION)}
        named = {"objective": settings["name"], "objective_beta": NO_BETA, **own}
        plain = {name: value for name, value in asdict(self).items() if name not in OF_ESTIMATORS or value is not None}
        if self.run is not None:
            plain["run"] = self.run.asked()
        return {**plain, **named, "bundle_hash": bundle_hash}

    def check(self) -> None:
        """Raise `ScoringError` for what cannot work."""
        if self.estimator not in ESTIMATORS:
            raise ScoringError(f"There is no estimator '{self.estimator}'; choose {', '.join(ESTIMATORS)}.")
        for name, owners in OF_ESTIMATORS.items():
            given, needed = getattr(self, name) is not None, self.estimator in owners
            if given != needed:
                what = "needs" if needed else "has no"
                raise ScoringError(f"The estimator {self.estimator} {what} settings of the kind '{name}'.")
        if self.repetitions is not None and self.repetitions < 1:
            raise ScoringError(f"--repetitions must be at least 1; it is {self.repetitions}.")
        for label, value in (("--damping", self.damping), ("--j-beta", self.alignment_beta)):
            if not value > 0:
                raise ScoringError(f"{label} must be greater than 0; it is {value}.")
        if not 0 < self.low_reward_quantile < 1:
            raise ScoringError(f"--low-reward-quantile must lie between 0 and 1; it is {self.low_reward_quantile}.")
        alignment(self.alignment)


OF_ESTIMATORS = {"implicit": ("implicit",), "run": BY_RUNS, "repetitions": ("realised",)}
RETENTION = ("retention", "alpha")
NO_BETA = 0.1  # what was asked of objectives without β before they had parameters of their own: such scores stay valid
