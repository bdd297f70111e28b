"""Pages that a machine's initial state holds allocated, handed to whoever models their owner."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmfw.errors import InputError
from mmfw.jit import page as pg
from mmfw.jit.alloc import claim_pages
from mmfw.mm.pages import Memory
from mmfw.rawrandom import Rng
from mmfw.state import MAX_ORDER, PAGEBLOCK_ORDER, MigrateType, NodeState


class ResidentPages:
    """Allocated pages of the initial state that nobody owns yet.

    Parameters
    ----------
    memory : Memory
        The machine, just loaded.
    state : NodeState
        What was loaded.
    rng : Rng
        Decides which pages are handed out.
    """

    def __init__(self, memory: Memory, state: NodeState, rng: Rng) -> None:
        self._memory = memory
        self._state = state
        self._rng = rng
        self._by_movability: dict[bool, NDArray[np.int64]] | None = None

    def claim(self, nr_pages: int, *, movable: bool, what: str) -> NDArray[np.int64]:
        """Take pages over as allocated order-0 pages, from the highest zone down.

        Parameters
        ----------
        nr_pages : int
            How many.
        movable : bool
            From Movable pageblocks, else from the others first.
        what : str
            Who they are for, for the message.

        Returns
        -------
        int64[nr_pages]
            Their pfns, in random order.

        Raises
        ------
        InputError
            The state does not hold so many allocated pages.
        """
        if self._by_movability is None:
            self._by_movability = self._allocated()
        pools = self._by_movability
        chosen = []
        wanted = nr_pages
        for kind in (movable, not movable):
            chosen.append(pools[kind][:wanted])
            pools[kind] = pools[kind][len(chosen[-1]) :]
            wanted -= len(chosen[-1])
        if wanted:
            raise InputError(
                f"{what} claims {nr_pages} resident pages, but the machine's state holds only "
                f"{nr_pages - wanted} allocated pages that nobody owns"
            )
        pfns = np.concatenate(chosen)
        claim_pages(self._memory.page, self._memory.S, pfns)
        return pfns

    def _allocated(self) -> dict[bool, NDArray[np.int64]]:
        """Unowned pages by the movability of their pageblock; higher zones first, shuffled within one."""
        pools: dict[bool, list[NDArray[np.int64]]] = {True: [], False: []}
        for zone in reversed(self._state.zones):
            # +1 where a free block begins and -1 behind it: their running sum is 1 on free pages.
            edges = np.zeros(zone.spanned + 1, dtype=np.int8)
            for order in range(MAX_ORDER):
                for pfns in zone.free_lists[order]:
                    _mark(edges, pfns - zone.start_pfn, order)
            for pcp in zone.pcp:
                for pindex, (pfns, _) in enumerate(pcp.lists):
                    _mark(edges, pfns - zone.start_pfn, pindex // 3 if pindex < 12 else PAGEBLOCK_ORDER)
            used = np.cumsum(edges[:-1], dtype=np.int8) == 0
            # What is present but not managed was reserved at boot. A state does not say which pages these
            # are; they are taken to be the last allocated ones, so that never more than managed is handed out.
            candidates = zone.start_pfn + np.nonzero(used)[0]
            block = self._memory.pb[candidates >> PAGEBLOCK_ORDER]
            candidates = candidates[(block & pg.PB_ABSENT) == 0]
            words = self._memory.page[4 * candidates + pg.WORD]
            # Not those that are on the LRU already.
            candidates = candidates[(words & pg.TYPE_MASK) == pg.T_NONE]
            candidates = candidates[: max(0, zone.managed - (zone.spanned - int(used.sum())))]
            kinds = (self._memory.pb[candidates >> PAGEBLOCK_ORDER] & pg.PB_MT_MASK) == MigrateType.MOVABLE
            for kind in (True, False):
                pools[kind].append(self._rng.shuffled(candidates[kinds == kind]))
        return {kind: np.concatenate(parts) for kind, parts in pools.items()}


def _mark(edges: NDArray[np.int8], starts: NDArray[np.int64], order: int) -> None:
    """Note the two ends of distinct free blocks."""
    edges[starts] += 1
    edges[starts + (1 << order)] -= 1
