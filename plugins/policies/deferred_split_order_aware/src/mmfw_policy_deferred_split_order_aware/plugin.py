"""The policy: a pass for a high order splits only what could give a block of that order."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from mmfw import SHRINK_STOP, CompactionScan, MigrateMode, PluginInfo, ScanPhase, attach, attachment, hookimpl

if TYPE_CHECKING:
    from mmfw import Mm, ReclaimContext, ShrinkControl, ShrinkerOps

MMFW_PLUGIN: Final = PluginInfo(
    name="deferred-split-order-aware", hook_api=(1, 0), kind="policy", acts_on=("deferred-split",)
)
#: Shrinker that is patched; no other plugin registers one of this name.
SHRINKER: Final = "thp-deferred_split"
#: ``HPAGE_PMD_ORDER``.
HPAGE_ORDER: Final = 9
_HPAGE_PAGES: Final = 1 << HPAGE_ORDER


@dataclass(frozen=True, slots=True)
class WantedOrder:
    """Field added to ``struct shrink_control``, as v3 and v4 of the series had it.

    Attributes
    ----------
    order : int
        Order that reclaim works for; 0 once kswapd has dropped it.
    """

    order: int


@hookimpl
def mmfw_init_shrink_control(shrinkctl: ShrinkControl, reclaim_context: ReclaimContext) -> None:
    """Tell the shrinkers the order of the pass (``shrink_slab()``, mm/vmscan.c)."""
    if reclaim_context.order:
        attach(shrinkctl, WantedOrder(reclaim_context.order))


@hookimpl
def mmfw_module_init(mm: Mm) -> None:
    """Patch the shrinker once every plugin is there, whatever the order of loading; without it nothing is patched.

    A timer set here fires before any load runs, as ``late_initcall()`` would; it costs no time.
    """
    mm.sched.call_at(mm.sched.now, lambda: look_at_the_order(mm))


def look_at_the_order(mm: Mm) -> None:
    """Put the rule before ``deferred_split_count()`` and ``deferred_split_scan()`` (mm/huge_memory.c)."""
    for shrinker in mm.shrinkers:
        if shrinker.ops.name == SHRINKER:
            rule = OrderRule(mm, shrinker.ops)
            shrinker.ops = replace(
                shrinker.ops, count_objects=rule.count_objects, scan_objects=rule.scan_objects
            )


class OrderRule:
    """The shrinker as the policy has it: as before for single pages; for order W only huge pages with a free run of W.

    The old shrinker's ``compaction_scan`` splits what can give a block of an order and passes over the rest, which is
    what a pass for that order needs; so the work, its cost and its figures stay that shrinker's.

    Parameters
    ----------
    mm : Mm
        The machine.
    old : ShrinkerOps
        The methods so far; must have ``compaction_scan``.
    """

    def __init__(self, mm: Mm, old: ShrinkerOps) -> None:
        if old.compaction_scan is None:
            raise TypeError(f"{old.name} has no compaction_scan")
        self._mm = mm
        self._old = old
        self._split_range = old.compaction_scan

    def eligible(self, order: int) -> tuple[int, ...]:
        """Heads of queued huge pages with an aligned, wholly unmapped run of `order`, first queued first."""
        if order >= HPAGE_ORDER:
            return ()
        queue = self._mm.memory.deferred_split
        return tuple(
            pfn
            for pfn in queue.split_queue
            if queue.partially_mapped(pfn) and queue.unmapped_order(pfn) >= order
        )

    def count_objects(self, sc: ShrinkControl) -> int:
        """Huge pages that could help the pass; all for single pages."""
        wanted = attachment(sc, WantedOrder)
        return self._old.count_objects(sc) if wanted is None else len(self.eligible(wanted.order))

    def scan_objects(self, sc: ShrinkControl) -> int:
        """Split the first `sc.nr_to_scan` that could help the pass; how many were split."""
        wanted = attachment(sc, WantedOrder)
        if wanted is None:
            return self._old.scan_objects(sc)
        order = wanted.order
        chosen = self.eligible(order)[: sc.nr_to_scan]
        if not chosen:
            return SHRINK_STOP
        queue = self._mm.memory.deferred_split
        nr_unmapped = sum(_HPAGE_PAGES - int(queue.mapped_pages(pfn).sum()) for pfn in chosen)
        self._split_range(
            self._scan(order, min(chosen), max(chosen) + _HPAGE_PAGES, nr_unmapped, sc.gfp_mask)
        )
        left = set(queue.split_queue)
        nr_split = sum(pfn not in left for pfn in chosen)
        return nr_split if nr_split or self.eligible(order) else SHRINK_STOP

    def _scan(self, order: int, pfn_lo: int, pfn_hi: int, nr_to_free: int, gfp_mask: int) -> CompactionScan:
        zone = next(
            zone for zone in self._mm.pgdat.node_zones if zone.zone_start_pfn <= pfn_lo < zone.zone_end_pfn
        )
        return CompactionScan(
            zone=zone,
            nid=zone.node,
            order=order,
            pfn_lo=pfn_lo,
            pfn_hi=pfn_hi,
            nr_to_free=nr_to_free,
            opportunistic=True,
            mode=MigrateMode.ASYNC,
            gfp_mask=gfp_mask,
            migratetype=0,
            phase=ScanPhase.ENTRY,
        )
