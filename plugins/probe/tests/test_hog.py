from __future__ import annotations

import pytest

from mmfw_probe.hog import MIB_PAGES, Hog, open_disk, read_all
from mmfw_probe.shell import Shell


def hog_vma(mm):
    return max((vma for vma in mm.memory.vmas if vma.oom_score_adj == 900), key=lambda vma: vma.nr_pages)


def absent(mm, vma, indices):
    """How many of a mapping's pages must be faulted in."""
    before = mm.vmstat.as_dict()["pgfault"]
    for index in indices:
        vma.touch(index, 1)
    return mm.vmstat.as_dict()["pgfault"] - before


@pytest.mark.parametrize(
    ("mode", "n", "resident", "holes"),
    [
        ("anon", 0, 4096, []),
        ("punch", 4, 3072, [0]),
        ("punch", 2, 2048, [0]),
        ("keep", 4, 1024, [1, 2, 3]),
        ("keep", 8, 512, [1, 2, 3, 4, 5, 6, 7]),
    ],
)
def test_what_stays_resident(machine, call, mode, n, resident, holes):
    mm = machine(start=True)

    def shell():
        sh = Shell(mm)
        Hog(mm, sh).start_and_wait(mode, 16, n)
        sh.exit()
        vma = hog_vma(mm)
        # The hog's process has pages beside the mapping that it was started for.
        process = sum(other.nr_resident for other in mm.memory.vmas if other is not vma)
        assert 12 <= process <= 14
        found = [vma.nr_resident, mm.lruvec.nr_pages - process]
        found += [absent(mm, vma, range(first, 4096, n)) for first in range(n)]
        return found

    boot = mm.lruvec.nr_pages
    per_residue = [4096 // n if first in holes else 0 for first in range(n)]
    assert call(mm, shell) == [resident, boot + resident, *per_residue]


def test_shell_polls_until_the_hog_is_ready(machine, call):
    mm = machine(start=True)

    def shell():
        Hog(mm, Shell(mm)).start_and_wait("anon", 64, 0)
        return mm.sched.now, hog_vma(mm).nr_resident

    ready_at, resident = call(mm, shell)
    assert resident == 64 * MIB_PAGES
    assert ready_at > 200_000_000


@pytest.mark.parametrize("mode", ["anon", "punch", "keep"])
def test_kill_frees_all(machine, call, free_pages, unowned, mode):
    mm = machine(start=True)
    before, kept = free_pages(mm), unowned(mm)

    def shell():
        sh = Shell(mm)
        hog = Hog(mm, sh)
        hog.start_and_wait(mode, 32, 0 if mode == "anon" else 8)
        held = before - free_pages(mm)
        hog.kill()
        hog.kill()  # a second signal finds nothing to free
        sh.exit()
        return held

    assert call(mm, shell) > 32 * MIB_PAGES // 8
    assert (free_pages(mm), unowned(mm), mm.memory.nr_page_table_pages) == (before, kept, 0)
    assert mm.memory.vmas == ()


@pytest.mark.parametrize("mode", ["anon", "mixed"])
def test_the_oom_killer_takes_the_hog_first(machine, call, mode):
    mm = machine(start=True)

    def shell():
        sh = Shell(mm)
        hog = Hog(mm, sh)
        hog.start_and_wait(mode, 16, 0, open_disk(mm, 8) if mode == "mixed" else None)
        return {vma.oom_score_adj for vma in mm.memory.vmas if vma.task.comm == "hog"}

    assert call(mm, shell) == {900}


@pytest.mark.parametrize(("disk_mb", "read_pages"), [(8, 8 * MIB_PAGES), (64, 16 * MIB_PAGES)])
def test_mixed_reads_a_mib_of_the_disk_for_each_of_its_own(machine, call, unowned, disk_mb, read_pages):
    mm = machine(start=True)
    kept = unowned(mm)

    def shell():
        disk = open_disk(mm, disk_mb)
        sh = Shell(mm)
        hog = Hog(mm, sh)
        hog.start_and_wait("mixed", 16, 2, disk)
        found = hog_vma(mm).nr_resident, disk.nrpages
        hog.kill()
        sh.exit()
        return *found, disk.nrpages

    resident, cached, after = call(mm, shell)
    assert (resident, after) == (16 * MIB_PAGES // 2, 0)
    # Readahead is one window in front of the reader, as large as its reads are.
    assert read_pages <= cached <= min(disk_mb, 17) * MIB_PAGES
    assert unowned(mm) == kept


def test_mixed_lays_its_pages_between_those_of_the_disk(machine, call):
    mm = machine(start=True)

    def shell():
        disk = open_disk(mm, 8)
        Hog(mm, Shell(mm)).start_and_wait("mixed", 8, 0, disk)
        return hog_vma(mm).pfns(), disk.words()

    mine, theirs = call(mm, shell)
    lowest, highest = mine.min(), mine.max()
    assert ((theirs > lowest) & (theirs < highest)).sum() > len(theirs) // 2


def test_read_all_reads_every_page_once(machine, call):
    mm = machine(start=True)

    def shell():
        disk = open_disk(mm, 8)
        read_all(mm, disk)
        first = mm.vmstat.as_dict()["pgpgin"]
        read_all(mm, disk)
        return disk.nrpages, first, mm.vmstat.as_dict()["pgpgin"]

    assert call(mm, shell) == (8 * MIB_PAGES, 8192, 8192)
