from __future__ import annotations

import pytest

from mmfw import SHRINK_EMPTY, SHRINK_STOP, ShrinkControl
from mmfw.sched import PF_KSWAPD, PF_KTHREAD, PF_MEMALLOC
from mmfw_probe.objects import HIGH_GFP, ObjectLoop

#: Free blocks of DMA32 by order: none of order 5 and above; single pages only.
UP_TO_ORDER_4 = [2000, 500, 500, 500, 1500, 0, 0, 0, 0, 0, 0]
SINGLE_PAGES = [30_000, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]


def make_loop(mm, nr_objects=3, pages=512, ladder="940"):
    return ObjectLoop(mm, nr_objects, pages, HIGH_GFP, ladder)


def scan(loop, nr_to_scan, priority=12):
    """Answer of one scan, and nr_scanned."""
    sc = ShrinkControl(gfp_mask=0, nid=0, nr_to_scan=nr_to_scan, nr_scanned=nr_to_scan, priority=priority)
    return loop.scan_objects(sc), sc.nr_scanned


def count(loop):
    return loop.count_objects(ShrinkControl(gfp_mask=0, nid=0))


def touch(loop, *numbers):
    """Touch objects; those that had to be restored."""
    restored = []
    for number in numbers:
        before = loop.counts.restores
        loop.touch(number)
        if loop.counts.restores > before:
            restored.append(number)
    return restored


def served(loop):
    """Requests served of order 9 and above, in between, and single pages; and failures likewise."""
    counts = loop.counts
    return (counts.got9, counts.got_mid, counts.got0), (counts.fail9, counts.fail_mid)


# --- the client ----------------------------------------------------------------------------------------


def test_an_object_is_restored_when_it_is_first_touched_only(machine):
    mm = machine()
    loop = make_loop(mm)
    assert touch(loop, 0, 1, 0, 1, 2) == [0, 1, 2]
    assert loop.resident == 3 * 512


@pytest.mark.parametrize(
    ("ladder", "pages", "expected"),
    [
        ("940", 512, (1, 0, 0)),
        ("940", 1536, (3, 0, 0)),
        ("940", 529, (1, 1, 1)),
        ("940", 27, (0, 1, 11)),
        ("all", 512, (1, 0, 0)),
        ("all", 1536, (2, 0, 0)),
        ("all", 27, (0, 3, 1)),
        ("all", 1023, (1, 8, 1)),
        ("0", 512, (0, 0, 512)),
        ("0", 27, (0, 0, 27)),
    ],
)
def test_ladder_takes_the_largest_order_that_fits(machine, free_pages, ladder, pages, expected):
    mm = machine()
    before = free_pages(mm)
    loop = make_loop(mm, pages=pages, ladder=ladder)
    assert touch(loop, 0) == [0]
    assert served(loop) == (expected, (0, 0))
    assert free_pages(mm) == before - pages


def test_a_failed_order_is_asked_for_once_an_object(machine, free_pages):
    mm = machine(dma32=UP_TO_ORDER_4)
    before = free_pages(mm)
    loop = make_loop(mm)
    touch(loop, 0, 1)
    assert served(loop) == ((0, 64, 0), (2, 0))
    assert free_pages(mm) == before - 1024


def test_full_ladder_goes_down_one_order_at_a_time(machine):
    loop = make_loop(machine(dma32=UP_TO_ORDER_4), ladder="all")
    touch(loop, 0)
    # 9 fails, and so do 8, 7, 6 and 5; 32 blocks of order 4 make the object.
    assert served(loop) == ((0, 32, 0), (1, 4))


def test_single_pages_when_nothing_larger_is_free(machine):
    loop = make_loop(machine(dma32=SINGLE_PAGES))
    touch(loop, 0)
    assert served(loop) == ((0, 0, 512), (1, 1))


@pytest.mark.parametrize("dma32", [None, UP_TO_ORDER_4, SINGLE_PAGES])
@pytest.mark.parametrize("ladder", ["940", "all", "0"])
def test_pages_add_up_and_release_gives_all_back(machine, free_pages, dma32, ladder):
    mm = machine(dma32=dma32)
    before, owned = free_pages(mm), mm.nr_allocated_pages()
    loop = make_loop(mm, 4, 512, ladder)
    assert touch(loop, 0, 1, 2, 3) == [0, 1, 2, 3]
    evicted, _ = scan(loop, 600)
    assert touch(loop, 3, 2, 1, 0) == [1, 0]
    counts = loop.counts
    assert (counts.restores, counts.evictions, evicted) == (6, 2, 1024)
    # On free memory as it is here, no order between 4 and 9 is used, and 10 is larger than an object.
    assert counts.got9 * 512 + counts.got_mid * 16 + counts.got0 == counts.restores * 512
    assert loop.resident == (counts.restores - counts.evictions) * 512
    assert free_pages(mm) == before - loop.resident
    loop.release()
    assert (free_pages(mm), mm.nr_allocated_pages(), loop.resident) == (before, owned, 0)
    assert touch(loop, 2) == [2]


