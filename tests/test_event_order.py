"""The order of events around a failing high-order request: the same grammar holds for a real trace and for ours.

A trace is read task by task, one letter an event:

``W`` wakeup_kswapd, ``K`` kswapd_wake, ``Z`` kswapd_sleep, ``S``/``s`` shrink_slab of the driver begin/end,
``E`` an object evicted, ``D``/``d`` direct reclaim begin/end, ``B``/``b`` compaction begin/end,
``k`` wakeup_kcompactd, ``C`` kcompactd_wake, ``z`` kcompactd_sleep, ``R`` an object restored.
"""

from __future__ import annotations

import gzip
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import mmfw_probe.gpu
from mmfw.mm import trace as tp
from mmfw.validate.experiment import Meter, build_mm, find_rebuild, read_spec
from mmfw.validate.recognise import find_captures
from mmfw_probe.objects import BufferObject, ObjectLoop

GPU = Path(__file__).parent / "data" / "gpu" / "1G-frag16-s1"
STEPS = 400
LETTERS = {
    "mm_vmscan_wakeup_kswapd": "W",
    "mm_vmscan_kswapd_wake": "K",
    "mm_vmscan_kswapd_sleep": "Z",
    "mm_shrink_slab_start": "S",
    "mm_shrink_slab_end": "s",
    "mm_vmscan_direct_reclaim_begin": "D",
    "mm_vmscan_direct_reclaim_end": "d",
    "mm_compaction_begin": "B",
    "mm_compaction_end": "b",
    "mm_compaction_wakeup_kcompactd": "k",
    "mm_compaction_kcompactd_wake": "C",
    "mm_compaction_kcompactd_sleep": "z",
    "gpu_scan": "E",
    "probe_write": "R",
}
EVENTS = {
    tp.MmVmscanWakeupKswapd: "W",
    tp.MmVmscanKswapdWake: "K",
    tp.MmVmscanKswapdSleep: "Z",
    tp.MmVmscanDirectReclaimBegin: "D",
    tp.MmVmscanDirectReclaimEnd: "d",
    tp.MmCompactionBegin: "B",
    tp.MmCompactionEnd: "b",
    tp.MmCompactionWakeupKcompactd: "k",
    tp.MmCompactionKcompactdWake: "C",
    tp.MmCompactionKcompactdSleep: "z",
}
#: What each task's events must look like.
GRAMMAR = {
    # Woken, it calls the driver's shrinker at rising pressure until that evicts, and wakes kcompactd before a nap.
    "kswapd0": r"(?:K(?:SE*s)*k?Z?)*",
    # Woken, it compacts the zones that want it, one after the other, and sleeps.
    "kcompactd0": r"z?(?:C(?:Bb)*z)*",
    # An order-9 request that fails wakes kswapd, tries asynchronous compaction, and, where that was not put off,
    # reclaims once and compacts again; then the next order's turn comes. A restore ends with the last page.
    "init": r"(?:(?:W?(?:Bb)*(?:D(?:SE*s)*d(?:Bb)*)*)*R)*",
}
_LINE = re.compile(r"\s*(\S+)-\d+\s+\[\d+\] \S+\s+[\d.]+: (\w+):", re.ASCII)

Sequence = list[tuple[str, str]]


@pytest.fixture(scope="module")
def real() -> Sequence:
    """(task, letter) of the captured run's first steps."""
    found = []
    with gzip.open(GPU / "pattern.trace.gz", "rt") as lines:
        for line in lines:
            match = _LINE.match(line)
            assert match is not None, line
            found.append((match[1], LETTERS[match[2]]))
    return found


