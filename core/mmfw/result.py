"""What came of a run, and how scripts read it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from mmfw.mm.ledger import Losses
    from mmfw.mm.requests import LatencyHistogram, RequestRow
    from mmfw.offers import Better, FigureKind

#: What of core agrees with a real kernel, and how far.
CORE_VALIDATED: Final = (
    "allocator, watermarks and do_shrink_slab() exact against 6.1.192; reclaim and compaction compared with it, "
    "README says how far"
)
#: What this version leaves out of every run; printed with the result. The README's table says what each could change.
NOT_MODELLED: Final = (
    "memory cgroups, NUMA, CMA, the multi-gen LRU, vm.defrag_mode, PSI",
    "contention between CPUs on zone->lock, lru_lock and mmap_lock",
    "per-CPU batches of the LRU, vmstat's per-CPU deltas with several CPUs",
    "more than one disk",
    "the event mm_page_free_batched",
    "the text of the kernel",
)


@dataclass(frozen=True, slots=True)
class Figure:
    """What a figure of a result means.

    Attributes
    ----------
    name : str
        Name in ``metrics``.
    unit : str
        As printed: ``pages``, ``ns``, ``1``.
    better : {"lower", "higher", "neither"}
        Which direction an improvement has.
    description : str
        One line.
    kind : {"count", "failure", "time", "duration", "level", "rate", "share", "ratio"}
        What sort of figure it is (`mmfw.figures.KINDS`).
    """

    name: str
    unit: str
    better: Better
    description: str
    kind: FigureKind


@dataclass(frozen=True, slots=True)
class PhaseResult:
    """What came of one phase.

    Attributes
    ----------
    name : str
        As the scenario names it.
    start_ns, end_ns : int
        Virtual time.
    metrics : dict
        Plugins' metrics: what counters gained, and the others as the phase ended.
    vmstat : dict
        What counters gained, those that did.
    requests : tuple of (int, str, int, int)
        Order, class, requests in the phase, and those that failed.
    unusable_index_order_9 : (int, int)
        As the phase began and ended; thousandths (`mmfw.figures`).
    nr_free_pages : (int, int)
        As the phase began and ended.
    buddyinfo : dict
        As the phase ended.
    """

    name: str
    start_ns: int
    end_ns: int
    metrics: dict[str, int | float]
    vmstat: dict[str, int]
    requests: tuple[tuple[int, str, int, int], ...]
    unusable_index_order_9: tuple[int, int]
    nr_free_pages: tuple[int, int]
    buddyinfo: dict[str, list[int]]

    def as_json(self) -> dict[str, Any]:
        """Its part of the document."""
        out = asdict(self)
        names = ("order", "class", "nr", "nr_failed")
        out["requests"] = [dict(zip(names, row, strict=True)) for row in self.requests]
        for name in ("unusable_index_order_9", "nr_free_pages"):
            out[name] = dict(zip(("before", "after"), out[name], strict=True))
        return out


@dataclass(frozen=True, slots=True)
class RunResult:
    """What came of a run; `as_json` has the names that scripts rely on.

    Attributes
    ----------
    scenario, kernel : str
        What ran.
    plugins : tuple of str
        Loaded plugins, needs first.
    policies : tuple of str
        Policies it ran with, options behind colons; empty for mainline. Not part of the digest.
    machine, nr_cpus, overrides
        What it ran on, and what ``--set`` changed.
    seed, virtual_ns : int
        Seed, and virtual time run.
    wall_seconds : float
        Real time; not part of the digest.
    metrics : dict
        By name; integers, and floats for ratios, None for a ratio of nothing.
    figures : dict
        What each metric means.
    vmstat : dict
        Counters by their /proc/vmstat names.
    buddyinfo_before, buddyinfo : dict
        Free blocks by zone and order, at the start and at the end.
    kswapd_wakes_by_order : dict
        Passes of kswapd by the order they were for.
    shrinker_calls : dict
        By shrinker: scans started, objects freed, and pages that came free meanwhile.
    phases : tuple of PhaseResult
        What came of each phase; empty if the scenario has none.
    requests : tuple of RequestRow
        How requests fared, by order and class.
    losses : dict
        By subsystem: what reclaim and compaction took, and what was needed again.
    latencies : tuple of LatencyHistogram
        How long requests took, by order and class. Not in `as_json`; `as_document` has them.
    first_metrics : tuple of str
        Metrics that the scenario wants shown first.
    digest : str
        SHA-256 over vmstat, buddyinfo, events and integer metrics.
    leak_checked : bool
        Whether the machine came to rest after the run, so that every page could be asked back.
    """

    scenario: str
    kernel: str
    plugins: tuple[str, ...]
    policies: tuple[str, ...]
    machine: str
    nr_cpus: int
    overrides: dict[str, Any]
    seed: int
    virtual_ns: int
    wall_seconds: float
    metrics: dict[str, int | float | None]
    figures: dict[str, Figure]
    vmstat: dict[str, int]
    buddyinfo_before: dict[str, list[int]]
    buddyinfo: dict[str, list[int]]
    kswapd_wakes_by_order: dict[str, int]
    shrinker_calls: dict[str, dict[str, int]]
    phases: tuple[PhaseResult, ...]
    requests: tuple[RequestRow, ...]
    losses: dict[str, Losses]
    latencies: tuple[LatencyHistogram, ...]
    first_metrics: tuple[str, ...]
    digest: str
    leak_checked: bool

    @property
    def validated(self) -> str:
        """What of this run has been held against a real kernel."""
        said = f"{CORE_VALIDATED}; drivers modelled after {self.kernel}, not validated"
        if self.kernel != "6.1":
            said += f"; what the core of {self.kernel} does otherwise is modelled from its sources and not validated"
        return said

    def as_json(self) -> dict[str, Any]:
        """The JSON document of ``mmfw run --format json``."""
        return {
            "scenario": self.scenario,
            "kernel": self.kernel,
            "plugins": list(self.plugins),
            "policies": list(self.policies),
            "machine": self.machine,
            "nr_cpus": self.nr_cpus,
            "set": self.overrides,
            "seed": self.seed,
            "virtual_seconds": self.virtual_ns / 1e9,
            "wall_seconds": round(self.wall_seconds, 3),
            "digest": self.digest,
            "metrics": self.metrics,
            "vmstat": self.vmstat,
            "buddyinfo_before": self.buddyinfo_before,
            "buddyinfo": self.buddyinfo,
            "kswapd_wakes_by_order": self.kswapd_wakes_by_order,
            "shrinker_calls": self.shrinker_calls,
            "phases": [phase.as_json() for phase in self.phases],
            "requests": [
                {
                    "order": row.order,
                    "class": row.cls.value,
                    "nr": row.nr,
                    "nr_failed": row.nr_failed,
                    "p50_ns": row.p50_ns,
                    "p99_ns": row.p99_ns,
                }
                for row in self.requests
            ],
            "losses": {name: asdict(losses) for name, losses in self.losses.items()},
            "leak_checked": self.leak_checked,
            "validated": self.validated,
            "not_modelled": list(NOT_MODELLED),
        }

    def as_document(self) -> dict[str, Any]:
        """``metrics.json`` of a run directory: `as_json`, what the figures mean, and latencies."""
        meanings = {
            name: {
                "unit": each.unit,
                "kind": each.kind,
                "better": each.better,
                "description": each.description,
            }
            for name, each in self.figures.items()
        }
        latencies = [
            {
                "order": each.order,
                "class": each.cls.value,
                "bin_ns": list(each.bin_ns),
                "nr": list(each.nr),
                "nr_failed": list(each.nr_failed),
            }
            for each in self.latencies
        ]
        return {**self.as_json(), "figures": meanings, "latency": latencies}
