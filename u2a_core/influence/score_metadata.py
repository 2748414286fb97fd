"""What a Scores file says of all its rows: how they were made, of what, in which units and with which sign."""

from importlib.metadata import version
from typing import Any

import u2a_core
from u2a_core.bundle import Bundle
from u2a_core.influence.score_config import ScoreConfig
from u2a_core.models.policy import Policy
from u2a_core.store.scores import FORMAT_VERSION


def score_metadata(
    bundle: Bundle, config: ScoreConfig, policy: Policy, backend: dict[str, Any], asked: dict[str, Any], count: int
) -> dict[str, Any]:
    """Plain JSON values for `count` rows; `backend` is what was resolved at the start of the run."""
    objective = config.objective.settings()
    return {
        "format_version": FORMAT_VERSION,
        "bundle": bundle.name,
        "estimator": config.estimator,
        "objective": objective["name"],
        "objective_settings": objective,
        "alignment": config.alignment,
        "alignment_beta": config.alignment_beta,
        "alignment_pairs": len(bundle.pairs.pairs_of("pa_train")),
        "damping": config.damping,
        "units": f"nats per pair, for ω = 1 among n = {count} candidates {_meant(config)}",
        "sign": "> 0: unlearning the example helps alignment; < 0: it hurts",
        "n": count,
        "seed": config.seed,
        "bundle_hash": bundle.hash,
        "reward": bundle.reward.kind if bundle.reward else None,
        "low_reward_quantile": None if config.low_reward is not None else config.low_reward_quantile,
        "parameters": config.parameters,
        "theta_size": policy.size,
        "backend": backend,
        "versions": {name: version(name) for name in ("torch", "transformers", "peft")} | {"u2a": u2a_core.__version__},
        "asked": asked,
    }


def _meant(config: ScoreConfig) -> str:
    """What the estimator's numbers are, in words."""
    run = config.run
    if config.estimator == "implicit" and config.implicit is not None:
        own = " + the objective's own Gauss-Newton part" if config.implicit.own_part else ""
        return f"and H = λI + α·GGN of the retain KL{own} with λ = {config.damping:g} and α = {config.implicit.alpha:g}"
    if run is not None:
        told = f"{run.steps} {run.optimizer} steps of {run.learning_rate:g}"
        if config.estimator == "unrolled":
            return f"and the exact derivative of J after {told} with every ω = 1"
        return f"and J after {told} on all of them less J after the same run without the example"
    return f"and H = λI with λ = {config.damping:g}"
