"""What decides the demo bundle: sizes, seeds and training settings, and the hash of all of them and of the corpus.

The bundle that ships was made by `u2a demo build` with `RECIPE`; a test compares its hash with this module's.
"""

import json
from dataclasses import asdict, dataclass

from u2a_core.data.demo import recipe_hash as corpus_hash
from u2a_core.store.fingerprints import text_sha256


@dataclass(frozen=True)
class DemoRecipe:
    """Numbers of pairs by split (`forget`: negatives before equal ones are dropped) and how the two models are trained.

    `max_length` is the most tokens of a prompt with its response; epochs and learning rates are the trainers'.
    """

    forget: int = 2000
    retain: int = 600
    pa_train: int = 300
    pa_test: int = 300
    test: int = 300
    seed: int = 0
    max_length: int = 256
    tune_epochs: float = 4.0
    tune_rate: float = 3e-3
    reward_epochs: float = 3.0
    reward_rate: float = 1e-3
    answers: int = 20

    @property
    def pairs(self) -> int:
        """Pairs drawn from the corpus."""
        return self.forget + self.retain + self.pa_train + self.pa_test + self.test

    def hash(self) -> str:
        """SHA-256 of these settings and of the corpus recipe, 64 hexadecimal digits."""
        return text_sha256(f"{corpus_hash()}:{json.dumps(asdict(self), sort_keys=True)}")


RECIPE = DemoRecipe()
REDUCED = DemoRecipe(forget=60, retain=30, pa_train=20, pa_test=20, test=20, tune_epochs=1.0, answers=4)
