"""Every hook of mmfw, in the order in which it fires: the table of contents of a run.

Four kinds. *Assembly* hooks are called once for every loaded plugin, needs first. *Decision* hooks stand
for a decision that mm takes; plugins are asked in the order in which they were named, the first answer that is not None
counts, and `mmfw.mainline`, asked last, always has one. *Amendments* answer nothing: all of them are called, to note
something or to attach a field. Neither kind is asked before every plugin has been initialised. *Shrinker ops* are the
methods of an object given to ``mm.register_shrinker()``.

An implementation may take fewer arguments than the hook has, never others, and none with a default value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import pluggy

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic import BaseModel

    from mmfw.mm.core import Mm
    from mmfw.offers import Metric, Workload
    from mmfw.types import (
        CompactControl,
        CompactionScan,
        KcompactdRequest,
        KcompactdWork,
        KswapdRequest,
        KswapdWake,
        PgdatView,
        ReclaimContext,
        ScanControl,
        ScanPhase,
        ShrinkControl,
        WakePlan,
    )

#: (major, minor). Minor grows when a hook or argument is added, major when one is removed or changes meaning.
HOOK_API: Final = (1, 0)

hookspec: Final = pluggy.HookspecMarker("mmfw")
hookimpl: Final = pluggy.HookimplMarker("mmfw")


class HookPublisher(Protocol):
    """What `mmfw_addhooks` is given."""

    def add_hookspecs(self, namespace: object) -> None:
        """Publish the hookspecs of a module or class; each name begins with the plugin's, underscored."""
        ...


# -----------------------------------------------------------------------------------------------------
# Assembly: once per loaded plugin, in this order
# -----------------------------------------------------------------------------------------------------


@hookspec
def mmfw_addhooks(pluginmanager: HookPublisher) -> None:
    """Publish hookspecs of the plugin's own, for other plugins to implement.

    Stands for: EXPORT_SYMBOL_GPL() of an ops struct.
    Answers: none.
    Context: assembly, before any hook of any plugin is checked against its spec; there is no Mm yet.
    Called: once.

    Parameters
    ----------
    pluginmanager : HookPublisher
        Has the one method ``add_hookspecs(namespace)``. Names begin with the plugin's: ``ttm_``.

    Examples
    --------
    ::

        from mmfw import hookimpl, hookspec

        class TtmSpec:
            @hookspec(firstresult=True)
            def ttm_pool_gfp_mask(self, order: int, flags: int) -> int | None: ...

        @hookimpl
        def mmfw_addhooks(pluginmanager):
            pluginmanager.add_hookspecs(TtmSpec)

    .. versionadded:: hook API 1
    """


@hookspec
def mmfw_plugin_params() -> type[BaseModel]:
    """Name the parameters a user may set for this plugin.

    Stands for: module_param() of a driver.
    Answers: a pydantic model class; its defaults are the driver's, its field descriptions the help text.
    Context: assembly; there is no Mm yet.
    Called: once.

    Examples
    --------
    ::

        from pydantic import BaseModel, Field

        from mmfw import hookimpl

        class Params(BaseModel):
            page_pool_size: int = Field(0, description="pages; 0 means half of RAM")

        @hookimpl
        def mmfw_plugin_params():
            return Params

    .. versionadded:: hook API 1
    """
    raise NotImplementedError


@hookspec
def mmfw_module_init(mm: Mm, params: BaseModel | None) -> None:
    """Build the plugin's state and register its shrinkers.

    Stands for: module_init().
    Answers: none.
    Context: task context before time starts; may allocate, may not sleep.
    Called: once, after the plugins it needs.

    Parameters
    ----------
    mm : Mm
        The simulated mm: ``alloc_pages``, ``free_pages``, ``register_shrinker``, ``sched``, ``costs``.
    params : BaseModel or None
        Validated instance of what `mmfw_plugin_params` named; None if the plugin names nothing.

    Examples
    --------
    ::

        from mmfw import hookimpl

        @hookimpl
        def mmfw_module_init(mm, params):
            pool = Pool(mm, params.page_pool_size)
            mm.register_shrinker(PoolShrinker(pool), "drm-ttm_pool")

    .. versionadded:: hook API 1
    """


