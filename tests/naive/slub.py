"""A plain twin of a SLUB cache of Linux 6.1 (mm/slub.c) on one node: lists of slab objects, and pages on demand.

It shares no line with the simulator. An object is a pair (pfn of its slab, index).
"""

from __future__ import annotations

from collections.abc import Callable

Object = tuple[int, int]
TakePages = Callable[[bool], "int | None"]
GivePages = Callable[[int], None]


class NaiveSlab:
    def __init__(self, pfn: int, free: list[int]) -> None:
        self.pfn = pfn
        self.objects = len(free)
        self.free = free  # the next one to hand out comes last
        self.inuse = 0
        self.frozen = False


class NaiveCpu:
    def __init__(self) -> None:
        self.slab: NaiveSlab | None = None
        self.free: list[int] = []
        self.partial: list[NaiveSlab] = []  # the next one to use comes last


class NaiveCache:
    """One cache.

    ``take_pages(wanted)`` gives pages of the wanted order, or of the smallest one, or None; ``give_pages(pfn)``
    takes a slab's pages back.
    """

    def __init__(
        self,
        nr_cpus: int,
        objects: tuple[int, int],
        min_partial: int,
        cpu_partial_slabs: int,
        sequence: list[int],
        random: int,
        take_pages: TakePages,
        give_pages: GivePages,
    ) -> None:
        self.objects, self.min_objects = objects
        self.min_partial = min_partial
        self.cpu_partial_slabs = cpu_partial_slabs
        self.sequence = sequence
        self.random = random
        self.take_pages = take_pages
        self.give_pages = give_pages
        self.cpus = [NaiveCpu() for _ in range(nr_cpus)]
        self.node: list[NaiveSlab] = []
        self.by_pfn: dict[int, NaiveSlab] = {}

    # --- allocation ---

    def alloc(self, cpu: int) -> Object | None:
        c = self.cpus[cpu]
        if not c.free and not self.find_partial(c):
            slab = self.new_slab()
            if slab is None:
                return None
            self.deactivate(c)
            self.load(c, slab)
        assert c.slab is not None
        return c.slab.pfn, c.free.pop()

    def find_partial(self, c: NaiveCpu) -> bool:
        if c.slab is not None:
            if c.slab.free:
                self.load(c, c.slab)
                return True
            c.slab.frozen = False
            c.slab = None
        if c.partial:
            self.load(c, c.partial.pop())
            return True
        if not self.node:
            return False
        self.load(c, self.node.pop(0))
        for _ in range(self.cpu_partial_slabs // 2 + 1):
            if self.node:
                slab = self.node.pop(0)
                slab.frozen = True
                c.partial.append(slab)
        return True

    def load(self, c: NaiveCpu, slab: NaiveSlab) -> None:
        c.slab, c.free = slab, slab.free
        slab.free = []
        slab.inuse = slab.objects
        slab.frozen = True

    def new_slab(self) -> NaiveSlab | None:
        objects = self.objects
        pfn = self.take_pages(True)
        if pfn is None:
            objects = self.min_objects
            pfn = self.take_pages(False)
            if pfn is None:
                return None
        order = list(range(objects))
        if objects > 1:
            self.random = self.random * 48271 % (2**31 - 1)
            start = self.random * len(self.sequence) // (2**31 - 1)
            turned = self.sequence[start:] + self.sequence[:start]
            order = [index for index in turned if index < objects]
        slab = NaiveSlab(pfn, order[::-1])
        self.by_pfn[pfn] = slab
        return slab

    # --- freeing ---

    def free(self, cpu: int, obj: Object) -> None:
        slab, index = self.by_pfn[obj[0]], obj[1]
        c = self.cpus[cpu]
        if c.slab is slab:
            c.free.append(index)
            return
        was_full = not slab.free
        slab.free.append(index)
        slab.inuse -= 1
        if slab.frozen:
            return
        if was_full:
            if len(c.partial) >= self.cpu_partial_slabs:
                self.unfreeze_partials(c)
            slab.frozen = True
            c.partial.append(slab)
        elif slab.inuse == 0 and len(self.node) >= self.min_partial:
            self.node.remove(slab)
            self.discard(slab)

    def unfreeze_partials(self, c: NaiveCpu) -> None:
        surplus = []
        for slab in reversed(c.partial):
            slab.frozen = False
            if slab.inuse == 0 and len(self.node) >= self.min_partial:
                surplus.append(slab)
            else:
                self.node.append(slab)
        c.partial = []
        for slab in reversed(surplus):
            self.discard(slab)

    def deactivate(self, c: NaiveCpu) -> None:
        slab = c.slab
        if slab is None:
            return
        remote_frees = bool(slab.free)
        slab.inuse -= len(c.free)
        slab.free = slab.free + c.free
        slab.frozen = False
        c.slab, c.free = None, []
        if slab.inuse == 0 and len(self.node) >= self.min_partial:
            self.discard(slab)
        elif slab.free and remote_frees:
            self.node.append(slab)
        elif slab.free:
            self.node.insert(0, slab)

    def discard(self, slab: NaiveSlab) -> None:
        del self.by_pfn[slab.pfn]
        self.give_pages(slab.pfn)

    # --- shrinking ---

    def shrink(self) -> None:
        for c in self.cpus:
            self.deactivate(c)
            self.unfreeze_partials(c)
        empty: list[NaiveSlab] = []
        promoted: dict[int, list[NaiveSlab]] = {}
        rest = []
        for slab in self.node:
            nr_free = len(slab.free)
            if nr_free == slab.objects:
                empty.insert(0, slab)
            elif nr_free <= 32:
                promoted.setdefault(nr_free, []).insert(0, slab)
            else:
                rest.append(slab)
        self.node = [slab for nr_free in sorted(promoted) for slab in promoted[nr_free]] + rest
        for slab in empty:
            self.discard(slab)
