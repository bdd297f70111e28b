"""Loading: selected names become plugins whose hooks have been checked, in the order they were asked for.

Needs come before what needs them; conflicts, unknown names, other hook APIs and wrong signatures are
refused here, before anything of a plugin runs besides its import. pluggy sees a plugin only after that.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import pluggy

from mmfw import hookspecs, mainline
from mmfw.discovery import (
    KIND_OF_GROUP,
    MAINLINE,
    PluginRecord,
    discover,
    file_record,
    import_target,
    one_line,
    only_record,
    short_name,
)
from mmfw.errors import InputError, PluginError, did_you_mean
from mmfw.offers import PluginInfo
from mmfw.registry import Implementation, LoadedPlugin, LoadedPlugins, guarded

__all__ = ["LoadedPlugin", "LoadedPlugins", "check_plugin", "discover", "load"]

PREFIX: Final = "mmfw_"
Specs = Mapping[str, Callable[..., Any]]


def _new_manager() -> tuple[pluggy.PluginManager, dict[str, Callable[..., Any]]]:
    """Manager that knows mmfw's own hookspecs, and these by name in the order of hookspecs.py."""
    manager = pluggy.PluginManager("mmfw")
    manager.add_hookspecs(hookspecs)
    specs = {
        name: cast("Callable[..., Any]", spec)
        for name, spec in vars(hookspecs).items()
        if manager.parse_hookspec_opts(hookspecs, name) is not None
    }
    return manager, specs


# --- opening one plugin ------------------------------------------------------------------------------


def _check_hook_api(info: PluginInfo) -> None:
    theirs, ours = info.hook_api, hookspecs.HOOK_API
    if theirs[0] == ours[0] and theirs[1] <= ours[1]:
        return
    remedy = "a newer mmfw" if theirs > ours else "a newer version of the plugin"
    raise PluginError(
        f"written for hook API {theirs[0]}.{theirs[1]}, this mmfw has {ours[0]}.{ours[1]}; install {remedy}",
        plugin=info.name,
    )


def implementations(plugin: object) -> tuple[Implementation, ...]:
    """Everything on `plugin` that is marked ``@hookimpl``, by name."""
    reader = pluggy.PluginManager("mmfw")
    found = []
    for name in dir(plugin):
        options = reader.parse_hookimpl_opts(plugin, name)
        if options is not None:
            found.append(
                Implementation(
                    hook=options.get("specname") or name,
                    function=getattr(plugin, name),
                    wrapper=bool(options.get("wrapper") or options.get("hookwrapper")),
                    optional=bool(options.get("optionalhook")),
                )
            )
    return tuple(found)


def _info_of(record: PluginRecord, module: object, target: object) -> PluginInfo:
    info = getattr(target, "MMFW_PLUGIN", getattr(module, "MMFW_PLUGIN", None))
    if info is None and not record.group:
        return PluginInfo(record.name, hookspecs.HOOK_API, kind="policy")
    if not isinstance(info, PluginInfo):
        raise PluginError(
            f"{record.target} has no MMFW_PLUGIN; add "
            f'MMFW_PLUGIN = PluginInfo(name="{record.name}", hook_api={hookspecs.HOOK_API})',
            plugin=record.name,
        )
    if record.group and info.name != record.name:
        raise PluginError(
            f"MMFW_PLUGIN says name={info.name!r} and the entry point of {record.origin} {record.name!r}; "
            "both must be the same",
            plugin=record.name,
        )
    if record.group and info.kind != KIND_OF_GROUP[record.group]:
        raise PluginError(
            f"MMFW_PLUGIN says kind={info.kind!r}, the entry point of {record.origin} is in {record.group}",
            plugin=record.name,
        )
    return info


def open_plugin(record: PluginRecord) -> LoadedPlugin:
    """Import one plugin and read what it says of itself; nothing is registered.

    Raises
    ------
    PluginError
        It cannot be imported, says nothing or something else of itself, or wants another hook API.
    """
    module, target = import_target(record)
    info: PluginInfo = guarded(_info_of, record.name, "MMFW_PLUGIN")(record, module, target)
    _check_hook_api(info)
    plugin = guarded(target, info.name, "__init__")() if inspect.isclass(target) else target
    return LoadedPlugin(record, info, plugin, guarded(implementations, info.name, "hooks")(plugin))


