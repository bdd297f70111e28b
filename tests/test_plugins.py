from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mmfw.errors import InputError, PluginError
from mmfw.plugins import load
from mmfw.registry import LoadedPlugins

pytestmark = pytest.mark.usefixtures("bare_environment")

Load = Callable[..., LoadedPlugins]
Write = Callable[[str, str], Path]


#: One hook, for a plugin without any is refused.
HOOK = "@hookimpl\ndef mmfw_module_exit(): ...\n"


def info(**fields: object) -> str:
    text = ", ".join(f"{key}={value!r}" for key, value in {"hook_api": (1, 0), **fields}.items())
    return f"MMFW_PLUGIN = PluginInfo({text})\n{HOOK}"


# --- selection ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("installed")
def test_needs_come_first() -> None:
    loaded = load(["pool-user", "no-slab"])
    assert loaded.names == ("pool", "pool-user", "no-slab")
    assert [each.name for each in loaded.plugins] == ["mainline", "pool", "pool-user", "no-slab"]


def test_needs_are_followed_transitively_and_in_order(load_source: Load) -> None:
    loaded = load_source(
        d=info(name="d", needs=("c", "b")),
        a=info(name="a"),
        b=info(name="b", needs=("a",)),
        c=info(name="c", needs=("a",)),
    )
    assert loaded.names == ("a", "c", "b", "d")


def test_circle_of_needs(load_source: Load) -> None:
    with pytest.raises(InputError) as refused:
        load_source(hen=info(name="hen", needs=("egg",)), egg=info(name="egg", needs=("hen",)))
    assert str(refused.value) == "plugins need each other in a circle: hen -> egg -> hen"


def test_missing_need_names_who_needs_it(load_source: Load) -> None:
    with pytest.raises(InputError) as refused:
        load_source(xe=info(name="xe", needs=("mainlin",)))
    assert str(refused.value) == "plugin xe needs 'mainlin': no such plugin; did you mean 'mainline'?"


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("names", [["no-slab", "always-slab"], ["always-slab", "no-slab"]])
def test_conflict_names_both(names: list[str]) -> None:
    with pytest.raises(InputError) as refused:
        load(names)
    assert str(refused.value) == "plugins 'no-slab' and 'always-slab' conflict; leave one out"


@pytest.mark.usefixtures("installed")
def test_asked_for_twice() -> None:
    with pytest.raises(InputError) as refused:
        load(["no-slab", "pool", "no_slab"])
    assert str(refused.value) == "plugin 'no-slab' is asked for twice; name it once"


@pytest.mark.usefixtures("installed")
def test_asking_for_what_another_needs_is_not_asking_twice() -> None:
    assert load(["pool-user", "pool"]).names == ("pool", "pool-user")


def test_mainline_may_be_named() -> None:
    assert load(["mainline"]).names == load([]).names == ()


def test_named_file_keeps_its_place_in_the_order(plugin_file: Write) -> None:
    files = [plugin_file(name, HOOK) for name in ("one", "two", "three")]
    assert load(["three", "one"], files).names == ("three", "one", "two")


def test_two_files_of_one_name(plugin_file: Write) -> None:
    files = [plugin_file("one", info(name="same")), plugin_file("two", info(name="same"))]
    with pytest.raises(InputError) as refused:
        load([], files)
    assert str(refused.value) == f"plugin files {files[0]} and {files[1]} are both named 'same'; rename one"


@pytest.mark.usefixtures("installed")
def test_file_does_not_shadow_an_installed_plugin(plugin_file: Write) -> None:
    path = plugin_file("pool", "")
    with pytest.raises(InputError) as refused:
        load(["pool"], [path])
    assert str(refused.value) == (
        f"plugin 'pool' is offered twice, by plugin file {path} ({path}) and "
        "distribution mmfw-good 1.2 (mmfw_good.pool:PoolPlugin); uninstall or rename one"
    )


