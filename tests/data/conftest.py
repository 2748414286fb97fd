"""Small data files, and the real ones where the machine has them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from u2a_core.data.pairs import Message, PreferencePair


@pytest.fixture
def write_rows(tmp_path: Path) -> Callable[..., str]:
    """Write rows as JSON Lines and give the path as text."""

    def write(rows: list[Any], name: str = "rows.jsonl") -> str:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return str(path)

    return write


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], str]:
    """The path of a real data file beside the repository; skips the test where it is absent."""

    def find(name: str) -> str:
        path = Path(__file__).parents[3] / "shared" / "data" / name
        if not path.is_file():
            pytest.skip(f"the real data file {path} is not on this machine")
        return str(path)

    return find


@pytest.fixture(scope="session")
def make_pair() -> Callable[..., PreferencePair]:
    """A pair of one user turn."""

    def make(prompt: str, chosen: str | None = "good", rejected: str | None = "bad", **extra: Any) -> PreferencePair:
        return PreferencePair(
            (Message("user", prompt),), chosen, rejected, extra.pop("source", "rows.jsonl:1"), **extra
        )

    return make
