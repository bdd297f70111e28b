"""The guest around the loads: the shell that starts them, and the shrinkers every idle guest has.

A shell's command is a process: it faults in some dozens of pages and gives them back when it ends. Their number is
an estimate (`PROCESS_PAGES`); what matters is that such pages come between those of a load that runs beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mmfw import SHRINK_STOP, ShrinkControl, gfp, hookimpl

if TYPE_CHECKING:
    from mmfw import Mm

MSEC: Final = 1_000_000
#: Anonymous pages of a busybox process: stack, data, heap.
PROCESS_PAGES: Final = 37
#: What the module does around each request under emulation, ns: before it sleeps (1G-frag16: gpu_restore to
#: kswapd_wake, less the switch); then, on the average, from the timer's expiry until it runs again, and from there to the
#: next request. The three make up what a step takes beyond its sleep (1G-frag16: 1115 us from gpu_restore to the
#: next request, median); how the rest is shared out decides how often kswapd preempts, and is fitted to that.
BEFORE_SLEEP_NS: Final = 19_000
WAKE_LATENCY_NS: Final = 51_000
AFTER_SLEEP_NS: Final = 23_000
#: The last of the three where the next step's time is known, so that it need not make up for the other two. Fitted to
#: 1G-frag16, whose figures all agree with it. From 10 to 30 us its order-9 failures (955 there) are 1001 to 1070, and its
#: scans at priority 6 (81) 88 to 245: that these agree is chance.
AFTER_KNOWN_NS: Final = 18_000
#: From switching a trace on to the load's first line: grace periods (``ring_buffer_resize()``,
#: ``ring_buffer_reset()``) and a dozen events' code patched. What runs beside the load goes on meanwhile: after so long,
#: 1G-cache3's reader has left as many free blocks of orders 3 and 4 (6 and 266) as its five boots had on the average (7
#: and 281).
TRACE_ON_NS: Final = 80 * MSEC
#: A time slice of the host's.
STALL_NS: Final = 4 * MSEC


class CountedObjects:
    """A shrinker over a number of objects that hold no page (``kfree_rcu_shrink_scan``, ``super_cache_scan``)."""

    batch = 0

    def __init__(self, nr: int, seeks: int) -> None:
        self.nr = nr
        self.seeks = seeks

    @hookimpl
    def count_objects(self, sc: ShrinkControl) -> int:
        """Objects left."""
        return self.nr

    @hookimpl
    def scan_objects(self, sc: ShrinkControl) -> int:
        """Free what is asked."""
        freed = min(sc.nr_to_scan, self.nr)
        self.nr -= freed
        return freed if freed else SHRINK_STOP


@dataclass(frozen=True, slots=True)
class SystemShrinkers:
    """The two shrinkers that have objects on an idle guest.

    Counts and seeks are those of the captures' mm_shrink_slab_start events.

    Attributes
    ----------
    kfree_rcu : CountedObjects
        Objects that await a grace period: 4 to 6 with seeks 2, gone once they are dropped.
    kernfs : CountedObjects
        Entries of /sys: 7 to 10 with seeks 0, back as soon as somebody reads there again.
    """

    kfree_rcu: CountedObjects
    kernfs: CountedObjects


def register_system_shrinkers(mm: Mm, *, kfree_rcu: int = 6, kernfs: int = 8) -> SystemShrinkers:
    """Register both, in the kernel's order, with so many objects."""
    found = SystemShrinkers(CountedObjects(kfree_rcu, 2), CountedObjects(kernfs, 0))
    mm.register_shrinker(found.kfree_rcu, "rcu-kfree")
    mm.register_shrinker(found.kernfs, "sb-sysfs")
    return found


def run_process(mm: Mm, duration_ns: int = 2 * MSEC, nr_pages: int = PROCESS_PAGES) -> None:
    """One command of the shell, from fork to exit, busy all the while; the shell waits.

    The command is a task of its own: a fork's debit of virtual runtime puts the shell, which is what runs the module's
    loops, behind the kernel's threads by less than a sleeper's credit.
    """
    _run(mm, nr_pages, lambda: mm.charge(duration_ns, "process"))


