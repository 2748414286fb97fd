"""Tokens as coloured text: merging by hand, sums kept, colours and second channel, escaping."""

import html
import re

import numpy as np
import pytest

from u2a_core.figures.palette import ink
from u2a_core.figures.token_text import Colouring, around_mean, around_zero, pieces, token_html

COLOURS = ink("paper", "light")
TOKENS = ["It", " is", " un", "true", ".", " Never", " mind", "!", "\n", "Bye", "<|end|>"]
VALUES = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0]
SCALE = Colouring(-2.0, 0.0, 4.0, -1.0, "nats", "hurts", "helps", "underlined: below −1")


def texts(granularity, tokens=TOKENS, breaks=(10,)):
    return [one.text for one in pieces(tokens, [0.0] * len(tokens), granularity, "sum", breaks)]


def spans(page: str) -> list[tuple[str, str, str]]:
    """(style, title, text) of every piece of the block."""
    block = page.split('role="group"')[1]
    return [
        (style, html.unescape(title), html.unescape(re.sub("<[^>]*>", "", text)))
        for style, title, text in re.findall(
            r'<span style="([^"]*)" title="([^"]*)">((?:[^<]|<span[^>]*>[^<]*</span>)*)</span>', block
        )
    ]


def test_words_and_sentences_by_hand() -> None:
    assert texts("token") == TOKENS
    assert texts("word") == ["It", " is", " untrue.", " Never", " mind!", "\nBye", "<|end|>"]
    assert texts("sentence") == ["It is untrue.", " Never mind!", "\nBye", "<|end|>"]


def test_no_piece_is_made_of_white_space_alone_and_none_is_torn() -> None:
    assert texts("word", ["a", " ", "b", "", "c", " ", " ", "d"], ()) == ["a", " bc", "  d"]
    assert texts("sentence", ["a", ".", " ", "b", "3", ".", "5", "?”", " c"], ()) == ["a.", " b3.5?”", " c"]
    assert texts("sentence", ["你好", "。", "再见", "！"], ()) == ["你好。", "再见！"]
    assert texts("word", ["a", "b", "c"], (1,)) == ["a", "bc"]


@pytest.mark.parametrize("granularity", ["token", "word", "sentence"])
def test_parts_are_summed_and_rewards_averaged(granularity) -> None:
    summed = pieces(TOKENS, VALUES, granularity, "sum", {10})
    averaged = pieces(TOKENS, VALUES, granularity, "mean", {10})
    assert sum(one.value for one in summed) == sum(VALUES)
    covered = [number for one in summed for number in range(one.first, one.last + 1)]
    assert covered == list(range(len(TOKENS)))
    for whole, mean in zip(summed, averaged, strict=True):
        assert mean.value == pytest.approx(np.mean(VALUES[whole.first : whole.last + 1]))
        assert whole.value == sum(VALUES[whole.first : whole.last + 1])


def test_colour_strength_underline_and_exact_value() -> None:
    values = [4.0, 2.0, 0.0, -0.5, -2.0, 9.0, float("nan")]
    found = spans(token_html(pieces(list("abcdefg"), values, "token", "sum"), SCALE, COLOURS, "x"))
    blue, red = "rgba(29,95,180,", "rgba(200,49,43,"
    assert [style.split(";")[0] for style, *_ in found] == [
        f"background:{blue}0.62)", f"background:{blue}0.31)", "", f"background:{red}0.155)", f"background:{red}0.62)",
        f"background:{blue}0.62)", "",
    ]  # fmt: skip
    assert ["underline" in style for style, *_ in found] == [False, False, False, False, True, False, False]
    assert [title for _, title, _ in found][:4] == [
        "token 0: +4 nats", "token 1: +2 nats", "token 2: +0 nats", "token 3: −0.5 nats",
    ]  # fmt: skip
    exact = spans(token_html(pieces(["a", "b"], [1.2345678e-6, 1e-9], "sentence", "sum"), SCALE, COLOURS, "x"))
    assert exact[0][1] == "tokens 0 to 1: +1.235568e−06 nats"


def test_the_key_tells_ends_centre_unit_and_underline() -> None:
    key = html.unescape(re.sub("<[^>]*>", "|", token_html([], SCALE, COLOURS, "x")))
    for words in ("−2 hurts", "4 helps, nats", "underlined: below −1"):
        assert words in key
    rewards = np.array([-3.0, 1.0, 5.0])
    scale = around_mean(rewards, -1.5, "units")
    assert (scale.lowest, scale.centre, scale.highest, scale.mark) == (-3, 1, 5, -1.5)
    assert "(1 mean of all tokens)" in token_html([], scale, COLOURS, "x")
    assert "below τ = −1.5" in token_html([], scale, COLOURS, "x")


def test_parts_have_a_scale_about_zero_even_where_all_are_zero() -> None:
    scale = around_zero([1.0, -4.0], "nats", "low", "high")
    assert (scale.lowest, scale.centre, scale.highest, scale.mark) == (-4, 0, 4, -0.2)
    nothing = pieces(["a", "b"], [0.0, 0.0], "token", "sum")
    assert "rgba" not in token_html(nothing, around_zero([0.0, 0.0], "n", "l", "h"), COLOURS, "x").split("role=")[1]
    same = around_mean(np.array([2.0, 2.0]), 1.0, "units")
    assert spans(token_html(pieces(["a"], [2.0], "token", "mean"), same, COLOURS, "x"))[0][0] == ""


def test_only_the_chosen_token_is_framed() -> None:
    shown = pieces(TOKENS, VALUES, "word", "sum", {10})
    framed = [text for style, _, text in spans(token_html(shown, SCALE, COLOURS, "x", 3)) if "outline" in style]
    assert framed == [" untrue."]
    assert "outline:2px" not in token_html(shown, SCALE, COLOURS, "x")


def test_hostile_text_stays_text() -> None:
    hostile = ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "$x$ **b** ![i](u)", "&lt;b&gt;", "'"]
    page = token_html(pieces(hostile, [1.0] * 5, "token", "sum"), SCALE, COLOURS, '"><b>')
    assert [text for *_, text in spans(page)] == hostile
    assert set(re.findall(r"<(/?\w+)", page)) == {"div", "/div", "span", "/span"}


def test_line_breaks_and_empty_tokens_are_seen() -> None:
    found = spans(token_html(pieces(["a\n", "", " b"], [0.0] * 3, "token", "sum"), SCALE, COLOURS, "x"))
    assert [text for *_, text in found] == ["a↵\n", "·", " b"]


def test_a_very_long_response_is_cut_and_counted() -> None:
    page = token_html(pieces(["a "] * 4500, [1.0] * 4500, "token", "sum"), SCALE, COLOURS, "x")
    assert len(spans(page)) == 4000
    assert "500 more; the table holds them all" in page
