"""Machines that end with their test, and loads on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mmfw.mm.core import Mm
from mmfw.sched import Task, TaskState
from mmfw.testing import make_mm
from mmfw_demand.plugin import mmfw_register_workloads


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

    def kill(self, task: Task) -> None:
        self.mm.sched.send_sigkill(task)
        self.run_ms(50)
        assert task.state is TaskState.DEAD

    def free_pages(self) -> int:
        self.mm.drain_all_pages()
        return self.mm.global_free_pages()


@pytest.fixture
def bench() -> Iterator[Callable[..., Bench]]:
    """Build one: ``bench("256M", nr_swap_pages=...)``."""
    made: list[Bench] = []

    def build(machine: str = "256M", **more: Any) -> Bench:
        made.append(Bench(make_mm(machine, start=True, **more)))
        return made[-1]

    yield build
    for each in made:
        each.mm.sched.close()
