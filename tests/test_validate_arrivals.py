"""When captured requests began, read off a trace: the requester's first event since its last line, or that line."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from mmfw.errors import InputError
from mmfw.validate.arrivals import request_starts, restore_starts

DATA = Path(__file__).parent / "data" / "compact" / "512M-u8-o9"
LINES = """\
# entries-in-buffer/entries-written: 9/9   #P:1
     kcompactd0-28      [000] .....     5.000000: mm_compaction_begin: zone_start=0x1
           init-1       [000] .....     5.000100: probe_write: probe: req {first} mask=THP order=9 pfn=512
     kcompactd0-28      [000] .....     5.000150: mm_compaction_end: zone_start=0x1
             sh-12      [000] .....     5.000160: mm_vmscan_wakeup_kswapd: nid=0 order=0
           init-1       [000] .....     5.000400: mm_vmscan_wakeup_kswapd: nid=0 order=9
           init-1       [000] .N...     5.003000: mm_vmscan_direct_reclaim_begin: order=9
           init-1       [000] .....     5.004321: probe_write: probe: req {second} mask=THP order=9 pfn=-1
           init-1       [000] .....     6.000000: probe_write: probe: req {third} mask=THP order=9 pfn=1024
           init-1       [000] .....     6.000500: probe_write: probe: req done
"""


def trace(tmp_path: Path, first: int = 0) -> Path:
    path = tmp_path / "THP.trace.gz"
    path.write_text(LINES.format(first=first, second=first + 1, third=first + 2))
    return path


def test_a_request_begins_with_its_tasks_first_event_and_one_without_events_when_it_is_over(
    tmp_path: Path,
) -> None:
    assert request_starts(trace(tmp_path)) == {0: 5_000_100_000, 1: 5_000_400_000, 2: 6_000_000_000}


def test_what_the_ring_buffer_lost_is_missing(tmp_path: Path) -> None:
    assert request_starts(trace(tmp_path, first=40)) == {
        40: 5_000_100_000,
        41: 5_000_400_000,
        42: 6_000_000_000,
    }


def test_a_trace_without_requests_is_none(tmp_path: Path) -> None:
    path = tmp_path / "KERNEL.trace.gz"
    path.write_text("# nothing\n")
    with pytest.raises(InputError, match="has no request"):
        request_starts(path)
    with pytest.raises(InputError, match="is missing"):
        request_starts(tmp_path / "TTM.trace.gz")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("6.000000", "4.000000", r"'probe: req 2' began at 4\.000000 s, the one before it at 5\.000400 s"),
        ("6.000000", "999999999.000000", "'probe: req 2' began at 999999999"),
        ("req {second}", "req 7", "request 2 after request 7"),
        ("req {third}", "req {second}", "request 1 after request 1"),
        (
            "init-1       [000] .....     6.0",
            "init-2       [000] .....     6.0",
            "task 2 reports 'probe: req 2'",
        ),
        ("6.000000:", "6.0000000:", "a line of the load whose time cannot be read"),
        (
            "init-1       [000] .....     6.0",
            "init-1    (1) [000] .....     6.0",
            "a line of the load whose time cannot be read",
        ),
    ],
)
def test_times_that_no_load_can_have(tmp_path: Path, old: str, new: str, says: str) -> None:
    path = tmp_path / "THP.trace.gz"
    path.write_text(LINES.replace(old, new).format(first=0, second=1, third=2))
    with pytest.raises(InputError, match=says) as found:
        request_starts(path)
    assert (found.value.file, found.value.line) == (str(path), 9)


def test_the_first_request_begins_with_its_tasks_first_event(tmp_path: Path) -> None:
    path = tmp_path / "THP.trace.gz"
    early = "           init-1       [000] .....     5.000050: mm_compaction_begin: zone_start=0x1\n"
    path.write_text(early + LINES.format(first=0, second=1, third=2))
    assert request_starts(path) == {0: 5_000_050_000, 1: 5_000_400_000, 2: 6_000_000_000}


def test_a_long_line_takes_no_longer_than_its_length(tmp_path: Path) -> None:
    """Of a quadratic search 35,000 repetitions would take minutes."""
    path = tmp_path / "THP.trace.gz"
    path.write_text(LINES.format(first=0, second=1, third=2) + "a" + "-1 [000] " * 35_000 + "\n")
    assert len(request_starts(path)) == 3


def restores(tmp_path: Path, numbers: list[int]) -> Path:
    """A loop of one step a millisecond, each restore begun 100 us before it is reported."""
    path = tmp_path / "gpu.trace.gz"
    lines = []
    for step, number in enumerate(numbers):
        at = 7_000_000 + 1000 * step
        context = "           init-1       [000] .....     {}.{:06d}: "
        lines += [
            context.format(*divmod(at, 10**6)) + "mm_vmscan_wakeup_kswapd: nid=0 order=9",
            context.format(*divmod(at + 100, 10**6))
            + f"probe_write: probe: gpu_restore bo={number} pages=512 o9=1",
        ]
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


@pytest.mark.parametrize(
    ("numbers", "known"),
    [
        ([0, 1, 2, 0, 1, 2, 0], 7),
        ([0, 1, 2, 0, 2, 0], 4),  # object 1 was there when its turn came
        ([0, 1, 2, 3], 4),
        ([1, 2, 0], 0),
        ([3, 1, 4, 1, 5], 0),  # at random
        ([], 0),
    ],
)
def test_steps_are_known_as_long_as_each_restores_its_object_in_turn(
    tmp_path: Path, numbers: list[int], known: int
) -> None:
    assert restore_starts(restores(tmp_path, numbers)) == {
        step: 7_000_000_000 + step * 1_000_000 for step in range(known)
    }


def test_a_real_trace_has_them_all_in_order() -> None:
    starts = request_starts(DATA / "KERNEL.trace.gz")
    assert list(starts) == list(range(120))
    times = list(starts.values())
    assert times == sorted(times)
    # 200 us of sleep and the work around it.
    assert min(b - a for a, b in pairwise(times)) > 200_000
    # No request of which the module told the end began later than that: the last at 9.788198 s, the first at 9.724710.
    assert (times[0], times[-1]) == (9_724_710_000, pytest.approx(9_788_198_000, abs=1_000_000))
    assert times[-1] <= 9_788_198_000
