"""Run folders as `u2a unlearn` writes them, without a model."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ASKED: dict[str, Any] = {
    "objective": {"name": "npo", "beta": 0.1, "retention": "nll", "alpha": 1.0},
    "parameters": "full",
    "optimizer": "adamw",
    "learning_rate": 1e-4,
    "steps": 20,
    "batch_size": 32,
    "deterministic": False,
    "retain_budget": 0.5,
    "trust_region": 0.5,
    "check_every": 5,
    "forget_set": {"a": 1.5, "b": 0.5, "c": 0.0},
}


def measures(j: float, nll: float, kl: float) -> dict[str, Any]:
    pairs = {"alignment": j, "margin": 1.0, "accuracy": 0.6}
    return {"pa_train": pairs, "pa_test": {**pairs, "alignment": j - 0.01}, "retain": {"nll": nll, "kl": kl}}


REPORT: dict[str, Any] = {
    "steps": 20,
    "kept_step": 15,
    "stopped": "the retain NLL rose by 0.600 nats per token by step 20, over the budget 0.5",
    "unlearned": 2,
    "before": measures(-0.693, 0.35, 0.0),
    "after": measures(-0.62, 0.40, 0.05),
    "unlearning_seconds": 40.0,
    "seconds": 70.0,
}


def check(step: int, **values: Any) -> dict[str, Any]:
    start = {"forget_loss": None, "retain_nll": 0.35, "kl": 0.0, "alignment": -0.693}
    return {"step": step, **start, "step_seconds": None, "memory_mib": 900.0, **values}


CURVE = [
    check(0),
    check(5, forget_loss=13.0, retain_nll=0.36, kl=0.01, alignment=-0.68, step_seconds=2.0),
    check(15, forget_loss=9.0, retain_nll=0.40, kl=0.05, alignment=-0.62, step_seconds=2.0),
    check(20, forget_loss=7.0, retain_nll=0.95, kl=0.4, alignment=-0.60, step_seconds=2.0),
]


def write_run(
    folder: Path,
    asked: Mapping[str, Any] | None = None,
    report: Mapping[str, Any] | None = None,
    curve: list[dict[str, Any]] | None = None,
) -> Path:
    """A finished run, or an unfinished one where `folder` ends in .part; `asked` and `report` change some values."""
    folder.mkdir(parents=True)
    (folder / "spec.json").write_text(json.dumps({"asked": {**ASKED, **(asked or {})}, "resolved": {}}))
    lines = CURVE if curve is None else curve
    (folder / "progress.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if folder.suffix != ".part":
        (folder / "report.json").write_text(json.dumps({**REPORT, **(report or {})}))
    return folder
