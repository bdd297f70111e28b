"""Memory maps from counts: exact, aligned, without unmerged buddies, and the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmfw.errors import InputError
from mmfw.machine.layout import ZoneMap, check_feasible, fresh_boot_zone, lay_out_zone, lru_blocks
from mmfw.machine.pageblocks import ZoneSpan, pageblock_types
from mmfw.rawrandom import Rng
from mmfw.state import MAX_ORDER, MIGRATE_TYPES, PAGEBLOCK_ABSENT

DMA = ZoneSpan(0, 1, 4095, 3998, 3840)
DMA32 = ZoneSpan(1, 4096, 1044480, 782301, 757814)
SMALL = ZoneSpan(2, 4096 + 512, 9000, 9000, 8500)


def check_map(span: ZoneSpan, zone_map: ZoneMap, counts: list[list[int]]) -> None:
    starts, sizes = [zone_map.pcp_pages], [np.ones(len(zone_map.pcp_pages), dtype=np.int64)]
    for order, row in enumerate(zone_map.free_lists):
        assert [len(pfns) for pfns in row] == counts[order]
        pfns = np.concatenate(row)
        assert not (pfns & ((1 << order) - 1)).any()
        if order < MAX_ORDER - 1:
            assert not np.isin(pfns ^ (1 << order), pfns).any()
        starts.append(pfns)
        sizes.append(np.full(len(pfns), 1 << order))
    assert zone_map.nr_free.tolist() == [sum(row) for row in counts]
    start, size = np.concatenate(starts), np.concatenate(sizes)
    order_of = np.argsort(start)
    start, end = start[order_of], (start + size)[order_of]
    assert (start[1:] >= end[:-1]).all()
    inside = np.zeros(len(start), dtype=np.bool_)
    for low, high in span.present_ranges():
        inside |= (start >= low) & (end <= high)
    assert inside.all()


@st.composite
def spans(draw: st.DrawFn) -> ZoneSpan:
    if draw(st.booleans()):
        return DMA
    start = draw(st.integers(0x400, 0x4000))
    spanned = draw(st.integers(1, 12000))
    present = draw(st.integers(1, spanned))
    return ZoneSpan(2, start, spanned, present, present)


@st.composite
def feasible(draw: st.DrawFn) -> tuple[ZoneSpan, list[list[int]]]:
    """Any zone, filled to a drawn part of what each order can hold beside the larger ones."""
    span = draw(spans())
    counts = [[0] * MIGRATE_TYPES for _ in range(MAX_ORDER)]
    left = span.managed
    for order in range(MAX_ORDER - 1, -1, -1):
        wanted = draw(st.integers(0, 40))
        full = draw(st.integers(0, 9)) == 0
        limit = left >> order
        try:
            trial = [sum(row) for row in counts]
            trial[order] = limit
            check_feasible(span, trial)
        except InputError as error:
            words = str(error).split("at most ")
            if len(words) > 1:
                limit = min(limit, int(words[1].split()[0]))
        total = limit if full else min(wanted, limit)
        left -= total << order
        for _ in range(2):
            mt = draw(st.integers(0, MIGRATE_TYPES - 1))
            part = draw(st.integers(0, total))
            counts[order][mt] += part
            total -= part
        counts[order][draw(st.integers(0, 2))] += total
    return span, counts


@settings(max_examples=150, deadline=None)
@given(feasible(), st.integers(0, 2**32), st.integers(0, 50))
def test_any_feasible_counts_are_laid_out(
    case: tuple[ZoneSpan, list[list[int]]], seed: int, pcp: int
) -> None:
    span, counts = case
    pcp = min(pcp, span.managed - sum(sum(row) << order for order, row in enumerate(counts)))
    zone_map = lay_out_zone(span, counts, None, Rng(seed), pcp_pages=pcp)
    check_map(span, zone_map, counts)
    again = lay_out_zone(span, counts, None, Rng(seed), pcp_pages=pcp)
    for one, two in zip(zone_map.free_lists, again.free_lists, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


@settings(max_examples=100, deadline=None)
@given(feasible(), st.integers(0, MAX_ORDER - 1))
def test_one_block_more_than_fits_is_refused(case: tuple[ZoneSpan, list[list[int]]], order: int) -> None:
    span, counts = case
    nr_free = [sum(row) for row in counts]

    def fits(extra: int) -> bool:
        trial = list(nr_free)
        trial[order] += extra
        try:
            check_feasible(span, trial)
        except InputError:
            return False
        return True

    low, high = 0, span.managed + 1
    assert fits(low)
    assert not fits(high)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    full = [list(row) for row in counts]
    full[order][1] += low
    check_map(span, lay_out_zone(span, full, None, Rng(0)), full)
    full[order][1] += 1
    with pytest.raises(InputError, match=f"zone {span.name}.* too many"):
        lay_out_zone(span, full, None, Rng(0))


@settings(max_examples=100, deadline=None)
@given(spans(), st.data())
def test_block_counts_are_met(span: ZoneSpan, data: st.DataObject) -> None:
    ranges = span.present_ranges()
    needed = -(-(ranges[-1][1] - span.first_block_pfn) // 512)
    total = data.draw(st.integers(needed, span.nr_span_blocks))
    blocks = [0] * MIGRATE_TYPES
    for _ in range(total):
        blocks[data.draw(st.integers(0, MIGRATE_TYPES - 1))] += 1
    types = pageblock_types(span, blocks, Rng(1))
    assert len(types) == span.nr_span_blocks
    assert np.bincount(types, minlength=16)[:MIGRATE_TYPES].tolist() == blocks
    assert (types[total:] == PAGEBLOCK_ABSENT).all()


def test_boot_types_are_those_of_captured_machines() -> None:
    assert pageblock_types(DMA, None, Rng(0)).tolist() == [0, 1, 1, 1, 1, 1, 1, 1]
    types = pageblock_types(DMA32, None, Rng(0))
    assert len(types) == 2040
    assert (types[:1528] == 1).all()
    assert (types[1528:] == PAGEBLOCK_ABSENT).all()


def test_holes_lie_where_a_pc_has_them() -> None:
    assert DMA.present_ranges() == ((1, 0x9F), (0x100, 0x1000))
    assert DMA32.present_ranges() == ((0x1000, 0xBFFDD),)


def test_free_blocks_lie_in_pageblocks_of_their_type() -> None:
    blocks = [4, 10, 3, 1, 0]
    span = ZoneSpan(2, 4096, 18 * 512, 18 * 512, 18 * 512)
    counts = [[10, 30, 8, 3, 0] for _ in range(7)] + [[0] * 5] * 4
    zone_map = lay_out_zone(span, counts, blocks, Rng(5))
    check_map(span, zone_map, counts)
    for row in zone_map.free_lists:
        for mt, pfns in enumerate(row):
            assert (zone_map.pageblock_mt[(pfns - 4096) >> 9] == mt).all()


def test_list_order() -> None:
    counts = [[0, 200, 0, 0, 0]] + [[0] * 5] * 10
    shuffled = lay_out_zone(SMALL, counts, None, Rng(3)).free_lists[0][1]
    ascending = lay_out_zone(SMALL, counts, None, Rng(3), list_order="ascending").free_lists[0][1]
    assert np.array_equal(np.sort(shuffled), ascending)
    assert not np.array_equal(shuffled, ascending)
    other = lay_out_zone(SMALL, counts, None, Rng(4), list_order="ascending").free_lists[0][1]
    assert not np.array_equal(other, ascending)


def test_the_stream_is_pinned() -> None:
    """A map depends on nothing but its seed; these figures change only if every stored map does."""
    rng = Rng(42)
    assert rng.below(1000, 4).tolist() == [773, 438, 858, 697]
    assert rng.shuffled(np.arange(8, dtype=np.int64)).tolist() == [4, 2, 3, 7, 5, 0, 1, 6]
    assert rng.sample(np.arange(10, dtype=np.int64), 4).tolist() == [5, 2, 7, 8]
    assert rng.sample(np.arange(1000, dtype=np.int64), 4).tolist() == [970, 893, 778, 194]


@pytest.mark.parametrize(
    ("order", "count", "message"),
    [
        (8, 9, "zone DMA, order 8: 9 free blocks, but at most 8 fit"),
        (9, 5, r"zone DMA, order 9: 5 free blocks, but at most 4 fit .*\(1 too many\)"),
        (0, 3841, r"3841 pages in free blocks, but only 3840 managed pages \(1 too many\)"),
        (0, 2001, r"zone DMA, order 0: 2001 free blocks, but at most 2000 fit"),
    ],
)
def test_impossible_counts_are_named(order: int, count: int, message: str) -> None:
    counts = [[0] * 5 for _ in range(MAX_ORDER)]
    counts[order][1] = count
    with pytest.raises(InputError, match=message) as caught:
        lay_out_zone(DMA, counts, None, Rng(1), file="buddyinfo", line=1)
    assert (caught.value.file, caught.value.line) == ("buddyinfo", 1)


@pytest.mark.parametrize(("blocks", "known"), [([0, 7, 0, 0, 0], 7), ([1, 8, 0, 0, 0], 9)])
def test_impossible_block_counts_are_named(blocks: list[int], known: int) -> None:
    with pytest.raises(InputError, match=f"zone DMA has {known} pageblocks by type, but its span has 8"):
        pageblock_types(DMA, blocks, Rng(1))


@given(st.integers(1, 20000), st.integers(1, 20000))
def test_fresh_boot_covers_the_range_with_largest_blocks(low: int, size: int) -> None:
    span = ZoneSpan(2, low, size, size, size)
    zone_map = fresh_boot_zone(span, [(low, low + size)])
    counts = [[0, int(n), 0, 0, 0] for n in zone_map.nr_free]
    check_map(span, zone_map, counts)
    assert sum(row[1] << order for order, row in enumerate(counts)) == size
    for row in zone_map.free_lists:
        assert (np.diff(row[1]) > 0).all()


def test_lru_pages_lie_in_movable_blocks() -> None:
    counts = [[0, 100, 0, 0, 0]] + [[0] * 5] * 8 + [[0, 2, 0, 0, 0], [0, 3, 0, 0, 0]]
    zone_map = lay_out_zone(SMALL, counts, [8, 10, 0, 0, 0], Rng(2), pcp_pages=10)
    pairs = lru_blocks(SMALL, zone_map, 1000)
    assert pairs[:, 1].sum() == 1000 or pairs[:, 1].max() <= 512
    assert (zone_map.pageblock_mt[pairs[:, 0]] == 1).all()
    free = np.concatenate([pfns >> 9 for row in zone_map.free_lists[9:] for pfns in row])
    assert not np.isin(free - (SMALL.start_pfn >> 9), pairs[:, 0]).any()
    assert len(lru_blocks(SMALL, zone_map, 0)) == 0


def test_64_gib_are_laid_out_whole() -> None:
    pages = 64 << 18
    span = ZoneSpan(2, 1 << 20, pages, pages, pages)
    counts = [[(pages >> order) // 2000] * 3 + [0, 0] for order in range(MAX_ORDER)]
    zone_map = lay_out_zone(span, counts, None, Rng(1))
    check_map(span, zone_map, counts)
