"""The preference pairs that J is measured on, encoded, with their log-probabilities at θ0."""

from collections.abc import Callable, Sequence

from torch import Tensor

from u2a_core.data.encode import EncodedResponse, ResponseEncoder
from u2a_core.data.pairs import PreferencePair
from u2a_core.influence.alignment_gradient import EncodedPair

Reference = Callable[[Sequence[EncodedResponse]], list[Tensor]]


def encode_pairs(pairs: Sequence[PreferencePair], encoder: ResponseEncoder, reference: Reference) -> list[EncodedPair]:
    """Complete pairs as J takes them; `reference` gives log π°(y_t) of encoded responses, [T] each, in nats."""
    chosen = [encoder.encode(pair.id, pair.prompt, str(pair.chosen)) for pair in pairs]
    rejected = [encoder.encode(pair.id, pair.prompt, str(pair.rejected)) for pair in pairs]
    sums = [float(row.double().sum()) for row in reference([*chosen, *rejected])]
    halves = sums[: len(pairs)], sums[len(pairs) :]
    return [EncodedPair(*parts) for parts in zip(chosen, rejected, *halves, strict=True)]
