"""Whom the OOM killer chooses, what it prints, and whose request goes on (mm/oom_kill.c of 6.1)."""

from __future__ import annotations

import pytest

from mm.workbench import MSEC, QUIET, SEC, events_of, fill, grown, run, unboosted
from mmfw import gfp
from mmfw.mm.oom_kill import OutOfMemory
from mmfw.mm.trace import MarkVictim

KERNEL = gfp.GFP_KERNEL


class Process:
    """A task that maps and touches some pages and then waits to be killed."""

    def __init__(self, mm, nr_pages, adj=0, touched=None, name="hog"):
        self.mm, self.nr_pages, self.adj = mm, nr_pages, adj
        self.touched = nr_pages if touched is None else touched
        self.vma = None
        self.task = mm.sched.spawn(self._main, name=name, daemon=True)

    def _main(self):
        self.vma = self.mm.mmap_anonymous(self.nr_pages, oom_score_adj=self.adj)
        self.vma.touch(0, self.touched)
        while True:
            self.mm.sched.nanosleep(10 * MSEC)


@pytest.fixture
def mm():
    mm = unboosted(start=True)
    mm.log = []
    mm.oom.printk = mm.log.append
    return mm


def exhaust(mm, mask=KERNEL):
    """Fill memory without reclaim, then ask for a page more with ``mask``."""
    fill(mm, mask=QUIET | gfp.MEMALLOC)
    return mm.alloc_pages(mask, 0)


def settle(mm, *processes):
    mm.sched.run(mm.sched.now + 50 * MSEC)
    assert all(each.vma is not None for each in processes)


def test_the_largest_process_dies_and_the_request_is_met(mm):
    small, large = Process(mm, 300, name="small"), Process(mm, 900, name="large")
    settle(mm, small, large)
    victims = events_of(mm, MarkVictim)
    before = mm.vmstat.as_dict()
    assert run(mm, lambda: exhaust(mm), 2 * SEC) >= 0
    assert [e.pid for e in victims] == [large.task.pid]
    assert grown(mm, before)["oom_kill"] == 1
    assert large.task.state.name == "DEAD"
    assert small.task.state.name == "SLEEPING"


def test_the_score_counts_pages_in_memory_not_mapped_ones(mm):
    wide = Process(mm, 6000, touched=100, name="wide")
    dense = Process(mm, 500, name="dense")
    settle(mm, wide, dense)
    victims = events_of(mm, MarkVictim)
    run(mm, lambda: exhaust(mm), 2 * SEC)
    assert [e.pid for e in victims] == [dense.task.pid]


def test_adj_shifts_the_score_by_thousandths_of_all_memory(mm):
    """128M: 23444 managed pages, so +100 is worth 2300 pages and -1000 protects wholly."""
    big = Process(mm, 2000, name="big")
    liked = Process(mm, 3000, adj=-100, name="liked")
    disliked = Process(mm, 100, adj=100, name="disliked")
    spared = Process(mm, 4000, adj=-1000, name="spared")
    settle(mm, big, liked, disliked, spared)
    victims = events_of(mm, MarkVictim)
    run(mm, lambda: [exhaust(mm), exhaust(mm)], 3 * SEC)
    assert [e.pid for e in victims][:2] == [disliked.task.pid, big.task.pid]
    assert spared.task.state.name == "SLEEPING"


def test_what_is_printed(mm):
    hog = Process(mm, 700, adj=5, touched=600, name="hog")
    settle(mm, hog)
    run(mm, lambda: exhaust(mm), 2 * SEC, name="asker")
    assert mm.log[0] == "asker invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0"
    killed = mm.log[1]
    assert killed.startswith(
        f"Out of memory: Killed process {hog.task.pid} (hog) total-vm:2800kB, anon-rss:2400kB, file-rss:0kB, "
        "shmem-rss:0kB, UID:0 pgtables:"
    )
    assert killed.endswith("kB oom_score_adj:5")
    assert len(mm.log) == 2


def test_with_nobody_to_kill_the_machine_would_panic(mm):
    with pytest.raises(OutOfMemory, match="no killable task"):
        run(mm, lambda: exhaust(mm), 2 * SEC)
    assert mm.log[-1] == "Out of memory and no killable processes..."


@pytest.mark.parametrize(
    ("mask", "order"),
    [
        (KERNEL | gfp.RETRY_MAYFAIL, 0),
        (KERNEL | gfp.THISNODE, 0),
        (KERNEL | gfp.NORETRY, 0),
        (KERNEL | gfp.DMA, 0),
        (KERNEL, 4),
        (gfp.GFP_NOWAIT, 0),
    ],
)
def test_who_fails_rather_than_kill(mm, mask, order):
    hog = Process(mm, 500)
    settle(mm, hog)

    def body():
        fill(mm, mask=QUIET | gfp.MEMALLOC)
        return mm.alloc_pages(mask | gfp.NOWARN, order)

    assert run(mm, body, 2 * SEC) == -1
    assert mm.log == []
    assert hog.task.state.name == "SLEEPING"


