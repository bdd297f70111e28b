"""The loaded set: what each plugin is, and its assembly hooks called in their order.

Also the one place where an exception that a plugin lets out becomes an error that names it (`guarded`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from inspect import signature
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from greenlet import GreenletExit

from mmfw.discovery import PluginRecord, one_line, short_name
from mmfw.errors import CallerError, InputError, MmfwError, PluginError, did_you_mean
from mmfw.offers import Metric, PluginInfo, Workload

if TYPE_CHECKING:
    import pluggy
    from pydantic import BaseModel

    from mmfw.mm.core import Mm

Named = TypeVar("Named", Workload, Metric)


def guarded(
    function: Callable[..., Any],
    plugin: str,
    hook: str,
    check: Callable[[Any], Any] | None = None,
    *,
    blame: Callable[[BaseException], str] | None = None,
) -> Callable[..., Any]:
    """Wrap a plugin's function: what it raises is blamed on it, and what it returns is checked.

    With `guarded_method`, the only ``except BaseException`` around plugin code: a plugin's `SystemExit` must
    not look like the program's own end. The end of a task (`GreenletExit`) passes. An `MmfwError` passes too,
    for it has its own blame, but a `CallerError` has none until here.

    Parameters
    ----------
    function : callable
        Called with the wrapper's positional arguments.
    plugin, hook : str
        Whom to blame, and in what.
    check : callable, optional
        Given the answer; returns it, or raises.
    blame : callable, optional
        Finds the plugin from the exception, where `function` runs several.
    """

    def call(*args: Any) -> Any:
        try:
            answer = function(*args)
        except CallerError as exc:
            at_fault = plugin if blame is None else blame(exc)
            raise PluginError(str(exc), plugin=at_fault, hook=hook) from exc
        except MmfwError:
            raise
        except (KeyboardInterrupt, GreenletExit):
            raise
        except BaseException as exc:
            at_fault = plugin if blame is None else blame(exc)
            raise PluginError(one_line(exc), plugin=at_fault, hook=hook) from exc
        return answer if check is None else check(answer)

    return call


def guarded_method(
    method: Callable[[Any], Any], plugin: str, hook: str, check: Callable[[Any], int]
) -> Callable[[Any], int]:
    """`guarded` for a shrinker's method; three times as fast, for a pass calls 45 shrinkers twice.

    `check` is asked only about an answer that is no plain count.
    """

    def call(control: Any) -> int:
        try:
            answer = method(control)
        except CallerError as exc:
            raise PluginError(str(exc), plugin=plugin, hook=hook) from exc
        except MmfwError:
            raise
        except (KeyboardInterrupt, GreenletExit):
            raise
        except BaseException as exc:
            raise PluginError(one_line(exc), plugin=plugin, hook=hook) from exc
        return answer if type(answer) is int and answer >= 0 else check(answer)

    return call


def in_spec_order(function: Callable[..., Any], spec_args: Sequence[str]) -> Callable[..., Any]:
    """Make `function`, which may take fewer arguments in any order, callable with all of `spec_args`."""
    places = [spec_args.index(name) for name in signature(function).parameters]
    if places == list(range(len(spec_args))):
        return function
    return lambda *args: function(*[args[place] for place in places])


@dataclass(frozen=True, slots=True)
class Implementation:
    """One function of a plugin that is marked ``@hookimpl``."""

    hook: str
    function: Callable[..., Any]
    wrapper: bool = False
    optional: bool = False


@dataclass(frozen=True, slots=True)
class LoadedPlugin:
    """One plugin: where it came from, what it says of itself, the object that has the hooks, the hooks."""

    record: PluginRecord
    info: PluginInfo
    plugin: object
    implementations: tuple[Implementation, ...]

    @property
    def name(self) -> str:
        """Short name."""
        return self.info.name

    @property
    def prefix(self) -> str:
        """What the plugin's own hooks and metrics begin with: ``xe_``."""
        return self.name.replace("-", "_") + "_"

    @property
    def module(self) -> str:
        """Module the plugin object is, or is defined in."""
        return self.plugin.__name__ if isinstance(self.plugin, ModuleType) else type(self.plugin).__module__


