"""The LRU of slab objects, against a plain list."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mmfw.mm.list_lru import ListLru
from mmfw.testing import make_mm


def places(*numbers):
    return np.array(numbers, dtype=np.int64)


def test_oldest_first_and_an_object_on_the_list_keeps_its_place():
    lru = make_mm("256M").slab.list_lru()
    assert lru.add(places(7, 3, 9)).all()
    assert lru.add(places(3, 4)).tolist() == [False, True]
    assert lru.oldest(3).tolist() == [7, 3, 9]
    lru.rotate(places(7))
    lru.remove(places(3, 8))
    assert (len(lru), lru.oldest(10).tolist()) == (3, [9, 4, 7])
    assert lru.holds(places(3, 4, 100_000)).tolist() == [False, True, False]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["add", "remove", "rotate", "oldest"]),
            st.lists(st.integers(0, 40), min_size=1, max_size=12, unique=True),
            st.integers(1, 60),
        ),
        max_size=300,
    )
)
def test_it_does_what_a_plain_list_does(steps):
    lru, plain = ListLru(), []
    for what, numbers, repeat in steps:
        which = places(*numbers)
        if what == "add":
            assert lru.add(which).tolist() == [n not in plain for n in numbers]
            plain += [n for n in numbers if n not in plain]
        elif what == "remove":
            lru.remove(which)
            plain = [n for n in plain if n not in numbers]
        elif what == "rotate":
            held = [n for n in numbers if n in plain]
            for _ in range(repeat):  # so often that the ring is full of stale entries
                lru.rotate(places(*held))
            plain = [n for n in plain if n not in held] + held
        else:
            assert lru.oldest(repeat).tolist() == plain[:repeat]
        assert len(lru) == len(plain)
    assert lru.oldest(100).tolist() == plain
