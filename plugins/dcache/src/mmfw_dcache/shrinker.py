"""The shrinker of a superblock, ``sb-<type>`` (``super_cache_count()``, ``super_cache_scan()``, fs/super.c)."""

from __future__ import annotations

from typing import Final

from mmfw import DEFAULT_SEEKS, SHRINK_EMPTY, SHRINK_STOP, CompactionScan, ShrinkControl, hookimpl
from mmfw.gfp import FS
from mmfw_dcache.slab_pages import SlabPages
from mmfw_dcache.superblock import SuperBlock

#: Objects per scan (``alloc_super()``).
SUPER_BATCH: Final = 1024


class SuperShrinker:
    """Counts and scans dentries, inodes and what the filesystem adds.

    Parameters
    ----------
    sb : SuperBlock
        Whose.
    vfs_cache_pressure : int
        /proc/sys/vm/vfs_cache_pressure, percent.
    """

    seeks = DEFAULT_SEEKS
    batch = SUPER_BATCH

    def __init__(self, sb: SuperBlock, vfs_cache_pressure: int) -> None:
        self.sb = sb
        self._vfs_cache_pressure = vfs_cache_pressure

    def _nr_fs_objects(self, sc: ShrinkControl) -> int:
        own = self.sb.cached_fs_objects
        return 0 if own is None else own.nr_cached_objects(sc)

    @hookimpl
    def count_objects(self, sc: ShrinkControl) -> int:
        """Objects on the LRUs, by the pressure (``super_cache_count()``)."""
        total = self._nr_fs_objects(sc) + len(self.sb.dentries.lru) + len(self.sb.inodes.lru)
        if not total:
            return SHRINK_EMPTY
        return total * self._vfs_cache_pressure // 100

    @hookimpl
    def scan_objects(self, sc: ShrinkControl) -> int:
        """Scan each kind in proportion, dentries first, since inodes wait for them (``super_cache_scan()``).

        Of each at least one object is looked at, of the filesystem's own only if its share is not 0. `sc.nr_scanned`
        stays what was asked for.
        """
        if not sc.gfp_mask & FS:
            return SHRINK_STOP
        nr_fs_objects = self._nr_fs_objects(sc)
        nr_inodes, nr_dentries = len(self.sb.inodes.lru), len(self.sb.dentries.lru)
        total = nr_dentries + nr_inodes + nr_fs_objects + 1
        nr_to_scan = sc.nr_to_scan
        freed = self.prune_dcache(nr_to_scan * nr_dentries // total + 1)
        freed += self.prune_icache(nr_to_scan * nr_inodes // total + 1)
        share = nr_to_scan * nr_fs_objects // total
        own = self.sb.cached_fs_objects
        if share and own is not None:
            sc.nr_to_scan = share + 1
            freed += own.free_cached_objects(sc)
        return freed

    def prune_dcache(self, nr_to_scan: int) -> int:
        """Dentries taken off the LRU; what looking at them costs is charged."""
        return self._charged(self.sb.prune_dcache(nr_to_scan))

    def prune_icache(self, nr_to_scan: int) -> int:
        """Inodes taken off the LRU."""
        return self._charged(self.sb.prune_icache(nr_to_scan))

    def _charged(self, result: tuple[int, int]) -> int:
        isolated, walked = result
        mm = self.sb.mm
        mm.charge(walked * mm.costs.scan_object, "sb shrinker")
        return isolated


class SlabPageSuperShrinker(SuperShrinker):
    """As `SuperShrinker`, but prefers objects whose whole slab can be emptied; never merged into Linux.

    ``scan_objects`` looks at as many objects of sparse slabs as its share, and then walks the LRU for as many as that has
    not freed, since without the walk nothing would become sparse. It alone has ``compaction_scan``.

    Parameters
    ----------
    sb, vfs_cache_pressure
        As there.
    percent : int
        A slab is sparse if at most this share of its objects is in use.
    skip_referenced : bool
        Leave slabs alone that hold a referenced object.
    """

    def __init__(self, sb: SuperBlock, vfs_cache_pressure: int, percent: int, skip_referenced: bool) -> None:
        super().__init__(sb, vfs_cache_pressure)
        self._dentry_pages = SlabPages.of_dentries(sb, percent, skip_referenced)
        self._inode_pages = SlabPages.of_inodes(sb, percent, skip_referenced)

    def prune_dcache(self, nr_to_scan: int) -> int:
        """Dentries freed with their slabs, and those taken off the LRU."""
        freed = self._dentry_pages.scan(nr_to_scan)
        return freed + (super().prune_dcache(nr_to_scan - freed) if freed < nr_to_scan else 0)

    def prune_icache(self, nr_to_scan: int) -> int:
        """Inodes freed with their slabs, and those taken off the LRU."""
        freed = self._inode_pages.scan(nr_to_scan)
        return freed + (super().prune_icache(nr_to_scan - freed) if freed < nr_to_scan else 0)

    @hookimpl
    def compaction_scan(self, cs: CompactionScan) -> int:
        """Empty slabs in the range: sparse ones if opportunistic, else any in which nobody uses an object.

        Frees pages where they help, but does not choose a block that would become free as a whole.
        """
        if not cs.gfp_mask & FS:
            return SHRINK_STOP
        freed = 0
        for pages in (self._dentry_pages, self._inode_pages):
            if freed < cs.nr_to_free:
                nr_pages, nr_scanned = pages.free_range(
                    cs.pfn_lo, cs.pfn_hi, cs.nr_to_free - freed, sparse_only=cs.opportunistic
                )
                freed += nr_pages
                cs.nr_scanned += nr_scanned
        return freed