# --- opening ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "boom",
            "plugin boom: module mmfw_broken.boom of distribution mmfw-broken 0.3 cannot be imported: "
            "ImportError: no backend: install one",
        ),
        (
            "exits",
            "plugin exits: module mmfw_broken.exits of distribution mmfw-broken 0.3 cannot be imported: "
            "SystemExit: 7",
        ),
        (
            "missing-attribute",
            "plugin missing-attribute: module mmfw_broken.silent of distribution mmfw-broken 0.3 "
            "cannot be imported: AttributeError: module 'mmfw_broken.silent' has no attribute 'plugin'",
        ),
        (
            "no-info",
            "plugin no-info: mmfw_broken.silent has no MMFW_PLUGIN; add "
            'MMFW_PLUGIN = PluginInfo(name="no-info", hook_api=(1, 0))',
        ),
        (
            "wrong-name",
            "plugin wrong-name: MMFW_PLUGIN says name='right-name' and the entry point of "
            "distribution mmfw-broken 0.3 'wrong-name'; both must be the same",
        ),
        (
            "wrong-kind",
            "plugin wrong-kind: MMFW_PLUGIN says kind='shrinker', the entry point of "
            "distribution mmfw-broken 0.3 is in mmfw.policies",
        ),
        (
            "needs-string",
            "plugin needs-string: module mmfw_broken.needs_string of distribution mmfw-broken 0.3 "
            "cannot be imported: TypeError: needs is 'ttm'; a tuple of names such as (\"ttm\",) is wanted",
        ),
    ],
)
def test_broken_plugin_is_named_with_its_distribution(name: str, message: str) -> None:
    with pytest.raises(PluginError) as refused:
        load([name])
    assert str(refused.value) == message
    assert refused.value.exit_status == 3


def test_syntax_error_in_a_plugin_file(plugin_file: Write) -> None:
    path = plugin_file("p", "def f(:\n")
    with pytest.raises(PluginError) as refused:
        load([], [path])
    assert str(refused.value).startswith(f"plugin p: plugin file {path} cannot be imported: SyntaxError: ")
    assert str(refused.value).endswith("(p.py, line 2)")


@pytest.mark.parametrize(
    ("api", "remedy"),
    [((2, 0), "a newer mmfw"), ((1, 1), "a newer mmfw"), ((0, 9), "a newer version of the plugin")],
)
def test_other_hook_api_is_refused_with_both_numbers(
    load_source: Load, api: tuple[int, int], remedy: str
) -> None:
    with pytest.raises(PluginError) as refused:
        load_source(p=info(name="p", hook_api=api))
    assert str(refused.value) == (
        f"plugin p: written for hook API {api[0]}.{api[1]}, this mmfw has 1.0; install {remedy}"
    )


@pytest.mark.usefixtures("installed")
def test_class_named_by_an_entry_point_is_instantiated() -> None:
    assert type(load(["pool"])["pool"].plugin).__name__ == "PoolPlugin"


# --- hooks that are none ----------------------------------------------------------------------------------


def test_hook_that_is_not_marked_is_refused(plugin_file: Write) -> None:
    unmarked = "def mmfw_plan_wakeup(wake):\n    return WakePlan(None)\n"
    for source in (unmarked, HOOK + unmarked):
        path = plugin_file("nodeco", source)
        with pytest.raises(PluginError) as refused:
            load([], [path])
        assert str(refused.value) == (
            f"plugin nodeco, mmfw_plan_wakeup: not marked in plugin file {path}; mark it @hookimpl"
        )
        assert refused.value.exit_status == 3


@pytest.mark.parametrize("source", ["", info(name="p").removesuffix(HOOK), "def plan_wakeup(wake): ...\n"])
def test_file_without_a_hook_is_refused(plugin_file: Write, source: str) -> None:
    path = plugin_file("p", source)
    with pytest.raises(PluginError) as refused:
        load([], [path])
    assert str(refused.value) == (
        f"plugin p: plugin file {path} implements no hook, so it would change nothing; "
        "mark the functions that do @hookimpl"
    )


def test_function_named_as_a_hook_may_implement_another(load_source: Load) -> None:
    source = (
        "@hookimpl(specname='mmfw_module_init')\ndef mmfw_module_exit(): ...\nmmfw_plan_wakeup = 'a note'\n"
    )
    assert [one.hook for one in load_source(p=source)["p"].implementations] == ["mmfw_module_init"]


