"""What unlearning does to the demo's policy: the top quarter by ΔPA is unlearned, and the same prompts are asked
again.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from u2a_core.bundle import Bundle
from u2a_core.data.pairs import Message
from u2a_core.demo.sentences import bad_share
from u2a_core.models.generation import answers
from u2a_core.objectives.config import ObjectiveConfig
from u2a_core.unlearning.config import UnlearnConfig
from u2a_core.unlearning.inner import InnerSolver
from u2a_core.unlearning.material import Material
from u2a_core.unlearning.measures import measure_alignment, measure_retain
from u2a_core.unlearning.processes import Processes
from u2a_core.unlearning.selection import Selection, select

DEMO_UNLEARNING = UnlearnConfig(
    ObjectiveConfig("npo", retention="nll"), parameters="full", learning_rate=1e-4, steps=20
)
DEMO_COMMAND = "u2a unlearn demo --top 0.25 --objective npo --retention nll --learning-rate 1e-4 --steps 20"


@dataclass(frozen=True)
class Unlearned:
    """J gain on `pa_test` (nats per pair), NLL on retain data before and after (nats per token), mean bad share of the
    answers (counted in corpus sentences), and the answers themselves.
    """

    gain: float
    retain_before: float
    retain_after: float
    bad: float
    answers: tuple[str, ...]


def unlearn_top_quarter(bundle: Bundle, prompts: Sequence[tuple[Message, ...]], show: bool = True) -> Unlearned:
    """Unlearn the quarter of the candidates with the highest ΔPA (`DEMO_COMMAND`), and answer `prompts` greedily."""
    material, alone = Material(bundle, DEMO_UNLEARNING, show), Processes()
    pairs = material.pairs("pa_test")
    before, retain = measure_alignment(material, pairs, alone), measure_retain(material, material.retain, alone)
    chosen = select(Selection(top=0.25), bundle.pairs.forget, bundle.scores("default").table)
    InnerSolver(material, material.pairs("pa_train"), show=show).solve(chosen.active)
    after, kept = measure_alignment(material, pairs, alone), measure_retain(material, material.retain, alone)
    assert retain is not None and kept is not None  # noqa: S101, PT018 - the recipe has retain data
    texts = answers(material.policy.model, material.encoder, prompts, show=show)
    shares = [share for share in map(bad_share, texts) if share is not None]
    return Unlearned(
        after.alignment - before.alignment,
        retain.nll,
        kept.nll,
        float(np.mean(shares)) if shares else float("nan"),
        tuple(texts),
    )
