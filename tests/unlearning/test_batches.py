"""Which examples a step takes: each as often as its weight says, whatever the others are called or ordered."""

from collections import Counter

import pytest

from u2a_core.unlearning.batches import step_examples

IDS = [f"id-{number}" for number in range(12)]
EVEN = dict.fromkeys(IDS, 1.0)
RAW = [0.0, 0.25, 0.5, 0.5, 0.75, 1.0, 1.0, 1.25, 1.25, 1.5, 2.0, 2.0]
UNEVEN = {one: weight for one, weight in zip(IDS, RAW, strict=True) if weight > 0}
MEAN_ONE = {one: weight * len(UNEVEN) / 12.0 for one, weight in UNEVEN.items()}


def draws(weights: dict[str, float], steps: range, size: int, seed: str = "seed") -> Counter[str]:
    found: Counter[str] = Counter()
    for step in steps:
        taken = step_examples(weights, step, size, seed)
        assert sum(taken.values()) == size
        for one, count in taken.items():
            found[one] += int(count)
    return found


@pytest.mark.parametrize("size", [1, 3, 4, 6])
def test_equal_weights_take_every_example_once_an_epoch(size: int) -> None:
    for epoch in range(3):
        per_epoch = 12 // size
        found = draws(EVEN, range(epoch * per_epoch, (epoch + 1) * per_epoch), size)
        assert found == dict.fromkeys(IDS, 1)


def test_an_example_comes_as_often_as_its_weight_says() -> None:
    """Within one of it in an epoch, and at it on the average of many."""
    count = len(MEAN_ONE)
    total: Counter[str] = Counter()
    for epoch in range(400):
        found = draws(MEAN_ONE, range(epoch * count, (epoch + 1) * count), 1)
        for one, weight in MEAN_ONE.items():
            assert abs(found[one] - weight) < 1
        total += found
    for one, weight in MEAN_ONE.items():
        assert total[one] / 400 == pytest.approx(weight, abs=0.1)


def test_a_step_depends_on_seed_and_number_alone() -> None:
    assert step_examples(MEAN_ONE, 5, 4, "seed") == step_examples(MEAN_ONE, 5, 4, "seed")
    assert any(step_examples(MEAN_ONE, at, 4, "seed") != step_examples(MEAN_ONE, at, 4, "other") for at in range(3))
    assert step_examples(MEAN_ONE, 0, 4, "seed") != step_examples(MEAN_ONE, 1, 4, "seed")
    epochs = [[step_examples(EVEN, 3 * epoch + at, 4, "seed") for at in range(3)] for epoch in range(2)]
    assert epochs[0] != epochs[1]


def test_the_order_of_the_set_changes_nothing() -> None:
    turned = dict(reversed(MEAN_ONE.items()))
    assert [step_examples(turned, at, 4, "s") for at in range(9)] == [
        step_examples(MEAN_ONE, at, 4, "s") for at in range(9)
    ]


def test_leaving_one_out_moves_the_others_little() -> None:
    """The order goes by each example's own hash: without one of equal weight the others keep their order."""

    def epoch(weights: dict[str, float]) -> list[str]:
        return [next(iter(step_examples(weights, at, 1, "seed"))) for at in range(len(weights))]

    without = {one: weight for one, weight in EVEN.items() if one != "id-4"}
    assert epoch(without) == [one for one in epoch(EVEN) if one != "id-4"]


@pytest.mark.parametrize("size", [12, 13, 500])
def test_a_step_that_holds_all_examples_takes_their_weights(size: int) -> None:
    assert step_examples(MEAN_ONE, 7, size, "seed") == MEAN_ONE


def test_even_a_small_weight_in_a_small_set_is_drawn_by_its_weight() -> None:
    """From a start that were always the same, an example of weight 0.3 beside one of 1.7 would never be drawn."""
    total = draws({"light": 0.3, "heavy": 1.7}, range(2000), 1)
    assert total["light"] / 1000 == pytest.approx(0.3, abs=0.05)
