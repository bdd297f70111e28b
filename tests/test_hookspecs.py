"""Each hook is documented by its contract, tested, and fires in the order of the file."""

from __future__ import annotations

import ast
import builtins
import dis
import inspect
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from types import CodeType

import pluggy
import pytest

import mmfw
from mmfw import hookspecs, mainline
from mmfw.mm import vmscan
from mmfw.plugins import implementations
from mmfw.registry import LoadedPlugins
from mmfw.types import MmOps

pytestmark = pytest.mark.usefixtures("bare_environment")

reader = pluggy.PluginManager("mmfw")


def firstresult(name: str) -> bool:
    options = reader.parse_hookspec_opts(hookspecs, name)
    return options is not None and options["firstresult"]


HOOKS = [name for name in vars(hookspecs) if reader.parse_hookspec_opts(hookspecs, name) is not None]
METHODS = ["count_objects", "scan_objects", "compaction_scan", "compaction_holds"]
DECISIONS = [name for name in HOOKS if firstresult(name)]
FIRST, LAST = HOOKS.index("mmfw_plan_wakeup"), HOOKS.index("mmfw_module_exit")
AMENDMENTS = [name for name in HOOKS[FIRST:LAST] if not firstresult(name)]
TESTS = "\n".join(path.read_text() for path in Path(__file__).parent.rglob("test_*.py"))


def docstring(name: str) -> str:
    owner = hookspecs.ShrinkerOpsSpec if name in METHODS else hookspecs
    return inspect.getdoc(getattr(owner, name)) or ""


def example(name: str) -> str:
    """Code that stands under a hook."""
    return inspect.cleandoc(docstring(name).partition("::\n")[2].partition(".. versionadded")[0])


def test_hooks_of_this_stage() -> None:
    assert HOOKS == [
        "mmfw_addhooks",
        "mmfw_plugin_params",
        "mmfw_module_init",
        "mmfw_register_workloads",
        "mmfw_register_metrics",
        "mmfw_plan_wakeup",
        "mmfw_fold_kswapd_waker",
        "mmfw_kswapd_begin",
        "mmfw_kswapd_requeue",
        "mmfw_should_wake_kcompactd",
        "mmfw_should_shrink_slab",
        "mmfw_init_shrink_control",
        "mmfw_should_count_kswapd_failure",
        "mmfw_plan_kcompactd_work",
        "mmfw_plan_compaction_scan",
        "mmfw_module_exit",
    ]


@pytest.mark.parametrize("name", HOOKS + METHODS)
def test_contract_is_complete_and_in_order(name: str) -> None:
    parts = (
        "Stands for: ",
        "Answers: ",
        "Context: ",
        "Called: ",
        "Examples\n",
        ".. versionadded:: hook API 1",
    )
    places = [docstring(name).find(part) for part in parts]
    assert -1 not in places, f"{name} lacks {parts[places.index(-1)]!r}"
    assert places == sorted(places)


def test_what_hooks_take_and_give_can_be_imported_from_mmfw() -> None:
    tree = ast.parse(inspect.getsource(hookspecs))
    named = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module is not None and node.module.startswith("mmfw.")
        for alias in node.names
    }
    assert {"KswapdRequest", "CompactControl", "Mm"} <= named
    assert named <= set(mmfw.__all__)


@pytest.mark.parametrize("name", DECISIONS)
def test_decision_says_what_none_means_and_what_mainline_answers(name: str) -> None:
    text = " ".join(docstring(name).split())
    assert "None = not mine, ask the next" in text
    assert re.search(r"Mainline (answers|plans)", text)


@pytest.mark.parametrize("name", HOOKS + METHODS)
def test_example_implements_the_hook_it_stands_under(name: str) -> None:
    tree = ast.parse(example(name))
    functions = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    owner = hookspecs.ShrinkerOpsSpec if name in METHODS else hookspecs
    spec = list(inspect.signature(getattr(owner, name)).parameters)
    taken = [arg.arg for arg in functions[name].args.args]
    assert set(taken) <= set(spec)
    assert "hookimpl" in [ast.unparse(decorator) for decorator in functions[name].decorator_list]


#: What an example takes to be defined elsewhere in the plugin that it is part of.
PLUGINS_OWN = {
    "Folded", "Pool", "PoolShrinker", "SawOrderZero", "ThisRun", "WantedOrder", "evictions", "file_copy", "pools_of",
}  # fmt: skip


