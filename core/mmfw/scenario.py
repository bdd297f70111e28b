"""A scenario: one TOML file that says what machine, which state, what load, and what is measured.

Scenarios ship with plugins as resources of the entry-point group ``mmfw.scenarios`` and are read without importing
the plugin. Every key is validated; an unknown one is refused with the nearest known name.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, get_args

import tomli
from importlib_metadata import entry_points
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mmfw.costs import profile
from mmfw.errors import InputError, did_you_mean
from mmfw.mm.sysctl import SysctlVm
from mmfw.resources import package_files

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

GROUP: Final = "mmfw.scenarios"
_NS: Final = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000, "min": 60_000_000_000}

#: A virtual day.
MAX_DURATION_NS: Final = 86_400_000_000_000

Count = Annotated[int, Field(ge=0, le=1 << 40)]
ZoneName = Literal["DMA", "DMA32", "Normal"]
Buddyinfo = Annotated[list[Count], Field(min_length=11, max_length=11)]


def parse_duration(text: str) -> int:
    """Nanoseconds of a duration such as ``60s`` or ``1500ms``.

    Raises
    ------
    InputError
        It is none, or not positive.
    """
    match = re.fullmatch(r"\s*([0-9]{1,12}(?:\.[0-9]{1,9})?)\s*(ns|us|ms|s|min)\s*", text)
    if match is None:
        raise InputError(f"{text!r} is no duration; write one like 60s, 1500ms or 2min")
    whole, _, part = match[1].partition(".")
    unit = _NS[match[2]]
    ns = int(whole) * unit + (int(part) * unit // 10 ** len(part) if part else 0)
    if ns <= 0:
        raise InputError(f"duration {text!r} is not positive")
    if ns > MAX_DURATION_NS:
        raise InputError(f"duration {text!r} is too long; a run lasts 1440min at the most")
    return ns


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class InitialState(_Model):
    """What memory looks like when the run starts; without it the machine is freshly booted."""

    buddyinfo: dict[ZoneName, Buddyinfo] = Field(
        default_factory=dict, description="free blocks by order 0..10; a zone not named stays as after boot"
    )
    unmovable_block_fraction: float = Field(
        0.3, ge=0, le=1, description="share of pageblocks that are Unmovable; free blocks are split alike"
    )
    page_cache_pages: Count = Field(0, description="allocated pages that are clean page cache")
    fragmentation: Literal["given", "none"] = Field(
        "given", description="none: as many free pages in each zone of buddyinfo, but in the largest blocks"
    )


class VmSettings(_Model):
    """``sysctl vm.*``: a key left out keeps the kernel's default."""

    compaction_proactiveness: int = Field(20, ge=0, le=100, description="0 switches proactive compaction off")
    dirty_background_ratio: int = Field(10, ge=0, le=100, description="percent at which the flusher starts")
    dirty_ratio: int = Field(20, ge=0, le=100, description="percent at which writers wait")
    extfrag_threshold: int = Field(
        500, ge=0, le=1000, description="fragmentation index up to which a costly request is left to reclaim"
    )
    page_cluster: int = Field(
        3, ge=0, le=31, description="swap-in reads up to 2 to this power of pages at once"
    )
    swappiness: int = Field(60, ge=0, le=200, description="how readily anonymous memory is reclaimed")
    watermark_boost_factor: int | None = Field(
        None, ge=0, le=1_000_000, description="ten-thousandths of the high watermark; 0 switches boosts off"
    )

    def sysctls(self) -> SysctlVm:
        """What the machine is given."""
        return SysctlVm(**self.model_dump())


class Phase(_Model):
    """A part of a run; phases follow one another."""

    name: str = Field(pattern=r"^[a-z][a-z0-9-]*$")
    duration: str | None = Field(
        None, description="virtual time; without it the phase ends when its workloads have returned"
    )
    short_duration: str | None = Field(None, description="in place of duration with --short")

    def duration_ns(self, *, short: bool) -> int | None:
        """Its length, ns; None if it ends by itself."""
        text = (self.short_duration if short else None) or self.duration
        return None if text is None else parse_duration(text)


