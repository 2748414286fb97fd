"""`u2a compare`: every way to align the bundle's policy, with several seeds, in one table.

Work is done cell by cell (`comparison_cells`): killed and repeated, the same command goes on, and a second one of the
same name helps instead of repeating. The table is written once all cells are done.
"""

import multiprocessing
import os
import platform
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from u2a_core.bundle import Bundle
from u2a_core.errors import ScoringError, StorageError
from u2a_core.evaluation.comparison_cells import Cells
from u2a_core.evaluation.comparison_config import LIMIT, ComparisonConfig
from u2a_core.evaluation.comparison_report import html_page, markdown
from u2a_core.evaluation.comparison_rows import ROWS, SHARE
from u2a_core.evaluation.comparison_table import table_of
from u2a_core.store.comparison import (
    Cell,
    Comparison,
    claimed,
    comparison_folder,
    read_cell,
    read_comparison,
    working,
    write_comparison,
)
from u2a_core.store.files import remove
from u2a_core.store.progress import WATCHER, Progress
from u2a_core.store.provenance import provenance

PAUSE = 1.0  # seconds between two looks at what others do


def compare(
    bundle: Bundle, name: str, config: ComparisonConfig, processes: int = 1, restart: bool = False,
    command: str = "u2a compare", show: bool = True,
) -> Comparison:  # fmt: skip
    """Make the comparison `name`, with so many processes (1: in this one; else every one has one thread). What is there
    already is taken, unless `restart`. `command` is told in the table's head.

    Raises `U2AError` subclasses; what concerns one row alone becomes that row's note.
    """
    folder = comparison_folder(bundle, name)
    if processes < 1:
        raise ScoringError(f"--processes must be at least 1; it is {processes}.")
    if config.robustness and not bundle.pairs.retain:
        raise ScoringError(
            f"Attacks need retain data, and the bundle {bundle.reference} has none: say --no-robustness, or prepare it "
            "with a smaller --negative-share."
        )
    with working(folder, config.asked(bundle), restart):
        cells = Cells(bundle, folder, config)
        paths = [task.path for task in cells.tasks()]
        before = _done(paths)
        with Progress("cells", len(paths), show=show, done=before) as progress:
            counted = before

            def look() -> None:
                nonlocal counted
                now = _done(paths)
                if now > counted:
                    progress.step(now - counted)
                counted = now

            if processes == 1:
                work(cells, look)
            elif before < len(paths):
                _together(bundle, folder, config, processes, look)
        _finish(bundle, folder, config, processes, command)
    return read_comparison(bundle, name)


def work(cells: Cells, look: Callable[[], None]) -> None:
    """Do whatever is left and no other process does, until nothing is left; `look` is called after each, and while
    others are waited for. A process whose parent is gone ends.
    """
    parent = multiprocessing.parent_process()
    while parent is None or parent.is_alive():
        look()
        left = [task for task in cells.tasks() if not task.path.exists()]
        if not left:
            return
        for task in left:
            if all(path.exists() for path in task.needs):
                with claimed(cells.folder / "work" / "claims" / task.name) as own:
                    if own and not task.path.exists():
                        cells.do(task)
                        break
        else:
            time.sleep(PAUSE)


def _done(paths: list[Path]) -> int:
    return sum(path.exists() for path in paths)


def _together(bundle: Bundle, folder: Path, config: ComparisonConfig, processes: int, look: Callable[[], None]) -> None:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, _one_thread) as pool:
        begun = {pool.submit(_work_at, replace(bundle), folder, config) for _ in range(processes)}
        try:
            while begun:
                ended, begun = wait(begun, timeout=PAUSE)
                look()
                for one in ended:
                    one.result()
        except BrokenProcessPool as error:
            raise StorageError(
                "A process of the comparison was killed, perhaps for want of memory. Run the same command with fewer "
                "--processes; what was finished is kept."
            ) from error


def _one_thread() -> None:
    torch.set_num_threads(1)
    os.environ.pop(WATCHER, None)  # the one who started this one tells of all


def _work_at(bundle: Bundle, folder: Path, config: ComparisonConfig) -> None:
    with working(folder, config.asked(bundle), restart=False):
        work(Cells(bundle, folder, config), lambda: None)


