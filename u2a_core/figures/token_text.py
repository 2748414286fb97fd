"""Tokens as coloured text: an escaped block of HTML, blue above a centre and red below it, with a written key.

Colour is never alone: what lies below a mark is underlined, and every value stands in its token's tooltip. Tokens are
text as it stands in the whole, leading spaces included; the caller has made what cannot be seen in them visible.
"""

import html
import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from u2a_core.figures.palette import Ink

Granularity = Literal["token", "word", "sentence"]
Merging = Literal["sum", "mean"]
STRONGEST = 0.62  # opacity of a ground at the end of the scale: text on it stays readable, light and dark
MOST_PIECES = 4000  # drawn; the rest is counted
_LINE_END = re.compile(r"(\n\s*|[。！？][”』」）]*\s*|[.!?…]+[\"'”’)\]]*\s+)$")
_SENTENCE_END = re.compile(r"[.!?…][\"'”’)\]]*$")


@dataclass(frozen=True)
class Piece:
    """Tokens `first` to `last` (both included, from 0) as one text with one value."""

    text: str
    value: float
    first: int
    last: int


@dataclass(frozen=True)
class Colouring:
    """How values become colours: none at `centre`, full at `lowest` and `highest`; underlined below `mark`.

    `low`, `high` and `marked` say in words what that means, `at_centre` what the centre is.
    """

    lowest: float
    centre: float
    highest: float
    mark: float
    unit: str
    low: str
    high: str
    marked: str
    at_centre: str = ""


def pieces(
    tokens: Sequence[str],
    values: Sequence[float],
    granularity: Granularity,
    merging: Merging,
    breaks: Collection[int] = (),
) -> list[Piece]:
    """Tokens with their values, merged to words (up to white space) or sentences; a piece begins at each of `breaks`.

    A piece's value is the `sum` of its tokens' (parts that add up to a whole) or their `mean` (rewards).
    """
    starts = _starts(tokens, granularity, breaks)
    ends = [*starts[1:], len(tokens)]
    reduce = math.fsum if merging == "sum" else (lambda part: math.fsum(part) / len(part))
    return [
        Piece("".join(tokens[start:end]), float(reduce([float(one) for one in values[start:end]])), start, end - 1)
        for start, end in zip(starts, ends, strict=True)
    ]


def around_zero(values: Sequence[float], unit: str, low: str, high: str) -> Colouring:
    """For parts that add up: no colour at 0, full at the largest; underlined what lies clearly below 0."""
    reach = float(np.abs(np.asarray(values, dtype=np.float64)).max(initial=0.0)) or 1.0
    return Colouring(
        -reach, 0.0, reach, -reach / 20, unit, low, high, f"underlined: {low}, by more than 1/20 of the largest"
    )


def around_mean(rewards: NDArray[np.float64], threshold: float, unit: str) -> Colouring:
    """For token rewards: no colour at the mean of all `rewards`, full at their ends; underlined below `threshold`."""
    lowest, centre, highest = float(rewards.min()), float(rewards.mean()), float(rewards.max())
    marked = f"underlined: low, below τ = {_short(threshold)}"
    return Colouring(lowest, centre, highest, threshold, unit, "lowest", "highest", marked, "mean of all tokens")


def token_html(
    shown: Sequence[Piece], colouring: Colouring, colours: Ink, label: str, outlined: int | None = None
) -> str:
    """The pieces as one block of escaped HTML with its key above it; the piece with the token `outlined` is framed.

    `label` names the block for assistive technologies.
    """
    drawn = shown[:MOST_PIECES]
    spans = "".join(_span(piece, colouring, colours, outlined) for piece in drawn)
    if len(shown) > len(drawn):
        more = f" … {len(shown) - len(drawn):,} more; the table holds them all"
        spans += f'<span style="color:{colours.muted}">{more}</span>'
    block = (
        "white-space:pre-wrap;overflow-wrap:anywhere;line-height:1.85;max-height:26rem;overflow-y:auto;"
        f"padding:.6rem .75rem;border:1px solid {colours.grid};border-radius:.5rem"
    )
    name = html.escape(label)
    return f'{_key(colouring, colours)}<div role="group" aria-label="{name}" dir="auto" style="{block}">{spans}</div>'


