"""The options of `u2a score` that belong to one estimator or another."""

from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    from u2a_core.models.loading import LoadOptions

IMPLICIT = {"own_curvature": "own_part", "cg_iterations": "iterations", "cg_tolerance": "tolerance",
            "curvature_sample": "sample"}  # fmt: skip
RUN = ("optimizer", "learning_rate", "steps", "batch_size", "deterministic", "clip", "proximity", "retain_budget",
       "trust_region", "check_every", "monitor", "retain_sample")  # fmt: skip
OWNERS = {
    **dict.fromkeys(IMPLICIT, ("implicit",)),
    **dict.fromkeys(RUN, ("unrolled", "realised")),
    **dict.fromkeys(("retention", "alpha"), ("implicit", "unrolled", "realised")),
    "repetitions": ("realised",),
    "backend": ("first_order", "implicit"),
    "tokens": ("first_order", "implicit"),
    "damping": ("first_order", "implicit"),
}


def estimator_settings(settings: dict[str, Any], options: "LoadOptions") -> None:
    """Put the options of the estimators into `settings` as `ScoreConfig` takes them.

    Raises `click.UsageError` for an option that was given and that the chosen estimator does not have.
    """
    from u2a_core.influence.implicit import ImplicitConfig
    from u2a_core.unlearning.config import UnlearnConfig

    estimator = settings["estimator"]
    _refuse_foreign(estimator)
    implicit = {own: settings.pop(name) for name, own in IMPLICIT.items()}
    run = {name: settings.pop(name) for name in RUN}
    run["retain_sample"] = run["retain_sample"] or None
    repetitions = settings.pop("repetitions")
    if estimator == "implicit":
        found = settings["objective"].settings()
        asked = settings["objective"].alpha
        alpha = found["alpha"] if found["retention"] != "none" or asked is not None else 1.0
        settings["implicit"] = ImplicitConfig(
            alpha=alpha, damping=settings["damping"], seed=settings["seed"], **implicit
        )
    elif estimator != "first_order":
        shared = {name: settings[name] for name in ("objective", "parameters", "rank", "alignment_beta", "seed")}
        budget = {} if settings["token_budget"] is None else {"token_budget": settings["token_budget"]}
        settings["run"] = UnlearnConfig(**shared, **run, **budget, options=options)
        settings["repetitions"] = repetitions if estimator == "realised" else None


def _refuse_foreign(estimator: str) -> None:
    context = click.get_current_context()
    for name, owners in OWNERS.items():
        if estimator not in owners and context.get_parameter_source(name) is not ParameterSource.DEFAULT:
            option = f"--{name.replace('_', '-')}"
            raise click.UsageError(f"{option} belongs to --estimator {' or '.join(owners)}, not to {estimator}.")
