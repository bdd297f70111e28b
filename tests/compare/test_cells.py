"""Cells of made-up runs, each figure reckoned by hand."""

from __future__ import annotations

import pytest

from mmfw.compare.cells import cells_of
from mmfw.compare.model import Cell, StudyScenario
from mmfw.results import RunDocument

pytest.importorskip("scipy")

NAMES = ("speed", "loss", "other", "maybe", "pgscan_kswapd", "kswapd_wakes_order_9", "nowhere")
SCENARIO = StudyScenario(
    name="s", source="s", sha256="", kernel="6.1", costs="default", costs_sha256="", description="",
    metrics=NAMES, primary=("speed",),
)  # fmt: skip


def document(
    speed: float, loss: int, maybe: float | None = None, digest: str | None = None, **counters: int
) -> RunDocument:
    figures = {
        name: {"unit": "1", "kind": kind, "better": better, "description": name}
        for name, kind, better in (
            ("speed", "rate", "higher"),
            ("loss", "failure", "lower"),
            ("other", "level", "neither"),
            ("maybe", "ratio", "lower"),
        )
    }
    return RunDocument.model_validate(
        {
            "metrics": {"speed": speed, "loss": loss, "other": loss, "maybe": maybe},
            "figures": figures,
            "vmstat": {"pgscan_kswapd": counters.get("scanned", 0)},
            "buddyinfo_before": {},
            "buddyinfo": {},
            "kswapd_wakes_by_order": {"9": counters["wakes"]} if "wakes" in counters else {},
            "latency": [],
            "digest": digest or repr((speed, loss, maybe, counters)),
            "not_modelled": [],
        }
    )


MAINLINE = {
    seed: document(1.0 + seed, 10 * seed, maybe=None if seed == 1 else 4.0, wakes=seed) for seed in range(6)
}
POLICY = {seed: document(2.0 * (1 + seed), 10 * seed + 1, maybe=2.0, scanned=70) for seed in range(6)}


def cells(seeds: range, policy: dict[int, RunDocument]) -> dict[tuple[str, str], Cell]:
    found = cells_of(
        SCENARIO,
        seeds,
        {"mainline": MAINLINE, "p": policy},
        {"mainline": "mainline", "P": "p", "Q": "mainline"},
    )
    assert all(cell.primary == (cell.metric == "speed") for cell in found)
    return {(cell.policy, cell.metric): cell for cell in found}


def test_paired_differences_beat_the_spread_between_seeds() -> None:
    """The medians' intervals overlap widely; the differences are 1 for every seed."""
    found = cells(range(6), POLICY)
    loss = found["P", "loss"]
    assert (loss.median, found["mainline", "loss"].median) == (26, 25)
    assert loss.ci == (1, 51)
    assert loss.vs_mainline is not None
    assert (loss.vs_mainline.median_difference, loss.vs_mainline.ci) == (1, (1, 1))
    assert (loss.vs_mainline.level, loss.vs_mainline.nr_pairs) == (0.96875, 6)
    assert loss.vs_mainline.ratio is None  # one of mainline's is 0
    assert loss.verdict == "worse"
    assert found["P", "other"].verdict == "different"
    assert (loss.kind, loss.vs_mainline.least_difference) == ("failure", 0.01 * 25)
    speed = found["P", "speed"]
    assert speed.vs_mainline is not None
    assert (speed.verdict, speed.vs_mainline.ratio, speed.vs_mainline.ratio_ci) == ("better", 2.0, (2.0, 2.0))


def test_pairs_without_a_value_are_dropped_and_counted() -> None:
    maybe = cells(range(6), POLICY)["P", "maybe"]
    assert maybe.vs_mainline is not None
    assert (maybe.vs_mainline.nr_pairs, maybe.vs_mainline.median_difference, maybe.verdict) == (
        5,
        -2.0,
        "better",
    )
    four = cells(range(5), POLICY)["P", "maybe"]
    assert four.vs_mainline is not None
    assert (four.vs_mainline.nr_pairs, four.verdict) == (4, None)
    assert cells(range(5), POLICY)["mainline", "maybe"].values == (4.0, None, 4.0, 4.0, 4.0)


def test_seeds_that_failed_are_left_out_on_both_sides() -> None:
    found = cells(range(6), {seed: run for seed, run in POLICY.items() if seed != 2})
    loss = found["P", "loss"]
    assert (loss.seeds, loss.values) == ((0, 1, 3, 4, 5), (1, 11, 31, 41, 51))
    assert loss.vs_mainline is not None
    assert loss.vs_mainline.nr_pairs == 5
    nothing = cells(range(6), {})["P", "loss"]
    assert (nothing.median, nothing.ci, nothing.vs_mainline, nothing.verdict) == (None, None, None, None)


