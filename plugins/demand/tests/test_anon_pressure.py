from __future__ import annotations

import pytest

from mmfw.sched import TaskState


def managed(b):
    return sum(zone.managed_pages for zone in b.mm.pgdat.node_zones)


def test_growth_keeps_its_rate_and_stops_at_its_size(bench):
    b = bench()
    before = b.free_pages()
    task = b.spawn("anon-pressure", percent_of_ram=20, pages_per_second=10_000)
    b.run_ms(500)
    (vma,) = b.mm.memory.vmas
    assert vma.nr_pages == managed(b) * 20 // 100
    # 125 turns of 40 pages and the one at 500 ms.
    assert 5_000 <= vma.nr_resident <= 5_040
    b.run_ms(1_500)
    assert vma.nr_resident == vma.nr_pages
    b.kill(task)
    assert (b.free_pages(), b.mm.memory.vmas) == (before, ())


def test_memory_shrinks_at_its_rate_and_the_load_returns(bench):
    b = bench()
    before = b.free_pages()
    task = b.spawn("anon-pressure", percent_of_ram=10, hold_ms=100, shrink_pages_per_second=10_000)
    b.run_ms(50)
    (vma,) = b.mm.memory.vmas
    assert vma.nr_resident == vma.nr_pages
    b.run_ms(250)
    assert 0 < vma.nr_resident < vma.nr_pages
    assert vma.words()[0] >= 1 << 31
    assert vma.words()[-1] < 1 << 31
    b.run_ms(1_000)
    assert (task.state, b.free_pages()) == (TaskState.DEAD, before)


def test_more_than_ram_is_swapped(bench):
    b = bench("128M", nr_swap_pages=60_000)
    task = b.spawn("anon-pressure", percent_of_ram=120, pages_per_second=50_000)
    b.run_ms(3_000)
    (vma,) = b.mm.memory.vmas
    assert vma.nr_resident + vma.nr_swapped == vma.nr_pages == managed(b) * 120 // 100
    assert vma.nr_swapped > managed(b) * 20 // 100
    assert b.mm.vmstat.as_dict()["oom_kill"] == 0
    b.kill(task)


def test_touching_again_brings_swapped_pages_back(bench):
    b = bench("128M", nr_swap_pages=60_000)
    task = b.spawn("anon-pressure", percent_of_ram=110, retouch_pages_per_second=2_000)
    b.run_ms(4_000)
    assert b.mm.vmstat.as_dict()["pswpin"] > 100
    b.kill(task)


def test_huge_pages_where_they_are_allowed(bench):
    b = bench()
    task = b.spawn("anon-pressure", percent_of_ram=20, thp=True)
    b.run_ms(200)
    (vma,) = b.mm.memory.vmas
    assert b.mm.vmstat.as_dict()["thp_fault_alloc"] == vma.nr_pages // 512
    b.kill(task)


def test_without_swap_the_oom_killer_takes_it_and_the_load_ends(bench):
    b = bench("128M")
    task = b.spawn("anon-pressure", percent_of_ram=120)
    b.run_ms(30_000)
    assert task.state is TaskState.DEAD
    assert b.mm.vmstat.as_dict()["oom_kill"] == 1
    assert b.mm.memory.vmas == ()


@pytest.mark.parametrize("after_ms", [1, 60, 700])
def test_killed_at_any_time_it_gives_everything_back(bench, after_ms):
    b = bench()
    before = b.free_pages()
    task = b.spawn(
        "anon-pressure",
        percent_of_ram=30,
        pages_per_second=100_000,
        hold_ms=100,
        shrink_pages_per_second=50_000,
    )
    b.run_ms(after_ms)
    b.kill(task)
    assert (b.free_pages(), b.mm.memory.nr_page_table_pages) == (before, 0)
