"""Findings in words: the Markdown page of an experiment, written by the program between two marks.

What a person writes stands outside the marks and stays.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import pandas as pd

from resx import claims
from resx.probes import CLAIM_COLUMNS, Findings, load_probe
from resx.probes.tidy import estimate

BEGIN, END = "<!-- written by resx from the tables of this folder -->", "<!-- end -->"
# how LaTeX writes letters that mean something else to it, or that its fonts lack
LATEX = {letter: f"\\{letter}" for letter in "&%$#_{}"} | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}"}
LATEX |= {"^": r"\textasciicircum{}", "±": r"$\pm$", "−": "$-$", "–": "--", "×": r"$\times$", "<": "$<$", ">": "$>$"}
MANY_ROWS = 40  # of a table on a page; a file has all of a longer one


def page(findings: Findings, name: str, command: str, cost: str) -> str:
    """Return the part of an experiment's page that is the program's: command, cost, claims, answer, tables, figures."""
    lines = [
        BEGIN,
        "",
        f"`{command}` · {claims.at_scale(findings.scale)} · {cost}",
        "",
        *markdown(["claim", "verdict", "effect", *CLAIM_COLUMNS[3:]], findings.claim_rows()),
        "",
        *(f"* {line}" for line in findings.notes()),
    ]
    for figure in findings.drawings():
        lines += ["", f"![{figure}](figures/{figure}.svg)"]
    for title, table in shown_tables(findings).items():
        lines += ["", f"**{title.replace('_', ' ')}**", "", *_table(title, table)]
    return "\n".join([*lines, "", END, ""])


def updated(text: str, name: str, own: str) -> str:
    """Return a page's text with the program's part replaced; a new page where there is none yet."""
    if not text:
        return f"# {name}\n\n{own}"
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END + "\n")
    return before.rstrip("\n") + "\n\n" + own + after


def shown_tables(findings: Findings) -> dict[str, pd.DataFrame]:
    """Return the tables that a probe shows, by the names of their files; those of parts as `part-table`."""
    tables = {name: findings.tables[name] for name in load_probe(findings.probe).shown if name in findings.tables}
    for key, part in findings.parts.items():
        tables |= {f"{key}-{name}": table for name, table in shown_tables(part).items()}
    return tables


def formatted(table: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Return headings and cells for people: q with q_low and q_high as `mean (low to high)`, q with q_std with ±.

    Columns without a value are left out, and a count of diverged runs where none did.
    """
    shown = [str(column) for column in table if table[column].notna().any()]
    if "diverged" in shown and not table["diverged"].any():
        shown.remove("diverged")
    ends = ("_low", "_high", "_std")
    shown = [
        column for column in shown if not any(column.removesuffix(end) in shown for end in ends if column.endswith(end))
    ]
    cells = [[_cell(table, column, row) for column in shown] for row in range(len(table))]
    return [column.replace("_", " ") for column in shown], cells


def _cell(table: pd.DataFrame, name: str, row: int) -> str:
    value = table[name].iloc[row]
    if pd.isna(value):
        return "–"
    if not pd.api.types.is_numeric_dtype(table[name]) or pd.api.types.is_bool_dtype(table[name]):
        return {True: "yes", False: "no"}.get(value, str(value))
    if {f"{name}_low", f"{name}_high"} <= set(table):
        text = estimate(table.iloc[row], name).with_interval
        signed = name.endswith("difference") or (table[name] < 0).any()
        return text if signed else text.replace("+", "")  # levels have no sign, differences do
    if f"{name}_std" in table and pd.notna(table[f"{name}_std"].iloc[row]):
        return f"{value:.2f} ± {table[f'{name}_std'].iloc[row]:.2f}"
    return f"{value:,}" if pd.api.types.is_integer_dtype(table[name]) else f"{value:.4g}"


def _table(title: str, table: pd.DataFrame) -> list[str]:
    more = ["", f"… and {len(table) - MANY_ROWS} more rows in {title}.csv"] if len(table) > MANY_ROWS else []
    return [*markdown(*formatted(table.head(MANY_ROWS))), *more]


def markdown(headings: Sequence[str], cells: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table in Markdown."""
    return [_row(headings), "|" + "---|" * len(headings), *map(_row, cells)]


def latex(headings: Sequence[str], cells: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table in LaTeX, with the rules of the package booktabs."""
    rows = [" & ".join(map(_in_latex, row)) + r" \\" for row in (headings, *cells)]
    words = [any(row[place][:1].isalpha() for row in cells) for place in range(len(headings))]
    columns = "".join("l" if place == 0 or word else "r" for place, word in enumerate(words))
    rules = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", rows[0], r"\midrule"]
    return [*rules, *rows[1:], r"\bottomrule", r"\end{tabular}"]


def _in_latex(text: str) -> str:
    text = re.sub(r"(?<![\w-])-(?=\d)", "−", text)  # a minus, not a hyphen
    return "".join(LATEX.get(letter, letter) for letter in text)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