# --- hooks that do not fit ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "@hookimpl\ndef mmfw_should_shrink_slap(reclaim_context): ...",
            "plugin p, mmfw_should_shrink_slap: no such hook; did you mean 'mmfw_should_shrink_slab'?",
        ),
        (
            "@hookimpl(optionalhook=True)\ndef mmfw_plan_wakup(wake): ...",
            "plugin p, mmfw_plan_wakup: no such hook; did you mean 'mmfw_plan_wakeup'?",
        ),
        (
            "@hookimpl\ndef mmfw_plan_wakeup(pgdat, wakes): ...",
            "plugin p, mmfw_plan_wakeup: takes an argument 'wakes'; did you mean 'wake'?",
        ),
        (
            "@hookimpl\ndef mmfw_plan_wakeup(pgdat, wake=None): ...",
            "plugin p, mmfw_plan_wakeup: argument 'wake' has a default value and would never be passed; "
            "remove the default",
        ),
        (
            "@hookimpl\ndef mmfw_plan_wakeup(*args): ...",
            "plugin p, mmfw_plan_wakeup: takes *args; name the arguments it wants",
        ),
        (
            "@hookimpl\ndef ttm_pool_gfp_mask(order): ...",
            "plugin p, ttm_pool_gfp_mask: no loaded plugin has such a hook; load its owner, "
            "name it in needs, or mark the hook optionalhook=True",
        ),
        (
            "@hookimpl(wrapper=True)\ndef mmfw_module_init(mm):\n    return (yield)",
            "plugin p, mmfw_module_init: only decision hooks can be wrapped",
        ),
        (
            "@hookimpl\ndef mmfw_addhooks(manager): ...",
            "plugin p, mmfw_addhooks: takes an argument 'manager'; did you mean 'pluginmanager'?",
        ),
    ],
)
def test_hook_that_does_not_fit(load_source: Load, source: str, message: str) -> None:
    with pytest.raises(PluginError) as refused:
        load_source(p=source)
    assert str(refused.value) == message


# --- hooks that plugins publish -------------------------------------------------------------------------

TTM = """
class Spec:
    @hookspec(firstresult=True)
    def ttm_pool_gfp_mask(self, pool, order, flags): ...

@hookimpl
def mmfw_addhooks(pluginmanager):
    pluginmanager.add_hookspecs(Spec)
"""


@pytest.mark.parametrize("first", ["ttm", "p"])
def test_foreign_hook_is_checked_when_its_owner_is_loaded(load_source: Load, first: str) -> None:
    wrong = "@hookimpl(optionalhook=True)\ndef ttm_pool_gfp_msk(order): ..."
    sources = {"ttm": TTM, "p": wrong} if first == "ttm" else {"p": wrong, "ttm": TTM}
    with pytest.raises(PluginError) as refused:
        load_source(**sources)
    assert str(refused.value) == (
        "plugin p, ttm_pool_gfp_msk: plugin ttm has no such hook; did you mean 'ttm_pool_gfp_mask'?"
    )


def test_signature_of_a_foreign_hook_is_checked(load_source: Load) -> None:
    with pytest.raises(PluginError) as refused:
        load_source(ttm=TTM, p="@hookimpl\ndef ttm_pool_gfp_mask(ordr): ...")
    assert str(refused.value) == (
        "plugin p, ttm_pool_gfp_mask: takes an argument 'ordr'; did you mean 'order'?"
    )


def test_optional_hook_may_lack_its_owner(load_source: Load) -> None:
    loaded = load_source(p="@hookimpl(optionalhook=True)\ndef ttm_pool_gfp_mask(order): ...")
    assert loaded.names == ("p",)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (TTM.replace("ttm_", "xe_"), "published 'xe_pool_gfp_mask'; its own hooks begin with 'ttm_'"),
        (TTM.replace("    @hookspec(firstresult=True)\n", ""), "published nothing that is marked @hookspec"),
        (TTM + "    pluginmanager.add_hookspecs(Spec)\n", "published 'ttm_pool_gfp_mask' twice"),
        (TTM + "    raise KeyError('pool')\n", "KeyError: 'pool'"),
    ],
)
def test_published_hooks_are_checked(load_source: Load, source: str, message: str) -> None:
    with pytest.raises(PluginError) as refused:
        load_source(ttm=source)
    assert str(refused.value) == f"plugin ttm, mmfw_addhooks: {message}"


def test_two_loads_share_nothing(load_source: Load) -> None:
    load_source(ttm=TTM)
    with pytest.raises(PluginError):
        load_source(p="@hookimpl\ndef ttm_pool_gfp_mask(order): ...")


def test_plugin_refused_leaves_the_next_load_untouched(load_source: Load) -> None:
    with pytest.raises(PluginError):
        load_source(p="@hookimpl\ndef mmfw_plan_wakeup(wakes): ...")
    assert load_source(p="@hookimpl\ndef mmfw_plan_wakeup(wake): ...").names == ("p",)


def test_asking_for_a_plugin_that_is_not_loaded(load_source: Load) -> None:
    with pytest.raises(InputError) as refused:
        load_source(xe=HOOK)["xee"]
    assert str(refused.value) == "plugin 'xee' is not loaded; did you mean 'xe'?"