class WorkloadSpec(_Model):
    """One kind of task."""

    name: str = Field(description="a workload that a loaded plugin offers")
    count: int = Field(1, ge=1, le=10_000, description="how many tasks run it")
    params: dict[str, Any] = Field(default_factory=dict, description="its parameters")
    phase: str | None = Field(
        None, description="runs in this phase only; without it from the start to the end"
    )


class Scenario(_Model):
    """A whole scenario."""

    name: str = Field(pattern=r"^[a-z][a-z0-9-]*$")
    description: str
    kernel: Literal["6.1", "7.1", "7.2"] = "6.1"
    plugins: list[str]
    machine: str = Field(description="RAM size, or a folder of copied /proc files beside this file")
    nr_cpus: int = Field(1, ge=1, le=64)
    nr_swap_pages: Count = Field(0, description="size of the swap device, pages")
    costs: str = Field("default", description="profile of what work costs in virtual time")
    cost_ns: dict[str, Count] = Field(
        default_factory=dict,
        description="costs in place of the profile's, ns, as --set cost_ns.gpu_job=500000",
    )
    duration: str = "60s"
    short_duration: str = "5s"
    vm: VmSettings = Field(default_factory=VmSettings, description="sysctls, as --set vm.swappiness=10")
    state: InitialState = Field(default_factory=InitialState)
    params: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="plugin parameters, by short name"
    )
    workloads: list[WorkloadSpec] = Field(default_factory=list)
    phases: list[Phase] = Field(default_factory=list, description="the run ends with the last one")
    knobs: dict[str, str | list[str]] = Field(
        default_factory=dict,
        description="short names for --set: the dotted key, or keys, that each stands for",
    )
    progress: str | None = Field(None, description="counter metric that is the load's forward progress")
    default_for: list[str] = Field(
        default_factory=list,
        description="run this scenario when these plugins are asked for and none is named",
    )
    metrics: list[str] = Field(default_factory=list, description="shown first; all are in the JSON")
    primary: list[str] = Field(
        default_factory=list,
        description="figures that decide between policies; without it the first of metrics",
    )
    comparable: bool = Field(
        True, description="false: not among those that mmfw compare all compares, such as a capture's load"
    )

    @model_validator(mode="after")
    def _phases_fit(self) -> Scenario:
        try:
            profile(self.costs, self.cost_ns)
        except InputError as fault:
            raise ValueError(str(fault)) from None
        names = [phase.name for phase in self.phases]
        doubled = next((name for name in names if names.count(name) > 1), None)
        if doubled is not None:
            raise ValueError(f"phases: two are named {doubled!r}")
        for load in self.workloads:
            if load.phase is not None and load.phase not in names:
                raise ValueError(
                    f"workload {load.name}: no phase {load.phase!r}; {did_you_mean(load.phase, names)}"
                )
        for phase in self.phases:
            if phase.duration is None and all(load.phase != phase.name for load in self.workloads):
                raise ValueError(
                    f"phase {phase.name!r} has neither a duration nor a workload that would end it"
                )
        for knob, keys in self.knobs.items():
            if not keys or (isinstance(keys, list) and not all(keys)):
                raise ValueError(f"knobs.{knob}: it stands for nothing; name a key such as workloads.0.count")
            if knob in Scenario.model_fields:
                raise ValueError(f"knobs.{knob}: the scenario has a key of that name; choose another")
        for text in (self.duration, self.short_duration):
            _duration_or_value_error(text)
        for phase in self.phases:
            for each in (phase.duration, phase.short_duration):
                if each is not None:
                    _duration_or_value_error(each)
        return self


def _duration_or_value_error(text: str) -> None:
    try:
        parse_duration(text)
    except InputError as fault:
        raise ValueError(str(fault)) from None


