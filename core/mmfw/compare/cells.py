"""Cells: a figure of a policy in a scenario over its seeds, and against mainline."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from mmfw.compare.model import Cell, Number, StudyScenario, VsMainline
from mmfw.compare.plan import WAKES_ORDER_9
from mmfw.compare.statistics import Interval, Verdict, interval, median, paired, verdict
from mmfw.compare.threshold import LEAST_EFFECT, least_difference
from mmfw.mm.vmstat import VmEvent
from mmfw.offers import Better, FigureKind
from mmfw.policies import MAINLINE
from mmfw.result import Figure
from mmfw.results import RunDocument

#: By seed.
Runs = Mapping[int, RunDocument]

#: Counters of /proc/vmstat for which more, or fewer, of them are an improvement whatever the load.
_FEWER: tuple[VmEvent, ...] = (
    VmEvent.allocstall_dma, VmEvent.allocstall_dma32, VmEvent.allocstall_normal, VmEvent.allocstall_movable,
    VmEvent.pgscan_direct, VmEvent.pgscan_kswapd, VmEvent.compact_stall, VmEvent.compact_fail,
    VmEvent.workingset_refault_anon, VmEvent.workingset_refault_file, VmEvent.thp_fault_fallback, VmEvent.oom_kill,
    VmEvent.pswpin, VmEvent.pswpout,
)  # fmt: skip
_MORE = (VmEvent.thp_fault_alloc, VmEvent.compact_success)
#: Those of which each one matters.
_FAILURES = (VmEvent.oom_kill,)


def meaning(name: str, documents: Sequence[RunDocument]) -> Figure | None:
    """What a figure is; None if no run has it."""
    for document in documents:
        if name in document.figures:
            found = document.figures[name]
            return Figure(name, found.unit, found.better, found.description, found.kind or "level")
    if name == WAKES_ORDER_9:
        return Figure(name, "1", "lower", "passes of kswapd for order 9", "count")
    if name not in VmEvent.__members__:
        return None
    event = VmEvent[name]
    better: Better = "lower" if event in _FEWER else "higher" if event in _MORE else "neither"
    unit = "pages" if name.startswith(("pgscan", "pgsteal", "workingset", "pswp")) else "1"
    kind: FigureKind = "failure" if event in _FAILURES else "count"
    return Figure(name, unit, better, f"counter {name} of /proc/vmstat", kind)


def value_of(name: str, document: RunDocument) -> Number:
    """A figure of one run; None if there was nothing to measure."""
    if name == WAKES_ORDER_9:
        return document.kswapd_wakes_by_order.get("9", 0)
    value = document.figure(name)
    return value if value is None or math.isfinite(value) else None


def cells_of(
    scenario: StudyScenario,
    seeds: Sequence[int],
    runs: Mapping[str, Runs],
    runs_as: Mapping[str, str],
    least_effect: float = LEAST_EFFECT,
) -> list[Cell]:
    """All cells of a scenario: policy by policy, in the order of `runs_as`, figure by figure.

    Parameters
    ----------
    scenario : StudyScenario
        Whose.
    seeds : sequence of int
        All seeds of the study; a run may be missing.
    runs : mapping of str to runs by seed
        By composition, written in one way.
    runs_as : mapping of str to str
        Composition that stands for each policy's name.
    least_effect : float
        Smallest effect that matters, as a share of mainline's.
    """
    judged: dict[tuple[str, str], Cell | None] = {}
    cells = []
    for policy, text in runs_as.items():
        for name in scenario.metrics:
            if (text, name) not in judged:
                judged[text, name] = _cell(
                    scenario, seeds, runs.get(text, {}), runs.get(MAINLINE, {}), text, name, least_effect
                )
            found = judged[text, name]
            if found is not None:
                cells.append(_of_policy(found, policy))
    return cells


def judged(cell: Cell) -> Verdict | None:
    """Verdict of a cell by the rules as they are now, whatever version wrote it."""
    versus = cell.vs_mainline
    if versus is None:
        return None
    middle = versus.median_difference
    found = Interval(*(versus.ci or (middle, middle)), versus.level or 1.0)
    return verdict([middle] * versus.nr_pairs, found, cell.better, versus.least_difference)


def _of_policy(cell: Cell, policy: str) -> Cell:
    """The cell of a composition under a policy's name; against itself mainline is not held."""
    update: dict[str, object] = {"policy": policy}
    if policy == MAINLINE:
        update |= {"vs_mainline": None, "verdict": None}
    return cell.model_copy(update=update)


def _cell(
    scenario: StudyScenario,
    seeds: Sequence[int],
    runs: Runs,
    mainline: Runs,
    policies: str,
    name: str,
    least_effect: float,
) -> Cell | None:
    figure = meaning(name, [*runs.values(), *mainline.values()])
    if figure is None:
        return None
    ran = tuple(seed for seed in seeds if seed in runs)
    values = tuple(value_of(name, runs[seed]) for seed in ran)
    known = [value for value in values if value is not None]
    own = interval(known, f"{scenario.name}/{policies}/{name}")
    nr_results = len({runs[seed].digest for seed in ran if value_of(name, runs[seed]) is not None})
    both = [seed for seed in ran if seed in mainline]
    baseline = [value_of(name, mainline[seed]) for seed in both]
    pairs = paired([value_of(name, runs[seed]) for seed in both], baseline)
    apart = interval(pairs.differences, f"{scenario.name}/{policies}/{name}/difference")
    against, least = None, 0.0
    if pairs.differences:
        usual = median([value for value in baseline if value is not None])
        least = least_difference(figure.kind, figure.unit, usual, least_effect)
        ratios = pairs.ratios
        nr_apart = _nr_results(name, [(runs[seed], mainline[seed]) for seed in both])
        ratio_ci = interval(ratios or (), f"{scenario.name}/{policies}/{name}/ratio")
        against = VsMainline(
            median_difference=median(pairs.differences),
            ci=None if nr_apart == 1 else _bounds(apart),
            level=None if apart is None or nr_apart == 1 else apart.level,
            ratio=None if ratios is None else median(ratios),
            ratio_ci=None if nr_apart == 1 else _bounds(ratio_ci),
            nr_pairs=len(pairs.differences),
            least_difference=least,
            nr_results=nr_apart,
        )
    return Cell(
        scenario=scenario.name,
        policy=policies,
        metric=name,
        unit=figure.unit,
        kind=figure.kind,
        better=figure.better,
        description=figure.description,
        primary=name in scenario.primary,
        seeds=ran,
        values=values,
        median=median(known) if known else None,
        ci=None if nr_results == 1 else _bounds(own),
        level=None if own is None or nr_results == 1 else own.level,
        nr_results=nr_results,
        vs_mainline=against,
        verdict=verdict(pairs.differences, apart, figure.better, least),
    )


def _nr_results(name: str, pairs: Sequence[tuple[RunDocument, RunDocument]]) -> int:
    """Different pairs of results that have a figure."""
    return len({(a.digest, b.digest) for a, b in pairs if None not in (value_of(name, a), value_of(name, b))})


def _bounds(found: Interval | None) -> tuple[float, float] | None:
    return None if found is None else (found.low, found.high)
