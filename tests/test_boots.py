"""Simulated captures among boots of the real kernel: is a simulated one told from another boot?

``data/boots`` has, for each load and mask, what several boots of the same kernel with the same load
counted: the captured one first, then others on another host, and some whose clock counts instructions. A figure is in
place if it is within their range widened by half (`mmfw.validate.bounds.band`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mmfw.validate import bounds
from mmfw.validate.experiment import CaptureSpec, run_experiment

DATA = Path(__file__).parent / "data" / "boots"
BOOTS: dict[str, dict[str, Any]] = json.loads((DATA / "compact.json").read_text())
LOOPS: dict[str, dict[str, Any]] = json.loads((DATA / "gpu.json").read_text())
REQUESTS = {"m2-o4": 4000, "k4-o4": 5000, "x2-o4": 400, "u8-o4": 400}
SEEDS = (1, 2)


def masks_of(load: str) -> dict[str, dict[str, list[int]]]:
    return {mask: figures for mask, figures in BOOTS[load].items() if mask != "boots"}


def place(boots: list[int], value: int) -> bool:
    low, high = bounds.band(boots)
    return low <= value <= high


def left_out(load: str) -> list[bool]:
    """Whether each figure of each boot is in place among the other boots."""
    return [
        place(values[:boot] + values[boot + 1 :], values[boot])
        for figures in masks_of(load).values()
        for values in figures.values()
        for boot in range(len(values))
    ]


def simulated(load: str, seed: int) -> list[bool]:
    """Whether each figure of a simulated boot is in place; its requests come when the load's pauses have them."""
    mem, variant, order = load.split("-")
    parts = run_experiment(
        CaptureSpec(
            path=Path(load),
            kind="compact",
            name=load,
            mem=mem,
            nr_cpus=1,
            variant=variant,
            seed=seed,
            order=int(order[1:]),
            requests=REQUESTS.get(f"{variant}-{order}", 120),
            data_mb=300 if variant.startswith("x") else 0,
        )
    )
    return [
        place(values, parts[mask].counters.get(counter, 0))
        for mask, figures in masks_of(load).items()
        for counter, values in figures.items()
    ]


MOVABLE = [load for load in BOOTS if load.split("-")[1][0] in "mkx"]


def share(found: list[bool]) -> float:
    return sum(found) / len(found)


@pytest.fixture(scope="module")
def found() -> dict[str, list[bool]]:
    return {load: [one for seed in SEEDS for one in simulated(load, seed)] for load in BOOTS}


def test_a_simulated_boot_is_in_place_as_often_as_a_boot_left_out(found: dict[str, list[bool]]) -> None:
    real = [one for load in MOVABLE for one in left_out(load)]
    ours = [one for load in MOVABLE for one in found[load]]
    assert len(real) == 983
    assert share(ours) >= share(real)


@pytest.mark.parametrize("load", sorted(BOOTS))
def test_no_load_is_out_of_place(found: dict[str, list[bool]], load: str) -> None:
    # The kernel's own boots are least like one another with x2-o4: 72 of 88.
    assert share(found[load]) >= 0.8


def test_who_answers_zero_is_told_from_a_boot() -> None:
    zeros = [
        place(values, 0)
        for load in MOVABLE
        for figures in masks_of(load).values()
        for values in figures.values()
    ]
    real = [one for load in MOVABLE for one in left_out(load)]
    assert share(zeros) < share(real) - 0.3


def test_the_captured_boot_alone_does_not_foretell_the_others() -> None:
    """Why they are held against a range here: within a quarter of one boot lie about half of another's counters."""
    within = [
        bounds.counter_within(values[0], other)
        for load in MOVABLE
        for figures in masks_of(load).values()
        for counter, values in figures.items()
        if counter != "success" and values[0] >= bounds.COUNTER_FLOOR
        for other in values[1:]
    ]
    assert 0.4 < share(within) < bounds.COUNTER_SHARE


def test_simulated_object_loops_are_in_place() -> None:
    within = {}
    for load in ("1G-frag16", "1G-ladder", "1G-cache2", "1G-cache3"):
        mem, variant = load.split("-")
        data_mb = {"cache2": 550, "cache3": 900}.get(variant, 0)
        spec = CaptureSpec(Path(load), "gpu", load, mem, 1, variant, 1, 0, 0, data_mb)
        counters = run_experiment(spec)["loop"].counters
        within[load] = [
            place(values, counters.get(name, 0)) for name, values in LOOPS[load].items() if name != "boots"
        ]
    # Of frag16's ten one is out of place: scans at priority 6 (168; 81 to 136 in the boots).
    assert {load: found.count(False) for load, found in within.items()} == {
        "1G-frag16": 1,
        "1G-ladder": 0,
        "1G-cache2": 0,
        "1G-cache3": 0,
    }
