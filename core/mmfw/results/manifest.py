"""``manifest.json``: everything that a run depends on, and what identifies its result."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, fields
from functools import lru_cache
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import BaseModel, ConfigDict

from mmfw.errors import InputError

if TYPE_CHECKING:
    from mmfw.costs import CostProfile
    from mmfw.registry import LoadedPlugin, LoadedPlugins

#: Version of the folder's format.
FORMAT: Final = 1
#: Rooms of core that no run depends on: a change there leaves results valid.
_OUTSIDE: Final = frozenset(
    {"cli", "compare", "proc", "replay", "report", "results", "sweep", "testing", "tracing", "validate"}
)


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Distribution(_Model):
    """One installed distribution that took part.

    Attributes
    ----------
    version : str
        As installed.
    sha256 : str
        Of its Python sources, by path: an editable one changes without its version.
    """

    version: str
    sha256: str


class RunInputs(_Model):
    """All that a run depends on: two runs with equal inputs have equal digests.

    Attributes
    ----------
    format : int
        `FORMAT`.
    mmfw : str
        Version of core.
    distributions : dict of str to Distribution
        Core, and where each plugin came from.
    python, numpy, numba : str
        Versions.
    scenario, scenario_toml, scenario_sha256 : str
        Name, text, and the text's digest.
    costs, costs_sha256 : str
        Name of the cost profile, and the digest of its figures.
    kernel, machine : str
        Kernel profile; RAM size, or the name of the machine's files.
    machine_sha256 : str or None
        Of the machine's files, if it was given as such.
    nr_cpus : int
        CPUs.
    plugins : tuple of str
        Loaded, needs first.
    plugin_files : dict of str to str
        SHA-256 of single-file prototypes, by short name.
    policies : tuple of str
        Options behind colons; empty for mainline.
    overrides : dict
        ``--set`` values by key.
    seed : int
        Seed.
    short : bool
        Whether short durations ran.
    duration : str or None
        In place of the scenario's.
    """

    format: Literal[1]
    mmfw: str
    distributions: dict[str, Distribution]
    python: str
    numpy: str
    numba: str
    scenario: str
    scenario_toml: str
    scenario_sha256: str
    costs: str
    costs_sha256: str
    kernel: str
    machine: str
    machine_sha256: str | None
    nr_cpus: int
    plugins: tuple[str, ...]
    plugin_files: dict[str, str]
    policies: tuple[str, ...]
    overrides: dict[str, Any]
    seed: int
    short: bool
    duration: str | None


class Manifest(RunInputs):
    """The inputs, and what identifies the result.

    Attributes
    ----------
    command : tuple of str
        What repeats the run; where it writes is left out.
    digest : str
        Of the result (`mmfw.result.RunResult`).
    virtual_ns : int
        Virtual time run.
    wall_seconds : float
        Real time it took; the only value here that differs from run to run.
    validated : str
        What of it has been held against a real kernel.
    recorded : tuple of str
        Files of the folder beside this one.
    """

    command: tuple[str, ...]
    digest: str
    virtual_ns: int
    wall_seconds: float
    validated: str
    recorded: tuple[str, ...]

    def inputs(self) -> RunInputs:
        """What the run depended on, alone."""
        return RunInputs(**{name: getattr(self, name) for name in RunInputs.model_fields})


def sha256_text(text: str) -> str:
    """SHA-256 of a text in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_file(path: Path) -> str:
    """SHA-256 of a file, or of all files of a folder with their relative names.

    Raises
    ------
    InputError
        It cannot be read.
    """
    try:
        if path.is_file():
            return hashlib.sha256(path.read_bytes()).hexdigest()
        digest = hashlib.sha256()
        for file in sorted(each for each in path.rglob("*") if each.is_file()):
            digest.update(f"{file.relative_to(path)} {sha256_file(file)}\n".encode())
        return digest.hexdigest()
    except OSError as fault:
        raise InputError(f"cannot be read: {fault.strerror}", file=str(path)) from None


def sha256_costs(profile: CostProfile) -> str:
    """SHA-256 of a table of costs, its name included; costs that it leaves at 0, as not told apart, are no part of it."""
    apart = {field.name for field in fields(profile) if field.default == 0}
    table = {cost: ns for cost, ns in asdict(profile).items() if ns or cost not in apart}
    return sha256_text(json.dumps(table, sort_keys=True))


@lru_cache(maxsize=64)
def _sha256_sources(folder: str, outside: frozenset[str]) -> str:
    """SHA-256 of a package's Python files; read once a process, as the modules are."""
    root = Path(folder)
    files = {
        file.relative_to(root).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in root.rglob("*.py")
    }
    return _digest_of(files, outside)


def _digest_of(files: Mapping[str, str], outside: frozenset[str]) -> str:
    digest = hashlib.sha256()
    for inner in sorted(map(PurePosixPath, files)):
        if inner.parts[0].removesuffix(".py") not in outside:
            digest.update(f"{inner} {files[str(inner)]}\n".encode())
    return digest.hexdigest()


def core_digest(files: Mapping[str, str]) -> str:
    """What `Distribution.sha256` of core is for such sources.

    Parameters
    ----------
    files : mapping of str to str
        SHA-256 of each Python file, by its path below the package.
    """
    return _digest_of(files, _OUTSIDE)


def _package_of(plugin: LoadedPlugin) -> Path | None:
    import sys

    top = sys.modules.get(plugin.module.partition(".")[0])
    file = None if top is None else top.__file__
    return None if file is None else Path(file).parent if file.endswith("__init__.py") else Path(file)


def version_of(name: str) -> str:
    """Version of an installed distribution, or ``unknown``."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "unknown"


def distributions_of(plugins: LoadedPlugins) -> dict[str, Distribution]:
    """Core, and the distributions of loaded plugins, by name."""
    import mmfw

    core = Path(str(mmfw.__file__)).parent
    found = {
        "mmfw": Distribution(version=version_of("mmfw"), sha256=_sha256_sources(str(core), _OUTSIDE)),
    }
    for plugin in plugins.plugins:
        record = plugin.record
        if not record.distribution or record.distribution in found:
            continue
        place = _package_of(plugin)
        sha = "" if place is None else _sources(place)
        found[record.distribution] = Distribution(version=record.version, sha256=sha)
    return dict(sorted(found.items()))


def _sources(place: Path) -> str:
    return sha256_file(place) if place.is_file() else _sha256_sources(str(place), frozenset())


def plugin_files_of(plugins: LoadedPlugins) -> dict[str, str]:
    """Digests of single-file prototypes, by short name."""
    return {
        plugin.name: sha256_file(Path(plugin.record.target))
        for plugin in plugins.plugins
        if not plugin.record.group
    }


def interpreter_versions() -> dict[str, str]:
    """Versions of what computes: ``python``, ``numpy``, ``numba``."""
    return {
        "python": platform.python_version(),
        "numpy": version_of("numpy"),
        "numba": version_of("numba"),
    }
