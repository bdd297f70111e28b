from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmfw import SHRINK_EMPTY, ShrinkControl
from mmfw.mm.list_lru import ListLru
from mmfw_xfs_buf import LRU_REF, BufType
from mmfw_xfs_buf.daddrmap import DaddrMap
from mmfw_xfs_buf.listwalk import walk


@pytest.mark.parametrize("buf_type", [each for each in BufType if LRU_REF[each]])
def test_a_buffer_outlives_as_many_scans_as_its_kind_weighs(bench, buf_type):
    b = bench()
    slot = b.cached(4096, buf_type)
    for _ in range(int(LRU_REF[buf_type])):
        assert b.scan(1) == 0
        assert b.is_cached(slot)
    assert b.scan(1) == 1
    assert not b.is_cached(slot)
    assert b.buftarg.stats.disposed.tolist() == [int(ref == LRU_REF[buf_type]) for ref in range(5)]


def test_one_weight_for_all_kinds(bench):
    b = bench(flat_lru_ref=1)
    slots = [b.cached(4096, buf_type) for buf_type in (BufType.AGF, BufType.BMAP_BTREE)]
    assert (b.scan(2), b.scan(2)) == (0, 2)
    assert not any(map(b.is_cached, slots))
    # They are counted under the weights of their kinds all the same.
    assert b.buftarg.stats.disposed.tolist() == [0, 0, 1, 0, 1]


def test_weights_are_those_of_the_kernel():
    by_name = {each.name: int(LRU_REF[each]) for each in BufType}
    assert by_name == {
        "AGF": 4, "AGI": 4, "AGFL": 3, "INO_BTREE": 3, "ALLOC_BTREE": 2, "BMAP_BTREE": 2, "RMAP_BTREE": 2,
        "DIR_BTREE": 2, "INODE": 2, "ATTR_BTREE": 1, "DQUOT": 1, "REFC_BTREE": 1, "SB": 0,
    }  # fmt: skip


def test_a_buffer_whose_user_sets_no_weight_has_one(bench):
    b = bench()
    slot = b.buftarg.get(b.daddr(4096), 4096, BufType.AGF)
    b.buftarg.rele(slot)
    assert (b.scan(1), b.scan(1)) == (0, 1)


def test_weight_0_is_never_cached(bench):
    b = bench()
    slot = b.buftarg.get(b.daddr(512), 512, BufType.SB)
    b.buftarg.set_ref(slot)
    b.buftarg.rele(slot)
    assert (b.is_cached(slot), b.buftarg.nr_lru) == (False, 0)


def test_use_renews_the_weight_but_not_the_place(bench):
    b = bench()
    first, second = b.cached(4096), b.cached(4096)
    assert b.scan(4) == 0  # both counted down to 0
    daddr = int(b.buftarg.table.daddr[first])
    again = b.buftarg.get(daddr, 4096, BufType.ALLOC_BTREE)
    b.buftarg.set_ref(again)
    b.buftarg.rele(again)
    assert again == first
    # It is looked at first still, and spared; the other one goes.
    assert (b.scan(1), b.is_cached(first), b.is_cached(second)) == (0, True, True)
    assert (b.scan(1), b.is_cached(first), b.is_cached(second)) == (1, True, False)


def test_roots_outlive_leaves(bench):
    b = bench()
    leaves = [b.cached(4096, BufType.ATTR_BTREE) for _ in range(50)]
    roots = [b.cached(512, BufType.AGF) for _ in range(5)]
    leaves += [b.cached(4096, BufType.BMAP_BTREE) for _ in range(50)]
    assert [b.scan(105), b.scan(105), b.scan(55)] == [0, 50, 50]
    assert not any(map(b.is_cached, leaves))
    assert all(map(b.is_cached, roots))
    assert b.buftarg.stats.disposed.tolist() == [0, 50, 50, 0, 0]


def test_a_held_buffer_in_6_1_is_counted_down_and_disposed_of_but_stays(bench):
    b = bench("6.1")
    slot = b.cached(4096, BufType.ATTR_BTREE)
    b.buftarg.hold(slot)
    assert (b.scan(1), b.scan(1)) == (0, 1)
    assert (b.is_cached(slot), b.buftarg.nr_lru, b.buftarg.stats.delisted) == (True, 0, 1)
    b.buftarg.rele(slot)
    assert not b.is_cached(slot)  # no weight is left, and the LRU has no reference any more


