"""What a forgetting objective is told: its name and its parameters, checked, with a default for each. Plain values, no
torch.

| objective | parameters and their defaults | retention |
|---|---|---|
| `ga` | | none |
| `graddiff` | | NLL, α = 1 |
| `npo` | β = 0.1 | none |
| `simnpo` | β = 2.5, γ = 0 (the authors' choice for TOFU forget05) | none |
| `dpo` | β = 0.1, a refusal | none |
| `flat-kl`, `flat-tv`, `flat-js`, `flat-pearson` | a refusal | none |
| `yao` | ε = (0.5, 1, 1), K = 5 random answers (the authors' choice for harmful answers) | KL, α = ε3 |

Every one takes another retention term and another α; α is 1 where a retention term is chosen and nothing said.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from u2a_core.errors import ScoringError

Retention = Literal["none", "nll", "kl"]
RETENTIONS: tuple[Retention, ...] = ("none", "nll", "kl")
REFUSAL = "I'm sorry, but I can't help with that."
PARAMETERS = ("beta", "gamma", "epsilon", "random_answers", "refusal")

_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "ga": {},
    "graddiff": {"retention": "nll"},
    "npo": {"beta": 0.1},
    "simnpo": {"beta": 2.5, "gamma": 0.0},
    "dpo": {"beta": 0.1, "refusal": REFUSAL},
    "flat-kl": {"refusal": REFUSAL},
    "flat-tv": {"refusal": REFUSAL},
    "flat-js": {"refusal": REFUSAL},
    "flat-pearson": {"refusal": REFUSAL},
    "yao": {"epsilon": (0.5, 1.0, 1.0), "random_answers": 5, "retention": "kl"},
}
OBJECTIVES = tuple(_DEFAULTS)


@dataclass(frozen=True)
class ObjectiveConfig:
    """A forgetting objective as it was asked for; None stands for the objective's default.

    `beta` (per nat) > 0, `gamma` ≥ 0; `epsilon` = (ε1, ε2, ε3) ≥ 0 weigh gradient ascent, random mismatch and the
    retention term; `random_answers` is K ≥ 1; `refusal` is the template answer; `alpha` ≥ 0 weighs the retention term.
    Raises `ScoringError`, with the remedy, for an unknown name, a value out of range, or a parameter that the objective
    does not have.
    """

    name: str = "ga"
    beta: float | None = None
    gamma: float | None = None
    epsilon: tuple[float, float, float] | None = None
    random_answers: int | None = None
    refusal: str | None = None
    retention: Retention | None = None
    alpha: float | None = None

    def __post_init__(self) -> None:
        if self.name not in _DEFAULTS:
            raise ScoringError(f"There is no objective '{self.name}'; choose one of {', '.join(OBJECTIVES)}.")
        for parameter in PARAMETERS:
            if getattr(self, parameter) is not None and parameter not in _DEFAULTS[self.name]:
                owners = ", ".join(name for name, defaults in _DEFAULTS.items() if parameter in defaults)
                raise ScoringError(
                    f"The objective {self.name} has no {_option(parameter)}: leave it out, or choose one of {owners}."
                )
        _check(self.settings())

    def settings(self) -> dict[str, Any]:
        """Every parameter that the objective has, defaults filled in, and `name`, `retention` and `alpha`: plain JSON
        values, for metadata.
        """
        defaults = _DEFAULTS[self.name]
        given = {name: getattr(self, name) for name in PARAMETERS}
        found: dict[str, Any] = {"name": self.name}
        found |= {
            name: defaults[name] if given[name] is None else given[name] for name in PARAMETERS if name in defaults
        }
        if "epsilon" in found:
            found["epsilon"] = list(found["epsilon"])
        found["retention"] = self.retention or defaults.get("retention", "none")
        return {**found, "alpha": self._alpha(found)}

    def _alpha(self, found: Mapping[str, Any]) -> float:
        """The weight of the retention term; ε3 is that of `yao`."""
        own = found["epsilon"][-1] if "epsilon" in found else None
        if self.alpha is not None and self.epsilon is not None and self.alpha != own:
            raise ScoringError(
                f"alpha = {self.alpha} and ε3 = {own} are both the weight of the retention term and differ: give one "
                "of them, or the same value twice."
            )
        if found["retention"] == "none":
            if self.alpha:
                raise ScoringError(
                    f"alpha = {self.alpha} weighs a retention term, and the objective {self.name} has none here: "
                    "choose the retention nll or kl, or leave alpha out."
                )
            return 0.0
        return float(next(value for value in (self.alpha, own, 1.0) if value is not None))


def _check(settings: Mapping[str, Any]) -> None:
    """Raise `ScoringError` for the first value out of range."""
    epsilon = settings.get("epsilon", [1.0, 1.0, 1.0])
    finite = all(_is_number(value) and value >= 0 for value in epsilon)
    checks = (
        ("beta", _is_number(settings.get("beta", 1)) and settings.get("beta", 1) > 0, "a number greater than 0"),
        ("gamma", _is_number(settings.get("gamma", 0)) and settings.get("gamma", 0) >= 0, "a number of at least 0"),
        (
            "epsilon",
            len(epsilon) == 3 and finite and sum(epsilon[:2]) > 0,
            "three numbers of at least 0, the first two not both 0",
        ),
        ("random_answers", _is_count(settings.get("random_answers", 1)), "a whole number of at least 1"),
        ("refusal", bool(str(settings.get("refusal", "-")).strip()), "an answer of at least one word"),
        ("retention", settings["retention"] in RETENTIONS, f"one of {', '.join(RETENTIONS)}"),
        ("alpha", _is_number(settings["alpha"]) and settings["alpha"] >= 0, "a number of at least 0"),
    )
    for name, fine, wanted in checks:
        if not fine:
            raise ScoringError(
                f"{_option(name)} of the objective {settings['name']} must be {wanted}; it is {settings[name]!r}."
            )


def _option(parameter: str) -> str:
    """How a message names a parameter: as the command line does."""
    return f"--{parameter.replace('_', '-')}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
