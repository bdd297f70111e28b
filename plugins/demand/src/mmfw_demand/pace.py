"""The beat of a load: so many turns a second, none of them made up for when the load is late."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mmfw import Mm

NSEC_PER_SEC: Final = 1_000_000_000


class Pace:
    """Turns at a fixed rate.

    A load that is behind, because memory was slow, starts its next turn at once and keeps the beat from there: a
    stall lowers the rate, it does not cause a burst after it.

    Parameters
    ----------
    mm : Mm
        Whose clock.
    per_second : float
        Turns a second; 0 is back to back, with `user_ns` of user-mode work between two of them.
    user_ns : int
        User-mode work of a turn when they come back to back. It must not be 0, for a killed task ends in user mode.
    """

    def __init__(self, mm: Mm, per_second: float, *, user_ns: int = 1_000) -> None:
        self._sched = mm.sched
        self._period_ns = round(NSEC_PER_SEC / per_second) if per_second else 0
        self._user_ns = user_ns
        self.next_ns = mm.sched.now

    def turn_begins(self) -> None:
        """Note that a turn begins now."""
        self.next_ns = max(self.next_ns, self._sched.now - self._period_ns) + self._period_ns

    def wait(self, until_ns: int | None = None) -> None:
        """Let time pass in user mode until the next turn is due, or until a time before that.

        Parameters
        ----------
        until_ns : int, optional
            Something else is due then.
        """
        end = self.next_ns if until_ns is None else min(self.next_ns, until_ns)
        if self._period_ns and end > self._sched.now:
            self._sched.nanosleep(end - self._sched.now)
        else:
            self._sched.charge_user(self._user_ns, "demand")

    @property
    def due(self) -> bool:
        """Whether the next turn may begin."""
        return self._sched.now >= self.next_ns
