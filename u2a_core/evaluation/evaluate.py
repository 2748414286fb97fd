"""`u2a evaluate`: a run's policy measured on everything, sample by sample, and the original one beside it.

The original policy is measured once for a state of the bundle and these settings. What is dear is kept as it comes
(log-probabilities in the bundle's cache, answers in their store), so that an interrupted call starts again cheaply.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from u2a_core.bundle import Bundle
from u2a_core.data.batch import collate
from u2a_core.data.encode import EncodedResponse, token_budget_batches
from u2a_core.data.table import Example
from u2a_core.errors import BundleError, ScoringError
from u2a_core.evaluation.answers import answer
from u2a_core.evaluation.loaded import LoadedPolicy
from u2a_core.evaluation.metrics import compared
from u2a_core.influence.alignment_pairs import encode_pairs
from u2a_core.influence.logprobs import logps_of, response_logits
from u2a_core.influence.reference import reference_logps
from u2a_core.models.loading import LoadOptions
from u2a_core.objectives.retention import forward_kl, retain_nll
from u2a_core.store.answers import AnswerSettings
from u2a_core.store.evaluations import Evaluation, identity, read_evaluation, write_evaluation
from u2a_core.store.files import writable_folder
from u2a_core.store.policies import finished_run, unlearned_weights
from u2a_core.store.progress import Progress
from u2a_core.store.provenance import provenance

UNITS = "J, margin: nats per pair; NLL, KL: nats per token; rewards: units of the reward model; the others: shares"


@dataclass(frozen=True)
class EvaluateConfig:
    """`count` prompts of `test` are answered, each with `max_new_tokens` at most; `alignment_beta` is β of J;
    `token_budget` padded tokens are held at once.
    """

    count: int = 40
    max_new_tokens: int = 96
    alignment_beta: float = 0.1
    token_budget: int = 8192
    options: LoadOptions = field(default_factory=LoadOptions)

    def __post_init__(self) -> None:
        for name, value in (("--count", self.count), ("--token-budget", self.token_budget)):
            if value < 1:
                raise ScoringError(f"{name} must be at least 1; it is {value}.")
        if not 0 < self.alignment_beta < float("inf"):
            raise ScoringError(f"--j-beta must be a number above 0; it is {self.alignment_beta}.")
        _ = self.answers

    @property
    def answers(self) -> AnswerSettings:
        """How the prompts of `test` are answered: greedily."""
        return AnswerSettings(self.max_new_tokens)

    def settings(self) -> dict[str, Any]:
        """Everything that the numbers depend on."""
        dtype = str(self.options.resolve_dtype()).removeprefix("torch.")
        return {
            "count": self.count, "max_new_tokens": self.max_new_tokens, "alignment_beta": self.alignment_beta,
            "dtype": dtype,
        }  # fmt: skip


@dataclass(frozen=True)
class EvaluationOutcome:
    """Where the run's document lies, whether it was there already, and both evaluations."""

    path: Path
    reused: bool
    before: Evaluation
    after: Evaluation


def evaluate(
    bundle: Bundle, name: str, config: EvaluateConfig | None = None, restart: bool = False, show: bool = True
) -> EvaluationOutcome:
    """Evaluate the run `name` and, unless that is there, the original policy. Raises `U2AError` subclasses.

    What is there of the same bundle, run and settings is taken, unless `restart`.
    """
    config = config or EvaluateConfig()
    weights = unlearned_weights(finished_run(bundle, name))
    folder = writable_folder(bundle.results / "evaluations")
    path = folder / f"{name}.json"
    known = [None if restart else _known(bundle, one, config) for one in (None, name)]
    if known[0] and known[1]:
        return EvaluationOutcome(path, True, known[0], known[1])
    before = known[0] or _Measuring(bundle, None, config, show).evaluation()
    if not known[0]:
        write_evaluation(bundle, before)
    after = known[1] or _Measuring(bundle, name, config, show, before).evaluation()
    metrics = compared(before, after, weights)
    document = {**after.document, "metrics": _plain(metrics), "left": "the original policy", "right": name}
    after = Evaluation(name, after.tables, document)
    return EvaluationOutcome(write_evaluation(bundle, after), False, before, after)


def _known(bundle: Bundle, name: str | None, config: EvaluateConfig) -> Evaluation | None:
    """What is there already, if it is of the present bundle and run, whole, and of the same settings."""
    try:
        found = read_evaluation(bundle, name)
    except BundleError:
        return None
    return found if found.settings == config.settings() else None


