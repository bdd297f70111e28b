"""The C reference behind the same interface, built on the spot."""

from __future__ import annotations

import ctypes
import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.workloads import Ops, request_rows
from mmfw.state import MAX_NR_ZONES, MAX_ORDER, PAGEBLOCK_ABSENT, NodeState, ZoneState

SOURCE: Final = Path(__file__).parent / "reference" / "buddy_reference.c"
FLAGS: Final = ("-O2", "-march=native", "-shared", "-fPIC")


class NoCompiler(Exception):
    """There is no C compiler, or it does not take the source."""


def build(directory: Path) -> ctypes.CDLL:
    """Compile the reference into a directory and load it.

    Raises
    ------
    NoCompiler
        Says what is missing.
    """
    command = shlex.split(os.environ.get("CC", "cc"))
    if shutil.which(command[0]) is None:
        raise NoCompiler(f"no C reference: no compiler {command[0]!r}; install one or set CC")
    target = directory / "buddy_reference.so"
    built = subprocess.run(
        [*command, *FLAGS, "-o", target, SOURCE], capture_output=True, text=True, check=False
    )
    if built.returncode:
        raise NoCompiler(f"no C reference: {shlex.join(command)} failed:\n{built.stderr}")
    library = ctypes.CDLL(str(target))
    mm, words, number = ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64
    library.ref_create.argtypes, library.ref_create.restype = (number, number), mm
    library.ref_destroy.argtypes, library.ref_destroy.restype = (mm,), None
    library.ref_add_zone.argtypes, library.ref_add_zone.restype = (mm, words), None
    library.ref_block_types.argtypes, library.ref_block_types.restype = (mm, number, words, number), None
    library.ref_add_free.argtypes = (mm, ctypes.c_int, ctypes.c_int, words, number)
    library.ref_add_free.restype = None
    library.ref_run.argtypes, library.ref_run.restype = (
        (mm, words, number, words, words, words, number),
        number,
    )
    library.ref_counters.argtypes, library.ref_counters.restype = (mm, words), None
    return library


def _zone_words(zone: ZoneState) -> NDArray[np.int64]:
    (pcp,), (diff,), (threshold,) = zone.pcp, zone.vm_free_cpu_diff, zone.stat_threshold
    if pcp.count or zone.nr_reserved_highatomic or zone.nr_isolate_pageblock or len(zone.pageblock_lru):
        raise ValueError(f"zone {zone.name}: the reference starts from a machine fresh after boot")
    counted = (zone.vm_free, diff, threshold, pcp.high, pcp.batch)
    sized = (zone.zone, zone.start_pfn, zone.end_pfn, zone.managed)
    marks = (*zone.watermark[:3], zone.watermark_boost, *zone.lowmem_reserve)
    return np.array([*sized, *marks, *counted], dtype=np.int64)


class CReference:
    """buddy_reference.c."""

    name = "C"

    def __init__(self, library: ctypes.CDLL, state: NodeState) -> None:
        self._library = library
        self._requests = request_rows(state)
        self._nr_zones = len(state.zones)
        self.held = np.full(state.end_pfn + 1, 0, dtype=np.int64)  # touched, unlike zeros()
        self._mm = library.ref_create(state.end_pfn, state.watermark_boost_factor)
        for zone in state.zones:
            library.ref_add_zone(self._mm, _zone_words(zone).ctypes.data)
            types = np.where(zone.pageblock_mt == PAGEBLOCK_ABSENT, 0, zone.pageblock_mt).astype(np.uint8)
            library.ref_block_types(self._mm, zone.start_pfn, types.ctypes.data, len(types))
            for order, row in enumerate(zone.free_lists):
                for mt, pfns in enumerate(row):
                    pfns = np.ascontiguousarray(pfns, dtype=np.int64)
                    library.ref_add_free(self._mm, order, mt, pfns.ctypes.data, len(pfns))

    def run(self, ops: Ops, out: NDArray[np.int64]) -> int:
        """Operations done; the first answers go to ``out``."""
        done: int = self._library.ref_run(
            self._mm,
            ops.ctypes.data,
            len(ops),
            self._requests.ctypes.data,
            self.held.ctypes.data,
            out.ctypes.data,
            len(out),
        )
        return done

    def counters(self) -> list[int]:
        """As `Compiled.counters`."""
        values = np.zeros(self._nr_zones * (5 + MAX_ORDER) + 1 + MAX_NR_ZONES, dtype=np.int64)
        self._library.ref_counters(self._mm, values.ctypes.data)
        return [int(value) for value in values]

    def close(self) -> None:
        """Give its memory back."""
        self._library.ref_destroy(self._mm)
        self._mm = None
