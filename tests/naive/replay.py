"""Replay captured allocator traces through the twin: ``python -m naive.replay FILE...`` from tests/."""

from __future__ import annotations

import gzip
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from naive.buddy import Record
from naive.page_alloc import NaiveMm

#: Mask of each gfp class index of the traces (the module that made them defines them).
GFP_CLASSES = (
    0x20C0,
    0x20D0,
    0x1020CA,
    0x2220,
    0x20C4,
    0x820C0,
    0x820D0,
    0x1820CA,
    0x28C0,
    0x1028CA,
    0x20C1,
)
QUIET_EVENTS = ("x", "w")  # what a trace with verbose 0 holds


@dataclass
class Result:
    """What matched; counters are of operations, events and state records."""

    file: str
    ops: int = 0
    allocs: int = 0
    pfn_matches: int = 0
    events: int = 0
    event_matches: int = 0
    states: int = 0
    state_matches: int = 0
    first_mismatch: str | None = None

    @property
    def ok(self) -> bool:
        return self.first_mismatch is None

    def differs(self, line: int, text: str) -> None:
        if self.first_mismatch is None:
            self.first_mismatch = f"line {line}: {text}"


def differences(ours: Any, theirs: Any, path: str = "") -> Iterator[str]:
    """Places at which two JSON values differ, innermost first."""
    if isinstance(ours, dict) and isinstance(theirs, dict) and ours.keys() == theirs.keys():
        for key in theirs:
            yield from differences(ours[key], theirs[key], f"{path}.{key}")
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            yield from differences(a, b, f"{path}[{i}]")
    elif ours != theirs:
        yield f"{path}: twin {str(ours)[:200]}, other {str(theirs)[:200]}"


def replay(path: Path) -> Result:
    """Replay one trace to its end and count what matched."""
    result = Result(path.name)
    header: Record = {}
    mm: NaiveMm | None = None
    checked = False
    expected: list[list[Any]] = []
    with gzip.open(path, "rt", encoding="ascii") as lines:
        for number, text in enumerate(lines, 1):
            line = json.loads(text)
            if isinstance(line, dict):
                if "format" in line:
                    header = line
                elif "state" in line and mm is None:
                    mm = NaiveMm(line["zones"], header["watermark_boost_factor"])
                elif "state" in line:
                    assert mm is not None
                    result.states += 1
                    where = next(differences(mm.state()["zones"], line["zones"], "zones"), None)
                    result.state_matches += where is None
                    if where is not None:
                        result.differs(number, f"state {line['state']}: {where}")
                elif "check" in line:
                    checked = True
                    if line["check"]["ops"] != result.ops:
                        result.differs(number, f"trace says {line['check']['ops']} ops, read {result.ops}")
                continue
            if line[0] not in "afd":
                expected.append(line)
                continue
            assert mm is not None
            result.ops += 1
            mm.events.clear()
            if line[0] == "a":
                result.allocs += 1
                pfn = mm.alloc(GFP_CLASSES[line[2]], line[1])
                result.pfn_matches += pfn == line[4]
                if pfn != line[4]:
                    result.differs(number, f"{line}: twin returned pfn {pfn}")
            elif line[0] == "f":
                mm.free(line[2], line[1])
            else:
                mm.drain()
            events = mm.events if header["verbose"] else [e for e in mm.events if e[0] in QUIET_EVENTS]
            result.events += len(expected)
            result.event_matches += sum(a == b for a, b in zip(events, expected, strict=False))
            if events != expected:
                result.differs(number, f"{line}: twin's events {events[:4]}, trace's {expected[:4]}")
            expected = []
            if not result.ok:
                return result  # from here on everything differs
    if expected or not checked:
        result.differs(0, "the trace ends before its check line, or with an event of no operation")
    return result


def main(files: list[str]) -> int:
    """Print a line a file; 0 only if all of them match."""
    bad = 0
    for name in files:
        began = time.perf_counter()
        r = replay(Path(name))
        print(
            f"{r.file}: ops {r.ops} pfns {r.pfn_matches}/{r.allocs} events {r.event_matches}/{r.events} "
            f"states {r.state_matches}/{r.states} {time.perf_counter() - began:.1f}s",
            flush=True,
        )
        if not r.ok:
            bad += 1
            print(f"  {r.first_mismatch}")
    print(f"{len(files) - bad} of {len(files)} files match")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
