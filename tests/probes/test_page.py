"""Tables of findings for pages and papers."""

from __future__ import annotations

import pandas as pd

from resx.probes.page import formatted, latex, markdown

TABLE = pd.DataFrame({"kind": ["mine_a"], "difference": [0.5], "difference_low": [0.25], "difference_high": [0.75]})


def test_a_difference_keeps_its_sign_in_every_form() -> None:
    headings, cells = formatted(TABLE)
    assert cells == [["mine_a", "+0.50 (+0.25 to +0.75)"]]
    assert markdown(headings, cells)[2] == "| mine_a | +0.50 (+0.25 to +0.75) |"
    assert latex(headings, cells) == [
        r"\begin{tabular}{lr}",
        r"\toprule",
        r"kind & difference \\",
        r"\midrule",
        r"mine\_a & +0.50 (+0.25 to +0.75) \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_latex_has_minus_signs_and_words_to_the_left() -> None:
    lines = latex(["claim", "verdict", "mean"], [["plain-20 in 2-3", "supported", "-0.5 (-1 to +2)"]])
    assert lines[0] == r"\begin{tabular}{llr}"
    assert lines[4] == r"plain-20 in 2-3 & supported & $-$0.5 ($-$1 to +2) \\"
