"""What-if predictions against gradient flow, by hand, against the formulae written out, and by invariances."""

import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from scipy.special import expit, log_expit

from u2a_core.errors import ScoringError
from u2a_core.influence import candidate_similarity, sketch_blocks
from u2a_core.influence.candidate_similarity import clusters, near_duplicates, similar
from u2a_core.influence.what_if import WhatIf
from u2a_core.store.sketches import SketchRows

Floats = NDArray[np.float64]
N, P, K = 9, 7, 6


def rows(values: NDArray[np.floating], scales: NDArray[np.floating] | None = None) -> SketchRows:
    table = pd.DataFrame({"id": [f"row-{place}" for place in range(len(values))]})
    return SketchRows(values, np.ones(len(values), np.float32) if scales is None else np.float32(scales), table)


def normal(*shape: int, seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def random_case(alignment: str = "dpo", horizon: float = 0.3) -> WhatIf:
    curvature = np.random.default_rng(3).uniform(-0.5, 1, N)
    return WhatIf(rows(normal(N, K, seed=1)), rows(normal(P, K, seed=2)), curvature, alignment, horizon)


WEIGHTS = np.array([1.0, 0.0, 2.5, 0.4, 0.0, 3.0, 1.2, 0.7, 0.1])


# Against what really happens


class Toy:
    """φ_i = f_i(a_i·θ), log π_i = a_i·θ: GA for even i (f(z) = z), NPO with β_i for odd (f(z) = −(2/β) log σ(−βz)).

    J_p = log σ(β m_p) or m_p, m_p = g_p·θ; θ0 = 0. So ∇φ_i(0) = a_i, c_i = 0 or β_i/2, and ∇J_p(0) = (β/2) g_p or g_p.
    """

    def __init__(self, alignment: str, beta: float) -> None:
        self.a, self.g = normal(5, 3, seed=4).astype(np.float64), normal(4, 3, seed=5).astype(np.float64)
        self.alignment, self.beta = alignment, beta
        self.npo = np.array([0.0, 0.8, 0.0, 1.5, 0.0])

    def what_if(self, horizon: float) -> WhatIf:
        pairs = self.g * (self.beta / 2 if self.alignment == "dpo" else 1)
        return WhatIf(rows(np.float32(self.a)), rows(np.float32(pairs)), self.npo / 2, self.alignment, horizon)

    def flow(self, shares: Floats, horizon: float, pull: Floats | float = 0.0) -> Floats:
        """θ after gradient flow on Σ p_i φ_i + pull·θ for the time τ."""

        def velocity(_: float, theta: Floats) -> Floats:
            return -(shares * np.where(self.npo > 0, 2 * expit(self.npo * (self.a @ theta)), 1.0)) @ self.a - pull

        return solve_ivp(velocity, (0, horizon), np.zeros(3), rtol=1e-11, atol=1e-13).y[:, -1]

    def change(self, theta: Floats, pairs: list[int]) -> float:
        """J(θ) − J(0) on some pairs."""
        margins = self.g[pairs] @ theta
        if self.alignment == "margin":
            return float(margins.mean())
        return float((log_expit(self.beta * margins) + np.log(2)).mean())


@pytest.mark.parametrize(("alignment", "beta"), [("dpo", 0.7), ("dpo", 2.0), ("margin", 1.0)])
def test_predictions_are_the_expansion_of_gradient_flow(alignment: str, beta: float) -> None:
    """Errors of O(τ²) and O(τ³): a quarter and an eighth when τ halves."""
    toy, shares, pairs = Toy(alignment, beta), np.array([0.3, 0.25, 0.0, 0.35, 0.1]), [0, 1, 3]
    errors = []
    for horizon in (0.1, 0.05):
        predicted = toy.what_if(horizon).predict(7 * shares, np.array(pairs))
        realised = toy.change(toy.flow(shares, horizon), pairs)
        errors.append([predicted.first_order - realised, predicted.second_order - realised])
    first, second = np.array(errors).T
    assert 1e-6 < abs(second[0]) < abs(first[0]) / 3
    assert first[0] / first[1] == pytest.approx(4, rel=0.15)
    assert second[0] / second[1] == pytest.approx(8, rel=0.15)


@pytest.mark.parametrize("alignment", ["dpo", "margin"])
def test_an_anchor_moves_the_whole_run(alignment: str) -> None:
    """R = r·θ with weight α: an error of O(τ³) with it, of O(τ) without; the plain sum does not know it."""
    toy, shares, pairs = Toy(alignment, 2.0), np.array([0.3, 0.25, 0.0, 0.35, 0.1]), [0, 1, 3]
    r, alpha = np.array([0.4, -1.0, 0.7]), 1.5
    errors = []
    for horizon in (0.1, 0.05):
        free = toy.what_if(horizon)
        anchored = free.anchored(r, alpha)
        realised = toy.change(toy.flow(shares, horizon, alpha * r), pairs)
        predicted = [one.predict(shares, np.array(pairs)) for one in (free, anchored)]
        errors.append([one.second_order - realised for one in predicted])
        assert predicted[0].first_order == predicted[1].first_order
    without, with_anchor = np.array(errors).T
    assert abs(with_anchor[0]) < abs(without[0]) / 10
    assert with_anchor[0] / with_anchor[1] == pytest.approx(8, rel=0.2)
    assert without[0] / without[1] == pytest.approx(2, rel=0.3)


def test_an_anchor_of_no_weight_changes_nothing_and_a_foreign_one_is_refused() -> None:
    what_if = random_case()
    same = what_if.anchored(np.ones(K), 0.0).predict(WEIGHTS)
    assert same.second_order == what_if.predict(WEIGHTS).second_order
    for wrong in (np.ones(K + 1), np.full(K, np.nan)):
        with pytest.raises(ScoringError, match="does not belong"):
            what_if.anchored(wrong, 1.0)


@pytest.mark.parametrize("alignment", ["dpo", "margin"])
def test_a_single_candidate_moves_alignment_as_its_delta_pa_says(alignment: str) -> None:
    """Weight 1 among n: p_i = 1/n, so that θ moves along one φ_i for the time τ/n."""
    toy, horizon = Toy(alignment, 2.0), 1e-3
    found = toy.what_if(horizon).delta_pa()
    for row in range(5):
        realised = toy.change(toy.flow(np.eye(5)[row] / 5, horizon), [0, 1, 2, 3])
        assert found[row] == pytest.approx(realised, rel=5e-3)
    assert found.min() < 0 < found.max()


# By hand


def test_by_hand() -> None:
    """s = (−2, 0), (1, 3); h = (1, 0), (0, 1); c = (½, 0); τ = 2; raw weights 3 and 1: p = (¾, ¼).

    h̄ = (½, ½), b = (−1, 2). ΔPA = −(2/2) b = (1, −2): unlearning the first helps, the second hurts.
    First order: −2 (¾ · −1 + ¼ · 2) = ½. u = (−5/4, ¾); x = −4 u = (5, −3).
    Bend: (τ²/2) p_1 c_1 b_1 ⟨s_1, u⟩ = 2 · ¾ · ½ · −1 · 5/2 = −15/8.
    """
    s, h = np.array([[-2.0, 0], [1, 3]], np.float32), np.eye(2, dtype=np.float32)
    what_if = WhatIf(rows(s), rows(h), [0.5, 0.0], "dpo", 2.0)
    assert what_if.delta_pa().tolist() == [1.0, -2.0]
    assert what_if.delta_pa(np.array([1])).tolist() == [0.0, -3.0]
    found = what_if.predict([3, 1])
    assert found.first_order == pytest.approx(0.5)
    curved = np.mean([-np.log1p(np.exp(-5)), -np.log1p(np.exp(3))]) + np.log(2)
    assert found.second_order == pytest.approx(curved - 15 / 8)
    assert WhatIf(rows(s), rows(h), [0.5, 0.0], "margin", 2.0).predict([3, 1]).second_order == pytest.approx(
        0.5 - 15 / 8
    )


# Against the formulae, written out


@pytest.mark.parametrize("alignment", ["dpo", "margin"])
@pytest.mark.parametrize("pairs", [None, [0, 2, 3], [4], [5, 5, 1]])
def test_predictions_are_the_formulae(alignment: str, pairs: list[int] | None) -> None:
    what_if, s, h = random_case(alignment), normal(N, K, seed=1), normal(P, K, seed=2)
    held = h if pairs is None else h[pairs]
    found = what_if.predict(WEIGHTS, None if pairs is None else np.array(pairs))
    shares, horizon = WEIGHTS / WEIGHTS.sum(), what_if.horizon
    u = shares @ s
    theta = -horizon * u
    for share, bend, sketch in zip(shares, what_if.curvature, s, strict=True):
        theta = theta + horizon**2 / 2 * share * bend * sketch * (sketch @ u)
    first, second = held @ (-horizon * u), held @ (theta + horizon * u)
    assert found.first_order == pytest.approx(first.mean(), rel=1e-5)
    curved = log_expit(2 * first) + np.log(2) if alignment == "dpo" else first
    assert found.second_order == pytest.approx((curved + second).mean(), rel=1e-5)


def test_the_uniform_set_is_the_sum_of_the_singles() -> None:
    what_if = random_case()
    assert what_if.predict(np.full(N, 2.0)).first_order == pytest.approx(what_if.delta_pa().sum(), rel=1e-5)


# One weight at a time


@pytest.mark.parametrize("alignment", ["dpo", "margin"])
@pytest.mark.parametrize("pairs", [None, [6, 0, 2]])
def test_moving_weights_one_by_one_is_starting_anew(alignment: str, pairs: list[int] | None) -> None:
    what_if, draw = random_case(alignment), np.random.default_rng(7)
    chosen = None if pairs is None else np.array(pairs)
    moving, weights = what_if.predict(WEIGHTS, chosen), WEIGHTS.copy()
    for _ in range(60):
        row, value = int(draw.integers(N)), float(draw.choice([0.0, 1.0, draw.uniform(0, 4)]))
        moving.set_weight(row, value)
        weights[row] = value
        anew = what_if.predict(weights, chosen)
        assert moving.weights.tolist() == weights.tolist()
        assert moving.first_order == pytest.approx(anew.first_order, rel=1e-10, abs=1e-12)
        assert moving.second_order == pytest.approx(anew.second_order, rel=1e-10, abs=1e-12)


def test_what_is_left_of_a_large_set_is_exact() -> None:
    sketches = rows(normal(500, 4, seed=1) + 1)
    what_if = WhatIf(sketches, rows(normal(3, 4, seed=2)), np.ones(500), "dpo", 1.0)
    moving = what_if.predict(np.full(500, 4.0))
    for row in range(499):
        moving.set_weight(row, 0)
    alone = what_if.predict(np.eye(500)[499])
    assert moving.first_order == pytest.approx(alone.first_order, rel=1e-10)
    assert moving.second_order == pytest.approx(alone.second_order, rel=1e-10)


def test_a_move_reads_one_row_alone() -> None:
    what_if = random_case()
    moving, anew = what_if.predict(WEIGHTS), what_if.predict([*WEIGHTS[:4], 2.0, *WEIGHTS[5:]]).second_order
    others = np.arange(N) != 4
    what_if.candidates.values[others] = np.nan
    what_if.cross[others] = np.nan
    moving.set_weight(4, 2.0)
    assert moving.second_order == pytest.approx(anew, rel=1e-10)


def test_states_do_not_share_weights() -> None:
    what_if, given = random_case(), WEIGHTS.copy()
    one, other = what_if.predict(given), what_if.predict(given)
    before = other.second_order
    one.set_weight(0, 9.0)
    one.weights[1] = 9.0
    assert one.weights[:2].tolist() == [9.0, 0.0]
    assert given.tolist() == WEIGHTS.tolist()
    assert other.second_order == before != one.second_order


# Invariances


@pytest.mark.parametrize("alignment", ["dpo", "margin"])
def test_order_scale_and_zeros_change_nothing(alignment: str) -> None:
    what_if = random_case(alignment)
    expected = what_if.predict(WEIGHTS)
    candidates, pairs = normal(N, K, seed=1), normal(P, K, seed=2)

    def same(places: NDArray[np.intp], pair_places: NDArray[np.intp], factor: float) -> None:
        other = WhatIf(
            rows(candidates[places]), rows(pairs[pair_places]), what_if.curvature[places], alignment, what_if.horizon
        )
        found = other.predict(factor * WEIGHTS[places])
        assert found.first_order == pytest.approx(expected.first_order, rel=1e-5)
        assert found.second_order == pytest.approx(expected.second_order, rel=1e-5)

    draw = np.random.default_rng(0)
    same(draw.permutation(N), draw.permutation(P), 1.0)
    same(np.arange(N), np.arange(P), 1e-6)
    same(np.flatnonzero(WEIGHTS), np.arange(P), 17.0)


@pytest.mark.parametrize("alignment", ["dpo", "margin"])
def test_slices_add_up(alignment: str) -> None:
    what_if = random_case(alignment)
    parts = [np.array([0, 3]), np.array([1, 2, 4, 5, 6])]
    whole, singles = what_if.predict(WEIGHTS), what_if.delta_pa()
    found = [what_if.predict(WEIGHTS, part) for part in parts]
    assert found[0].first_order != pytest.approx(found[1].first_order, rel=0.1)
    for name in ("first_order", "second_order"):
        mean = sum(len(part) * getattr(one, name) for part, one in zip(parts, found, strict=True)) / P
        assert mean == pytest.approx(getattr(whole, name), rel=1e-5)
    mean = sum(len(part) * what_if.delta_pa(part) for part in parts) / P
    np.testing.assert_allclose(mean, singles, rtol=0, atol=1e-6)


def test_a_mask_is_its_places_and_a_pair_named_twice_counts_twice() -> None:
    what_if, mask = random_case(), np.isin(np.arange(P), [1, 4])
    assert what_if.delta_pa(mask).tolist() == what_if.delta_pa(np.array([4, 1])).tolist()
    assert what_if.predict(WEIGHTS, mask).second_order == pytest.approx(
        what_if.predict(WEIGHTS, np.array([1, 4])).second_order
    )
    twice = what_if.delta_pa(np.array([1, 1, 4]))
    expected = (2 * what_if.delta_pa(np.array([1])) + what_if.delta_pa(np.array([4]))) / 3
    np.testing.assert_allclose(twice, expected, rtol=0, atol=1e-6)


# Sketches on disk


def stored(folder: Path, values: NDArray[np.float32], name: str) -> SketchRows:
    """float16 over each row's largest magnitude, as `u2a sketch` writes it, on disk."""
    scales = np.abs(values).max(1)
    held = np.memmap(folder / name, np.float16, "w+", shape=values.shape)
    held[:] = values / scales[:, None]
    return rows(held, scales)


def test_float16_on_disk_is_float32_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounded to 11 bits, whatever the unit of the gradients: rows of 1e-7 and of 1e5 in one file."""
    s = normal(40, 64, seed=1) * 10.0 ** np.linspace(-7, 5, 40)[:, None]
    h, weights = normal(12, 64, seed=2) * 1e-3, 10.0 ** np.linspace(7, -5, 40)
    fine = WhatIf(rows(np.float32(s)), rows(h), np.zeros(40), "dpo", 0.1)
    monkeypatch.setattr(sketch_blocks, "BLOCK", 64 * 7)
    coarse = WhatIf(
        stored(tmp_path, np.float32(s), "candidates"), stored(tmp_path, h, "pairs"), np.zeros(40), "dpo", 0.1
    )
    typical = np.linalg.norm(s, axis=1) * np.linalg.norm(h, axis=1).mean() * 0.1 / 40
    assert np.abs((coarse.delta_pa() - fine.delta_pa()) / typical).max() < 1e-3
    found, expected = coarse.predict(weights), fine.predict(weights)
    assert found.first_order == pytest.approx(expected.first_order, rel=2e-2)
    assert found.second_order == pytest.approx(expected.second_order, rel=2e-2)
    assert found.first_order != expected.first_order


def test_blocks_of_any_size_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = random_case()
    expected = whole.predict(WEIGHTS)
    for block in (1, 2 * K, 4 * K + 1):
        monkeypatch.setattr(sketch_blocks, "BLOCK", block)
        found = random_case()
        np.testing.assert_allclose(found.cross, whole.cross, rtol=0, atol=1e-5)
        assert found.predict(WEIGHTS).second_order == pytest.approx(expected.second_order, rel=1e-5)


def test_memory_stays_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening and predicting hold the cross matrix, the pairs and a few blocks, not the candidates."""
    count, pairs, k = 3000, 20, 1024
    sketches, held = stored(tmp_path, normal(count, k, seed=1), "candidates"), rows(normal(pairs, k, seed=2))
    monkeypatch.setattr(sketch_blocks, "BLOCK", 50 * k)
    tracemalloc.start()
    what_if = WhatIf(sketches, held, np.zeros(count), "dpo", 1.0)
    what_if.predict(np.ones(count))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert what_if.cross.nbytes < peak < what_if.cross.nbytes + 4 * k * (pairs + 8 * 50) < 4 * k * count / 4


# What cannot be


def test_nothing_unlearned_is_an_error_until_something_is() -> None:
    found = random_case().predict(np.zeros(N))
    for name in ("first_order", "second_order"):
        with pytest.raises(ScoringError, match=r"No candidate has a weight above 0.*Give at least one"):
            getattr(found, name)
    found.set_weight(2, 1.0)
    assert found.first_order == pytest.approx(N * random_case().delta_pa()[2], rel=1e-5)
    found.set_weight(2, 0.0)
    with pytest.raises(ScoringError, match="nothing is unlearned"):
        _ = found.first_order


@pytest.mark.parametrize("pairs", [np.array([]), np.zeros(P, bool), np.array([], int)])
def test_a_slice_without_pairs_is_an_error(pairs: NDArray[np.generic]) -> None:
    for ask in (random_case().delta_pa, lambda chosen: random_case().predict(WEIGHTS, chosen)):
        with pytest.raises(ScoringError, match=r"holds no pair\. Choose"):
            ask(pairs)


@pytest.mark.parametrize("pairs", [np.array([0, P]), np.array([-1]), np.ones(P - 1, bool)])
def test_a_slice_of_other_pairs_is_an_error(pairs: NDArray[np.generic]) -> None:
    with pytest.raises(ScoringError, match="not one of these 7 pairs"):
        random_case().delta_pa(pairs)


@pytest.mark.parametrize(("row", "value"), [(N, 1.0), (-1, 1.0), (0, -0.1), (0, np.nan), (0, np.inf)])
def test_a_weight_that_cannot_be_is_an_error_and_changes_nothing(row: int, value: float) -> None:
    found = random_case().predict(WEIGHTS)
    before = found.second_order
    with pytest.raises(ScoringError, match=f"for row {row} cannot be"):
        found.set_weight(row, value)
    assert found.second_order == before


def test_weights_that_cannot_be_are_errors() -> None:
    with pytest.raises(ScoringError, match=r"\(3,\) weights for 9 candidates"):
        random_case().predict(np.ones(3))
    for value in (-1.0, np.nan, np.inf):
        with pytest.raises(ScoringError, match="for row 4 cannot be"):
            random_case().predict([*WEIGHTS[:4], value, *WEIGHTS[5:]])


def test_arrays_that_do_not_belong_together_are_errors() -> None:
    s, h, c = normal(N, K, seed=1), normal(P, K, seed=2), np.zeros(N)
    for candidates, pairs, curvature in ((s[:, :4], h, c), (s, h, c[1:]), (s, h, c + np.nan)):
        with pytest.raises(ScoringError, match=r"do not belong together.*one folder"):
            WhatIf(rows(candidates), rows(pairs), curvature, "dpo", 1.0)
    with pytest.raises(ScoringError, match="0 candidates and 7 pairs"):
        WhatIf(rows(s[:0]), rows(h), [], "dpo", 1.0)
    with pytest.raises(ScoringError, match="9 candidates and 0 pairs"):
        WhatIf(rows(s), rows(h[:0]), c, "dpo", 1.0)
    with pytest.raises(ScoringError, match="'reward'; sketch with dpo or margin"):
        WhatIf(rows(s), rows(h), c, "reward", 1.0)
    for horizon in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ScoringError, match="must be greater than 0"):
            WhatIf(rows(s), rows(h), c, "dpo", horizon)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_sketch_that_is_not_finite_is_named(bad: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sketch_blocks, "BLOCK", 2 * K)
    for which in (0, 1):
        arrays = [normal(N, K, seed=1), normal(P, K, seed=2)]
        arrays[which][5, 2] = bad
        with pytest.raises(ScoringError, match=r"sketch of row-5 \(row 5\) is not finite.*--restart"):
            WhatIf(rows(arrays[0]), rows(arrays[1]), np.zeros(N), "dpo", 1.0)


