"""The command line: one module per command, each translating flags and calling a library function.

Progress and logs go to stderr, results to stdout. Exit codes: 0 done (a diverged run is a result), 1 a run failed,
2 bad usage or bad input, 130 and 143 after Ctrl-C and SIGTERM.
"""

from __future__ import annotations

import os
import sys

import typer

from resx.cli import bench, claims, compare, data, models, plot, probe, publish, runs, shortcuts, train
from resx.cli.options import flowing
from resx.spec import SpecError

app = typer.Typer(
    name="resx",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""A laboratory for residual learning (He et al. 2016).

    Train plain and residual twins at several depths, see the degradation that shortcuts cure, and measure what is real.

    Start with [bold]resx compare[/bold]: four networks on small digits in about a minute, no download.""",
)


def _version(show: bool) -> None:
    if show:
        from importlib.metadata import version

        typer.echo(f"resx {version('resx')}")
        raise typer.Exit()


@app.callback()
def _main(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    pass


app.command("train", help=flowing(train.train.__doc__))(train.train)
app.command("compare", help=flowing(compare.compare.__doc__))(compare.compare)
app.command("plot", help=flowing(plot.plot.__doc__))(plot.plot)
app.add_typer(probe.probe_app, name="probe")
app.command("run", help=flowing(probe.run.__doc__))(probe.run)
app.command("claims", help=flowing(claims.claims.__doc__))(claims.claims)
app.command("publish", help=flowing(publish.publish.__doc__))(publish.publish)
app.add_typer(runs.runs_app, name="runs")
app.command("models", help=flowing(models.models.__doc__))(models.models)
app.command("shortcuts", help=flowing(shortcuts.shortcuts.__doc__))(shortcuts.shortcuts)
app.command("data", help=flowing(data.data.__doc__))(data.data)
app.command("bench", help=flowing(bench.bench.__doc__))(bench.bench)


def main() -> None:
    """Run the command line; every mistake of a user is one line on stderr and exit code 2."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code."""
    try:
        return app(arguments, prog_name="resx", standalone_mode=False) or 0
    except SpecError as error:
        return _fail(error.errors, 2)
    except BrokenPipeError:  # `resx runs list | head`: whoever read us has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (KeyboardInterrupt, typer.Abort):
        return _fail(["stopped"], 130)
    except Exception as error:
        return _handle(error)


def _handle(error: Exception) -> int:
    """Turn what is no fault of the program into one line; anything else is a bug and shows its traceback."""
    if hasattr(error, "format_message"):  # Typer's own usage errors; where their class lives depends on its version
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "resx"
        return _fail([f"{error.format_message()} (see {path} --help)"], 2)
    if "torch" in sys.modules:
        import torch

        from resx.store.files import StoreError
        from resx.training.loop import Stopped

        if isinstance(error, StoreError):
            return _fail([str(error)], 1)
        if isinstance(error, Stopped):
            where = f"{error.run_id} at step {error.step}; " if error.run_id else ""
            return _fail(
                [f"stopped: {where}checkpoints are kept, the same command goes on from there"],
                128 + (error.signal or 2),
            )
        if isinstance(error, torch.OutOfMemoryError):
            return _fail(
                ["out of memory on the device: use a smaller --batch-size, or --checkpoint-activations in training"], 1
            )
    raise error


def _fail(lines: list[str], code: int) -> int:
    for line in lines:
        print(f"resx: {' '.join(line.split())}", file=sys.stderr)
    return code