def _model_at(loc: tuple[Any, ...]) -> type[BaseModel] | None:
    """The model that holds the key at a place, through lists of models too."""
    model: type[BaseModel] = Scenario
    for part in loc[:-1]:
        if isinstance(part, int):
            continue
        field = model.model_fields.get(str(part))
        if field is None:
            return None
        inner = [field.annotation, *get_args(field.annotation)]
        found = next((each for each in inner if isinstance(each, type) and issubclass(each, BaseModel)), None)
        if found is None:
            return None
        model = found
    return model


def _describe(fault: ErrorDetails) -> str:
    where = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        model = _model_at(fault["loc"])
        known = () if model is None else tuple(model.model_fields)
        return f"{where}: no such key; {did_you_mean(str(fault['loc'][-1]), known)}"
    if fault["type"] == "missing":
        return f"{where}: this key is missing"
    message = fault["msg"].removeprefix("Value error, ")
    return f"{where}: {message} (it is {_short(fault['input'])})" if where else message


def _short(value: object) -> str:
    """A value as a message shows it; Python refuses to print integers of thousands of digits."""
    try:
        return f"{value!r:.60}"
    except ValueError:
        return "an integer of thousands of digits"


def _line_of(text: str, loc: tuple[Any, ...]) -> int | None:
    """Line on which a key stands, as well as plain text tells."""
    names = [str(part) for part in loc if not isinstance(part, int)]
    if not names:
        return None
    key = re.escape(names[-1])
    for number, line in enumerate(text.splitlines(), 1):
        if re.match(rf"\s*(\[+\s*([\w.-]*\.)?{key}\s*\]+|{key}\s*=|\"{key}\"\s*=)", line):
            return number
    return None


def parse_scenario(text: str, file: str, overrides: dict[str, Any] | None = None) -> Scenario:
    """Validate the text of a scenario.

    Parameters
    ----------
    text : str
        TOML.
    file : str
        Name for messages.
    overrides : dict, optional
        Values by dotted key that replace the file's (``--set``).

    Raises
    ------
    InputError
        Not TOML, or a key is unknown or wrong; names file, line and key.
    """
    try:
        data = tomli.loads(text)
    except tomli.TOMLDecodeError as fault:
        found = re.search(r"line (\d+)", str(fault))
        raise InputError(f"not TOML: {fault}", file=file, line=int(found[1]) if found else None) from None
    except (RecursionError, ValueError) as fault:  # nested too deep, or an integer of thousands of digits
        raise InputError(f"not TOML that can be read: {fault}", file=file) from None
    for key, value in (overrides or {}).items():
        _override(data, key, value)
    try:
        return Scenario.model_validate(data)
    except ValidationError as fault:
        # A misspelt key explains the missing one, not the other way round.
        first = min(fault.errors(), key=lambda each: each["type"] != "extra_forbidden")
        message = _describe(first)
        raise InputError(message, file=file, line=_line_of(text, first["loc"])) from None


def _override(data: dict[str, Any], key: str, value: Any, within: tuple[str, ...] = ()) -> None:
    """Put a value at a dotted key; ``xe.n`` means ``params.xe.n``.

    A bare name is a knob of the scenario, one of its own keys, or stands for that key wherever the file has it: in the
    parameters of workloads and plugins, and for any key of the state.
    """
    knobs = data.get("knobs", {})
    knobs = knobs if isinstance(knobs, dict) else {}
    meant = knobs.get(key)
    if isinstance(meant, str):
        meant = [] if meant == key else [meant]
    if isinstance(meant, list) and meant:
        if key in within:
            raise InputError(f"--set {within[0]}: knob {key!r} stands for itself")
        for each in meant:
            _override(data, str(each), value, (*within, key))
        return
    parts = key.split(".")
    if len(parts) == 1 and key not in Scenario.model_fields:
        tables = _tables_with(data, key)
        if not tables:
            known = {p for table in _parameter_tables(data) for p in table}
            known |= {*Scenario.model_fields, *InitialState.model_fields, *knobs}
            raise InputError(f"--set {key}: no such parameter; {did_you_mean(key, known)}")
        for table in tables:
            table[key] = value
        return
    if parts[0] not in Scenario.model_fields:
        parts = ["params", *parts]
    at: Any = data
    for part in parts[:-1]:
        if isinstance(at, list):
            at = at[int(part)] if part.isdigit() and int(part) < len(at) else None
        else:
            at = at.setdefault(part, {}) if isinstance(at, dict) else None
        if at is None:
            raise InputError(f"--set {key}: {part!r} is not there")
    if not isinstance(at, dict):
        raise InputError(f"--set {key}: {'.'.join(parts[:-1])} is not a table")
    at[parts[-1]] = value


