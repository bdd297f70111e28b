"""What sort of figure each is: what adds up, what is a share of what."""

from __future__ import annotations

from typing import get_args

import pytest

from mmfw.figures import FIXED, KINDS, kind_of
from mmfw.offers import FigureKind, Metric
from mmfw.run import RunRequest, run


def metric(kind: str, unit: str, **more: bool) -> Metric:
    return Metric("x_y", unit, kind, "neither", "", read=lambda mm: 0, **more)  # type: ignore[arg-type]


def test_every_kind_is_explained_and_every_figure_has_one():
    assert tuple(KINDS) == get_args(FigureKind)
    assert {figure.kind for figure in FIXED} <= set(KINDS)
    kinds = {figure.name: figure.kind for figure in FIXED}
    assert [name for name, kind in kinds.items() if kind == "failure"] == ["oom_kills", "order_0_failures"]
    assert (kinds["direct_stall_ns"], kinds["latency_p99_ns_order_9"]) == ("time", "duration")


@pytest.mark.parametrize(
    ("kind", "unit", "expected"),
    [
        ("counter", "1", "count"),
        ("counter", "pages", "count"),
        ("counter", "us", "time"),
        ("gauge", "pages", "level"),
        ("gauge", "1", "level"),
        ("gauge", "ns", "duration"),
        ("gauge", "1/1000", "share"),
        ("ratio", "1", "share"),
        ("ratio", "%", "share"),
        ("ratio", "frames/s", "rate"),
        ("ratio", "pages/object", "ratio"),
    ],
)
def test_a_metric_s_kind_and_unit_say_what_sort_of_figure_it_is(kind: str, unit: str, expected: str):
    assert kind_of(metric(kind, unit)) == expected


def test_a_counter_may_say_that_each_one_matters_and_nothing_else_may():
    assert kind_of(metric("counter", "1", each_matters=True)) == "failure"
    with pytest.raises(ValueError, match="each_matters is of counters"):
        metric("gauge", "1", each_matters=True)


def test_a_run_says_of_each_of_its_figures_what_sort_it_is():
    pytest.importorskip("mmfw_xe_shrinker")
    figures = run(RunRequest(scenario="ttm-order8-pair", duration="100ms")).as_document()["figures"]
    assert {name for name, each in figures.items() if each["kind"] not in KINDS} == set()
    assert figures["forward_progress_per_second"]["kind"] == "rate"


def test_losses_are_those_of_the_run_and_not_of_its_take_down():
    """Taking the machine down evicts and restores too, and goes through the same accounts."""
    pytest.importorskip("mmfw_xe_shrinker")
    result = run(RunRequest(scenario="webgl-aquarium", duration="4s"))
    lost = sum(each.nr_pages_lost for each in result.losses.values())
    assert lost == result.metrics["working_set_loss_pages"] > 0