@dataclass(frozen=True, slots=True)
class LoadedPlugins:
    """The loaded set, mainline first, then needs before what needs them.

    Attributes
    ----------
    plugins : tuple of LoadedPlugin
        In load order.
    manager : pluggy.PluginManager
        Where their hooks are registered; `mmfw.binding` reads it.
    """

    plugins: tuple[LoadedPlugin, ...]
    manager: pluggy.PluginManager
    _initialising: list[str] = field(default_factory=list)

    @property
    def names(self) -> tuple[str, ...]:
        """Short names in load order, without mainline."""
        return tuple(each.name for each in self.plugins[1:])

    def __getitem__(self, name: str) -> LoadedPlugin:
        for each in self.plugins:
            if each.name == short_name(name):
                return each
        raise InputError(f"plugin {name!r} is not loaded; {did_you_mean(name, self.names)}")

    def only(self, name: str) -> LoadedPlugins:
        """The same set, reduced to one plugin: to ask what that one offers."""
        return replace(self, plugins=(self[name],))

    def owner_of(self, thing: object) -> str:
        """Plugin under initialisation, or else the one in whose package the class of `thing` is defined."""
        if self._initialising:
            return self._initialising[-1]
        module = type(thing).__module__

        def shared(each: LoadedPlugin) -> int:
            pairs = list(zip(each.module.split("."), module.split("."), strict=False))
            return next((i for i, (ours, theirs) in enumerate(pairs) if ours != theirs), len(pairs))

        owner = max(self.plugins[1:], key=shared, default=None)
        if owner is None or not shared(owner):
            raise PluginError(f"{type(thing).__qualname__} is defined by no loaded plugin", plugin=module)
        return owner.name

    def _calls(self, hook: str, *spec_args: str) -> Iterator[tuple[LoadedPlugin, Callable[..., Any]]]:
        for each in self.plugins:
            for one in each.implementations:
                if one.hook == hook:
                    yield each, guarded(in_spec_order(one.function, spec_args), each.name, hook)

    def plugin_params(self) -> dict[str, type[BaseModel]]:
        """Parameter model of each plugin that has one (`mmfw_plugin_params`)."""
        from pydantic import BaseModel

        models: dict[str, type[BaseModel]] = {}
        for each, call in self._calls("mmfw_plugin_params"):
            model = call()
            if not (isinstance(model, type) and issubclass(model, BaseModel)):
                raise PluginError(
                    f"returned {model!r}; a pydantic model class is wanted",
                    plugin=each.name,
                    hook="mmfw_plugin_params",
                )
            models[each.name] = model
        return models

    def module_init(self, mm: Mm, params: Mapping[str, BaseModel]) -> None:
        """Initialise every plugin, needs first (`mmfw_module_init`); `params` is keyed by short name."""
        for each, call in self._calls("mmfw_module_init", "mm", "params"):
            self._initialising.append(each.name)
            try:
                call(mm, params.get(each.name))
            finally:
                self._initialising.pop()

    def workloads(self) -> dict[str, Workload]:
        """Workloads on offer, by name (`mmfw_register_workloads`)."""
        return {
            load.name: replace(load, run=guarded(load.run, owner.name, f"workload {load.name}"))
            for owner, load in self._collect("mmfw_register_workloads", Workload)
        }

    def metrics(self) -> dict[str, Metric]:
        """Metrics on offer, by name (`mmfw_register_metrics`)."""
        found: dict[str, Metric] = {}
        for owner, metric in self._collect("mmfw_register_metrics", Metric):
            if not metric.name.startswith(owner.prefix):
                raise PluginError(
                    f"metric {metric.name!r} does not begin with {owner.prefix!r}",
                    plugin=owner.name,
                    hook="mmfw_register_metrics",
                )
            where = f"metric {metric.name}"
            found[metric.name] = replace(
                metric, read=guarded(metric.read, owner.name, where, _reading(metric, owner.name, where))
            )
        return found

    def module_exit(self, mm: Mm) -> None:
        """Take every plugin down, in reverse order (`mmfw_module_exit`)."""
        for _, call in reversed(list(self._calls("mmfw_module_exit", "mm"))):
            call(mm)

    def _collect(self, hook: str, cls: type[Named]) -> list[tuple[LoadedPlugin, Named]]:
        owners: dict[str, str] = {}
        found: list[tuple[LoadedPlugin, Named]] = []
        for each in self.plugins:
            for one in each.implementations:
                if one.hook != hook:
                    continue
                # An implementation may be a generator, which runs no earlier than here.
                for item in guarded(_listed, each.name, hook)(one.function):
                    fault = None
                    if not isinstance(item, cls):
                        fault = f"gave {item!r}; a {cls.__name__} is wanted"
                    elif item.name in owners:
                        fault = f"offers {item.name!r}, which plugin {owners[item.name]} offers already"
                    if fault is not None:
                        raise PluginError(fault, plugin=each.name, hook=hook)
                    owners[item.name] = each.name
                    found.append((each, item))
        return found


def _listed(function: Callable[[], Iterable[Any]]) -> list[Any]:
    return list(function())


def _reading(metric: Metric, plugin: str, where: str) -> Callable[[Any], int | float]:
    wanted = float if metric.kind == "ratio" else int

    def check(value: Any) -> int | float:
        # Exactly: a bool, or an integer of an array library, would print and compare unlike the others.
        if type(value) is not wanted:
            raise PluginError(
                f"read {value!r} of type {type(value).__name__}; a {metric.kind} is a {wanted.__name__}",
                plugin=plugin,
                hook=where,
            )
        return value

    return check
