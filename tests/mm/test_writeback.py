"""Pages on their way to a device: nobody moves or reuses them before they are written."""

from __future__ import annotations

import numpy as np

from mm.workbench import SEC, lru, old_mapping, run, scan, unboosted, word
from mmfw import gfp
from mmfw.jit import page as pg


def test_pages_moved_while_they_are_written_are_written_in_the_end():
    """Compaction of a whole node leaves pages under writeback where they are: the device knows their places."""
    mm = unboosted(nr_swap_pages=4000, start=True)

    def body():
        vma, _ = old_mapping(mm, 3000)
        for _ in range(40):
            scan(mm, 32)
        written = [p for p in vma.pfns().tolist() if word(mm, p) & pg.PG_WRITEBACK]
        mm.compact_memory()
        stayed = set(written) <= set(vma.pfns().tolist())
        mm.sched.sleep(5 * SEC)
        return len(written), stayed, mm.lruvec.node_stat(pg.NS_WRITEBACK)

    written, stayed, left = run(mm, body, 20 * SEC)
    assert written > 1000
    assert (stayed, left) == (True, 0)


def test_a_freed_page_under_writeback_is_not_given_to_somebody_else_before_it_is_written():
    mm = unboosted(nr_swap_pages=4000, start=True)

    def body():
        owned = mm.nr_allocated_pages()
        vma, pfns = old_mapping(mm, 32)
        scan(mm, 32)
        assert all(word(mm, p) & pg.PG_WRITEBACK for p in pfns)
        assert vma.munmap() == 0
        assert mm.lruvec.node_stat(pg.NS_WRITEBACK) == 32
        assert mm.swap.get_nr_swap_pages() == 4000
        assert mm.nr_allocated_pages() == owned + 32
        got = set(mm.alloc_pages_batch(gfp.GFP_HIGHUSER_MOVABLE, 0, 64).tolist())
        mm.sched.sleep(SEC)
        assert mm.lruvec.node_stat(pg.NS_WRITEBACK) == 0
        assert mm.nr_allocated_pages() == owned + 64
        return got & set(pfns)

    assert run(mm, body, 5 * SEC) == set()


def test_a_truncated_page_is_freed_once_it_is_written():
    mm = unboosted(start=True)

    def body():
        file = mm.page_cache.open(20)
        file._add(np.arange(20))
        pfns = np.array(lru(mm, pg.LRU_INACTIVE_FILE))
        mm.page_cache.dirty(pfns)
        mm.page_io.wakeup_flusher_threads()
        mm.sched.sleep(1000)
        assert mm.lruvec.node_stat(pg.NS_WRITEBACK) == 20
        file.close()
        kept = [word(mm, int(p)) & (pg.TYPE_MASK | pg.PG_LRU) for p in pfns]
        mm.sched.sleep(SEC)
        return (
            set(kept),
            {word(mm, int(p)) & pg.TYPE_MASK for p in pfns},
            mm.lruvec.node_stat(pg.NS_WRITEBACK),
        )

    kept, later, left = run(mm, body, 5 * SEC)
    assert kept == {pg.T_ALLOC}
    assert pg.T_ALLOC not in later
    assert left == 0