def test_products_that_overflow_are_an_error() -> None:
    huge = np.full((2, 2), 1e30, np.float32)
    with pytest.raises(ScoringError, match="overflow"):
        WhatIf(rows(huge), rows(huge), np.zeros(2), "dpo", 1.0)


def test_the_web_process_can_ask_what_if() -> None:
    code = """
import sys
sys.modules.update(dict.fromkeys(("torch", "transformers", "streamlit", "plotly")))
import u2a_core.influence.what_if, u2a_core.influence.optimal_weights, u2a_core.influence.candidate_similarity
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


# Similarity

# cosines with row 0: 1, 1 (twice as long), −1, 0.6, 0 (no length), 0.8, 1
PLANE = np.array([[1, 0], [2, 0], [-3, 0], [3, 4], [0, 0], [4, -3], [0.5, 0]], np.float32)


def test_similar_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    for block in (sketch_blocks.BLOCK, 2):
        monkeypatch.setattr(sketch_blocks, "BLOCK", block)
        found, cosines = similar(rows(PLANE), 0, 5)
        assert found.tolist() == [1, 6, 5, 3, 4]
        assert cosines.tolist() == pytest.approx([1, 1, 0.8, 0.6, 0])
        assert len(similar(rows(PLANE), 2, 99)[0]) == 6
    assert similar(rows(PLANE), 4, 2)[1].tolist() == [0, 0]
    assert similar(rows(PLANE), 3, 1)[0].tolist() == [0]


def test_similarity_knows_no_scales() -> None:
    values = normal(30, 8, seed=1)
    scaled = rows(values, 10.0 ** np.random.default_rng(0).uniform(-6, 6, 30))
    assert similar(scaled, 3, 29)[0].tolist() == similar(rows(values), 3, 29)[0].tolist()


@pytest.mark.parametrize(("row", "count"), [(7, 1), (-1, 1), (0, 0)])
def test_similar_to_what_is_not_there(row: int, count: int) -> None:
    with pytest.raises(ScoringError, match="ask for at least 1"):
        similar(rows(PLANE), row, count)


def test_near_duplicates_are_the_connected_components(monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand at 0.75 (a chain: 3 and 5 are at right angles to one another), then against a closure by brute force."""
    assert [group.tolist() for group in near_duplicates(rows(PLANE), 1.0)] == [[0, 1, 6]]
    assert [group.tolist() for group in near_duplicates(rows(PLANE), 0.75)] == [[0, 1, 5, 6]]
    assert [group.tolist() for group in near_duplicates(rows(PLANE), 0.55)] == [[0, 1, 3, 5, 6]]
    values = normal(120, 3, seed=6)
    unit = values / np.linalg.norm(values, axis=1, keepdims=True)
    reached = (unit @ unit.T >= 0.97).astype(int)
    for _ in range(7):
        reached = (reached @ reached > 0).astype(int)
    expected = {tuple(np.flatnonzero(one)) for one in reached if one.sum() > 1}
    assert len(expected) > 5
    for block in (sketch_blocks.BLOCK, 3 * 11, 3 * 50):
        monkeypatch.setattr(sketch_blocks, "BLOCK", block)
        found = near_duplicates(rows(values), 0.97)
        assert {tuple(group) for group in found} == expected
        assert [len(group) for group in found] == sorted((len(group) for group in found), reverse=True)


