"""How the weight α of the anchor decides between `first_order` and `implicit`: both against `unrolled`, single
candidates of one run after the other. No groups are unlearned: `unrolled` stands for the truth, a run each.

    python benchmarks/anchor.py demo --out docs/results/anchor-demo.md
"""

import argparse
import datetime
import os
import platform
import random
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr

from u2a_core.bundle import open_bundle
from u2a_core.evaluation.predictions import Predictor
from u2a_core.influence.implicit import ImplicitConfig
from u2a_core.objectives.config import ObjectiveConfig
from u2a_core.unlearning.config import UnlearnConfig
from u2a_core.unlearning.material import Material

RESAMPLES = 1000
BASE = UnlearnConfig(parameters="full", optimizer="sgd", clip=0.0, deterministic=True, monitor=32)
GA = ObjectiveConfig("ga")
SETS = {  # objective, retention, α, steps, step size (small where α is large), candidates, retain examples
    "ga": (
        (GA, "nll", 1.0, 6, 0.2, 80, 40),
        (GA, "nll", 4.0, 8, 0.1, 80, 40),
        (GA, "nll", 8.0, 10, 0.06, 80, 40),
        (GA, "nll", 16.0, 12, 0.04, 80, 40),
        (GA, "nll", 32.0, 16, 0.02, 80, 40),
        (GA, "kl", 4.0, 12, 0.1, 80, 40),
        (GA, "kl", 16.0, 16, 0.04, 80, 40),
        (GA, "nll", 1.0, 6, 0.2, 400, 100),
        (GA, "nll", 16.0, 16, 0.04, 400, 100),
    ),
    "others": (
        (ObjectiveConfig("npo"), "kl", 60.0, 16, 0.004, 80, 60),
        (ObjectiveConfig("npo"), "kl", 150.0, 24, 0.002, 80, 60),
        (ObjectiveConfig("npo", beta=0.5), "nll", 40.0, 12, 0.004, 80, 60),
        (ObjectiveConfig("simnpo"), "kl", 2.0, 12, 0.32, 80, 60),
        (ObjectiveConfig("simnpo"), "nll", 4.0, 12, 0.08, 80, 60),
        (ObjectiveConfig("flat-kl"), "nll", 1.0, 12, 0.16, 80, 60),
        (ObjectiveConfig("flat-pearson"), "nll", 2.0, 12, 0.08, 80, 60),
        (ObjectiveConfig("dpo"), "nll", 60.0, 12, 0.004, 80, 60),
        (ObjectiveConfig("dpo"), "kl", 100.0, 16, 0.004, 80, 60),
    ),
    "flat": (
        (ObjectiveConfig("flat-kl"), "nll", 4.0, 12, 0.08, 80, 60),
        (ObjectiveConfig("flat-tv"), "nll", 2.0, 12, 0.16, 80, 60),
        (ObjectiveConfig("flat-js"), "nll", 2.0, 12, 0.16, 80, 60),
        (ObjectiveConfig("flat-kl"), "kl", 4.0, 12, 0.16, 80, 60),
        (ObjectiveConfig("flat-kl"), "kl", 16.0, 16, 0.04, 80, 60),
    ),
    "further": (
        (ObjectiveConfig("npo"), "kl", 20.0, 12, 0.004, 80, 60),
        (ObjectiveConfig("simnpo", beta=0.5), "kl", 4.0, 12, 0.16, 80, 60),
        (ObjectiveConfig("dpo"), "nll", 20.0, 12, 0.008, 80, 60),
        (ObjectiveConfig("dpo"), "kl", 20.0, 12, 0.016, 80, 60),
    ),
}


def _rho(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    return float(spearmanr(one, other)[0])


def main() -> None:
    """Measure all, and write the table after each."""
    parser = argparse.ArgumentParser(description="first_order and implicit against unrolled, by the anchor's weight.")
    parser.add_argument("bundle")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=150)
    parser.add_argument("--set", choices=tuple(SETS), default="ga", help="which objectives")
    asked = parser.parse_args()
    bundle = open_bundle(asked.bundle)
    lines = [
        f"# The anchor's weight, and what predicts a run: {bundle.name}",
        "",
        f"`python {' '.join(sys.argv)}`",
        "",
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, {os.cpu_count()} cores, {platform.machine()}, torch "
        f"{torch.__version__}, float32. Full batches, plain gradient steps over every parameter, J over "
        f"{asked.pairs} pairs of `pa_train`. Spearman's ρ with the `unrolled` derivative, over the candidates; the "
        "difference with its 95 % bootstrap interval.",
        "",
        "| objective | candidates | retain examples | anchor | α | steps | step size | J gain | `first_order` | "
        "`implicit` | `implicit` less `first_order` |",
        "|---|---:|---:|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    for base, retention, alpha, steps, rate, sample, retain in SETS[asked.set]:
        objective = replace(base, retention=retention, alpha=alpha)
        inner = replace(
            BASE, objective=objective, retain_sample=retain, steps=steps, learning_rate=rate,
            check_every=steps,
        )  # fmt: skip
        material = Material(bundle, inner, show=False)
        ids = random.Random("anchor").sample(material.ids, sample)  # noqa: S311 - a sample, not a secret
        predictor = Predictor(material, ids, material.pairs("pa_train")[: asked.pairs], show=False)
        truth = predictor.unrolled()
        first, curved = predictor.first_order().derivative, predictor.implicit(ImplicitConfig(alpha=alpha)).derivative
        cells = [f"{truth.offset + truth.derivative.sum():+.3f}"]
        cells += [f"{_rho(one, truth.derivative):.2f}" for one in (first, curved)]
        drawn = np.random.default_rng(0).integers(0, sample, (RESAMPLES, sample))
        gaps = [
            _rho(curved[rows], truth.derivative[rows]) - _rho(first[rows], truth.derivative[rows]) for rows in drawn
        ]
        low, high = np.quantile(gaps, (0.025, 0.975))
        gap = _rho(curved, truth.derivative) - _rho(first, truth.derivative)
        cells.append(f"{gap:+.2f} [{low:+.2f}, {high:+.2f}]")
        beta = f" (β {base.beta:g})" if base.beta else ""
        lines.append(
            f"| `{base.name}`{beta} | {sample} | {retain} | {retention.upper()} | {alpha:g} | {steps} | {rate:g} | "
            + " | ".join(cells)
            + " |"
        )
        print(lines[-1], flush=True)
        asked.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
