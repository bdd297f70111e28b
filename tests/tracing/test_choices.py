"""``--events`` and ``--trace-options``: what is meant by a word, and what is said of one that means nothing."""

from __future__ import annotations

import pytest

from mmfw.errors import InputError
from mmfw.tracing.events import TRACEPOINTS, choose_events
from mmfw.tracing.options import TraceOptions, choose_options


def names(text: str | None) -> list[str]:
    return [each.name for each in choose_events(text)]


def of(*systems: str) -> list[str]:
    return [each.name for each in TRACEPOINTS if each.system in systems]


def test_all_but_single_pages_by_default() -> None:
    assert names(None) == of("vmscan", "compaction", "oom")
    assert len(of("kmem")) >= 5


@pytest.mark.parametrize(
    ("text", "systems"),
    [
        ("compaction,vmscan", ("vmscan", "compaction")),
        (" kmem , oom ", ("kmem", "oom")),
        ("kmem:*", ("kmem",)),
        ("kmem/", ("kmem",)),
        ("kmem/*,kmem", ("kmem",)),
        ("*", ("vmscan", "compaction", "oom", "kmem")),
        ("*:*", ("vmscan", "compaction", "oom", "kmem")),
        ("[kv]*:mm_*", ("vmscan", "kmem")),
    ],
)
def test_systems(text: str, systems: tuple[str, ...]) -> None:
    assert names(text) == of(*systems)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mark_victim", ["mark_victim"]),
        ("oom/mark_victim", ["mark_victim"]),
        ("oom:mark_victim,oom:mark_victim", ["mark_victim"]),
        (
            "mm_vmscan_kswapd_wake,vmscan:mm_vmscan_kswapd_sleep",
            ["mm_vmscan_kswapd_sleep", "mm_vmscan_kswapd_wake"],
        ),
        ("mm_*_kswapd_*", ["mm_vmscan_kswapd_sleep", "mm_vmscan_kswapd_wake"]),
        ("*:mm_page_free", ["mm_page_free"]),
        ("mm_page_free,mm_vmscan_throttled", ["mm_vmscan_throttled", "mm_page_free"]),
    ],
)
def test_single_events_in_the_order_of_the_table(text: str, expected: list[str]) -> None:
    assert names(text) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("vmscna", "no event or system 'vmscna' is traced; did you mean 'vmscan'?"),
        ("kswapd_sleeps", "no event or system 'kswapd_sleeps' is traced; did you mean"),
        ("mark_victms", "no event or system 'mark_victms' is traced; did you mean 'mark_victim'?"),
        ("vmscan,kmem/mm_page_fre", "no event or system 'kmem/mm_page_fre' is traced; did you mean 'kmem/mm_page_free'?"),
        ("kmem:mm_page_fre", "no event or system 'kmem:mm_page_fre' is traced; did you mean 'kmem/mm_page_free'?"),
        ("vmscan:mm_page_free", "no event or system 'vmscan:mm_page_free' is traced; did you mean"),
        ("sched", "no event or system 'sched' is traced; known systems: compaction, kmem, oom, vmscan"),
        ("", "an empty name; write systems or events with commas between, such as vmscan,compaction"),
        ("vmscan,,kmem", "an empty name;"),
        ("vmscan,", "an empty name;"),
        (":", "no event or system ':' is traced;"),
        ("vmscan kmem", "no event or system 'vmscan kmem' is traced;"),
        ("x*", "no event or system 'x*' is traced;"),
        ("é\x00", "no event or system 'é\\x00' is traced;"),
    ],
)  # fmt: skip
def test_a_word_that_means_nothing(text: str, said: str) -> None:
    with pytest.raises(InputError) as fault:
        choose_events(text)
    assert str(fault.value).startswith(f"--events {text!r}: {said}")
    assert "\n" not in str(fault.value)


@pytest.mark.parametrize(
    ("text", "irq_info"),
    [(None, True), ("irq-info", True), ("noirq-info", False), ("noirq-info, irq-info", True)],
)
def test_options(text: str | None, irq_info: bool) -> None:
    assert choose_options(text) == TraceOptions(irq_info=irq_info)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("noirqinfo", "no option 'noirqinfo'; did you mean 'noirq-info'?"),
        ("", "no option ''; known: irq-info, noirq-info"),
        ("record-tgid", "no option 'record-tgid'; known: irq-info, noirq-info"),
    ],
)
def test_an_option_that_there_is_not(text: str, said: str) -> None:
    with pytest.raises(InputError) as fault:
        choose_options(text)
    assert str(fault.value) == f"--trace-options {text!r}: {said}"
