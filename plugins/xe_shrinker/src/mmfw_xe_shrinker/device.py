"""The device: its objects' accounting, their population, and exec (xe_device.c, xe_bo.c, xe_exec.c)."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from mmfw import InputError
from mmfw.sched import Fence, Mutex
from mmfw_ttm_pool import (
    Caching,
    OperationCtx,
    TtmPool,
    ttm_pool_alloc,
    ttm_pool_backup,
    ttm_pool_drop_backed_up,
    ttm_pool_free,
    ttm_pool_restore_and_alloc,
)
from mmfw_xe_shrinker.bo import MemType, XeBo, XeVm

if TYPE_CHECKING:
    from mmfw import Mm
    from mmfw_ttm_pool.tt import Pfns

#: ``xe_bo_validate()`` opts out of the OOM killer.
VALIDATE_CTX: Final = OperationCtx(gfp_retry_mayfail=True)


@dataclass(slots=True)
class XeStats:
    """What happened to objects; counts of objects, or of pages where the name says so.

    Attributes
    ----------
    free_pages_at_eviction : list of int
        The machine's free pages as each eviction began, in order.
    """

    bo_evictions: int = 0
    evicted_pages: int = 0
    bo_restores: int = 0
    restored_pages: int = 0
    bo_purges: int = 0
    purged_pages: int = 0
    exec_failures: int = 0
    free_pages_at_eviction: list[int] = field(default_factory=list)


class XeDevice:
    """One integrated GPU and its buffer objects (``struct xe_device``).

    Parameters
    ----------
    mm : Mm
        Where pages come from.
    pool : TtmPool
        The TTM pool.
    caching : Caching
        How the CPU maps the objects.

    Attributes
    ----------
    shrinkable_pages, purgeable_pages : int
        Pages of populated objects that are not pinned (``struct xe_shrinker``).
    stats : XeStats
        Counters.
    vms : tuple of XeVm
        Least recently executed first, as their objects lie on the LRUs (bulk moves).
    """

    def __init__(self, mm: Mm, pool: TtmPool, caching: Caching) -> None:
        self.mm = mm
        self.pool = pool
        self.shrinkable_pages = 0
        self.purgeable_pages = 0
        self.stats = XeStats()
        self._caching = caching
        self._vms: dict[XeVm, None] = {}
        self._reserve: Pfns | None = None
        self._gpu_idle_at = 0

    @property
    def vms(self) -> tuple[XeVm, ...]:
        """VMs in LRU order."""
        return tuple(self._vms)

    @property
    def resident_pages(self) -> int:
        """Pages that all objects hold."""
        return sum(vm.resident_pages for vm in self._vms)

    # --- objects ------------------------------------------------------------------------------------

    def create_vm(self, name: str) -> XeVm:
        """A client's VM."""
        vm = XeVm(name, Mutex(self.mm.sched, f"{name} dma_resv"))
        self._vms[vm] = None
        return vm

    def create_bo(self, vm: XeVm, num_pages: int) -> XeBo:
        """An object without pages, private to a VM; the VM's next exec populates it."""
        bo = XeBo(vm, num_pages, self._caching)
        vm.bos.append(bo)
        vm.evicted[bo] = None
        return bo

    def claim_reserve(self, nr_pages: int) -> None:
        """Take over pages of the initial state, for objects that are resident when the run starts."""
        if nr_pages:
            self._reserve = self.mm.claim_resident(nr_pages, movable=False, what="params.xe.resident_pages")

    def populate_from_reserve(self, bo: XeBo) -> None:
        """Let an object be resident from the start, in claimed order-0 pages.

        Raises
        ------
        InputError
            `claim_reserve` did not claim enough.
        """
        left = 0 if self._reserve is None else len(self._reserve)
        if self._reserve is None or left < bo.num_pages:
            raise InputError(
                f"the clients' resident_pages want {bo.num_pages} pages more than xe.resident_pages has "
                f"({left} left); make it at least the sum over all clients"
            )
        pages, self._reserve = self._reserve[: bo.num_pages], self._reserve[bo.num_pages :]
        bo.tt.adopt(pages)
        self._populated(bo)

    def adopt_backed_up(self, bo: XeBo) -> None:
        """Let an object be on the swap device from the start."""
        bo.tt.adopt_backup(self.mm.swap.adopt(bo.num_pages))

    def set_purgeable(self, bo: XeBo, purgeable: bool) -> None:
        """``DRM_XE_VMA_ATTR_PURGEABLE_STATE``: DONTNEED or WILLNEED."""
        self._account(bo, -1)
        bo.purgeable = purgeable
        self._account(bo, +1)

    def set_pinned(self, bo: XeBo, pinned: bool) -> None:
        """Pin an object, or unpin it (``xe_bo_pin()``, ``xe_bo_unpin()``): pinned ones are on no LRU."""
        self._account(bo, -1)
        bo.pinned = pinned
        self._account(bo, +1)
        lru = bo.vm.lru[bo.mem_type]
        if pinned:
            lru.pop(bo, None)
        elif bo.tt.is_populated:
            lru[bo] = None

    def destroy_bo(self, bo: XeBo) -> None:
        """Drop an object; its pages go to the pool, or back to the system if cached."""
        self._account(bo, -1)
        bo.vm.lru[bo.mem_type].pop(bo, None)
        bo.vm.evicted.pop(bo, None)
        bo.vm.bos.remove(bo)
        if bo.tt.is_backed_up:
            ttm_pool_drop_backed_up(self.pool, bo.tt)
        else:
            ttm_pool_free(self.pool, bo.tt)

    def remove(self) -> None:
        """Give back everything (``xe_device_remove()``)."""
        for vm in self.vms:
            for bo in tuple(vm.bos):
                self.destroy_bo(bo)
        self._vms.clear()
        if self._reserve is not None:
            self.mm.free_pages_batch(self._reserve, 0)
            self._reserve = None

    def _account(self, bo: XeBo, sign: int) -> None:
        """``xe_ttm_tt_account_add()`` and ``_subtract()``: only populated, unpinned objects count."""
        if not bo.tt.is_populated or bo.pinned:
            return
        if bo.purgeable:
            self.purgeable_pages += sign * bo.num_pages
        else:
            self.shrinkable_pages += sign * bo.num_pages

    def _populated(self, bo: XeBo) -> None:
        self._account(bo, +1)
        bo.purged = False
        self._place(bo, MemType.TT)
        bo.vm.evicted.pop(bo, None)

    def _place(self, bo: XeBo, mem_type: MemType) -> None:
        bo.vm.lru[bo.mem_type].pop(bo, None)
        bo.mem_type = mem_type
        if bo.tt.is_populated and not bo.pinned:
            bo.vm.lru[mem_type][bo] = None

    # --- exec ---------------------------------------------------------------------------------------

    def exec(self, vm: XeVm, job_ns: int | None = None) -> Fence | None:
        """Validate all objects of a VM and submit a job that uses them (``xe_exec_ioctl()``).

        Objects that user space marked DONTNEED are not bound by the job and stay as they are.

        Parameters
        ----------
        vm : XeVm
            Whose objects.
        job_ns : int, optional
            How long the job keeps the engine busy; the cost profile's `gpu_job` by default.

        Returns
        -------
        Fence or None
            Signals when the job is done; None where the ioctl returns -ENOMEM.
        """
        with vm.resv:
            for bo in tuple(vm.evicted):
                if not bo.purgeable and not self._validate(bo):
                    self.stats.exec_failures += 1
                    return None
            vm.fence = self._submit(vm, self.mm.costs.gpu_job if job_ns is None else job_ns)
            self._vms[vm] = self._vms.pop(vm)
            return vm.fence

    def _validate(self, bo: XeBo) -> bool:
        """Populate one object and bind it (``xe_bo_validate()``, ``xe_vma_rebind_exec``)."""
        if bo.tt.is_backed_up:
            if not ttm_pool_restore_and_alloc(self.pool, bo.tt, VALIDATE_CTX):
                return False
            self.stats.bo_restores += 1
            self.stats.restored_pages += bo.num_pages
            self._populated(bo)
        elif not bo.tt.is_populated:
            if not ttm_pool_alloc(self.pool, bo.tt, VALIDATE_CTX):
                return False
            self._populated(bo)
        else:
            self._place(bo, MemType.TT)
            bo.vm.evicted.pop(bo)
        self.mm.charge(self.mm.sched.costs.bind_bo, "bind")
        return True

    def _submit(self, vm: XeVm, job_ns: int) -> Fence:
        """Queue a job on the one engine, which runs jobs in order of submission."""
        sched = self.mm.sched
        self._gpu_idle_at = max(self._gpu_idle_at, sched.now) + job_ns
        return Fence(sched, self._gpu_idle_at, f"{vm.name} dma_fence")

    # --- what the shrinker does to one object ---------------------------------------------------------

    def shrink_bo(self, bo: XeBo) -> int:
        """Purge or back up one object whose reservation is held (``xe_bo_shrink()``).

        Waits for the VM's job. Unbinds, moves to SYSTEM, then purges or backs up.

        Returns
        -------
        int
            Pages given up, or a negative errno.
        """
        if bo.vm.fence is not None:
            bo.vm.fence.wait()
        if bo.mem_type is MemType.TT:
            self.mm.charge(self.mm.sched.costs.bind_bo, "unbind")
            self._place(bo, MemType.SYSTEM)
            bo.vm.evicted[bo] = None
        self._account(bo, -1)
        # Off the LRU before pages go: another task may walk it while this one sleeps in the backup.
        bo.vm.lru[bo.mem_type].pop(bo, None)
        freed = self._backup_or_purge(bo)
        if freed < 0:
            self._account(bo, +1)
            bo.vm.lru[bo.mem_type][bo] = None
        return freed

    def _backup_or_purge(self, bo: XeBo) -> int:
        if bo.purgeable:
            freed = ttm_pool_backup(self.pool, bo.tt, purge=True)
            bo.purged = True
            self.stats.bo_purges += 1
            self.stats.purged_pages += freed
            return freed
        # A reclaimer is PF_MEMALLOC: the copies may use the reserves and never reclaim on their own.
        free = self.mm.global_free_pages()
        with self.mm.sched.memalloc_noreclaim():
            freed = ttm_pool_backup(self.pool, bo.tt, purge=False)
        if freed == -errno.ENOMEM or freed == -errno.EBUSY:
            return freed
        self.stats.bo_evictions += 1
        self.stats.free_pages_at_eviction.append(free)
        self.stats.evicted_pages += freed
        return freed
