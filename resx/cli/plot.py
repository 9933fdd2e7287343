"""`resx plot`: a figure from recorded runs, as PDF, SVG and PNG and as a small picture in the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from resx.cli.options import Results, parse_list
from resx.spec import SpecError

Depth = Annotated[str | None, typer.Option(help="Only these depths, such as 20,56.", show_default=False)]
Shortcut = Annotated[
    list[str] | None,
    typer.Option(help="Only this shortcut, such as none or identity; repeat for several.", show_default=False),
]
DataSet = Annotated[
    list[str] | None,
    typer.Option(help="Only this data set, by name or label; repeat for several.", show_default=False),
]
Seed = Annotated[str | None, typer.Option(help="Only these seeds, such as 0,1,2.", show_default=False)]
Run = Annotated[
    list[str] | None,
    typer.Option(help="Only runs whose id starts or ends like this; repeat for several.", show_default=False),
]
Where = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FIELD=VALUE",
        help="Only runs with this value of any field, such as lr=0.02; repeat for several.",
        show_default=False,
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        help="Where to: a folder that exists, a name for all three formats, or one file such as fig.png. "
        "[dim]default: figures/NAME in the results[/dim]",
        show_default=False,
    ),
]


def plot(
    name: Annotated[str, typer.Argument(help="degradation, curves, …", show_default=False)],
    depth: Depth = None,
    shortcut: Shortcut = None,
    dataset: DataSet = None,
    seed: Seed = None,
    run: Run = None,
    where: Where = None,
    results: Results = None,
    out: Out = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No picture, only the files.")] = False,
) -> None:
    """Draw a figure from recorded runs; nothing is trained. Prints the files it wrote.

    [bold]degradation[/bold]: training and test error, plain beside residual (the paper's Fig. 1 and 6).

    [bold]curves[/bold]: loss, error and learning rate of any runs.

    Examples: [bold]resx plot degradation --depth 20,56[/bold],
    [bold]resx plot curves --run 1a2b3c4d --out figure.png[/bold]
    """
    import sys

    from rich.console import Console

    from resx.figures import FIGURES, select, style, terminal
    from resx.probes import Findings, Settings, judge, load_probe, probe_names
    from resx.store.files import results_root
    from resx.store.tables import load_frames

    draw = FIGURES[name]
    probe = next((key for key in probe_names() if name in load_probe(key).figures), None)
    filters: dict[str, list[Any]] = {
        "depth": parse_list(depth, "depth") if depth else [],
        "shortcut": shortcut or [],
        "dataset": dataset or [],
        "seed": parse_list(seed, "seed") if seed else [],
        "run": run or [],
    }
    for text in where or []:
        field, value = _parse_where(text)
        filters[field] = [*filters.get(field, []), value]
    root = results_root(results)
    measurements = list(load_probe(probe).measures) if probe else []
    frames = select(load_frames(root, measurements=measurements), **filters)
    findings = judge(probe, frames, load_probe(probe).settings()) if probe else Findings("", Settings(), frames)
    figure = draw(findings)
    stem, formats = _target(out, root, name)
    paths = style.save(figure, stem, formats)
    if sys.stdout.isatty() and not quiet:
        console = Console()
        console.print(terminal.picture(figure, console.width))
    for path in paths:
        typer.echo(path)


def _parse_where(text: str) -> tuple[str, str]:
    field, equals, value = text.partition("=")
    if not (field and equals and value):
        raise SpecError(f"--where: write field=value, such as lr=0.02, not '{text}'")
    return field.strip(), value.strip()


def _target(out: Path | None, root: Path, name: str) -> tuple[Path, list[str]]:
    """Return the files' common stem and the formats that --out asks for."""
    from resx.figures.style import FORMATS

    if out is None:
        return root / "figures" / name, list(FORMATS)
    if out.is_dir():
        return out / name, list(FORMATS)
    kind = out.suffix.removeprefix(".")
    return (out.with_suffix(""), [kind]) if kind in FORMATS else (out, list(FORMATS))
