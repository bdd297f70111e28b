"""Which window each read of a stream reads in, against sequences worked out from ``ondemand_readahead()`` of 6.1."""

from __future__ import annotations

import numpy as np
import pytest

from mm.workbench import file_pfns, unboosted, word
from mmfw.jit import page as pg
from mmfw.mm.readahead import FileRaState, get_init_ra_size, get_next_ra_size, ondemand_readahead


@pytest.mark.parametrize(
    ("size", "largest", "first"),
    [
        # 128 KiB: 1 page gives 4, 2 to 4 and 5 to 8 are doubled, more is the whole window.
        (1, 32, 4),
        (2, 32, 4),
        (3, 32, 8),
        (4, 32, 8),
        (5, 32, 16),
        (8, 32, 16),
        (9, 32, 32),
        (16, 32, 32),
        # 1 MiB window: up to 8 pages are quadrupled, up to 64 doubled.
        (8, 256, 32),
        (64, 256, 128),
        (65, 256, 256),
    ],
)
def test_the_first_window(size, largest, first):
    assert get_init_ra_size(size, largest) == first


@pytest.mark.parametrize(
    ("size", "largest", "following"),
    [
        (1, 32, 4),
        (2, 32, 4),
        (4, 32, 8),
        (16, 32, 32),
        (17, 32, 32),
        (32, 32, 32),
        (15, 256, 60),
        (16, 256, 32),
    ],
)
def test_the_next_window(size, largest, following):
    assert get_next_ra_size(size, largest) == following


def windows(mm, file, reads):
    """(first, pages) that each of the reads made present."""
    seen = []
    cached = np.zeros(file.nr_pages, dtype=bool)
    for start, nr in reads:
        file.read(start, nr)
        now = np.array(file_pfns(mm, file)) >= 0
        new = np.flatnonzero(now & ~cached)
        seen.append((int(new[0]), len(new)) if len(new) else None)
        assert len(new) == 0 or (np.diff(new) == 1).all()
        cached = now
    return seen


@pytest.fixture
def mm():
    return unboosted()


def test_64_kib_reads_of_a_stream(mm):
    """0..31 at once (16 of them ahead); page 16 is the marker: 32 more; then 32 at every other read."""
    file = mm.page_cache.open(400)
    got = windows(mm, file, [(start, 16) for start in range(0, 160, 16)])
    assert got == [(0, 32), (32, 32), (64, 32), None, (96, 32), None, (128, 32), None, (160, 32), None]


def test_4_kib_reads_of_a_stream(mm):
    """4 pages (3 ahead), then the window doubles each time its marker is met: at 1, at 4, at 12, at 28."""
    file = mm.page_cache.open(400)
    got = windows(mm, file, [(i, 1) for i in range(64)])
    assert {i: w for i, w in enumerate(got) if w} == {
        0: (0, 4),
        1: (4, 8),
        4: (12, 16),
        12: (28, 32),
        28: (60, 32),
        60: (92, 32),
    }


def test_16_kib_reads_of_a_stream(mm):
    file = mm.page_cache.open(400)
    got = windows(mm, file, [(i, 4) for i in range(0, 64, 4)])
    assert [w for w in got if w] == [(0, 8), (8, 16), (24, 32), (56, 32), (88, 32)]


def test_a_read_larger_than_the_window_widens_it_to_what_the_device_takes():
    """io_pages is 320 (1280 KiB): one read of 1 MiB is one window, half of it ahead; one of 2 MiB is cut."""
    for asked, size in ((256, 256), (320, 320), (500, 320)):
        ra = FileRaState()
        assert ondemand_readahead(ra, 0, asked, hit_marker=False) == (0, size)
        assert ra.marker == size - size // 2


def test_single_reads_here_and_there_read_what_is_asked(mm):
    file = mm.page_cache.open(4000)
    assert windows(mm, file, [(1000, 2), (200, 1), (3000, 3)]) == [(1000, 2), (200, 1), (3000, 3)]


def test_a_stream_that_starts_in_the_midst_is_known_by_its_second_read(mm):
    file = mm.page_cache.open(4000)
    got = windows(mm, file, [(1000, 4), (1004, 4), (1008, 4), (1012, 4), (1016, 4)])
    # Its second miss is sequential: 8 pages, 4 of them ahead; their marker at 1008 brings 16, at 1012 32.
    assert got == [(1000, 4), (1004, 8), (1012, 16), (1028, 32), None]


def test_a_widened_window_stays_wide(mm):
    """read(0, 1 MiB): 256 pages, and its marker at 128 brings 256 more; small reads keep that size."""
    file = mm.page_cache.open(4000)
    file.read(0, 256)
    assert file.nrpages == 512
    for start in range(256, 320, 16):
        file.read(start, 16)
    assert file.nrpages == 768


