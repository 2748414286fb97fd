"""The embedded demo corpus: authored preference pairs in which every bad sentence is known (see DATA_CARD.md)."""

import hashlib
from importlib import resources

from u2a_core.data.demo.grammar import RECIPE_VERSION, generate
from u2a_core.data.pairs import PreferencePair

__all__ = ["RECIPE_VERSION", "demo_pairs", "recipe_hash"]

_RECIPE_FILES = (
    "__init__.py",
    "grammar.py",
    "harmlessness.toml",
    "helpfulness.toml",
    "patterns.toml",
    "truthfulness.toml",
)


def demo_pairs(count: int, seed: int) -> list[PreferencePair]:
    """The first `count` pairs of the corpus of `seed`: same arguments, same pairs; a larger count only appends.

    `category` is the task, `tags` hold `topic:<key>` and, for a rejected response that is all good and nearly a copy of
    other chosen ones, `planted:near-duplicate`. `low_reward_spans` are the bad sentences of the rejected response and
    `severity` their share of its characters, 0 to 1. Raises `DataError` for a negative count.
    """
    return generate(count, seed)


def recipe_hash() -> str:
    """SHA-256 of everything that decides the pairs, as 64 hexadecimal digits; line ends do not count."""
    digest = hashlib.sha256(f"demo-corpus:{RECIPE_VERSION}".encode())
    for name in _RECIPE_FILES:
        content = resources.files(__package__).joinpath(name).read_bytes().replace(b"\r\n", b"\n")
        digest.update(f"\n{name}:{len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()
