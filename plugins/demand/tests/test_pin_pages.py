from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from mmfw.sched import TaskState
from mmfw_demand import demand_loads
from mmfw_demand.pin_pages import PinPagesParams
from mmfw_demand.plugin import mmfw_module_exit


def pinned(b):
    return np.sort(np.concatenate(demand_loads(b.mm).pinned))


@pytest.mark.parametrize("one_in_pages", [16, 64, 512])
def test_one_page_of_each_block_stays(bench, one_in_pages):
    b = bench()
    before = b.free_pages()
    task = b.spawn("pin-pages", one_in_pages=one_in_pages)
    b.run_ms(2_000)
    assert task.state is TaskState.DEAD
    pages = pinned(b)
    blocks = pages // one_in_pages
    assert len(np.unique(blocks)) == len(pages) == before - b.free_pages()
    # What free memory has in blocks of that size, less the few pages below it and above the watermark.
    assert before // one_in_pages * 0.9 < len(pages) <= before // one_in_pages
    # Chosen at random: no residue is favoured.
    residues = np.bincount(pages % one_in_pages, minlength=one_in_pages)
    assert residues.max() <= len(pages) / one_in_pages + 6 * (len(pages) / one_in_pages) ** 0.5 + 3
    # Free blocks of that size are left only where none was taken.
    order = one_in_pages.bit_length() - 1
    free = sum(n << o for row in b.mm.buddyinfo().values() for o, n in enumerate(row) if o >= order)
    assert free < before * 0.15
    mmfw_module_exit(b.mm)
    assert (b.free_pages(), demand_loads(b.mm).nr_pinned) == (before, 0)


def test_a_share_of_free_memory(bench):
    b = bench()
    before = b.free_pages()
    b.spawn("pin-pages", one_in_pages=16, percent_of_free=25)
    b.run_ms(1_000)
    assert len(pinned(b)) == before * 25 // 100 >> 4


@pytest.mark.parametrize(("pageblocks", "migratetype"), [("unmovable", 0), ("movable", 1)])
def test_pages_lie_in_the_pageblocks_asked_for(bench, pageblocks, migratetype):
    b = bench()
    b.spawn("pin-pages", one_in_pages=512, percent_of_free=50, pageblocks=pageblocks)
    b.run_ms(1_000)
    kinds = b.mm.pgdat.memory.pb[pinned(b) >> 9] & 7
    assert (kinds == migratetype).mean() == 1


def test_two_loads_choose_differently_and_the_seed_decides(bench):
    def run(seed):
        b = bench(seed=seed)
        for _ in range(2):
            b.spawn("pin-pages", one_in_pages=64, percent_of_free=10)
        b.run_ms(1_000)
        first, second = demand_loads(b.mm).pinned
        assert (first % 64).tolist() != (second % 64).tolist()
        return pinned(b).tolist()

    assert run(1) == run(1) != run(2)


@pytest.mark.parametrize("value", [0, 1, 3, 2048, -2])
def test_only_powers_of_two_can_be_blocks(value):
    with pytest.raises(ValidationError, match="power of two from 2 to 1024"):
        PinPagesParams(one_in_pages=value)
