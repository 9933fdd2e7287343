"""`resx plot`: a figure from recorded runs, as PDF, SVG and PNG and as a small picture in the terminal."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from resx.cli import complete
from resx.cli.given import parse_list, seeds_of
from resx.cli.options import Results, Seed, Seeds, Where
from resx.spec import FIELDS, SpecError

Depth = Annotated[
    str | None, typer.Option("--depth", "--depths", help="Only these depths, such as 20,56.", metavar="N|LIST")
]
Shortcut = Annotated[
    list[str] | None,
    typer.Option(
        help="Only this shortcut, such as none or identity; repeat for several.",
        metavar="NAME",
        autocompletion=complete.shortcuts,
    ),
]
DataSet = Annotated[
    list[str] | None,
    typer.Option(
        help="Only this data set, by name or label; repeat for several.",
        metavar="NAME",
        autocompletion=complete.datasets,
    ),
]
Run = Annotated[
    list[str] | None,
    typer.Option(
        help="Only runs whose id starts or ends like this; repeat for several.",
        metavar="RUN",
        autocompletion=complete.runs,
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        help="Where to write: an existing folder, a name for all three formats, or one file such as fig.png. "
        "[dim]default: figures/NAME in the results[/dim]"
    ),
]
Width = Annotated[
    float | None, typer.Option(min=0.1, help="Width in inches, such as 3.25 for a column; letters keep their size.")
]
Title = Annotated[bool, typer.Option("--title/--no-title", help="With its heading, or without, as in a paper.")]
Style = Annotated[str, typer.Option(help="screen, or paper: serif letters in black.")]
Name = Annotated[
    str | None, typer.Argument(help="degradation, curves, …; by default a list.", autocompletion=complete.figures)
]


def plot(
    name: Name = None,
    depth: Depth = None,
    shortcut: Shortcut = None,
    dataset: DataSet = None,
    seed: Seed = None,
    seeds: Seeds = None,
    run: Run = None,
    where: Where = None,
    results: Results = None,
    out: Out = None,
    title: Title = True,
    width: Width = None,
    style: Style = "screen",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No picture in the terminal, only the files.")] = False,
) -> None:
    """Draw a figure from recorded runs; nothing is trained. Prints the files it wrote.

    Without a name: the figures there are, and which of them can be drawn from what is recorded here.

    [bold]degradation[/bold]: training and test error, plain next to residual (the paper's Fig. 1 and 6).

    [bold]curves[/bold]: loss, error and learning rate of any runs.

    Examples: [bold]resx plot degradation --depth 20,56[/bold],
    [bold]resx plot curves --run 1a2b3c4d --out figure.png[/bold],
    [bold]resx plot depth --no-title --width 3.25 --style paper --out figure.pdf[/bold]
    """
    from resx import lab
    from resx.cli.terminal import CONSOLE
    from resx.figures import FIGURES, terminal
    from resx.figures.style import save
    from resx.store.files import refuse_unwritable, results_root
    from resx.store.select import parse_where

    if name is None:
        _list_figures(results_root(results))
        return
    FIGURES[name]  # a name that is none is said first
    filters: dict[str, list[Any]] = {
        "depth": parse_list(depth, "depth") if depth else [],
        "shortcut": shortcut or [],
        "dataset": dataset or [],
        "seed": seeds_of(seed, seeds) or [],
        "run": run or [],
    }
    for field, values in parse_where(where or [], (*FIELDS, "run")).items():
        filters[field] = [*filters.get(field, []), *values]
    root = results_root(results)
    stem, formats = _target(out, root, name)
    refuse_unwritable(stem)
    figure = lab.plot(name, results=root, title=title, width=width, look=style, where=filters)
    paths = save(figure, stem, formats)
    if sys.stdout.isatty() and not quiet:
        CONSOLE.print(terminal.picture(figure, CONSOLE.width))
    for path in paths:
        typer.echo(path)


def _target(out: Path | None, root: Path, name: str) -> tuple[Path, list[str]]:
    """Return the files' common stem and the formats that --out asks for."""
    from resx.figures.style import FORMATS

    if out is None or out.is_dir():
        return (out or root / "figures") / name, list(FORMATS)
    kind = out.suffix.removeprefix(".")
    if kind in FORMATS:
        return out.with_suffix(""), [kind]
    if kind.isalpha():
        raise SpecError(f"--out: no '.{kind}' is written; end it with {', '.join(f'.{name}' for name in FORMATS)}")
    return out, list(FORMATS)


def _list_figures(root: Path) -> None:
    """Print every figure, and whether the measurements that it needs are recorded in this folder."""
    from resx import lab
    from resx.cli.terminal import print_table
    from resx.figures import FIGURES
    from resx.probes import load_probe
    from resx.store.tables import load_frames

    probes = {name: lab.probe_of(name) for name in FIGURES}
    needed = {name: list(load_probe(probe).measures) if probe else [] for name, probe in probes.items()}
    frames = load_frames(root, measurements=sorted({key for keys in needed.values() for key in keys}))
    rows = []
    for name, probe in probes.items():
        missing = [key for key in needed[name] if not len(frames.get(key, ()))]
        state = "no runs" if frames["runs"].empty else f"needs `resx probe {probe}`" if missing else "can be drawn"
        rows.append((name, state, FIGURES.summary(name)))
    print_table(rows, ["<figure", f"<in {root}", "<what it shows"])
