"""Folios that writes and readahead make (mm/filemap.c, mm/readahead.c)."""

from __future__ import annotations

import numpy as np
import pytest

from mm.workbench import SEC, run, unboosted
from mmfw import gfp
from mmfw.jit import page as pg
from mmfw.machine import machine_from_ram
from mmfw.machine.initial import with_buddyinfo
from mmfw.testing import make_mm

WRITE = gfp.GFP_HIGHUSER_MOVABLE | gfp.COMP | gfp.WRITE
LARGE = WRITE | gfp.NORETRY | gfp.NOWARN


@pytest.fixture
def mm():
    return unboosted()


def in_small_blocks(largest):
    """16,384 pages free on 256 MiB, in blocks of one order."""
    state = machine_from_ram("256M").node_state(0)
    row = [0] * 11
    row[largest] = 16_384 >> largest
    return make_mm(with_buddyinfo(state, {"DMA32": row, "DMA": [0] * 11}, 0.0, 1, "test"))


def asked(mm):
    """(order, mask) of every single request from now on."""
    requests = []
    real = mm._allocator.alloc_pages
    mm._allocator.alloc_pages = lambda mask, order: requests.append((order, mask)) or real(mask, order)
    return requests


def orders(mm, file):
    """Orders of a file's folios, by index, up to the first page that is absent."""
    found, index = [], 0
    while index < file.nr_pages and file.words()[index] < pg.SLOT_SHADOW:
        word = file.words()[index : index + 1]
        order = int(mm.lruvec.words(word.astype(np.int64))[0] & pg.ORDER_MASK)
        found.append(order)
        index += 1 << order
    return found


# --- writes -----------------------------------------------------------------------------------------


def test_a_write_makes_a_folio_of_its_size(mm):
    requests = asked(mm)
    file = mm.page_cache.open(1024, max_write_order=9)
    assert file.write(0, 256) == 256
    assert requests == [(8, LARGE)]
    assert mm.lruvec.node_stat(pg.NS_FILE_DIRTY) == 256


@pytest.mark.parametrize(
    ("start", "nr", "largest", "made"),
    [
        (0, 1024, 9, [9, 9]),
        (256, 768, 9, [8, 9]),  # alignment
        (4, 60, 9, [2, 3, 4, 5]),  # the rest of the write grows as its alignment does
        (
            0,
            255,
            9,
            [7, 6, 5, 4, 3, 2, 0, 0, 0],
        ),  # length: never past the end of the write; order 1 is not used
        (0, 256, 6, [6, 6, 6, 6]),  # the mapping's limit
    ],
)
def test_length_alignment_and_the_mapping_limit_a_folio(mm, start, nr, largest, made):
    requests = asked(mm)
    file = mm.page_cache.open(1024, max_write_order=largest)
    assert file.write(start, nr) == nr
    assert [order for order, _ in requests] == made


def test_without_large_folios_a_write_asks_for_single_pages(mm):
    requests = asked(mm)
    file = mm.page_cache.open(64)
    assert file.write(0, 64) == 64
    assert requests == []
    assert file.folios == [0] * 10


def test_a_write_goes_down_the_orders_until_there_is_memory():
    mm = in_small_blocks(3)
    requests = asked(mm)
    file = mm.page_cache.open(256, max_write_order=9, write_nofs=True)
    assert file.write(0, 8) == 8
    assert [order for order, _ in requests] == [3]
    requests.clear()
    assert file.write(8, 248) == 248
    # At 8 alignment allows order 3; at 64 order 6 is wanted, and 3 is had.
    assert {order for order, _ in requests} == {3, 4, 5, 6, 7}
    assert requests[0] == (3, LARGE & ~gfp.FS)
    assert orders(mm, file) == [3] * 32
    assert file.folio_failures[4:8] == [requests.count((n, LARGE & ~gfp.FS)) for n in (4, 5, 6, 7)]


