"""Which of many things a load uses next: by Zipf's law, or each as likely; integers only, the same on every machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from mmfw.rawrandom import Rng

#: The most popular has this weight, the k-th this over k; a sum over 2**26 of them stays below 2**32.
_TOP: Final = 1 << 27
#: A prime above 2**26: multiples of it visit every residue of a smaller modulus.
_STRIDE: Final = 67_108_879


class Popularity:
    """Draws from 0 to ``size - 1``.

    Ranks are scattered over the numbers, so that what is popular lies nowhere in particular.

    Parameters
    ----------
    rng : Rng
        Random stream of its own.
    size : int
        How many there are; at most 2**26.
    zipf_percent : int
        Share of draws that follow Zipf's law with exponent 1; the others are uniform.
    """

    def __init__(self, rng: Rng, size: int, zipf_percent: int) -> None:
        self._rng = rng
        self._size = size
        self._percent = zipf_percent
        self._cumulated: NDArray[np.int64] = np.cumsum(_TOP // np.arange(1, size + 1, dtype=np.int64))

    def draw(self, count: int) -> NDArray[np.int64]:
        """That many numbers."""
        ranks = np.searchsorted(
            self._cumulated, self._rng.below(int(self._cumulated[-1]), count), side="right"
        )
        uniform = self._rng.below(self._size, count)
        by_rank = ranks * _STRIDE % self._size
        return np.where(self._rng.below(100, count) < self._percent, by_rank, uniform)
