"""Which sentences of the corpus a text repeats, and how many of them are bad ones: by letters alone, as a reader would.

So the answers of a policy tuned on the corpus can be held against what its author knows.
"""

from functools import cache

from u2a_core.data.demo.grammar import load_patterns, load_topics


def bad_share(text: str) -> float | None:
    """Share of bad ones among the corpus clauses that occur in `text`, 0 to 1; None where none occurs."""
    plain = _letters(text)
    good, bad = (sum(clause in plain for clause in clauses) for clauses in _clauses())
    return bad / (good + bad) if good + bad else None


@cache
def _clauses() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """All good and all bad clauses of the corpus, openers left out (they answer nothing)."""
    good: list[str] = []
    bad: list[str] = []
    for topic in load_topics():
        good += [text.format(thing=topic.thing) for group in topic.good.values() for text in group]
        bad += [text.format(thing=topic.thing) for text in topic.bad]
    for task in {topic.task for topic in load_topics()}:
        good += load_patterns(task).good_closings
        bad += (*load_patterns(task).bad_openers, *load_patterns(task).bad_closings)
    return tuple(dict.fromkeys(map(_letters, good))), tuple(dict.fromkeys(map(_letters, bad)))


def _letters(text: str) -> str:
    return " ".join("".join(letter if letter.isalnum() else " " for letter in text.casefold()).split())
