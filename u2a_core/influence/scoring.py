"""`u2a score`: ΔPA of every forget candidate of a bundle, into one Scores file.

Resumable: every finished batch lies on disk, and a run that was killed goes on where it was, with the same bits in the
end.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import u2a_core
from u2a_core.bundle import Bundle
from u2a_core.data.batch import collate
from u2a_core.data.encode import EncodedResponse, ResponseEncoder, token_budget_batches
from u2a_core.errors import BundleError, ScoringError
from u2a_core.influence.alignment_gradient import EncodedPair, alignment_gradient
from u2a_core.influence.backends import BackendChoice, choose_backend, make_backend
from u2a_core.influence.candidate_rewards import candidate_rewards, stored_tensors
from u2a_core.influence.directional import DirectionalBackend, unit_direction
from u2a_core.influence.first_order import batch_influence, curvature_solution, is_finite
from u2a_core.influence.reference import reference_logps
from u2a_core.influence.score_table import SampleParts, low_reward_threshold, score_table, split_samples
from u2a_core.models.loading import LoadOptions
from u2a_core.models.policy import Policy, load_policy
from u2a_core.objectives.alignment import alignment
from u2a_core.objectives.forgetting import ForgettingObjective, forgetting_objective
from u2a_core.store.files import remove, replacing, writable_folder
from u2a_core.store.progress import Progress
from u2a_core.store.run_folder import RunFolder
from u2a_core.store.scores import FORMAT_VERSION, read_scores, write_scores

ESTIMATORS = ("first_order",)


@dataclass(frozen=True)
class ScoreConfig:
    """What `u2a score` is told. `damping` is λ; `low_reward` an absolute τ, else `low_reward_quantile` of all token
    rewards.
    """

    estimator: str = "first_order"
    objective: str = "ga"
    objective_beta: float = 0.1
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


@dataclass(frozen=True)
class ScoreOutcome:
    """The scores file, whether it was there already, and which back end was chosen and why."""

    path: Path
    reused: bool
    backend: dict[str, Any]


def score(
    bundle: Bundle, config: ScoreConfig, name: str = "default", restart: bool = False, show: bool = True
) -> ScoreOutcome:
    """Score every candidate of `bundle` into `scores/<name>.parquet`. Raises `U2AError` subclasses."""
    _check(config, name)
    path = bundle.scores_folder / f"{name}.parquet"
    asked = {**asdict(config), "bundle_hash": bundle.hash}
    folder = bundle.scores_folder / f"{name}.part"
    writable_folder(bundle.scores_folder)
    if restart:
        remove(folder)
    elif path.exists():
        done = read_scores(path).metadata
        if done.get("asked") == asked:
            return ScoreOutcome(path, True, done["backend"])
        raise BundleError(
            f"{path} exists already and was made otherwise, or from another state of the bundle. Choose another name "
            "with --scores, or say --restart to replace it."
        )
    with RunFolder(folder, asked) as run:
        backend = _Job(bundle, config, run, show).run(path)
        run.finish()
    return ScoreOutcome(path, False, backend)


def _check(config: ScoreConfig, name: str) -> None:
    """Refuse what cannot work before a model is loaded."""
    if config.estimator not in ESTIMATORS:
        raise ScoringError(f"There is no estimator '{config.estimator}'; choose {', '.join(ESTIMATORS)}.")
    if not name or not all(letter.isalnum() or letter in "-_." for letter in name) or name.startswith("."):
        raise ScoringError(f"--scores {name!r} cannot be a file name: use letters, digits, '-', '_' and '.'.")
    for label, value in (
        ("--damping", config.damping),
        ("--beta", config.objective_beta),
        ("--j-beta", config.alignment_beta),
    ):
        if not value > 0:
            raise ScoringError(f"{label} must be greater than 0; it is {value}.")
    if not 0 < config.low_reward_quantile < 1:
        raise ScoringError(f"--low-reward-quantile must lie between 0 and 1; it is {config.low_reward_quantile}.")
    forgetting_objective(config.objective)
    alignment(config.alignment)


class _Job:
    """One scoring run: policy and encodings loaded once, then phase by phase."""

    def __init__(self, bundle: Bundle, config: ScoreConfig, run: RunFolder, show: bool) -> None:
        self.bundle, self.config, self.run_folder, self.show = bundle, config, run, show
        self.began = time.monotonic()
        resolved = run.resume()
        options = (
            config.options
            if resolved is None
            else LoadOptions(resolved["device"], resolved["dtype"], config.options.attention)
        )
        self.policy: Policy = load_policy(
            bundle.policy_path, bundle.adapter_path, config.parameters, options, config.rank, config.seed
        )
        self.encoder = ResponseEncoder(self.policy.tokenizer, bundle.max_length)
        self.candidates = bundle.pairs.forget
        self.encoded = [self.encoder.encode(one.id, one.prompt, one.response) for one in self.candidates]
        if resolved is None:
            choice = choose_backend(config.backend, config.tokens, self.policy, self.encoded, config.token_budget)
            resolved = {
                **asdict(choice),
                "device": str(self.policy.device),
                "dtype": str(self.policy.dtype).removeprefix("torch."),
            }
            run.start(resolved)
        self.resolved = resolved
        self.choice = BackendChoice(resolved["name"], resolved["token_budget"], resolved["reason"])

    def run(self, path: Path) -> dict[str, Any]:
        """All phases; writes the scores file and returns the resolved back end."""
        rewards = candidate_rewards(
            self.bundle,
            self.policy,
            self.candidates,
            self.encoded,
            self._options(),
            self.choice.token_budget,
            self.show,
        )
        value, gradient = self._gradient()
        parts, norm = self._influence(gradient)
        threshold = low_reward_threshold(rewards, self.config.low_reward, self.config.low_reward_quantile)
        table = score_table(self.candidates, self.encoded, parts, rewards, threshold)
        write_scores(
            path,
            table,
            self._metadata(len(table))
            | {
                "low_reward_threshold": threshold,
                "alignment_value": value,
                "gradient_norm": norm,
                "truncated_examples": int((table["truncated"] > 0).sum()),
                "seconds": round(time.monotonic() - self.began, 3),
            },
        )
        return self.resolved

    def _options(self) -> LoadOptions:
        """Device and dtype as they were resolved at the start of the run."""
        return LoadOptions(self.resolved["device"], self.resolved["dtype"], self.config.options.attention)

    def _metadata(self, count: int) -> dict[str, Any]:
        """What is true of all rows."""
        config, bundle = self.config, self.bundle
        return {
            "format_version": FORMAT_VERSION,
            "bundle": bundle.name,
            "estimator": config.estimator,
            "objective": config.objective,
            "objective_beta": config.objective_beta,
            "alignment": config.alignment,
            "alignment_beta": config.alignment_beta,
            "alignment_pairs": len(bundle.pairs.pairs_of("pa_train")),
            "damping": config.damping,
            "units": f"nats per pair, for ω = 1 among n = {count} candidates and H = λI with λ = {config.damping:g}",
            "sign": "> 0: unlearning the example helps alignment; < 0: it hurts",
            "n": count,
            "seed": config.seed,
            "bundle_hash": bundle.hash,
            "reward": bundle.reward.kind if bundle.reward else None,
            "low_reward_quantile": None if config.low_reward is not None else config.low_reward_quantile,
            "parameters": config.parameters,
            "theta_size": self.policy.size,
            "backend": self.resolved,
            "versions": {name: version(name) for name in ("torch", "transformers", "peft")}
            | {"u2a": u2a_core.__version__},
            "asked": self.run_folder.asked,
        }

    def _gradient(self) -> tuple[float, dict[str, Tensor]]:
        """J and ∇J on `pa_train`, from the run folder where an earlier attempt finished them."""
        done = self.run_folder.path / "gradient.safetensors"
        if done.is_file():
            stored = load_file(done, device=str(self.policy.device))
            ordered = {name: stored[name] for name in self.policy.theta}  # the same order gives the same sums
            return float(stored["__value__"]), ordered
        pairs = self._encoded_pairs()
        measure = alignment(self.config.alignment, self.config.alignment_beta)
        checkpoint = self.run_folder.path / "gradient-checkpoint.safetensors"
        outcome = alignment_gradient(self.policy, pairs, measure, self.choice.token_budget, checkpoint, show=self.show)
        with replacing(done) as part:
            value = torch.tensor(outcome.value, dtype=torch.float64)
            save_file({**{key: one.contiguous() for key, one in outcome.gradient.items()}, "__value__": value}, part)
        remove(checkpoint)
        return outcome.value, outcome.gradient

    def _encoded_pairs(self) -> list[EncodedPair]:
        pairs = self.bundle.pairs.pairs_of("pa_train")
        encode = self.encoder.encode
        chosen = [encode(pair.id, pair.prompt, str(pair.chosen)) for pair in pairs]
        rejected = [encode(pair.id, pair.prompt, str(pair.rejected)) for pair in pairs]
        sums = [float(row.double().sum()) for row in self._reference([*chosen, *rejected])]
        return [
            EncodedPair(*both, *reference)
            for both, reference in zip(
                zip(chosen, rejected, strict=True),
                zip(sums[: len(pairs)], sums[len(pairs) :], strict=True),
                strict=True,
            )
        ]

    def _reference(self, encoded: Sequence[EncodedResponse]) -> list[Tensor]:
        cache = self.bundle.cache_folder
        return reference_logps(
            self.policy, self.bundle.policy_hash, encoded, self.choice.token_budget, cache, self.show
        )

    def _influence(self, gradient: dict[str, Tensor]) -> tuple[list[SampleParts], float]:
        """ΔPA of every candidate, batch by batch, and ‖v‖; finished batches are read back."""
        direction, norm = unit_direction(curvature_solution(gradient, self.config.damping))
        backend = make_backend(self.choice.name, self.policy.model, direction)
        objective = forgetting_objective(self.config.objective, self.config.objective_beta)
        references = self._reference(self.encoded) if "reference" in objective.needs else None
        batches = token_budget_batches([one.length for one in self.encoded], self.choice.token_budget)
        parts: dict[int, SampleParts] = {}
        with Progress("influence", len(self.encoded), self.run_folder.path / "progress.jsonl", self.show) as progress:
            for number, indices in enumerate(batches):
                file = self.run_folder.path / f"batch-{number:06d}.safetensors"
                stored = stored_tensors(file)
                if stored is None:
                    stored = self._score_batch(backend, objective, norm, references, indices)
                    with replacing(file) as part:
                        save_file(stored, part)
                lengths = [len(self.encoded[index].response_ids) for index in indices]
                parts.update(zip(indices, split_samples(stored, lengths), strict=True))
                progress.step(len(indices))
        return [parts[index] for index in range(len(self.encoded))], norm

    def _score_batch(
        self,
        backend: DirectionalBackend,
        objective: ForgettingObjective,
        norm: float,
        references: list[Tensor] | None,
        indices: Sequence[int],
    ) -> dict[str, Tensor]:
        """ΔPA and log-probabilities of one batch; `ScoringError` naming the ids where a number is not finite."""
        batch = collate([self.encoded[index] for index in indices], self.policy.tokenizer.pad_token_id).to(
            self.policy.device
        )
        reference = (
            None if references is None else torch.cat([references[index] for index in indices]).to(self.policy.device)
        )
        found = batch_influence(backend, batch, objective, norm / len(self.encoded), reference, self.config.tokens)
        if not is_finite(found):
            bad = [
                self.encoded[index].id
                for index, value in zip(indices, found.samples, strict=True)
                if not value.isfinite()
            ]
            raise ScoringError(
                f"ΔPA of {', '.join(bad[:5]) or self.encoded[indices[0]].id} is not finite: the policy overflows "
                f"there in {self.policy.dtype}. Score with --dtype float32, or leave the example out."
            )
        stored = {"logps": found.logps.cpu(), "samples": found.samples.cpu()}
        return stored if found.tokens is None else {**stored, "tokens": found.tokens.cpu()}
