"""The capture module's random numbers: xorshift64*, its high half."""

from __future__ import annotations

from typing import Final

_MASK: Final = (1 << 64) - 1


class Xorshift:
    """The generator, seeded as the module seeds it.

    Shifts 12, 25, 27 and factor 2685821657736338717 (Vigna 2016). The state starts at seed * 0x9E3779B97F4A7C15 + 1
    modulo 2**64; the first 16 numbers are dropped. A number is the high 32 bits of a product.

    Parameters
    ----------
    seed : int
        Of the capture.

    Examples
    --------
    >>> rng = Xorshift(1)
    >>> [rng.below(60) for _ in range(4)]
    [4, 19, 24, 53]
    """

    def __init__(self, seed: int) -> None:
        self._state = (seed * 0x9E3779B97F4A7C15 + 1) & _MASK
        for _ in range(16):
            self._next()

    def _next(self) -> int:
        x = self._state
        x ^= x >> 12
        x = (x ^ (x << 25)) & _MASK
        x ^= x >> 27
        self._state = x
        return (x * 2685821657736338717 & _MASK) >> 32

    def below(self, n: int) -> int:
        """A number from 0 to n - 1; 0 if n is 0."""
        return self._next() % n if n else 0
