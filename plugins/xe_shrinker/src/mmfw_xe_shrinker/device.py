"""The device: its objects' accounting, their population, and exec (xe_device.c, xe_bo.c, xe_exec.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmfw import InputError
from mmfw.sched import Fence, Mutex
from mmfw_ttm_pool import (
    Caching,
    OperationCtx,
    TtmPool,
    first_blocks_of,
    ttm_pool_alloc,
    ttm_pool_backup,
    ttm_pool_drop_backed_up,
    ttm_pool_free,
    ttm_pool_restore_and_alloc,
)
from mmfw_xe_shrinker.bo import MemType, XeBo, XeVm
from mmfw_xe_shrinker.pm import XePm
from mmfw_xe_shrinker.stats import Evictor, XeStats

if TYPE_CHECKING:
    from mmfw import Mm
    from mmfw_ttm_pool.tt import Pfns

#: Order of 2 MiB, what the GPU's large pages need.
PAGEBLOCK_ORDER: Final = 9
#: Under which name the device's losses are booked in ``mm.ledger``.
LEDGER_NAME: Final = "xe"
#: ``xe_bo_validate()`` opts out of the OOM killer.
VALIDATE_CTX: Final = OperationCtx(gfp_retry_mayfail=True)


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
    pm : XePm
        Its runtime power management.
    flat_ccs : bool
        Whether objects have compression metadata that the GPU itself must save when they leave TT, so that a
        backup needs the device awake (``xe_bo_needs_ccs_pages()``): integrated, and not cached.

    Attributes
    ----------
    shrinkable_pages, purgeable_pages : int
        Pages of populated objects that are not pinned (``struct xe_shrinker``).
    stats : XeStats
        Counters.
    vms : tuple of XeVm
        Least recently executed first, as their objects lie on the LRUs (bulk moves).
    """

    def __init__(
        self, mm: Mm, pool: TtmPool, caching: Caching, *, pm: XePm | None = None, flat_ccs: bool = False
    ) -> None:
        self.mm = mm
        self.pool = pool
        self.pm = XePm(mm, 0, 0, reclaim_safe=True) if pm is None else pm
        self.flat_ccs = flat_ccs
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

    @property
    def huge_pages(self) -> int:
        """Pages of populated objects in blocks of a pageblock or more."""
        return sum(
            run.nr_pages
            for vm in self._vms
            for bo in vm.bos
            for run in bo.tt.runs
            if run.order >= PAGEBLOCK_ORDER
        )

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

    def set_purgeable(self, bo: XeBo, purgeable: bool) -> bool:
        """``DRM_XE_VMA_ATTR_PURGEABLE_STATE``: DONTNEED or WILLNEED.

        Returns
        -------
        bool
            Whether the content is there still. An object that was purged stays purged whatever is said of it; user
            space makes another one (`recreate_bo`).
        """
        self._account(bo, -1)
        bo.purgeable = purgeable
        self._account(bo, +1)
        return not bo.purged

    def recreate_bo(self, bo: XeBo) -> XeBo:
        """What user space does with an object that was purged and that it needs: destroy it, and make one of its size.

        The next exec populates it, which counts as the return of what was purged.
        """
        vm = bo.vm
        evicted_at, evicted_pages = bo.evicted_at, bo.evicted_pages
        self.destroy_bo(bo)
        new = self.create_bo(vm, bo.num_pages)
        new.evicted_at, new.evicted_pages = evicted_at, evicted_pages
        self.stats.bo_recreations += 1
        return new

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

    def destroy_vm(self, vm: XeVm) -> None:
        """What the end of a client does: its objects go, whether a job that will be killed still uses them or not."""
        with vm.resv:
            for bo in tuple(vm.bos):
                self.destroy_bo(bo)
            self._vms.pop(vm, None)

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
        self._place(bo, MemType.TT)
        bo.vm.evicted.pop(bo, None)
        if bo.evicted_at is not None:
            age_ns = self.mm.sched.now - bo.evicted_at
            self.mm.ledger.recreated(LEDGER_NAME, nr_objects=1, nr_pages=bo.evicted_pages, age_ns=age_ns)
            self.stats.restore_ages.append(age_ns)
            bo.evicted_at = None

    def _place(self, bo: XeBo, mem_type: MemType) -> None:
        bo.vm.lru[bo.mem_type].pop(bo, None)
        bo.mem_type = mem_type
        if bo.tt.is_populated and not bo.pinned:
            bo.vm.lru[mem_type][bo] = None

    # --- exec ---------------------------------------------------------------------------------------

    def exec(self, vm: XeVm, job_ns: int | None = None) -> Fence | None:
        """Validate all objects of a VM and submit a job that uses them (``xe_exec_ioctl()``).

        Objects that user space marked DONTNEED are not bound by the job and stay as they are; purged ones are never
        populated again. A device that sleeps is woken first.

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
        self.pm.get()
        try:
            with vm.resv:
                for bo in tuple(vm.evicted):
                    if not bo.purgeable and not self._validate(bo):
                        self.stats.exec_failures += 1
                        return None
                vm.fence = self._submit(vm, self.mm.costs.gpu_job if job_ns is None else job_ns)
                self._vms[vm] = self._vms.pop(vm)
                self.stats.execs += 1
                return vm.fence
        finally:
            self.pm.put()

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
        self.pm.keep_busy(self._gpu_idle_at)
        return Fence(sched, self._gpu_idle_at, f"{vm.name} dma_fence")

    # --- what the shrinker does to one object ---------------------------------------------------------

    def needs_rpm(self, bo: XeBo) -> bool:
        """Whether backing an object up needs the device awake: the GPU must save its compression metadata."""
        return (
            self.flat_ccs
            and bo.mem_type is MemType.TT
            and bo.tt.caching is not Caching.CACHED
            and not bo.purgeable
        )

    def shrink_bo(
        self,
        bo: XeBo,
        *,
        by: Evictor = Evictor.DIRECT,
        writeback: bool = False,
        native_order: bool | None = None,
    ) -> int | None:
        """Purge or back up one object whose reservation is held (``xe_bo_shrink()``).

        Waits for the VM's job. Unbinds, moves to SYSTEM, then purges or backs up.

        Parameters
        ----------
        bo : XeBo
            A populated object that is not pinned.
        by : Evictor
            Who asks.
        writeback, native_order : bool
            As in ``ttm_pool_backup()``.

        Returns
        -------
        int or None
            Pages given up, or a negative errno; None if it was not touched, for the device sleeps.
        """
        if not self.needs_rpm(bo):
            return self._shrink_bo(bo, by, writeback, native_order)
        if not self.pm.get_if_active():
            return None
        try:
            return self._shrink_bo(bo, by, writeback, native_order)
        finally:
            self.pm.put()

    def _shrink_bo(self, bo: XeBo, by: Evictor, writeback: bool, native_order: bool | None) -> int:
        if bo.vm.fence is not None:
            bo.vm.fence.wait()
        if bo.is_bound:
            self.mm.charge(self.mm.sched.costs.bind_bo, "unbind")
        if bo.mem_type is MemType.TT:
            self._place(bo, MemType.SYSTEM)
            bo.vm.evicted[bo] = None
        self._account(bo, -1)
        # Off the LRU before pages go: another task may walk it while this one sleeps in the backup.
        bo.vm.lru[bo.mem_type].pop(bo, None)
        runs = bo.tt.runs
        freed = self._purge(bo) if bo.purgeable else self._back_up(bo, by, writeback, native_order)
        if freed < 0:
            self._account(bo, +1)
            bo.vm.lru[bo.mem_type][bo] = None
            return freed
        bo.evicted_at, bo.evicted_pages = self.mm.sched.now, freed
        self.mm.ledger.evicted(LEDGER_NAME, nr_objects=1, nr_pages=freed, blocks=first_blocks_of(runs, freed))
        return freed

    def _purge(self, bo: XeBo) -> int:
        freed = ttm_pool_backup(self.pool, bo.tt, purge=True)
        bo.purged = True
        bo.vm.evicted.pop(bo, None)  # nothing will ever validate it again
        self.stats.bo_purges += 1
        self.stats.purged_pages += freed
        return freed

    def _back_up(self, bo: XeBo, by: Evictor, writeback: bool, native_order: bool | None) -> int:
        free = self.mm.global_free_pages()
        # A reclaimer is PF_MEMALLOC: the copies may use the reserves and never reclaim on their own.
        with self.mm.sched.memalloc_noreclaim():
            freed = ttm_pool_backup(
                self.pool, bo.tt, purge=False, writeback=writeback, native_order=native_order
            )
        if freed < 0:
            return freed
        self.stats.bo_evictions += 1
        self.stats.bo_evictions_by[by] += 1
        self.stats.free_pages_at_eviction.append(free)
        self.stats.evicted_pages += freed
        return freed
