from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mmfw.discovery import discover, file_record, only_record
from mmfw.errors import InputError
from mmfw.plugins import load

#: A plugin without any hook is refused.
HOOK = "@hookimpl\ndef mmfw_module_exit(): ...\n"


@pytest.mark.usefixtures("installed")
def test_discovery_reads_metadata_and_imports_nothing() -> None:
    records = [r for r in discover() if r.distribution == "mmfw-good"]
    assert [(r.name, r.group, r.target, r.version) for r in records] == [
        ("always-slab", "mmfw.policies", "mmfw_good.always_slab", "1.2"),
        ("no-slab", "mmfw.policies", "mmfw_good.no_slab", "1.2"),
        ("pool", "mmfw.shrinkers", "mmfw_good.pool:PoolPlugin", "1.2"),
        ("pool-user", "mmfw.workloads", "mmfw_good.pool_user", "1.2"),
    ]
    assert not [name for name in sys.modules if name.startswith(("mmfw_good", "mmfw_broken", "mmfw_twin"))]


@pytest.mark.usefixtures("installed")
def test_only_the_selected_plugin_is_imported() -> None:
    load(["always-slab"])
    assert sorted(name for name in sys.modules if name.startswith("mmfw_good")) == [
        "mmfw_good",
        "mmfw_good.always_slab",
    ]


@pytest.mark.usefixtures("installed")
def test_one_name_from_two_distributions_is_refused() -> None:
    with pytest.raises(InputError) as refused:
        load(["twin"])
    assert str(refused.value) == (
        "plugin 'twin' is offered twice, by distribution mmfw-twin-a 1.0 (mmfw_twin_a) and "
        "distribution mmfw-twin-b 2.0 (mmfw_twin_b); uninstall or rename one"
    )


@pytest.mark.usefixtures("installed")
def test_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(InputError) as refused:
        load(["no-slob"])
    assert str(refused.value) == "no plugin 'no-slob'; did you mean 'no-slab'?"


def test_xee_suggests_xe(plugin_file: Callable[[str, str], Path]) -> None:
    with pytest.raises(InputError) as refused:
        load(["xee"], [plugin_file("xe", "")])
    assert str(refused.value) == "no plugin 'xee'; did you mean 'xe'?"


def test_underscored_name_is_the_hyphenated_one(plugin_file: Callable[[str, str], Path]) -> None:
    assert load(["my_policy"], [plugin_file("my_policy", HOOK)]).names == ("my-policy",)


def test_mainline_is_on_offer_without_metadata() -> None:
    assert only_record("mainline", discover()).origin == "distribution mmfw"


def test_missing_plugin_file() -> None:
    with pytest.raises(InputError) as refused:
        file_record("nowhere/policy.py")
    assert str(refused.value) == "nowhere/policy.py: no such plugin file"


@pytest.mark.parametrize("name", ["3d.py", "policy.txt", "my policy.py"])
def test_plugin_file_must_be_named_as_a_module(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(InputError) as refused:
        file_record(tmp_path / name)
    assert str(refused.value) == (
        f"{tmp_path / name}: a plugin file is a Python file named as a module, such as my_policy.py"
    )


def test_edited_file_is_read_again(plugin_file: Callable[[str, str], Path]) -> None:
    source = 'MMFW_PLUGIN = PluginInfo(name="{}", hook_api=(1, 0))\n' + HOOK
    assert load([], [plugin_file("p", source.format("one"))]).names == ("one",)
    assert load([], [plugin_file("p", source.format("two"))]).names == ("two",)


def test_selecting_imports_no_installed_plugin_that_was_not_named(
    mmfw_command: Callable[..., subprocess.CompletedProcess[str]], installed: Path
) -> None:
    done = mmfw_command("plugins", "info", "no-slab", path=(installed,))
    assert (done.returncode, done.stderr) == (0, "")
