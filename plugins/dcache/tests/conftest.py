"""Small machines with a filesystem mounted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from mmfw.mm.core import Mm
from mmfw.testing import make_mm
from mmfw_dcache import SuperBlock, Tree, plugin
from mmfw_dcache.objects import NONE

Mount = Callable[..., Tree]


@pytest.fixture
def mount() -> Iterator[Mount]:
    """Mount a filesystem: ``mount(initial_files=..., start=...)``; at the end memory is checked for leaks."""
    made: list[tuple[Mm, int]] = []

    def build(
        machine: Any = "256M", *, start: bool = False, seed: int = 0, nr_cpus: int = 1, **params: Any
    ) -> Tree:
        mm = make_mm(machine, seed=seed, nr_cpus=nr_cpus)
        owned = mm.nr_allocated_pages()
        plugin.mmfw_module_init(mm, plugin.DcacheParams(**params))
        tree = mm.attached.get(Tree)
        assert tree is not None
        if start:
            mm.start_time()
        made.append((mm, owned))
        return tree

    yield build
    for mm, owned in made:
        mm.slab.validate()
        plugin.mmfw_module_exit(mm)
        assert mm.nr_allocated_pages() == owned
        mm.sched.close()


@pytest.fixture
def check() -> Callable[[SuperBlock, list[int]], None]:
    """Check counts, lists and slab against each other, and against the names that a test holds open."""
    return _check


def _check(sb: SuperBlock, held: list[int]) -> None:
    d, i = sb.dentries, sb.inodes
    cached = np.flatnonzero(d.at != NONE)
    refs = np.bincount([*held, 0], minlength=sb.nr_names)
    below = cached[cached != 0]
    refs += np.bincount(sb.parents_of(below), minlength=sb.nr_names)
    assert np.array_equal(d.count[cached], refs[cached])
    assert d.lru.holds(cached[d.count[cached] == 0]).all()
    for objects in (d, i):
        there = np.flatnonzero(objects.at != NONE)
        assert objects.cache.nr_objects == objects.nr_objects == len(there)
        assert np.array_equal(objects.names_of(objects.place(there)), there)
        absent = np.flatnonzero(objects.at == NONE)
        assert not objects.lru.holds(absent).any()
        assert not objects.count[absent].any()
    existing = cached[sb.exist(cached)]
    assert (i.at[existing] != NONE).all()
    assert int(i.count[existing].sum()) == len(existing) == int(i.count.sum())
