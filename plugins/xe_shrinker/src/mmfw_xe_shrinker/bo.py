"""Buffer objects, and the VM that owns them and whose reservation they share (xe_bo.c, xe_vm.c)."""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import TYPE_CHECKING

from mmfw_ttm_pool import Caching, TtmTt

if TYPE_CHECKING:
    from mmfw.sched import Fence, Mutex


class BoState(Enum):
    """What a shrinker sees of an object."""

    NEVER_POPULATED = "never populated"
    RESIDENT = "resident"
    PINNED = "pinned"
    PURGEABLE = "purgeable"
    BACKED_UP = "backed up"
    PURGED = "purged"


class MemType(IntEnum):
    """Memory types with a ``use_tt`` manager, in the order in which the shrinker walks them."""

    SYSTEM = 0
    TT = 1


class XeBo:
    """One buffer object (``struct xe_bo``). Its VM's reservation guards every field.

    Attributes
    ----------
    vm : XeVm
        The VM it is private to.
    tt : TtmTt
        Its pages.
    mem_type : MemType
        Where it is placed: TT from its first use by an exec until it is evicted.
    pinned, purgeable, purged : bool
        Pinned for scanout or the kernel; DONTNEED by user space; content dropped, for good.
    evicted_at : int or None
        When reclaim or compaction took it away, ns; None once it is back.
    evicted_pages : int
        Pages that went then.
    """

    __slots__ = ("evicted_at", "evicted_pages", "mem_type", "pinned", "purgeable", "purged", "tt", "vm")

    def __init__(self, vm: XeVm, num_pages: int, caching: Caching) -> None:
        self.vm = vm
        self.tt = TtmTt(num_pages, caching, zero_alloc=True)
        self.mem_type = MemType.SYSTEM
        self.pinned = False
        self.purgeable = False
        self.purged = False
        self.evicted_at: int | None = None
        self.evicted_pages = 0

    @property
    def num_pages(self) -> int:
        """Size, in pages."""
        return self.tt.num_pages

    @property
    def is_bound(self) -> bool:
        """Whether the GPU has its pages mapped: not if the next exec must validate it."""
        return self.mem_type is MemType.TT and self not in self.vm.evicted

    @property
    def state(self) -> BoState:
        """What it is now; pinned comes before purgeable."""
        if self.tt.is_backed_up:
            return BoState.BACKED_UP
        if not self.tt.is_populated:
            return BoState.PURGED if self.purged else BoState.NEVER_POPULATED
        if self.pinned:
            return BoState.PINNED
        return BoState.PURGEABLE if self.purgeable else BoState.RESIDENT


class XeVm:
    """One client's address space (``struct xe_vm``).

    Attributes
    ----------
    name : str
        Its client.
    resv : Mutex
        Reservation shared by all its objects (``struct dma_resv``).
    fence : Fence or None
        The last job submitted; until it signals every object of the VM is active.
    bos : list of XeBo
        All objects.
    lru : dict of MemType to dict of XeBo
        Populated objects that are not pinned, oldest first, by placement.
    evicted : dict of XeBo
        Objects that the next exec must validate, in the order in which they were evicted.
    """

    __slots__ = ("bos", "evicted", "fence", "lru", "name", "resv")

    def __init__(self, name: str, resv: Mutex) -> None:
        self.name = name
        self.resv = resv
        self.fence: Fence | None = None
        self.bos: list[XeBo] = []
        self.lru: dict[MemType, dict[XeBo, None]] = {each: {} for each in MemType}
        self.evicted: dict[XeBo, None] = {}

    @property
    def is_active(self) -> bool:
        """Whether a job of it runs (``!dma_resv_test_signaled()``)."""
        return self.fence is not None and not self.fence.is_signaled

    @property
    def resident_pages(self) -> int:
        """Pages that its objects hold."""
        return sum(bo.tt.nr_held for bo in self.bos)