@hookspec
def mmfw_register_workloads() -> Iterable[Workload]:
    """Offer workloads for scenarios to start.

    Stands for: nothing in the kernel; what user space does to it.
    Answers: any number of `Workload`; names are unique over all loaded plugins.
    Context: assembly, after every `mmfw_module_init`.
    Called: once.

    Examples
    --------
    ::

        from mmfw import Workload, hookimpl

        @hookimpl
        def mmfw_register_workloads():
            yield Workload("file-copy", "Copy a file larger than memory", run=file_copy)

    .. versionadded:: hook API 1
    """
    raise NotImplementedError


@hookspec
def mmfw_register_metrics() -> Iterable[Metric]:
    """Offer figures for a run's result.

    Stands for: a driver's debugfs files.
    Answers: any number of `Metric`; names begin with the plugin's, underscored.
    Context: assembly, after every `mmfw_module_init`; `Metric.read` is called while time stands still.
    Called: once.

    Examples
    --------
    ::

        from mmfw import Metric, hookimpl

        @hookimpl
        def mmfw_register_metrics():
            yield Metric("xe_bo_evictions", "1", "counter", "lower", "BOs backed up", read=evictions)

    .. versionadded:: hook API 1
    """
    raise NotImplementedError


# -----------------------------------------------------------------------------------------------------
# Shrinker ops: methods of the objects a plugin registers in mmfw_module_init
# -----------------------------------------------------------------------------------------------------


class ShrinkerOpsSpec:
    """Methods of a shrinker; ``seeks``, ``batch`` and ``flags`` are plain attributes beside them.

    Objects are whatever the shrinker counts. A second task may enter while the first one sleeps in a method.
    """

    @hookspec
    def count_objects(self, sc: ShrinkControl) -> int:
        """Say how many objects could be freed.

        Stands for: shrinker->count_objects(), include/linux/shrinker.h; called by do_shrink_slab().
        Answers: a count; 0 = cannot tell, or skip me this time; SHRINK_EMPTY = there is nothing at all.
        Context: kswapd or direct reclaim; may not sleep, free or allocate.
        Called: once per shrinker and priority of every pass that shrinks slab.

        Examples
        --------
        ::

            from mmfw import SHRINK_EMPTY, hookimpl

            @hookimpl
            def count_objects(self, sc):
                return self.pool.allocated_pages or SHRINK_EMPTY

        .. versionadded:: hook API 1
        """
        raise NotImplementedError

    @hookspec
    def scan_objects(self, sc: ShrinkControl) -> int:
        """Free about ``sc.nr_to_scan`` objects.

        Stands for: shrinker->scan_objects(), include/linux/shrinker.h; called by do_shrink_slab().
        Answers: objects freed, 0 included; SHRINK_STOP = no progress possible now, ask no more this pass.
        Sets ``sc.nr_scanned`` where it looked at more or fewer objects than asked.
        Context: kswapd or direct reclaim, PF_MEMALLOC; may sleep and allocate within ``sc.gfp_mask``.
        Called: once per batch while a batch is due.

        Examples
        --------
        ::

            from mmfw import SHRINK_STOP, hookimpl

            @hookimpl
            def scan_objects(self, sc):
                sc.nr_scanned = freed = self.pool.shrink(sc.nr_to_scan)
                return freed or SHRINK_STOP

        .. versionadded:: hook API 1
        """
        raise NotImplementedError

    @hookspec
    def compaction_scan(self, cs: CompactionScan) -> int:
        """Free objects as large as, or physically near, what compaction wants. Optional.

        Stands for: nothing in 6.1; the third shrinker method proposed in review of the series.
        Answers: pages freed, 0 included; SHRINK_STOP = no progress possible now.
        Context: kcompactd or direct compaction, no reclaim below it; may sleep unless ``cs.mode`` is ASYNC.
        Called: where `mmfw_plan_compaction_scan` asks for it, once per shrinker that has it; never by mainline. For what
        lies in one pageblock only if `compaction_holds` says that something does.

        Examples
        --------
        ::

            from mmfw import hookimpl

            @hookimpl
            def compaction_scan(self, cs):
                return self.pool.free_blocks(cs.pfn_lo, cs.pfn_hi, min_order=cs.order - 1)

        .. versionadded:: hook API 1
        """
        raise NotImplementedError

    @hookspec
    def compaction_holds(self, cs: CompactionScan) -> int:
        """Say how many pages in ``cs.pfn_lo`` to ``cs.pfn_hi`` are the shrinker's own and could go. Optional.

        Stands for: nothing in 6.1; whose a page is, as a flag or ``page->private`` could tell the migration scanner of
        the proposed third method.
        Answers: pages that `compaction_scan` may free there for such a scan, or an estimate above 0; 0 = none.
        Context: kcompactd or direct compaction; may not sleep, free, allocate or charge: the pages were just looked at.
        Called: for a `CompactionScan` after a pageblock, before `compaction_scan`; who lacks it is not asked there.

        Examples
        --------
        ::

            from mmfw import hookimpl

            @hookimpl
            def compaction_holds(self, cs):
                return self.pool.nr_pages_in(cs.pfn_lo, cs.pfn_hi)

        .. versionadded:: hook API 1
        """
        raise NotImplementedError


