"""What subsystems lose to reclaim and compaction, and what of it they need again.

Nothing in the kernel stands for it. Shrinkable subsystems report to ``mm.ledger``; page cache and anonymous memory do
not, for /proc/vmstat counts their refaults (``workingset_refault_*``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from mmfw.errors import CallerError
from mmfw.jit import count
from mmfw.state import PAGEBLOCK_ORDER

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mmfw.mm.pages import Memory
    from mmfw.sched import Scheduler

#: What is re-created within this time of its eviction was part of the working set.
WORKING_SET_NS: Final = 10_000_000_000
#: A block has this long to form where pages were evicted.
YIELD_NS: Final = 100_000_000


@dataclass(slots=True)
class Losses:
    """One subsystem's account.

    Attributes
    ----------
    nr_objects_evicted, nr_pages_evicted : int
        Taken away by reclaim or compaction.
    nr_objects_recreated, nr_pages_recreated : int
        Needed again, however late.
    nr_objects_lost, nr_pages_lost : int
        Needed again within `WORKING_SET_NS`: what the working set lost.
    nr_pages_located : int
        Evicted pages whose pfns were given.
    nr_blocks_formed : int
        Free blocks of at least `PAGEBLOCK_ORDER` where they had been, `YIELD_NS` later.
    held_page_samples : int
        Sum over samples of the pages it held; pages.
    """

    nr_objects_evicted: int = 0
    nr_pages_evicted: int = 0
    nr_objects_recreated: int = 0
    nr_pages_recreated: int = 0
    nr_objects_lost: int = 0
    nr_pages_lost: int = 0
    nr_pages_located: int = 0
    nr_blocks_formed: int = 0
    held_page_samples: int = 0


class Ledger:
    """Accounts of all subsystems of one machine.

    Parameters
    ----------
    sched : Scheduler
        Its clock.
    memory : Memory
        Where blocks form.
    """

    def __init__(self, sched: Scheduler, memory: Memory) -> None:
        self._sched = sched
        self._memory = memory
        self._losses: dict[str, Losses] = {}
        self._holds: dict[str, Callable[[], int]] = {}
        self.nr_samples = 0

    def hold(self, subsystem: str, read: Callable[[], int]) -> None:
        """Say how many pages a subsystem holds; ``read()`` is asked at samples and may change nothing.

        Raises
        ------
        CallerError
            It was said already.
        """
        if subsystem in self._holds:
            raise CallerError(f"ledger: somebody says already what {subsystem!r} holds")
        self._holds[subsystem] = read
        self._of(subsystem)

    def evicted(
        self,
        subsystem: str,
        *,
        nr_objects: int,
        nr_pages: int,
        pfns: NDArray[np.int64] | None = None,
        blocks: Iterable[tuple[int, NDArray[np.int64]]] = (),
    ) -> None:
        """Reclaim or compaction took objects away; a free that their owner wanted is none.

        Parameters
        ----------
        subsystem : str
            Short name, as in ``hold``.
        nr_objects, nr_pages : int
            How much.
        pfns : int64[n], optional
            The pages that went, so that one can see whether a block forms there.
        blocks : iterable of (int, int64[n])
            The same for whole blocks: their order, and first pfns.
        """
        losses = self._of(subsystem)
        losses.nr_objects_evicted += nr_objects
        losses.nr_pages_evicted += nr_pages
        nr_located = 0
        heads: list[NDArray[np.int64]] = []
        for order, firsts in blocks if pfns is None else ((0, pfns), *blocks):
            nr_located += len(firsts) << order
            heads += [firsts + part for part in range(1 << PAGEBLOCK_ORDER, 1 << order, 1 << PAGEBLOCK_ORDER)]
            heads.append(firsts)
        if not nr_located:
            return
        where = np.concatenate(heads)
        nr_runs = count.blocks_of(where, PAGEBLOCK_ORDER, where)
        # Pages come in runs, and there are few pageblocks: what is sorted is short.
        where = np.array(sorted(set(where[:nr_runs].tolist())), dtype=np.int64)
        losses.nr_pages_located += nr_located

        def look() -> None:
            losses.nr_blocks_formed += count.nr_free_blocks(self._memory.page, where, PAGEBLOCK_ORDER)

        self._sched.call_at(self._sched.now + YIELD_NS, look)

    def recreated(self, subsystem: str, *, nr_objects: int, nr_pages: int, age_ns: int) -> None:
        """The load needed evicted objects again, `age_ns` after they went; ns.

        ``nr_pages`` is their size: evicting slab objects may have freed fewer pages than that.
        """
        losses = self._of(subsystem)
        losses.nr_objects_recreated += nr_objects
        losses.nr_pages_recreated += nr_pages
        if age_ns <= WORKING_SET_NS:
            losses.nr_objects_lost += nr_objects
            losses.nr_pages_lost += nr_pages

    def sample(self) -> None:
        """Note what everybody holds now; called at fixed virtual times."""
        self.nr_samples += 1
        for subsystem, read in self._holds.items():
            self._losses[subsystem].held_page_samples += read()

    def __iter__(self) -> Iterator[tuple[str, Losses]]:
        return iter(sorted(self._losses.items()))

    def _of(self, subsystem: str) -> Losses:
        return self._losses.setdefault(subsystem, Losses())
