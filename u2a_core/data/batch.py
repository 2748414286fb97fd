"""Padded batches of encoded responses, as tensors.

Padding is known from the attention mask alone; response tokens are listed flat, as (row, column) of each.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from u2a_core.data.encode import EncodedResponse


@dataclass(frozen=True)
class ResponseBatch:
    """N sequences padded to L tokens with M response tokens among them.

    `input_ids`, `attention_mask`, `position_ids`: [N, L]; `rows`, `columns`, `steps`: [M], the row, the column, and the
    number within its response of every response token, row by row.
    """

    input_ids: Tensor
    attention_mask: Tensor
    position_ids: Tensor
    rows: Tensor
    columns: Tensor
    steps: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """Number of sequences and padded length, (N, L)."""
        return int(self.input_ids.shape[0]), int(self.input_ids.shape[1])

    @property
    def token_count(self) -> int:
        """Number of response tokens, M."""
        return len(self.rows)

    @property
    def targets(self) -> Tensor:
        """Token ids of the response tokens, [M]."""
        return self.input_ids[self.rows, self.columns]

    def pack(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        """Response tokens [M] -> values [N, T] (0 where there is none) and mask [N, T]."""
        width = int(self.steps.max()) + 1
        values = flat.new_zeros(self.shape[0], width).index_put((self.rows, self.steps), flat)
        mask = torch.zeros(self.shape[0], width, dtype=torch.bool, device=flat.device)
        mask[self.rows, self.steps] = True
        return values, mask

    def flatten(self, packed: Tensor) -> Tensor:
        """Values [N, T] -> response tokens [M]; the inverse of `pack`."""
        return packed[self.rows, self.steps]

    def per_sample(self, flat: Tensor) -> Tensor:
        """Sum of response-token values [M] over each sequence, [N]."""
        return flat.new_zeros(self.shape[0]).index_add(0, self.rows, flat)

    def to(self, device: torch.device | str) -> "ResponseBatch":
        """The same batch on another device."""
        return replace(self, **{name: getattr(self, name).to(device) for name in self.__dataclass_fields__})


def collate(examples: Sequence[EncodedResponse], pad_id: int, padding_side: str = "right") -> ResponseBatch:
    """Pad `examples` to one batch; `pad_id` is filler that no result depends on."""
    longest = max(example.length for example in examples)
    ids = torch.full((len(examples), longest), pad_id, dtype=torch.long)
    mask = torch.zeros_like(ids)
    rows: list[int] = []
    columns: list[int] = []
    steps: list[int] = []
    for row, example in enumerate(examples):
        start = 0 if padding_side == "right" else longest - example.length
        ids[row, start : start + example.length] = torch.tensor(example.prompt_ids + example.response_ids)
        mask[row, start : start + example.length] = 1
        first = start + len(example.prompt_ids)
        count = len(example.response_ids)
        rows += [row] * count
        columns += range(first, first + count)
        steps += range(count)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    return ResponseBatch(ids, mask, positions, torch.tensor(rows), torch.tensor(columns), torch.tensor(steps))