def test_a_marker_without_its_window_reads_on_behind_what_is_cached(mm):
    """Two readers of one file take turns: the window of one is lost when the other has read."""
    file = mm.page_cache.open(4000)
    file.read(0, 16)  # 0..31, marker at 16
    file.read(2000, 16)
    assert file.nrpages == 32 + 16
    # At 16: 17..31 are cached, so a window begins at 32, of next(32 - 16 + 16) = 32 pages.
    file.read(16, 16)
    assert (file.ra.start, file.ra.size, file.nrpages) == (32, 32, 80)
    # Where all of a window's reach is cached, nothing is read.
    ra = FileRaState(start=500, size=32, async_size=32)
    file.read_pages(np.arange(64, 80))
    assert ondemand_readahead(ra, 20, 16, hit_marker=True, mapping=file) == (20, 0)


@pytest.mark.parametrize(("index", "window"), [(15, (15, 1)), (16, (16, 4)), (17, (17, 4)), (18, (18, 1))])
def test_what_counts_as_a_sequential_miss(index, window):
    """Pages up to 15 were read, so the next byte lies on page 16: a miss there or one further is sequential."""
    ra = FileRaState(prev_pos=16)
    assert ondemand_readahead(ra, index, 1, hit_marker=False) == window


def test_a_first_read_of_page_1_is_no_stream():
    assert ondemand_readahead(FileRaState(), 1, 1, hit_marker=False) == (1, 1)


def test_a_miss_behind_cached_pages_is_taken_for_a_stream(mm):
    """try_context_readahead(): 20 pages lie before it, so it reads 20 and what was asked, the last one with a marker."""
    file = mm.page_cache.open(4000)
    file.read_pages(np.arange(1000, 1020))
    file.ra.prev_pos = 5
    assert windows(mm, file, [(1020, 2)])[0] is not None
    assert (file.ra.start, file.ra.size, file.ra.async_size) == (1020, 22, 1)
    # From the start of the file on it is believed twice as much, up to the window.
    other = mm.page_cache.open(100)
    other.read_pages(np.arange(10))
    other.ra.prev_pos = 50
    assert ondemand_readahead(other.ra, 10, 2, hit_marker=False, mapping=other) == (10, 22)


def test_the_marker_is_a_flag_of_a_page_that_was_read_in_then(mm):
    def flagged(file):
        return [i for i, p in enumerate(file_pfns(mm, file)) if p >= 0 and word(mm, p) & pg.PG_RECLAIM]

    file = mm.page_cache.open(400)
    file.read(0, 4)  # 0..7, ahead from 4 on
    assert flagged(file) == [4]
    file.read(4, 1)
    assert flagged(file) == [8]
    # Not on one that was cached: a window over it has no marker, and the next miss is sequential.
    other = mm.page_cache.open(400)
    other.read_pages(np.array([4]))
    other.read(0, 4)
    assert flagged(other) == []
    # Cut by the end of the file, the window of 16 has its marker 8 before the end: at 12, not at 8.
    short = mm.page_cache.open(20)
    short.read(0, 4)
    short.read(4, 4)
    assert flagged(short) == []


def test_nothing_is_read_beyond_the_end(mm):
    file = mm.page_cache.open(40)
    assert file.read(0, 16) == 16
    assert file.read(16, 16) == 16
    assert file.read(32, 16) == 8
    assert file.nrpages == 40
    assert file.read(40, 16) == 0


def test_what_is_cached_is_not_read_again(mm):
    file = mm.page_cache.open(64)
    file.read_pages(np.arange(4, 8))
    before = mm.vmstat.as_dict()["pgpgin"]
    file.read(0, 16)
    assert mm.vmstat.as_dict()["pgpgin"] - before == 4 * (32 - 4)  # in KiB


def test_each_page_read_is_marked_accessed_once(mm):
    file = mm.page_cache.open(64)
    file.read(0, 16)
    words = [int(mm.pgdat.memory.page[4 * p + pg.WORD]) for p in file_pfns(mm, file)[:32]]
    assert [bool(w & pg.PG_REFERENCED) for w in words] == [True] * 16 + [False] * 16
    file.read(0, 16)
    assert mm.vmstat.as_dict()["pgactivate"] == 16


def test_planning_alone_window_by_window():
    """A reader of 8 pages at a time from page 0, 128 KiB window; (start, size, marker) of each plan."""
    ra = FileRaState()
    plans = []
    position, have = 0, 0
    while position < 200:
        if position <= ra.marker < position + 8:
            plans.append(ondemand_readahead(ra, ra.marker, position + 8 - ra.marker, hit_marker=True))
            have = sum(plans[-1])
        elif position >= have:
            plans.append(ondemand_readahead(ra, position, 8, hit_marker=False))
            have = sum(plans[-1])
        position += 8
    assert plans == [(0, 16), (16, 32), (48, 32), (80, 32), (112, 32), (144, 32), (176, 32), (208, 32)]
