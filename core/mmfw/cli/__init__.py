"""The command ``mmfw``: a table of subcommands, and the one place where errors become exit statuses.

A subcommand is a line of `COMMANDS`. Its module is imported when it is used, so that ``mmfw --help``
costs no more than typer does.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any, Final, NamedTuple

import typer
import typer.core

from mmfw.errors import InputError, MmfwError, PluginError, did_you_mean

__all__ = ["COMMANDS", "app", "main"]


class Command(NamedTuple):
    """A subcommand: its name, ``module:function`` or ``module:typer_app``, and its line in the help."""

    name: str
    target: str
    help: str


#: In the order of the help text. A target that is a function becomes a command, a `typer.Typer` a group.
COMMANDS: Final = (
    Command("run", "mmfw.cli.run:run", "Run a scenario on a simulated machine"),
    Command("compare", "mmfw.cli.compare:compare", "Compare policies with mainline over seeds"),
    Command("diff", "mmfw.cli.diff:diff", "Say what differs between two runs"),
    Command("report", "mmfw.cli.report:report", "Write DIR/report.html, one file that needs no network"),
    Command("replay", "mmfw.cli.replay:replay", "Replay real allocator traces, pfn by pfn"),
    Command(
        "validate", "mmfw.cli.validate:validate", "Compare real captures with the simulator, figure by figure"
    ),
    Command("scenarios", "mmfw.cli.scenarios:app", "List and show installed scenarios"),
    Command("policies", "mmfw.cli.policies:app", "List installed policies and sets of policies"),
    Command("plugins", "mmfw.cli.plugins:app", "Show installed plugins and check them"),
)


def _command_of(target: str) -> Any:
    module, _, attribute = target.partition(":")
    found: object = getattr(import_module(module), attribute)
    if not isinstance(found, typer.Typer):
        single = typer.Typer(add_completion=False, rich_markup_mode=None)
        single.command()(found)  # type: ignore[type-var]  # whatever the table names is a function
        found = single
    return typer.main.get_command(found)


def _plugin_command(name: str) -> Any:
    """Command that an installed distribution offers in ``mmfw.commands``, or None."""
    from mmfw.discovery import discover, only_record

    records = discover(["mmfw.commands"])
    if all(record.name != name for record in records):
        return None
    record = only_record(name, records)
    try:
        return _command_of(record.target)
    except (Exception, SystemExit) as exc:
        text = " ".join(str(exc).split())
        raise PluginError(
            f"command of {record.origin} cannot be imported: {type(exc).__name__}: {text}", plugin=name
        ) from exc


class LazyGroup(typer.core.TyperGroup):
    """Group whose commands come from `COMMANDS`, each imported when it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names in the table's order."""
        return [command.name for command in COMMANDS]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Import and return one command."""
        for command in COMMANDS:
            if command.name == cmd_name:
                return _command_of(command.target)
        found = None if cmd_name.startswith("-") else _plugin_command(cmd_name)
        if found is None:
            raise InputError(f"no command {cmd_name!r}; {did_you_mean(cmd_name, self.list_commands(ctx))}")
        return found

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the table without importing what it names."""
        with formatter.section("Commands"):
            formatter.write_dl([(command.name, command.help) for command in COMMANDS])


app = typer.Typer(cls=LazyGroup, add_completion=False, rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def root(
    ctx: typer.Context,
    version: bool = typer.Option(False, "--version", help="Print the version and exit."),
    verbose: bool = typer.Option(False, "--verbose", "-v", help="Show the traceback of an error."),
) -> None:
    """Simulate the Linux mm core: page allocator, reclaim and shrinkers, with pluggable policies."""
    if version:
        from importlib.metadata import PackageNotFoundError
        from importlib.metadata import version as version_of

        try:
            typer.echo(f"mmfw {version_of('mmfw')}")
        except PackageNotFoundError:
            raise InputError(
                "mmfw is not installed, so its version is unknown; install it with pip"
            ) from None
    elif ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help(), err=True)
        raise typer.Exit(2)


def main(args: list[str] | None = None) -> None:
    """Run the command line and exit.

    Status 0 done; 1 a difference or failed check was found; 2 wrong input; 3 a plugin misbehaved;
    70 a fault of mmfw itself; 130 interrupted; 141 the reader of stdout went away.
    """
    sys.exit(_status(sys.argv[1:] if args is None else args))


def _status(args: list[str]) -> int:
    try:
        try:
            with typer.main.get_command(app).make_context("mmfw", list(args)) as ctx:
                ctx.command.invoke(ctx)
            status = 0
        finally:
            sys.stdout.flush()
    except typer.Exit as exc:
        status = exc.exit_code
    except MmfwError as exc:
        status = _complain(str(exc), exc.exit_status)
        if args[:1] in (["-v"], ["--verbose"]):
            import traceback

            traceback.print_exception(exc)
    except (KeyboardInterrupt, typer.Abort):
        status = _complain("interrupted", 130)
    except BrokenPipeError:
        # What is still buffered has no reader; the interpreter must not complain about it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 141
    except _usage_errors() as exc:
        if type(exc).__name__ == "NoArgsIsHelpError":
            typer.echo(exc.format_message(), err=True)
            status = 2
        else:
            status = _complain(exc.format_message(), 2)
    except MemoryError:
        status = _complain(
            "this computer has not enough memory; a machine takes about 20 bytes a page to build", 2
        )
    except Exception as exc:
        if args[:1] in (["-v"], ["--verbose"]):
            raise
        text = " ".join(str(exc).split())[:200]
        status = _complain(
            f"internal error, please report it: {type(exc).__name__}: {text} (-v shows where)", 70
        )
    return status


def _usage_errors() -> Any:
    # typer brings click along under a name that changed between versions; the class is the same.
    return next(cls for cls in typer.BadParameter.__mro__ if cls.__name__ == "ClickException")


def _complain(message: str, status: int) -> int:
    # One line, whatever names the user's input had: a control character is shown as it would be written.
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in message)
    typer.echo(f"mmfw: {shown}", err=True)
    return status
