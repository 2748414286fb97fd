"""`u2a show`: a bundle's scores as one of the paper's figures, in one stand-alone HTML file."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from u2a_core.bundle import Bundle
from u2a_core.errors import DataError
from u2a_core.figures import influence, low_reward
from u2a_core.figures.export import write_html
from u2a_core.figures.influence import InfluenceOptions, influence_figure, paper_influence_figure
from u2a_core.figures.low_reward import LowRewardOptions, low_reward_figure
from u2a_core.store.scores import Scores
from u2a_core.store.trust import trust_told

FigureName = Literal["influence", "low-reward"]


@dataclass(frozen=True)
class ShowConfig:
    """Which figure, and how. `paper_style` draws Figure 1 on polar axes."""

    figure: str = "influence"
    paper_style: bool = False
    influence: InfluenceOptions = field(default_factory=lambda: InfluenceOptions(distribution=True, labels=5))
    low_reward: LowRewardOptions = field(default_factory=LowRewardOptions)


def show(bundle: Bundle, scores_name: str, config: ShowConfig, out: Path) -> Scores:
    """Write the figure to `out` (light, and dark where the reader's system is); returns the scores shown."""
    scores = bundle.scores(scores_name)
    trust = trust_told(bundle, scores.metadata)
    metadata = {"bundle": bundle.reference, "scores": scores_name, "trust": trust, **scores.metadata}
    if config.figure == "influence":
        draw = paper_influence_figure if config.paper_style else influence_figure
        light, dark = (draw(scores, replace(config.influence, theme=theme)) for theme in _THEMES)
        write_html(
            light,
            out,
            title=f"Figure 1: influence of negative examples · {bundle.name}",
            description=f"{influence.HOW_TO_READ} {trust}.",
            metadata=metadata,
            dark=dark,
            samples=scores.table,
        )
    elif config.figure == "low-reward":
        if scores.metadata["low_reward_threshold"] is None:
            raise DataError(
                f"The scores '{scores_name}' hold no token rewards. Run `u2a reward {bundle.reference} --train` (or "
                "--model, --implicit) and `u2a score` again with --restart."
            )
        light, dark = (low_reward_figure(scores, replace(config.low_reward, theme=theme)) for theme in _THEMES)
        title = f"Figure 2: low-reward tokens · {bundle.name}"
        told = f"{low_reward.HOW_TO_READ} {trust}."
        write_html(light, out, title=title, description=told, metadata=metadata, dark=dark)
    else:
        raise DataError(f"There is no figure '{config.figure}'; choose influence or low-reward.")
    return scores


_THEMES: tuple[Literal["light"], Literal["dark"]] = ("light", "dark")