def names_used(code: CodeType) -> set[str]:
    """Global names of a piece of code and of the functions in it."""
    inner = [const for const in code.co_consts if isinstance(const, CodeType)]
    own = {
        str(step.argval) for step in dis.get_instructions(code) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")
    }
    return own.union(*map(names_used, inner))


@pytest.mark.parametrize("name", HOOKS + METHODS)
def test_names_of_the_example_are_imported_in_it(name: str) -> None:
    code = compile(example(name), name, "exec")
    namespace: dict[str, object] = {}
    exec(code, namespace)
    inside = {"__name__", "__annotations__"}
    assert names_used(code) <= {*namespace, *vars(builtins), *PLUGINS_OWN, *inside}


def test_names_that_examples_leave_to_the_plugin_are_used_and_not_in_mmfw() -> None:
    used = set().union(*(names_used(compile(example(name), name, "exec")) for name in HOOKS + METHODS))
    assert used >= PLUGINS_OWN
    assert PLUGINS_OWN.isdisjoint(mmfw.__all__)


def test_costly_orders_begin_where_mm_says() -> None:
    assert mmfw.PAGE_ALLOC_COSTLY_ORDER == mmfw.gfp.PAGE_ALLOC_COSTLY_ORDER == vmscan.PAGE_ALLOC_COSTLY_ORDER


@pytest.mark.parametrize("name", HOOKS + METHODS)
def test_every_hook_is_implemented_in_some_test(name: str) -> None:
    assert re.search(rf"def {name}\(", TESTS)


def test_mainline_answers_exactly_the_decisions_and_ops_have_a_field_for_each() -> None:
    assert sorted(one.hook for one in implementations(mainline)) == sorted(DECISIONS)
    assert sorted(f"mmfw_{field.name}" for field in fields(MmOps)) == sorted(DECISIONS + AMENDMENTS)


@pytest.mark.parametrize("name", AMENDMENTS)
def test_amendment_says_that_all_are_called(name: str) -> None:
    assert "Answers: none; all implementations are called" in " ".join(docstring(name).split())


@pytest.mark.parametrize("name", DECISIONS)
def test_mainline_takes_the_whole_signature(name: str) -> None:
    taken = list(inspect.signature(getattr(mainline, name)).parameters)
    assert taken == list(inspect.signature(getattr(hookspecs, name)).parameters)


LOGGING = """
from pydantic import BaseModel

class Params(BaseModel):
    log: list = []

log = []

class Spec:
    @hookspec
    def {name}_event(self): ...

@hookimpl
def mmfw_addhooks(pluginmanager):
    log.append("{name} addhooks")
    pluginmanager.add_hookspecs(Spec)

@hookimpl
def mmfw_plugin_params():
    return Params

@hookimpl
def mmfw_module_init(params, mm):
    mm.append("{name} module_init " + type(params).__name__)

@hookimpl
def mmfw_register_workloads():
    yield Workload("{name}-load", "Loads", run=lambda mm, params: mm.append("{name} run"))

@hookimpl
def mmfw_register_metrics():
    return [Metric("{name}_count", "1", "counter", "lower", "Counts", read=len)]

@hookimpl
def mmfw_module_exit(mm):
    mm.append("{name} module_exit")
"""


def test_lifecycle_order(load_source: Callable[..., LoadedPlugins]) -> None:
    need = 'MMFW_PLUGIN = PluginInfo(name="xe", hook_api=(1, 0), needs=("ttm",))'
    loaded = load_source(xe=LOGGING.format(name="xe") + need, ttm=LOGGING.format(name="ttm"))
    mm: list[str] = []
    models = loaded.plugin_params()
    loaded.module_init(mm, {name: model() for name, model in models.items()})  # type: ignore[arg-type]
    mm.append(f"workloads {list(loaded.workloads())}")
    mm.append(f"metrics {list(loaded.metrics())}")
    loaded.workloads()["ttm-load"].run(mm, None)  # type: ignore[arg-type]
    loaded.module_exit(mm)  # type: ignore[arg-type]
    assert [each.plugin.log for each in loaded.plugins[1:]] == [["ttm addhooks"], ["xe addhooks"]]  # type: ignore[attr-defined]
    assert mm == [
        "ttm module_init Params",
        "xe module_init Params",
        "workloads ['ttm-load', 'xe-load']",
        "metrics ['ttm_count', 'xe_count']",
        "ttm run",
        "xe module_exit",
        "ttm module_exit",
    ]