def _parameter_tables(data: dict[str, Any]) -> list[dict[str, Any]]:
    """Tables of parameters of a scenario that may be malformed: what is no table is passed over."""
    loads = data.get("workloads", [])
    plugins = data.get("params", {})
    found = (
        [load.get("params") for load in loads if isinstance(load, dict)] if isinstance(loads, list) else []
    )
    found += list(plugins.values()) if isinstance(plugins, dict) else []
    return [table for table in found if isinstance(table, dict)]


def _tables_with(data: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """Tables that a bare key of ``--set`` means."""
    loads = data.get("workloads", [])
    if key == "count" and isinstance(loads, list):
        return [load for load in loads if isinstance(load, dict)]
    tables = [table for table in _parameter_tables(data) if key in table]
    if key in InitialState.model_fields:
        state = data.setdefault("state", {})
        tables += [state] if isinstance(state, dict) else []
    return tables


def parse_set(text: str) -> tuple[str, Any]:
    """Key and value of ``--set KEY=VALUE``; the value as TOML reads it, a bare word as a string.

    Raises
    ------
    InputError
        There is no ``=`` or no key.
    """
    key, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z0-9_.-]+", key):
        raise InputError(f"--set {text!r}: write KEY=VALUE, such as clients=20")
    try:
        return key, tomli.loads(f"v = {value}")["v"]
    except tomli.TOMLDecodeError:
        return key, value
    except (RecursionError, ValueError) as fault:
        raise InputError(f"--set {key}: cannot be read: {fault}") from None


class ScenarioFile(_Model):
    """Where a scenario's text is."""

    name: str
    origin: str
    text: str
    path: str


def find_scenarios() -> dict[str, ScenarioFile]:
    """All installed scenarios by name; no plugin is imported.

    An entry point of the group names a package folder of ``*.toml`` resources: ``pkg.sub:`` or ``pkg``.
    """
    found: dict[str, ScenarioFile] = {}
    for entry in sorted(entry_points(group=GROUP), key=lambda e: (e.dist.name if e.dist else "", e.name)):
        for path in package_files(entry.value, "*.toml"):
            name = path.stem
            found.setdefault(
                name,
                ScenarioFile(
                    name=name,
                    origin=entry.dist.name if entry.dist else entry.name,
                    text=path.read_text(encoding="utf-8"),
                    path=str(path),
                ),
            )
    return dict(sorted(found.items()))


def scenario_file(name: str) -> ScenarioFile:
    """Text of a scenario, by installed name or by path to a file that ends in ``.toml``.

    Raises
    ------
    InputError
        There is none of that name (the nearest is suggested), or it cannot be read.
    """
    if name.endswith(".toml"):
        path = Path(name)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as fault:
            raise InputError(f"cannot be read: {fault}", file=name) from None
        return ScenarioFile(name=path.stem, origin="", text=text, path=name)
    known = find_scenarios()
    if name not in known:
        raise InputError(f"no scenario {name!r}; {did_you_mean(name, known)}")
    return known[name]


def load_scenario(name: str, overrides: dict[str, Any] | None = None) -> Scenario:
    """A scenario by installed name, or by path to a file that ends in ``.toml``.

    Raises
    ------
    InputError
        There is none of that name (the nearest is suggested), or it is wrong.
    """
    found = scenario_file(name)
    return parse_scenario(found.text, found.path, overrides)
