"""What the loads of one machine have in common: their counts, and the pages pinned for good."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from mmfw import Mm


@dataclass(slots=True)
class DemandLoads:
    """State of all loads of this plugin; attached to the `Mm`.

    Attributes
    ----------
    nr_started : int
        Loads started so far, which numbers them.
    requests, failures : int
        Requests of all ``order-demand``, and those that got nothing.
    pinned : list of int64[]
        First pfns of what ``pin-pages`` holds, order 0.
    """

    nr_started: int = 0
    requests: int = 0
    failures: int = 0
    pinned: list[NDArray[np.int64]] = field(default_factory=list)

    def start(self, name: str) -> str:
        """A name of its own for a load that begins, for its random stream."""
        self.nr_started += 1
        return f"demand {name} {self.nr_started}"

    @property
    def nr_pinned(self) -> int:
        """Pages pinned now."""
        return sum(len(pfns) for pfns in self.pinned)

    def unpin(self, mm: Mm) -> None:
        """Give every pinned page back."""
        for pfns in self.pinned:
            mm.free_pages_batch(pfns, 0)
        self.pinned.clear()


def demand_loads(mm: Mm) -> DemandLoads:
    """The machine's `DemandLoads`, attached when first asked for."""
    loads = mm.attached.get(DemandLoads)
    if loads is None:
        loads = DemandLoads()
        mm.attached.put(loads)
    return loads
