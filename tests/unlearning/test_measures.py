"""J, margin, accuracy, NLL and KL against a second computation: one example at a time, float64."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from u2a_core.data.encode import EncodedResponse
from u2a_core.influence.alignment_gradient import EncodedPair
from u2a_core.unlearning.material import Material
from u2a_core.unlearning.measures import AlignmentMeasures, measure_alignment, measure_retain
from u2a_core.unlearning.processes import Processes

Make = Callable[..., Material]
Logits = Callable[..., Tensor]
ALONE = Processes()


def mean_logp(logits: Logits, material: Material, example: EncodedResponse) -> tuple[float, float]:
    """Sum and mean of the log-probabilities of the response."""
    with torch.no_grad():
        every = logits(material.policy, example).log_softmax(-1)
    total = sum(float(row[token]) for row, token in zip(every, example.response_ids, strict=True))
    return total, total / len(example.response_ids)


@pytest.mark.parametrize("budget", [1, 100_000])
def test_alignment_against_a_second_computation(
    budget: int, make_exact: Make, moved: Callable[..., None], naive_logits: Logits
) -> None:
    material = make_exact(token_budget=budget, alignment_beta=0.3)
    pairs = material.pairs("pa_train")
    before = {
        (pair.chosen.id, side): mean_logp(naive_logits, material, one)[0] for pair in pairs for side, one in sides(pair)
    }
    moved(material, 0.05)
    margins, right = [], []
    for pair in pairs:
        (chosen, chosen_mean), (rejected, rejected_mean) = (
            mean_logp(naive_logits, material, one) for _, one in sides(pair)
        )
        margins.append(chosen - before[pair.chosen.id, "chosen"] - rejected + before[pair.chosen.id, "rejected"])
        right.append(chosen_mean > rejected_mean)
    found = measure_alignment(material, pairs, ALONE)
    values = [-math.log1p(math.exp(-0.3 * margin)) for margin in margins]
    assert found.alignment == pytest.approx(sum(values) / len(pairs), rel=1e-10)
    assert found.margin == pytest.approx(sum(margins) / len(pairs), rel=1e-9)
    assert found.accuracy == sum(right) / len(pairs)
    assert 0 < found.accuracy < 1
    assert max(map(abs, margins)) > 0.5


def sides(pair: EncodedPair) -> list[tuple[str, EncodedResponse]]:
    return [("chosen", pair.chosen), ("rejected", pair.rejected)]


@pytest.mark.parametrize("budget", [1, 100_000])
def test_retain_against_a_second_computation(
    budget: int, make_exact: Make, moved: Callable[..., None], naive_logits: Logits
) -> None:
    material = make_exact(token_budget=budget)
    with torch.no_grad():
        before = [naive_logits(material.policy, one).softmax(-1) for one in material.retain]
        moved(material, 0.05)
        after = [naive_logits(material.policy, one).log_softmax(-1) for one in material.retain]
    kl = [float((p * (p.log() - q)).sum(-1).mean()) for p, q in zip(before, after, strict=True)]
    nll = [-mean_logp(naive_logits, material, one)[1] for one in material.retain]
    found = measure_retain(material, material.retain, ALONE)
    assert found is not None
    assert found.nll == pytest.approx(sum(nll) / len(nll), rel=1e-10)
    assert found.kl == pytest.approx(sum(kl) / len(kl), rel=1e-10)
    assert found.kl > 0.01
    assert len({len(one.response_ids) for one in material.retain}) > 3, "a mean over all tokens would be another number"


def test_at_the_start_nothing_has_changed(make_exact: Make) -> None:
    material = make_exact()
    found = measure_alignment(material, material.pairs("pa_train"), ALONE)
    assert found.alignment == pytest.approx(math.log(0.5), abs=1e-12)
    assert abs(found.margin) < 1e-10
    retain = measure_retain(material, material.retain, ALONE)
    assert retain is not None
    assert retain.kl == 0.0


@pytest.mark.parametrize("parameters", ["full", "lora"])
def test_the_kl_at_the_start_is_exactly_zero_in_float32(parameters: str, make_material: Make) -> None:
    material = make_material(parameters=parameters, token_budget=100)
    retain = measure_retain(material, material.retain, ALONE)
    assert retain is not None
    assert retain.kl == 0.0
    assert retain.nll > 1.0


def test_nothing_to_measure(make_material: Make) -> None:
    material = make_material()
    assert measure_retain(material, [], ALONE) is None
    assert measure_alignment(material, [], ALONE) == AlignmentMeasures(0.0, 0.0, 0.0)


def test_two_processes_measure_together_what_one_measures(
    make_exact: Make, moved: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every process sums its own share; here the sums are added by hand."""
    material = make_exact()
    moved(material, 0.05)
    pairs = material.pairs("pa_train")[:5]
    alone = measure_alignment(material, pairs, ALONE), measure_retain(material, material.retain, ALONE)
    seen: list[Tensor] = []

    def total(self: Processes, values: Tensor) -> Tensor:
        seen.append(values.clone())
        return values

    monkeypatch.setattr(Processes, "total", total)
    for rank in range(2):
        team: Any = Processes(rank, 2)
        measure_alignment(material, pairs, team)
        measure_retain(material, material.retain, team)
    first = (seen[0] + seen[2]) / len(pairs)
    second = (seen[1] + seen[3]) / len(material.retain)
    assert alone[1] is not None
    assert first.tolist() == pytest.approx([alone[0].alignment, alone[0].margin, alone[0].accuracy], rel=1e-12)
    assert second.tolist() == pytest.approx([alone[1].nll, alone[1].kl], rel=1e-12)
    assert not torch.equal(seen[0], seen[2])
