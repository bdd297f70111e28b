"""What the assembly hooks return is checked, and what they raise names the plugin and the hook."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mmfw.errors import InputError, PluginError
from mmfw.offers import Metric, PluginInfo
from mmfw.registry import LoadedPlugins

pytestmark = pytest.mark.usefixtures("bare_environment")

Load = Callable[..., LoadedPlugins]


@pytest.mark.parametrize(
    ("source", "call", "message"),
    [
        (
            "@hookimpl\ndef mmfw_module_init(mm): mm.nothing",
            lambda loaded: loaded.module_init(object(), {}),
            "plugin xe, mmfw_module_init: AttributeError: 'object' object has no attribute 'nothing'",
        ),
        (
            "@hookimpl\ndef mmfw_module_exit(): raise ValueError('3 pages\\nstill held')",
            lambda loaded: loaded.module_exit(object()),
            "plugin xe, mmfw_module_exit: ValueError: 3 pages still held",
        ),
        (
            "@hookimpl\ndef mmfw_plugin_params(): return dict",
            lambda loaded: loaded.plugin_params(),
            "plugin xe, mmfw_plugin_params: returned <class 'dict'>; a pydantic model class is wanted",
        ),
        (
            "@hookimpl\ndef mmfw_register_workloads(): yield 'copy'",
            lambda loaded: loaded.workloads(),
            "plugin xe, mmfw_register_workloads: gave 'copy'; a Workload is wanted",
        ),
        (
            "@hookimpl\ndef mmfw_register_workloads():\n    yield 1 / 0",
            lambda loaded: loaded.workloads(),
            "plugin xe, mmfw_register_workloads: ZeroDivisionError: division by zero",
        ),
        (
            "@hookimpl\ndef mmfw_register_workloads(): return 3",
            lambda loaded: loaded.workloads(),
            "plugin xe, mmfw_register_workloads: TypeError: 'int' object is not iterable",
        ),
        (
            "@hookimpl\ndef mmfw_register_metrics():\n"
            "    yield Metric('fps', 'Hz', 'gauge', 'higher', 'Frames', read=len)",
            lambda loaded: loaded.metrics(),
            "plugin xe, mmfw_register_metrics: metric 'fps' does not begin with 'xe_'",
        ),
        (
            "@hookimpl\ndef mmfw_register_metrics():\n"
            "    yield Metric('xe_fps', 'Hz', 'gauge', 'best', 'Frames', read=len)",
            lambda loaded: loaded.metrics(),
            "plugin xe, mmfw_register_metrics: ValueError: better is 'best'; "
            "one of lower, higher, neither is wanted",
        ),
        (
            "@hookimpl\ndef mmfw_register_metrics():\n"
            "    yield Metric('xe_fps', 'Hz', 'gauge', 'higher', 'Frames', read=lambda mm: 9.5)",
            lambda loaded: loaded.metrics()["xe_fps"].read(object()),
            "plugin xe, metric xe_fps: read 9.5 of type float; a gauge is a int",
        ),
        (
            "@hookimpl\ndef mmfw_register_workloads():\n"
            "    yield Workload('w', 'Works', run=lambda mm, params: params.x)",
            lambda loaded: loaded.workloads()["w"].run(object(), None),
            "plugin xe, workload w: AttributeError: 'NoneType' object has no attribute 'x'",
        ),
    ],
)
def test_fault_names_plugin_and_hook(
    load_source: Load, source: str, call: Callable[[LoadedPlugins], object], message: str
) -> None:
    loaded = load_source(xe=source)
    with pytest.raises(PluginError) as blamed:
        call(loaded)
    assert str(blamed.value) == message
    assert blamed.value.exit_status == 3


def test_input_error_of_a_plugin_passes_as_it_is(load_source: Load) -> None:
    loaded = load_source(
        xe="@hookimpl\ndef mmfw_module_init(): raise InputError('vram must be > 0', file='a.toml', line=3)"
    )
    with pytest.raises(InputError) as passed:
        loaded.module_init(object(), {})  # type: ignore[arg-type]
    assert str(passed.value) == "a.toml:3: vram must be > 0"


def test_one_workload_name_from_two_plugins(load_source: Load) -> None:
    offer = "@hookimpl\ndef mmfw_register_workloads(): return [Workload('copy', 'Copies', run=print)]"
    with pytest.raises(PluginError) as blamed:
        load_source(ext4=offer, xfs=offer).workloads()
    assert str(blamed.value) == (
        "plugin xfs, mmfw_register_workloads: offers 'copy', which plugin ext4 offers already"
    )


@pytest.mark.parametrize(("kind", "value"), [("counter", 7), ("gauge", -7), ("ratio", 0.5)])
def test_metric_reads_its_value(load_source: Load, kind: str, value: float) -> None:
    loaded = load_source(
        xe=f"@hookimpl\ndef mmfw_register_metrics():\n"
        f"    return [Metric('xe_m', '1', {kind!r}, 'neither', 'Reads', read=lambda mm: {value})]"
    )
    assert loaded.metrics()["xe_m"].read(object()) == value  # type: ignore[arg-type]


def test_params_are_given_to_the_plugin_they_belong_to(load_source: Load) -> None:
    keep = "@hookimpl\ndef mmfw_module_init(mm, params): mm.append(params)"
    loaded = load_source(one=keep, two=keep)
    seen: list[object] = []
    loaded.module_init(seen, {"two": "params of two"})  # type: ignore[arg-type, dict-item]
    assert seen == [None, "params of two"]


def test_owner_is_the_plugin_under_initialisation_else_the_module(load_source: Load) -> None:
    register = "class Shrinker: ...\n@hookimpl\ndef mmfw_module_init(mm): mm(Shrinker)\n"
    loaded = load_source(one=register, two=register)
    made: list[type] = []
    owners: list[str] = []

    def mm(cls: type) -> None:
        made.append(cls)
        owners.append(loaded.owner_of(object()))

    loaded.module_init(mm, {})  # type: ignore[arg-type]
    assert owners == ["one", "two"]
    assert [loaded.owner_of(cls()) for cls in made] == ["one", "two"]
    with pytest.raises(PluginError) as unknown:
        loaded.owner_of(object())
    assert str(unknown.value) == "plugin builtins: object is defined by no loaded plugin"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "driver"}, "kind is 'driver'; one of shrinker, policy, workload, experiment is wanted"),
        ({"hook_api": "1.0"}, "hook_api is '1.0'; a pair such as (1, 0) is wanted"),
        ({"hook_api": (True, 0)}, "hook_api is (True, 0); a pair such as (1, 0) is wanted"),
        ({"conflicts": "ttm"}, "conflicts is 'ttm'; a tuple of names such as (\"ttm\",) is wanted"),
    ],
)
def test_plugin_info_refuses_what_it_cannot_mean(fields: dict[str, object], message: str) -> None:
    with pytest.raises((TypeError, ValueError)) as refused:
        PluginInfo(**{"name": "xe", "hook_api": (1, 0), **fields})  # type: ignore[arg-type]
    assert str(refused.value) == message


def test_metric_refuses_an_unknown_kind() -> None:
    with pytest.raises(ValueError, match=r"^kind is 'histogram'; one of counter, gauge, ratio is wanted$"):
        Metric("m", "1", "histogram", "lower", "No", read=len)  # type: ignore[arg-type]
