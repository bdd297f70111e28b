from __future__ import annotations

import numpy as np
import pytest

from mmfw.errors import MmfwError
from mmfw.jit import page as pg
from mmfw.testing import make_mm


def test_the_owner_of_a_page_and_its_index_are_found():
    mm = make_mm("256M")
    owners = [object() for _ in range(5)]
    bases = [mm.rmap.register(owner, 10) for owner in owners]
    assert np.diff(bases).tolist() == [10] * 4
    pfns = np.arange(20000, 20010)
    mm.rmap.place(pfns, bases[3] + np.arange(10))
    assert mm.rmap.owner_of(20007) == (owners[3], 7)
    assert mm.rmap.part(bases[3], 10).tolist() == pfns.tolist()
    mm.rmap.clear(bases[3] + np.array([7]))
    assert mm.rmap.owner_of(20007) is None
    assert mm.rmap.part(bases[3], 10)[7] == pg.SLOT_EMPTY


def test_clearing_a_shadow_touches_no_page():
    mm = make_mm("256M")
    base = mm.rmap.register(object(), 2)
    mm.rmap.slots[base] = pg.SLOT_SHADOW | 5
    before = mm.pgdat.memory.page.copy()
    mm.rmap.clear(base + np.arange(2))
    assert (mm.pgdat.memory.page == before).all()
    assert (mm.rmap.part(base, 2) == pg.SLOT_EMPTY).all()


def test_the_table_grows_and_keeps_what_it_held():
    mm = make_mm("256M")
    base = mm.rmap.register(object(), 4)
    mm.rmap.place(np.array([20000]), np.array([base + 2]))
    far = mm.rmap.register(object(), 100_000)
    assert mm.rmap.part(base, 4)[2] == 20000
    assert (mm.rmap.part(far, 100_000) == pg.SLOT_EMPTY).all()


def test_more_slots_than_there_are_is_refused():
    mm = make_mm("256M")
    with pytest.raises(MmfwError, match=r"2147483647 rmap slots wanted, \d+ are left"):
        mm.rmap.register(object(), 2**31 - 1)


def test_an_aligned_owner_leaves_a_gap_that_is_nobodys():
    mm = make_mm("256M")
    owner = object()
    mm.rmap.register(object(), 3)
    base = mm.rmap.register(owner, 10, 64)
    assert base % 64 == 0
    assert mm.rmap.register(object(), 1) == base + 10
    mm.rmap.place(np.array([20000, 20001]), np.array([base, base - 1]))
    assert mm.rmap.owner_of(20000) == (owner, 0)
    assert mm.rmap.owner_of(20001) is None


def test_a_page_cache_page_is_found():
    mm = make_mm("256M")
    file = mm.page_cache.open(64)
    assert file.read_pages(np.arange(64)) == 64
    pfn = int(mm.rmap.part(file.base_slot, 64)[5])
    assert mm.rmap.owner_of(pfn) == (file, 5)
