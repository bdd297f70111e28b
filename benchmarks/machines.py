"""What it costs to have a machine at all, and to start: in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Final

_CORE: Final = str(Path(__file__).parents[1] / "core")

_CREATE: Final = """
import sys
from time import perf_counter
from mmfw.machine import machine_from_ram
from mmfw.mm.pages import Memory
Memory(machine_from_ram("128M").node_state())
def peak():  # not getrusage(), which begins with the parent's
    status = open("/proc/self/status").read()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024
before, begin = peak(), perf_counter()
machine = machine_from_ram(sys.argv[1])
memory = Memory(machine.node_state())
print(machine.managed_pages, perf_counter() - begin, peak(), peak() - before)
"""


@dataclass(frozen=True, slots=True)
class Creation:
    """A machine was made: its managed pages, wall time, peak RSS of the process, and what it added to that."""

    pages: int
    wall_seconds: float
    peak_rss_bytes: int
    added_bytes: int


def create(size: str) -> Creation:
    """Make a machine in a fresh process that has loaded the compiled loops already."""
    done = subprocess.run(
        [sys.executable, "-c", _CREATE, size],
        env={**os.environ, "PYTHONPATH": _CORE},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    pages, wall, peak, added = done.stdout.split()
    return Creation(int(pages), float(wall), int(peak), int(added))


def start(rounds: int) -> tuple[float, float]:
    """Wall seconds of ``python -c pass`` and of ``mmfw --help``, medians, byte code compiled as an installer does."""
    commands = (["-c", "pass"], ["-c", "from mmfw.cli import main; main()", "--help"])
    with TemporaryDirectory() as cache:
        env = {**os.environ, "PYTHONPATH": _CORE, "PYTHONPYCACHEPREFIX": cache}
        env.pop("PYTHONDONTWRITEBYTECODE", None)
        times: tuple[list[float], list[float]] = ([], [])
        for turn in range(rounds + 1):
            for command, taken in zip(commands, times, strict=True):
                begin = perf_counter()
                subprocess.run([sys.executable, *command], env=env, stdout=subprocess.DEVNULL, check=True)
                if turn:
                    taken.append(perf_counter() - begin)
    return median(times[0]), median(times[1])
