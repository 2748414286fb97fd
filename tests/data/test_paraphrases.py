"""Prompts in other words are those of the file, for the candidates that have them; what is wrong names file and row."""

import json
from pathlib import Path

import pytest

from u2a_core.data.pairs import Message
from u2a_core.data.paraphrases import paraphrases_path, read_paraphrases
from u2a_core.data.table import Example
from u2a_core.errors import DataError

SYSTEM, ASK, ANSWER = Message("system", "Be brief."), Message("user", "Tell of tea."), Message("assistant", "No.")
CANDIDATES = [
    Example("a", (ASK,), "Never.", "p", "s"),
    Example("b", (SYSTEM, Message("user", "Hello"), ANSWER, ASK), "Go away.", "q", "s"),
    Example("c", (Message("user", "Tell of wool."),), "Never.", "r", "s"),
    Example("d", (SYSTEM,), "Never.", "t", "s"),
]


def written(folder: Path, *rows: object) -> Path:
    path = paraphrases_path(folder)
    path.parent.mkdir()
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return folder


def row(prompt: object = "Tell of tea.", paraphrase: object = "What is tea?") -> dict[str, object]:
    return {"prompt": prompt, "paraphrase": paraphrase}


def test_the_last_user_turn_is_put_in_other_words(tmp_path: Path) -> None:
    other = Message("user", "What is tea?")
    found = read_paraphrases(written(tmp_path, row(), row("Of another split.", "…")), CANDIDATES)
    assert found == {"a": (other,), "b": (SYSTEM, Message("user", "Hello"), ANSWER, other)}


def test_a_bundle_without_has_none(tmp_path: Path) -> None:
    assert read_paraphrases(tmp_path, CANDIDATES) == {}


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ((row(), row(paraphrase="Tea?")), "row 2: this prompt has a paraphrase already"),
        ((row(), row("x", " ")), "row 2: the prompt in column `paraphrase` is empty"),
        ((row(prompt=3),), "row 1: column `prompt` holds a number"),
        ((row(), '{"prompt"'), "row 2"),
        ((row("Tell of Tea."),), "None of the 1 prompts of .* is the last user turn of a candidate"),
        ((), "is empty"),
    ],
)
def test_what_is_wrong_names_file_and_row(rows: tuple[object, ...], words: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=words) as caught:
        read_paraphrases(written(tmp_path, *rows), CANDIDATES)
    assert "paraphrases.jsonl" in str(caught.value)
