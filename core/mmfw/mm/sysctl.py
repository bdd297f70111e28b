"""Sysctls of memory management that a run may set (``/proc/sys/vm``, kernel/sysctl.c and mm/ of 6.1)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SysctlVm:
    """``vm.*``, with the kernel's defaults.

    Not here: ``vm.min_free_kbytes``, ``vm.watermark_scale_factor`` and ``vm.lowmem_reserve_ratio``, which a machine given
    as files brings with it; ``vm.vfs_cache_pressure``, a parameter of the file systems' plugin.

    Attributes
    ----------
    compaction_proactiveness : int
        0 to 100; 0 switches proactive compaction off.
    dirty_background_ratio, dirty_ratio : int
        Percent of dirtyable memory at which the flusher starts, and at which writers wait.
    extfrag_threshold : int
        0 to 1000: fragmentation index up to which a costly request is left to reclaim.
    page_cluster : int
        Swap-in reads up to two to the power of this many pages at once.
    swappiness : int
        0 to 200.
    watermark_boost_factor : int or None
        Ten-thousandths of the high watermark that a fallback may raise watermarks by; 0 switches boosts off, None leaves
        the machine's.
    """

    compaction_proactiveness: int = 20
    dirty_background_ratio: int = 10
    dirty_ratio: int = 20
    extfrag_threshold: int = 500
    page_cluster: int = 3
    swappiness: int = 60
    watermark_boost_factor: int | None = None
