"""``study.json`` and ``compare.json``: what was asked for, and what came of it. Nothing in them is a wall clock's."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from mmfw.compare.statistics import Better, Verdict
from mmfw.offers import FigureKind
from mmfw.results.manifest import Distribution

Number = int | float | None
#: Version of both files' format.
FORMAT = 1


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StudyScenario(_Model):
    """A scenario of the study.

    Attributes
    ----------
    name : str
        Its name.
    source : str
        As it was named: a name, or a file.
    sha256 : str
        Of its TOML text.
    kernel, costs, costs_sha256 : str
        Kernel profile it ran with; its cost table and that table's digest.
    description : str
        One line.
    metrics, primary : tuple of str
        Figures that are compared, and those of them that decide.
    """

    name: str
    source: str
    sha256: str
    kernel: str
    costs: str
    costs_sha256: str
    description: str
    metrics: tuple[str, ...]
    primary: tuple[str, ...]


class StudyPolicy(_Model):
    """A policy of the study.

    Attributes
    ----------
    name : str
        As it was asked for: what cells call it. ``mainline`` comes first.
    policies : str
        What it stands for, written in one way: sets replaced, sorted, options at their defaults left out.
    description : str
        One line; empty for what was composed on the command line.
    """

    name: str
    policies: str
    description: str


class Study(_Model):
    """What was asked for, ``study.json``.

    Attributes
    ----------
    format : int
        `FORMAT`.
    command : tuple of str
        What repeats it; where it writes, and how many processes it takes, are left out.
    scenarios, policies
        What was compared.
    seeds : tuple of int
        Each policy ran with every one of them.
    short : bool
        Whether short durations ran.
    duration, kernel : str or None
        In place of the scenarios'.
    overrides : dict
        ``--set`` values by key.
    least_effect : float
        Smallest effect that a verdict took for one that matters (`mmfw.compare.threshold`); 0 if there was no threshold.
    mmfw, python, numpy, numba, scipy : str
        Versions.
    distributions : dict of str to Distribution
        Core, and where plugins came from.
    """

    format: Literal[1]
    command: tuple[str, ...]
    scenarios: tuple[StudyScenario, ...]
    policies: tuple[StudyPolicy, ...]
    seeds: tuple[int, ...]
    short: bool
    duration: str | None
    kernel: str | None
    overrides: dict[str, Any]
    mmfw: str
    python: str
    numpy: str
    numba: str
    scipy: str
    distributions: dict[str, Distribution]
    least_effect: float = Field(default=0.0, ge=0, lt=1, allow_inf_nan=False)


class VsMainline(_Model):
    """A policy's runs against mainline's of the same seeds.

    Attributes
    ----------
    median_difference : float
        Median of the differences, policy less mainline.
    ci : (float, float) or None
        Its interval; None with fewer than 2 pairs.
    level : float or None
        Confidence that the interval has at least (`mmfw.compare.statistics`).
    ratio : float or None
        Median of the ratios, policy to mainline; None unless all values are positive.
    ratio_ci : (float, float) or None
        Its interval.
    nr_pairs : int
        Seeds for which both have a value.
    least_difference : float
        Smallest difference that the verdict takes for one that matters.
    nr_results : int or None
        Different pairs of results among those, by their digests. With one there are no intervals: the seed changed
        nothing, so that the pairs are one and the same. None in documents of versions that did not count.
    """

    median_difference: float
    ci: tuple[float, float] | None
    level: float | None
    ratio: float | None
    ratio_ci: tuple[float, float] | None
    nr_pairs: int
    least_difference: float = 0.0
    nr_results: int | None = None


class Cell(_Model):
    """One figure of one policy in one scenario.

    Attributes
    ----------
    scenario, policy, metric : str
        Whose.
    unit : str
        As printed.
    kind : str or None
        What sort of figure it is (`mmfw.figures.KINDS`); None in documents of versions that did not say.
    better : {"lower", "higher", "neither"}
        Which direction an improvement has.
    description : str
        What the metric is.
    primary : bool
        Whether it decides.
    seeds : tuple of int
        Seeds that ran.
    values : tuple of int, float or None
        For each of them; None where there was nothing to measure.
    median, ci, level
        Over the seeds that have a value; None if none has, and no interval with fewer than 2, or one result.
    nr_results : int or None
        Different results among the seeds that have a value, as for `VsMainline`.
    vs_mainline : VsMainline or None
        None for mainline, and without a pair.
    verdict : str or None
        What the interval says; None for mainline, and with fewer than 5 pairs.
    """

    scenario: str
    policy: str
    metric: str
    unit: str
    better: Better
    description: str
    primary: bool
    seeds: tuple[int, ...]
    values: tuple[Number, ...]
    median: Number
    ci: tuple[float, float] | None
    level: float | None
    vs_mainline: VsMainline | None
    verdict: Verdict | None
    kind: FigureKind | None = None
    nr_results: int | None = None


class Applicability(_Model):
    """Whether a policy changes anything in a scenario.

    Attributes
    ----------
    scenario, policy : str
        Of which.
    acts : bool
        False: mainline's runs stand for the policy's.
    runs_as : str
        Policies that ran, written in one way; without those that change nothing here.
    why : str
        Which were left out, and why; empty if none was.
    """

    scenario: str
    policy: str
    acts: bool
    runs_as: str
    why: str


class RunReference(_Model):
    """Where a run stands; several policies may share one.

    Attributes
    ----------
    scenario, policy : str
        As in cells.
    seed : int
        Seed.
    path : str
        Run directory, below the study's folder.
    digest : str
        Of its result.
    """

    scenario: str
    policy: str
    seed: int
    path: str
    digest: str


class MissingRun(_Model):
    """A run that failed: the error, and what repeats it."""

    scenario: str
    policy: str
    seed: int
    error: str
    command: str


class Comparison(_Model):
    """What came of a study, ``compare.json``."""

    format: Literal[1]
    study: Study
    method: str
    cells: tuple[Cell, ...]
    applicability: tuple[Applicability, ...]
    runs: tuple[RunReference, ...]
    missing: tuple[MissingRun, ...]