def test_a_held_buffer_in_6_1_goes_back_if_its_user_renewed_the_weight(bench):
    b = bench("6.1")
    slot = b.cached(4096, BufType.ATTR_BTREE)
    b.buftarg.hold(slot)
    b.scan(1)
    b.scan(1)
    b.buftarg.set_ref(slot)
    b.buftarg.rele(slot)
    assert (b.is_cached(slot), b.buftarg.nr_lru) == (True, 1)


def test_a_held_buffer_in_7_1_leaves_the_lru_with_its_weight(bench):
    b = bench("7.1")
    slot = b.cached(4096, BufType.ATTR_BTREE)
    b.buftarg.hold(slot)
    assert b.scan(8) == 1  # counted as freed
    assert (b.is_cached(slot), b.buftarg.nr_lru, b.buftarg.stats.delisted) == (True, 0, 1)
    b.buftarg.rele(slot)
    assert (b.buftarg.nr_lru, b.scan(1), b.scan(1)) == (1, 0, 1)


def test_a_stale_buffer_goes_with_its_last_user(bench):
    b = bench()
    slot = b.cached(4096)
    b.buftarg.hold(slot)
    b.buftarg.stale(slot)
    assert (b.buftarg.nr_lru, b.is_cached(slot)) == (0, True)
    b.buftarg.rele(slot)
    assert not b.is_cached(slot)
    with pytest.raises(ValueError, match="nobody holds"):
        b.buftarg.rele(slot)


def test_count_is_in_buffers_on_the_lru(bench):
    b = bench()
    sc = ShrinkControl(gfp_mask=0, nid=0)
    assert b.shrinker.count_objects(sc) == 0 != SHRINK_EMPTY
    for _ in range(3):
        b.cached(65536)
    held = b.buftarg.get(b.daddr(4096), 4096, BufType.DQUOT)
    assert b.shrinker.count_objects(sc) == 3
    b.buftarg.rele(held)
    assert b.shrinker.count_objects(sc) == 4


def test_registered_as_in_the_kernel(bench):
    b = bench(device="nvme0n1p2")
    assert [(s.ops.name, s.ops.seeks, s.ops.batch) for s in b.mm.shrinkers] == [
        ("sb-xfs:nvme0n1p2", 2, 1024),
        ("xfs-buf:nvme0n1p2", 2, 0),
        ("xfs-inodegc:nvme0n1p2", 0, 2049),
        ("xfs-qm:nvme0n1p2", 2, 0),
    ]


def kernel_walk(items: list[int], weight: dict[int, int], nr_to_walk: int) -> int:
    """__list_lru_walk_one() item by item, with list_for_each_safe()'s look-ahead."""
    removed, at = 0, 0
    while at < len(items) and nr_to_walk:
        last = at == len(items) - 1
        nr_to_walk -= 1
        item = items.pop(at)
        if weight[item]:
            weight[item] -= 1
            items.append(item)
            if last:
                break
        else:
            removed += 1
    return removed


@given(st.lists(st.integers(0, 4), max_size=12), st.lists(st.integers(0, 40), max_size=8))
def test_walk_is_that_of_list_lru(weights, walks):
    lru = ListLru()
    lru.add(np.arange(len(weights)))
    items, left = list(range(len(weights))), dict(enumerate(weights))
    ours = np.array([*weights, 0])

    def isolate(slots):
        keeps = ours[slots] > 0
        ours[slots[keeps]] -= 1
        return keeps

    for nr_to_walk in walks:
        assert walk(lru, nr_to_walk, isolate) == kernel_walk(items, left, nr_to_walk)
        assert lru.oldest(len(lru)).tolist() == items
        assert ours[:-1].tolist() == list(left.values())


@given(st.lists(st.tuples(st.integers(0, 1 << 22), st.booleans()), max_size=60))
@settings(max_examples=50)
def test_daddr_map_is_a_dictionary(steps):
    known: dict[int, int] = {}
    evicted: dict[int, int] = {}
    mapped = DaddrMap()
    for slot, (daddr, evict) in enumerate(steps):
        if daddr in known:
            mapped.remove(np.array([daddr]), evicted_at=slot if evict else -1)
            del known[daddr]
            evicted[daddr] = slot if evict else -1
        else:
            assert mapped.insert(daddr, slot) == evicted.pop(daddr, -1)
            known[daddr] = slot
        probes = np.array([daddr, daddr + 1, 0, 1 << 40, *known], dtype=np.int64)
        assert mapped.lookup(probes).tolist() == [known.get(p, -1) for p in probes.tolist()]
        assert mapped.find(daddr) == known.get(daddr, -1)
