"""The tests' plain twin of the allocator behind the same interface: what Python alone would cost."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from benchmarks.workloads import Ops, request_rows
from mmfw.machine.snapshot import record_from_node_state
from mmfw.state import NodeState

_TESTS = str(Path(__file__).parents[1] / "tests")


class PurePython:
    """tests/naive, fast path only, as the others."""

    name = "Python"

    def __init__(self, state: NodeState) -> None:
        if _TESTS not in sys.path:
            sys.path.append(_TESTS)
        from naive.page_alloc import NaiveMm

        zones = cast("list[dict[str, Any]]", record_from_node_state(state)["zones"])
        self._mm = NaiveMm(zones, state.watermark_boost_factor)
        self._requests = [tuple(int(v) for v in row) for row in request_rows(state)]
        self._zonelists = [[z for z in self._mm.zones[::-1] if z.index <= row[2]] for row in self._requests]
        self.held = np.zeros(state.end_pfn + 1, dtype=np.int64)
        self._held: list[tuple[int, int]] = []

    def run(self, ops: Ops, out: NDArray[np.int64]) -> int:
        """Operations done; the first answers go to ``out``."""
        mm, held = self._mm, self._held
        for i, op in enumerate(ops.tolist()):
            pfn = None
            if op & 1:
                if held:
                    k = (op >> 8) * len(held) >> 24
                    pfn, order = held[k]
                    last = held.pop()
                    if k < len(held):
                        held[k] = last
                    mm.free(pfn, order)
            else:
                order, row = op >> 1 & 15, op >> 5 & 3
                mask, _, hzi, flags = self._requests[row]
                pfn = mm.get_page_from_freelist(self._zonelists[row], mask, order, flags, hzi)
                if pfn is not None:
                    held.append((pfn, order))
            if i < len(out):
                out[i] = -1 if pfn is None else pfn
            if not i & 0xFFF:
                mm.events.clear()
        self.held[0] = len(held)
        self.held[1 : len(held) + 1] = [pfn << 4 | order for pfn, order in held]
        return len(ops)

    def counters(self) -> list[int]:
        """As `Compiled.counters`, without events, which it does not count."""
        values = []
        for zone in self._mm.zones:
            values += [zone.vm_free, zone.vm_free_diff, zone.pcp_count, zone.free_factor, zone.boost]
            values += [zone.nr_free(order) for order in range(11)]
        return values
