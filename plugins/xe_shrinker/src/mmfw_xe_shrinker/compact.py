"""What the device gives up to compaction: the third shrinker method, proposed in review of the series of 2026.

The thread says that Xe could offer purgeable objects to any such scan, and its working set to one that must free. What is
looked at in which order is this model's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmfw import SHRINK_STOP, MigrateMode, gfp
from mmfw_xe_shrinker.bo import MemType
from mmfw_xe_shrinker.stats import Evictor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mmfw import CompactionScan
    from mmfw_xe_shrinker.bo import XeBo
    from mmfw_xe_shrinker.device import XeDevice


class CompactionBody:
    """``compaction_scan()`` of "xe system shrinker".

    1. Purgeable objects with a block of the wanted order in the zone, or with a page in ``[pfn_lo, pfn_hi)`` where
       that is less than the zone; oldest first.
    2. If the scan must free (not `opportunistic`): all other purgeable objects of the zone, then the working set of
       the zone, objects with the largest blocks first.

    It ends at ``nr_to_free`` pages, always whole objects. Active objects are left alone unless the mode is SYNC,
    which waits for their jobs; a caller that has reached ``COMPACT_PRIO_SYNC_FULL`` says so by that mode.
    Reservations are only tried. Without ``__GFP_FS`` nothing is backed up, as in ``scan_objects``; a sleeping device
    is not woken.

    Parameters
    ----------
    device : XeDevice
        Whose objects.
    offer_working_set : bool
        Whether step 2 backs anything up.
    native_order : bool
        Whether what it backs up is freed in whole blocks, without which compaction gains nothing from it; False leaves
        that to the pool's own setting.
    """

    def __init__(self, device: XeDevice, *, offer_working_set: bool, native_order: bool) -> None:
        self._device = device
        self._offer_working_set = offer_working_set
        self._native_order = True if native_order else None

    def run(self, cs: CompactionScan) -> int:
        """Free objects; pages freed, or SHRINK_STOP if the device has nothing for such a scan."""
        device = self._device
        backs_up = self._offer_working_set and not cs.opportunistic and bool(cs.gfp_mask & gfp.FS)
        if not device.purgeable_pages and not (backs_up and device.shrinkable_pages):
            return SHRINK_STOP
        may_wait = cs.mode is MigrateMode.SYNC
        start = cs.zone.zone_start_pfn
        end = start + cs.zone.spanned_pages
        objects = [bo for bo in self._objects(may_wait) if bo.tt.has_block_in(start, end)]
        cs.nr_scanned = len(objects)
        device.mm.charge(len(objects) * device.mm.sched.costs.scan_object, "xe compaction scan")
        anywhere = cs.pfn_lo <= start and cs.pfn_hi >= end

        def helps(bo: XeBo) -> bool:
            if bo.tt.has_block_in(start, end, cs.order):
                return True
            return not anywhere and bo.tt.has_block_in(cs.pfn_lo, cs.pfn_hi)

        purgeable = [bo for bo in objects if bo.purgeable]
        order = [bo for bo in purgeable if helps(bo)]
        if not cs.opportunistic:
            order += [bo for bo in purgeable if not helps(bo)]
        if backs_up:
            order += sorted((bo for bo in objects if not bo.purgeable), key=lambda bo: -bo.tt.max_order)
        freed = 0
        for bo in order:
            if freed >= cs.nr_to_free:
                break
            freed += self._take(bo, may_wait=may_wait, may_back_up=backs_up)
        return freed

    def _objects(self, may_wait: bool) -> Iterator[XeBo]:
        """Objects as they lie on the LRUs, but for those that nothing could be done about now."""
        for mem_type in MemType:
            for vm in self._device.vms:
                if not vm.resv.is_locked() and (may_wait or not vm.is_active):
                    yield from tuple(vm.lru[mem_type])

    def _take(self, bo: XeBo, *, may_wait: bool, may_back_up: bool) -> int:
        device, vm = self._device, bo.vm
        if not vm.resv.trylock():
            return 0
        try:
            # Looked at again under the lock: the scan may have slept since it took the list.
            if bo not in vm.lru[bo.mem_type] or not (bo.purgeable or may_back_up):
                return 0
            if vm.is_active and not may_wait:
                return 0
            return max(0, device.shrink_bo(bo, by=Evictor.COMPACTION, native_order=self._native_order) or 0)
        finally:
            vm.resv.unlock()