@pytest.fixture(scope="module")
def ours() -> Sequence:
    """(task, letter) of as many steps of the rebuilt run."""
    (capture,) = find_captures(GPU)
    spec = read_spec(GPU, capture.kind, capture.name, capture.document, "capture.json")
    mm = build_mm(spec)
    found: Sequence = []

    def note(letter: str) -> None:
        found.append((mm.sched.current.comm, letter))

    class Loop(ObjectLoop):
        def _restore(self, victim: BufferObject) -> None:
            super()._restore(victim)
            note("R")

        def _drop(self, victim: BufferObject) -> int:
            evicts = victim.nr_pages
            n = super()._drop(victim)
            if evicts:
                note("E")
            return n

    for kind, letter in EVENTS.items():
        mm.trace.subscribe(kind, lambda event, letter=letter: note(letter))
    mm.trace.subscribe(
        tp.MmShrinkSlabStart, lambda event: note("S") if event.shrinker == "probe_gpu" else None
    )
    mm.trace.subscribe(tp.MmShrinkSlabEnd, lambda event: note("s") if event.shrinker == "probe_gpu" else None)
    with pytest.MonkeyPatch.context() as patch, mm.sched:
        patch.setattr(mmfw_probe.gpu, "STEPS", STEPS)
        patch.setattr(mmfw_probe.gpu, "ObjectLoop", Loop)
        find_rebuild("gpu")(mm, spec, Meter(mm))
    first = next(i for i, (_, letter) in enumerate(found) if letter == "R")
    last = max(i for i, (_, letter) in enumerate(found) if letter == "R")
    return found[first : last + 1]


def of_task(sequence: Sequence, task: str) -> str:
    return "".join(letter for name, letter in sequence if name == task)


@pytest.fixture(params=["real", "ours"])
def sequence(request: pytest.FixtureRequest) -> Sequence:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, list)
    return found


@pytest.mark.parametrize("task", sorted(GRAMMAR))
def test_each_task_follows_its_grammar(sequence: Sequence, task: str) -> None:
    letters = of_task(sequence, task)
    assert len(letters) > 20
    # A run may start or end amid what a thread does.
    whole = letters[
        letters.index("K" if task == "kswapd0" else "C" if task == "kcompactd0" else letters[0]) :
    ]
    if task != "init":
        whole = whole[: max(whole.rfind("K"), whole.rfind("C"))]
    match = re.match(GRAMMAR[task], whole)
    assert match is not None
    assert match.end() == len(whole), whole[max(0, match.end() - 20) : match.end() + 20]


def test_kswapd_wakes_only_after_it_was_woken(sequence: Sequence) -> None:
    """Each kswapd_wake follows a wakeup_kswapd of its own, each kcompactd_wake a wakeup_kcompactd."""
    for cause, effect in (("W", "K"), ("k", "C")):
        pending = 0
        wakes = 0
        for _, letter in sequence:
            if letter == cause:
                pending += 1
            elif letter == effect:
                assert pending, f"{effect} without {cause}"
                pending = 0
                wakes += 1
        assert wakes > 5


def evictions_a_pass(sequence: Sequence) -> list[int]:
    return [each.count("E") for each in re.split("K", of_task(sequence, "kswapd0"))[1:-1]]


def test_every_pass_of_kswapd_evicts_an_object_or_two(real: Sequence, ours: Sequence) -> None:
    """The loop of the debate: every wake-up for one order-9 request costs whole objects."""
    one = []
    for passes in (evictions_a_pass(real), evictions_a_pass(ours)):
        assert set(passes) == {1, 2}
        one.append(passes.count(1) / len(passes))
    assert one[1] == pytest.approx(one[0], abs=0.1)


def shares(sequence: Sequence) -> dict[str, float]:
    restores = re.findall("[^R]*R", of_task(sequence, "init"))
    return {pattern: n / len(restores) for pattern, n in Counter(restores).items()}


def test_the_common_ways_of_a_restore_are_the_same_ones(real: Sequence, ours: Sequence) -> None:
    """What at least one restore in ten looks like is as common in both, within ten percentage points."""
    captured, simulated = shares(real), shares(ours)

    def common(found: dict[str, float]) -> Iterator[str]:
        return (pattern for pattern, share in found.items() if share >= 0.1)

    for pattern in {*common(captured), *common(simulated)}:
        assert simulated.get(pattern, 0) == pytest.approx(captured.get(pattern, 0), abs=0.1), pattern
    assert len(list(common(captured))) >= 3