def sleep_process(mm: Mm, duration_ns: int, nr_pages: int = PROCESS_PAGES) -> None:
    """The shell's ``sleep``: a process that holds its pages for as long."""
    _run(mm, nr_pages, lambda: mm.sched.sleep(duration_ns))


def _run(mm: Mm, nr_pages: int, work: Callable[[], None]) -> None:
    def command() -> None:
        vma = mm.mmap_anonymous(nr_pages)
        vma.touch(0, nr_pages)
        work()
        vma.munmap()

    mm.sched.join(mm.sched.spawn(command, name="busybox", daemon=False))


class TraceBuffer:
    """ftrace's ring buffer: single unmovable pages, taken when the first trace is switched on (``trace_on``).

    Parameters
    ----------
    mm : Mm
        Where they come from.
    """

    def __init__(self, mm: Mm) -> None:
        self._mm = mm
        self._nr_pages = 0

    def trace_on(self, size_kb: int) -> None:
        """Make the buffer that large (``ring_buffer_resize()``); it never shrinks."""
        more = (size_kb * 1024 + 4079) // 4080 - self._nr_pages
        if more > 0:
            got = self._mm.alloc_pages_batch(gfp.GFP_KERNEL | gfp.RETRY_MAYFAIL, 0, more)
            self._nr_pages += len(got)
        self._mm.sched.sleep(TRACE_ON_NS)


class Pause:
    """``usleep_range(delay, delay + slack)`` and the module's own work around it.

    The emulator's speed wavers: what is not sleep varies evenly from nothing to twice its average. Without that, steps
    fall into a rhythm with the scheduler's that no real run has.

    Parameters
    ----------
    mm : Mm
        Whose clock.
    delay_us, slack_us : int
        Microseconds; the timer fires at the end of the slack, as nothing else wakes an idle guest before.
    latency_ns : int
        From the timer's expiry until the task runs again, on the average.
    stall_one_in : int
        One pause in so many is `STALL_NS` longer: the host has taken the emulator's CPU away. 0 for none.
    """

    def __init__(
        self,
        mm: Mm,
        delay_us: int,
        slack_us: int,
        latency_ns: int = WAKE_LATENCY_NS,
        stall_one_in: int = 0,
    ) -> None:
        self._mm = mm
        self._stall_one_in = stall_one_in
        self._latency_ns = latency_ns
        self._sleep_ns = (delay_us + slack_us) * 1000
        self._rng = mm.rng("probe pause")
        self._drawn: list[int] = []

    def __call__(self, until_ns: int = 0) -> None:
        """Pause once.

        Parameters
        ----------
        until_ns : int
            Virtual time at which the module is known to have asked again: the pause ends then, but is no shorter than
            its sleep. 0 where it is not known.
        """
        if until_ns:
            self._mm.charge(BEFORE_SLEEP_NS, "probe")
            self._mm.sched.sleep(max(self._sleep_ns, until_ns - AFTER_KNOWN_NS - self._mm.sched.now))
            self._mm.charge(AFTER_KNOWN_NS, "probe")
            return
        if not self._drawn:
            self._drawn = self._rng.below(2001, 1024).tolist()
        latency, after = self._drawn.pop(), self._drawn.pop()
        sleep_ns = self._sleep_ns + self._latency_ns * latency // 1000
        if self._stall_one_in and self._rng.below(self._stall_one_in, 1)[0] == 0:
            sleep_ns += STALL_NS
        self._mm.charge(BEFORE_SLEEP_NS, "probe")
        self._mm.sched.sleep(sleep_ns)
        self._mm.charge(AFTER_SLEEP_NS * after // 1000, "probe")


class KnownPause:
    """Pauses that end when a captured load went on, where that is known.

    Parameters
    ----------
    pause : Pause
        What is done in either case.
    starts : mapping of int to int
        By step, when it began in the capture; ns since `begin` of the first one known.
    begin : int
        Virtual time of that, ns.
    """

    def __init__(self, pause: Pause, starts: Mapping[int, int], begin: int) -> None:
        self._pause = pause
        self._starts = starts
        self.begin = begin

    def __call__(self, step: int) -> None:
        """Pause before a step."""
        start = self._starts.get(step)
        self._pause(0 if start is None else self.begin + start)
