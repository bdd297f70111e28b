"""Which plugins are installed, and how one of them is imported; knows entry points, not hooks.

Listing imports nothing of any plugin: a record is what the installed metadata says. Importing happens for
one record at a time, so a broken plugin is an error about that plugin and about no other.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Final

import importlib_metadata

from mmfw.errors import InputError, PluginError, did_you_mean

#: Groups whose entry points implement hooks; their short names share one namespace.
PLUGIN_GROUPS: Final = ("mmfw.shrinkers", "mmfw.policies", "mmfw.workloads")
#: Groups that are read, or imported on use, by the command they serve; each is a namespace of its own.
RESOURCE_GROUPS: Final = ("mmfw.scenarios", "mmfw.policy_sets", "mmfw.experiments", "mmfw.commands")
#: What `PluginInfo.kind` says in each group.
KIND_OF_GROUP: Final = {"mmfw.shrinkers": "shrinker", "mmfw.policies": "policy", "mmfw.workloads": "workload"}


def short_name(word: str) -> str:
    """Plugin name as shown everywhere; folders and modules spell it with underscores.

    Examples
    --------
    >>> short_name("opportunistic_compaction")
    'opportunistic-compaction'
    """
    return word.strip().replace("_", "-")


@dataclass(frozen=True, slots=True)
class PluginRecord:
    """One plugin on offer, not yet imported.

    Attributes
    ----------
    name : str
        Short name.
    group : str
        Entry-point group; empty for a plugin file.
    target : str
        ``module`` or ``module:attribute``; the path of a plugin file.
    distribution, version : str
        Where it comes from; both empty for a plugin file.
    """

    name: str
    group: str
    target: str
    distribution: str = ""
    version: str = ""

    @property
    def origin(self) -> str:
        """Where it comes from, as error messages say it."""
        if not self.group:
            return f"plugin file {self.target}"
        return f"distribution {self.distribution} {self.version}".rstrip()


#: Mainline is part of the core, so no metadata needs to announce it.
MAINLINE: Final = PluginRecord("mainline", "mmfw.policies", "mmfw.mainline", "mmfw")


def discover(groups: Iterable[str] = PLUGIN_GROUPS) -> tuple[PluginRecord, ...]:
    """Records of everything installed in `groups`, by name, then group, then distribution.

    Imports no plugin. Two distributions that offer one name both appear; `only_record` refuses them.
    """
    wanted = tuple(groups)
    found = [MAINLINE] if MAINLINE.group in wanted else []
    for group in wanted:
        for entry in importlib_metadata.entry_points(group=group):
            dist = entry.dist
            where = ("", "") if dist is None else (str(dist.name), str(dist.version))
            found.append(PluginRecord(short_name(entry.name), group, entry.value.strip(), *where))
    return tuple(sorted(found, key=lambda r: (r.name, r.group, r.distribution, r.target)))


def only_record(name: str, records: Iterable[PluginRecord], *, wanted_by: str | None = None) -> PluginRecord:
    """Record called `name` among `records`.

    Parameters
    ----------
    name : str
        Short name; underscores are read as hyphens.
    wanted_by : str, optional
        Plugin that needs it, for the message.

    Raises
    ------
    InputError
        None is called so, or more than one is.
    """
    on_offer = tuple(records)
    wanted = short_name(name)
    named = [record for record in on_offer if record.name == wanted]
    if not named:
        who = (
            f"no plugin {wanted!r}"
            if wanted_by is None
            else f"plugin {wanted_by} needs {wanted!r}: no such plugin"
        )
        raise InputError(f"{who}; {did_you_mean(wanted, {record.name for record in on_offer})}")
    if len(named) > 1:
        both = " and ".join(f"{record.origin} ({record.target})" for record in named)
        raise InputError(f"plugin {wanted!r} is offered twice, by {both}; uninstall or rename one")
    return named[0]


def summary_of(record: PluginRecord) -> str:
    """What the distribution of a plugin says of itself in one line; empty if it says nothing."""
    try:
        return str(importlib_metadata.metadata(record.distribution).get("Summary") or "")
    except importlib_metadata.PackageNotFoundError:
        return ""


def file_record(path: str | Path) -> PluginRecord:
    """Record of a single-file prototype; its name is the file's stem until ``MMFW_PLUGIN`` says another.

    Raises
    ------
    InputError
        The file does not exist, or its stem cannot be a plugin's name.
    """
    file = Path(path)
    try:
        there = file.is_file()
    except OSError as fault:
        raise InputError(f"no such plugin file: {fault.strerror}", file=f"{file!s:.80}") from None
    if not there:
        raise InputError("no such plugin file", file=str(file))
    name = short_name(file.stem)
    if not name.replace("-", "_").isidentifier() or file.suffix != ".py":
        raise InputError(
            "a plugin file is a Python file named as a module, such as my_policy.py", file=str(file)
        )
    return PluginRecord(name, "", str(file))


#: Characters of an exception's message that are shown.
LONGEST_MESSAGE: Final = 300


def one_line(exc: BaseException) -> str:
    r"""Type and message of an exception in one line.

    Examples
    --------
    >>> one_line(ValueError("first\n  second"))
    'ValueError: first second'
    """
    try:
        text = " ".join(str(exc).split())
    except Exception:
        text = "(its message cannot be read)"
    if len(text) > LONGEST_MESSAGE:
        text = text[:LONGEST_MESSAGE] + " ..."
    return f"{type(exc).__name__}: {text}" if text else type(exc).__name__


def _run_file(path: Path) -> ModuleType:
    # Compiled here and not by the import system: an edit within one second must not meet stale bytecode.
    module = ModuleType(f"mmfw_plugin_file_{path.stem}")
    module.__file__ = str(path)
    # A dataclass looks its module up here while its class statement runs.
    sys.modules[module.__name__] = module
    exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)
    return module


def import_target(record: PluginRecord) -> tuple[ModuleType, object]:
    """Import what a record names: its module, and the object the entry point points at.

    Raises
    ------
    PluginError
        Anything at all goes wrong; the message names distribution, module, exception type and text.
    """
    module_name, _, attribute = (part.strip() for part in record.target.partition(":"))
    try:
        if not record.group:
            module = _run_file(Path(record.target))
            return module, module
        module = importlib.import_module(module_name)
        target: object = module
        for part in attribute.split(".") if attribute else ():
            target = getattr(target, part)
        return module, target
    except (Exception, SystemExit) as exc:
        what = "" if not record.group else f" of {record.origin}"
        place = f"plugin file {record.target}" if not record.group else f"module {module_name}"
        raise PluginError(f"{place}{what} cannot be imported: {one_line(exc)}", plugin=record.name) from exc
