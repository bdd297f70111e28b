"""Damaged traces: an error or a difference that names file and line, and never anything else."""

from __future__ import annotations

import gzip
import json
import tempfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmfw.errors import InputError
from mmfw.replay.engine import replay_file

TRACE = Path(__file__).parent / "data" / "traces" / "256M-s1-t2.jsonl.gz"
PACKED = TRACE.read_bytes()
PLAIN = gzip.decompress(PACKED)
LINES = PLAIN.splitlines(keepends=True)
#: The header and the check line carry a few figures for people, such as the seed; nothing depends on them.
FREE_TEXT = (1, len(LINES))


def outcome(data: bytes) -> tuple[str, int]:
    """ "error", "differs" or "matches", and the line named (0: none to name)."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "damaged"
        path.write_bytes(data)
        try:
            result = replay_file(path)
        except InputError as error:
            named = (error.file, str(error).partition(": ")[0])
            line = error.line or 0
        else:
            assert result.passed == (result.first_mismatch is None)
            return (
                ("matches", 0) if result.first_mismatch is None else ("differs", result.first_mismatch.line)
            )
    assert named == (str(path), f"{path}:{line}")
    return "error", line


def test_undamaged_trace_matches_gzipped_or_plain() -> None:
    assert outcome(PACKED) == outcome(PLAIN) == ("matches", 0)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, len(PLAIN) - 1))
def test_plain_trace_cut_anywhere(length: int) -> None:
    kind, line = outcome(PLAIN[:length])
    assert kind == "error"
    assert line == max(1, PLAIN[:length].count(b"\n") + (PLAIN[length - 1 : length] not in (b"\n", b"")))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, len(PACKED) - 1))
def test_gzipped_trace_cut_anywhere(length: int) -> None:
    kind, line = outcome(PACKED[:length])
    assert kind == "error"
    assert 1 <= line <= len(LINES)


def another_class(before: bytes, after: bytes) -> bool:
    """Whether an allocation only asks by another class: two classes may well get the same page."""
    a, b = json.loads(before), json.loads(after)
    return a[0] == b[0] == "a" and a[2] != b[2] and a[:2] + a[3:] == b[:2] + b[3:]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.integers(0, len(PLAIN) - 1), st.integers(0, 7))
def test_plain_trace_with_a_flipped_bit(at: int, bit: int) -> None:
    data = bytearray(PLAIN)
    data[at] ^= 1 << bit
    flipped = PLAIN.count(b"\n", 0, at) + 1
    kind, line = outcome(bytes(data))
    if kind == "matches":
        assert flipped in FREE_TEXT or another_class(
            LINES[flipped - 1], bytes(data).splitlines()[flipped - 1]
        )
    else:
        assert kind in ("error", "differs")
        assert line >= flipped


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, len(PACKED) - 1), st.integers(0, 7))
def test_gzipped_trace_with_a_flipped_bit(at: int, bit: int) -> None:
    data = bytearray(PACKED)
    data[at] ^= 1 << bit
    kind, _ = outcome(bytes(data))
    if kind == "matches":
        # gzip's own header has a time and an operating system.
        assert gzip.decompress(bytes(data)) == PLAIN


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, len(LINES) - 1))
def test_trace_without_one_line(at: int) -> None:
    kind, line = outcome(b"".join(LINES[:at] + LINES[at + 1 :]))
    # Lines without which the trace is whole, only shorter: the state on the way.
    assert kind in ("error", "differs") or LINES[at].startswith(b'{"state":1,')
    assert kind == "matches" or line >= at


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, len(LINES) - 1))
def test_trace_with_one_line_twice(at: int) -> None:
    kind, line = outcome(b"".join(LINES[: at + 1] + LINES[at:]))
    if kind == "matches":
        assert b'"state"' in LINES[at]
    else:
        assert kind in ("error", "differs")
        assert line > at + 1


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, len(LINES) - 2))
def test_trace_with_two_lines_swapped(at: int) -> None:
    kind, line = outcome(b"".join([*LINES[:at], LINES[at + 1], LINES[at], *LINES[at + 2 :]]))
    if kind == "matches":
        # What commutes: two frees, and a free with an allocation that it does not serve.
        assert LINES[at] == LINES[at + 1] or b"f" in LINES[at][:3] + LINES[at + 1][:3]
    else:
        assert kind in ("error", "differs")
        assert line >= at + 1


@pytest.mark.parametrize(
    ("line", "text", "message"),
    [
        (1, "{}", "the first line must be the header object, with 'mode', 'verbose' and 'gfp_classes'"),
        (3, '["a",0,99,0,1]', "'a': class is 99; 0 to 10 is possible"),
        (3, '["a",0,0,1,1]', "class K asks for migratetype 0, not 1"),
        (3, '["q"]', "unknown line 'q'; operations are 'a', 'f', 'd', events 'x', 'z', 'p', 'w'"),
        (3, '["f",0]', "'f' takes 2 numbers (order, pfn), not 1"),
        (3, "nonsense", "not JSON: Expecting value: line 1 column 1 (char 0)"),
        (3, "[" * 100000, "not JSON: nested too deeply"),
        (3, '["f",0,NaN]', "not JSON: NaN is not a number"),
        (3, '["f",0,1e400]', "'f': pfn must be a whole number, not inf"),
        (2, '{"state":0,"totalreserve_pages":1,"zones":[{}]}', "zones[0]: has no key 'zone'"),
        (
            2,
            '{"state":0,"totalreserve_pages":"1","zones":[]}',
            "totalreserve_pages: is a text; it should be an integer",
        ),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, line: int, text: str, message: str) -> None:
    lines = PLAIN.decode().splitlines()
    lines[line - 1] = text
    path = tmp_path / "wrong.jsonl"
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError) as caught:
        replay_file(path)
    assert str(caught.value) == f"{path}:{line}: {message}"


def peak_bytes(path: Path) -> int:
    tracemalloc.start()
    try:
        assert replay_file(path).passed
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_length_of_a_trace(tmp_path: Path) -> None:
    """Allocating and freeing the page at the head of a per-CPU list leaves the machine as it was."""
    head = json.loads(LINES[0])
    state = next(json.loads(line) for line in LINES if line.startswith(b'{"state":1,')) | {"state": 0}
    zone = next(zone for zone in reversed(state["zones"]) if zone["pcp"]["lists"][0])
    page = zone["pcp"]["lists"][0][0][0]
    zone["pcp"]["free_factor"] = 0
    peaks = []
    for pairs in (9_000, 30_000):
        path = tmp_path / f"{pairs}.jsonl"
        with path.open("w") as out:
            out.write(json.dumps(head) + "\n" + json.dumps(state) + "\n")
            for _ in range(pairs):
                out.write(f'["a",0,0,0,{page}]\n["f",0,{page}]\n')
            out.write(json.dumps(state | {"state": 100}) + "\n")
            counts = {"ops": 2 * pairs, "allocs_ok": pairs, "allocs_failed": 0, "frees": pairs, "overflow": 0}
            out.write(json.dumps({"check": counts}) + "\n")
        peaks.append(peak_bytes(path))
    assert peaks[1] < 1.1 * peaks[0]
