"""What ``mmfw compare`` was asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmfw.compare.threshold import LEAST_EFFECT
from mmfw.policies import toml_value


@dataclass(frozen=True, slots=True)
class CompareRequest:
    """What the user asked for.

    Attributes
    ----------
    scenarios : tuple of str
        Names or files; ``all`` stands for those that say they are comparable.
    policies : tuple of str
        Compositions as ``--policy`` takes them; ``all`` stands for each policy alone and each set.
    nr_seeds : int
        Seeds 0 to one less.
    out : Path
        The study's folder.
    jobs : int
        Processes at a time.
    short : bool
        Run short durations.
    duration, kernel : str or None
        In place of the scenarios'.
    overrides : dict
        ``--set`` values by key.
    metrics : tuple of str
        Figures to compare besides the usual ones.
    least_effect : float
        Smallest effect that matters (`mmfw.compare.threshold`), as a share of mainline's; 0 for no threshold.
    """

    scenarios: tuple[str, ...]
    policies: tuple[str, ...]
    nr_seeds: int
    out: Path
    jobs: int = 1
    short: bool = False
    duration: str | None = None
    kernel: str | None = None
    overrides: dict[str, Any] = field(default_factory=dict)
    metrics: tuple[str, ...] = ()
    least_effect: float = LEAST_EFFECT

    def command(self) -> tuple[str, ...]:
        """The command line that repeats it, without where it writes and how many processes it takes."""
        words = ["mmfw", "compare", *self.scenarios, "--policies", ",".join(self.policies)]
        words += ["--seeds", str(self.nr_seeds)]
        words += ["--short"] if self.short else []
        for option, value in (("--duration", self.duration), ("--kernel", self.kernel)):
            words += [option, value] if value is not None else []
        for key, value in self.overrides.items():
            words += ["--set", f"{key}={toml_value(value)}"]
        for name in self.metrics:
            words += ["--metric", name]
        if self.least_effect != LEAST_EFFECT:
            words += ["--least-effect", repr(self.least_effect)]
        return tuple(words)