# -----------------------------------------------------------------------------------------------------
# Decisions: allocation and wake-ups
# -----------------------------------------------------------------------------------------------------


@hookspec(firstresult=True)
def mmfw_plan_wakeup(pgdat: PgdatView, wake: KswapdWake) -> WakePlan | None:
    """Decide which background thread a wake-up goes to, and at which order.

    Stands for: mm/vmscan.c wakeup_kswapd(), before it records order and zone index. What follows stays
    mainline's: a running kswapd is not woken again, nor one whose node is hopeless or balanced.
    Answers: a `WakePlan`; None = not mine, ask the next. Mainline plans kswapd at ``wake.order``.
    Context: the allocating task, possibly atomic; may not sleep, allocate or reclaim.
    Called: once per node and slow path entry, and per boosted watermark. On a machine of several CPUs a run of eight
    single pages at the most that a batch takes below low while kswapd is awake counts as one entry
    (`mmfw.mm.page_alloc.PageAllocator.alloc_pages_batch`).

    Parameters
    ----------
    pgdat : PgdatView
        Node whose kswapd would be woken.
    wake : KswapdWake
        Order, mask and zone index of the request, and who asks.

    Examples
    --------
    ::

        from mmfw import WakePlan, hookimpl

        @hookimpl
        def mmfw_plan_wakeup(wake):
            if wake.order == 0:
                return None
            return WakePlan(kswapd_order=None, kcompactd_order=wake.order)

    .. versionadded:: hook API 1
    """


@hookspec
def mmfw_fold_kswapd_waker(pgdat: PgdatView, wake: KswapdWake) -> None:
    """Note who asks kswapd for something, whether it sleeps or runs.

    Stands for: mm/vmscan.c wakeup_kswapd(), where it raises ``kswapd_order``.
    Answers: none; all implementations are called. Attach what is noted to ``pgdat``.
    Context: the allocating task, possibly atomic; may not sleep, allocate or reclaim.
    Called: once per wake-up that `mmfw_plan_wakeup` leaves to kswapd; so not for each page of a run of single pages that
    counts as one entry there.

    Parameters
    ----------
    pgdat : PgdatView
        Node whose kswapd is asked.
    wake : KswapdWake
        The waker's own order and mask.

    Examples
    --------
    ::

        from mmfw import attach, hookimpl

        @hookimpl
        def mmfw_fold_kswapd_waker(pgdat, wake):
            if wake.order == 0:
                attach(pgdat, SawOrderZero())

    .. versionadded:: hook API 1
    """


@hookspec
def mmfw_kswapd_begin(pgdat: PgdatView, request: KswapdRequest) -> None:
    """Take over what wakers have noted: kswapd takes its request and clears it.

    Stands for: mm/vmscan.c kswapd(), where it reads and resets ``kswapd_order``.
    Answers: none; all implementations are called.
    Context: kswapd; may not sleep, allocate or reclaim.
    Called: once per pass of kswapd, before it.

    Examples
    --------
    ::

        from mmfw import attach, attachment, hookimpl

        @hookimpl
        def mmfw_kswapd_begin(pgdat, request):
            attach(pgdat, ThisRun(attachment(pgdat, Folded)))

    .. versionadded:: hook API 1
    """


