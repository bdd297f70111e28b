"""What kvmalloc counts, and a histogram of how long calls took."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

#: Orders a request may have here: up to 1 MiB.
NR_ORDERS: Final = 9
#: Parts of each power of two: a quantile is at most an eighth too high.
_SUBDIVISIONS: Final = 8


class Latencies:
    """Times in ns, by buckets of which eight divide each power of two."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self.total_ns = 0
        self.nr = 0

    def add(self, ns: int) -> None:
        """Count one call."""
        shift = max(0, ns.bit_length() - 4)
        bucket = (shift << 4) + (ns >> shift)
        self._counts[bucket] = self._counts.get(bucket, 0) + 1
        self.total_ns += ns
        self.nr += 1

    def quantile(self, percent: int) -> int:
        """Time that so many percent of the calls did not exceed, rounded up to its bucket's end; 0 without a call."""
        wanted = -(-self.nr * percent // 100)
        for bucket in sorted(self._counts):
            wanted -= self._counts[bucket]
            if wanted <= 0:
                shift, leading = bucket >> 4, bucket & 15
                return ((leading + 1) << shift) - 1
        return 0


@dataclass(slots=True)
class KvStats:
    """Counts of one machine.

    Attributes
    ----------
    calls, fallbacks : list of int
        Calls, and those that vmalloc served, by order of the block that was asked for.
    failures : int
        Calls that got nothing.
    latencies : Latencies
        How long calls took, the fallback included.
    """

    calls: list[int] = field(default_factory=lambda: [0] * NR_ORDERS)
    fallbacks: list[int] = field(default_factory=lambda: [0] * NR_ORDERS)
    failures: int = 0
    latencies: Latencies = field(default_factory=Latencies)
