"""Machines that end with their test, and loads on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mmfw.mm.core import Mm
from mmfw.sched import Task
from mmfw.testing import make_mm
from mmfw_page_cache_copy.plugin import mmfw_register_metrics, mmfw_register_workloads


class Bench:
    """A machine whose time runs."""

    def __init__(self, mm: Mm) -> None:
        self.mm = mm

    def spawn(self, name: str, **params: Any) -> Task:
        """Start a load with parameters as a scenario writes them."""
        load = {each.name: each for each in mmfw_register_workloads()}[name]
        assert load.params is not None
        return self.mm.sched.spawn(
            load.run, self.mm, load.params.model_validate(params), name=name, daemon=True
        )

    def run_ms(self, milliseconds: int) -> None:
        self.mm.sched.run(self.mm.sched.now + milliseconds * 1_000_000)

    def metrics(self) -> dict[str, int | float]:
        return {metric.name: metric.read(self.mm) for metric in mmfw_register_metrics()}


@pytest.fixture
def bench() -> Iterator[Callable[..., Bench]]:
    """Build one: ``bench("256M", kernel="7.1")``."""
    made: list[Bench] = []

    def build(machine: str = "256M", **more: Any) -> Bench:
        made.append(Bench(make_mm(machine, start=True, **more)))
        return made[-1]

    yield build
    for each in made:
        each.mm.sched.close()
