"""Log-probabilities of response tokens, with the language-model head computed at response positions only.

log π(y_t | x, y_<t) in nats, float32 or better; prompt and padding positions never reach the head.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from u2a_core.data.batch import ResponseBatch


def response_logps(model: nn.Module, batch: ResponseBatch) -> Tensor:
    """log π(y_t | x, y_<t) of every response token, [M], nats, in float32 (float64 for a float64 model)."""
    inputs: dict[str, Any] = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    if takes_position_ids(model):
        inputs["position_ids"] = batch.position_ids
    with head_at(model, batch.rows, batch.columns - 1):
        logits = model(**inputs, use_cache=False).logits[0]  # [M, V]
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return logits.gather(1, batch.targets[:, None])[:, 0] - logits.logsumexp(1)


@contextmanager
def head_at(model: nn.Module, rows: Tensor, columns: Tensor) -> Iterator[None]:
    """Within the block the output layer sees hidden states [1, M, d], those at (rows, columns), in place of [N, L,
    d].
    """
    head = model.get_output_embeddings()  # type: ignore[operator]
    handle = head.register_forward_pre_hook(lambda _module, inputs: (inputs[0][rows, columns][None],))
    try:
        yield
    finally:
        handle.remove()


def takes_position_ids(model: nn.Module) -> bool:
    """Whether the model under any adapter accepts explicit positions (some, with ALiBi for one, know none)."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return "position_ids" in inspect.signature(base.forward).parameters
