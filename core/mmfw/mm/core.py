"""`Mm`: what a plugin is given of the simulated mm."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mmfw.attach import Attachments
from mmfw.errors import CallerError
from mmfw.mm.context import SchedContext
from mmfw.mm.filemap import PageCache
from mmfw.mm.freelist import Freelist
from mmfw.mm.kswapd import Kswapd
from mmfw.mm.mmzone import PglistData
from mmfw.mm.page_alloc import PageAllocator
from mmfw.mm.pages import Memory
from mmfw.mm.resident import ResidentPages
from mmfw.mm.rmap import RmapSpace
from mmfw.mm.sanitize import check_memory, owned_pages
from mmfw.mm.shrinker import Shrinker, ShrinkerList
from mmfw.mm.slowpath import Slowpath
from mmfw.mm.swap import SwapStore
from mmfw.mm.trace import Tracepoints
from mmfw.mm.vmscan import Vmscan
from mmfw.mm.vmstat import VmStat
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
        File pages.
    swap : SwapStore
        Where objects are backed up to.
    rmap : RmapSpace
        Owners of movable pages.
    kswapd : Kswapd
        The node's kswapd.
    shrinkers : ShrinkerList
        Registered shrinkers.
    kernel : str
        Kernel profile, such as ``7.1``.
    attached : Attachments
        Plugins' state, by class: how one plugin finds another's.
    """

    def __init__(
        self, state: NodeState, sched: Scheduler, host: MmHost, *, seed: int, kernel: str, nr_swap_pages: int
    ) -> None:
        self.sched = sched
        self.costs = sched.costs
        self.kernel = kernel
        self.attached = Attachments()
        self.trace = Tracepoints()
        self._host = host
        self._seed = seed
        self._started = False
        self._context = SchedContext(sched)
        memory = Memory(state)
        self.vmstat = VmStat(memory)
        self.pgdat = PglistData(memory)
        self.shrinkers = ShrinkerList(
            self.trace, self.vmstat, self._charge_shrinker, self._context.might_sleep
        )
        self.rmap = RmapSpace(memory)
        kswapd_wait = WaitQueue(sched, "kswapd_wait")
        # The page cache allocates and reclaim frees it; the lruvec is what breaks that circle.
        lruvec = _LateLruvec()
        vmscan = Vmscan(
            self.pgdat, self.shrinkers, lruvec, host.ops, kswapd_wait, self._context, self.trace, self.vmstat
        )
        freelist = Freelist(self.pgdat, vmscan, self._context)
        slowpath = Slowpath(freelist, vmscan, None, None, self._context, self.trace, self.vmstat, sched.costs)
        self._freelist = freelist
        self._allocator = PageAllocator(
            freelist, slowpath, self._context, self._charge_alloc, self._charge_free
        )
        self.page_cache = PageCache(self._allocator, self.rmap, self._context, sched.costs, self.vmstat)
        lruvec.target = self.page_cache
        self.swap = SwapStore(sched, self._allocator, self._context, self.vmstat, nr_swap_pages)
        self.kswapd = Kswapd(sched, self.pgdat, vmscan, kswapd_wait)
        self._vmscan = vmscan
        self._resident = ResidentPages(memory, state, self.rng("resident pages"))

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

    def drain_all_pages(self) -> None:
        """Empty every CPU's page lists (``drain_all_pages()``)."""
        self._freelist.drain_all_pages()

    def global_free_pages(self) -> int:
        """Free pages of all zones, per-CPU deltas included (``global_zone_page_state_snapshot(NR_FREE_PAGES)``)."""
        return sum(zone.free_pages_snapshot() for zone in self.pgdat.node_zones if zone.managed_pages)

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
        self.kswapd.kthread_run()
        self.swap.start()

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


class _LateLruvec:
    """Passes reclaim on to the page cache once that exists."""

    target: PageCache | None = None

    def shrink_lruvec(self, sc: Any) -> tuple[int, int]:
        return (0, 0) if self.target is None else self.target.shrink_lruvec(sc)
