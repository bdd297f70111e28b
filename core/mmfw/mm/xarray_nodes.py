"""The nodes that index a file's pages, and the shrinker of those without pages (lib/xarray.c, mm/workingset.c of 6.1).

A file's ``i_pages`` is a tree of nodes with 64 slots. A node is one object of the slab cache ``radix_tree_node``, 14 to
an order-1 slab on a small machine: reclaimable pages that come in the midst of a stream of page cache, steal pageblocks
of other types, and so boost watermarks. A node goes with the last entry under it, page or shadow. Eviction leaves a
shadow, so it frees none.

Simplified:

* A freed node is its cache's at once, after the pages that the same call drops; the kernel waits for an RCU grace period.
* A folio of order 6 or more has the nodes of its single pages; the kernel stores it in the node above, without a leaf.
* `PageCache.adopt` takes over pages that a state holds allocated; their nodes are among the pages that nobody owns, so
  truncation gives none of them back.
* Shmem and the swap cache have no nodes here (one object for 64 pages each).
* A leaf of which the first slot alone is in use is not counted as a node of shadows, nor freed by the shrinker: so
  page 0 of a file, which needs no node while it is alone, need not be told from other pages.
* The cache and the shrinker are made when the first node is, not at boot; so the shrinker is asked after those that
  plugins registered before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from mmfw import gfp
from mmfw.jit import page as pg
from mmfw.jit import pagecache as jit
from mmfw.jit.lru import nr_lru_pages
from mmfw.mm.slab_sizes import SLAB_PANIC, SLAB_RECLAIM_ACCOUNT
from mmfw.mm.vmstat import VmEvent, VmStat
from mmfw.types import SHRINK_EMPTY, ShrinkControl, ShrinkerOps

if TYPE_CHECKING:
    from mmfw.costs import CostProfile
    from mmfw.mm.context import ExecContext
    from mmfw.mm.pages import Memory
    from mmfw.mm.rmap import RmapSpace
    from mmfw.mm.shrinker import ShrinkerList
    from mmfw.mm.slab import KmemCache
    from mmfw.mm.slab_common import SlabAllocator

Ints = NDArray[np.int64]

XA_CHUNK_SHIFT: Final = 6
XA_CHUNK_SIZE: Final = 1 << XA_CHUNK_SHIFT
#: ``sizeof(struct radix_tree_node)``; its constructor makes each object 8 bytes larger.
NODE_SIZE: Final = 576
#: Mask of a node while the tree is locked (``xas_alloc()``); when that failed, the mapping's mask is used
#: (``xas_nomem()``).
NODE_GFP: Final = gfp.GFP_NOWAIT | gfp.NOWARN
#: In place of an object: there is no node; or it lies in memory that nobody owns.
NONE: Final = jit.XA_NONE
_UNOWNED: Final = -1


class PageTree:
    """Nodes of one file (``struct xarray``); made by `XarrayNodes.tree`.

    Level 0 are the leaves, of 64 indices each. A file of which page 0 alone is cached has no node.
    """

    def __init__(self, nodes: XarrayNodes, base_slot: int, nr_pages: int) -> None:
        self.base_slot = base_slot
        self._nodes = nodes
        self._leaf: Ints = np.full(-(-nr_pages >> XA_CHUNK_SHIFT), NONE, dtype=np.int64)
        # Object and number of children of each node above the leaves, by level and ``index >> 6 * (level + 1)``.
        self._upper: dict[tuple[int, int], list[int]] = {}
        self._height = 0
        self._nr_absent = len(self._leaf)

    @property
    def nr_leaves(self) -> int:
        """Leaves that the file can have."""
        return len(self._leaf)

    @property
    def nr_nodes(self) -> int:
        """Nodes that there are."""
        return int((self._leaf != NONE).sum()) + len(self._upper)

    def _slots(self, leaf: int) -> NDArray[np.uint32]:
        first = self.base_slot + leaf * XA_CHUNK_SIZE
        return self._nodes.rmap.slots[first : first + XA_CHUNK_SIZE]

    def _root_is_entry(self) -> bool:
        return bool(self._slots(0)[0] != pg.SLOT_EMPTY)

    # --- making nodes -------------------------------------------------------------------------------

    def without_node(self, indices: Ints) -> int:
        """Position of the first index that needs a node which is not there; the number of indices if none does."""
        if self._nr_absent == 0 or not len(indices):
            return len(indices)
        first, last = int(indices[0]), int(indices[-1])
        if self._height and last - first == len(indices) - 1:  # a window of a file: a node is looked at once
            leaf = first >> XA_CHUNK_SHIFT
            absent = self._leaf[leaf : (last >> XA_CHUNK_SHIFT) + 1] == NONE
            at = int(absent.argmax())
            return max(0, (leaf + at << XA_CHUNK_SHIFT) - first) if absent[at] else len(indices)
        absent = self._leaf[indices >> XA_CHUNK_SHIFT] == NONE
        if self._height == 0:
            absent[indices == 0] = False
        at = int(absent.argmax())
        return at if absent[at] else len(indices)

    def batch(self, indices: Ints) -> int:
        """How many pages from the first on may be allocated before a node must be: the page that needs one is the last.

        Page 0 of an empty tree lies in the root; it must be there before it is seen what the next page needs.
        """
        if self._height == 0 and len(indices) and indices[0] == 0:
            return 1
        return min(self.without_node(indices) + 1, len(indices))

    def create(self, index: int, gfp_mask: int) -> bool:
        """Make the nodes for an index (``xas_create()``, ``xas_expand()``); False if there was no memory.

        A tree that is too low gets nodes on top first; what is absent below is made from the top down. Time may pass.
        """
        spare = NONE
        while (place := self._next_absent(index)) is not None:
            if spare == NONE:
                spare = self._nodes.alloc(gfp_mask)
                if spare == NONE:
                    return False
                continue  # somebody may have made it meanwhile
            self._link(place, spare)
            spare = NONE
        if spare != NONE:
            self._nodes.free([spare])
        return True

    def adopt(self, nr_pages: int) -> None:
        """Note the nodes of pages 0 to ``nr_pages - 1``, which lie in memory that nobody owns."""
        for index in range(0, nr_pages, XA_CHUNK_SIZE):
            while index + 1 < nr_pages and (place := self._next_absent(min(index + 63, nr_pages - 1))):
                self._link(place, _UNOWNED)

    def _next_absent(self, index: int) -> tuple[int, int] | None:
        """Level and number of the node to make next for an index, or None."""
        height = max(1, -(-index.bit_length() // XA_CHUNK_SHIFT))
        if self._height == 0:
            if self._root_is_entry():
                return None if index == 0 else (0, 0)
            return None if index == 0 else (height - 1, 0)
        if self._height < height:
            return self._height, 0
        for level in range(self._height - 1, 0, -1):
            place = (level, index >> XA_CHUNK_SHIFT * (level + 1))
            if place not in self._upper:
                return place
        leaf = index >> XA_CHUNK_SHIFT
        return (0, leaf) if self._leaf[leaf] == NONE else None

    def _link(self, place: tuple[int, int], obj: int) -> None:
        level, number = place
        if level == 0:
            self._leaf[number] = obj
            self._nr_absent -= 1
        else:
            # A new root above an old one has that as its child.
            self._upper[place] = [obj, 1 if 0 < self._height <= level else 0]
        if level >= self._height:
            self._height = level + 1
        else:
            parent = self._upper.get((level + 1, number >> XA_CHUNK_SHIFT))
            if parent is not None:
                parent[1] += 1

    # --- removing them --------------------------------------------------------------------------------

    def prune(self, first_leaf: int = 0, last_leaf: int | None = None) -> list[int]:
        """Take out the leaves under which nothing is left (``xas_delete_node()``), and what they leave empty above.

        Returns
        -------
        list of int
            Their objects, in order of deletion, for `XarrayNodes.free`.
        """
        stop = self.nr_leaves if last_leaf is None else last_leaf + 1
        there = first_leaf + np.flatnonzero(self._leaf[first_leaf:stop] != NONE)
        slots = self._nodes.rmap.slots
        gone: list[int] = []
        for leaf in there.tolist():
            first = self.base_slot + leaf * XA_CHUNK_SIZE
            if (slots[first : first + XA_CHUNK_SIZE] == pg.SLOT_EMPTY).all():
                self._unlink(leaf, gone)
        self._shrink(gone)
        return [obj for obj in gone if obj != _UNOWNED]

    def _take_leaf(self, leaf: int) -> int:
        obj, self._leaf[leaf] = int(self._leaf[leaf]), NONE
        self._nr_absent += 1
        return obj

    def _unlink(self, leaf: int, gone: list[int]) -> None:
        gone.append(self._take_leaf(leaf))
        for level in range(1, self._height):
            place = (level, leaf >> XA_CHUNK_SHIFT * level)
            node = self._upper[place]
            node[1] -= 1
            if node[1]:
                break
            gone.append(self._upper.pop(place)[0])
        else:
            self._height = 0

    def _shrink(self, gone: list[int]) -> None:
        """Lower a tree whose root has nothing but its first slot in use (``xas_shrink()``)."""
        while self._height > 1:
            root = self._upper[(self._height - 1, 0)]
            below = (self._height - 2, 0)
            there = below in self._upper if below[0] else self._leaf[0] != NONE
            if root[1] != 1 or not there:
                return
            gone.append(self._upper.pop((self._height - 1, 0))[0])
            self._height -= 1
        if self._height == 1:
            used = self._slots(0) != pg.SLOT_EMPTY
            if used[0] and not used[1:].any():
                gone.append(self._take_leaf(0))
                self._height = 0

    def shadow_ages(self) -> Ints:
        """For each leaf the evictions since that of its last page; -1 if it holds more than shadows."""
        nodes = self._nodes
        out = np.empty(self.nr_leaves, dtype=np.int64)
        jit.shadow_ages(nodes.rmap.slots, self._leaf, self.base_slot, int(nodes.S[pg.S_NONRESIDENT_AGE]), out)
        return out

    def nr_shadow_nodes(self) -> int:
        """Leaves that hold shadows only."""
        return int(jit.count_shadow_nodes(self._nodes.rmap.slots, self.base_slot, self.nr_leaves))

    def drop_empty(self, nr_shadow_nodes: int) -> None:
        """Free the nodes under which a call that removed pages or shadows has left nothing.

        Parameters
        ----------
        nr_shadow_nodes : int
            How many held shadows only before that call; no time may have passed since.
        """
        nodes = self._nodes
        gone = self.prune()
        nodes.S[pg.S_NODE_STAT + pg.NS_WORKINGSET_NODES] += self.nr_shadow_nodes() - nr_shadow_nodes
        nodes.free(gone)

    def reclaim(self, leaf: int) -> list[int]:
        """Take out a leaf of shadows (``xa_delete_node()``); its objects and those it leaves empty above."""
        self._slots(leaf)[:] = pg.SLOT_EMPTY
        return self.prune(leaf, leaf)


class XarrayNodes:
    """The nodes of all files, and the shrinker ``mm-shadow``.

    Parameters
    ----------
    slab : SlabAllocator
        Makes the cache.
    shrinkers : ShrinkerList
        Where the shrinker is registered.
    rmap, memory
        Where pages and shadows are, and the counters.
    context, costs, vmstat
        The running task, what work costs, the counters of events.
    """

    def __init__(
        self,
        slab: SlabAllocator,
        shrinkers: ShrinkerList,
        rmap: RmapSpace,
        memory: Memory,
        context: ExecContext,
        costs: CostProfile,
        vmstat: VmStat,
    ) -> None:
        self.rmap = rmap
        self.S = memory.S
        self._slab = slab
        self._shrinkers = shrinkers
        self._context = context
        self._costs = costs
        self._vmstat = vmstat
        self._cache: KmemCache | None = None
        self._trees: list[PageTree] = []

    @property
    def nr_pages(self) -> int:
        """Pages of all nodes' slabs."""
        return 0 if self._cache is None else self._cache.nr_pages

    def tree(self, base_slot: int, nr_pages: int) -> PageTree:
        """A file's tree, empty."""
        tree = PageTree(self, base_slot, nr_pages)
        self._trees.append(tree)
        return tree

    def forget(self, tree: PageTree) -> None:
        """Take the tree of a closed file off the list."""
        self._trees.remove(tree)

    # --- objects --------------------------------------------------------------------------------------

    def alloc(self, gfp_mask: int) -> int:
        """An object, or `NONE`: without waiting first, then by what a mapping's mask allows (``xas_nomem()``)."""
        if self._cache is None:
            self._cache = self._slab.kmem_cache_create(
                "radix_tree_node", NODE_SIZE, flags=SLAB_PANIC | SLAB_RECLAIM_ACCOUNT, ctor=True
            )
            self._shrinkers.register_shrinker(
                ShrinkerOps(
                    count_objects=self.count_shadow_nodes,
                    scan_objects=self.scan_shadow_nodes,
                    compaction_scan=None,
                    name="mm-shadow",
                    seeks=0,
                    batch=0,
                    flags=0,
                    plugin="mm",
                )
            )
        obj = self._cache.kmem_cache_alloc(NODE_GFP)
        if obj < 0:
            obj = self._cache.kmem_cache_alloc(gfp_mask & gfp.GFP_RECLAIM_MASK)
        return obj if obj >= 0 else NONE

    def free(self, objects: list[int]) -> None:
        """Free nodes in the order given (``radix_tree_node_rcu_free()``)."""
        if objects and self._cache is not None:
            self._cache.kmem_cache_free_bulk(np.array(objects, dtype=np.int64))

    # --- the shrinker of shadows ----------------------------------------------------------------------

    def count_shadow_nodes(self, sc: ShrinkControl) -> int:
        """Nodes of shadows, less one for every 8 pages of the LRU and of slabs (``count_shadow_nodes()``)."""
        del sc
        S = self.S
        nodes = int(S[pg.S_NODE_STAT + pg.NS_WORKINGSET_NODES])
        if not nodes:
            return SHRINK_EMPTY
        pages = int(nr_lru_pages(S))
        pages += int(S[pg.S_NODE_STAT + pg.NS_SLAB_RECLAIMABLE])
        pages += int(S[pg.S_NODE_STAT + pg.NS_SLAB_UNRECLAIMABLE])
        return max(0, nodes - (pages >> (XA_CHUNK_SHIFT - 3)))

    def scan_shadow_nodes(self, sc: ShrinkControl) -> int:
        """Free the nodes that hold nothing but shadows for longest (``scan_shadow_nodes()``).

        The kernel keeps them on a list in that order. Here the order is read off the shadows, which carry the time of
        their eviction; a scan therefore looks at all slots of all files.
        """
        ages = [tree.shadow_ages() for tree in self._trees]
        if not ages:
            return 0
        owner = np.repeat(np.arange(len(ages)), [len(each) for each in ages])
        leaf = np.concatenate([np.arange(len(each)) for each in ages])
        age = np.concatenate(ages)
        oldest = np.argsort(-age, kind="stable")[: sc.nr_to_scan]
        oldest = oldest[age[oldest] >= 0]
        gone: list[int] = []
        for at in oldest.tolist():
            gone += self._trees[int(owner[at])].reclaim(int(leaf[at]))
        self.S[pg.S_NODE_STAT + pg.NS_WORKINGSET_NODES] -= len(oldest)
        self._vmstat.count(VmEvent.workingset_nodereclaim, len(oldest))
        self._context.charge(len(oldest) * self._costs.scan_object, "shadow nodes")
        self.free(gone)
        return len(oldest)
