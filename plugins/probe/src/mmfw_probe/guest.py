"""The guest around the loads: its trace buffer, the shrinkers that every idle guest has, and the module's pauses.

What its shell does is `mmfw_probe.shell`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mmfw import SHRINK_STOP, ShrinkControl, gfp, hookimpl
from mmfw.mm import trace

if TYPE_CHECKING:
    from mmfw import Mm

MSEC: Final = 1_000_000
#: What the module does around each request under emulation, ns: before it sleeps (1G-frag16: gpu_restore to
#: kswapd_wake, less the switch); then, on the average, from the timer's expiry until it runs again, and from there to the
#: next request. The three make up what a step takes beyond its sleep (1G-frag16: 1115 us from gpu_restore to the
#: next request, median); how the rest is shared out decides how often kswapd preempts, and is fitted to that.
BEFORE_SLEEP_NS: Final = 19_000
WAKE_LATENCY_NS: Final = 51_000
AFTER_SLEEP_NS: Final = 23_000
#: The last of the three where the next step's time is known, so that it need not make up for the other two. Fitted to
#: 1G-frag16 before the shell was modelled page by page, and left: its order-9 failures (955) are 1019 with it, its scans
#: at priority 6 (81) 294.
AFTER_KNOWN_NS: Final = 18_000
#: From switching a trace on to the load's first line: grace periods (``ring_buffer_resize()``,
#: ``ring_buffer_reset()``) and a dozen events' code patched. What runs beside the load goes on meanwhile: after so long,
#: 1G-cache3's reader has left as many free blocks of orders 3 and 4 (6 and 266) as its five boots had on the average (7
#: and 281).
TRACE_ON_NS: Final = 80 * MSEC
#: What the captures' jobs trace (VMEV, COEV), without the scanners' own events: they are few.
TRACED: Final = (
    trace.MmShrinkSlabStart,
    trace.MmShrinkSlabEnd,
    trace.MmVmscanKswapdWake,
    trace.MmVmscanKswapdSleep,
    trace.MmVmscanWakeupKswapd,
    trace.MmVmscanDirectReclaimBegin,
    trace.MmVmscanDirectReclaimEnd,
    trace.MmCompactionBegin,
    trace.MmCompactionEnd,
    trace.MmCompactionTryToCompactPages,
    trace.MmCompactionFinished,
    trace.MmCompactionSuitable,
    trace.MmCompactionDeferred,
    trace.MmCompactionDeferCompaction,
    trace.MmCompactionDeferReset,
    trace.MmCompactionKcompactdSleep,
    trace.MmCompactionKcompactdWake,
    trace.MmCompactionWakeupKcompactd,
)
#: ``TRACE_BUF_SIZE_DEFAULT``.
DEFAULT_TRACE_KB: Final = 1408
#: Size of a packed event, and what reading and packing it takes: 512M-k4-o4's traces, and the time from their ends to the
#: next mask's first request.
TRACE_EVENT_BYTES: Final = 7
TRACE_EVENT_NS: Final = 18_000
#: Where the captured machines' clock stands when kcompactd starts, which is when a simulated machine's starts: every
#: 512 ms from there on 512M-m2-o4's and -k4-o4's kcompactd looks at fragmentation.
KCOMPACTD_START_NS: Final = 506 * MSEC
KCOMPACTD_PERIOD_NS: Final = 512 * MSEC
#: The captures' longest gap between two masks is 10.5 s.
LONGEST_WAIT_NS: Final = 30_000 * MSEC
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


def _ring_pages(size_kb: int) -> int:
    """Pages of a ring buffer; each holds 4080 bytes of events (``BUF_PAGE_SIZE``)."""
    return -(-size_kb * 1024 // 4080)


class TraceBuffer:
    """ftrace's ring buffer: single unmovable pages, taken as it grows, when a trace is switched on (``trace_on``).

    It has its default size before: a module that uses ``trace_printk()`` expands it as it is loaded
    (``trace_printk_init_buffers()``), and boot's figures, which were read later, include that.

    Parameters
    ----------
    mm : Mm
        Where they come from.
    """

    def __init__(self, mm: Mm) -> None:
        self._mm = mm
        self._nr_pages = _ring_pages(DEFAULT_TRACE_KB)
        self._nr_events = 0
        for kind in TRACED:
            mm.trace.subscribe_fields(kind, self._count)

    def _count(self, kind: object, values: object) -> None:
        self._nr_events += 1

    def trace_on(self, size_kb: int) -> None:
        """Make the buffer that large (``ring_buffer_resize()``); it never shrinks."""
        more = _ring_pages(size_kb) - self._nr_pages
        if more > 0:
            got = self._mm.alloc_pages_batch(gfp.GFP_KERNEL | gfp.RETRY_MAYFAIL, 0, more)
            self._nr_pages += len(got)
        self._mm.sched.sleep(TRACE_ON_NS)
        self._nr_events = 0

    def trace_off(self, nr_lines: int) -> tuple[int, int]:
        """Stop: pages that the trace takes once it is packed, and what reading and packing it takes, ns.

        Parameters
        ----------
        nr_lines : int
            Lines that the load itself has put there.
        """
        n = self._nr_events + nr_lines
        return 1 + n * TRACE_EVENT_BYTES // 4096, n * TRACE_EVENT_NS


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


def wait_for(mm: Mm, start: int) -> None:
    """Sleep until a captured load's first step, unless that is past: kcompactd's passes fall as they did there.

    Parameters
    ----------
    mm : Mm
        Whose clock.
    start : int
        When it began, ns of the captured machine's clock; 0 where that is not known.
    """
    ahead = start - KCOMPACTD_START_NS - mm.sched.now
    if not start or ahead <= 0:
        return
    if ahead > LONGEST_WAIT_NS:
        # A machine that was up for hours before: of them only kcompactd's phase is wanted.
        ahead = LONGEST_WAIT_NS + (ahead - LONGEST_WAIT_NS) % KCOMPACTD_PERIOD_NS
    mm.sched.sleep(ahead)


class KnownPause:
    """Pauses that end when a captured load went on, where that is known.

    Parameters
    ----------
    pause : Pause
        What is done in either case.
    starts : mapping of int to int
        By step, when it began in the capture, ns of its clock.
    """

    def __init__(self, pause: Pause, starts: Mapping[int, int]) -> None:
        self._pause = pause
        self._starts = starts
        self._ahead = 0

    def begin(self, now: int) -> None:
        """The first step that is known begins now."""
        self._ahead = now - self._starts[min(self._starts)] if self._starts else 0

    def __call__(self, step: int) -> None:
        """Pause before a step."""
        start = self._starts.get(step)
        self._pause(0 if start is None else self._ahead + start)
