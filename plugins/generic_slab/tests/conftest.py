"""Small machines with a few caches, or with the purging driver."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mmfw.mm.core import Mm
from mmfw.testing import make_mm
from mmfw_generic_slab import GenericCaches, plugin, purger_plugin
from mmfw_generic_slab.purger import PurgingDriver

Caches = Callable[..., GenericCaches]


@pytest.fixture
def machine() -> Iterator[Callable[..., Mm]]:
    """A machine; at its end slab is checked, and that plugins have given back everything."""
    made: list[tuple[Mm, int]] = []

    def build(**more: Any) -> Mm:
        mm = make_mm("256M", **more)
        made.append((mm, mm.nr_allocated_pages()))
        return mm

    yield build
    for mm, owned in made:
        mm.slab.validate()
        plugin.mmfw_module_exit(mm)
        purger_plugin.mmfw_module_exit(mm)
        assert mm.nr_allocated_pages() == owned
        mm.sched.close()


@pytest.fixture
def caches(machine: Callable[..., Mm]) -> Caches:
    """Set caches up: ``caches({...}, {...}, start=..., total_pages=...)``, or the table with none given."""

    def build(*specs: dict[str, Any], start: bool = False, **params: Any) -> GenericCaches:
        mm = machine()
        table = {} if not specs else {"table": "none", "caches": list(specs)}
        plugin.mmfw_module_init(mm, plugin.GenericSlabParams.model_validate({**table, **params}))
        state = mm.attached.get(GenericCaches)
        assert state is not None
        if start:
            mm.start_time()
        return state

    return build


@pytest.fixture
def driver(machine: Callable[..., Mm]) -> Callable[..., tuple[Mm, PurgingDriver]]:
    """The purging driver and its machine."""

    def build(*, start: bool = False, max_order: int = 9) -> tuple[Mm, PurgingDriver]:
        mm = machine()
        purger_plugin.mmfw_module_init(mm, purger_plugin.PurgerParams(max_order=max_order))
        driver = mm.attached.get(PurgingDriver)
        assert driver is not None
        if start:
            mm.start_time()
        return mm, driver

    return build
