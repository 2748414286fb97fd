"""The model card of a demo bundle: how it was made, what was measured of it, and answers as they came."""

import os
import platform
from importlib.metadata import version

import u2a_core
from u2a_core.bundle import Bundle
from u2a_core.demo.measures import Answer, DemoMeasures
from u2a_core.demo.recipe import DemoRecipe
from u2a_core.demo.unlearned import DEMO_COMMAND
from u2a_core.evaluation.correlation import Correlation


def model_card(bundle: Bundle, recipe: DemoRecipe, measured: DemoMeasures, seconds: float) -> str:
    """The card as Markdown; every number in it was computed in this build."""
    sizes = bundle.manifest["data"]["sizes"]
    tuning, training = bundle.manifest["tuning"], bundle.manifest["reward"]["training"]
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "trl", "tokenizers"))
    lines = [
        "# Model card: the demo bundle",
        "",
        "Two models of about a million parameters and a scored preference data set, to show the phenomenon of",
        "*Unlearning to Align* (arXiv 2504.06659) offline. Made from nothing by `u2a demo build`, which writes this",
        "card too; the text is that of the demo corpus (data card: `u2a_core/data/demo/DATA_CARD.md`).",
        "",
        "## How it was made",
        "",
        f"- U2A Studio {u2a_core.__version__}, {versions}; {platform.machine()}, {os.cpu_count()} cores; "
        f"{seconds:.0f} s.",
        f"- Recipe `{recipe.hash()[:16]}`, seed {recipe.seed}; corpus of {recipe.pairs} pairs. Splits: "
        + ", ".join(f"{name} {count}" for name, count in sizes.items())
        + ".",
        "- Policy `policy-tuned/`: Llama, 4 layers of width 128, byte-level BPE vocabulary of 2,048; tuned on "
        f"`original` for {tuning['epochs']:g} epochs at {tuning['learning_rate']:g} (loss {tuning['first_loss']:.2f} → "
        f"{tuning['last_loss']:.2f} nats per token).",
        f"- Reward model `reward/`: the tuned policy with a score head, Bradley-Terry on the pairs of `forget` and "
        f"`retain`, {training['epochs']:g} epoch(s) at {training['learning_rate']:g}; accuracy on `pa_test` "
        f"{training['accuracy_pa_test']:.3f}.",
        "- Scores `scores/default.parquet`: first order, gradient ascent, every parameter; `u2a score demo` computes "
        "them again.",
        "- Sketches `sketches/default/`: the gradients of all candidates and of the pairs of `pa_train` in 512 random "
        "projections each, to predict sets without the models; `u2a sketch demo --k 512` computes them again.",
        "",
        "## What was measured",
        "",
        *_measured(measured),
        "",
        "## Limits",
        "",
        "The policy has learned this corpus's sentences by heart and knows nothing else: asked about another subject,",
        "it answers with the nearest topic. It mixes good and bad sentences because its training data did. Numbers",
        "found on it say how a method behaves on a small and clean case, and nothing about a large model.",
        "",
        f"## Greedy answers to {len(measured.answers)} held-out prompts",
        "",
        "The first prompts of the `test` split, unedited. *Bad* is the share of bad ones among the corpus sentences",
        "that occur in the answer. *After*: the same policy with the top quarter by ΔPA unlearned, as measured above.",
        "",
        *[line for number, one in enumerate(measured.answers, 1) for line in _answer(number, one)],
    ]
    return "\n".join(lines) + "\n"


def _measured(measured: DemoMeasures) -> list[str]:
    return [
        "| what | value |",
        "|---|---|",
        f"| token rewards against the true low-reward tokens, held-out rejected responses: ROC AUC "
        f"| {measured.reward_auc:.3f} ({measured.reward_auc_tokens} tokens) |",
        f"| Figure 1: candidates with ΔPA above / below 0 | {measured.positive} / {measured.negative} |",
        f"| Figure 1: excess kurtosis of ΔPA; share of Σ\\|ΔPA\\| in the tenth with the largest \\|ΔPA\\| "
        f"| {measured.kurtosis:.2f}; {measured.top_tenth:.0%} |",
        f"| Figure 2: Spearman of low-reward proportion and ΔPA, groups of 64 | {_rho(measured.groups)} |",
        f"| the same over single samples | {_rho(measured.samples)} |",
        f"| planted near-duplicates of good answers ({measured.planted}) have lower ΔPA than the rest: ROC AUC "
        f"| {measured.planted_auc:.3f} |",
        f"| negatives in what the policy was tuned on | {measured.negatives:.0%} |",
        f"| mean bad share of what it was tuned on, counted in corpus sentences | {measured.mixture:.1%} |",
        f"| the same of its answers to `test`, sampled at temperature 1 / greedy "
        f"| {measured.sampled:.1%} / {measured.greedy:.1%} |",
        f"| `pa_test` pairs whose rejected response is the likelier one per token | {measured.prefers_bad:.0%} |",
        f"| after `{DEMO_COMMAND}`: J on `pa_test` | {measured.unlearned.gain:+.3f} nats per pair |",
        f"| the same: NLL on retain data | {measured.unlearned.retain_before:.3f} → "
        f"{measured.unlearned.retain_after:.3f} nats per token |",
        f"| the same: mean bad share of the greedy answers to `test` | {measured.greedy:.1%} → "
        f"{measured.unlearned.bad:.1%} |",
    ]


def _rho(found: Correlation) -> str:
    if found.coefficient is None:
        return f"undefined ({found.reason})"
    return f"{found.coefficient:+.2f} [{found.low:+.2f}, {found.high:+.2f}], n = {found.n}"


def _answer(number: int, one: Answer) -> list[str]:
    share = "no known sentence" if one.bad_share is None else f"bad {one.bad_share:.0%}"
    return [f"{number}. **{one.prompt}**", f"   {one.answer} *({share})*", f"   *After:* {one.unlearned}", ""]
