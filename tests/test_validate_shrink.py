"""Captured shrinker calls: all figures agree, and a wrong ``do_shrink_slab()`` does not get through."""

from __future__ import annotations

import gzip
import inspect
import random
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmfw.errors import InputError
from mmfw.mm import shrinker as mm_shrinker
from mmfw.validate import slabcall
from mmfw.validate.common import Comparison, summarize
from mmfw.validate.shrink import validate_shrink

DATA = Path(__file__).parent / "data" / "shrink"
LINES = gzip.decompress((DATA / "512M-v2" / "shrink.trace.gz").read_bytes()).decode().splitlines()


def compare(path: Path) -> list[Comparison]:
    return list(validate_shrink(path, path.name))


def counted(comparisons: list[Comparison]) -> Counter[tuple[str, str]]:
    return Counter((one.labels["figure"], one.counter) for one in comparisons if one.counted)


def test_every_figure_of_a_whole_capture_agrees() -> None:
    comparisons = compare(DATA / "512M-v2")
    assert [one for one in comparisons if not one.within] == []
    assert counted(comparisons) == {
        ("count", "mm_shrink_slab_start"): 53,
        ("start", "nr_objects_to_shrink"): 346,
        ("start", "delta"): 355,
        ("start", "total_scan"): 355,
        ("scan", "nr_to_scan"): 355,
        ("end", "retval"): 355,
        ("end", "total_scan"): 355,
        ("end", "new_scan"): 345,
        ("system start", "delta"): 45,
        ("system start", "total_scan"): 45,
        ("vmstat", "slabs_scanned"): 1,
    }
    assert summarize(comparisons).passed


def test_callee_that_scans_more_than_asked_leaves_nothing_deferred() -> None:
    """Priority 0, nr_scanned twice nr_to_scan: the one captured call whose remainder would be negative."""
    comparisons = compare(DATA / "256M-v1")
    assert [one for one in comparisons if not one.within] == []
    call = {one.counter: one.real for one in comparisons if one.labels.get("line") == "7733"}
    assert (call["new_scan"], call["total_scan"]) == (0, -128)


def test_figures_name_experiment_shrinker_priority_and_line() -> None:
    first = next(one for one in compare(DATA / "512M-v2") if one.counter == "delta" and one.real == 250)
    number = int(first.labels["line"])
    assert first.experiment == "shrink/512M-v2"
    assert (first.labels["shrinker"], first.labels["priority"]) == ("seek0", "12")
    assert "probe_scan_2+" in LINES[number - 1]
    assert "mm_shrink_slab_start" in LINES[number - 1]


def test_two_reclaimers_in_one_shrinker_are_counted_apart_and_named() -> None:
    apart = [one for one in compare(DATA / "512M-v2") if "concurrent" in one.labels]
    assert Counter(one.counter for one in apart) == {"new_scan": 10, "nr_objects_to_shrink": 9}
    assert {one.labels["concurrent"] for one in apart} == {"init-1", "kswapd0-36"}
    assert all(not one.counted and one.within for one in apart)


def test_wrapped_trace_takes_registrations_from_the_kernel_log() -> None:
    comparisons = compare(DATA / "256M-v3")
    assert [one for one in comparisons if not one.within] == []
    figures = counted(comparisons)
    # A shrinker's first call has no call before it in the buffer, so nothing tells what it found deferred.
    assert figures["start", "nr_objects_to_shrink"] < figures["start", "delta"]
    assert ("vmstat", "slabs_scanned") not in figures


def capture(tmp_path: Path, lines: list[str]) -> Path:
    path = tmp_path / "512M-v2"
    shutil.copytree(DATA / "512M-v2", path, dirs_exist_ok=True)
    with (path / "shrink.trace.gz").open("wb") as out:
        out.write("".join(f"{line}\n" for line in lines).encode())
    return path


MUTATIONS = {
    "delta halved": ("priority, ops.seeks)", "priority, ops.seeks) // 2"),
    "deferred not taken": ("shrinker.nr_deferred[slot] = 0", "pass"),
    "deferred not put back": ("shrinker.nr_deferred[slot] += left", "pass"),
    "deferred not used": ("shrink_total_scan(deferred, delta,", "shrink_total_scan(0, delta,"),
    "default batch": ("ops.batch or SHRINK_BATCH", "ops.batch or 64"),
    "own batch ignored": ("ops.batch or SHRINK_BATCH", "SHRINK_BATCH"),
    "small caches wait for a batch": (" or total_scan >= freeable", ""),
    "callee's nr_scanned ignored": ("total_scan -= shrinkctl.nr_scanned", "total_scan -= nr_to_scan"),
    "work scanned stays deferred": ("deferred + delta - scanned", "deferred + delta"),
    "left may be negative": ("max(deferred + delta - scanned, 0)", "(deferred + delta - scanned)"),
    "left without a limit": (", 0), 2 * freeable)", ", 0), 20 * freeable)"),
    "last return value only": ("freed += ret", "freed = ret"),
    "SHRINK_STOP goes on": ("if ret == SHRINK_STOP:\n            break", "if ret == SHRINK_STOP:\n            ret = 0"),
    "SHRINK_EMPTY scanned": ("if freeable in (0, SHRINK_EMPTY):", "if freeable == 0:"),
    "scanned not counted": ("vmstat.count(VmEvent.slabs_scanned, shrinkctl.nr_scanned)", "pass"),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTATIONS)
