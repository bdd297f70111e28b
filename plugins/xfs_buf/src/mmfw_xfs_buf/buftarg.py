"""The buffers of one device (``struct xfs_buftarg``, fs/xfs/xfs_buf.c): lookup, reading, release, disposal.

A buffer in use stays where it is on the LRU, and a lookup that hits does not move it: what keeps hot metadata is that its
users set ``b_lru_ref`` again, which a scan counts down before it frees.

Simplified:

* ``b_lock`` is never contended, for no time passes while it is held; so no scan skips a buffer (``LRU_SKIP``).
* A user locks a buffer (``b_sema``) while it is read or written only; other users of it do not wait for each other.
* A freed ``struct xfs_buf`` is its cache's at once, not after a grace period of RCU.
* The log is not modelled: nothing pins a buffer but its users' references.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from mmfw import gfp
from mmfw.sched import WaitQueue
from mmfw_xfs_buf.backing import BackingMemory
from mmfw_xfs_buf.daddrmap import NONE, DaddrMap
from mmfw_xfs_buf.listwalk import walk
from mmfw_xfs_buf.stats import BufStats
from mmfw_xfs_buf.table import DONE, LOCKED, STALE, BufTable, Slots
from mmfw_xfs_buf.types import BBSIZE, LRU_REF, MAX_BUF_BYTES, NEW_LRU_REF, BufType

if TYPE_CHECKING:
    from mmfw import Mm
    from mmfw_xfs_buf.disk import MetaDisk
    from mmfw_xfs_buf.kernels import XfsKernel

#: Subsystem of the ledger.
LEDGER: Final = "xfs_buf"
#: ``sizeof(struct xfs_buf)`` as /proc/slabinfo has it on x86-64.
HEAD_BYTES: Final = 384


class XfsBuftarg:
    """The buffers of one device; ``mm.attached.get(XfsBuftarg)``.

    A buffer is named by its slot in `table`, from the call that returns it held until `rele`.

    Parameters
    ----------
    mm : Mm
        Whose pages.
    kernel : XfsKernel
        Rules.
    disk : MetaDisk
        Where buffers are read from.
    overcounts_progress : bool, optional
        In place of the kernel's rule.
    flat_lru_ref : int, optional
        Weight of every kind, in place of their own.

    Attributes
    ----------
    table : BufTable
        Their state.
    lru : ListLru
        ``bt_lru``.
    memory : BackingMemory
        What they are made of.
    weights : int8[n]
        ``b_lru_ref`` that users of a kind set, by `BufType`.
    stats : BufStats
        Counters.
    nr_freed : int
        Buffers freed so far: whoever keeps slots that it does not hold while time passes looks whether it moved.
    """

    def __init__(
        self,
        mm: Mm,
        kernel: XfsKernel,
        disk: MetaDisk,
        *,
        overcounts_progress: bool | None = None,
        flat_lru_ref: int | None = None,
    ) -> None:
        self.kernel = kernel
        self.table = BufTable()
        self.lru = mm.slab.list_lru()
        overcounts = kernel.overcounts_progress if overcounts_progress is None else overcounts_progress
        self.memory = BackingMemory(mm, kernel, overcounts_progress=overcounts)
        self.weights = LRU_REF if flat_lru_ref is None else np.full_like(LRU_REF, flat_lru_ref)
        self.stats = BufStats()
        self.nr_freed = 0
        self._mm = mm
        self._disk = disk
        self._map = DaddrMap()
        self._unlocked = WaitQueue(mm.sched, "xfs_buf_lock")
        slab = mm.slab
        self._heads = slab.kmem_cache_create(
            "xfs_buf", HEAD_BYTES, flags=slab.SLAB_HWCACHE_ALIGN | slab.SLAB_RECLAIM_ACCOUNT
        )

    @property
    def nr_lru(self) -> int:
        """Buffers on the LRU (``list_lru_shrink_count()``)."""
        return len(self.lru)

    @property
    def nr_pages(self) -> int:
        """Pages of all buffers, without those of kmalloc's and the structs' slabs."""
        return int(self.table.nr_pages(self.table.in_use()).sum())

    # --- lookup -----------------------------------------------------------------------------------

    def get(self, daddr: int, nr_bytes: int, buf_type: BufType) -> int:
        """A buffer whose content nobody needs to read, held (``xfs_buf_get()``).

        Parameters
        ----------
        daddr : int
            First block of 512 bytes on the device.
        nr_bytes : int
            A multiple of 512 up to 65536.
        buf_type : BufType
            Kind of metadata; `set_ref` gives it the kind's weight, until then a new buffer has 1.

        Raises
        ------
        ValueError
            No such size, or the device has a buffer of another size there.
        """
        slot = self._get(daddr, nr_bytes, buf_type, zero=True, read_ahead=False)
        assert slot is not None, "only readahead gives up"
        self._wait_unlocked(slot)
        self.table.flags[slot] |= DONE
        return slot

    def read(self, daddr: int, nr_bytes: int, buf_type: BufType) -> int:
        """A buffer with what the device has there, held (``xfs_buf_read()``); see `get`. Waits for I/O on it."""
        while True:
            slot = self._get(daddr, nr_bytes, buf_type, zero=False, read_ahead=False)
            assert slot is not None, "only readahead gives up"
            if not self.table.flags[slot] & (LOCKED | DONE):
                self._submit_read(slot)
            # Also one that is being written is waited for.
            self._wait_unlocked(slot)
            if self.table.flags[slot] & DONE:
                return slot
            self.rele(slot)

    def readahead(self, daddr: int, nr_bytes: int, buf_type: BufType) -> bool:
        """Begin to read a buffer that may be needed (``xfs_buf_readahead()``); whether one is read or there.

        One try for memory, with ``__GFP_NORETRY``. The buffer goes to the LRU when it has been read.
        """
        if self._map.find(daddr) >= 0:
            return True
        slot = self._get(daddr, nr_bytes, buf_type, zero=False, read_ahead=True)
        if slot is None:
            return False
        if self.table.flags[slot] & (DONE | LOCKED):
            self.rele(slot)
        else:
            self._submit_read(slot, then_rele=True)
        return True

    def lookup(self, daddrs: NDArray[np.int64]) -> Slots:
        """Slots of the buffers at some daddrs, -1 where there is none; takes no reference."""
        return self._map.lookup(daddrs)

    def _get(
        self, daddr: int, nr_bytes: int, buf_type: BufType, *, zero: bool, read_ahead: bool
    ) -> int | None:
        if not BBSIZE <= nr_bytes <= MAX_BUF_BYTES or nr_bytes % BBSIZE:
            raise ValueError(f"a buffer of {nr_bytes} bytes; XFS has 512 to {MAX_BUF_BYTES}, in steps of 512")
        table = self.table
        slot = self._map.find(daddr)
        if slot < 0:
            self.stats.misses += 1
            slot = self._insert(daddr, nr_bytes, zero=zero, read_ahead=read_ahead)
            if slot < 0:
                return None
        else:
            self.stats.hits += 1
            table.hold[slot] += 1
        if table.nr_bytes[slot] != nr_bytes:
            self.rele(slot)
            raise ValueError(f"daddr {daddr} has a buffer of {table.nr_bytes[slot]} bytes, not {nr_bytes}")
        if table.flags[slot] & STALE:
            # Whoever finds a stale buffer makes it a fresh one (xfs_buf_find_lock()).
            table.flags[slot] &= ~np.uint8(STALE | DONE)
        table.buf_type[slot] = buf_type
        return slot

    def _insert(self, daddr: int, nr_bytes: int, *, zero: bool, read_ahead: bool) -> int:
        """A new buffer, held, or the one that another task made meanwhile; -1 for readahead without memory."""
        head_mask = (self.kernel.alloc_gfp | gfp.NOFAIL) & ~gfp.NOWARN
        while (head := self._heads.kmem_cache_alloc(head_mask)) < 0:
            self._mm.sched.sleep(1)
        backing = self.memory.alloc(nr_bytes, zero=zero, read_ahead=read_ahead)
        if backing is None:
            self._heads.kmem_cache_free(head)
            return -1
        table = self.table
        slot = self._map.find(daddr)
        if slot >= 0:
            table.hold[slot] += 1
            self.memory.free_unused(backing, nr_bytes)
            self._heads.kmem_cache_free(head)
            return slot
        slot = table.take_slot()
        table.daddr[slot] = daddr
        table.nr_bytes[slot] = nr_bytes
        table.lru_ref[slot] = NEW_LRU_REF
        table.hold[slot] = 1
        table.flags[slot] = 0
        table.backing[slot], table.order[slot] = backing.kind, backing.order
        table.nr_pieces[slot] = len(backing.pfns)
        table.pages[slot, : len(backing.pfns)] = backing.pfns
        table.obj[slot], table.head[slot] = backing.obj, head
        evicted_at = self._map.insert(daddr, slot)
        if evicted_at != NONE:
            self.stats.recreated += 1
            self._mm.ledger.recreated(
                LEDGER,
                nr_objects=1,
                nr_pages=len(backing.pfns) << backing.order,
                age_ns=self._mm.sched.now - evicted_at,
            )
        return slot

    # --- input ------------------------------------------------------------------------------------

    def _submit_read(self, slot: int, *, then_rele: bool = False) -> None:
        table = self.table
        table.flags[slot] |= LOCKED
        self.stats.reads += 1

        def done() -> None:
            self.table.flags[slot] = (int(self.table.flags[slot]) | DONE) & ~LOCKED
            self._unlocked.wake_up_all()
            if then_rele:
                self._rele_in_interrupt(slot)

        self._disk.read(int(table.nr_bytes[slot]), done)

    def write_begin(self, slot: int) -> None:
        """Lock a held buffer for output."""
        self._wait_unlocked(slot)
        self.table.flags[slot] |= LOCKED

    def write_end(self, slot: int) -> None:
        """Unlock a buffer that was written; from interrupt context."""
        self.table.flags[slot] &= ~np.uint8(LOCKED)
        self._unlocked.wake_up_all()

    def is_locked(self, slot: int) -> bool:
        """Whether somebody reads or writes it (``xfs_buf_islocked()``)."""
        return bool(self.table.flags[slot] & LOCKED)

    def _wait_unlocked(self, slot: int) -> None:
        if self.table.flags[slot] & LOCKED:
            self._unlocked.wait_event(lambda: not self.table.flags[slot] & LOCKED)

    def _rele_in_interrupt(self, slot: int) -> None:
        """Release a buffer that was read ahead; it is not freed, for that takes time, which an interrupt has not."""
        self.table.hold[slot] -= 1
        if self.table.hold[slot] == 0:
            self.lru.add(np.array([slot]))

    # --- release ----------------------------------------------------------------------------------

    def hold(self, slot: int) -> None:
        """Take another reference (``xfs_buf_hold()``)."""
        self.table.hold[slot] += 1

    def set_ref(self, slot: int, lru_ref: int | None = None) -> None:
        """Set ``b_lru_ref`` (``xfs_buf_set_ref()``), by default to the weight of the buffer's kind."""
        table = self.table
        table.lru_ref[slot] = self.weights[table.buf_type[slot]] if lru_ref is None else lru_ref

    def rele(self, slot: int) -> None:
        """Drop a reference (``xfs_buf_rele()``); the last one puts the buffer on the LRU, or frees it.

        Raises
        ------
        ValueError
            Nobody holds it.
        """
        table = self.table
        if table.hold[slot] <= 0:
            raise ValueError("xfs_buf_rele() of a buffer that nobody holds")
        table.hold[slot] -= 1
        if table.hold[slot] == 0:
            self._let_go(slot)

    def _let_go(self, slot: int) -> None:
        """The last user is gone: cache the buffer, or free it."""
        one = np.array([slot])
        if self.kernel.lru_holds_reference and self.lru.holds(one)[0]:
            return
        if self.table.lru_ref[slot] > 0 and not self.table.flags[slot] & STALE:
            self.lru.add(one)
            return
        self.lru.remove(one)
        self._free(one)

    def stale(self, slot: int) -> None:
        """Say that a held buffer's blocks were freed (``xfs_buf_stale()``): it goes with its last user."""
        self.table.flags[slot] |= STALE
        self.table.lru_ref[slot] = 0
        self.lru.remove(np.array([slot]))

    def hold_all(self, slots: Slots) -> None:
        """Take another reference to each of some distinct buffers."""
        self.table.hold[slots] += 1

    def rele_all(self, slots: Slots) -> None:
        """Drop a reference to each of some distinct buffers, which somebody holds."""
        self.table.hold[slots] -= 1
        idle = slots[self.table.hold[slots] == 0]
        # Most are on the LRU with weight to spare: nothing is to be done for these.
        for slot in idle[~(self.lru.holds(idle) & (self.table.lru_ref[idle] > 0))].tolist():
            self._let_go(slot)

    # --- disposal ---------------------------------------------------------------------------------

    def shrink(self, nr_to_scan: int) -> int:
        """Walk the LRU (``xfs_buftarg_shrink_scan()``).

        Returns
        -------
        int
            Buffers taken off the list: those freed, and those in use that were delisted only.
        """
        disposed: list[Slots] = []
        removed = walk(self.lru, nr_to_scan, lambda slots: self._isolate(slots, disposed))
        slots = np.concatenate([*disposed, np.empty(0, dtype=np.int64)])
        unused = slots[self.table.hold[slots] == 0]
        self.stats.delisted += removed - len(unused)
        np.add.at(self.stats.disposed, LRU_REF[self.table.buf_type[unused]].astype(np.int64), 1)
        self.stats.disposed_bytes += int(self.table.nr_bytes[unused].sum())
        self.give_up(unused)
        return removed

    def _isolate(self, slots: Slots, disposed: list[Slots]) -> NDArray[np.bool_]:
        """``xfs_buftarg_isolate()``: count ``b_lru_ref`` down and rotate; dispose at 0."""
        table = self.table
        keeps: NDArray[np.bool_] = table.lru_ref[slots] > 0
        if not self.kernel.lru_holds_reference:
            # Not counted down while in use: its user puts it back, with its weight.
            keeps &= table.hold[slots] == 0
        table.lru_ref[slots[keeps]] -= 1
        self.stats.rotated += int(keeps.sum())
        disposed.append(slots[~keeps])
        return keeps

    def give_up(self, slots: Slots) -> None:
        """Free buffers that nobody holds because memory is wanted, and report them as lost."""
        if len(slots) == 0:
            return
        pfns = self.table.pfns(slots)
        self._mm.ledger.evicted(LEDGER, nr_objects=len(slots), nr_pages=len(pfns), pfns=pfns)
        self.lru.remove(slots)
        self._free(slots, evicted_at=self._mm.sched.now)

    def drain(self) -> None:
        """Free every buffer, held ones too (``xfs_buftarg_drain()`` at unmount), and destroy the cache of structs."""
        slots = self.table.in_use()
        self.lru.remove(slots)
        self._free(slots)
        self._mm.slab.kmem_cache_destroy(self._heads)

    def _free(self, slots: Slots, *, evicted_at: int = NONE) -> None:
        """``xfs_buf_free()``. All state is settled before the first page goes, for that takes time."""
        heads = self.table.head[slots]
        self._map.remove(self.table.daddr[slots], evicted_at=evicted_at)
        self.nr_freed += len(slots)
        self.memory.free(self.table, slots)
        self._heads.kmem_cache_free_bulk(heads)
