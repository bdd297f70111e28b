"""The kernel's own sources and scripts on our traces; skipped where they are not at hand.

They are in Debian's package linux-source-6.1: unpack ``/usr/src/linux-source-6.1.tar.xz`` in its place, or name another
place in ``MMFW_LINUX_SOURCE``. Nothing of them is kept here.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from mmfw.proc.compaction_trace import COMPACTION_EVENTS
from mmfw.proc.kmem_trace import KMEM_EVENTS
from mmfw.proc.oom_trace import OOM_EVENTS
from mmfw.proc.vmscan_trace import VMSCAN_EVENTS
from traced import DATA, Line, TracedRun

pytestmark = pytest.mark.kernel_source

SOURCE = Path(os.environ.get("MMFW_LINUX_SOURCE", "/usr/src/linux-source-6.1"))
SCRIPTS = SOURCE / "Documentation" / "trace" / "postprocess"
VMSCAN = SCRIPTS / "trace-vmscan-postprocess.pl"
PAGEALLOC = SCRIPTS / "trace-pagealloc-postprocess.pl"
PERL = shutil.which("perl")

headers = pytest.mark.skipif(
    not (SOURCE / "include" / "trace" / "events" / "vmscan.h").is_file(),
    reason=f"no kernel source in {SOURCE}",
)
scripts = pytest.mark.skipif(
    PERL is None or not (VMSCAN.is_file() and PAGEALLOC.is_file()),
    reason=f"no perl, or no kernel source in {SOURCE}",
)


# --- TP_printk() ----------------------------------------------------------------------------------------


def printed_by(header: str) -> dict[str, str]:
    """Format of every event of a header of include/trace/events; those of a class get the class's."""
    text = (SOURCE / "include" / "trace" / "events" / header).read_text()
    classes: dict[str, str] = {}
    events: dict[str, str] = {}
    for part in re.split(r"\n(?=TRACE_EVENT|DECLARE_EVENT_CLASS|DEFINE_EVENT)", text):
        found = re.match(r"(\w+)\((\w+)(?:,\s*(\w+))?", part)
        if found is None:
            continue
        said = re.search(r'TP_printk\("([^"]*)"', part)
        if found[1] == "TRACE_EVENT" and said:
            events[found[2]] = said[1]
        elif found[1] == "DECLARE_EVENT_CLASS" and said:
            classes[found[2]] = said[1]
        elif found[1] == "DEFINE_EVENT" and found[2] in classes:
            events[found[3]] = classes[found[2]]
    return events


@headers
@pytest.mark.parametrize(
    ("header", "bodies"),
    [
        ("vmscan.h", VMSCAN_EVENTS),
        ("compaction.h", COMPACTION_EVENTS),
        ("kmem.h", KMEM_EVENTS),
        ("oom.h", OOM_EVENTS),
    ],
)
def test_templates_are_the_kernels_formats(header, bodies) -> None:
    formats = printed_by(header)
    for body in bodies:
        # What stands for a value is left out on both sides; 0x belongs to the value on ours.
        kernels = re.sub(r"(0x)?%-?\d*(?:l{0,2}[dux]|hd|pS?|s)", "{}", formats[body.event])
        assert re.sub(r"\{\w+\}", "{}", body.template) == kernels


@headers
def test_all_events_of_vmscan_and_compaction_can_be_read() -> None:
    assert printed_by("vmscan.h").keys() == {body.event for body in VMSCAN_EVENTS}
    assert printed_by("compaction.h").keys() == {body.event for body in COMPACTION_EVENTS}


# --- the scripts ----------------------------------------------------------------------------------------