def test_wrong_do_shrink_slab_fails(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = MUTATIONS[name]
    source = inspect.getsource(mm_shrinker.do_shrink_slab)
    assert source.count(old) == 1
    scope = vars(mm_shrinker).copy()
    exec("from __future__ import annotations\n" + source.replace(old, new), scope)
    monkeypatch.setattr(slabcall, "do_shrink_slab", scope["do_shrink_slab"])
    comparisons = [one for folder in ("256M-v1", "512M-v2") for one in compare(DATA / folder)]
    wrong = [one for one in comparisons if one.counted and not one.within]
    assert wrong
    assert not summarize(comparisons).passed


@pytest.mark.parametrize(
    ("event", "old", "counter", "figure"),
    [
        ("mm_shrink_slab_start", " delta ", "delta", "start"),
        ("mm_shrink_slab_start", " total_scan ", "total_scan", "start"),
        ("mm_shrink_slab_end", " total_scan ", "total_scan", "end"),
        ("mm_shrink_slab_end", " return val ", "retval", "end"),
        ("mm_shrink_slab_end", " new scan count ", "new_scan", "end"),
        ("psh_scan", " nr_to_scan=", "nr_to_scan", "scan"),
    ],
)
@pytest.mark.parametrize("seed", range(8))
def test_one_altered_figure_is_found(
    event: str, old: str, counter: str, figure: str, seed: int, tmp_path: Path
) -> None:
    rng = random.Random(seed)
    # The first 600 lines come before the second reclaimer.
    chosen = [
        i for i in range(600) if event in LINES[i] and (event == "psh_scan" or "probe_scan" in LINES[i])
    ]
    index = rng.choice(chosen)
    before, key, after = LINES[index].partition(old)
    number, blank, rest = after.partition(" ")
    lines = [*LINES[:index], f"{before}{key}{int(number) + 1}{blank}{rest}", *LINES[index + 1 :]]
    wrong = [one for one in compare(capture(tmp_path, lines)) if not one.within]
    # A deferred count that is wrong in the trace is wrong again where the next call takes it.
    assert 1 <= len(wrong) <= 2
    assert (wrong[0].counter, wrong[0].labels["figure"]) == (counter, figure)
    assert wrong[0].real == wrong[0].simulated + 1
    assert int(wrong[0].labels["line"]) <= index + 1


def run_damaged(tmp_path: Path, lines: list[str]) -> str:
    path = capture(tmp_path, lines)
    try:
        comparisons = compare(path)
    except InputError as error:
        assert error.file is not None
        assert error.line is not None
        return "error"
    return "agrees" if all(one.within for one in comparisons) else "differs"


DAMAGE = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@DAMAGE
@given(at=st.integers(0, len(LINES) - 1))
def test_lost_line_is_an_error(at: int, tmp_path: Path) -> None:
    lines = LINES[:at] + LINES[at + 1 :]
    comment = LINES[at].startswith("#") and "entries" not in LINES[at]
    assert run_damaged(tmp_path, lines) == ("agrees" if comment else "error")


@DAMAGE
@given(at=st.integers(0, len(LINES) - 1), byte=st.integers(0, 200), bit=st.integers(0, 6))
def test_flipped_bit_is_an_error_a_difference_or_harmless(
    at: int, byte: int, bit: int, tmp_path: Path
) -> None:
    line = LINES[at]
    where = byte % len(line)
    flipped = line[:where] + chr(ord(line[where]) ^ (1 << bit)) + line[where + 1 :]
    assert run_damaged(tmp_path, [*LINES[:at], flipped, *LINES[at + 1 :]]) in ("error", "differs", "agrees")


@DAMAGE
@given(at=st.integers(12, len(LINES) - 2))
def test_swapped_lines_of_a_call_do_not_pass(at: int, tmp_path: Path) -> None:
    outcome = run_damaged(tmp_path, [*LINES[:at], LINES[at + 1], LINES[at], *LINES[at + 2 :]])
    ours = ("probe_scan_", "probe: scan", "probe: count")
    first, second = LINES[at], LINES[at + 1]
    one_call = all(any(mark in line for mark in ours) for line in (first, second))
    # Two counts of different shrinkers that found nothing are two whole calls, of which nothing else is told.
    named = {
        found[1] for line in (first, second) if (found := re.search(r"probe: (?:count|scan) (\S+)", line))
    }
    one_call = one_call and len(named) < 2
    # What a scan freed is the shrinker's own answer: of two scans of one call only the sum shows.
    said = {
        re.sub(r" ret=\d+", "", line.partition(": ")[2].partition(" left=")[0]) for line in (first, second)
    }
    assert (
        outcome != "agrees" or not one_call or len(said) == 1 or first.split("[")[0] != second.split("[")[0]
    )


def test_registrations_in_trace_and_log_must_agree(tmp_path: Path) -> None:
    lines = [line.replace("name=seek1 seeks=1", "name=seek1 seeks=2") for line in LINES]
    path = capture(tmp_path, lines)
    with pytest.raises(
        InputError, match=r"shrink\.trace\.gz:\d+: shrinker 3 was registered before, as 'seek1'"
    ):
        compare(path)


def test_shrinker_that_was_never_registered(tmp_path: Path) -> None:
    path = capture(tmp_path, [*LINES])
    (path / "dmesg.txt").unlink()
    assert all(one.within for one in compare(path))
    path = capture(tmp_path, [line.replace("count seek1 ", "count seek7 ") for line in LINES])
    with pytest.raises(InputError, match="shrinker 'seek7' was not registered before this line"):
        compare(path)
