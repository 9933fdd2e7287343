"""The command line: one module per command, each translating flags and calling a library function.

Progress and logs go to stderr, results to stdout. Exit codes: 0 done (a diverged run is a result), 1 a run failed,
2 bad usage or bad input, 130 and 143 after Ctrl-C and SIGTERM.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any

import typer

from resx.cli.errors import fail, handle
from resx.cli.terminal import flowing, prepare_streams
from resx.spec import SpecError

# command -> module and what of it is registered; in the order of --help. Only what is called is imported.
COMMANDS = {
    "train": "train.train",
    "compare": "compare.compare",
    "plot": "plot.plot",
    "probe": "probe.probe_app",
    "run": "probe.run",
    "claims": "claims.claims",
    "report": "report.report",
    "publish": "publish.publish",
    "runs": "runs.runs_app",
    "list": "list.list_names",
    "models": "models.models",
    "shortcuts": "shortcuts.shortcuts",
    "data": "data.data",
    "bench": "bench.bench",
}
HELP = """A laboratory for residual learning (He et al. 2016).

Train plain and residual twins at several depths, see the degradation that shortcuts cure, and measure what is real.

Start with [bold]resx compare[/bold]: four networks on small digits in about a minute, no download."""


def _version(show: bool) -> None:
    if show:
        from importlib.metadata import version

        typer.echo(f"resx {version('resx')}")
        raise typer.Exit()


def _main(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    pass


def _app(arguments: list[str]) -> typer.Typer:
    """Return the command line with the command that is called, or with all of them where none is."""
    app = typer.Typer(
        name="resx",
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        help=HELP,
    )
    app.callback()(_main)
    called = arguments[0] if arguments else ""
    for name in [called] if called in COMMANDS else COMMANDS:
        module, _, attribute = COMMANDS[name].partition(".")
        command: Any = getattr(import_module(f"resx.cli.{module}"), attribute)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name, help=flowing(command.__doc__))(command)
    return app


def main() -> None:
    """Run the command line; every mistake of a user is one line on stderr and exit code 2."""
    prepare_streams()
    if "TORCHELASTIC_RUN_ID" in os.environ:
        from resx.engines.torchrun import together

        sys.exit(together(lambda: run(sys.argv[1:])))
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code."""
    try:
        command = typer.main.get_command(_app(arguments or _words_to_complete()))
        called, words = _called(command, arguments)
        if hasattr(called, "commands"):
            arguments = [*arguments, "--help"]
        _refuse_misread(called, words)
        _hide_types_of_flags(command)
        code = command(arguments, prog_name="resx", standalone_mode=False) or 0
        sys.stdout.flush()
        return code
    except SpecError as error:
        return fail(error.errors, 2)
    except (KeyboardInterrupt, typer.Abort):
        return fail(["stopped"], 130)
    except SystemExit as ended:  # Typer's own way out, where whoever read us has gone: `resx runs list | head`
        if isinstance(ended.__context__, BrokenPipeError):
            return 0
        raise
    except Exception as error:
        return handle(error)


def _words_to_complete() -> list[str]:
    """Return the words after `resx` that a shell asks to complete, none where it asks for nothing."""
    line = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS") or ""
    return line.split()[1:]


def _hide_types_of_flags(command: Any) -> None:
    """Let help show a flag as what it is, not as an option that takes a <bool>."""
    shown = typer.Context(command) if hasattr(command, "get_help_option") else None
    for item in [*getattr(command, "params", ()), *([command.get_help_option(shown)] if shown else [])]:
        if getattr(item, "is_flag", False):
            item.metavar = ""
    for inner in getattr(command, "commands", {}).values():
        _hide_types_of_flags(inner)


def _called(command: Any, arguments: list[str]) -> tuple[Any, list[str]]:
    """Return the command or the group of commands that the first words name, None for neither, and the other words."""
    for place, word in enumerate(arguments):
        if not hasattr(command, "commands"):
            return command, arguments[place:]
        command = command.commands.get(word)
    return command, []


def _refuse_misread(command: Any, arguments: list[str]) -> None:
    """Raise SpecError where an option's value is another option of the command, and where one value is given twice."""
    words = iter(arguments)
    options = [item for item in getattr(command, "params", ()) if item.param_type_name == "option"]
    names = {text for item in options for text in (*item.opts, *item.secondary_opts)}
    valued = {text: item for item in options if not item.is_flag for text in item.opts}
    given = []
    for word in words:
        name, equals, _ = word.partition("=")
        if name not in valued:
            continue
        if not equals and (value := next(words, "").partition("=")[0]) in names:
            raise SpecError(f"{name}: takes a value, and {value} is an option")
        given += [] if valued[name].multiple else [valued[name].opts[0]]
    if repeated := [name for name in dict.fromkeys(given) if given.count(name) > 1]:
        raise SpecError([f"{name}: given twice; it takes one value" for name in repeated])
