"""The embedded demo: from the authored corpus to a scored bundle, by the same functions as any other data set.

Every step that is finished is kept, so that an interrupted `u2a demo` goes on, and a second one only draws.
"""

import json
from pathlib import Path

from u2a_core.bundle import MANIFEST, Bundle, open_bundle
from u2a_core.data.demo import demo_pairs
from u2a_core.data.pairs import PreferencePair
from u2a_core.figures.show import ShowConfig, show
from u2a_core.store.files import replacing

PAIRS, SEED = 1200, 0
TUNE_EPOCHS, REWARD_EPOCHS = 4.0, 1.0


def demo_folder() -> Path:
    """`cache/demo` of the checkout; of an installed package, `~/.cache/u2a/demo`."""
    checkout = Path(__file__).resolve().parents[1]
    return (
        checkout / "cache" / "demo"
        if (checkout / "pyproject.toml").is_file()
        else Path.home() / ".cache" / "u2a" / "demo"
    )


def build_demo(folder: Path, count: int = PAIRS) -> Bundle:
    """The demo bundle in `folder`, made as far as it is not there yet. Raises `U2AError` subclasses."""
    if (folder / MANIFEST).is_file():
        bundle = open_bundle(folder)
        if (bundle.scores_folder / "default.parquet").is_file():
            return bundle
    return _finished(folder, count)


def _finished(folder: Path, count: int) -> Bundle:
    """Every step that is not done yet."""
    from u2a_core.influence.scoring import ScoreConfig, score  # torch and trl, needed only to build
    from u2a_core.models.training import TrainConfig, train_reward, tune
    from u2a_core.preparation import SCRATCH, PrepareConfig, prepare

    if (folder / MANIFEST).is_file():
        bundle = open_bundle(folder)
    else:
        source = folder.with_name(f"{folder.name}-pairs.jsonl")
        write_corpus(source, demo_pairs(count, SEED))
        bundle = prepare(PrepareConfig((str(source),), SCRATCH, seed=SEED, max_length=256), folder)
    if not bundle.manifest["policy"]["tuned"]:
        bundle, _ = tune(bundle, TrainConfig(epochs=TUNE_EPOCHS, seed=SEED))
    if bundle.reward is None:
        bundle, _ = train_reward(bundle, TrainConfig(epochs=REWARD_EPOCHS, learning_rate=1e-3, seed=SEED))
    score(bundle, ScoreConfig(parameters="full"))
    return bundle


def demo_pictures(bundle: Bundle, folder: Path) -> dict[str, Path]:
    """Figure 1 and Figure 2 of the demo, written beside its bundle."""
    pictures = {name: folder / f"{name}.html" for name in ("influence", "low-reward")}
    for name, path in pictures.items():
        show(bundle, "default", ShowConfig(name), path)
    return pictures


def write_corpus(path: Path, pairs: list[PreferencePair]) -> None:
    """The corpus in trl's conversational form, with its known low-reward spans."""
    with replacing(path) as part, part.open("w", encoding="utf-8") as stream:
        for pair in pairs:
            row = {
                "prompt": [{"role": turn.role, "content": turn.content} for turn in pair.prompt],
                "chosen": [{"role": "assistant", "content": pair.chosen}],
                "rejected": [{"role": "assistant", "content": pair.rejected}],
                "category": pair.category,
                "severity": pair.severity,
                "tags": list(pair.tags),
                "low_reward_spans": [list(span) for span in pair.low_reward_spans or ()],
            }
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
