"""Traces of whole runs: tracing changes nothing, the same seed gives the same bytes, and lines add up to vmstat."""

from __future__ import annotations

import gzip
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from mmfw.errors import PluginError
from mmfw.proc.ftrace import FtraceReader, format_ftrace_line
from mmfw.proc.tracebody import Text
from mmfw.proc.vmstat import parse_vmstat
from mmfw.run import run
from mmfw.tracing.events import TRACEPOINTS
from traced import Line, TracedRun, pressure_request, read_lines, toy_request


def grown(done: TracedRun) -> Counter[str]:
    """How much each counter of vmstat grew."""
    before, after = (
        parse_vmstat((done.proc / moment / "vmstat").read_text()).as_dict() for moment in ("before", "after")
    )
    return Counter({name: value - before[name] for name, value in after.items()})


def total(
    lines: list[Line], event: str, figure: str, where: Callable[[Line], bool] = lambda line: True
) -> int:
    return sum(line.figure(figure) for line in lines if line.event == event and where(line))


def by_kswapd(line: Line) -> bool:
    return line.task.startswith("kswapd")


# --- tracing changes nothing ----------------------------------------------------------------------------


def test_a_traced_run_has_the_digest_of_an_untraced_one(pressure: TracedRun, toy: TracedRun) -> None:
    assert run(pressure_request()).digest == pressure.result.digest
    assert run(toy_request()).digest == toy.result.digest


@pytest.mark.parametrize("events", [None, "kmem", "vmscan:mm_vmscan_kswapd_wake"])
def test_what_is_traced_does_not_matter(toy: TracedRun, tmp_path: Path, events: str | None) -> None:
    done = run(toy_request(trace=tmp_path / "t", events=events))
    assert done.digest == toy.result.digest
    assert done.metrics == toy.result.metrics


def test_the_same_seed_gives_the_same_bytes_packed_or_not(pressure: TracedRun, tmp_path: Path) -> None:
    run(pressure_request(trace=tmp_path / "t.gz", proc=tmp_path / "p", events="*:*"))
    assert gzip.decompress((tmp_path / "t.gz").read_bytes()) == pressure.trace.read_bytes()
    for path in pressure.proc.rglob("*"):
        if path.is_file():
            assert (tmp_path / "p" / path.relative_to(pressure.proc)).read_bytes() == path.read_bytes()


def test_events_chosen_alone_are_the_lines_they_are_among_others(toy: TracedRun, tmp_path: Path) -> None:
    run(
        toy_request(
            trace=tmp_path / "t", events="compaction,mm_page_alloc_extfrag", trace_options="noirq-info"
        )
    )
    chosen = [each for each in toy.lines if each.event.startswith("mm_comp") or "extfrag" in each.event]
    assert read_lines(tmp_path / "t") == chosen


# --- the lines ------------------------------------------------------------------------------------------


def test_a_trace_reads_back_as_it_is_and_in_the_order_of_time(pressure: TracedRun, toy: TracedRun) -> None:
    for done in (pressure, toy):
        texts = [text for text in done.trace.read_text().splitlines() if not text.startswith("#")]
        lines = list(FtraceReader(done.trace))
        assert [format_ftrace_line(line) for line in lines] == texts
        assert not any(isinstance(line.body, Text) for line in lines)
        times = [line.usecs for line in lines]
        assert times == sorted(times)
        assert times[-1] <= done.result.virtual_ns // 1000
        assert {line.cpu for line in lines} == set(range(done.result.nr_cpus))


def test_between_them_the_runs_show_nearly_every_event(pressure: TracedRun, toy: TracedRun) -> None:
    seen = {line.event for line in (*pressure.lines, *toy.lines)}
    assert seen <= {each.name for each in TRACEPOINTS}
    assert {each.name for each in TRACEPOINTS} - seen <= {
        "compact_retry",
        "mm_compaction_defer_reset",
        "mm_vmscan_kswapd_sleep",
        "mm_vmscan_throttled",
    }


