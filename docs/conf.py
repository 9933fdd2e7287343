"""Sphinx: the pages that are written by hand, one per probe from its docstring and claims, one of all shortcuts."""

from pathlib import Path

from resx.claims import help_lines
from resx.cli.shortcuts import as_markdown
from resx.model.facts import facts
from resx.probes import load_probe, probe_names

project = "resx"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
exclude_patterns = ["_build"]
autodoc_typehints = "description"
myst_heading_anchors = 3
suppress_warnings = ["myst.xref_missing"]

HERE = Path(__file__).parent


def write_probe_pages() -> None:
    """Write docs/probes/NAME.md for every probe, and their list."""
    folder = HERE / "probes"
    folder.mkdir(exist_ok=True)
    names = probe_names()
    for name, docstring in names.items():
        probe = load_probe(name)
        title, _, rest = docstring.partition("\n\n")
        fields = probe.settings.model_fields
        lines = [f"# {name}", "", " ".join(title.split()), "", rest, "", "## Claims", ""]
        lines += [f"* {line}" for line in help_lines(probe.claims, probe.labels)]
        lines += ["", "## Settings", "", " ".join((probe.settings.__doc__ or "None.").split()), ""]
        lines += [f"* `{key}` = `{field.default!r}`" for key, field in fields.items()]
        lines += ["", "## What it does not show", "", probe.limits or "See the method.", ""]
        (folder / f"{name}.md").write_text("\n".join(lines), encoding="utf-8")
    listed = "\n".join(names)
    (folder / "index.md").write_text(f"# Probes\n\n```{{toctree}}\n{listed}\n```\n", encoding="utf-8")


write_probe_pages()
(HERE / "shortcuts.md").write_text(as_markdown(list(facts())), encoding="utf-8")
