"""ftrace's text: what is read prints back as it was; what is no trace names file and line."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmfw.errors import InputError
from mmfw.proc.compaction_trace import COMPACTION_EVENTS
from mmfw.proc.ftrace import FtraceReader, format_ftrace_line, parse_ftrace_line
from mmfw.proc.tracebody import Body, Text, format_body, parse_body
from mmfw.proc.vmscan_trace import (
    VMSCAN_EVENTS,
    LruShrinkInactive,
    ProbeCount,
    ShrinkSlabEnd,
    ShrinkSlabStart,
    Throttled,
    WakeupKswapd,
)

EXCERPTS = Path(__file__).parents[1] / "data" / "trace"
TRACES = sorted((Path(__file__).parents[1] / "data" / "shrink").glob("*/shrink.trace.gz"))
START = (
    "         kswapd0-36      [000] .....     4.052990: mm_shrink_slab_start: probe_scan_2+0x0/0x10 [probe] "
    "00000000b40a5140: nid: 0 objects to shrink 7 gfp_flags GFP_KERNEL cache items 5000 delta 2500 "
    "total_scan 2500 priority 12"
)
HEADER = "# tracer: nop\n# entries-in-buffer/entries-written: {}/{}   #P:1\n"


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.parent.name)
def test_real_lines_print_back_as_they_were(path: Path) -> None:
    with gzip.open(path, "rt") as stream:
        texts = stream.read().splitlines()
    lines = list(FtraceReader(path))
    assert [format_ftrace_line(line) for line in lines] == [text for text in texts if text[0] != "#"]
    assert [texts[line.number - 1].split(": ", 2)[1] for line in lines] == [line.event for line in lines]
    assert {line.event for line in lines if isinstance(line.body, Text)} <= {"probe_write"}


@pytest.mark.parametrize("name", ["compact", "gpu", "lru", "shrink"])
def test_excerpts_of_real_captures_print_back_as_they_were(name: str) -> None:
    texts = (EXCERPTS / f"{name}.txt").read_text().splitlines()
    lines = [parse_ftrace_line(text) for text in texts]
    assert [format_ftrace_line(line) for line in lines] == texts
    typed = {line.event for line in lines if not isinstance(line.body, Text) and line.event.startswith("mm_")}
    assert typed == set(re.findall(r": (mm_\w+): ", "\n".join(texts)))
    assert len(typed) >= 4


def test_the_excerpts_hold_every_event_that_was_captured() -> None:
    texts = "".join((EXCERPTS / f"{name}.txt").read_text() for name in ("compact", "gpu", "lru", "shrink"))
    events = set(re.findall(r": (mm_\w+): ", texts))
    assert {cls.event for cls in COMPACTION_EVENTS} <= events
    assert {"mm_vmscan_lru_isolate", "mm_vmscan_lru_shrink_inactive", "mm_shrink_slab_end"} <= events


def test_a_line_without_irq_info() -> None:
    text = "         kswapd0-36      [000]      4.052990: mm_vmscan_kswapd_sleep: nid=0"
    line = parse_ftrace_line(text)
    assert (line.comm, line.pid, line.cpu, line.flags, line.usecs) == ("kswapd0", 36, 0, "", 4052990)
    assert format_ftrace_line(line) == text
    late = text.replace("     4.052990", " 123456789.052990")
    assert parse_ftrace_line(late).usecs == 123456789052990
    assert format_ftrace_line(parse_ftrace_line(late)) == late


@pytest.mark.parametrize("mask", [0, 0xCC0])
def test_a_bare_mask_is_printed_without_a_prefix_if_it_is_0(mask: int) -> None:
    text = (
        f"probe: count a ret=1 gfp={mask:#x} nid=0 comm=x"
        if mask
        else "probe: count a ret=1 gfp=0 nid=0 comm=x"
    )
    assert format_body(parse_body(ProbeCount, text)) == text


def test_fields_of_a_start() -> None:
    line = parse_ftrace_line(START, number=9)
    assert (line.comm, line.pid, line.cpu, line.flags, line.usecs) == ("kswapd0", 36, 0, ".....", 4052990)
    assert line.body == ShrinkSlabStart(
        "probe_scan_2+0x0/0x10 [probe]", "00000000b40a5140", 0, 7, 0xCC0, 5000, 2500, 2500, 12
    )
    assert line.number == 9


def test_negative_figures_and_masks() -> None:
    text = (
        "super_cache_scan+0x0/0x1f0 0000000094cd99e8: nid: 0 unused scan count 3 new scan count 0 "
        "total_scan -343 last shrinker return val -2"
    )
    assert parse_body(ShrinkSlabEnd, text) == ShrinkSlabEnd(
        "super_cache_scan+0x0/0x1f0", "0000000094cd99e8", 0, 3, 0, -343, -2
    )
    wake = parse_body(WakeupKswapd, "nid=0 order=9 gfp_flags=GFP_HIGHUSER|__GFP_NOWARN|__GFP_NORETRY")
    assert wake == WakeupKswapd(0, 9, 0x112CC2)
    assert parse_body(WakeupKswapd, "nid=0 order=0 gfp_flags=none") == WakeupKswapd(0, 0, 0)


def test_comm_may_hold_blanks_and_dashes() -> None:
    line = parse_ftrace_line(" Web Content-2-7 [011] d..1.    12.000001: mm_vmscan_kswapd_sleep: nid=0")
    assert (line.comm, line.pid, line.cpu, line.usecs) == ("Web Content-2", 7, 11, 12000001)
    body = ProbeCount("a", 1, 0xCC0, 0, "Web Content")
    assert parse_body(ProbeCount, format_body(body)) == body


def test_misspelt_key_is_printed_as_the_kernel_prints_it() -> None:
    body = Throttled(0, 100000, 7, "VMSCAN_THROTTLE_NOPROGRESS")
    assert format_body(body) == "nid=0 usec_timeout=100000 usect_delayed=7 reason=VMSCAN_THROTTLE_NOPROGRESS"


def test_event_names_are_the_kernels() -> None:
    assert all(cls.event.startswith(("mm_vmscan_", "mm_shrink_slab_")) for cls in VMSCAN_EVENTS)
    assert len({cls.event for cls in VMSCAN_EVENTS}) == len(VMSCAN_EVENTS)


@given(st.lists(st.integers(-(2**60), 2**60), min_size=12, max_size=12), st.sampled_from(["A|B", "X"]))
def test_any_figures_round_trip(numbers: list[int], flags: str) -> None:
    body: Body = LruShrinkInactive(*numbers, flags)
    assert parse_body(LruShrinkInactive, format_body(body)) == body


@given(st.text(st.characters(codec="ascii", exclude_characters="\n"), max_size=200))
def test_any_text_is_a_line_or_an_error_of_its_line(text: str) -> None:
    try:
        line = parse_ftrace_line(text, "t", 5)
    except InputError as error:
        said = str(error)
    else:
        said = f"t:5: {line.event}"
    assert said.startswith("t:5: ")


@given(st.integers(0, len(START) - 1), st.characters(min_codepoint=32, max_codepoint=126))
def test_altered_line_is_read_as_altered_or_refused(at: int, char: str) -> None:
    text = START[:at] + char + START[at + 1 :]
    try:
        line = parse_ftrace_line(text)
    except InputError:
        return
    assert format_ftrace_line(line).split() == text.split() or char in "0123456789_" or at < 40


def read(tmp_path: Path, text: str) -> str:
    path = tmp_path / "t"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        list(FtraceReader(path))
    return str(caught.value).removeprefix(f"{path}:")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "1: the trace has no header '# entries-in-buffer/entries-written: N/N'"),
        (START + "\n", "1: a line before ftrace's header '# entries-in-buffer/entries-written: N/N'"),
        (HEADER.format(2, 2) + START + "\n", "3: the header promises 2 lines, the file has 1"),
        (HEADER.format(1, 1) + START, "3: the file ends inside this line; it was cut short"),
        (
            HEADER.format(1, 1) + "CPU:0 [LOST 12 EVENTS]\n",
            "3: the ring buffer lost events here, so the trace is not whole",
        ),
        (
            HEADER.format(1, 1) + START.replace("GFP_KERNEL", "GFP_KERMEL") + "\n",
            "3: mm_shrink_slab_start: 'GFP_KERMEL' is not a gfp flag",
        ),
        (
            HEADER.format(1, 1)
            + "        a-1       [000] .....     1.000000: mm_vmscan_kswapd_sleep: nid=x\n",
            "3: mm_vmscan_kswapd_sleep: 'nid=x' is not of the form 'nid={nid}'",
        ),
        (
            HEADER.format(2, 1),
            "2: should be '# entries-in-buffer/entries-written: N/M   #P:CPUS' with N <= M",
        ),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    assert read(tmp_path, text) == message


def test_wrapped_buffer_is_told_by_the_header(tmp_path: Path) -> None:
    path = tmp_path / "t"
    for written, wrapped in ((1, False), (2, True)):
        path.write_text(HEADER.format(1, written) + START + "\n")
        reader = FtraceReader(path)
        assert (len(list(reader)), reader.wrapped) == (1, wrapped)
