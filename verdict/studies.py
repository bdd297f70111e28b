"""Which studies there are, and making them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import tomli
from pydantic import BaseModel, ConfigDict, Field

from mmfw.compare import CompareRequest
from mmfw.costs import describe

FILE: Final = Path(__file__).with_name("studies.toml")


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class StudySpec(_Model):
    """One study: a scenario, how it runs, and what is compared in it."""

    name: str
    scenario: str
    policies: tuple[str, ...]
    seeds: int | None = None
    duration: str | None = None
    kernel: str | None = None
    short: bool = False
    metrics: tuple[str, ...] = ()
    overrides: dict[str, Any] = Field(default_factory=dict, alias="set")


class Variation(_Model):
    """A parameter that no source gives, and what it is set to instead of ``note``."""

    key: str
    values: tuple[Any, ...]
    note: str


class CostVariation(_Model):
    """Costs of the profile that are estimates and belong together, and by what all of them are multiplied."""

    name: str
    costs: tuple[str, ...]
    factors: tuple[float, ...]


class Sensitivity(_Model):
    """Whether a study's outcome hangs on such parameters; `metric` is counted from ``from_seconds`` to the end."""

    scenario: str
    duration: str
    seeds: int
    metric: str
    from_seconds: float
    policies: tuple[str, ...]
    vary: tuple[Variation, ...]
    vary_costs: tuple[CostVariation, ...]


class Studies(_Model):
    """``studies.toml``."""

    seeds: int
    studies: tuple[StudySpec, ...]
    sensitivity: Sensitivity


@dataclass(frozen=True, slots=True)
class Varied:
    """A study with something varied: what, and to which value; both are for people."""

    parameter: str
    value: str
    spec: StudySpec


def load_studies() -> Studies:
    """Read ``studies.toml``."""
    return Studies.model_validate(tomli.loads(FILE.read_text(encoding="utf-8")))


def varied(sensitivity: Sensitivity) -> list[Varied]:
    """Studies of the sensitivity section, the unvaried one first."""

    def spec(name: str, overrides: dict[str, Any]) -> StudySpec:
        return StudySpec(
            name=name,
            scenario=sensitivity.scenario,
            policies=sensitivity.policies,
            seeds=sensitivity.seeds,
            duration=sensitivity.duration,
            metrics=(sensitivity.metric,),
            overrides=overrides,
        )

    found = [Varied("none", "", spec("vary-nothing", {}))]
    for each in sensitivity.vary:
        for value in each.values:
            name = f"vary-{each.key.rpartition('.')[2]}-{value}"
            found.append(Varied(f"`{each.key}` ({each.note})", str(value), spec(name, {each.key: value})))
    known = dict(describe("default"))
    for group in sensitivity.vary_costs:
        label = f"`cost_ns`, {group.name}: " + ", ".join(
            f"`{cost}` ({known[cost].ns})" for cost in group.costs
        )
        for factor in group.factors:
            changed = {f"cost_ns.{cost}": round(known[cost].ns * factor) for cost in group.costs}
            found.append(
                Varied(label, f"times {factor:g}", spec(f"vary-costs-{group.name}-{factor:g}", changed))
            )
    return found


def request_of(spec: StudySpec, seeds: int, out: Path, jobs: int) -> CompareRequest:
    """What `mmfw.compare.compare` is asked for."""
    return CompareRequest(
        scenarios=(spec.scenario,),
        policies=spec.policies,
        nr_seeds=spec.seeds or seeds,
        out=out / spec.name,
        jobs=jobs,
        short=spec.short,
        duration=spec.duration,
        kernel=spec.kernel,
        overrides=spec.overrides,
        metrics=spec.metrics,
    )
