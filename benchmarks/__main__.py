"""Prints the tables: ``python -m benchmarks [--size 4G] [--workload mixed] [--rounds 7]``.

With ``--scenario NAME [--against CHECKOUT]`` it tells what a whole run costs.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from ctypes import CDLL
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks import machines, scenarios
from benchmarks.c_reference import CReference, NoCompiler, build
from benchmarks.compiled import Compiled
from benchmarks.measure import Implementation, Race
from benchmarks.pure_python import PurePython
from benchmarks.workloads import CHUNK, WORKLOADS, Workload
from mmfw.machine import Machine, machine_from_ram

#: Managed pages up to which Python is raced as well, and the operations it gets a round.
PYTHON_PAGES = 1 << 21
PYTHON_CHUNK = 1 << 15


def race(workload: Workload, machine: Machine, library: CDLL | None, rounds: int, python: bool) -> str:
    """One row of the table."""
    state = machine.node_state()
    implementations: list[Implementation] = [Compiled(state)]
    reference = None if library is None else CReference(library, state)
    if reference is not None:
        implementations.append(reference)
    python = python and machine.managed_pages <= PYTHON_PAGES
    if python:
        implementations.append(PurePython(state))
    run = Race(workload, implementations, machine.managed_pages, PYTHON_CHUNK if python else CHUNK)
    slow = ""
    if python:
        times = run.rounds(rounds, PYTHON_CHUNK)
        slow = f"{np.median(times[:, -1]):9.0f} {np.median(times[:, -1] / times[:, 0]):8.0f}"
        run.leave(PurePython.name)
    times = run.rounds(rounds)
    row = f"{workload.name:10} {workload.about:32} {np.median(times[:, 0]):7.1f}"
    row += (
        f" {np.median(times[:, 1]):7.1f} {np.median(times[:, 0] / times[:, 1]):7.2f}"
        if reference
        else " " * 24
    )
    if reference is not None:
        reference.close()
    return f"{row} {slow:18}  {run.digest}"


def _print_races(sizes: Sequence[str], workloads: Sequence[Workload], rounds: int, python: bool) -> None:
    with TemporaryDirectory() as directory:
        try:
            library = build(Path(directory))
        except NoCompiler as missing:
            library = None
            print(missing)
        for size in sizes:
            machine = machine_from_ram(size)
            print(
                f"\n{size}, {machine.managed_pages} managed pages; ns per operation, medians of {rounds} rounds"
            )
            print(
                f"{'workload':10} {'':32} {'numba':>7} {'C':>7} {'numba/C':>7} {'Python':>9} {'/numba':>8}  answers"
            )
            for workload in workloads:
                print(race(workload, machine, library, rounds, python), flush=True)


def _print_machines(sizes: Sequence[str], rounds: int) -> None:
    print(f"\n{'machine':8} {'wall':>8} {'peak RSS':>10} {'added':>10} {'bytes/page':>10}")
    for size in sizes:
        made = sorted((machines.create(size) for _ in range(rounds)), key=lambda m: m.wall_seconds)[
            rounds // 2
        ]
        print(
            f"{size:8} {made.wall_seconds:6.3f} s {made.peak_rss_bytes / 2**20:6.0f} MiB"
            f" {made.added_bytes / 2**20:6.0f} MiB {made.added_bytes / made.pages:10.1f}"
        )
    bare, full = machines.start(2 * rounds + 1)
    print(f"\npython -c pass {bare * 1e3:.0f} ms, mmfw --help {full * 1e3:.0f} ms: {full / bare:.1f} times")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--size", action="append", help="RAM of the machine; 4G and 64G by default")
    parser.add_argument(
        "--workload", action="append", choices=[w.name for w in WORKLOADS], help="all by default"
    )
    parser.add_argument(
        "--rounds", type=int, default=7, help="timed rounds; 7 by default, at least 5 of the tables'"
    )
    parser.add_argument("--no-python", action="store_true", help="leave the pure-Python twin out")
    parser.add_argument("--scenario", help="time this scenario and nothing else")
    parser.add_argument("--duration", default="20s", help="virtual time of it; 20s by default")
    parser.add_argument(
        "--against", type=Path, action="append", default=[], help="another checkout to run it with, in turns"
    )
    parser.add_argument("--no-machines", action="store_true", help="leave machine creation and start-up out")
    options = parser.parse_args()
    if options.scenario:
        roots = list(dict.fromkeys([scenarios.HERE, *(path.resolve() for path in options.against)]))
        try:
            times = scenarios.race(roots, options.scenario, options.duration, options.rounds)
        except RuntimeError as fault:
            parser.error(str(fault))
        print(scenarios.table(times))
        return
    sizes = options.size or ["4G", "64G"]
    chosen = [w for w in WORKLOADS if not options.workload or w.name in options.workload]
    rounds = max(options.rounds, 5)
    _print_races(sizes, chosen, rounds, not options.no_python)
    if not options.no_machines:
        _print_machines(sizes, rounds)


if __name__ == "__main__":
    main()
