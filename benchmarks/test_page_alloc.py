"""The compiled allocator against C: equal answers, then at most twice the time, accounting and all.

``pytest benchmarks --benchmark-only``. The table's times are the compiled allocator's;
C runs the same operations between its rounds, so that both see the same state of this computer.
"""

from __future__ import annotations

from ctypes import CDLL
from typing import Any

import numpy as np
import pytest

from benchmarks.c_reference import CReference
from benchmarks.compiled import Compiled
from benchmarks.measure import Race, check_equal
from benchmarks.pure_python import PurePython
from benchmarks.workloads import WORKLOADS, Ops, Workload
from mmfw.machine import machine_from_ram

ROUNDS = 7
#: A number of rounds is lost to other processes; the median of the ratios is what is judged.
MOST = 2.0


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda w: w.name)
@pytest.mark.parametrize("size", ["4G", "64G"])
def test_ratio_to_c(size: str, workload: Workload, library: CDLL, benchmark: Any) -> None:
    machine = machine_from_ram(size)
    state = machine.node_state()
    compiled, reference = Compiled(state), CReference(library, state)
    race = Race(workload, [compiled, reference], machine.managed_pages)
    c_times, own_times = [], []

    def turn() -> tuple[tuple[Ops], dict[str, object]]:
        ops = race.chunk()
        c_times.append(race.time(reference, ops))
        return (ops,), {}

    def own(ops: Ops) -> None:
        own_times.append(race.time(compiled, ops))

    benchmark.group = f"{size}, {workload.name}: {workload.chunk(machine.managed_pages)} operations"
    benchmark.pedantic(own, setup=turn, rounds=ROUNDS)
    check_equal([compiled, reference])
    reference.close()
    ratio = float(np.median(np.divide(own_times, c_times)))
    benchmark.extra_info.update(ns=np.median(own_times), c_ns=np.median(c_times), ratio=ratio)
    assert ratio <= MOST, f"{ratio:.2f} times C ({np.median(own_times):.1f} ns an operation)"


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda w: w.name)
def test_python_gives_the_same_answers(workload: Workload, benchmark: Any) -> None:
    machine = machine_from_ram("256M")
    state = machine.node_state()
    implementations = [Compiled(state), PurePython(state)]
    race = Race(workload, implementations, machine.managed_pages, most=1 << 13)

    def turn() -> tuple[tuple[Ops], dict[str, object]]:
        ops = race.chunk(1 << 11)
        implementations[0].run(ops, np.empty(0, dtype=np.int64))
        return (ops,), {}

    benchmark.group = "pure Python, 256M, 2048 operations"
    benchmark.pedantic(lambda ops: race.time(implementations[1], ops), setup=turn, rounds=5)
    check_equal(implementations)
