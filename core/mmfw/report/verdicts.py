"""Verdicts as the page shows them: a word, a symbol and a style each, never a colour alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from mmfw.compare.cells import judged
from mmfw.compare.model import Cell
from mmfw.compare.statistics import TOO_FEW, alike_words, results_words
from mmfw.figures import KINDS
from mmfw.policies import MAINLINE
from mmfw.report.numbers import show_interval, show_ratio, unit_of, unit_words

BETTER_WORDS: Final = {"lower": "lower is better", "higher": "higher is better", "neither": "no direction"}
#: Word, symbol, style and meaning, for the legend.
LEGEND: Final = (
    (
        "better",
        "✓",
        "better",
        "the difference's interval lies on the metric's good side of 0, and its median matters",
    ),
    ("worse", "✗", "worse", "it lies on the bad side, and its median matters"),
    (
        "no difference that matters",
        "≈",
        "same",
        "all of it lies below what matters, whether it holds 0 or not",
    ),
    ("no difference", "=", "same", "all of it is 0"),
    ("different", "≠", "different", "it excludes 0 and its median matters; the metric has no better side"),
    (
        "undecided",
        "?",
        "none",
        "none of these: it holds 0 and something that matters, or excludes 0 and its median does not matter; these seeds "
        "cannot tell",
    ),
    (TOO_FEW, "·", "none", "fewer than 5 pairs of seeds have a value"),
)
_STYLE: Final = {word: (symbol, css) for word, symbol, css, _ in LEGEND}
#: Letters of the debate.
LETTERS: Final = {
    "success_ratio_order_9": "S", "latency_p50_ns_order_9": "S", "latency_p99_ns_order_9": "S",
    "working_set_loss_pages": "W", "working_set_loss_per_high_order_page": "W", "shrinker_pages_per_object": "X",
    "contiguity_yield": "Y", "unusable_index_order_9": "U", "free_blocks_order_9": "U", "kswapd_busy_ratio": "K",
    "kcompactd_busy_ratio": "K", "direct_stall_ns": "K", "kswapd_wakes": "K", "forward_progress_per_second": "F",
    "oom_kills": "O", "order_0_failures": "O", "unfairness": "Q",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Head:
    """A column of metrics.

    Attributes
    ----------
    name, letter, unit, better, meaning : str
        As the page says them.
    primary : bool
        Whether the scenario is decided by it.
    kind, sort : str
        What sort of figure it is, and what that means; empty if it was not said.
    """

    name: str
    letter: str
    unit: str
    better: str
    primary: bool
    meaning: str
    kind: str = ""
    sort: str = ""

    @property
    def terms(self) -> str:
        """Unit and direction."""
        return f"{self.unit}; {self.better}" if self.unit else self.better


@dataclass(frozen=True, slots=True)
class Shown:
    """A cell of a table.

    Attributes
    ----------
    median : str
        Median over seeds and its interval; that all seeds have one value, if they do.
    word, symbol, css : str
        Verdict; empty for mainline itself.
    difference, ratio : str
        Against mainline, each with its interval; empty where there is none.
    pairs : str
        How many pairs of seeds there are, if some seed is in none.
    results : str
        How many different results they gave, if fewer than there are pairs.
    """

    median: str
    word: str = ""
    symbol: str = ""
    css: str = "plain"
    difference: str = ""
    ratio: str = ""
    pairs: str = ""
    results: str = ""

    @property
    def effect(self) -> str:
        """The one figure that says most: the ratio where there is one."""
        return self.ratio or self.difference


def head_of(cell: Cell) -> Head:
    """The column that a cell stands in."""
    letter = LETTERS.get(cell.metric, "")
    better = BETTER_WORDS[cell.better]
    unit = unit_words(unit_of(cell.unit, cell.kind))
    sort = "" if cell.kind is None else KINDS[cell.kind]
    return Head(cell.metric, letter, unit, better, cell.primary, cell.description, cell.kind or "", sort)


def shown(cell: Cell, nr_seeds: int) -> Shown:
    """A cell as the page shows it.

    Parameters
    ----------
    cell : Cell
        A figure of a policy in a scenario.
    nr_seeds : int
        Seeds of the study.
    """
    median = show_interval(cell.median, cell.ci, unit_of(cell.unit, cell.kind))
    alike = alike_words(cell.values, cell.nr_results)
    median += f" ({alike})" if alike else ""
    versus = cell.vs_mainline
    if versus is None:
        known = sum(value is not None for value in cell.values)
        said = "" if alike else results_words(known, cell.nr_results)
        word = "" if cell.policy == MAINLINE else TOO_FEW
        symbol, css = _STYLE.get(word, ("", "plain"))
        return Shown(median, word, symbol, css, results=said)
    word = judged(cell) or TOO_FEW
    symbol, css = _STYLE[word]
    unit = unit_of(cell.unit, cell.kind, difference=True)
    difference = show_interval(versus.median_difference, versus.ci, unit, plus=True)
    same = versus.ci == (0, 0) or (versus.nr_results == 1 and versus.median_difference == 0)
    ratio = "" if versus.ratio is None or same else show_ratio(versus.ratio, versus.ratio_ci)
    pairs = f"{versus.nr_pairs} of {nr_seeds} pairs" if versus.nr_pairs < nr_seeds else ""
    results = results_words(versus.nr_pairs, versus.nr_results)
    return Shown(median, word, symbol, css, difference, ratio, pairs, results)


def tally(cells: Iterable[Cell]) -> str:
    """How many metrics got better or worse; empty if none did."""
    words = [str(cell.verdict) for cell in cells]
    counts = ((words.count(word), symbol) for word, symbol, _, _ in LEGEND[:2])
    parts = [f"{nr}\u00a0{symbol}" for nr, symbol in counts if nr]
    return "others " + ", ".join(parts) if parts else ""
