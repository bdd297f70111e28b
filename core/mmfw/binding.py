"""Hooks become plain callables: decisions an `MmOps`, a shrinker object a `ShrinkerOps`.

mm calls these structs and never meets pluggy. Where no policy answers a decision, its field is mainline's
own function; one plain policy costs a closure; a wrapper adds a generator. pluggy calls only what plugins publish.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator
from dataclasses import dataclass
from itertools import combinations
from types import CodeType
from typing import Any, Final

import pluggy

from mmfw import mainline
from mmfw.errors import InputError, PluginError, did_you_mean
from mmfw.hookspecs import ShrinkerOpsSpec
from mmfw.plugins import check_signature, implementations
from mmfw.registry import LoadedPlugins, guarded, guarded_method, in_spec_order
from mmfw.types import (
    DEFAULT_SEEKS,
    SHRINK_EMPTY,
    SHRINK_STOP,
    CompactionScan,
    KcompactdWork,
    MmOps,
    ShrinkerOps,
    WakePlan,
)

__all__ = ["MmOps", "SetUp", "ShrinkerOps", "bind_mm_ops", "bind_shrinker", "hook_caller"]

Check = Callable[[Any], Any]


# --- decisions ---------------------------------------------------------------------------------------


@dataclass(slots=True)
class SetUp:
    """Whether every plugin has been initialised: until then decisions are mainline's.

    A plugin that allocates while it is initialised may wake kswapd; policies, initialised last, have no state yet.
    """

    done: bool = False


def bind_mm_ops(plugins: LoadedPlugins, set_up: SetUp | None = None) -> MmOps:
    """Bind every decision hook of a loaded set.

    Parameters
    ----------
    plugins : LoadedPlugins
        The set.
    set_up : SetUp, optional
        Until it is done nobody but mainline is asked; None asks from the start.

    Raises
    ------
    InputError
        Two plain policies answer one decision and do not both say that they compose.
    """
    state = SetUp(done=True) if set_up is None else set_up

    def decision(default: Callable[..., Any], answer_type: type) -> Callable[..., Any]:
        return _once_set_up(_bind_decision(plugins, default, answer_type), default, state)

    def rare(default: Callable[..., Any], answer_type: type) -> Callable[..., Any] | None:
        found = decision(default, answer_type)
        return None if found is default else found

    def amendment(hook: str) -> Callable[..., None] | None:
        found = _bind_amendment(plugins, hook)
        return None if found is None else _once_set_up(found, _nothing, state)

    return MmOps(
        plan_wakeup=decision(mainline.mmfw_plan_wakeup, WakePlan),
        should_shrink_slab=decision(mainline.mmfw_should_shrink_slab, bool),
        plan_compaction_scan=rare(mainline.mmfw_plan_compaction_scan, CompactionScan),
        should_wake_kcompactd=rare(mainline.mmfw_should_wake_kcompactd, bool),
        plan_kcompactd_work=rare(mainline.mmfw_plan_kcompactd_work, KcompactdWork),
        should_count_kswapd_failure=rare(mainline.mmfw_should_count_kswapd_failure, bool),
        fold_kswapd_waker=amendment("mmfw_fold_kswapd_waker"),
        kswapd_begin=amendment("mmfw_kswapd_begin"),
        kswapd_requeue=amendment("mmfw_kswapd_requeue"),
        init_shrink_control=amendment("mmfw_init_shrink_control"),
    )


def _nothing(*args: Any) -> None:
    """Amend nothing."""


def _once_set_up(ask: Callable[..., Any], default: Callable[..., Any], state: SetUp) -> Callable[..., Any]:
    if state.done or ask is default:
        return ask

    def ask_once_set_up(*args: Any) -> Any:
        return ask(*args) if state.done else default(*args)

    return ask_once_set_up


def _bind_amendment(plugins: LoadedPlugins, hook: str) -> Callable[..., None] | None:
    """All implementations of a hook that answers nothing, in order of loading; None if there are none."""
    caller = caller_of(plugins, hook)
    assert caller.spec is not None
    spec_args = tuple(caller.spec.argnames)
    impls = tuple(reversed(caller.get_hookimpls()))
    if any(impl.wrapper or impl.hookwrapper for impl in impls):
        return hook_caller(plugins, hook)
    steps = [guarded(in_spec_order(i.function, spec_args), i.plugin_name, hook) for i in impls]
    if len(steps) < 2:
        return steps[0] if steps else None

    def amend(*args: Any) -> None:
        for step in steps:
            step(*args)

    return amend


#: Decisions whose last answer may be None, which then asks nobody.
_MAY_END_WITH_NONE: Final = (mainline.mmfw_plan_compaction_scan,)


def _answer_check(
    plugin: str, hook: str, answer_type: type, none: str | None = ", or None to leave it to the next,"
) -> Check:
    """Refuse any answer but one of `answer_type`, or None where `none` says what that means."""

    def check(answer: Any) -> Any:
        if type(answer) is answer_type or (answer is None and none is not None):
            return _checked_scan(answer, plugin, hook) if type(answer) is CompactionScan else answer
        raise PluginError(
            f"answered {answer!r}; a {answer_type.__name__}{none or ''} is wanted", plugin=plugin, hook=hook
        )

    return check


def _checked_scan(scan: CompactionScan, plugin: str, hook: str) -> CompactionScan:
    try:
        scan.check()
    except (ValueError, AttributeError) as fault:
        raise PluginError(f"answered a CompactionScan whose {fault}", plugin=plugin, hook=hook) from fault
    return scan


def _bind_decision(
    plugins: LoadedPlugins, default: Callable[..., Any], answer_type: type
) -> Callable[..., Any]:
    hook = default.__name__
    spec_args = tuple(inspect.signature(default).parameters)
    # get_hookimpls() lists in reverse order of the call, mainline, the trylast one, first.
    answering = [
        impl for impl in reversed(caller_of(plugins, hook).get_hookimpls()) if impl.plugin is not mainline
    ]
    plain = [impl for impl in answering if not (impl.wrapper or impl.hookwrapper)]
    for one, other in combinations((impl.plugin_name for impl in plain), 2):
        if not _compose(plugins, one, other):
            raise InputError(
                f"policies {one!r} and {other!r} both answer {hook}; leave one out "
                "(they may be combined once each names the other in composes_with)"
            )
    steps = [
        guarded(
            in_spec_order(impl.function, spec_args),
            impl.plugin_name,
            hook,
            _answer_check(impl.plugin_name, hook, answer_type),
        )
        for impl in plain
    ]
    ask = _in_turn(steps, default)
    none = ", or None to ask nobody," if default in _MAY_END_WITH_NONE else None
    # The first of the wrappers is the outermost.
    for impl in reversed([impl for impl in answering if impl.wrapper or impl.hookwrapper]):
        wrap = _wrapped(in_spec_order(impl.function, spec_args), ask, old_style=impl.hookwrapper)
        ask = guarded(wrap, impl.plugin_name, hook, _answer_check(impl.plugin_name, hook, answer_type, none))
    return ask


def _in_turn(steps: list[Callable[..., Any]], default: Callable[..., Any]) -> Callable[..., Any]:
    """Ask each step until one answers, at last mainline."""
    if not steps:
        return default
    if len(steps) == 1:
        policy = steps[0]

        def ask_one(*args: Any) -> Any:
            answer = policy(*args)
            return default(*args) if answer is None else answer

        return ask_one

    def ask_each(*args: Any) -> Any:
        for step in steps:
            answer = step(*args)
            if answer is not None:
                return answer
        return default(*args)

    return ask_each


def _wrapped(
    wrapper: Callable[..., Generator[Any, Any, Any]], ask: Callable[..., Any], *, old_style: bool
) -> Callable[..., Any]:
    """Call `ask` where a wrapper yields, and answer what it returns, as pluggy does.

    Not by pluggy, which knows only the last answer: here each wrapper's own is checked, so that it is blamed for it.

    Parameters
    ----------
    old_style : bool
        Of ``hookimpl(hookwrapper=True)``: it is given a `pluggy.Result`, and answers by changing that.
    """

    def ask_wrapped(*args: Any) -> Any:
        call = wrapper(*args)
        try:
            next(call)
        except StopIteration:
            raise RuntimeError("a wrapper has to yield once; it did not") from None
        if old_style:
            result = pluggy.Result.from_call(lambda: ask(*args))
        try:
            if old_style:
                call.send(result)
            else:
                try:
                    answer = ask(*args)
                except BaseException as exc:
                    call.throw(exc)
                else:
                    call.send(answer)
        except StopIteration as end:
            return result.get_result() if old_style else end.value
        call.close()
        raise RuntimeError("a wrapper has to yield once; it did so again")

    return ask_wrapped


def _compose(plugins: LoadedPlugins, one: str, other: str) -> bool:
    return other in plugins[one].info.composes_with and one in plugins[other].info.composes_with


def caller_of(plugins: LoadedPlugins, hook: str) -> pluggy.HookCaller:
    """Find the pluggy caller of a hook that some loaded plugin, or mmfw, has published."""
    caller = getattr(plugins.manager.hook, hook, None)
    if caller is None or not caller.has_spec():
        raise InputError(f"no loaded plugin has published a hook {hook!r}")
    return caller  # type: ignore[no-any-return]  # HookRelay's attributes are dynamic


def hook_caller(plugins: LoadedPlugins, hook: str) -> Callable[..., Any]:
    """Call a hook of any plugin with the arguments of its spec, by position; faults name the plugin.

    For hooks that plugins publish. Costs a pluggy call.
    """
    caller = caller_of(plugins, hook)
    assert caller.spec is not None
    if not caller.get_hookimpls():
        nothing = None if caller.spec.opts["firstresult"] else ()
        return lambda *args: nothing
    spec_args = tuple(caller.spec.argnames)
    names_of_code: dict[CodeType, str] = {
        inspect.unwrap(impl.function).__code__: impl.plugin_name
        for impl in caller.get_hookimpls()
        if hasattr(inspect.unwrap(impl.function), "__code__")
    }

    def at_fault(exc: BaseException) -> str:
        innermost = everyone
        trace = exc.__traceback__
        while trace is not None:
            innermost = names_of_code.get(trace.tb_frame.f_code, innermost)
            trace = trace.tb_next
        return innermost

    everyone = " and ".join(impl.plugin_name for impl in caller.get_hookimpls())
    return guarded(
        lambda *args: caller(**dict(zip(spec_args, args, strict=True))), everyone, hook, blame=at_fault
    )


# --- shrinkers ---------------------------------------------------------------------------------------

_METHODS: Final = {
    name: vars(ShrinkerOpsSpec)[name]
    for name in ("count_objects", "scan_objects", "compaction_scan", "compaction_holds")
}
_NEEDED: Final = ("count_objects", "scan_objects")
#: The one sentinel each method may return, and how to say it; `compaction_holds` has none.
_SENTINEL: Final[dict[str, tuple[int | None, str]]] = {
    "count_objects": (SHRINK_EMPTY, "SHRINK_EMPTY"),
    "scan_objects": (SHRINK_STOP, "SHRINK_STOP"),
    "compaction_scan": (SHRINK_STOP, "SHRINK_STOP"),
    "compaction_holds": (None, ""),
}


def bind_shrinker(shrinker: object, name: str, plugin: str) -> ShrinkerOps:
    """Check a shrinker object and bind its methods; ``mm.register_shrinker()`` does this once for each.

    Parameters
    ----------
    shrinker : object
        Has ``count_objects`` and ``scan_objects``, maybe ``compaction_scan`` and then maybe ``compaction_holds``, each
        marked ``@hookimpl``; and maybe ``seeks`` (`DEFAULT_SEEKS`), ``batch`` (0: `SHRINK_BATCH`) and ``flags`` (0).
    name : str
        Name of registration.
    plugin : str
        Short name of the plugin to blame.

    Raises
    ------
    PluginError
        A method is missing, unknown or not marked, takes other arguments, or an attribute is not an int >= 0.
    """
    found = {}
    for one in implementations(shrinker):
        where = f"{name}.{one.hook}"
        if one.hook not in _METHODS:
            raise PluginError(
                f"no such shrinker method; {did_you_mean(one.hook, _METHODS)}", plugin=plugin, hook=where
            )
        if one.wrapper:
            raise PluginError("a shrinker's methods cannot be wrappers", plugin=plugin, hook=where)
        check_signature(plugin, where, one.function, _METHODS[one.hook])
        if not inspect.signature(one.function).parameters:
            (argument,) = [arg for arg in inspect.signature(_METHODS[one.hook]).parameters if arg != "self"]
            raise PluginError(f"takes no argument; it is given {argument!r}", plugin=plugin, hook=where)
        found[one.hook] = _bind_method(one.function, plugin, where, *_SENTINEL[one.hook])
    for method in _METHODS:
        if method in found:
            continue
        where = f"{name}.{method}"
        if callable(getattr(shrinker, method, None)):
            raise PluginError("not marked; mark it @hookimpl", plugin=plugin, hook=where)
        if method in _NEEDED:
            raise PluginError(
                "missing; a shrinker has count_objects(sc) and scan_objects(sc)", plugin=plugin, hook=where
            )
    if "compaction_holds" in found and "compaction_scan" not in found:
        raise PluginError(
            "goes with compaction_scan(cs), which is missing", plugin=plugin, hook=f"{name}.compaction_holds"
        )
    return ShrinkerOps(
        count_objects=found["count_objects"],
        scan_objects=found["scan_objects"],
        compaction_scan=found.get("compaction_scan"),
        name=name,
        seeks=_attribute(shrinker, "seeks", DEFAULT_SEEKS, name, plugin),
        batch=_attribute(shrinker, "batch", 0, name, plugin),
        flags=_attribute(shrinker, "flags", 0, name, plugin),
        plugin=plugin,
        compaction_holds=found.get("compaction_holds"),
    )


def _attribute(shrinker: object, attribute: str, default: int, name: str, plugin: str) -> int:
    value: object = getattr(shrinker, attribute, default)
    if type(value) is not int or value < 0:
        raise PluginError(f"{attribute} is {value!r}; an int >= 0 is wanted", plugin=plugin, hook=name)
    return value


def _bind_method(
    method: Callable[..., Any], plugin: str, where: str, sentinel: int | None, sentinel_name: str
) -> Callable[[Any], int]:
    def check(answer: Any) -> int:
        if type(answer) is int and answer == sentinel:
            return answer
        known = {SHRINK_STOP: "SHRINK_STOP", SHRINK_EMPTY: "SHRINK_EMPTY"} if sentinel_name else {}
        if type(answer) is int:
            shown = known.get(answer, str(answer))
        else:
            shown = f"{answer!r} of type {type(answer).__name__}"
        raise PluginError(
            f"returned {shown}; an int >= 0{' or ' * bool(sentinel_name)}{sentinel_name} is wanted",
            plugin=plugin,
            hook=where,
        )

    return guarded_method(method, plugin, where, check)