# --- selection ---------------------------------------------------------------------------------------


def _select(names: Iterable[str], files: Iterable[str | Path]) -> list[LoadedPlugin]:
    """Selected plugins and what they need: needs first, otherwise in the order asked for."""
    opened: dict[str, LoadedPlugin] = {}
    for path in files:
        loaded = open_plugin(file_record(path))
        if loaded.name in opened:
            both = f"{opened[loaded.name].record.target} and {loaded.record.target}"
            raise InputError(f"plugin files {both} are both named {loaded.name!r}; rename one")
        opened[loaded.name] = loaded
    on_offer = [*(PluginRecord(name, "", each.record.target) for name, each in opened.items()), *discover()]
    chosen: dict[str, LoadedPlugin] = {}
    under_way: list[str] = []

    def take(name: str, wanted_by: str | None) -> None:
        record = only_record(name, on_offer, wanted_by=wanted_by)
        if record.name in chosen or record == MAINLINE:
            return
        if record.name in under_way:
            raise InputError(f"plugins need each other in a circle: {' -> '.join([*under_way, record.name])}")
        loaded = opened.get(record.name) or open_plugin(record)
        under_way.append(record.name)
        for need in loaded.info.needs:
            take(need, record.name)
        under_way.pop()
        chosen[record.name] = loaded

    asked: set[str] = set()
    for name in map(short_name, names):
        if name in asked:
            raise InputError(f"plugin {name!r} is asked for twice; name it once")
        asked.add(name)
        take(name, None)
    for name in opened:
        take(name, None)
    for loaded in chosen.values():
        for other in map(short_name, loaded.info.conflicts):
            if other in chosen:
                raise InputError(f"plugins {loaded.name!r} and {other!r} conflict; leave one out")
    return list(chosen.values())


# --- checking hooks ----------------------------------------------------------------------------------


def check_signature(plugin: str, hook: str, function: Callable[..., Any], spec: Callable[..., Any]) -> None:
    """Refuse an implementation whose arguments its hookspec does not have, or that have defaults.

    pluggy takes an argument with a default value for one of the implementation's own and never passes it.
    """
    wanted = [name for name in inspect.signature(spec).parameters if name != "self"]
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise PluginError(f"takes {parameter}; name the arguments it wants", plugin=plugin, hook=hook)
        if name not in wanted:
            raise PluginError(
                f"takes an argument {name!r}; {did_you_mean(name, wanted)}", plugin=plugin, hook=hook
            )
        if parameter.default is not parameter.empty:
            raise PluginError(
                f"argument {name!r} has a default value and would never be passed; remove the default",
                plugin=plugin,
                hook=hook,
            )


def _is_decision(hook: str) -> bool:
    options = pluggy.PluginManager("mmfw").parse_hookspec_opts(hookspecs, hook)
    return options is not None and bool(options.get("firstresult"))


def _check_marks(loaded: LoadedPlugin, specs: Specs) -> None:
    """Refuse a function that is named as a hook and not marked, and a plugin in which nothing is: it would do nothing."""
    origin = loaded.record.origin
    reader = pluggy.PluginManager("mmfw")
    for name in dir(loaded.plugin):
        if not name.startswith(PREFIX) or name not in specs:
            continue
        if reader.parse_hookimpl_opts(loaded.plugin, name) is None and callable(getattr(loaded.plugin, name)):
            raise PluginError(f"not marked in {origin}; mark it @hookimpl", plugin=loaded.name, hook=name)
    if not loaded.implementations:
        raise PluginError(
            f"{origin} implements no hook, so it would change nothing; mark the functions that do @hookimpl",
            plugin=loaded.name,
        )


