"""Random integers that stay the same: raw PCG64 output, mapped to integers here.

numpy keeps the raw stream of a bit generator stable for ever, which it does not promise for the
distributions of its Generator. A memory map laid out from a seed should not change with numpy.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]


class Rng:
    """Random integers from raw PCG64 output; the same seed gives the same on every numpy."""

    def __init__(self, seed: int) -> None:
        self._bits = np.random.PCG64(seed)

    def below(self, bound: int, size: int) -> IntArray:
        """`size` integers in 0..bound-1; `bound` below 2**32."""
        raw = np.asarray(self._bits.random_raw(size), dtype=np.uint64) >> np.uint64(32)
        return ((raw * np.uint64(bound)) >> np.uint64(32)).astype(np.int64)

    def _keys(self, size: int) -> tuple[NDArray[np.uint64], np.uint64]:
        """Distinct random keys whose low bits number them, and the mask of those bits."""
        shift = np.uint64(max(size - 1, 0).bit_length())
        raw = np.asarray(self._bits.random_raw(size), dtype=np.uint64)
        return (raw << shift) | np.arange(size, dtype=np.uint64), (np.uint64(1) << shift) - np.uint64(1)

    def shuffled(self, values: IntArray) -> IntArray:
        """`values` in random order."""
        keys, mask = self._keys(len(values))
        keys.sort()
        return values[(keys & mask).astype(np.int64)]

    @staticmethod
    def distinct(drawn: IntArray, size: int) -> IntArray:
        """First `size` different values of `drawn`, in the order drawn; fewer if there are not so many."""
        _, first = np.unique(drawn, return_index=True)
        first.sort()
        return drawn[first[:size]]

    def sample(self, values: IntArray, size: int) -> IntArray:
        """`size` of `values`, each at most once, in no particular order."""
        if size >= len(values):
            return values
        if size * 8 < len(values):
            chosen = self.distinct(self.below(len(values), size * 2), size)
            if len(chosen) == size:
                return values[chosen]
        keys, mask = self._keys(len(values))
        # A partition's inner order is numpy's own affair; sorting makes the answer independent of it.
        keys = np.sort(np.partition(keys, size)[:size])
        return values[(keys & mask).astype(np.int64)]
