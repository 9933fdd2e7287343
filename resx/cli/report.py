"""`resx report`: the ledger, or one experiment, as a page to send to a colleague; and the check of such a page."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from resx.cli.options import Results
from resx.spec import SpecError


class Format(StrEnum):
    """What is written."""

    html = "html"
    markdown = "markdown"


def report(
    experiment: Annotated[
        str | None, typer.Argument(help="One experiment, by its folder or its name, instead of the ledger.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write.")] = Path("report.html"),
    kind: Annotated[Format, typer.Option("--format", help="A page, or Markdown for a README or a wiki.")] = Format.html,
    check: Annotated[Path | None, typer.Option(help="Recompute a page's numbers from the tables inside it.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is no page of resx.")] = False,
    results: Results = None,
) -> None:
    """Write what is true of the summary as one page: statements, verdicts, figures, tables, all in a single file.

    Nothing is trained. The page needs no network and carries its tables, so that it can be checked.

    Examples: [bold]resx report[/bold], [bold]resx report digits-depths -o mine.html[/bold],
    [bold]resx report --check report.html[/bold]
    """
    from resx.report import build
    from resx.report.check import check as check_page
    from resx.store.files import results_root

    if check:
        outcome = check_page(check)
        for line in outcome.wrong:
            typer.echo(line)
        typer.echo(f"{outcome.agree} of {outcome.total} numbers agree")
        raise typer.Exit(1 if outcome.wrong else 0)
    root = results_root(results)
    build.refuse(out, force=force, marks=kind is Format.markdown)
    if experiment:
        content, title = build.of_folder(_folder(experiment, root)), experiment
    else:
        content = build.of_results(root, lambda line: typer.echo(line, err=True))
        title = "Residual learning: what is true of the summary"
    text = build.markdown(content) if kind is Format.markdown else build.html(content, title)
    for line in content.problems:
        typer.echo(f"resx: not available: {line}", err=True)
    build.save(text, out, force=force)
    typer.echo(out)


def write_page(folder: Path, out: Path) -> None:
    """Write the page of one experiment. Raises SpecError where another file is there."""
    from resx.report import build

    build.save(build.html(build.of_folder(folder), folder.name), out)
    typer.echo(out, err=True)


def _folder(name: str, root: Path) -> Path:
    """Return the folder of an experiment. Raises SpecError with what there is."""
    from resx.report import build

    for folder in (Path(name), root / name, root / "findings" / name):
        if (folder / "experiment.toml").exists():
            return folder
    names = [folder.name for folder in build.folders(root)]
    raise SpecError(f"no experiment '{name}' in {root}; there are {', '.join(names) or 'none'}")
