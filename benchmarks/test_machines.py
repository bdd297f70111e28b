"""A large machine costs 16 bytes a page and little time; help costs little more than Python itself."""

from __future__ import annotations

from typing import Any

from benchmarks import machines


def test_create_64g(benchmark: Any) -> None:
    machines.create("128M")  # fills the compile cache
    made = benchmark.pedantic(machines.create, args=("64G",), rounds=5)
    benchmark.extra_info.update(wall_seconds=made.wall_seconds, peak_rss_bytes=made.peak_rss_bytes)
    assert made.added_bytes <= 17 * made.pages


def test_help_starts_fast(benchmark: Any) -> None:
    bare, full = benchmark.pedantic(machines.start, args=(7,), rounds=1)
    benchmark.extra_info.update(python_seconds=bare, help_seconds=full)
    assert full <= 10 * bare
