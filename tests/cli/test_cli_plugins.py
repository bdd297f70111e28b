"""``mmfw plugins`` and what every command shares: one-line errors, exit statuses, quiet ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from mmfw.cli import COMMANDS

Run = Callable[..., subprocess.CompletedProcess[str]]
CORE = Path(__file__).parents[2] / "core"


def test_help_lists_every_command_with_its_line(mmfw_command: Run) -> None:
    done = mmfw_command("--help")
    listed = dict(line.split(maxsplit=1) for line in done.stdout.partition("Commands:\n")[2].splitlines())
    assert listed == {command.name: command.help for command in COMMANDS}
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_command_resolves_and_says_in_its_help_what_the_table_says(
    command: tuple[str, str, str], mmfw_command: Run
) -> None:
    module, _, attribute = command[1].partition(":")
    assert hasattr(import_module(module), attribute)
    done = mmfw_command(command[0], "--help")
    assert done.stdout.splitlines()[2].strip().startswith(command[2])


def test_no_command_shows_help_on_stderr(mmfw_command: Run) -> None:
    done = mmfw_command()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Usage: mmfw [OPTIONS] COMMAND [ARGS]...\n")


@pytest.mark.parametrize("group", ["plugins", "policies", "scenarios"])
def test_a_group_without_a_command_shows_its_help_line_by_line(mmfw_command: Run, group: str) -> None:
    done = mmfw_command(group)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"Usage: mmfw {group} [OPTIONS] COMMAND [ARGS]...\n\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plugin"], "mmfw: no command 'plugin'; did you mean 'plugins'?\n"),
        (["plugins", "info", "mainlin"], "mmfw: no plugin 'mainlin'; did you mean 'mainline'?\n"),
        (["plugins", "info", "no/such.py"], "mmfw: no/such.py: no such plugin file\n"),
    ],
)
def test_wrong_input_is_one_line_and_status_2(mmfw_command: Run, arguments: list[str], message: str) -> None:
    done = mmfw_command(*arguments)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", message)


@pytest.mark.parametrize(
    "arguments", [["plugins", "info"], ["plugins", "list", "--fromat"], ["plugins", "lst"], ["-x"]]
)
def test_usage_error_is_one_line_and_status_2(mmfw_command: Run, arguments: list[str]) -> None:
    done = mmfw_command(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("mmfw: ")
    assert done.stderr.count("\n") == 1


# --- list -----------------------------------------------------------------------------------------------


def rows_of(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, str]]:
    return {row["name"]: row for row in json.loads(done.stdout) if row["distribution"].startswith("mmfw-")}


def test_list_imports_no_plugin(mmfw_command: Run, installed: Path) -> None:
    done = mmfw_command("plugins", "list", path=(installed,), python=("-X", "importtime"))
    assert done.returncode == 0
    assert "boom" in done.stdout
    assert "mmfw.discovery" in done.stderr
    assert [
        name for name in ("mmfw_good", "mmfw_broken", "mmfw_twin", " pluggy") if name in done.stderr
    ] == []


def test_list_as_json(mmfw_command: Run, installed: Path) -> None:
    rows = rows_of(mmfw_command("plugins", "list", "--format", "json", path=(installed,)))
    assert rows["no-slab"] == {
        "name": "no-slab",
        "group": "mmfw.policies",
        "distribution": "mmfw-good",
        "version": "1.2",
    }
    assert rows["hello"]["group"] == "mmfw.commands"


def test_check_goes_on_after_a_broken_plugin_and_ends_with_1(mmfw_command: Run, installed: Path) -> None:
    done = mmfw_command("plugins", "list", "--check", "--format", "json", path=(installed,))
    rows = rows_of(done)
    assert (done.returncode, done.stderr) == (1, "")
    assert rows["boom"]["error"] == (
        "plugin boom: module mmfw_broken.boom of distribution mmfw-broken 0.3 cannot be imported: "
        "ImportError: no backend: install one"
    )
    assert "is offered twice, by " in rows["twin"]["error"]
    assert [rows[name]["error"] for name in ("always-slab", "no-slab", "pool", "pool-user")] == [None] * 4


def test_check_of_sound_plugins_ends_with_0(mmfw_command: Run) -> None:
    done = mmfw_command("plugins", "list", "--check")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0].split() == ["name", "group", "distribution", "version", "error"]


# --- info -----------------------------------------------------------------------------------------------


def test_info_as_text(mmfw_command: Run, installed: Path) -> None:
    done = mmfw_command("plugins", "info", "pool_user", path=(installed,))
    assert done.stdout == (
        "name:          pool-user\n"
        "kind:          workload\n"
        "hook api:      1.0\n"
        "from:          distribution mmfw-good 1.2\n"
        "needs:         pool\n"
        "conflicts:     -\n"
        "composes with: -\n"
        "acts on:       -\n"
        "hooks:         pool_gfp_mask\n"
    )


def test_info_of_a_plugin_file_as_json(mmfw_command: Run, plugin_file: Callable[[str, str], Path]) -> None:
    path = plugin_file("elide_all", "@hookimpl\ndef mmfw_should_shrink_slab(): return False\n")
    assert json.loads(mmfw_command("plugins", "info", str(path), "--format", "json").stdout) == {
        "name": "elide-all",
        "kind": "policy",
        "hook_api": "1.0",
        "from": f"plugin file {path}",
        "needs": [],
        "conflicts": [],
        "composes_with": [],
        "acts_on": [],
        "hooks": ["mmfw_should_shrink_slab"],
    }


def test_broken_plugin_is_status_3_and_its_traceback_is_for_verbose_only(
    mmfw_command: Run, installed: Path
) -> None:
    line = (
        "mmfw: plugin boom: module mmfw_broken.boom of distribution mmfw-broken 0.3 cannot be imported: "
        "ImportError: no backend: install one\n"
    )
    done = mmfw_command("plugins", "info", "boom", path=(installed,))
    assert (done.returncode, done.stdout, done.stderr) == (3, "", line)
    loud = mmfw_command("--verbose", "plugins", "info", "boom", path=(installed,))
    assert loud.returncode == 3
    assert loud.stderr.startswith(line + "Traceback (most recent call last):\n")
    assert "ImportError: no backend:\n  install one\n" in loud.stderr


# --- commands of plugins, and ends that are nobody's fault ------------------------------------------------


def test_plugin_offers_a_command(mmfw_command: Run, installed: Path) -> None:
    done = mmfw_command("hello", "--name", "kswapd", path=(installed,))
    assert (done.returncode, done.stdout, done.stderr) == (0, "hello kswapd\n", "")


def test_broken_command_of_a_plugin(mmfw_command: Run, installed: Path) -> None:
    done = mmfw_command("broken-command", path=(installed,))
    assert (done.returncode, done.stderr) == (
        3,
        "mmfw: plugin broken-command: command of distribution mmfw-broken 0.3 cannot be imported: "
        "ImportError: no backend: install one\n",
    )


def test_interrupt_is_130(plugin_file: Callable[[str, str], Path], mmfw_command: Run) -> None:
    path = plugin_file("interrupting", "raise KeyboardInterrupt\n")
    done = mmfw_command("plugins", "info", str(path))
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "mmfw: interrupted\n")


def test_reader_that_went_away_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-c", "from mmfw.cli import main; main()", "plugins", "list"],
        env={**os.environ, "PYTHONPATH": str(CORE)},
        stdout=write,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")