def _starts(tokens: Sequence[str], granularity: Granularity, breaks: Collection[int]) -> list[int]:
    """Where pieces begin, rising; the first at 0."""
    if granularity == "token":
        return list(range(len(tokens)))
    begins = _word_begins if granularity == "word" else _sentence_begins
    starts: list[int] = []
    text = ""  # of the piece so far
    for number, token in enumerate(tokens):
        if number == 0 or number in breaks or (text.strip() and token and begins(text, token)):
            starts.append(number)
            text = ""
        text += token
    return starts


def _word_begins(before: str, token: str) -> bool:
    return token[0].isspace() or before[-1].isspace()


def _sentence_begins(before: str, token: str) -> bool:
    tail = before[-40:]
    return bool(_LINE_END.search(tail) or (token[0].isspace() and _SENTENCE_END.search(tail)))


def _span(piece: Piece, colouring: Colouring, colours: Ink, outlined: int | None) -> str:
    style = []
    strength = _strength(piece.value, colouring)
    if strength:
        style.append(f"background:{_ground(colours.helps if strength > 0 else colours.hurts, abs(strength))}")
    if piece.value < colouring.mark:
        style.append(f"text-decoration:underline 2px {colours.hurts};text-underline-offset:4px")
    if outlined is not None and piece.first <= outlined <= piece.last:
        style.append(f"outline:2px solid {colours.text};outline-offset:1px;border-radius:2px;font-weight:600")
    which = f"token {piece.first}" if piece.first == piece.last else f"tokens {piece.first} to {piece.last}"
    title = html.escape(f"{which}: {_exact(piece.value)} {colouring.unit}")
    return f'<span style="{";".join(style)}" title="{title}">{_text(piece.text, colours)}</span>'


def _text(text: str, colours: Ink) -> str:
    """Escaped; a line break is signed before it breaks, a token without text (part of a character) is a dot."""
    if not text:
        return f'<span style="color:{colours.muted}">·</span>'
    return html.escape(text).replace("\n", f'<span style="color:{colours.muted}">↵</span>\n')


def _strength(value: float, colouring: Colouring) -> float:
    """−1 to 1; 0 for what is no number."""
    if not math.isfinite(value):
        return 0.0
    end = colouring.highest if value > colouring.centre else colouring.lowest
    reach = abs(end - colouring.centre)
    return round(min(1.0, max(-1.0, (value - colouring.centre) / reach)), 2) if reach else 0.0


def _ground(colour: str, strength: float) -> str:
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},{STRONGEST * strength:.3g})"


def _key(colouring: Colouring, colours: Ink) -> str:
    """Both ends and the middle of the scale with their values, and what the underline means."""
    low, middle, high = (_short(one) for one in (colouring.lowest, colouring.centre, colouring.highest))
    ramp = f"linear-gradient(90deg,{_ground(colours.hurts, 1)},transparent,{_ground(colours.helps, 1)})"
    bar = (
        "display:inline-block;width:5rem;height:.7rem;margin:0 .4rem;vertical-align:-1px;"
        f"background:{ramp};border:1px solid {colours.grid}"
    )
    centre = f" ({middle} {colouring.at_centre})" if colouring.at_centre else ""
    low_end, high_end = f"{low} {colouring.low}", f"{high} {colouring.high}"
    told = f"{high_end}{centre}, {colouring.unit} · {colouring.marked}"
    style = f"font-size:.85rem;color:{colours.muted};margin:0 0 .35rem"
    return f'<div style="{style}">{html.escape(low_end)}<span style="{bar}"></span>{html.escape(told)}</div>'


def _short(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")


def _exact(value: float) -> str:
    return f"{value:+.7g}".replace("-", "−")