@hookspec
def mmfw_kswapd_requeue(pgdat: PgdatView, request: KswapdRequest) -> None:
    """Put back what was taken: kswapd was woken from its nap, and its request counts again.

    Stands for: mm/vmscan.c kswapd_try_to_sleep(), where it restores ``kswapd_order`` after a premature wake-up.
    Answers: none; all implementations are called.
    Context: kswapd; may not sleep, allocate or reclaim.
    Called: once per premature wake-up.

    Examples
    --------
    ::

        from mmfw import attach, attachment, hookimpl

        @hookimpl
        def mmfw_kswapd_requeue(pgdat, request):
            attach(pgdat, Folded(attachment(pgdat, ThisRun)))

    .. versionadded:: hook API 1
    """


@hookspec(firstresult=True)
def mmfw_should_wake_kcompactd(pgdat: PgdatView, request: KcompactdRequest) -> bool | None:
    """Decide whether kcompactd hears of a request at all.

    Stands for: mm/compaction.c wakeup_kcompactd(), before it records order and zone index. What follows stays
    mainline's: a running kcompactd is not woken again, nor one none of whose zones is suitable.
    Answers: True = record it; False = neither record it nor wake anybody; None = not mine, ask the next. Mainline
    answers True.
    Context: kswapd, as it goes to sleep or has reclaimed a boost; else the allocating task, possibly atomic. May not
    sleep, allocate or reclaim.
    Called: once per request above order 0, those of a `WakePlan` included. Not for what kcompactd looks at by itself
    (proactive compaction).

    Parameters
    ----------
    pgdat : PgdatView
        Node whose kcompactd is asked.
    request : KcompactdRequest
        Order and zone index of this request alone.

    Examples
    --------
    ::

        from mmfw import PAGE_ALLOC_COSTLY_ORDER, hookimpl

        @hookimpl
        def mmfw_should_wake_kcompactd(request):
            return False if request.order <= PAGE_ALLOC_COSTLY_ORDER else None

    .. versionadded:: hook API 1
    """


# -----------------------------------------------------------------------------------------------------
# Decisions: reclaim
# -----------------------------------------------------------------------------------------------------


@hookspec(firstresult=True)
def mmfw_should_shrink_slab(reclaim_context: ReclaimContext) -> bool | None:
    """Decide whether a reclaim pass calls the shrinkers.

    Stands for: mm/vmscan.c shrink_node_memcgs(), the call of shrink_slab() after the LRU lists.
    Answers: True = call every shrinker; False = call none in this pass at this priority, deferred work stays;
    None = not mine, ask the next. Mainline answers True.
    Context: kswapd or direct reclaim, PF_MEMALLOC; may not sleep, allocate or reclaim.
    Called: once per node and priority.

    Parameters
    ----------
    reclaim_context : ReclaimContext
        The node, the pass and who runs it.

    Examples
    --------
    ::

        from mmfw import PAGE_ALLOC_COSTLY_ORDER, hookimpl

        @hookimpl
        def mmfw_should_shrink_slab(reclaim_context):
            if reclaim_context.order > PAGE_ALLOC_COSTLY_ORDER:
                return False
            return None

    .. versionadded:: hook API 1
    """


@hookspec
def mmfw_init_shrink_control(shrinkctl: ShrinkControl, reclaim_context: ReclaimContext) -> None:
    """Add fields to the control that a shrinker is about to be called with.

    Stands for: mm/vmscan.c shrink_slab(), which fills ``struct shrink_control``; where a patch adds a field.
    Answers: none; all implementations are called, each attaches a class of its own.
    Context: kswapd or direct reclaim, PF_MEMALLOC; may not sleep, allocate or reclaim.
    Called: once per shrinker, node and priority. Not for ``drop_slab()``, which has no pass.

    Parameters
    ----------
    shrinkctl : ShrinkControl
        Fresh; `attach` fields to it.
    reclaim_context : ReclaimContext
        The pass it belongs to.

    Examples
    --------
    ::

        from mmfw import attach, hookimpl

        @hookimpl
        def mmfw_init_shrink_control(shrinkctl, reclaim_context):
            attach(shrinkctl, WantedOrder(reclaim_context.order))

    .. versionadded:: hook API 1
    """