def _finish(bundle: Bundle, folder: Path, config: ComparisonConfig, processes: int, command: str) -> None:
    """Write the table, unless another process did, and remove what the cells were made with."""
    claim = folder / "work" / "claims" / "table"
    while not (folder / "table.parquet").exists():
        with claimed(claim) as own:
            if own and not (folder / "table.parquet").exists():
                cells = {row: [read_cell(folder, row, seed) for seed in config.seeds_of(row)] for row in config.rows}
                document = _document(bundle, config, cells, processes, command)
                table = table_of(cells, document["rows"])
                write_comparison(folder, table, document, markdown(table, document), html_page(table, document))
            elif not own:
                time.sleep(PAUSE)
    remove(folder / "work", quiet=True)


def _document(
    bundle: Bundle, config: ComparisonConfig, cells: dict[str, list[Cell]], processes: int, command: str
) -> dict[str, Any]:
    rows = [
        {"row": name, "title": ROWS[name].title, "kind": ROWS[name].kind, "objective": ROWS[name].objective,
         "note": _note(cells[name])}
        for name in config.rows
    ]  # fmt: skip
    now = datetime.now(UTC)
    return {
        "title": f"Ways to align {bundle.name}: unlearning, weighted and not, and baselines",
        "bundle_hash": bundle.hash,
        "asked": config.asked(bundle),
        "command": command,
        "measured": now.isoformat(timespec="seconds"),
        "hardware": f"{now:%Y-%m-%d}. {_hardware(config, processes)}",
        "rows": rows,
        "notes": _notes(bundle, config),
        **provenance(),
    }


def _note(cells: list[Cell]) -> str | None:
    """Why seeds of a row have no value; None where all have."""
    reasons: dict[str, list[int]] = {}
    for cell in cells:
        if cell.failed:
            reasons.setdefault(cell.failed, []).append(cell.seed)
    every = len(cells)
    told = [
        f"{'every seed' if len(seeds) == every else 'seed ' + ', '.join(map(str, seeds))}: {why}"
        for why, seeds in reasons.items()
    ]
    return " ".join(told) or None


def _hardware(config: ComparisonConfig, processes: int) -> str:
    device, dtype = config.options.resolve_device(), str(config.options.resolve_dtype()).removeprefix("torch.")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    threads = torch.get_num_threads() if processes == 1 else 1
    several = f"{processes} process{'es' if processes > 1 else ''} of {threads} thread{'s' if threads > 1 else ''}"
    return (
        f"{os.cpu_count()} cores, {platform.machine()}, {several}, {name}, torch {torch.__version__}, {dtype}. "
        f"Seeds 0 to {config.seeds - 1}."
    )


def _notes(bundle: Bundle, config: ComparisonConfig) -> list[str]:
    """How the runs were made and measured."""
    sizes = bundle.pairs.sizes()
    limits = (
        f"it stops, and goes back, where the retain NLL rose by {LIMIT:g} nats per token or the KL to the original "
        f"exceeds {LIMIT:g}"
        if config.limits
        else "without limits"
    )
    drawn = "all examples" if config.examples is None else f"at most {config.examples} examples of a kind"
    return [
        f"{sizes['forget']} candidates, {sizes['retain']} retain examples, {sizes['pa_train']} pairs in pa_train, "
        f"{sizes['pa_test']} in pa_test, {sizes['test']} test prompts. Measured on {drawn} and {config.count} "
        f"answers of at most {config.max_new_tokens} tokens.",
        f"Unlearning: AdamW, learning rate {config.learning_rate:g}, {config.steps} steps of {config.batch_size} "
        f"examples, parameters: {config.parameters}; {limits}. DPO, SFT and the task vector have the same "
        "learning rate (falling by a cosine), steps and batch (DPO: of pairs); retraining repeats the recorded tuning "
        f"with its own recipe. NPO, random quarter: another {SHARE:.0%} of the candidates for every seed.",
        f"U2A: weights sought once a method with the seed 0 on pa_train, {config.rounds} inner problems at most, the "
        f"selection narrowed to {config.narrow:g} at least; then unlearned with every seed.",
        "Forgetting, privacy and robustness are of what the row itself unlearned, and of all candidates where it "
        "unlearned nothing in particular.",
    ]