def test_run_touches_what_is_picked_and_pauses_after_each(machine):
    mm = machine()
    loop = make_loop(mm, 5)
    seen = []
    loop.run(7, lambda step: step * 2 % 5, lambda step: seen.append((step, loop.counts.restores)))
    assert seen == list(enumerate([1, 2, 3, 4, 5, 5, 5], start=1))


# --- the shrinker --------------------------------------------------------------------------------------


def test_count_is_in_pages_and_says_when_there_are_none(machine):
    loop = make_loop(machine())
    assert count(loop) == SHRINK_EMPTY
    touch(loop, 0, 1)
    assert count(loop) == 1024
    scan(loop, 1)
    assert count(loop) == 512
    scan(loop, 1)
    assert count(loop) == SHRINK_EMPTY


def test_the_least_recently_used_object_goes_first(machine):
    loop = make_loop(machine(), 4)
    touch(loop, 0, 1, 2, 3)
    touch(loop, 0, 2)
    # By age now: 1, 3, 0, 2.
    assert scan(loop, 1) == (512, 512)
    assert touch(loop, 3, 0, 2) == []
    assert scan(loop, 1) == (512, 512)
    assert touch(loop, 0, 2, 3, 1) == [3, 1]


def test_a_restored_object_is_young(machine):
    loop = make_loop(machine())
    touch(loop, 0, 1, 2)
    scan(loop, 1)
    assert touch(loop, 0) == [0]
    assert scan(loop, 513) == (1024, 1024)
    assert touch(loop, 0) == []
    assert touch(loop, 1, 2) == [1, 2]


@pytest.mark.parametrize(
    ("nr_to_scan", "freed", "nr_scanned"),
    [(1, 512, 512), (128, 512, 512), (512, 512, 512), (513, 1024, 1024), (5000, 1536, 5000)],
)
def test_objects_go_whole_until_enough_is_free(machine, free_pages, nr_to_scan, freed, nr_scanned):
    mm = machine()
    loop = make_loop(mm)
    touch(loop, 0, 1, 2)
    before = free_pages(mm)
    assert scan(loop, nr_to_scan) == (freed, nr_scanned)
    assert free_pages(mm) == before + freed
    assert loop.counts.evictions == freed // 512
    assert len(loop.counts.nr_free_at_eviction) == freed // 512


def test_nothing_resident_is_shrink_stop(machine):
    loop = make_loop(machine())
    assert scan(loop, 128)[0] == SHRINK_STOP
    assert loop.counts.evictions == 0


def test_free_pages_are_noted_after_the_eviction(machine):
    mm = machine()
    loop = make_loop(mm)
    touch(loop, 0)
    # Blocks of order 9 pass through a per-CPU list, which an eviction into a full one empties.
    mm.drain_all_pages()
    scan(loop, 1)
    assert loop.counts.nr_free_at_eviction == [mm.global_zone_free_pages()]


def test_a_second_scan_at_the_same_time_stops_at_the_lock(machine, call):
    mm = machine(nr_cpus=2, start=True)
    loop = make_loop(mm, 20)
    answers = []

    def client():
        touch(loop, *range(20))
        for delay in (0, 20_000):
            mm.sched.spawn(reclaim, delay, name="direct", flags=PF_MEMALLOC, daemon=False)

    def reclaim(delay):
        mm.sched.sleep(delay + 1)
        began = mm.sched.now
        answer = scan(loop, 5000)
        answers.append((*answer, began, mm.sched.now))

    call(mm, client)
    (loser, winner) = answers
    assert loser[:2] == (SHRINK_STOP, 5000)
    assert winner[:2] == (10 * 512, 5120)
    assert winner[2] < loser[2] <= loser[3] < winner[3]
    assert loop.resident == 10 * 512


def test_scans_are_counted_by_priority_for_kswapd_alone(machine, call):
    mm = machine()
    loop = make_loop(mm)
    touch(loop, 0, 1, 2)
    call(mm, lambda: scan(loop, 1, priority=9), PF_MEMALLOC)
    assert loop.counts.scans_by_priority == {}
    kswapd = PF_KTHREAD | PF_MEMALLOC | PF_KSWAPD
    for priority in (9, 8, 8):
        call(mm, lambda at=priority: scan(loop, 1, priority=at), kswapd)
    assert loop.counts.scans_by_priority == {9: 1, 8: 2}