def test_the_last_step_is_an_ordinary_request():
    mm = in_small_blocks(0)
    requests = asked(mm)
    file = mm.page_cache.open(4, max_write_order=9)
    assert file.write(0, 4) == 4
    assert requests[:2] == [(2, LARGE), (0, WRITE)]
    assert orders(mm, file) == [0, 0, 0, 0]


def test_what_is_cached_is_written_where_it_is(mm):
    file = mm.page_cache.open(64, max_write_order=9)
    file.create_folio(20)
    assert file.write(0, 64) == 64
    # No folio may cover page 20: 0 to 15, 16 to 19, 20, 21 ... and so on up.
    assert orders(mm, file) == [4, 2, 0, 0, 0, 0, 3, 5]
    assert mm.lruvec.node_stat(pg.NS_FILE_DIRTY) == 64
    before = list(file.folios)
    assert file.write(0, 64) == 64
    assert file.folios == before


def test_large_folios_are_written_back_whole():
    mm = unboosted(start=True)

    def body():
        file = mm.page_cache.open(512, max_write_order=9)
        file.write(0, 512)
        dirty = mm.lruvec.node_stat(pg.NS_FILE_DIRTY)
        mm.page_io.wakeup_flusher_threads()
        mm.sched.sleep(SEC)
        return (
            dirty,
            mm.lruvec.node_stat(pg.NS_FILE_DIRTY),
            mm.lruvec.node_stat(pg.NS_WRITTEN),
            orders(mm, file),
        )

    assert run(mm, body, 5 * SEC) == (512, 0, 512, [9])
    assert mm.vmstat.as_dict()["pgpgout"] == 4 * 512


# --- readahead --------------------------------------------------------------------------------------


def test_readahead_grows_two_orders_with_every_window(mm):
    """1 MiB at a time, windows of 4 MiB: page_cache_ra_order() by hand.

    Pages 0 to 511 are the first window (get_init_ra_size(): twice the read), order 2. The marker on page 256 asks for
    512 to 1535, order 4; that on 512 for 1536 to 2559, order 6; then 2560 to 3583, order 8; then 3584 on, order 9.
    """
    file = mm.page_cache.open(8192, max_order=9, ra_pages=1024)
    for start in range(0, 3584, 256):
        assert file.read(start, 256) == 256
    assert file.folios == [0, 0, 128, 0, 64, 0, 16, 0, 4, 2]
    assert orders(mm, file) == [2] * 128 + [4] * 64 + [6] * 16 + [8] * 4 + [9] * 2


def test_readahead_is_no_larger_than_its_window_or_the_mapping(mm):
    small = mm.page_cache.open(4096, max_order=9, ra_pages=32)
    limited = mm.page_cache.open(4096, max_order=4, ra_pages=1024)
    for start in range(0, 4096, 16):
        small.read(start, 16)
        limited.read(start, 16)
    assert [order for order, n in enumerate(small.folios) if n] == [2, 4, 5]
    assert max(order for order, n in enumerate(limited.folios) if n) == 4


def test_the_end_of_a_file_is_read_in_smaller_folios(mm):
    file = mm.page_cache.open(543, max_order=9, ra_pages=1024)
    for start in range(0, 543, 256):
        file.read(start, 256)
    assert file.nrpages == 543
    assert sum(n << order for order, n in enumerate(file.folios)) == 543
    assert file.folios[1] == 0


def test_where_there_is_no_large_folio_single_pages_follow():
    mm = in_small_blocks(0)
    requests = asked(mm)
    file = mm.page_cache.open(1024, max_order=9, ra_pages=256)
    assert file.read(0, 128) == 128
    # One attempt for the window, with what readahead may do: no __GFP_FS, no retry.
    assert requests[0] == (2, (gfp.GFP_HIGHUSER_MOVABLE | gfp.COMP | gfp.NORETRY | gfp.NOWARN) & ~gfp.FS)
    assert file.folio_failures[2] >= 1
    assert orders(mm, file) == [0] * file.nrpages
    assert file.nrpages >= 128
