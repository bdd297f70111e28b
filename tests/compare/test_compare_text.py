"""What the terminal shows of a comparison: the price beside the gain, within 120 columns."""

from __future__ import annotations

from mmfw.cli.compare_text import WIDTH, comparison_text
from mmfw.compare.model import (
    Applicability,
    Cell,
    Comparison,
    Number,
    Study,
    StudyPolicy,
    StudyScenario,
    Verdict,
    VsMainline,
)

SEEDS = (0, 1, 2, 3, 4)
PRIMARY = ("xe_frames_that_were_drawn", "working_set_loss_pages", "a_third_figure_of_many_words")
SUCCESS = "success_ratio_order_9"


def cell(policy: str, metric: str, values: tuple[Number, ...], verdict: Verdict | None = None) -> Cell:
    known = [value for value in values if value is not None]
    against = VsMainline(
        median_difference=-123456, ci=(-234567, -12345), level=0.9375, ratio=None, ratio_ci=None, nr_pairs=5,
        nr_results=5,
    )  # fmt: skip
    return Cell(
        scenario="s", policy=policy, metric=metric, unit="1", better="lower", description="", primary=metric in PRIMARY,
        seeds=SEEDS, values=values, median=sorted(known)[len(known) // 2] if known else None, ci=None, level=None,
        vs_mainline=None if policy == "mainline" else against, verdict=verdict,
        kind="share" if metric == SUCCESS else "count", nr_results=5,
    )  # fmt: skip


def lines(success: tuple[Number, ...], *more: Cell) -> list[str]:
    apart = (1, 2, 3, 4, 5)
    cells = [cell("mainline", name, apart) for name in PRIMARY]
    cells += [cell("p", name, apart, "better") for name in PRIMARY]
    cells += [cell("idle", name, apart, "no difference") for name in PRIMARY]
    cells += [cell("mainline", SUCCESS, success), cell("p", SUCCESS, success, "worse")]
    stall = (1_000_000, 2_000_000, 2_500_000, 3_000_000, 4_000_000)
    cells += [
        cell("mainline", "direct_stall_ns", stall),
        cell("p", "direct_stall_ns", stall, "no difference"),
    ]
    scenario = StudyScenario(
        name="s", source="s", sha256="", kernel="6.1", costs="default", costs_sha256="", description="d",
        metrics=(), primary=PRIMARY,
    )  # fmt: skip
    study = Study(
        format=1, command=(), scenarios=(scenario,),
        policies=tuple(StudyPolicy(name=n, policies=n, description="") for n in ("mainline", "p", "idle")),
        seeds=SEEDS, short=False, duration=None, kernel=None, overrides={}, mmfw="", python="", numpy="", numba="",
        scipy="", distributions={},
    )  # fmt: skip
    idle = Applicability(scenario="s", policy="idle", acts=False, runs_as="mainline", why="acts only on x")
    found = Comparison(
        format=1, study=study, method="", cells=(*cells, *more), applicability=(idle,), runs=(), missing=()
    )
    return comparison_text(found)


def rows(text: list[str], policy: str) -> list[list[str]]:
    return [line.split() for line in text if line.split()[:1] == [policy]]


def test_the_price_stands_below_the_gain() -> None:
    text = lines(
        (0.1, 0.2, 0.3, 0.4, None),
        cell("p", "kswapd_wakes", (1, 2, 3, 4, 5), "worse"),
        cell("p", "oom_kills", (1, 2, 3, 4, 5), "worse"),
        cell("p", "nr_free", (1, 2, 3, 4, 5), "better"),
        cell("p", "same", (1, 2, 3, 4, 5), "no difference that matters"),
    )
    (head,) = [line for line in text if "other figures" in line]
    assert head.split("  ")[-4:] == [
        "success S, %",
        "direct stall, ms",
        "loss W, pages",
        "of 4 other figures",
    ]
    assert rows(text, "p")[-1][1:] == ["worse", "30", "2.5", "better", "3", "1", "better,", "2", "worse"]
    assert rows(text, "mainline")[-1][1:] == ["30", "2.5", "3"]
    assert rows(text, "idle")[-1] == ["idle", "-", "-", "3"]


def test_without_requests_of_high_order_only_the_others_are_counted() -> None:
    text = lines((None,) * 5)
    assert not any("success S" in line or "direct stall" in line for line in text)
    (head,) = [line for line in text if "other figures" in line]
    assert head.split() == ["of", "2", "other", "figures"]
    assert rows(text, "p")[-1] == ["p", "0", "better,", "1", "worse"]


def test_figures_that_do_not_fit_go_below() -> None:
    text = lines((0.5,) * 5)
    assert max(len(line) for line in text if line.startswith("  ")) <= WIDTH
    heads = [line for line in text if any(name in line for name in PRIMARY)]
    assert len(heads) == 2
    assert PRIMARY[0] in heads[0]
    assert PRIMARY[1] in heads[0]
    assert PRIMARY[2] in heads[1]


def test_seeds_with_one_value_in_different_runs_are_said() -> None:
    name = PRIMARY[0]
    text = lines((0.5,) * 5)
    assert not any("alike" in line for line in text)
    alike = [cell("mainline", name, (7,) * 5), cell("p", name, (7, 7, 7, 7, None), "better")]
    text = lines((0.5,) * 5, *alike)
    (p,) = [line for line in text if line.split()[:2] == ["p", "7"]]
    assert p.split() == [
        *["p", "7", "(all", "4", "seeds", "alike)", "-123456", "[-234567,", "-12345]", "better"]
    ]
    assert any(line.split()[:2] == ["mainline", "7"] and "(all 5 seeds alike)" in line for line in text)