@hookspec(firstresult=True)
def mmfw_should_count_kswapd_failure(pgdat: PgdatView, sc: ScanControl) -> bool | None:
    """Decide whether a pass that reclaimed nothing brings kswapd nearer to giving the node up.

    Stands for: mm/vmscan.c balance_pgdat(), where it raises ``kswapd_failures``; at 16 kswapd stays asleep.
    Answers: True = count it; False = the pass was kept from reclaiming, so it was no failure; None = not mine, ask
    the next. Mainline answers True.
    Context: kswapd; may not sleep, allocate or reclaim.
    Called: once per pass of kswapd that reclaimed nothing.

    Examples
    --------
    ::

        from mmfw import hookimpl

        @hookimpl
        def mmfw_should_count_kswapd_failure(sc):
            return False if sc.order > 0 else None

    .. versionadded:: hook API 1
    """


# -----------------------------------------------------------------------------------------------------
# Decisions: compaction
# -----------------------------------------------------------------------------------------------------


@hookspec(firstresult=True)
def mmfw_plan_kcompactd_work(pgdat: PgdatView, request: KcompactdRequest) -> KcompactdWork | None:
    """Decide what kcompactd does about its request, as it begins.

    Stands for: mm/compaction.c kcompactd_do_work(), where it reads ``kcompactd_max_order`` and fills its
    ``struct compact_control``. What follows stays mainline's: zones that are deferred or unsuitable are passed over,
    and the request counts as served, unless a higher order was asked for meanwhile.
    Answers: a `KcompactdWork`; None = not mine, ask the next. Mainline plans the request as it is, in SYNC_LIGHT mode.
    Context: kcompactd; may not sleep, allocate or reclaim.
    Called: once per wake-up of kcompactd that somebody asked for, before the first zone.

    Parameters
    ----------
    pgdat : PgdatView
        Node of this kcompactd.
    request : KcompactdRequest
        Highest order of those who asked, and the lowest of their zone indices.

    Examples
    --------
    ::

        from mmfw import KcompactdWork, hookimpl

        @hookimpl
        def mmfw_plan_kcompactd_work(pgdat, request):
            if pgdat.pgdat_balanced(0, request.highest_zoneidx):
                return None
            return KcompactdWork(0, request.highest_zoneidx)

    .. versionadded:: hook API 1
    """


@hookspec(firstresult=True)
def mmfw_plan_compaction_scan(cc: CompactControl, phase: ScanPhase) -> CompactionScan | None:
    """Decide whether ``compact_zone()`` asks the shrinkers for memory, and for what.

    Stands for: nothing in 6.1; the call sites in mm/compaction.c compact_zone() that were proposed in review.
    Answers: a `CompactionScan`, with which every shrinker's ``compaction_scan`` is called; None = not mine, ask the next.
    Mainline answers None too: no shrinker is called.
    Context: kcompactd or direct compaction (PF_MEMALLOC); may not sleep, allocate or reclaim. What the shrinkers free
    is drained from this CPU's lists, and direct compaction may capture a block of its order from it.
    Called: ENTRY before the suitability test of each zone, PAGEBLOCK when the migration scanner has finished a pageblock
    and left pages in it that it can never move (``cc.migrate_pfn`` is its end), FINISH when the scanners have met
    without success. Zones that are deferred are not reached. A shrinker that answers SHRINK_STOP is not asked again in
    the run over this zone; PAGEBLOCK is not called again in it once the answer was None, nor once no shrinker
    with ``compaction_holds`` is left to ask. After a pageblock only those are asked that hold something in it.

    Parameters
    ----------
    cc : CompactControl
        The run: zone, order, mask, mode, who runs it. Not to be changed.
    phase : ScanPhase
        Where the run stands.

    Examples
    --------
    ::

        from mmfw import CompactionScan, ScanPhase, hookimpl

        @hookimpl
        def mmfw_plan_compaction_scan(cc, phase):
            if phase is not ScanPhase.FINISH or cc.order < 1:
                return None
            return CompactionScan.of(cc, phase, opportunistic=True)

    .. versionadded:: hook API 1
    """


# -----------------------------------------------------------------------------------------------------
# The end
# -----------------------------------------------------------------------------------------------------


@hookspec
def mmfw_module_exit(mm: Mm) -> None:
    """Give back every page the plugin holds.

    Stands for: module_exit().
    Answers: none.
    Context: task context after the last workload; may free, may not sleep. The leak check follows.
    Called: once, before the plugins it needs.

    Examples
    --------
    ::

        from mmfw import hookimpl

        @hookimpl
        def mmfw_module_exit(mm):
            for pool in pools_of(mm):
                pool.free_all()

    .. versionadded:: hook API 1
    """