def test_flags_are_those_of_real_traces(pressure: TracedRun) -> None:
    """In the captures a line under ``lru_lock`` has d and a depth of 1; all others have neither, but for kmem's.

    A device that has written a page which nobody owns any more frees it in a soft interrupt; the captures show none.
    """
    patterns = {
        "mm_vmscan_lru_isolate": r"d[N.]\.1\.",
        "mm_page_alloc_zone_locked": r"d[N.]\.[13]\.",
        "mm_page_alloc_extfrag": r"d[N.]\.[13]\.",
        "mm_page_pcpu_drain": r"d[N.]\.3\.",
    }
    in_interrupt = {"mm_page_free": r"\.[N.]s1\.", "mm_page_pcpu_drain": r"d[N.]s4\."}
    for line in pressure.lines:
        assert line.flags is not None
        idle = line.task == "<idle>-0"
        pattern = in_interrupt[line.event] if idle else patterns.get(line.event, r"\.[N.]\.\.\.")
        assert re.fullmatch(pattern, line.flags), line


def test_tasks_do_what_they_are_for(pressure: TracedRun, toy: TracedRun) -> None:
    for line in (*pressure.lines, *toy.lines):
        if line.event in ("mm_vmscan_kswapd_wake", "mm_vmscan_kswapd_sleep"):
            assert line.task.startswith("kswapd0-")
        elif line.event.startswith("mm_compaction_kcompactd"):
            assert line.task.startswith("kcompactd0-")
        elif line.event.startswith("mm_vmscan_direct_reclaim"):
            assert not line.task.startswith(("kswapd0-", "kcompactd0-", "<idle>-"))


def test_beginnings_and_ends_alternate_in_every_task(pressure: TracedRun, toy: TracedRun) -> None:
    for done in (pressure, toy):
        for begin, end in (
            ("mm_vmscan_direct_reclaim_begin", "mm_vmscan_direct_reclaim_end"),
            ("mm_compaction_begin", "mm_compaction_end"),
            ("mm_shrink_slab_start", "mm_shrink_slab_end"),
        ):
            inside: set[str] = set()
            for line in done.lines:
                if line.event == begin:
                    assert line.task not in inside
                    inside.add(line.task)
                elif line.event == end:
                    assert line.task in inside
                    inside.remove(line.task)


def test_a_page_is_allocated_before_it_is_freed_and_not_twice(pressure: TracedRun) -> None:
    """Blocks that were there before the run may be freed; those of the run are free before they are given again."""
    held: dict[int, int] = {}
    for line in pressure.lines:
        if line.event == "mm_page_alloc" and (pfn := line.figure("pfn")):
            assert pfn not in held, line
            held[pfn] = line.figure("order")
        elif line.event == "mm_page_free":
            assert held.pop(line.figure("pfn"), line.figure("order")) == line.figure("order"), line
    assert held


# --- sums -----------------------------------------------------------------------------------------------


def test_pages_add_up_to_pgalloc_and_pgfree(pressure: TracedRun, toy: TracedRun) -> None:
    for done in (pressure, toy):
        counters = grown(done)
        pages = Counter[str]()
        for line in done.lines:
            if line.event == "mm_page_free" or (line.event == "mm_page_alloc" and line.figure("pfn")):
                pages[line.event] += 1 << line.figure("order")
        assert pages["mm_page_free"] == counters["pgfree"] > 0
        allocated = sum(n for name, n in counters.items() if name.startswith("pgalloc_"))
        assert pages["mm_page_alloc"] == allocated > 0


def test_reclaim_adds_up_to_pgscan_and_pgsteal(pressure: TracedRun, toy: TracedRun) -> None:
    shrink = "mm_vmscan_lru_shrink_inactive"
    for done in (pressure, toy):
        counters, lines = grown(done), done.lines
        assert total(lines, shrink, "nr_scanned", by_kswapd) == counters["pgscan_kswapd"] > 0
        assert total(lines, shrink, "nr_scanned") == counters["pgscan_kswapd"] + counters["pgscan_direct"]
        assert total(lines, shrink, "nr_reclaimed", by_kswapd) == counters["pgsteal_kswapd"] > 0
        assert total(lines, shrink, "nr_reclaimed") == counters["pgsteal_kswapd"] + counters["pgsteal_direct"]
        anon = total(lines, shrink, "nr_scanned", lambda line: "RECLAIM_WB_ANON" in line.text)
        assert anon == counters["pgscan_anon"]
        active = total(lines, "mm_vmscan_lru_isolate", "nr_scanned", lambda line: "lru=active" in line.text)
        assert active == counters["pgrefill"]
        assert total(lines, "mm_vmscan_lru_shrink_active", "nr_deactivated") == counters["pgdeactivate"]
    assert grown(pressure)["pgscan_direct"] > 0
    assert grown(pressure)["pgrefill"] > 0


