"""What a whole scenario costs: processor time of a run, beside a loop of plain Python and beside other checkouts.

Shared machines are a third slower at one time than at another. So runs of the checkouts alternate, each in a process of
its own, and each is also given as a multiple of a loop that is timed before and after it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

HERE: Final = Path(__file__).resolve().parents[1]

_RUN: Final = """
import json, sys
from pathlib import Path
from time import process_time
from mmfw.run import RunRequest, run
def loop():
    begin, total = process_time(), 0
    for i in range(5_000_000):
        total += i
    return process_time() - begin
root, scenario, duration = sys.argv[1:]
run(RunRequest(scenario=scenario, duration="100ms"))  # compiled and loaded
before, begin = loop(), process_time()
result = run(RunRequest(scenario=scenario, duration=duration))
seconds = process_time() - begin
for name, module in sorted(sys.modules.items()):
    file = getattr(module, "__file__", None)
    if name.split(".")[0].startswith("mmfw") and file and not Path(file).resolve().is_relative_to(root):
        sys.exit(f"{name} was taken from {file}: not a whole checkout")
print(json.dumps([seconds, seconds / (before + loop()) * 2, result.wall_seconds, result.digest]))
"""


@dataclass(frozen=True, slots=True)
class Timing:
    """One run: processor and wall seconds, processor time as a multiple of the loop's, and the run's digest."""

    cpu_seconds: float
    loops: float
    wall_seconds: float
    digest: str


def time_run(root: Path, scenario: str, duration: str) -> Timing:
    """Run a scenario with a checkout's core and plugins, in a fresh process that compiled everything before.

    Raises
    ------
    RuntimeError
        It is no checkout, or not a whole one, or the run failed; with the last line of what it printed.
    """
    if not (root / "core" / "mmfw" / "__init__.py").is_file():
        raise RuntimeError(f"{root} is no checkout: it has no core/mmfw")
    sources = [
        root / "core",
        *sorted(root.glob("plugins/*/src")),
        *sorted(root.glob("plugins/policies/*/src")),
    ]
    done = subprocess.run(
        [sys.executable, "-c", _RUN, str(root), scenario, duration],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, sources))},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{root}: {done.stderr.strip().splitlines()[-1]}")
    cpu, loops, wall, digest = json.loads(done.stdout.splitlines()[-1])
    return Timing(cpu, loops, wall, digest)


def race(roots: Sequence[Path], scenario: str, duration: str, rounds: int) -> dict[Path, list[Timing]]:
    """Timings of each checkout, taken in turns; at least one round."""
    times: dict[Path, list[Timing]] = {root: [] for root in roots}
    for _ in range(max(1, rounds)):
        for root in roots:
            times[root].append(time_run(root, scenario, duration))
    return times


def table(times: dict[Path, list[Timing]]) -> str:
    """A row for each checkout: least and median processor time, median multiple, its ratio to the first's, digest."""
    lines = [f"{'cpu s least':>12} {'median':>7} {'loops':>7} {'ratio':>6}  {'digest':12}  checkout"]
    first = 0.0
    for root, runs in times.items():
        loops = median(run.loops for run in runs)
        first = first or loops
        seconds = [run.cpu_seconds for run in runs]
        digests = sorted({run.digest[:12] for run in runs})
        lines.append(
            f"{min(seconds):12.2f} {median(seconds):7.2f} {loops:7.1f} {loops / first:6.2f}  {','.join(digests)}  {root}"
        )
    return "\n".join(lines)
