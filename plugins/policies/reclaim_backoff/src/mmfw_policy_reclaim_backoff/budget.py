"""How many pages a background worker may move by now."""

from __future__ import annotations

from typing import Final

_NSEC_PER_SEC: Final = 1_000_000_000


class Budget:
    """Pages that come in at a rate, and that are spent in objects, which are moved whole.

    What is not spent within `kept_ns` is lost, so that a quiet time is not followed by a storm. The last object may
    overdraw; then nothing is spent until that has come in. So from the start on at most the rate's pages and one object
    are spent.

    Parameters
    ----------
    pages_per_second : int
        The rate.
    kept_ns : int
        How long pages are kept.
    now : int
        When they begin to come in, ns.
    """

    def __init__(self, pages_per_second: int, kept_ns: int, now: int) -> None:
        self._rate = pages_per_second
        self._most = pages_per_second * kept_ns
        # In pages times ns, so that nothing is lost to rounding.
        self._credit = 0
        self._last = now

    def refill(self, now: int) -> None:
        """Let come in what is due up to now, ns."""
        self._credit = min(self._credit + self._rate * (now - self._last), self._most)
        self._last = now

    def spend(self, nr_pages: int) -> None:
        """Note that pages were moved."""
        self._credit -= nr_pages * _NSEC_PER_SEC

    def __bool__(self) -> bool:
        """Whether there is a page to spend."""
        return self._credit >= _NSEC_PER_SEC