def test_passes_stalls_writes_and_kills_are_counted_alike(pressure: TracedRun, toy: TracedRun) -> None:
    for done in (pressure, toy):
        counters = grown(done)
        events = Counter(line.event for line in done.lines)
        assert events["mm_vmscan_kswapd_wake"] == counters["pageoutrun"] > 0
        assert events["mm_vmscan_kswapd_wake"] == sum(done.result.kswapd_wakes_by_order.values())
        stalls = sum(n for name, n in counters.items() if name.startswith("allocstall_"))
        # do_try_to_free_pages() counts again when it tries once more with deactivation; the event comes before that.
        assert 0 < events["mm_vmscan_direct_reclaim_begin"] <= stalls
        assert events["mm_vmscan_write_folio"] == counters["nr_vmscan_write"]
        assert events["mark_victim"] == counters["oom_kill"]
        assert events["mm_compaction_kcompactd_wake"] == counters["compact_daemon_wake"]
    assert grown(pressure)["nr_vmscan_write"] > 0
    assert grown(pressure)["oom_kill"] == 1
    assert grown(toy)["compact_daemon_wake"] > 0


def test_compaction_adds_up_as_in_the_captures(toy: TracedRun) -> None:
    """Migrations always do; scans do where no fast search is made, which shows in no tracepoint.

    Pages that ``migrate_pages()`` never came to count as failed in its tracepoint only.
    """
    counters, lines = grown(toy), toy.lines
    assert total(lines, "mm_compaction_migratepages", "nr_migrated") == counters["pgmigrate_success"] > 0
    assert total(lines, "mm_compaction_migratepages", "nr_failed") >= counters["pgmigrate_fail"]
    for side, counter in (("migratepages", "migrate_scanned"), ("freepages", "free_scanned")):
        event = f"mm_compaction_isolate_{side}"
        assert 0 < total(lines, event, "nr_scanned") <= counters[f"compact_{counter}"]
        direct = total(lines, event, "nr_scanned", lambda line: not line.task.startswith("kcompactd0-"))
        assert direct == counters[f"compact_{counter}"] - counters[f"compact_daemon_{counter}"]


def test_calls_of_a_shrinker_are_those_of_the_result(toy: TracedRun) -> None:
    ends = [line for line in toy.lines if line.event == "mm_shrink_slab_end"]
    starts = [line for line in toy.lines if line.event == "mm_shrink_slab_start"]
    freed = sum(int(line.text.rsplit(" ", 1)[1]) for line in ends)
    calls = toy.result.shrinker_calls["toy"]
    assert (calls["calls"], calls["freed"]) == (len(ends), freed)
    # The toy's objects are pages, which go straight to the buddy.
    assert calls["pages_freed"] == freed
    assert len(starts) == len(ends) > 0
    assert all(line.text.startswith("toy_scan_objects+0x0/0x0 00000000") for line in (*starts, *ends))


# --- a run that fails -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("objects.drop(number)", "pass", "pages were not given back"),
        ("return freed or SHRINK_STOP", "return 1 / 0", "ZeroDivisionError"),
    ],
)
def test_a_run_that_a_plugin_spoils_leaves_nothing(tmp_path: Path, old: str, new: str, message: str) -> None:
    """At its end or in the midst of it."""
    request = toy_request()
    source = request.plugin_files[0].read_text()
    assert old in source
    spoilt = tmp_path / "toy.py"
    spoilt.write_text(source.replace(old, new))
    (tmp_path / "t").write_text("old")
    with pytest.raises(PluginError, match=message):
        run(toy_request(plugin_files=(spoilt,), trace=tmp_path / "t", proc=tmp_path / "p", duration="100ms"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t", "toy.py"]
    assert (tmp_path / "t").read_text() == "old"
