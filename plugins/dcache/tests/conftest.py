"""Small machines with a filesystem mounted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mmfw.mm.core import Mm
from mmfw.testing import make_mm
from mmfw_dcache import Tree, plugin

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
