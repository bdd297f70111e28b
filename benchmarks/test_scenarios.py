"""The flagship scenario keeps to its cost, as a multiple of a loop of plain Python."""

from __future__ import annotations

from typing import Any

from benchmarks import scenarios


def test_webgl_aquarium(benchmark: Any) -> None:
    """20 virtual seconds were 67 loops of 5 million turns when this was written, median of 5 runs."""
    run = benchmark.pedantic(
        scenarios.time_run, args=(scenarios.HERE, "webgl-aquarium", "20s"), rounds=1, warmup_rounds=1
    )
    benchmark.extra_info.update(cpu_seconds=run.cpu_seconds, loops=run.loops, digest=run.digest)
    assert run.loops <= 90