def report_of(script: Path, text: str) -> list[str]:
    """What a script prints of a trace. It reads to the end of its input, and then reports."""
    assert PERL is not None
    done = subprocess.run(
        [PERL, script], input=text, capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def warnings_of(report: list[str]) -> Counter[str]:
    return Counter(line for line in report if line.startswith("WARNING"))


def real_lines(*names: str) -> str:
    return "".join((DATA / "trace" / f"{name}.txt").read_text() for name in names)


def without_flags(text: str) -> str:
    """As with the option noirq-info."""
    return re.sub(r"(?m)^(.{16,}-\d+ +\[\d+\]) \S{5} ", r"\1 ", text)


def events_of(text: str) -> Counter[str]:
    return Counter(re.findall(r"(?m)^ .*?\d\.\d{6}: (\w+): ", text))


@scripts
def test_vmscan_script_warns_of_our_trace_as_of_a_real_one(pressure: TracedRun) -> None:
    """Of an event it cannot read in 6.1 every line draws a warning, of the others none; and so it is in real traces."""
    of_real, of_ours = real_lines("compact", "gpu", "lru", "shrink"), pressure.trace.read_text()
    unread = {}
    for name, text in (("real", of_real), ("ours", of_ours)):
        warnings, events = warnings_of(report_of(VMSCAN, text)), events_of(text)
        failed = {
            line.split()[4]: n for line, n in warnings.items() if line.startswith("WARNING: Failed to parse")
        }
        for event, n in failed.items():
            assert n == events[event] > 0
        unread[name] = warnings.keys()
    assert unread["real"] == unread["ours"]


@scripts
def test_vmscan_script_counts_what_is_in_our_trace(pressure: TracedRun, toy: TracedRun) -> None:
    for done in (pressure, toy):
        report = report_of(VMSCAN, done.trace.read_text())
        summary = dict(
            re.fullmatch(r"(.*?):\s*(\S*)(?: seconds)?\s*", line).groups()  # type: ignore[union-attr]
            for line in report[report.index("Summary") + 1 :]
            if line
        )
        expected = vmscan_summary(done.lines)
        assert {name: value for name, value in summary.items() if float(value or 0)} == {
            name: value for name, value in expected.items() if float(value)
        }
        assert float(summary["Direct reclaims"]) > 0
        assert float(summary["Kswapd pages reclaimed"]) > 0
        assert kswapd_row(report) == expected_kswapd_row(done.lines)


def vmscan_summary(lines: list[Line]) -> dict[str, str]:
    """The script's totals, counted anew: of tasks that entered direct reclaim, and of kswapd."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    began: dict[str, int] = {}
    usecs: dict[str, int] = Counter()
    for line in lines:
        mine, event = counts[line.task], line.event.removeprefix("mm_vmscan_")
        mine[event] += 1
        if event == "lru_shrink_inactive":
            kind = "file" if "RECLAIM_WB_FILE" in line.text else "anon"
            mine["reclaimed"] += line.figure("nr_reclaimed")
            mine[f"{kind} reclaimed"] += line.figure("nr_reclaimed")
        elif event == "direct_reclaim_begin" or (event == "kswapd_wake" and line.task not in began):
            began[line.task] = line.time
        elif event in ("direct_reclaim_end", "kswapd_sleep"):
            usecs[line.task] += line.time - began.pop(line.task, line.time)
    direct = [task for task, mine in counts.items() if mine["direct_reclaim_begin"]]
    kswapd = [task for task, mine in counts.items() if mine["kswapd_wake"]]

    def of(tasks: list[str], what: str) -> str:
        return str(sum(counts[task][what] for task in tasks))

    return {
        "Direct reclaims": of(direct, "direct_reclaim_begin"),
        "Direct reclaim pages reclaimed": of(direct, "reclaimed"),
        "Direct reclaim file pages reclaimed": of(direct, "file reclaimed"),
        "Direct reclaim anon pages reclaimed": of(direct, "anon reclaimed"),
        "Wake kswapd requests": of(direct, "wakeup_kswapd"),
        "Time stalled direct reclaim": f"{sum(usecs[task] for task in direct) / 1e6:.2f}",
        "Kswapd wakeups": str(sum(wake for wake, _ in kswapd_wakes(lines).values())),
        "Kswapd pages reclaimed": of(kswapd, "reclaimed"),
        "Kswapd file pages reclaimed": of(kswapd, "file reclaimed"),
        "Kswapd anon pages reclaimed": of(kswapd, "anon reclaimed"),
        "Time kswapd awake": f"{sum(usecs[task] for task in kswapd) / 1e6:.2f}",
    }


def kswapd_wakes(lines: list[Line]) -> dict[int, tuple[int, int]]:
    """By order: passes after a sleep, and passes that followed another."""
    awake = False
    wakes: dict[int, tuple[int, int]] = {}
    for line in lines:
        if line.event == "mm_vmscan_kswapd_wake":
            first, again = wakes.get(line.figure("order"), (0, 0))
            wakes[line.figure("order")] = (first + (not awake), again + awake)
            awake = True
        elif line.event == "mm_vmscan_kswapd_sleep":
            awake = False
    return wakes


def kswapd_row(report: list[str]) -> tuple[str, list[str]]:
    """Task, its passes after sleeps and after others, and the orders of both."""
    at = next(i for i, line in enumerate(report) if line.startswith("Instance"))
    task, first, again, *rest = report[at + 1].split()
    return task, [first, again, *(word for word in rest if "wake-" in word)]


def expected_kswapd_row(lines: list[Line]) -> tuple[str, list[str]]:
    wakes = sorted(kswapd_wakes(lines).items())
    first = [f"wake-{order}={n}" for order, (n, _) in wakes if n]
    again = [f"rewake-{order}={n}" for order, (_, n) in wakes if n]
    totals = [str(sum(each[at] for _, each in wakes)) for at in (0, 1)]
    (task,) = {line.task for line in lines if line.event == "mm_vmscan_kswapd_wake"}
    return task, totals + first + again


#: Of no capture are there kmem events as text; this line is put together from TP_printk().
EXTFRAG = (
    "            init-1       [000]      4.052990: mm_page_alloc_extfrag: page=000000001b2c3d4e pfn=0x1c00 alloc_order=0 "
    "fallback_order=9 pageblock_order=9 alloc_migratetype=0 fallback_migratetype=1 fragmenting=0 change_ownership=1\n"
)


@scripts
def test_pagealloc_script_reads_no_line_with_flags_real_or_ours(pressure: TracedRun) -> None:
    of_real = report_of(PAGEALLOC, real_lines("compact", "gpu", "lru", "shrink"))
    assert len(of_real) == 4  # the heads of its columns
    assert [line.split() for line in report_of(PAGEALLOC, pressure.trace.read_text())] == [
        line.split() for line in of_real
    ]


@scripts
def test_pagealloc_script_counts_what_is_in_our_trace(toy: TracedRun) -> None:
    real = without_flags(real_lines("compact", "gpu", "lru", "shrink")) + EXTFRAG
    of_real, of_ours = report_of(PAGEALLOC, real), report_of(PAGEALLOC, toy.trace.read_text())
    assert warnings_of(of_real).keys() == warnings_of(of_ours).keys()
    extfrag = sum(line.event == "mm_page_alloc_extfrag" for line in toy.lines)
    assert list(warnings_of(of_ours).values()) == [extfrag]
    rows = pagealloc_rows(of_ours)
    assert rows == expected_pagealloc_rows(toy.lines)
    assert (
        sum(row[0] for row in rows.values()) == sum(line.event == "mm_page_alloc" for line in toy.lines) > 0
    )
    assert pagealloc_rows(of_real)["kswapd0-36"][-1] > 0  # it read the real lines too


def pagealloc_rows(report: list[str]) -> dict[str, list[int]]:
    """Figures by task."""
    rows = [re.fullmatch(r"(\S+)((?: +\d+){13}) *", line) for line in report]
    return {row[1]: [int(word) for word in row[2].split()] for row in rows if row}


def expected_pagealloc_rows(lines: list[Line]) -> dict[str, list[int]]:
    """The script's table, counted anew: a run of drains or refills, other events between, is one drain or refill."""
    columns = (
        "mm_page_alloc",
        "mm_page_alloc_zone_locked",
        "mm_page_free",
        "mm_page_free_batched",
        "mm_page_pcpu_drain",
    )
    by_task: dict[str, list[str]] = defaultdict(list)
    for line in lines:
        # Fallbacks are lost on it: it cannot read a pfn that starts with 0x.
        if line.event != "mm_page_alloc_extfrag":
            by_task[line.task].append(line.event)
        else:
            by_task[line.task] += []
    rows = {}
    for task, events in by_task.items():
        counts = Counter(events)
        runs = Counter(event for at, event in enumerate(events) if at == 0 or events[at - 1] != event)
        unknown = sum(n for event, n in counts.items() if event not in columns)
        drains, refills = runs["mm_page_pcpu_drain"], runs["mm_page_alloc_zone_locked"]
        rows[task] = [*(counts[column] for column in columns), drains, refills, 0, 0, 0, 0, 0, unknown]
    return rows
