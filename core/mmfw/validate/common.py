"""One compared figure, and the summary of many: what ``mmfw validate`` prints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil


@dataclass(frozen=True, slots=True)
class Comparison:
    """One figure of a capture beside the simulator's.

    Attributes
    ----------
    experiment : str
        Capture the figure is from.
    labels : mapping of str to str
        What tells it from the capture's other figures: ``figure``, ``zone``, ``mask``, ``shrinker``, ...
    counter : str
        The kernel's name of what is counted.
    real, simulated : float
        The two figures, in the counter's unit.
    within : bool
        Whether the simulator's is as near as is asked of this figure.
    counted : bool
        Whether the figure counts towards the result; others are printed for information.
    """

    experiment: str
    labels: Mapping[str, str]
    counter: str
    real: float
    simulated: float
    within: bool
    counted: bool = True

    @property
    def ratio(self) -> float | None:
        """Simulated over real; None where real is 0."""
        return self.simulated / self.real if self.real else None

    def as_json(self) -> dict[str, object]:
        """Object of the ``comparisons`` array."""
        return {
            "experiment": self.experiment,
            "labels": dict(self.labels),
            "counter": self.counter,
            "real": self.real,
            "simulated": self.simulated,
            "ratio": self.ratio,
            "within": self.within,
            "counted": self.counted,
        }


@dataclass(frozen=True, slots=True)
class Summary:
    """Result of many comparisons.

    Attributes
    ----------
    counted : int
        Figures that count.
    within : int
        Those of them that are within their band.
    required : int
        How many must be.
    passed : bool
        Whether as many are, and at least one counts.
    """

    counted: int
    within: int
    required: int
    passed: bool

    def as_json(self) -> dict[str, object]:
        """Object of the ``summary`` key."""
        return {
            "counted": self.counted,
            "within": self.within,
            "required": self.required,
            "passed": self.passed,
        }


def summarize(comparisons: Iterable[Comparison], share: float = 1.0) -> Summary:
    """Sum up comparisons.

    Parameters
    ----------
    comparisons : iterable of Comparison
        All figures.
    share : float
        Part of the counted figures that must be within their bands, 0..1.
    """
    counting = [comparison for comparison in comparisons if comparison.counted]
    within = sum(1 for comparison in counting if comparison.within)
    # Rounding first keeps 0.95 * 100 from asking for 96.
    required = ceil(round(share * len(counting), 9))
    return Summary(len(counting), within, required, bool(counting) and within >= required)
