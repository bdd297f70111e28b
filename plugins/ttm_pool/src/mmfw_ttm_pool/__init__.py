"""The TTM page pool: what drivers built on TTM allocate from, back up with, and give pages back to."""

from mmfw_ttm_pool.alloc import OperationCtx, ttm_pool_alloc, ttm_pool_free
from mmfw_ttm_pool.backup import ttm_pool_backup, ttm_pool_drop_backed_up, ttm_pool_restore_and_alloc
from mmfw_ttm_pool.defragment import defragment_gfp_mask, nr_fragmented_pages, ttm_pool_defragment
from mmfw_ttm_pool.hookspecs import SKIP_ORDER
from mmfw_ttm_pool.pool import TtmPool
from mmfw_ttm_pool.tt import Caching, TtmTt, first_blocks_of, page_pfns_of

__all__ = [
    "SKIP_ORDER",
    "Caching",
    "OperationCtx",
    "TtmPool",
    "TtmTt",
    "defragment_gfp_mask",
    "first_blocks_of",
    "nr_fragmented_pages",
    "page_pfns_of",
    "ttm_pool_alloc",
    "ttm_pool_backup",
    "ttm_pool_defragment",
    "ttm_pool_drop_backed_up",
    "ttm_pool_free",
    "ttm_pool_restore_and_alloc",
]
