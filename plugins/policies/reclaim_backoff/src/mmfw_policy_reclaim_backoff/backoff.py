"""Which orders are left alone, and for how long: one token for each order, of exponentially growing life."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

NSEC_PER_MSEC: Final = 1_000_000
_NR_PAGE_ORDERS: Final = 11


@dataclass(slots=True)
class _Token:
    """One order: left alone until a time; how long the next time, 0 for `first_ns`."""

    until: int = 0
    last_ns: int = 0


class Backoff:
    """Tokens of one pool. Times are in ns, from ``mm.sched.now``.

    A failure at order o bars o and all above, for `first_ns` at first, twice as long each time, at most `longest_ns`. A
    success at o, once it has been judged, forgets the failures at o and below. It is judged `first_ns` later: if the
    device has lost objects by then, it counts as a failure, since the memory was its own.

    Parameters
    ----------
    first_ns, longest_ns : int
        Shortest and longest time.
    """

    def __init__(self, first_ns: int, longest_ns: int) -> None:
        self._first_ns = first_ns
        self._longest_ns = longest_ns
        self._tokens = [_Token() for _ in range(_NR_PAGE_ORDERS)]
        #: Order to (time, objects lost until then) of the first success that is not judged yet.
        self._unjudged: dict[int, tuple[int, int]] = {}

    def is_off(self, order: int, now: int) -> bool:
        """Whether an order is left alone now: it or one below it failed not long ago."""
        return any(token.until > now for token in self._tokens[: order + 1])

    def failed(self, order: int, now: int) -> None:
        """A request of an order failed; of several that fail within one interval only the first lengthens the next."""
        token = self._tokens[order]
        if token.until > now:
            return
        token.last_ns = min(2 * token.last_ns, self._longest_ns) or self._first_ns
        token.until = now + token.last_ns

    def succeeded(self, order: int, now: int, nr_lost: int) -> None:
        """A request of an order succeeded, when the device had lost `nr_lost` objects in all."""
        self._unjudged.setdefault(order, (now, nr_lost))

    def judge(self, now: int, nr_lost: int) -> None:
        """Say of successes that are old enough what they were, the device having lost `nr_lost` objects by now."""
        if not self._unjudged:
            return
        for order, (at, lost_then) in sorted(self._unjudged.items()):
            if now - at < self._first_ns:
                continue
            del self._unjudged[order]
            if nr_lost > lost_then:
                self.failed(order, now)
            else:
                self.forget(order)

    def forget(self, order: int) -> None:
        """Forget the failures of an order and of all below it."""
        for token in self._tokens[: order + 1]:
            token.until = token.last_ns = 0
