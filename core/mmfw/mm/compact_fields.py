"""``struct compact_control`` between Python, where decisions read it, and the array of the compiled scanners."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmfw import gfp
from mmfw.jit import compact_control as cct

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mmfw.kernels import KernelProfile
    from mmfw.types import CompactControl


def load_control(cc: NDArray[np.int64], control: CompactControl, row: int, kernel: KernelProfile) -> None:
    """Set the array up for a run over the zone of a row."""
    cc[:] = 0
    cc[cct.CC_ROW] = row
    cc[cct.CC_ORDER] = control.order
    cc[cct.CC_MIGRATETYPE] = control.migratetype
    cc[cct.CC_MODE] = control.mode
    cc[cct.CC_FREE_PFN] = control.free_pfn
    cc[cct.CC_MIGRATE_PFN] = control.migrate_pfn
    cc[cct.CC_WHOLE_ZONE] = control.whole_zone
    cc[cct.CC_IGNORE_SKIP_HINT] = control.ignore_skip_hint
    cc[cct.CC_IGNORE_BLOCK_SUITABLE] = control.ignore_block_suitable
    cc[cct.CC_NO_SET_SKIP_HINT] = control.no_set_skip_hint
    cc[cct.CC_DIRECT] = control.direct_compaction
    cc[cct.CC_PROACTIVE] = control.proactive_compaction
    cc[cct.CC_FAST_SEARCH_FAIL] = control.fast_search_fail
    cc[cct.CC_SEARCH_ORDER] = control.search_order
    cc[cct.CC_MAY_FS] = control.gfp_mask & gfp.FS != 0
    cc[cct.CC_UNEVICTABLE] = 1
    cc[cct.CC_FAST_FIND_SETS_SKIP] = kernel.fast_find_sets_skip
    cc[cct.CC_FAILURE_SKIPS_CHUNK] = kernel.failed_migration_skips_chunk


def store_control(cc: NDArray[np.int64], control: CompactControl) -> None:
    """Bring back what the run found out."""
    control.free_pfn = int(cc[cct.CC_FREE_PFN])
    control.migrate_pfn = int(cc[cct.CC_MIGRATE_PFN])
    control.total_migrate_scanned = int(cc[cct.CC_MIGRATE_SCANNED])
    control.total_free_scanned = int(cc[cct.CC_FREE_SCANNED])
    control.fast_search_fail = int(cc[cct.CC_FAST_SEARCH_FAIL])
    control.search_order = int(cc[cct.CC_SEARCH_ORDER])
