from __future__ import annotations

import numpy as np
import pytest

from mmfw.errors import MmfwError
from mmfw.testing import make_mm


class Owner:
    def __init__(self) -> None:
        self.moves: list[tuple[int, int, int]] = []

    def folio_moved(self, index: int, old_pfn: int, new_pfn: int) -> None:
        self.moves.append((index, old_pfn, new_pfn))


def test_the_owner_of_a_moved_folio_learns_its_own_index():
    mm = make_mm("256M")
    owners = [Owner() for _ in range(5)]
    bases = [mm.rmap.register(owner, 10) for owner in owners]
    assert bases == [1, 11, 21, 31, 41]
    pfns = np.arange(20000, 20010)
    mm.rmap.set_slots(pfns, bases[3] + np.arange(10))
    mm.rmap.folio_moved(20007, 30000)
    assert owners[3].moves == [(7, 20007, 30000)]
    assert all(o.moves == [] for o in owners if o is not owners[3])
    assert mm.rmap.owner_of(20007) is None
    assert mm.rmap.owner_of(30000) == (owners[3], 7)


def test_a_page_nobody_owns_cannot_move():
    mm = make_mm("256M")
    mm.rmap.register(Owner(), 4)
    with pytest.raises(MmfwError, match=r"pfn 0x64 has no owner to tell that it moved to 0xc8"):
        mm.rmap.folio_moved(100, 200)


def test_a_page_cache_page_is_found_and_follows_its_move():
    mm = make_mm("256M")
    file = mm.page_cache.open(64)
    assert file.read(np.arange(64)) == 64
    owner, index = mm.rmap.owner_of(_pfn_of(mm, file, 5))
    assert owner is file
    assert index == 5
    old, new = _pfn_of(mm, file, 5), mm.alloc_pages(0xCC0, 0)
    mm.rmap.folio_moved(old, new)
    assert _pfn_of(mm, file, 5) == new


def _pfn_of(mm, file, index):
    words = mm.pgdat.memory.page[2 : 4 * mm.pgdat.memory.nr_pfns : 4]
    (pfns,) = np.nonzero(words == file.base_slot + index)
    return int(pfns[0])
