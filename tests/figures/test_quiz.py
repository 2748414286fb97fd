"""Questions of the quiz: one sample clearly the worst, the same for a seed in any order of rows; and their figure."""

import numpy as np
import pandas as pd
import pytest
from synthetic_scores import synthetic_scores

from u2a_core.errors import ScoringError
from u2a_core.figures.palette import ink
from u2a_core.figures.quiz import FACTOR, SHARE, draw_question, quiz_figure


def table(*deltas: float) -> pd.DataFrame:
    return pd.DataFrame({"id": [f"s{place}" for place in range(len(deltas))], "delta_pa": deltas})


@pytest.mark.parametrize("seed", range(25))
def test_one_of_four_hurts_at_least_twice_as_much_as_any_other(seed: int) -> None:
    scores = synthetic_scores(300).table
    question = draw_question(scores, seed)
    deltas = scores["delta_pa"].to_numpy()[list(question.rows)]
    worst = deltas[question.letters.index(question.worst)]
    others = np.delete(deltas, question.letters.index(question.worst))
    assert question.letters == "ABCD"
    assert len(set(question.rows)) == 4
    assert worst < 0
    assert (others >= worst / FACTOR).all()
    assert (scores["delta_pa"] < worst).sum() < SHARE * len(scores)


def test_a_seed_gives_the_same_samples_in_any_order_of_rows() -> None:
    scores = synthetic_scores(200).table
    shuffled = scores.sample(frac=1, random_state=7)
    for seed in range(10):
        ids, others = (
            [part["id"].iloc[place] for place in draw_question(part, seed).rows] for part in (scores, shuffled)
        )
        assert ids == others


def test_seeds_differ_and_the_worst_has_no_fixed_place() -> None:
    scores = synthetic_scores(300).table
    questions = [draw_question(scores, seed) for seed in range(60)]
    assert len({question.rows for question in questions}) > 50
    assert {question.worst for question in questions} == set("ABCD")


def test_the_others_are_spread_over_the_whole_range() -> None:
    scores = table(-10.0, *np.linspace(-1, 1, 27))
    for seed in range(10):
        question = draw_question(scores, seed)
        others = sorted(set(question.rows) - {0})
        assert others[0] <= 9 < others[1] <= 18 < others[2]


def test_fewer_samples_give_a_smaller_question() -> None:
    question = draw_question(table(0.3, -1.0), 0)
    assert sorted(question.rows) == [0, 1]
    assert question.letters == "AB"
    assert question.rows[question.letters.index(question.worst)] == 1
    assert len(draw_question(table(0.3, -1.0, 0.1), 0).rows) == 3


@pytest.mark.parametrize(
    ("deltas", "said"),
    [((), "None of the 0 samples hurts"), ((0.1, 0.0), "None of the 2 samples hurts"), ((-1.0, -0.9), "far enough")],
)
def test_it_says_why_there_is_no_question(deltas: tuple[float, ...], said: str) -> None:
    with pytest.raises(ScoringError, match=said):
        draw_question(table(*deltas), 0)


def test_the_figure_shows_every_sample_with_sign_word_and_colour() -> None:
    figure = quiz_figure([0.002, -0.004, 0.0], "B", "okabe-ito", "dark")
    colours = ink("okabe-ito", "dark")
    (bar,) = figure.data
    assert list(zip(bar.y, bar.x, strict=True)) == [("A", 0.002), ("B", -0.004), ("C", 0.0)]
    assert list(bar.marker.color) == [colours.helps, colours.hurts, colours.neutral]
    labels = figure.layout.yaxis.ticktext
    assert ["helps" in labels[0], "hurts most" in labels[1], "no effect" in labels[2]] == [True] * 3
    assert ["+0.00200" in labels[0], "−0.00400" in labels[1]] == [True] * 2
    assert "nats per pair" in figure.layout.xaxis.title.text
    assert bar.marker.pattern.shape[1] != bar.marker.pattern.shape[0]
    assert figure.to_json() == quiz_figure([0.002, -0.004, 0.0], "B", "okabe-ito", "dark").to_json()
