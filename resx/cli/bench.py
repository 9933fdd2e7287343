"""`resx bench`: how fast training is here, against a conventional loop and against the machine's own limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from resx.cli.given import parse_list
from resx.cli.options import Json, Quiet

if TYPE_CHECKING:
    from resx.bench.plan import Plan

Device = Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N; by default cuda where there is one.")]
Processes = Annotated[
    int | None,
    typer.Option(min=1, help="Networks trained at once on a CPU, one process each; by default one per core."),
]
Networks = Annotated[
    str, typer.Option(help="Networks side by side in one process, for a GPU: a number, or several to compare.")
]
CheckpointActivations = Annotated[
    bool, typer.Option("--checkpoint-activations", help="Measure with activations recomputed instead of kept.")
]
Kernels = Annotated[
    bool, typer.Option("--kernels", help="Only count the kernels a training step launches on a GPU; no GPU is needed.")
]
EachShortcut = Annotated[
    bool, typer.Option("--each-shortcut", help="Only time a step at the first depth with each shortcut.")
]


def bench(
    depths: Annotated[str, typer.Option("--depth", "--depths", help="Depths to measure.", metavar="N|LIST")] = "20,56",
    batch_size: Annotated[int, typer.Option(min=1, help="Images per step.")] = 128,
    image_size: Annotated[int, typer.Option(min=8, help="Height and width of the images, which are synthetic.")] = 32,
    shortcut: Annotated[str, typer.Option(help="The shortcut around a branch: identity, none, …")] = "identity",
    precision: Annotated[str, typer.Option(help="fp32, tf32 or bf16.")] = "fp32",
    device: Device = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of each process.")] = 1,
    processes: Processes = None,
    networks: Networks = "1",
    workers: Annotated[int, typer.Option(min=0, help="Workers of the conventional loop's DataLoader.")] = 2,
    repetitions: Annotated[int, typer.Option(min=1, help="Repetitions of every measurement, taken in turns.")] = 5,
    seconds: Annotated[float, typer.Option(min=0.001, help="Length of one measurement.")] = 1.0,
    checkpoint_activations: CheckpointActivations = False,
    kernels: Kernels = False,
    each_shortcut: EachShortcut = False,
    publish: Annotated[Path | None, typer.Option(help="Also write the numbers here, such as results/bench.")] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure the speed and memory of training and evaluation on this machine, a few minutes.

    Prints the median, the least and the most of measurements taken in turns: of resx, of a conventional loop (PIL
    images, DataLoader with workers, contiguous, steps one by one), and of the machine's arithmetic and memory.

    Examples: [bold]resx bench[/bold],
    [bold]resx bench --depths 20,56,110 --precision bf16 --networks 1,2,4,10 --publish results/bench[/bold]
    """
    from resx.bench import process, show
    from resx.bench.plan import Plan
    from resx.training.machine import make_machine

    if kernels:
        _count_kernels(publish, json)
        return
    machine = make_machine(device=device, jobs=processes)
    plan = Plan(
        depths=tuple(parse_list(depths, "depths")),
        batch_size=batch_size,
        image_size=image_size,
        shortcut=shortcut,
        precision=precision,
        device=machine.device,
        threads=threads,
        processes=machine.jobs,
        networks=tuple(parse_list(networks, "networks")),
        workers=workers,
        repetitions=repetitions,
        seconds=seconds,
        checkpoint_activations=checkpoint_activations,
    )
    if min(plan.networks) < 1:
        raise typer.BadParameter(f"--networks: at least one, not {networks}")
    for depth in plan.depths:
        plan.spec(depth)  # what cannot be trained is said before anything is measured
    if each_shortcut:
        _time_shortcuts(plan, publish, json, quiet)
        return
    result = process.measure(plan, lambda line: None if quiet else typer.echo(line, err=True))
    files = show.publish(result, publish) if publish else []
    for warning in result["warnings"]:
        typer.echo(f"resx: warning: {warning}", err=True)
    columns = [f"<{name}" if name in ("what", "loop") else name for name in show.COLUMNS]
    title = f"{result['environment']['hardware']}: median (least–most) of {repetitions}"
    _print(result, files, json, show.table_rows(result), columns, title, show.summary_lines(result))


def _print(
    result: Mapping[str, Any],
    files: Sequence[Path],
    json: bool,
    rows: Sequence[Sequence[str]],
    columns: Sequence[str],
    title: str,
    lines: Sequence[str] = (),
) -> None:
    """Print a result as a JSON document, or as a table and lines below it; either says which files were written."""
    from resx.cli.terminal import print_json, print_table

    if json:
        print_json({**result, "files": files})
        return
    print_table(rows, columns, title=title)
    for line in (*lines, *(f"written: {file}" for file in files)):
        typer.echo(line)


def _time_shortcuts(plan: Plan, publish: Path | None, json: bool, quiet: bool) -> None:
    from resx.bench import shortcuts

    result = shortcuts.measure(plan, lambda line: None if quiet else typer.echo(line, err=True))
    files = shortcuts.publish(result, publish) if publish else []
    _print(result, files, json, shortcuts.table_rows(result), shortcuts.COLUMNS, shortcuts.caption(result))


def _count_kernels(publish: Path | None, json: bool) -> None:
    from resx.bench import kernels as library

    count = library.count_all()
    files = library.publish(count, publish) if publish else []
    rows = [[precision, *map(str, numbers.values())] for precision, numbers in count["kernels"].items()]
    columns = ["<precision", *(f"{depth} layers" for depth in library.DEPTHS)]
    _print(count, files, json, rows, columns, "Kernels of a training step")