def _plain(metrics: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as JSON values: None where there is no number."""
    rows = metrics.astype(object).where(metrics.notna(), None).to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in rows]


class _Measuring:
    """One policy, measured; `before` is the evaluation of the original one, None where this is it."""

    def __init__(
        self, bundle: Bundle, name: str | None, config: EvaluateConfig, show: bool, before: Evaluation | None = None
    ) -> None:
        self.began = time.monotonic()
        self.bundle, self.name, self.config, self.show, self.before = bundle, name, config, show, before
        self.loaded = LoadedPolicy(bundle, name, config.options)

    def evaluation(self) -> Evaluation:
        """All tables; the document without metrics, which need both policies."""
        tables = {
            "candidates": self._candidates(), "retain": self._retain(), "pairs": self._pairs(),
            "answers": self._answers(),
        }  # fmt: skip
        document = {
            **identity(self.bundle, self.name),
            "settings": self.config.settings(),
            "seed": 0,  # greedy answers, and nothing is drawn
            "units": UNITS,
            "metrics": [],
            "measured": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - self.began, 3),
            **provenance(),
        }
        return Evaluation(self.name, tables, document)

    def _candidates(self) -> pd.DataFrame:
        encoded = self._encoded(self.bundle.pairs.forget)
        return self._table(encoded, nll=_means(self._logps(encoded)))

    def _retain(self) -> pd.DataFrame:
        encoded = self._encoded(self.bundle.pairs.retain)
        if self.before is None:
            return self._table(encoded, nll=_means(self._logps(encoded)), kl=[0.0] * len(encoded))
        nll, kl = self._against_original(encoded)
        return self._table(encoded, nll=nll, kl=kl)

    def _pairs(self) -> pd.DataFrame:
        pairs = encode_pairs(self.bundle.pairs.pairs_of("pa_test"), self.loaded.encoder, self._logps)
        table = pd.DataFrame(
            {
                "id": [one.chosen.id for one in pairs],
                "chosen_tokens": [len(one.chosen.response_ids) for one in pairs],
                "rejected_tokens": [len(one.rejected.response_ids) for one in pairs],
                "chosen_logp": [one.chosen_reference for one in pairs],
                "rejected_logp": [one.rejected_reference for one in pairs],
            }
        )
        before = table if self.before is None else self.before.tables["pairs"]
        table["chosen_reference"], table["rejected_reference"] = before["chosen_logp"], before["rejected_logp"]
        return self._finite(table)

    def _answers(self) -> pd.DataFrame:
        pairs = self.bundle.pairs.pairs_of("test")[: self.config.count]
        prompts = [pair.prompt for pair in pairs]
        found = answer(self.loaded, prompts, self.config.answers, 2 * self.config.token_budget, self.show).answers
        own = [found[prompt] for prompt in prompts]
        return pd.DataFrame(
            {
                "id": [pair.id for pair in pairs],
                "answer": [one.text for one in own],
                "tokens": np.array([len(one.rewards or ()) for one in own], dtype=int),
                "reward": np.array([one.reward for one in own], dtype=float),
            }
        )

    def _encoded(self, examples: Sequence[Example]) -> list[EncodedResponse]:
        return [self.loaded.encoder.encode(one.id, one.prompt, one.response) for one in examples]

    def _logps(self, encoded: Sequence[EncodedResponse]) -> list[Tensor]:
        """log π(y_t) of every response token, kept in the bundle's cache under the policy's hash."""
        if not encoded:
            return []
        loaded = self.loaded
        budget, folder = self.config.token_budget, self.bundle.cache_folder
        return reference_logps(loaded.policy, loaded.hash, encoded, budget, folder, self.show)

    def _against_original(self, encoded: Sequence[EncodedResponse]) -> tuple[list[float], list[float]]:
        """NLL and KL(π° ‖ π) of every response, means over its tokens."""
        found = np.zeros((2, len(encoded)))
        policy = self.loaded.policy
        with Progress("retain data", len(encoded), show=self.show) as progress, torch.no_grad():
            for part in token_budget_batches([one.length for one in encoded], self.config.token_budget):
                batch = collate([encoded[place] for place in part], policy.tokenizer.pad_token_id).to(policy.device)
                logits = response_logits(policy.model, batch)
                with self.loaded.original() as original:
                    kl = forward_kl(response_logits(original, batch), logits)
                for row, flat in enumerate((logps_of(logits, batch), -kl)):
                    values, mask = batch.pack(flat.double())
                    found[row, part] = retain_nll(values, mask).cpu().numpy()
                progress.step(len(part))
        return found[0].tolist(), found[1].tolist()

    def _table(self, encoded: Sequence[EncodedResponse], **columns: Sequence[float]) -> pd.DataFrame:
        known = {"id": [one.id for one in encoded], "tokens": [len(one.response_ids) for one in encoded]}
        numbers = {name: np.array(values, dtype=float) for name, values in columns.items()}
        return self._finite(pd.DataFrame({**known, **numbers}))

    def _finite(self, table: pd.DataFrame) -> pd.DataFrame:
        """The table; `ScoringError` naming the first row with a number that is not finite."""
        fine = np.isfinite(table.drop(columns="id").to_numpy(float)).all(axis=1)
        if not fine.all():
            raise ScoringError(
                f"The log-probability of {table['id'].iloc[int(np.argmin(fine))]} is not finite under "
                f"{'the original policy' if self.name is None else f'the run {self.name}'}: its weights overflow. "
                "Evaluate with --dtype float32, or make the run again with a smaller --learning-rate."
            )
        return table


def _means(rows: Sequence[Tensor]) -> list[float]:
    """Mean NLL per token of each response."""
    return [-float(row.double().mean()) for row in rows]
