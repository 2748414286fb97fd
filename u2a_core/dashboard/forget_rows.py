"""The rows of a forget set as a table of numbers and texts, the rows that are wanted, and what edits of them mean.

Nothing here draws or changes anything.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from u2a_core.store import forget_commands as commands
from u2a_core.store.forget_commands import Command, Entries

EDITABLE = ("selected", "weight", "locked", "excluded", "note")
ORDERS = {
    "as added": None, "ω, high first": ("omega", False), "ω, low first": ("omega", True),
    "ΔPA, high first": ("delta_pa", False), "ΔPA, low first": ("delta_pa", True), "category": ("category", True),
    "id": ("id", True),
}  # fmt: skip
STATES = ("selected", "locked", "excluded", "weight 0", "with a note")


@dataclass(frozen=True)
class Wish:
    """Which rows are wanted, and in which order; empty: all."""

    find: str = ""
    states: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    order: str = "as added"


def set_table(entries: Entries, known: pd.DataFrame, selected: Sequence[str]) -> pd.DataFrame:
    """A row an example: id, selected, weight as entered, omega (mean 1 over those not excluded, which have 0), locked,
    excluded, note, and what `known` (`known_examples`) says of it: delta_pa, category, prompt, response.
    """
    members, chosen = list(entries.values()), set(selected)
    table = pd.DataFrame(
        {
            "id": list(entries),
            "selected": [one in chosen for one in entries],
            "weight": np.array([entry.weight for entry in members], np.float64),
            "locked": np.array([entry.locked for entry in members], bool),
            "excluded": np.array([entry.excluded for entry in members], bool),
            "note": [entry.note for entry in members],
        }
    )
    kept = table["weight"].where(~table["excluded"], 0.0)
    total = float(kept.sum())
    table["omega"] = kept * (int((~table["excluded"]).sum()) / total) if total else np.nan
    return pd.concat([table, known.loc[list(entries)].reset_index(drop=True)], axis=1)


def wanted_rows(table: pd.DataFrame, wish: Wish) -> pd.DataFrame:
    """The rows that all of the wish holds for (of `states` and of `categories`: any), in its order."""
    marks = {
        "selected": table["selected"], "locked": table["locked"], "excluded": table["excluded"],
        "weight 0": table["weight"] == 0, "with a note": table["note"] != "",
    }  # fmt: skip
    keep = pd.Series(True, index=table.index)
    if wish.states:
        keep &= np.logical_or.reduce([marks[state] for state in wish.states])
    if wish.categories:
        keep &= table["category"].isin(wish.categories)
    if wish.find:
        sought = wish.find.casefold()
        texts = zip(*(table[name] for name in ("id", "note", "prompt", "response")), strict=True)
        keep &= np.array([sought in "\n".join(parts).casefold() for parts in texts], bool)
    column = ORDERS[wish.order]
    found = table[keep]
    return found if column is None else found.sort_values(column[0], ascending=column[1], kind="stable")


def commands_of(edits: Mapping[int, Mapping[str, Any]], rows: pd.DataFrame) -> list[Command]:
    """What the edits of shown rows (by position) ask for that is not so already, as few commands as there are columns.

    Unlocking comes first and locking last, so that a row may be unlocked, changed and locked in one edit.
    """
    asked: dict[str, dict[str, Any]] = {name: {} for name in EDITABLE[1:]}
    for position, changes in edits.items():
        row = rows.iloc[position]
        for name, value in changes.items():
            if name in asked and value != row[name]:
                asked[name][row["id"]] = value
    on = {name: [one for one, value in asked[name].items() if value] for name in ("locked", "excluded")}
    off = {name: [one for one, value in asked[name].items() if not value] for name in ("locked", "excluded")}
    made = [
        commands.unlock(off["locked"]), commands.set_weight(asked["weight"]), commands.include(off["excluded"]),
        commands.exclude(on["excluded"]), commands.note(asked["note"]), commands.lock(on["locked"]),
    ]  # fmt: skip
    return [one for one in made if one.values]
