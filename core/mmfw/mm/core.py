"""`Mm`: what a plugin is given of the simulated mm."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mmfw.attachments import Attachments
from mmfw.errors import CallerError
from mmfw.gfp import GFP_KERNEL
from mmfw.jit import page as pg
from mmfw.kernels import kernel_profile
from mmfw.mm.balance import Balancer
from mmfw.mm.block import BlockDevice
from mmfw.mm.capture import TaskCapture
from mmfw.mm.compaction import Compaction
from mmfw.mm.context import SchedContext
from mmfw.mm.freelist import Freelist
from mmfw.mm.initial_lru import adopt_lru_pages
from mmfw.mm.kcompactd import Kcompactd
from mmfw.mm.kswapd import Kswapd
from mmfw.mm.ledger import Ledger
from mmfw.mm.lru_scan import LruScan
from mmfw.mm.lruvec import Lruvec
from mmfw.mm.memory import AnonMemory, Vma
from mmfw.mm.mmzone import PglistData
from mmfw.mm.oom_kill import OomControl
from mmfw.mm.page_alloc import PageAllocator
from mmfw.mm.page_cache import PageCache
from mmfw.mm.page_io import PageIo
from mmfw.mm.pages import Memory
from mmfw.mm.requests import RequestStats
from mmfw.mm.resident import ResidentPages
from mmfw.mm.rmap import RmapSpace
from mmfw.mm.sanitize import check_memory, owned_pages
from mmfw.mm.shrinker import Shrinker, ShrinkerList
from mmfw.mm.slab_common import SlabAllocator
from mmfw.mm.slab_host import SlabHost
from mmfw.mm.slowpath import Slowpath
from mmfw.mm.swap import SwapStore
from mmfw.mm.sysctl import SysctlVm
from mmfw.mm.trace import Tracepoints
from mmfw.mm.vmpressure import VmPressure
from mmfw.mm.vmscan import Vmscan
from mmfw.mm.vmstat import VmEvent, VmStat
from mmfw.mm.wakeup import KswapdRequests
from mmfw.mm.xarray_nodes import XarrayNodes
from mmfw.rawrandom import Rng
from mmfw.sched import PF_KTHREAD, Scheduler, Task, WaitQueue
from mmfw.state import PAGEBLOCK_ORDER, NodeState

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mmfw.types import MmOps, ShrinkerOps


@dataclass(frozen=True, slots=True)
class MmHost:
    """What the plugin layer lends to mm, so that mm need not know it.

    Attributes
    ----------
    ops : MmOps
        The decisions.
    bind_shrinker : callable
        ``bind_shrinker(shrinker, name)`` checks an object's methods and returns its `ShrinkerOps`.
    hook : callable
        ``hook(name)`` returns the caller of a hook that a plugin published.
    """

    ops: MmOps
    bind_shrinker: Callable[[object, str], ShrinkerOps]
    hook: Callable[[str], Callable[..., Any]]


class Mm:
    """The mm of one machine: pages, shrinkers, reclaim, time.

    Plugins get it in ``mmfw_module_init``. What is public here, and on the objects named here, is what a
    plugin may use.

    Attributes
    ----------
    sched : Scheduler
        Virtual time; ``sched.current``, sleeping, locks, fences.
    costs : CostProfile
        What work costs, in ns.
    pgdat : PglistData
        The node and its zones.
    vmstat : VmStat
        Event counters.
    trace : Tracepoints
        Who listens to which event.
    page_cache : PageCache
        Files.
    memory : AnonMemory
        Anonymous mappings.
    lruvec : Lruvec
        The LRU lists, on which the pages of both wait.
    compaction : Compaction
        Compaction, and deferral.
    kcompactd : Kcompactd
        The node's kcompactd.
    oom : OomControl
        The OOM killer; its ``printk`` says where its report goes.
    page_io : PageIo
        Writeback.
    swap : SwapStore
        Where objects are backed up to.
    rmap : RmapSpace
        Owners of movable pages.
    slab : SlabAllocator
        Slab caches: ``slab.kmem_cache_create(name, size)`` makes one.
    kswapd : Kswapd
        The node's kswapd.
    shrinkers : ShrinkerList
        Registered shrinkers.
    ledger : Ledger
        What subsystems lose to reclaim; shrinkers report to it.
    requests : RequestStats
        How requests for pages fared.
    kernel : str
        Kernel profile, such as ``7.1``.
    attached : Attachments
        Plugins' state, by class: how one plugin finds another's.
    """

    def __init__(
        self,
        state: NodeState,
        sched: Scheduler,
        host: MmHost,
        *,
        seed: int,
        kernel: str,
        nr_swap_pages: int,
        vm: SysctlVm | None = None,
        vmpressure: bool = False,
    ) -> None:
        self.sched = sched
        self.costs = sched.costs
        self.kernel = kernel
        profile = kernel_profile(kernel)
        self.attached = Attachments()
        self.trace = Tracepoints()
        self._host = host
        self._seed = seed
        self._started = False
        self._context = context = SchedContext(sched)
        memory = Memory(state)
        memory.set_sysctls(SysctlVm() if vm is None else vm)
        memory.total_swap_pages = nr_swap_pages
        memory.S[pg.S_NODE_STAT + pg.NS_FREE_SWAP] = nr_swap_pages
        self.vmstat = vmstat = VmStat(memory)
        self.pgdat = pgdat = PglistData(memory)
        trace, costs = self.trace, sched.costs
        self.shrinkers = ShrinkerList(trace, vmstat, self._charge_shrinker, context.might_sleep)
        self.rmap = RmapSpace(memory)
        self.lruvec = Lruvec(memory, self.rmap, context)
        swap_device = BlockDevice(sched, page_ns=costs.swap_out_page, latency_ns=costs.swap_in_page)
        file_device = BlockDevice(sched, page_ns=costs.writeback_page)
        self.page_io = PageIo(sched, memory, self.lruvec, vmstat, swap_device, file_device)
        capture = TaskCapture(context)
        kcompactd_wait = WaitQueue(sched, "kcompactd_wait")
        self.compaction = Compaction(
            pgdat,
            self.rmap,
            self.shrinkers,
            capture,
            host.ops,
            kcompactd_wait,
            context,
            trace,
            vmstat,
            costs,
            profile,
        )
        lru_scan = LruScan(pgdat, self.lruvec, self.rmap, self.page_io, context, trace, vmstat, costs)
        kswapd_wait = WaitQueue(sched, "kswapd_wait")
        kswapd_requests = KswapdRequests(
            pgdat, self.compaction.wakeup_kcompactd, host.ops, kswapd_wait, trace
        )
        self._vmpressure = VmPressure(sched) if vmpressure else None
        vmscan = Vmscan(
            pgdat,
            self.shrinkers,
            self.lruvec,
            lru_scan,
            self.compaction,
            host.ops,
            kswapd_requests,
            WaitQueue(sched, "pfmemalloc_wait"),
            context,
            trace,
            vmstat,
            profile,
            self._vmpressure,
            costs.direct_shrink_node,
        )
        self.compaction.zone_reclaimable_pages = vmscan.zone_reclaimable_pages
        self._freelist = freelist = Freelist(pgdat, kswapd_requests, context)
        # The OOM killer needs mappings, which need the allocator, whose slow path ends at the OOM killer.
        self.ledger = Ledger(sched, memory)
        self.requests = RequestStats()
        slowpath = Slowpath(freelist, vmscan, self.compaction, None, context, trace, vmstat, costs, profile)
        self._allocator = PageAllocator(
            freelist, slowpath, context, self._charge_alloc, self._charge_free, capture, self.requests
        )
        slab_host = SlabHost(
            freelist,
            self._allocator,
            context,
            vmscan.account_reclaimed_slab,
            self._charge_alloc,
            self._charge_free,
        )
        self.slab = SlabAllocator(slab_host, self.rng)
        nodes = XarrayNodes(self.slab, self.shrinkers, self.rmap, memory, context, costs, vmstat)
        self.page_cache = PageCache(
            self._allocator, self.lruvec, self.rmap, self.page_io, nodes, sched, context, costs, vmstat
        )
        self.memory = AnonMemory(
            self._allocator,
            self.lruvec,
            self.rmap,
            swap_device,
            sched,
            context,
            costs,
            vmstat,
            memory.vm.page_cluster,
        )
        managed = sum(zone.managed_pages for zone in pgdat.node_zones)
        self.oom = OomControl(sched, self.memory, trace, vmstat, managed + nr_swap_pages)
        slowpath.oom = self.oom
        self.swap = SwapStore(
            self._allocator, self.lruvec, self.rmap, self.page_io, context, costs, vmstat, memory
        )
        self.kswapd = Kswapd(sched, kswapd_requests, Balancer(vmscan, vmstat), kswapd_wait, trace, vmstat)
        self.kcompactd = Kcompactd(sched, self.compaction, kcompactd_wait, trace)
        self.compaction.kswapd_is_running = lambda: self.kswapd.running
        self._vmscan = vmscan
        self._resident = ResidentPages(memory, state, self.rng("resident pages"))
        self.initramfs_pages = adopt_lru_pages(memory, state, self.lruvec, self.rmap)

    # --- pages --------------------------------------------------------------------------------------

    def alloc_pages(self, gfp_mask: int, order: int) -> int:
        """Allocate 1 << order pages; first pfn, or -1 where the kernel returns NULL (``alloc_pages()``)."""
        return self._allocator.alloc_pages(gfp_mask, order)

    def alloc_pages_batch(self, gfp_mask: int, order: int, count: int) -> NDArray[np.int64]:
        """Allocate blocks of one order as a loop would; first pfns, fewer than ``count`` after a failure."""
        return self._allocator.alloc_pages_batch(gfp_mask, order, count)

    def free_pages(self, pfn: int, order: int) -> None:
        """Free a block (``__free_pages()``)."""
        self._allocator.free_pages(pfn, order)

    def free_pages_batch(self, pfns: NDArray[np.int64], order: int) -> None:
        """Free blocks of one order in the order given."""
        self._allocator.free_pages_batch(pfns, order)

    def split_page(self, pfn: int, order: int) -> None:
        """Turn an allocated block into 1 << order allocated pages (``split_page()``)."""
        self._allocator.split_page(pfn, order)

    def claim_resident(self, nr_pages: int, *, movable: bool, what: str) -> NDArray[np.int64]:
        """Own order-0 pages that the initial state holds allocated; only before time starts.

        Parameters
        ----------
        nr_pages : int
            How many.
        movable : bool
            Whether they should lie in Movable pageblocks.
        what : str
            Who they are for, named in the error if there are too few.
        """
        return self._resident.claim(nr_pages, movable=movable, what=what)

    def mmap_anonymous(
        self, nr_pages: int, *, thp: bool = False, madvised: bool = False, oom_score_adj: int = 0
    ) -> Vma:
        """A new anonymous mapping of the running task; see `mmfw.mm.memory.AnonMemory.mmap`."""
        return self.memory.mmap(nr_pages, thp=thp, madvised=madvised, oom_score_adj=oom_score_adj)

    def drop_caches(self, *, page_cache: bool = True, slab: bool = True) -> None:
        """``echo 3 > /proc/sys/vm/drop_caches``, or 1 or 2 (fs/drop_caches.c)."""
        if page_cache:
            self.page_cache.drop_pagecache()
        if slab:
            self.vmstat.count(VmEvent.drop_slab)
            shift = 0
            while self.shrinkers.shrink_slab(GFP_KERNEL, self.pgdat.node_id, 0) >> shift > 1:
                shift += 1

    def compact_memory(self) -> None:
        """``echo 1 > /proc/sys/vm/compact_memory``."""
        self.compaction.compact_node(proactive=False)

    def account_reclaimed_slab(self, nr_pages: int) -> None:
        """Credit pages of a slab or buffer cache to the running task's reclaim (``reclaim_state``)."""
        self._vmscan.account_reclaimed_slab(nr_pages)

    def drain_all_pages(self) -> None:
        """Empty every CPU's page lists (``drain_all_pages()``)."""
        self._freelist.drain_all_pages()

    def global_free_pages(self) -> int:
        """Free pages of all zones, per-CPU deltas included (``global_zone_page_state_snapshot(NR_FREE_PAGES)``)."""
        return self.pgdat.free_pages_snapshot()

    def global_zone_free_pages(self) -> int:
        """Free pages of all zones without the CPUs' private deltas (``global_zone_page_state(NR_FREE_PAGES)``)."""
        return sum(zone.nr_free_pages for zone in self.pgdat.node_zones if zone.managed_pages)

    def cond_resched(self) -> None:
        """Let another task run if one should (``cond_resched()``)."""
        self._context.might_sleep()

    def buddyinfo(self) -> dict[str, list[int]]:
        """Free blocks by zone name and order, as /proc/buddyinfo shows them."""
        return {
            zone.name: [zone.nr_free(order) for order in range(11)]
            for zone in self.pgdat.node_zones
            if zone.managed_pages
        }

    # --- shrinkers, hooks, tasks ----------------------------------------------------------------------

    def register_shrinker(self, shrinker: object, name: str) -> Shrinker:
        """Register an object with shrinker methods (``register_shrinker()``; since 6.7 ``shrinker_register()``)."""
        return self.shrinkers.register_shrinker(self._host.bind_shrinker(shrinker, name))

    def unregister_shrinker(self, shrinker: Shrinker) -> None:
        """Take a shrinker off the list (``unregister_shrinker()``)."""
        self.shrinkers.unregister_shrinker(shrinker)

    def hook(self, name: str) -> Callable[..., Any]:
        """The caller of a hook that a plugin published; arguments by position. Ask once and keep it."""
        return self._host.hook(name)

    def kthread_run(self, fn: Callable[[], object], name: str) -> Task:
        """Start a thread of a plugin's own (``kthread_run()``)."""
        return self.sched.spawn(fn, name=name, flags=PF_KTHREAD)

    def charge(self, ns: int, account: str) -> None:
        """Let virtual time pass for the current task; none passes before the run starts."""
        self._context.charge(ns, account)

    def rng(self, name: str) -> Rng:
        """A random stream of its own for each name, decided by the run's seed."""
        digest = hashlib.sha256(f"{self._seed}:{name}".encode()).digest()
        return Rng(int.from_bytes(digest[:8], "little"))

    def start_time(self) -> None:
        """End the set-up: from here on work costs time. Called once, by assembly."""
        if self._started:
            raise CallerError("start_time() is for assembly, which calls it once")
        self._started = True
        self._context.time_stands_still = False
        self.requests.clear()
        self.kswapd.kthread_run()
        self.kcompactd.kthread_run()
        if self._vmpressure is not None:
            self._vmpressure.start()
        self.page_io.start()

    def stop_time(self) -> None:
        """Begin the take-down: from here on nothing costs time."""
        self._context.time_stands_still = True

    def nr_allocated_pages(self) -> int:
        """Pages in allocated blocks that somebody owns: allocated in this run, or claimed from its first state."""
        return owned_pages(self.pgdat.memory)

    def check_memory(self, total: int | None = None) -> int:
        """Check that the allocator's memory is whole; see `mmfw.mm.sanitize.check_memory`."""
        return check_memory(self.pgdat.memory, total)

    # --- costs ----------------------------------------------------------------------------------------

    def _charge_alloc(self, count: int, order: int) -> None:
        costs = self.sched.costs
        pcp = order <= 3 or order == PAGEBLOCK_ORDER
        self._context.charge(count * (costs.alloc_pcp if pcp else costs.alloc_buddy), "alloc_pages")

    def _charge_free(self, count: int, order: int) -> None:
        costs = self.sched.costs
        pcp = order <= 3 or order == PAGEBLOCK_ORDER
        self._context.charge(count * (costs.free_pcp if pcp else costs.free_buddy), "free_pages")

    def _charge_shrinker(self) -> None:
        costs = self.sched.costs
        self._context.charge(costs.shrink_slab_call + costs.count_objects, "shrink_slab")
