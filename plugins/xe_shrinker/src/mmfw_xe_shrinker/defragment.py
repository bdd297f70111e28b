"""Moving idle objects into large blocks: what the driver offers a defragmenter. Mainline never calls it.

Mentioned as under way in the discussion of 2026; no code was posted. The object keeps its content and its place on the
LRU; its pages change, so the next exec must bind it again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmfw_ttm_pool import nr_fragmented_pages, ttm_pool_defragment
from mmfw_xe_shrinker.bo import BoState, MemType

if TYPE_CHECKING:
    from mmfw_xe_shrinker.bo import XeBo
    from mmfw_xe_shrinker.device import XeDevice


def fragmented_bos(device: XeDevice, order: int) -> list[XeBo]:
    """Idle objects that have pages to gain from blocks of an order: most of them first, of equals the one used last.

    Objects of a VM whose job runs or whose reservation is taken are left out, as are pinned and purgeable ones, and those
    that are not in memory. Looking costs ``scan_object`` for each object in memory.

    Parameters
    ----------
    device : XeDevice
        Whose objects.
    order : int
        What the device gains from.
    """
    looked_at = 0
    found: list[tuple[int, XeBo]] = []
    for vm in reversed(device.vms):
        if vm.is_active or vm.resv.is_locked():
            continue
        for mem_type in reversed(MemType):
            looked_at += len(vm.lru[mem_type])
            for bo in reversed(vm.lru[mem_type]):
                nr_pages = nr_fragmented_pages(bo.tt, order) if bo.state is BoState.RESIDENT else 0
                if nr_pages:
                    found.append((nr_pages, bo))
    device.mm.charge(looked_at * device.mm.sched.costs.scan_object, "defragment scan")
    found.sort(key=lambda each: -each[0])
    return [bo for _, bo in found]


def defragment_bo(device: XeDevice, bo: XeBo, order: int) -> int:
    """Move one object, whose reservation is held, into blocks of an order; see ``ttm_pool_defragment()``.

    Nothing is waited for: an object that a job uses, or that the GPU would have to copy while the device sleeps, is
    left alone.

    Returns
    -------
    int
        Pages copied; 0 if the object is not resident and idle, or was not moved.
    """
    if bo.state is not BoState.RESIDENT or bo.vm.is_active:
        return 0
    needs_rpm = device.needs_rpm(bo)
    if needs_rpm and not device.pm.get_if_active():
        return 0
    try:
        return ttm_pool_defragment(device.pool, bo.tt, order, lambda: _unbind(device, bo))
    finally:
        if needs_rpm:
            device.pm.put()


def _unbind(device: XeDevice, bo: XeBo) -> None:
    """Have the next exec bind it again (``xe_bo_trigger_rebind()``)."""
    if bo.is_bound:
        bo.vm.evicted[bo] = None
        device.mm.charge(device.mm.sched.costs.bind_bo, "unbind")
