"""The simulator's compiled allocator, driven by a compiled loop over operations."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.workloads import Ops, request_rows
from mmfw.jit import njit
from mmfw.jit import page as pg
from mmfw.jit.alloc import free_pages_core, get_page_from_freelist
from mmfw.jit.page import S_BOOST_WAKE
from mmfw.mm.pages import Memory
from mmfw.state import NodeState


@njit
def run(page: Any, pb: Any, S: Any, ops: Any, requests: Any, held: Any, out: Any) -> int:
    """Run operations; see `workloads` for their bits and the C reference's ``ref_run()`` for the arrays."""
    cpu = node_row = np.int64(0)
    nr = held[0]
    done = ops.shape[0]
    for i in range(ops.shape[0]):
        op = np.int64(ops[i])
        pfn = np.int64(-1)
        if op & 1:
            if nr > 0:
                k = 1 + ((op >> 8) * nr >> 24)
                block = held[k]
                held[k] = held[nr]
                nr -= 1
                pfn = block >> 4
                if not free_pages_core(page, pb, S, cpu, pfn, block & 15):
                    done = i
                    break
        else:
            order = op >> 1 & 15
            row = op >> 5 & 3
            pfn = get_page_from_freelist(
                page,
                pb,
                S,
                cpu,
                node_row,
                requests[row, 0],
                order,
                requests[row, 1],
                requests[row, 2],
                requests[row, 3],
            )
            S[S_BOOST_WAKE] = 0  # nobody sleeps here
            if pfn >= 0:
                nr += 1
                held[nr] = pfn << 4 | order
        if i < out.shape[0]:
            out[i] = pfn
    held[0] = nr
    return done


class Compiled:
    """`mmfw.mm.mmzone.Memory` and its loops."""

    name = "numba"

    def __init__(self, state: NodeState) -> None:
        self._memory = Memory(state)
        self._rows = [zone.zone for zone in state.zones]
        self._requests = request_rows(state)
        self.held = np.full(state.end_pfn + 1, 0, dtype=np.int64)  # touched, unlike zeros()

    def run(self, ops: Ops, out: NDArray[np.int64]) -> int:
        """Operations done; the first answers go to ``out``."""
        memory = self._memory
        return run(memory.page, memory.pb, memory.S, ops, self._requests, self.held, out)

    def counters(self) -> list[int]:
        """Per zone NR_FREE_PAGES, the CPU's delta, its lists' count and free_factor, boost, nr_free[]; events."""
        S, values = self._memory.S, []
        for row in self._rows:
            z, c = self._memory.zone_offset(row), self._memory.pcp_offset(0, row)
            at = [z + pg.Z_FREE, c + pg.C_FREE_DIFF, c + pg.C_COUNT, c + pg.C_FREE_FACTOR, z + pg.Z_BOOST]
            values += [*S[at], *S[z + pg.Z_NR_FREE : z + pg.Z_NR_FREE + pg.NR_ORDERS]]
        values += [S[pg.S_PGFREE], *S[pg.S_PGALLOC : pg.S_PGALLOC + pg.NR_ZONES]]
        return [int(value) for value in values]
