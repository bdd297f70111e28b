from __future__ import annotations

import pytest

from mmfw_probe import shell as sh
from mmfw_probe.hog import open_disk, read_all
from mmfw_probe.shell import Shell

MSEC = 1_000_000
#: Page tables of the shell's own two mappings, once it has written to both.
SHELL_TABLES = 2


def nr_used(mm, free_pages, before):
    return before - free_pages(mm)


def test_a_command_leaves_what_the_shell_has_copied_for_itself(machine, call, free_pages):
    mm = machine(start=True)
    before = free_pages(mm)
    shell = Shell(mm)
    took = []

    def body():
        for _ in range(6):
            began = mm.sched.now
            shell.run()
            took.append((mm.sched.now - began, nr_used(mm, free_pages, before)))

    call(mm, body)
    # Each fork makes new copies, and the child gives the former ones back; a page table of theirs stays too.
    assert [pages for _, pages in took] == [sh.NR_SHELL_COPIES + 1] * 6
    least = sh.FORK_NS + sh.EXEC_NS + sh.EXIT_NS
    assert all(least < ns < least + MSEC for ns, _ in took)


def test_a_sleeping_command_holds_its_pages_until_it_ends(machine, call, free_pages):
    mm = machine(start=True)
    before = free_pages(mm)
    shell = Shell(mm)
    seen = []

    def body():
        for _ in range(200):
            mm.sched.call_at(mm.sched.now + 50 * MSEC, lambda: seen.append(nr_used(mm, free_pages, before)))
            shell.sleep(100 * MSEC)

    call(mm, body)
    # A directory of two pages and eight tables, one of them the mapping's; what the shell keeps; 12 to 14 pages.
    fixed = 2 + sh.NR_TABLES_EXECED + 1 + sh.NR_SHELL_COPIES + 1
    pages = [each - fixed for each in seen]
    assert set(pages) == {12, 13, 14}
    # As a boot's: 39, 46 and 15 of a hundred; four deviations of 200 draws are 14 of a hundred.
    assert [pages.count(n) / 200 for n in (12, 13, 14)] == pytest.approx([0.384, 0.471, 0.144], abs=0.14)


def test_how_many_pages_a_command_takes_hangs_on_the_seed_alone(machine, call, free_pages):
    def pages(seed):
        mm = machine(start=True, seed=seed)
        before = free_pages(mm)
        shell = Shell(mm)
        seen = []

        def body():
            for _ in range(12):
                mm.sched.call_at(
                    mm.sched.now + 50 * MSEC, lambda: seen.append(nr_used(mm, free_pages, before))
                )
                shell.sleep(100 * MSEC)

        call(mm, body)
        return seen

    assert pages(1) == pages(1)
    assert pages(1) != pages(2)


def test_a_snapshot_and_a_packed_trace_stay_in_memory(machine, call, free_pages):
    mm = machine(start=True)
    before = free_pages(mm)
    shell = Shell(mm)
    seen = []

    def body():
        shell.snap()
        seen.append(nr_used(mm, free_pages, before))
        began = mm.sched.now
        shell.gzip(20, 50 * MSEC)
        seen.append(nr_used(mm, free_pages, before))
        seen.append(mm.sched.now - began)
        # What is written is the tmpfs's: movable, on no file's list, so no cache to be dropped.
        mm.drop_caches()
        seen.append(nr_used(mm, free_pages, before))

    call(mm, body)
    kept = sh.NR_SHELL_COPIES + SHELL_TABLES
    assert seen[0] == kept + sh.NR_SNAP_PAGES
    assert seen[1] == seen[3] == kept + sh.NR_SNAP_PAGES + 20
    assert 50 * MSEC < seen[2] < 70 * MSEC


def test_a_killed_command_gives_all_back(machine, call, free_pages, unowned):
    mm = machine(start=True)
    before, kept = free_pages(mm), unowned(mm)
    shell = Shell(mm)
    disk = open_disk(mm, 8)
    task = []

    def body():
        task.append(shell.start(lambda: read_all(mm, disk), comm="hog"))
        mm.sched.sleep(5 * MSEC)
        held = nr_used(mm, free_pages, before)
        mm.sched.send_sigkill(task[0])
        mm.sched.join(task[0])
        disk.truncate()
        shell.exit()
        return held

    assert call(mm, body) > 100
    assert (unowned(mm), mm.memory.nr_page_table_pages, mm.memory.vmas) == (kept, 0, ())
