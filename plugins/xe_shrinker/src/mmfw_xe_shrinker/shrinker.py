"""The shrinker "xe system shrinker" (``xe_shrinker_count()``, ``xe_shrinker_scan()``, xe_shrinker.c)."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING

from mmfw import SHRINK_EMPTY, SHRINK_STOP, gfp, hookimpl
from mmfw.sched import PF_KSWAPD
from mmfw_xe_shrinker.bo import MemType
from mmfw_xe_shrinker.compact import CompactionBody
from mmfw_xe_shrinker.stats import Evictor

if TYPE_CHECKING:
    from mmfw import CompactionScan, ShrinkControl
    from mmfw_xe_shrinker.bo import XeBo, XeVm
    from mmfw_xe_shrinker.device import XeDevice


class XeShrinker:
    """Gives up whole objects, purgeable ones first; counts pages.

    Parameters
    ----------
    device : XeDevice
        Whose objects.
    abort_on_ebusy : bool
        Whether an object's negative answer ends the walk and hides what the walk freed, as in 6.15 to 7.1.
        In the purge-only pass every object that is not purgeable answers -EBUSY.
    staged_walk : bool
        Whether idle objects go before active ones, as since 6.17; see `mmfw_xe_shrinker.kernels`.
    compaction : CompactionBody, optional
        What it gives up to compaction; by default purgeable objects, and to a scan that must free its working set.
    can_backup_hook : callable, optional
        Caller of ``xe_can_backup``; nobody answers by default.
    """

    seeks = 2
    batch = 0

    def __init__(
        self,
        device: XeDevice,
        *,
        abort_on_ebusy: bool = True,
        staged_walk: bool = True,
        compaction: CompactionBody | None = None,
        can_backup_hook: Callable[[XeDevice, ShrinkControl], bool | None] | None = None,
    ) -> None:
        self._device = device
        self._abort_on_ebusy = abort_on_ebusy
        self._staged_walk = staged_walk
        self._can_backup_hook = can_backup_hook
        self._compaction = compaction or CompactionBody(device, offer_working_set=True, native_order=True)

    @hookimpl
    def count_objects(self, sc: ShrinkControl) -> int:
        """Pages that could be given up; without ``__GFP_FS`` or swap only purgeable ones."""
        device = self._device
        pages = device.purgeable_pages
        if self._can_backup(sc):
            pages += min(device.mm.swap.get_nr_swap_pages(), device.shrinkable_pages)
        return pages or SHRINK_EMPTY

    @hookimpl
    def scan_objects(self, sc: ShrinkControl) -> int:
        """Walk the LRUs once for purgeable objects, then for any; only kswapd waits for the GPU."""
        device = self._device
        kswapd = bool(device.mm.sched.current.flags & PF_KSWAPD)
        can_backup = self._can_backup(sc)
        walk = _Walk(
            device,
            sc.nr_to_scan,
            by=Evictor.KSWAPD if kswapd else Evictor.DIRECT,
            may_wait=kswapd,
            writeback=kswapd and bool(sc.gfp_mask & gfp.IO),
            abort_on_ebusy=self._abort_on_ebusy,
            staged=self._staged_walk,
        )
        freed = 0
        # Awake early if it looks as if purgeable objects will not do.
        awake = can_backup and sc.nr_to_scan > device.purgeable_pages and self._runtime_pm_get(kswapd)
        try:
            if device.purgeable_pages:
                freed += max(0, walk.run(purge_only=True))
            if walk.scanned < sc.nr_to_scan and can_backup:
                awake = awake or self._runtime_pm_get(kswapd)
                freed += max(0, walk.run(purge_only=False))
        finally:
            if awake:
                device.pm.put()
        sc.nr_scanned = walk.scanned
        return freed if walk.scanned else SHRINK_STOP

    @hookimpl
    def compaction_scan(self, cs: CompactionScan) -> int:
        """Purge, and back up if it must be, what compaction could use; see `mmfw_xe_shrinker.compact`."""
        return self._compaction.run(cs)

    def _can_backup(self, sc: ShrinkControl) -> bool:
        if not sc.gfp_mask & gfp.FS:
            return False
        return self._can_backup_hook is None or self._can_backup_hook(self._device, sc) is not False

    def _runtime_pm_get(self, kswapd: bool) -> bool:
        """Take a reference if backups may need one (``xe_shrinker_runtime_pm_get()``); returns whether it did.

        A device that sleeps is woken here only by kswapd, and only if that allocates nothing; else a worker does it
        later, and until then objects that need it are passed over.
        """
        device = self._device
        if not device.flat_ccs or not device.mm.swap.get_nr_swap_pages():
            return False
        if device.pm.get_if_active():
            return True
        if kswapd and device.pm.reclaim_safe:
            device.pm.get()
            return True
        device.pm.queue_resume()
        return False


class _Walk:
    """One scan's walks; `scanned` adds up over them, in pages."""

    def __init__(
        self,
        device: XeDevice,
        to_scan: int,
        *,
        by: Evictor,
        may_wait: bool,
        writeback: bool,
        abort_on_ebusy: bool,
        staged: bool,
    ) -> None:
        self.scanned = 0
        self._device = device
        self._to_scan = to_scan
        self._by = by
        self._staged = staged
        self._may_wait = may_wait
        self._writeback = writeback
        self._abort = abort_on_ebusy

    def run(self, *, purge_only: bool) -> int:
        """Idle objects, then active ones if the caller may wait, then writeback (``xe_shrinker_walk()``).

        Before 6.17 one walk, in which the caller waits, and asks for writeback, if it may.

        Returns
        -------
        int
            Pages freed, or a negative errno if an object ended a stage.
        """
        if not self._staged:
            return self._stage(purge_only, no_wait_gpu=not self._may_wait, writeback=self._writeback)
        freed = self._stage(purge_only, no_wait_gpu=True, writeback=False)
        if freed < 0 or self.scanned >= self._to_scan:
            return freed
        for wanted, writeback in ((self._may_wait, False), (self._writeback, True)):
            if not wanted:
                continue
            more = self._stage(purge_only, no_wait_gpu=not self._may_wait, writeback=writeback)
            if more < 0:
                return more
            freed += more
            if self.scanned >= self._to_scan:
                break
        return freed

    def _stage(self, purge_only: bool, *, no_wait_gpu: bool, writeback: bool) -> int:
        """SYSTEM, then TT, oldest object first (``__xe_shrinker_walk()``).

        Having scanned enough ends the walk of one memory type only, as in the kernel's nested loop.
        """
        freed = 0
        looked_at = 0
        for mem_type in MemType:
            for vm in self._device.vms:
                if not vm.lru[mem_type]:
                    continue
                if vm.resv.is_locked() or (no_wait_gpu and vm.is_active):
                    looked_at += len(vm.lru[mem_type])
                    continue
                ret, tried = self._walk_vm(vm, mem_type, purge_only, no_wait_gpu, writeback)
                looked_at += tried
                if ret < 0:
                    self._charge(looked_at)
                    return ret
                freed += ret
                if ret and self.scanned >= self._to_scan:
                    break
        self._charge(looked_at)
        return freed

    def _charge(self, looked_at: int) -> None:
        self._device.mm.charge(looked_at * self._device.mm.sched.costs.scan_object, "xe shrinker walk")

    def _walk_vm(
        self, vm: XeVm, mem_type: MemType, purge_only: bool, no_wait_gpu: bool, writeback: bool
    ) -> tuple[int, int]:
        """Neighbours on the LRU that share a reservation; whoever holds it keeps all of them.

        Returns
        -------
        (int, int)
            Pages freed or a negative errno, and objects looked at.
        """
        freed = 0
        tried = 0
        for bo in tuple(vm.lru[mem_type]):
            tried += 1
            if not vm.resv.trylock():
                break
            try:
                # Looked at again under the lock: the walk may have slept since it took the list.
                if bo not in vm.lru[mem_type] or (no_wait_gpu and vm.is_active):
                    continue
                ret = self._shrink(bo, purge_only, writeback)
            finally:
                vm.resv.unlock()
            if ret < 0 and self._abort:
                return ret, tried
            freed += max(0, ret)
            if self.scanned >= self._to_scan:
                break
        return freed, tried

    def _shrink(self, bo: XeBo, purge_only: bool, writeback: bool) -> int:
        if purge_only and not bo.purgeable:
            return -errno.EBUSY
        freed = self._device.shrink_bo(bo, by=self._by, writeback=writeback)
        if freed is None:
            return 0  # the device sleeps; not even counted as scanned
        self.scanned += bo.num_pages
        return freed
