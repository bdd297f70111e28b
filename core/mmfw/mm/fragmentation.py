"""How fragmented a zone is: the indices of mm/vmstat.c and the scores of proactive compaction (mm/compaction.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmfw.state import MAX_ORDER, PAGEBLOCK_ORDER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mmfw.mm.mmzone import PglistData, Zone


def _counts(nr_free: Sequence[int], order: int) -> tuple[int, int, int]:
    """``fill_contig_page_info()``: free pages, free blocks, and blocks of an order that could be had."""
    pages = blocks = suitable = 0
    for o, n in enumerate(nr_free):
        pages += n << o
        blocks += n
        if o >= order:
            suitable += n << (o - order)
    return pages, blocks, suitable


def fragmentation_index(nr_free: Sequence[int], order: int) -> int:
    """Why a request of an order would fail: 0 for lack of memory, 1000 for fragmentation.

    ``__fragmentation_index()``. Thousandths; -1000 if a block is free, so that it would not fail.

    Parameters
    ----------
    nr_free : sequence of int
        Free blocks by order.
    order : int
        The order.

    Examples
    --------
    >>> fragmentation_index([10000] + [0] * 10, 9), fragmentation_index([100] + [0] * 10, 9)
    (998, 988)
    """
    pages, blocks, suitable = _counts(nr_free, order)
    if order >= MAX_ORDER or not blocks:
        return 0
    if suitable:
        return -1000
    return 1000 - (1000 + pages * 1000 // (1 << order)) // blocks


def unusable_free_index(nr_free: Sequence[int], order: int) -> int:
    """Share of free memory that a request of an order cannot use, in thousandths (``unusable_free_index()``)."""
    pages, _, suitable = _counts(nr_free, order)
    if not pages:
        return 1000
    return (pages - (suitable << order)) * 1000 // pages


def extfrag_for_order(nr_free: Sequence[int], order: int) -> int:
    """As `unusable_free_index`, in percent; 0 without free memory (``extfrag_for_order()``)."""
    pages, _, suitable = _counts(nr_free, order)
    if not pages:
        return 0
    return (pages - (suitable << order)) * 100 // pages


def fragmentation_score_zone(zone: Zone) -> int:
    """Percent (``fragmentation_score_zone()``)."""
    return extfrag_for_order(zone.nr_free_by_order(), PAGEBLOCK_ORDER)


def fragmentation_score_node(pgdat: PglistData) -> int:
    """Scores of the zones, weighted by their size (``fragmentation_score_node()``)."""
    zones = [zone for zone in pgdat.node_zones if zone.present_pages]
    present = sum(zone.present_pages for zone in zones)
    return sum(zone.present_pages * fragmentation_score_zone(zone) // (present + 1) for zone in zones)


def fragmentation_score_wmark(low: bool, proactiveness: int) -> int:
    """Score at which proactive compaction stops (low) or starts (``fragmentation_score_wmark()``)."""
    wmark_low = max(100 - proactiveness, 5)
    return wmark_low if low else min(wmark_low + 10, 100)
