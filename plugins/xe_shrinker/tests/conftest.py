"""A small machine with the Xe device on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mmfw import CompactionScan, MigrateMode, ScanPhase, ShrinkControl, gfp
from mmfw.mm.core import Mm
from mmfw.mm.ledger import Losses
from mmfw.registry import LoadedPlugins
from mmfw.sched import PF_KSWAPD, PF_KTHREAD, PF_MEMALLOC, Scheduler, Task, TaskState
from mmfw.testing import load_mm
from mmfw_xe_shrinker import CompactionBody, XeBo, XeDevice, XeShrinker, XeVm


@dataclass
class Bench:
    """What a test works on."""

    mm: Mm
    plugins: LoadedPlugins

    @property
    def device(self) -> XeDevice:
        device = self.mm.attached.get(XeDevice)
        assert device is not None
        return device

    def vm(self, name: str, *sizes: int) -> XeVm:
        """A VM with resident objects of some sizes, in pages."""
        vm = self.device.create_vm(name)
        for size in sizes:
            self.device.create_bo(vm, size)
        assert self.device.exec(vm) is not None
        return vm

    def idle(self) -> None:
        """Let every job finish."""
        self.mm.sched.run(self.mm.sched.now + 1_000_000_000)

    def spawn(self, fn: Callable[[], object], *, kswapd: bool = False) -> Task:
        flags = PF_KTHREAD | PF_MEMALLOC | PF_KSWAPD if kswapd else PF_MEMALLOC
        return self.mm.sched.spawn(fn, name="kswapd0" if kswapd else "direct", flags=flags, daemon=False)

    def call(self, fn: Callable[[], Any], *, kswapd: bool = False) -> Any:
        """What `fn` returns as a task of its own."""
        task = self.spawn(fn, kswapd=kswapd)
        self.mm.sched.run()
        assert task.state is TaskState.DEAD
        return task.result

    def scan(
        self,
        nr_to_scan: int = 128,
        *,
        mask: int = gfp.GFP_KERNEL,
        kswapd: bool = True,
        abort_on_ebusy: bool = True,
        staged_walk: bool = True,
    ) -> tuple[int, int]:
        """Answer of one scan, and nr_scanned."""
        sc = ShrinkControl(gfp_mask=mask, nid=0, nr_to_scan=nr_to_scan, nr_scanned=nr_to_scan)
        shrinker = XeShrinker(self.device, abort_on_ebusy=abort_on_ebusy, staged_walk=staged_walk)
        return self.call(lambda: shrinker.scan_objects(sc), kswapd=kswapd), sc.nr_scanned

    def compaction_scan(
        self,
        order: int = 9,
        *,
        opportunistic: bool = True,
        mode: MigrateMode = MigrateMode.ASYNC,
        mask: int = gfp.GFP_HIGHUSER,
        offer_working_set: bool = True,
        **fields: int,
    ) -> tuple[int, int]:
        """Answer of one compaction scan of the only large zone, and nr_scanned."""
        (zone,) = (each for each in self.mm.pgdat.node_zones if each.name == "DMA32")
        start, end = zone.zone_start_pfn, zone.zone_start_pfn + zone.spanned_pages
        cs = CompactionScan(
            zone=zone,
            nid=0,
            order=order,
            opportunistic=opportunistic,
            mode=mode,
            gfp_mask=mask,
            migratetype=0,
            phase=ScanPhase.ENTRY,
            **{"pfn_lo": start, "pfn_hi": end, "nr_to_free": 1 << order, **fields},
        )
        body = CompactionBody(self.device, offer_working_set=offer_working_set, native_order=True)
        return self.call(lambda: body.run(cs)), cs.nr_scanned

    @property
    def losses(self) -> Losses:
        """The device's account in the ledger."""
        return next(losses for name, losses in self.mm.ledger if name == "xe")

    def count(self, mask: int = gfp.GFP_KERNEL) -> int:
        return XeShrinker(self.device).count_objects(ShrinkControl(gfp_mask=mask, nid=0))

    def free_pages(self) -> int:
        self.mm.drain_all_pages()
        return self.mm.global_free_pages()

    def evict(self, bo: XeBo) -> int:
        with bo.vm.resv:
            return self.device.shrink_bo(bo)

    def module_exit(self) -> None:
        self.mm.stop_time()
        self.plugins.module_exit(self.mm)


@pytest.fixture
def bench() -> Iterator[Callable[..., Bench]]:
    """Build a machine: ``bench(nr_swap_pages=..., dma32=[...], ram="512M", started=False, xe={...})``."""
    scheds: list[Scheduler] = []

    def build(
        *,
        nr_swap_pages: int = 100_000,
        dma32: list[int] | None = None,
        ram: str = "512M",
        kernel: str = "7.1",
        started: bool = False,
        seed: int = 1,
        nr_cpus: int = 1,
        files: tuple[Path, ...] = (),
        **xe: Any,
    ) -> Bench:
        loaded = load_mm(
            ["xe"],
            ram,
            params={"xe": {"caching": "cached", **xe}},
            buddyinfo=None if dma32 is None else {"DMA32": dma32, "DMA": [0] * 11},
            unmovable_block_fraction=0.3,
            files=files,
            kernel=kernel,
            seed=seed,
            nr_cpus=nr_cpus,
            nr_swap_pages=nr_swap_pages,
        )
        mm = loaded.mm
        scheds.append(mm.sched)
        if started:
            mm.start_time()
        return Bench(mm, loaded.plugins)

    yield build
    for sched in scheds:
        sched.close()
