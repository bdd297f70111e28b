"""A small machine with a mounted filesystem."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mmfw import ShrinkControl, gfp
from mmfw.machine import machine_from_ram
from mmfw.machine.initial import with_buddyinfo
from mmfw.mm.core import Mm
from mmfw.sched import Scheduler
from mmfw.testing import make_mm
from mmfw.types import MmOps
from mmfw_xfs_buf import BufType, XfsBufShrinker, XfsMount
from mmfw_xfs_buf.params import XfsParams


class Bench:
    """What a test works on."""

    def __init__(
        self, kernel: str, dma32: list[int] | None, ops: MmOps | None, nr_cpus: int, params: dict[str, Any]
    ) -> None:
        state = machine_from_ram("256M", nr_cpus).node_state(0)
        if dma32 is not None:
            state = with_buddyinfo(state, {"DMA32": dma32, "DMA": [0] * 11}, 0.0, 1, "test")
        self.mm: Mm = make_mm(state, kernel=kernel, seed=1, ops=ops)
        self.before = self.free_pages()
        self.mount = XfsMount(self.mm, XfsParams(**{"nr_inodes": 4096, "nr_dquots": 300, **params}))
        self.buftarg = self.mount.buftarg
        self.inodes = self.mount.inodes
        self.dquots = self.mount.dquots
        self.shrinker = XfsBufShrinker(self.mm, self.buftarg)
        self._next = self.mount.lay_out(1 << 20, 512)

    @property
    def sched(self) -> Scheduler:
        return self.mm.sched

    def call(self, fn: Callable[[], Any]) -> Any:
        """What `fn` returns as a task of its own."""
        task = self.sched.spawn(fn, name="test")
        self.sched.run()
        return task.result

    def daddr(self, nr_bytes: int) -> int:
        """Blocks nobody has used."""
        self._next += nr_bytes // 512
        return self._next - nr_bytes // 512

    def cached(self, nr_bytes: int, buf_type: BufType = BufType.ALLOC_BTREE, ref: int | None = None) -> int:
        """An unused buffer on the LRU, with its kind's weight or another."""
        slot = self.buftarg.get(self.daddr(nr_bytes), nr_bytes, buf_type)
        self.buftarg.set_ref(slot, ref or None)
        self.buftarg.rele(slot)
        if ref == 0:
            self.buftarg.set_ref(slot, 0)
        return slot

    def is_cached(self, slot: int) -> bool:
        return bool(self.buftarg.table.backing[slot])

    def scan(self, n: int) -> int:
        sc = ShrinkControl(gfp_mask=gfp.GFP_KERNEL, nid=0, nr_to_scan=n, nr_scanned=n)
        freed = self.shrinker.scan_objects(sc)
        assert sc.nr_scanned == n
        return freed

    def free_pages(self) -> int:
        self.mm.slab.shrink_kmalloc_caches()
        self.mm.drain_all_pages()
        return self.mm.global_free_pages()


@pytest.fixture
def bench() -> Iterator[Callable[..., Bench]]:
    """Build a machine: ``bench("6.1", dma32=[...], ops=..., nr_inodes=...)``; at the end no page may be missing."""
    made: list[Bench] = []

    def build(
        kernel: str = "7.1",
        *,
        dma32: list[int] | None = None,
        ops: MmOps | None = None,
        nr_cpus: int = 1,
        **params: Any,
    ) -> Bench:
        made.append(Bench(kernel, dma32, ops, nr_cpus, params))
        return made[-1]

    yield build
    for each in made:
        each.mount.unmount()
        after, registered = each.free_pages(), len(each.mm.shrinkers)
        each.sched.close()
        assert (after, registered) == (each.before, 0)
