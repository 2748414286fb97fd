"""A bundle's `data/paraphrases.jsonl`, where it has one: prompts of candidates in other words, for an attack.

Every row has the last user turn of a candidate's prompt as `prompt`, and the same in other words as `paraphrase`.
"""

from collections.abc import Sequence
from pathlib import Path

from u2a_core.data.formats.row import InvalidRow, prompt_text
from u2a_core.data.pairs import Message
from u2a_core.data.readers import told_rows
from u2a_core.data.table import Example
from u2a_core.errors import DataError


def paraphrases_path(bundle: Path) -> Path:
    """Where the bundle in this folder has its paraphrases, if it has any."""
    return bundle / "data" / "paraphrases.jsonl"


def read_paraphrases(bundle: Path, candidates: Sequence[Example]) -> dict[str, tuple[Message, ...]]:
    """Prompts in other words, by the id of the candidate: its own turns, of which the last user turn is replaced.
    Empty where the bundle has no such file; prompts that no candidate has are passed over.

    Raises `DataError` naming file and row: text that is missing or blank, a prompt twice, no prompt of a candidate.
    """
    path = paraphrases_path(bundle)
    if not path.exists():
        return {}
    told: dict[str, str] = {}
    for where, row in told_rows(path):
        try:
            prompt, other = (prompt_text(row.get(name), name)[0].content for name in ("prompt", "paraphrase"))
        except InvalidRow as error:
            raise DataError(f"{where}: {error.detail}. Correct or remove the row.") from error
        if prompt in told:
            raise DataError(f"{where}: this prompt has a paraphrase already. Remove one of the rows.")
        told[prompt] = other
    found = {}
    for one in candidates:
        place = max((number for number, turn in enumerate(one.prompt) if turn.role == "user"), default=None)
        if place is not None and one.prompt[place].content in told:
            other_turn = Message("user", told[one.prompt[place].content])
            found[one.id] = (*one.prompt[:place], other_turn, *one.prompt[place + 1 :])
    if candidates and not found:
        raise DataError(
            f"None of the {len(told)} prompts of {path} is the last user turn of a candidate of this bundle. Copy the "
            "prompts from the scores table as they stand there, or remove the file."
        )
    return found
