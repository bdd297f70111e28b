"""What is measured in every run, whatever plugins take part.

The names here are fixed; scripts and comparisons rely on them. One letter each is common in the debate:

S ``success_ratio_order_9``, ``latency_p50_ns_order_9``, ``latency_p99_ns_order_9``
    Requests of order 9 and 10 that got a block, and how long an order-9 request took. All orders and classes are in the
    result's ``requests``.
W ``working_set_loss_pages``, ``working_set_loss_per_high_order_page``
    Size of the objects that shrinkers' owners needed again within 10 s of their eviction, in pages; of slab objects it
    may exceed the pages that came free. The same for each page of a successful request of costly order.
X ``shrinker_pages_per_object``
    Pages that came free while shrinkers scanned, for each object that they said they freed.
Y ``contiguity_yield``
    Free blocks of 2 MiB that stood 100 ms later where evicted pages had been, for each 512 such pages.
U ``unusable_index_order_9``, ``free_blocks_order_9``
    Share of the node's free memory that an order-9 request cannot use, thousandths, and such blocks; medians of samples.
K ``kswapd_busy_ratio``, ``kcompactd_busy_ratio``, ``direct_stall_ns``
    Share of the time that the threads were at work, and time that other tasks spent in the slow path.
F ``forward_progress_per_second``
    The counter that the scenario names as its load's progress.
O ``oom_kills``, ``order_0_failures``
    Tasks killed for memory, and single pages that were not to be had.
Q ``unfairness``
    The largest quotient, over subsystems, of its share of W and its share of the memory that subsystems hold.

A ratio of nothing is None.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median_low
from typing import TYPE_CHECKING, Final

from mmfw.errors import InputError, did_you_mean
from mmfw.mm.fragmentation import unusable_free_index
from mmfw.mm.vmstat import VmEvent
from mmfw.result import Figure, PhaseResult
from mmfw.state import MAX_ORDER, PAGEBLOCK_NR_PAGES, PAGEBLOCK_ORDER

if TYPE_CHECKING:
    from mmfw.eventlog import EventLog
    from mmfw.mm.core import Mm
    from mmfw.offers import FigureKind, Metric

#: Virtual time between two samples.
SAMPLE_NS: Final = 100_000_000

#: Kinds of figures, and what one may do with them. What adds up over a run compares between runs of one length only.
KINDS: Final[Mapping[FigureKind, str]] = {
    "count": "events, pages or objects counted; adds up over the run",
    "failure": "a count of which each one matters; adds up over the run",
    "time": "time spent in all; adds up over the run",
    "duration": "how long one thing takes",
    "level": "what there is at a moment, or the median of such moments",
    "rate": "for each unit of time",
    "share": "a part of a whole",
    "ratio": "of two different things",
}
_TIME_UNITS: Final = ("ns", "us", "ms", "s")
_SHARE_UNITS: Final = ("1", "%", "1/1000")


def kind_of(metric: Metric) -> FigureKind:
    """Kind of figure that a plugin's metric is, by the kind and the unit that it declares.

    Examples
    --------
    >>> from mmfw.offers import Metric
    >>> [
    ...     kind_of(Metric("x_y", unit, kind, "neither", "", read=id))
    ...     for unit, kind in (
    ...         ("pages", "counter"), ("us", "counter"), ("ns", "gauge"), ("MiB/s", "ratio"), ("1", "ratio"),
    ...     )
    ... ]
    ['count', 'time', 'duration', 'rate', 'share']
    """
    timed = metric.unit in _TIME_UNITS
    if metric.kind == "counter":
        return "failure" if metric.each_matters else "time" if timed else "count"
    if timed:
        return "duration"
    if metric.unit.endswith("/s"):
        return "rate"
    if metric.kind == "gauge":
        return "share" if metric.unit in _SHARE_UNITS[1:] else "level"
    return "share" if metric.unit in _SHARE_UNITS else "ratio"


#: Figures of every run, whatever is loaded.
FIXED: Final = (
    Figure("kswapd_wakes", "1", "lower", "passes of kswapd", "count"),
    Figure("nr_free_pages_min", "pages", "neither", "fewest free pages at a sample", "level"),
    Figure("nr_free_pages_median", "pages", "neither", "free pages, median of samples", "level"),
    Figure("nr_free_pages_end", "pages", "neither", "free pages at the end", "level"),
    Figure("success_ratio_order_9", "1", "higher", "share of requests of orders 9 and 10 that got a block", "share"),
    Figure("latency_p50_ns_order_9", "ns", "lower", "time in which half of the order-9 requests returned", "duration"),
    Figure("latency_p99_ns_order_9", "ns", "lower", "time within which 99% of the order-9 requests returned", "duration"),
    Figure("working_set_loss_pages", "pages", "lower", "size of what was evicted and needed again within 10 s", "count"),
    Figure(
        "working_set_loss_per_high_order_page", "1", "lower",
        "the same for each page of a successful request of costly order", "ratio",
    ),
    Figure("shrinker_pages_per_object", "1", "higher", "pages that came free for each object shrinkers freed", "ratio"),
    Figure("contiguity_yield", "1", "higher", "free 2 MiB blocks 100 ms after every 512 pages evicted there", "ratio"),
    Figure("unusable_index_order_9", "1/1000", "lower", "share of free memory that no order-9 request can use", "share"),
    Figure("free_blocks_order_9", "1", "higher", "free blocks of 2 MiB, median of samples", "level"),
    Figure("kswapd_busy_ratio", "1", "lower", "share of the time that kswapd was at work", "share"),
    Figure("kcompactd_busy_ratio", "1", "lower", "share of the time that kcompactd was at work", "share"),
    Figure("direct_stall_ns", "ns", "lower", "time that other tasks spent in the slow path of the allocator", "time"),
    Figure("forward_progress_per_second", "1/s", "higher", "the counter that the scenario names as its progress", "rate"),
    Figure("oom_kills", "1", "lower", "tasks killed for memory", "failure"),
    Figure("order_0_failures", "1", "lower", "single pages that were not to be had", "failure"),
    Figure("unfairness", "1", "lower", "largest quotient of a subsystem's share of losses and of memory held", "ratio"),
)  # fmt: skip

Figures = dict[str, int | float | None]


def node_free_counts(mm: Mm) -> list[int]:
    """Free blocks of all zones by order."""
    rows = [zone.nr_free_by_order() for zone in mm.pgdat.node_zones if zone.managed_pages]
    return [sum(column) for column in zip(*rows, strict=True)]


class Sampler:
    """Reads memory at fixed virtual times, from a timer, so that the load does not notice.

    Parameters
    ----------
    mm : Mm
        The machine.
    until_ns : int
        Virtual time at which the run ends at the latest.
    progress : callable, optional
        Called with (virtual ns, virtual ns in all) at every sample.
    sanitize : bool
        Check memory at every sample.
    listener : callable, optional
        Called at every sample, the first at once; may change nothing.

    Attributes
    ----------
    nr_free_pages, unusable_index, nr_blocks : list of int
        Free pages of the node, its unusable index for order 9 in thousandths, and its free blocks of 2 MiB.
    """

    def __init__(
        self,
        mm: Mm,
        until_ns: int,
        progress: Callable[[int, int], None] | None,
        *,
        sanitize: bool,
        listener: Callable[[], None] | None = None,
    ) -> None:
        self._mm = mm
        self._until = until_ns
        self._progress = progress
        self._sanitize = sanitize
        self._listener = listener
        self._total: int | None = None
        self.nr_free_pages: list[int] = []
        self.unusable_index: list[int] = []
        self.nr_blocks: list[int] = []
        self._read()
        self._arm()

    def _read(self) -> None:
        mm, counts = self._mm, node_free_counts(self._mm)
        self.nr_free_pages.append(mm.global_free_pages())
        self.unusable_index.append(unusable_free_index(counts, PAGEBLOCK_ORDER))
        blocks = sum(counts[o] << o - PAGEBLOCK_ORDER for o in range(PAGEBLOCK_ORDER, MAX_ORDER))
        self.nr_blocks.append(blocks)
        mm.ledger.sample()
        if self._listener is not None:
            self._listener()

    def _arm(self) -> None:
        sched = self._mm.sched
        if sched.now + SAMPLE_NS <= self._until:
            sched.call_at(sched.now + SAMPLE_NS, self._sample)

    def _sample(self) -> None:
        self._read()
        if self._sanitize:
            self._total = self._mm.check_memory(self._total)
        if self._progress is not None:
            self._progress(self._mm.sched.now, self._until)
        self._arm()


class PhaseLog:
    """Notes what came of each phase (`mmfw.phases.PhaseListener`).

    Parameters
    ----------
    mm : Mm
        The machine.
    metrics : mapping of str to Metric
        What plugins measure.

    Attributes
    ----------
    results : list of PhaseResult
        Of the phases that are over.
    """

    def __init__(self, mm: Mm, metrics: Mapping[str, Metric]) -> None:
        self._mm = mm
        self._metrics = metrics
        self.results: list[PhaseResult] = []
        self._start_ns = 0
        self._before = self._now()

    def _now(self) -> _Standing:
        mm = self._mm
        return _Standing(
            {name: metric.read(mm) for name, metric in self._metrics.items()},
            mm.vmstat.as_dict(),
            {(row.order, row.cls.value): (row.nr, row.nr_failed) for row in mm.requests.rows()},
            unusable_free_index(node_free_counts(mm), PAGEBLOCK_ORDER),
            mm.global_free_pages(),
        )

    def phase_begins(self, name: str) -> None:
        """A phase is about to start its workloads."""
        self._start_ns = self._mm.sched.now
        self._before = self._now()

    def phase_ends(self, name: str) -> None:
        """A phase is over."""
        before, now = self._before, self._now()
        metrics = {
            each: value - before.metrics[each] if self._metrics[each].kind == "counter" else value
            for each, value in now.metrics.items()
        }
        vmstat = {each: n - before.vmstat[each] for each, n in now.vmstat.items() if n != before.vmstat[each]}
        requests = []
        for (order, cls), (nr, nr_failed) in now.requests.items():
            nr_before, failed_before = before.requests.get((order, cls), (0, 0))
            if nr > nr_before:
                requests.append((order, cls, nr - nr_before, nr_failed - failed_before))
        self.results.append(
            PhaseResult(
                name=name,
                start_ns=self._start_ns,
                end_ns=self._mm.sched.now,
                metrics=metrics,
                vmstat=vmstat,
                requests=tuple(requests),
                unusable_index_order_9=(before.unusable_index, now.unusable_index),
                nr_free_pages=(before.nr_free_pages, now.nr_free_pages),
                buddyinfo=self._mm.buddyinfo(),
            )
        )


class _Standing:
    """Counters at one moment."""

    __slots__ = ("metrics", "nr_free_pages", "requests", "unusable_index", "vmstat")

    def __init__(
        self,
        metrics: dict[str, int | float],
        vmstat: dict[str, int],
        requests: dict[tuple[int, str], tuple[int, int]],
        unusable_index: int,
        nr_free_pages: int,
    ) -> None:
        self.metrics = metrics
        self.vmstat = vmstat
        self.requests = requests
        self.unusable_index = unusable_index
        self.nr_free_pages = nr_free_pages


def check_names(
    metrics: Sequence[str],
    progress: str | None,
    plugin_metrics: Mapping[str, Metric],
    primary: Sequence[str] = (),
) -> None:
    """Check what a scenario wants shown first, what it is decided by, and what it calls its progress.

    Raises
    ------
    InputError
        There is no such figure, or the progress is no counter of a loaded plugin.
    """
    known = {*plugin_metrics, *(figure.name for figure in FIXED), *(event.name for event in VmEvent)}
    for key, names in (("metrics", metrics), ("primary", primary)):
        for name in names:
            if name not in known:
                raise InputError(f"{key}: no figure {name!r}; {did_you_mean(name, known)}")
    counters = [name for name, metric in plugin_metrics.items() if metric.kind == "counter"]
    if progress is not None and progress not in counters:
        raise InputError(
            f"progress: no loaded plugin has a counter {progress!r}; {did_you_mean(progress, counters)}"
        )


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _unfairness(mm: Mm) -> float | None:
    """Figure Q; None unless some subsystem that says what it holds lost something."""
    losses = dict(mm.ledger)
    lost = sum(each.nr_pages_lost for each in losses.values())
    held = sum(each.held_page_samples for each in losses.values())
    if not lost or not held:
        return None
    return max(
        each.nr_pages_lost / lost / (each.held_page_samples / held)
        for each in losses.values()
        if each.held_page_samples
    )


def measure(
    mm: Mm, plugin_metrics: Mapping[str, Metric], log: EventLog, sampler: Sampler, progress: str | None
) -> tuple[Figures, dict[str, Figure]]:
    """All figures of a run that is over, by name, and what they mean.

    Parameters
    ----------
    mm, log, sampler
        What has run.
    plugin_metrics : mapping of str to Metric
        What plugins measure.
    progress : str or None
        Metric that is the load's forward progress.
    """
    free = sorted(sampler.nr_free_pages)
    metrics: Figures = {
        "kswapd_wakes": sum(log.kswapd_wakes.values()),
        "nr_free_pages_min": free[0],
        "nr_free_pages_median": free[len(free) // 2],
        "nr_free_pages_end": sampler.nr_free_pages[-1],
    }
    plugins = {name: metric.read(mm) for name, metric in plugin_metrics.items()}
    metrics |= _fixed(mm, sampler, None if progress is None else plugins.get(progress))
    metrics |= plugins
    meanings = {figure.name: figure for figure in FIXED}
    meanings |= {
        name: Figure(name, metric.unit, metric.better, metric.description, kind_of(metric))
        for name, metric in plugin_metrics.items()
    }
    return metrics, meanings


def _fixed(mm: Mm, sampler: Sampler, progress: float | None) -> Figures:
    requests, losses, now = mm.requests, dict(mm.ledger), mm.sched.now
    lost = sum(each.nr_pages_lost for each in losses.values())
    located = sum(each.nr_pages_located for each in losses.values())
    formed = sum(each.nr_blocks_formed for each in losses.values())
    freed = sum(shrinker.nr_freed for shrinker in mm.shrinkers)
    pages_freed = sum(shrinker.nr_pages_freed for shrinker in mm.shrinkers)
    order_0 = sum(row.nr_failed for row in requests.rows() if row.order == 0)
    return {
        "success_ratio_order_9": requests.success_ratio(PAGEBLOCK_ORDER, MAX_ORDER - 1),
        "latency_p50_ns_order_9": requests.quantile_ns(PAGEBLOCK_ORDER, 50),
        "latency_p99_ns_order_9": requests.quantile_ns(PAGEBLOCK_ORDER, 99),
        "working_set_loss_pages": lost,
        "working_set_loss_per_high_order_page": _ratio(lost, requests.nr_high_order_pages),
        "shrinker_pages_per_object": _ratio(pages_freed, freed),
        "contiguity_yield": _ratio(formed * PAGEBLOCK_NR_PAGES, located),
        "unusable_index_order_9": median_low(sampler.unusable_index),
        "free_blocks_order_9": median_low(sampler.nr_blocks),
        "kswapd_busy_ratio": mm.kswapd.busy_ns / now if now else None,
        "kcompactd_busy_ratio": mm.kcompactd.busy_ns / now if now else None,
        "direct_stall_ns": requests.slowpath_ns,
        "forward_progress_per_second": None if progress is None or not now else progress * 1e9 / now,
        "oom_kills": mm.vmstat[VmEvent.oom_kill],
        "order_0_failures": order_0,
        "unfairness": _unfairness(mm),
    }