def test_nothing_alike() -> None:
    assert near_duplicates(rows(np.eye(4, dtype=np.float32)), 0.5) == []
    for threshold in (0.0, 1.1, np.nan):
        with pytest.raises(ScoringError, match="above 0 and at most 1"):
            near_duplicates(rows(PLANE), threshold)


def bunches(sizes: list[int], seed: int) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Directions bunched around orthogonal axes, of all lengths, shuffled; and the axis of each."""
    draw = np.random.default_rng(seed)
    axes = draw.permutation(np.repeat(np.arange(len(sizes)), sizes))
    values = np.eye(6)[axes] + draw.normal(0, 0.05, (len(axes), 6))
    return np.float32(values * draw.uniform(0.1, 10, (len(axes), 1))), axes


def test_clusters_are_bunches_of_directions_largest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    values, axes = bunches([8, 30, 17], seed=0)
    number = np.array([2, 0, 1])[axes]
    assert clusters(rows(values), 3, seed=0).tolist() == number.tolist()
    monkeypatch.setattr(candidate_similarity, "CLUSTERED", 25)
    monkeypatch.setattr(sketch_blocks, "BLOCK", 6 * 7)
    assert clusters(rows(values), 3, seed=0).tolist() == number.tolist()
    bunched = np.argsort(number)  # the first 30 are of one bunch
    assert clusters(rows(values[bunched]), 3, seed=0).tolist() == number[bunched].tolist()


def test_the_seed_settles_the_clusters() -> None:
    sketches = rows(normal(80, 5, seed=9))
    assert clusters(sketches, 6, seed=1).tolist() == clusters(sketches, 6, seed=1).tolist()
    assert clusters(sketches, 6, seed=1).tolist() != clusters(sketches, 6, seed=2).tolist()


@pytest.mark.filterwarnings("error")
def test_no_more_clusters_than_directions() -> None:
    values = np.repeat(np.eye(3, dtype=np.float32), [4, 3, 2], axis=0)
    assert clusters(rows(values), 7, seed=0).tolist() == [0, 0, 0, 0, 1, 1, 1, 2, 2]
    for count in (0, 10):
        with pytest.raises(ScoringError, match="ask for 1 to 9"):
            clusters(rows(values), count, seed=0)