def _check_hooks(loaded: LoadedPlugin, others: Iterable[LoadedPlugin], specs: Specs) -> None:
    """Refuse marked functions that no hookspec stands behind, or that do not fit theirs."""
    owners = sorted(others, key=lambda each: -len(each.prefix))
    for one in loaded.implementations:
        if one.hook in specs:
            if one.wrapper and one.hook.startswith(PREFIX) and not _is_decision(one.hook):
                raise PluginError("only decision hooks can be wrapped", plugin=loaded.name, hook=one.hook)
            check_signature(loaded.name, one.hook, one.function, specs[one.hook])
            continue
        owner = next((each for each in owners if one.hook.startswith(each.prefix)), None)
        if one.hook.startswith(PREFIX):
            ours = [name for name in specs if name.startswith(PREFIX)]
            raise PluginError(
                f"no such hook; {did_you_mean(one.hook, ours)}", plugin=loaded.name, hook=one.hook
            )
        if owner is not None:
            theirs = [name for name in specs if name.startswith(owner.prefix)]
            raise PluginError(
                f"plugin {owner.name} has no such hook; {did_you_mean(one.hook, theirs)}",
                plugin=loaded.name,
                hook=one.hook,
            )
        if not one.optional:
            raise PluginError(
                "no loaded plugin has such a hook; load its owner, name it in needs, "
                "or mark the hook optionalhook=True",
                plugin=loaded.name,
                hook=one.hook,
            )


@dataclass(slots=True)
class _Publisher:
    """`mmfw.hookspecs.HookPublisher` for one plugin."""

    loaded: LoadedPlugin
    manager: pluggy.PluginManager
    specs: dict[str, Callable[..., Any]]

    def add_hookspecs(self, namespace: Any) -> None:
        """Publish the hookspecs of a module or class."""
        names = [
            name for name in dir(namespace) if self.manager.parse_hookspec_opts(namespace, name) is not None
        ]
        fault = None if names else "published nothing that is marked @hookspec"
        for name in names:
            if not name.startswith(self.loaded.prefix):
                fault = f"published {name!r}; its own hooks begin with {self.loaded.prefix!r}"
            elif name in self.specs:
                fault = f"published {name!r} twice"
        if fault is not None:
            raise PluginError(fault, plugin=self.loaded.name, hook="mmfw_addhooks")
        self.specs.update((name, getattr(namespace, name)) for name in names)
        self.manager.add_hookspecs(namespace)


def _publish(selected: Iterable[LoadedPlugin], manager: pluggy.PluginManager, specs: Any) -> None:
    for loaded in selected:
        for one in loaded.implementations:
            if one.hook == "mmfw_addhooks":
                check_signature(loaded.name, one.hook, one.function, specs[one.hook])
                takes = len(inspect.signature(one.function).parameters)
                guarded(one.function, loaded.name, one.hook)(*[_Publisher(loaded, manager, specs)][:takes])


def _register(manager: pluggy.PluginManager, plugin: object, name: str) -> None:
    # Nothing should be left for pluggy to refuse; what it does refuse must not stay half registered.
    try:
        manager.register(plugin, name)
    except (pluggy.PluginValidationError, ValueError) as exc:
        if manager.has_plugin(name):
            manager.unregister(name=name)
        raise PluginError(one_line(exc), plugin=name) from exc


# --- the two entrances -------------------------------------------------------------------------------


def load(names: Iterable[str], plugin_files: Iterable[str | Path] = ()) -> LoadedPlugins:
    """Load plugins by short name and by file, and what they need; nothing else is imported.

    Parameters
    ----------
    names : iterable of str
        Short names in the order in which they are asked; ``mainline`` may be named and is loaded in any case.
    plugin_files : iterable of path
        Single-file prototypes; they come after `names` unless named there.

    Raises
    ------
    InputError
        Unknown, named twice, offered twice, in conflict, or needing one another in a circle.
    PluginError
        A plugin cannot be imported, has no hooks, or its hooks do not fit.
    """
    selected = _select(names, plugin_files)
    manager, specs = _new_manager()
    _publish(selected, manager, specs)
    for loaded in selected:
        guarded(_check_marks, loaded.name, "hooks")(loaded, specs)
        _check_hooks(loaded, selected, specs)
    # pluggy asks the one registered last first. Mainline is trylast, and the last of these.
    for loaded in reversed(selected):
        _register(manager, loaded.plugin, loaded.name)
    _register(manager, mainline, MAINLINE.name)
    base = LoadedPlugin(MAINLINE, mainline.MMFW_PLUGIN, mainline, implementations(mainline))
    return LoadedPlugins((base, *selected), manager)


def check_plugin(record: PluginRecord) -> LoadedPlugins:
    """Load one plugin with what it needs, as ``mmfw plugins list --check`` and ``info`` do.

    Raises
    ------
    InputError, PluginError
        As `load`.
    """
    if not record.group:
        return load([], [record.target])
    return load([record.name])
