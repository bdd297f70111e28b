"""Same operations, same answers, then the clock: implementations take turns chunk by chunk."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from time import perf_counter
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks.workloads import CHUNK, Ops, Workload

_NOWHERE: Final = np.empty(0, dtype=np.int64)


class Implementation(Protocol):
    """An allocator that runs operations."""

    name: str
    held: NDArray[np.int64]

    def run(self, ops: Ops, out: NDArray[np.int64]) -> int:
        """Operations done; the first answers go to ``out``."""

    def counters(self) -> list[int]:
        """Its counters, in an order common to all."""


class Differ(Exception):
    """Two implementations gave different answers: there is nothing to time."""


def run_equal(implementations: Sequence[Implementation], chunks: Iterator[Ops]) -> str:
    """Run operations on all and compare every answer, then what they hold and count.

    Returns
    -------
    str
        Digest of the answers.

    Raises
    ------
    Differ
        Names the implementations and the first operation that differs.
    """
    first, digest = implementations[0], hashlib.sha256()
    for ops in chunks:
        want = np.empty(len(ops), dtype=np.int64)
        if first.run(ops, want) != len(ops):
            raise Differ(f"{first.name} refused an operation")
        digest.update(want.tobytes())
        for other in implementations[1:]:
            have = np.empty(len(ops), dtype=np.int64)
            done = other.run(ops, have)
            if done != len(ops) or not np.array_equal(want, have):
                at = int(np.argmax(want[:done] != have[:done]))
                raise Differ(
                    f"{first.name} and {other.name}: {want[at]} and {have[at]} at {at} (op {ops[at]:#x})"
                )
    check_equal(implementations)
    return digest.hexdigest()[:16]


def check_equal(implementations: Sequence[Implementation]) -> None:
    """Compare what implementations hold and count.

    Raises
    ------
    Differ
        Names the two that differ.
    """
    first = implementations[0]
    nr = int(first.held[0]) + 1
    for other in implementations[1:]:
        if not np.array_equal(first.held[:nr], other.held[:nr]):
            raise Differ(f"{first.name} and {other.name} hold different pages")
        if any(a != b for a, b in zip(first.counters(), other.counters(), strict=False)):
            raise Differ(f"{first.name} and {other.name} count differently")


class Race:
    """Implementations brought to where a workload's timing starts, answers compared all the way.

    Parameters
    ----------
    workload : Workload
        What to run.
    implementations : sequence of Implementation
        Fresh ones of the same machine.
    managed : int
        Its managed pages.
    most : int
        Operations in a chunk at most; one chunk is compared before timing.
    """

    def __init__(
        self, workload: Workload, implementations: Sequence[Implementation], managed: int, most: int = CHUNK
    ) -> None:
        self.implementations = implementations
        self._workload = workload
        self._most = workload.chunk(managed)
        self._rng = np.random.default_rng(2)
        run_equal(implementations, workload.setup(managed))
        self.digest = run_equal(implementations, iter([self.chunk(most)]))

    def chunk(self, most: int = CHUNK) -> Ops:
        """The next operations."""
        return self._workload.stream(self._rng, min(most, self._most))

    @staticmethod
    def time(implementation: Implementation, ops: Ops) -> float:
        """Nanoseconds per operation."""
        begin = perf_counter()
        done = implementation.run(ops, _NOWHERE)
        seconds = perf_counter() - begin
        if done != len(ops):
            raise Differ(f"{implementation.name} refused an operation")
        return seconds * 1e9 / len(ops)

    def rounds(self, n: int, most: int = CHUNK) -> NDArray[np.float64]:
        """Times of ``n`` rounds: float64[n, implementations], ns per operation.

        Raises
        ------
        Differ
            They no longer hold and count the same.
        """
        times = np.empty((n, len(self.implementations)))
        for row in times:
            ops = self.chunk(most)
            for i, implementation in enumerate(self.implementations):
                row[i] = self.time(implementation, ops)
        check_equal(self.implementations)
        return times

    def leave(self, name: str) -> None:
        """Go on without an implementation."""
        self.implementations = [i for i in self.implementations if i.name != name]
