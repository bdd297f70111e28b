"""Lines stand where they belong: after what came before, with the task, the CPU and the time of what they say."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mmfw import gfp
from mmfw.gfp import GFP_KERNEL
from mmfw.jit import page as pg
from mmfw.mm.core import Mm
from mmfw.mm.trace import MarkVictim, MmVmscanKswapdSleep, MmVmscanLruIsolate
from mmfw.proc.ftrace import FtraceLine, parse_ftrace_line
from mmfw.proc.kmem_trace import PageAlloc, PageFree
from mmfw.sched import WaitQueue
from mmfw.testing import make_mm
from mmfw.tracing.events import choose_events
from mmfw.tracing.options import TraceOptions
from mmfw.tracing.recorder import Recorder

MS = 1_000_000


class Traced:
    """A machine of which events are recorded from now on."""

    def __init__(self, mm: Mm, events: str, options: TraceOptions = TraceOptions()) -> None:  # noqa: B008
        self.mm = mm
        self.texts: list[str] = []
        self.recorder = Recorder(mm, choose_events(events), self.texts.append, options)
        self.recorder.start()

    def run(self, fn: Callable[[], object], until: int = 10 * MS, name: str = "test") -> list[FtraceLine]:
        """Lines of a task and of what it causes."""
        self.mm.sched.spawn(fn, name=name)
        self.mm.sched.run(until)
        self.recorder.stop()
        return self.lines()

    def lines(self) -> list[FtraceLine]:
        assert all(text.endswith("\n") for text in self.texts)
        return [parse_ftrace_line(text[:-1]) for text in self.texts]


@pytest.fixture
def mm() -> Mm:
    return make_mm("256M", start=True)


def test_rows_stand_before_and_after_the_event_between_them(mm: Mm) -> None:
    pfns = []
    times = []

    def body() -> None:
        mm.sched.charge(1_234_600 - mm.sched.now)
        times.append(mm.sched.now)
        pfns.append(mm.alloc_pages(GFP_KERNEL, 4))
        mm.trace.emit(MmVmscanKswapdSleep(0))
        mm.free_pages(pfns[0], 4)

    lines = Traced(mm, "mm_page_alloc,mm_page_free,mm_vmscan_kswapd_sleep,mm_page_alloc_zone_locked").run(
        body
    )
    assert [line.event for line in lines] == [
        "mm_page_alloc_zone_locked",
        "mm_page_alloc",
        "mm_vmscan_kswapd_sleep",
        "mm_page_free",
    ]
    assert {(line.comm, line.cpu) for line in lines} == {("test", 0)}
    assert [line.flags for line in lines] == ["d..1.", ".....", ".....", "....."]
    assert times[0] % 1000 >= 500  # so that rounding, which trace_print_time() does, is seen
    assert [line.usecs for line in lines[:2]] == [times[0] // 1000 + 1] * 2
    assert lines[1].usecs <= lines[2].usecs <= lines[3].usecs
    freed = lines[3].body
    assert isinstance(freed, PageFree)
    assert (freed.hex_pfn, freed.order) == (pfns[0], 4)


def test_rows_stand_before_an_event_even_if_no_time_passed_between(mm: Mm) -> None:
    mm.stop_time()  # nothing is charged, so nothing but the event makes the rows be read

    def body() -> None:
        pfn = mm.alloc_pages(gfp.GFP_ATOMIC, 0)
        mm.trace.emit(MmVmscanKswapdSleep(0))
        mm.free_pages(pfn, 0)

    lines = Traced(mm, "mm_page_alloc,mm_page_free,mm_vmscan_kswapd_sleep").run(body)
    assert [line.event for line in lines] == ["mm_page_alloc", "mm_vmscan_kswapd_sleep", "mm_page_free"]


def test_every_row_shows_the_task_that_caused_it_and_when() -> None:
    """Six tasks share two CPUs; what each did is noted apart from the trace."""
    mm = make_mm("256M", nr_cpus=2, start=True)
    traced = Traced(mm, "mm_page_alloc,mm_page_free")
    noted: list[tuple[str, int, int, int, str, int]] = []

    def body(number: int) -> Callable[[], None]:
        def churn() -> None:
            sched, held = mm.sched, []
            for step in range(40):
                here = sched.current.comm, sched.current.pid, sched.current_cpu, (sched.now + 500) // 1000
                if step % 3 < 2:
                    held.append(mm.alloc_pages(gfp.GFP_ATOMIC, 0))
                    noted.append((*here, "mm_page_alloc", held[-1]))
                else:
                    noted.append((*here, "mm_page_free", held[0]))
                    mm.free_pages(held.pop(0), 0)
                if step % 5 == number % 5:
                    sched.sleep(1000 * (number + 1))
                else:
                    sched.charge(100_000 * (number + 1))

        return churn

    for number in range(6):
        mm.sched.spawn(body(number), name=f"churn-{number}")
    mm.sched.run(200 * MS)
    traced.recorder.stop()
    lines = traced.lines()
    found = []
    for line in lines:
        assert isinstance(line.body, PageAlloc | PageFree)
        found.append((line.comm, line.pid, line.cpu, line.usecs, line.event, line.body.hex_pfn))
    assert sorted(found) == sorted(noted)
    assert len(found) == 6 * 40
    assert {cpu for _, _, cpu, *_ in found} == {0, 1}
    for pid in {pid for _, pid, *_ in found}:
        assert [each for each in found if each[1] == pid] == [each for each in noted if each[1] == pid]
    times = [line.usecs for line in lines]
    assert times == sorted(times)


def test_rows_left_when_a_task_sleeps_are_its_own(mm: Mm) -> None:
    """A task that ends or sleeps without charging has its rows written before the next one runs."""
    mm.stop_time()  # allocations charge nothing now
    order = []

    def other() -> None:
        order.append("other")
        mm.alloc_pages(gfp.GFP_ATOMIC, 1)

    def body() -> None:
        mm.sched.spawn(other, name="other")
        order.append("test")
        mm.alloc_pages(gfp.GFP_ATOMIC, 0)
        mm.sched.sleep(5000)
        mm.alloc_pages(gfp.GFP_ATOMIC, 2)

    lines = Traced(mm, "mm_page_alloc").run(body)
    assert order == ["test", "other"]
    assert [(line.comm, line.body.order) for line in lines if isinstance(line.body, PageAlloc)] == [
        ("test", 0),
        ("other", 1),
        ("test", 2),
    ]


def test_the_flags_tell_need_resched_and_preemption_depth(mm: Mm) -> None:
    sched = mm.sched
    wait = WaitQueue(sched, "test")
    traced = Traced(mm, "mm_vmscan_kswapd_sleep,mm_vmscan_lru_isolate")

    def emit(lru: bool = False) -> None:
        mm.trace.emit(MmVmscanLruIsolate(0, 1, 0, 1, 1, 0, 1, 2) if lru else MmVmscanKswapdSleep(0))

    def body() -> None:
        sched.charge(20 * MS)
        emit()
        wait.wake_up()  # the sleeper's vruntime is far behind
        emit()
        emit(lru=True)
        with sched.preempt_disabled(), sched.preempt_disabled():
            emit()
            emit(lru=True)
        sched.cond_resched()
        emit()

    sched.spawn(wait.wait, name="sleeper")
    lines = traced.run(body, until=50 * MS)
    assert [line.flags for line in lines] == [".....", ".N...", "dN.1.", ".N.2.", "dN.3.", "....."]


def test_a_timer_runs_in_interrupt_context_of_the_idle_task(mm: Mm) -> None:
    traced = Traced(mm, "mm_vmscan_kswapd_sleep")
    mm.sched.call_at(3 * MS, lambda: mm.trace.emit(MmVmscanKswapdSleep(0)))
    lines = traced.run(lambda: None)
    assert [(line.comm, line.pid, line.flags, line.usecs) for line in lines] == [("<idle>", 0, "..s1.", 3000)]


def test_without_irq_info_a_line_has_no_flags(mm: Mm) -> None:
    traced = Traced(mm, "mm_vmscan_kswapd_sleep,mm_page_alloc", TraceOptions(irq_info=False))

    def body() -> None:
        mm.sched.charge(2 * MS - mm.sched.now)
        mm.trace.emit(MmVmscanKswapdSleep(0))

    (line,) = traced.run(body)
    assert traced.texts == [
        f"            test-{line.pid:<7} [000]      0.002000: mm_vmscan_kswapd_sleep: nid=0\n"
    ]
    assert line.flags == ""


def test_a_victims_line_names_it_in_ascii_and_counts_its_mappings(mm: Mm) -> None:
    def body() -> None:
        vma = mm.mmap_anonymous(1000, oom_score_adj=-3)
        vma.touch(0, 600)
        mm.trace.emit(MarkVictim(mm.sched.current.pid))

    (line,) = Traced(mm, "oom").run(body, name="très gros tâche-17")
    assert line.comm == "tr?s gros t?che"
    assert (
        line.body
        == parse_ftrace_line(
            f"a-1 [000] ..... 1.000000: mark_victim: pid={line.pid} comm=tr?s gros t?che total-vm=4000kB anon-rss=2400kB "
            "file-rss:0kB shmem-rss:0kB uid=0 pgtables=8kB oom_score_adj=-3"
        ).body
    )


def test_nothing_before_the_start_and_nothing_after_the_end(mm: Mm) -> None:
    memory = mm.pgdat.memory
    memory.S[pg.S_TRACE_MASK] = 1 << pg.TR_PAGE_ALLOC
    early = mm.alloc_pages(gfp.GFP_ATOMIC, 0)
    traced = Traced(mm, "mm_page_alloc,mm_page_free,mm_vmscan_kswapd_sleep")
    mm.free_pages(early, 0)
    traced.recorder.stop()
    assert [line.event for line in traced.lines()] == ["mm_page_free"]
    late = mm.alloc_pages(gfp.GFP_ATOMIC, 0)
    mm.trace.emit(MmVmscanKswapdSleep(0))
    mm.free_pages(late, 0)
    traced.recorder.flush()
    traced.recorder.stop()
    assert len(traced.texts) == 1
    assert memory.S[pg.S_TRACE_MASK] == 0
    assert memory.S[pg.S_TRACE_N] == 0
    assert memory.trace_sink is None
    assert "charge" not in vars(mm.sched)


def test_typed_events_alone_leave_compiled_loops_and_the_clock_alone(mm: Mm) -> None:
    Traced(mm, "vmscan,oom,mm_compaction_suitable")
    assert mm.pgdat.memory.S[pg.S_TRACE_MASK] == 0
    assert "charge" not in vars(mm.sched)


@pytest.mark.parametrize("chosen", ["mm_page_alloc", "mm_page_free", "mm_page_pcpu_drain"])
def test_only_what_was_chosen_is_recorded(mm: Mm, chosen: str) -> None:
    def body() -> None:
        pfns = mm.alloc_pages_batch(gfp.GFP_ATOMIC, 0, 3000)
        mm.free_pages_batch(pfns, 0)
        mm.trace.emit(MmVmscanKswapdSleep(0))

    lines = Traced(mm, chosen).run(body)
    assert {line.event for line in lines} == {chosen}
    assert len(lines) == 3000 or chosen == "mm_page_pcpu_drain"


def test_more_rows_than_the_buffer_holds_are_all_recorded() -> None:
    mm = make_mm("512M", start=True)
    nr_pages = 70_000  # two rows each: more than the half of the buffer at which a batch stops

    def body() -> None:
        assert len(mm.alloc_pages_batch(gfp.GFP_ATOMIC, 0, nr_pages)) == nr_pages

    traced = Traced(mm, "mm_page_alloc,mm_page_alloc_zone_locked")
    mm.sched.spawn(body, name="test")
    mm.sched.run(100 * MS)
    traced.recorder.stop()
    events = [text.split(": ", 2)[1] for text in traced.texts]
    assert events.count("mm_page_alloc") == nr_pages
    assert events.count("mm_page_alloc_zone_locked") > nr_pages - 1000
    times = [text.split(": ", 1)[0].split()[-1] for text in traced.texts]
    assert times == sorted(times, key=float)


def watched_free_pages(*, traced: bool) -> list[int]:
    """Free pages as a second CPU sees them while a batch of 70000 is allocated."""
    mm = make_mm("512M", nr_cpus=2, start=True)
    if traced:
        Traced(mm, "mm_page_alloc,mm_page_alloc_zone_locked")
    seen = []

    def watch() -> None:
        for _ in range(200):
            seen.append(mm.global_free_pages())
            mm.sched.sleep(100_000)

    mm.sched.spawn(lambda: mm.alloc_pages_batch(gfp.GFP_ATOMIC, 0, 70_000), name="batch", cpu=0)
    mm.sched.spawn(watch, name="watch", cpu=1)
    mm.sched.run(30 * MS)
    return seen


def test_a_batch_that_fills_the_buffer_takes_its_time_at_once() -> None:
    assert watched_free_pages(traced=True) == watched_free_pages(traced=False)


def test_pages_exchanged_for_others_are_allocated_too() -> None:
    mm = make_mm("256M", nr_swap_pages=1000, start=True)

    def body() -> None:
        mm.swap.backup(mm.alloc_pages_batch(gfp.GFP_KERNEL, 0, 100))

    lines = Traced(mm, "mm_page_alloc,mm_page_free").run(body)
    allocated = sum(line.event == "mm_page_alloc" for line in lines)
    counted = mm.vmstat.as_dict()
    assert allocated == sum(n for name, n in counted.items() if name.startswith("pgalloc_"))
