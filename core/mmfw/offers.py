"""What a plugin offers to assembly: what it is, its workloads, its metrics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from pydantic import BaseModel

    from mmfw.mm.core import Mm

MetricKind = Literal["counter", "gauge", "ratio"]
Better = Literal["lower", "higher", "neither"]
FigureKind = Literal["count", "failure", "time", "duration", "level", "rate", "share", "ratio"]
PluginKind = Literal["shrinker", "policy", "workload", "experiment"]


def _checked(value: object, field: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{field} is {value!r}; one of {', '.join(allowed)} is wanted")


@dataclass(frozen=True, slots=True)
class Workload:
    """A load that runs as one task on virtual time; returned by `mmfw_register_workloads`.

    Attributes
    ----------
    name : str
        Hyphenated, what a scenario writes; no two loaded plugins may share one.
    description : str
        One line for ``mmfw plugins info``.
    run : callable
        ``run(mm, params)``; a random stream of its own comes from ``mm.rng(name)``.
    params : type of pydantic model, optional
        Keys a scenario's phase may set; None if there are none.
    """

    name: str
    description: str
    run: Callable[[Mm, Any], None]
    params: type[BaseModel] | None = None


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure of a run's result; returned by `mmfw_register_metrics`.

    Attributes
    ----------
    name : str
        Begins with the plugin's short name, underscored: ``xe_bo_evictions``.
    unit : str
        As printed: ``pages``, ``ns``, ``1``.
    kind : {"counter", "gauge", "ratio"}
        A counter only grows; a gauge is a value at a moment; a ratio is a float and stays out of the digest.
    better : {"lower", "higher", "neither"}
        Which direction an improvement has.
    description : str
        One sentence: what is counted, where.
    read : callable
        ``read(mm)`` gives the value; called at every sample and once at the end.
    each_matters : bool
        Of a counter: that a single one is news, as of failures; `mmfw compare` then calls no number of them too few.
    """

    name: str
    unit: str
    kind: MetricKind
    better: Better
    description: str
    read: Callable[[Mm], int | float]
    each_matters: bool = False

    def __post_init__(self) -> None:
        _checked(self.kind, "kind", get_args(MetricKind))
        _checked(self.better, "better", get_args(Better))
        if self.each_matters and self.kind != "counter":
            raise ValueError(f"each_matters is of counters; {self.name} is a {self.kind}")


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """The ``MMFW_PLUGIN`` constant of a plugin, read before anything of it is registered.

    Attributes
    ----------
    name : str
        Short hyphenated name, the same as the entry point's.
    hook_api : (int, int)
        Hook API the plugin was written against.
    needs, conflicts : tuple of str
        Short names of plugins that must, or must not, be loaded with it.
    kind : {"shrinker", "policy", "workload", "experiment"}
        What it is.
    composes_with : tuple of str
        Plugins that answer the same decision and have been made to work with this one; both must say so.
    acts_on : tuple of str
        Short names of plugins without one of which it changes nothing; empty if it acts in every run.
    """

    name: str
    hook_api: tuple[int, int]
    needs: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()
    kind: PluginKind = "shrinker"
    composes_with: tuple[str, ...] = ()
    acts_on: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _checked(self.kind, "kind", get_args(PluginKind))
        name: object = self.name
        if not isinstance(name, str) or not name.replace("-", "_").isidentifier():
            raise TypeError(f"name is {name!r}; a short hyphenated name such as 'xe' is wanted")
        api: object = self.hook_api
        if not (isinstance(api, tuple) and len(api) == 2 and all(type(part) is int for part in api)):
            raise TypeError(f"hook_api is {api!r}; a pair such as (1, 0) is wanted")
        for each in fields(self):
            value: object = getattr(self, each.name)
            if each.name not in ("needs", "conflicts", "composes_with", "acts_on"):
                continue
            if not isinstance(value, tuple) or not all(isinstance(one, str) for one in value):
                raise TypeError(f'{each.name} is {value!r}; a tuple of names such as ("ttm",) is wanted')