def test_a_request_that_finds_the_lock_taken_waits_a_tick_and_tries_again(mm):
    hog = Process(mm, 500)
    settle(mm, hog)
    assert mm.oom.mutex_trylock()

    def releaser():
        mm.sched.sleep(40 * MSEC)
        mm.oom.unlock()

    mm.sched.spawn(releaser, name="other", daemon=True)
    start = mm.sched.now

    def body():
        pfn = exhaust(mm)
        return pfn, mm.sched.now - start

    pfn, waited = run(mm, body, 2 * SEC)
    assert pfn >= 0
    assert waited >= 36 * MSEC
    assert len(mm.log) == 2


def test_a_request_without_fs_kills_nobody_and_tries_again(mm):
    hog = Process(mm, 500)
    settle(mm, hog)
    assert run(mm, lambda: mm.oom.out_of_memory(gfp.GFP_NOFS, 0, 2)) is True
    assert mm.log == []
    assert not hog.task.fatal_signal_pending


def test_of_equal_scores_the_youngest_dies(mm):
    hogs = [Process(mm, 50, name=f"t{i}") for i in range(3)]
    settle(mm, *hogs)
    run(mm, lambda: mm.oom.out_of_memory(KERNEL, 0, 2))
    assert [hog.task.fatal_signal_pending for hog in hogs] == [False, False, True]


def test_adj_is_in_whole_thousandths_of_memory(mm):
    mm.oom._totalpages = 23_999
    vma = mm.mmap_anonymous(1, oom_score_adj=999)
    assert mm.oom.oom_badness([vma]) == 999 * 23
    vma.oom_score_adj = -7
    assert mm.oom.oom_badness([vma]) == -7 * 23


def test_the_asker_prints_its_own_adj(mm):
    hog = Process(mm, 500)
    settle(mm, hog)

    def body():
        mm.mmap_anonymous(1, oom_score_adj=-300)
        mm.oom.out_of_memory(KERNEL, 0, 2)

    run(mm, body, name="asker")
    assert mm.log[0].endswith("order=0, oom_score_adj=-300")


def test_a_victim_frees_its_memory_when_it_ends(mm):
    hog = Process(mm, 500)
    settle(mm, hog)
    assert run(mm, lambda: (mm.oom.out_of_memory(KERNEL, 0, 2), hog.vma.nr_resident)[1], MSEC) == 500
    mm.sched.run(mm.sched.now + 20 * MSEC)
    assert hog.task.state.name == "DEAD"
    assert (hog.vma.nr_resident, mm.memory.vmas) == (0, ())


def test_a_victim_that_does_not_end_is_reaped_after_two_seconds(mm):
    """Meanwhile nobody else is killed: its memory is on its way."""
    held = []

    def stuck():
        held.append(mm.mmap_anonymous(500))
        held[0].touch(0, 500)
        mm.sched.sleep(60 * SEC)  # not in user mode

    mm.sched.spawn(stuck, name="stuck", daemon=True)
    mm.sched.run(mm.sched.now + 10 * MSEC)
    other = Process(mm, 100, name="other")
    settle(mm, other)
    run(mm, lambda: mm.oom.out_of_memory(KERNEL, 0, 2), MSEC)
    assert run(mm, lambda: mm.oom.out_of_memory(KERNEL, 0, 2), MSEC) is True
    assert sum("Killed process" in line for line in mm.log) == 1
    mm.sched.run(mm.sched.now + SEC)
    assert held[0].nr_resident == 500
    mm.sched.run(mm.sched.now + 2 * SEC)
    assert held[0].nr_resident == 0
    assert not other.task.fatal_signal_pending


def test_a_dying_task_that_runs_out_is_a_victim_and_nobody_is_killed(mm):
    hog = Process(mm, 500)
    settle(mm, hog)
    victims = events_of(mm, MarkVictim)
    pids = []

    def body():
        mm.sched.current.fatal_signal_pending = True
        pids.append(mm.sched.current.pid)
        for _ in range(2):
            assert mm.oom.out_of_memory(KERNEL, 0, 2) is True

    mm.sched.spawn(body, name="dying", daemon=True)
    mm.sched.run(mm.sched.now + SEC)
    assert [e.pid for e in victims] == pids
    assert mm.log == []
    assert mm.vmstat.as_dict()["oom_kill"] == 0


def test_a_victim_may_use_half_of_the_min_reserve(mm):
    """ALLOC_OOM: a task that is being killed gets what others may not, so that it can end."""
    hog = Process(mm, 400)
    settle(mm, hog)
    got = {}

    def body():
        fill(mm)
        got["before"] = mm.alloc_pages(KERNEL | gfp.NORETRY, 0)
        mm.oom._victims.add(mm.sched.current.pid)
        got["victim"] = mm.alloc_pages(KERNEL | gfp.NORETRY, 0)
        got["nomemalloc"] = mm.alloc_pages(KERNEL | gfp.NORETRY | gfp.NOMEMALLOC, 0)

    run(mm, body)
    assert got["before"] == got["nomemalloc"] == -1
    assert got["victim"] >= 0
