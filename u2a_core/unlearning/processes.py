"""This process among those that `accelerate launch` started: its share of the work, and sums over all of them."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from torch import Tensor

from u2a_core.models.loading import LoadOptions

Item = TypeVar("Item")


@dataclass(frozen=True)
class Processes:
    """`count` processes, of which this one is number `rank`; alone without `accelerate launch`."""

    rank: int = 0
    count: int = 1
    state: Any = None

    @property
    def main(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """Every `count`-th of `items`: the shares of all processes are disjoint and together `items`."""
        return items[self.rank :: self.count]

    def total(self, values: Tensor) -> Tensor:
        """The sum of `values` over all processes, the same tensor everywhere."""
        if self.count == 1:
            return values
        from accelerate.utils import reduce

        summed: Tensor = reduce(values, reduction="sum")
        return summed

    def wait(self) -> None:
        """Return when every process has come here."""
        if self.count > 1:
            self.state.wait_for_everyone()


def processes(options: LoadOptions) -> tuple[Processes, LoadOptions]:
    """The processes of this program, and `options` with the device of this one."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return Processes(), options
    from accelerate import PartialState

    state = PartialState(cpu=options.resolve_device().type == "cpu")
    own = replace(options, device=str(state.device))
    return Processes(state.process_index, state.num_processes, state), own