def test_what_shares_mainlines_runs_does_not_differ_from_it() -> None:
    found = cells(range(6), POLICY)
    shared = found["Q", "loss"]
    assert shared.values == found["mainline", "loss"].values
    assert (shared.verdict, found["mainline", "loss"].verdict) == ("no difference", None)


def test_counters_and_what_no_run_has() -> None:
    found = cells(range(6), POLICY)
    assert found["P", "pgscan_kswapd"].values == (70,) * 6
    assert (found["P", "pgscan_kswapd"].unit, found["P", "pgscan_kswapd"].verdict) == ("pages", "worse")
    assert found["mainline", "kswapd_wakes_order_9"].values == (0, 1, 2, 3, 4, 5)
    assert found["P", "kswapd_wakes_order_9"].median == 0
    assert not any(metric == "nowhere" for _, metric in found)


def test_an_effect_that_is_certain_and_small_is_no_difference_that_matters() -> None:
    """Every seed gains exactly a thousandth: the interval excludes 0, and nobody should care."""
    mainline = {seed: document(1000.0, 3) for seed in range(6)}
    policy = {seed: document(1001.0, 4, scanned=9) for seed in range(6)}
    runs, runs_as = {"mainline": mainline, "p": policy}, {"mainline": "mainline", "P": "p"}

    def judged(least_effect: float) -> dict[str, str | None]:
        found = cells_of(SCENARIO, range(6), runs, runs_as, least_effect)
        return {cell.metric: cell.verdict for cell in found if cell.policy == "P"}

    found = judged(0.01)
    assert found["speed"] == "no difference that matters"
    assert found["pgscan_kswapd"] == "no difference that matters"  # 9 pages, of none
    assert (found["loss"], found["other"]) == ("worse", "different")  # a failure more; a third more
    assert judged(0.0005)["speed"] == judged(0)["speed"] == "better"
    assert (judged(0.0005)["pgscan_kswapd"], judged(0)["pgscan_kswapd"]) == (
        "no difference that matters",
        "worse",
    )


def test_the_interval_is_shown_whatever_the_verdict() -> None:
    mainline = {seed: document(1000.0, 3) for seed in range(6)}
    policy = {seed: document(1001.0 + seed, 4) for seed in range(6)}
    found = cells_of(
        SCENARIO, range(6), {"mainline": mainline, "p": policy}, {"mainline": "mainline", "P": "p"}
    )
    (speed,) = [cell for cell in found if (cell.policy, cell.metric) == ("P", "speed")]
    assert speed.verdict == "no difference that matters"
    assert speed.vs_mainline is not None
    assert (speed.vs_mainline.ci, speed.vs_mainline.least_difference) == ((1, 6), 10)


def judged_speed(policy: dict[int, RunDocument], mainline: dict[int, RunDocument]) -> Cell:
    runs, runs_as = {"mainline": mainline, "p": policy}, {"mainline": "mainline", "P": "p"}
    found = cells_of(SCENARIO, range(6), runs, runs_as)
    return next(cell for cell in found if (cell.policy, cell.metric) == ("P", "speed"))


def test_seeds_that_change_nothing_are_one_result_and_have_no_interval() -> None:
    speed = judged_speed(
        {seed: document(2.0, 1) for seed in range(6)}, dict.fromkeys(range(6), document(1.0, 1))
    )
    against = speed.vs_mainline
    assert against is not None
    assert (speed.nr_results, against.nr_results, against.nr_pairs) == (1, 1, 6)
    assert (speed.ci, speed.level, against.ci, against.level, against.ratio_ci) == (None,) * 5
    assert (against.median_difference, against.ratio, speed.verdict) == (1, 2, "better")


def test_results_that_differ_elsewhere_are_not_one() -> None:
    """The figure is the same with every seed, the runs are not: its interval of no width is what they say."""
    mainline = {seed: document(1.0, seed) for seed in range(6)}
    speed = judged_speed({seed: document(2.0, 1) for seed in range(6)}, mainline)
    assert speed.vs_mainline is not None
    assert (speed.nr_results, speed.ci) == (1, None)
    assert (speed.vs_mainline.nr_results, speed.vs_mainline.ci) == (6, (1, 1))
