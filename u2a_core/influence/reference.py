"""Log-probabilities at θ0, computed once and kept on disk under the hash of model, data and encoding."""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from u2a_core.data.batch import collate
from u2a_core.data.encode import EncodedResponse, token_budget_batches
from u2a_core.influence.logprobs import response_logps
from u2a_core.models.policy import Policy
from u2a_core.store.files import replacing
from u2a_core.store.fingerprints import text_sha256
from u2a_core.store.progress import Progress


def reference_logps(
    policy: Policy, model_hash: str, encoded: Sequence[EncodedResponse], budget: int, folder: Path, show: bool = True
) -> list[Tensor]:
    """log π°(y_t) of every response token of every example, [T_i] each, nats, on the CPU.

    `policy` must be at θ0. The file in `folder` is named by the model's hash, dtype, and every token id, so that a
    change of any of them computes anew; an unreadable file is computed anew too.
    """
    content = repr([(one.prompt_ids, one.response_ids) for one in encoded])
    path = folder / f"reference-{text_sha256(f'{model_hash}|{policy.dtype}|{content}')[:20]}.safetensors"
    lengths = [len(one.response_ids) for one in encoded]
    try:
        flat = load_file(path)["logps"]
        if len(flat) == sum(lengths):
            return list(flat.split(lengths))
    except (OSError, SafetensorError, KeyError):
        pass
    rows: list[Tensor] = [torch.empty(0)] * len(encoded)
    with Progress("reference", len(encoded), show=show) as progress, torch.no_grad():
        for indices in token_budget_batches([one.length for one in encoded], budget):
            batch = collate([encoded[index] for index in indices], policy.tokenizer.pad_token_id).to(policy.device)
            packed, _ = batch.pack(response_logps(policy.model, batch))
            for index, row in zip(indices, packed.cpu(), strict=True):
                rows[index] = row[: lengths[index]].clone()
            progress.step(len(indices))
    with replacing(path) as part:
        save_file({"logps": torch.cat(rows)}, part)
    return rows
