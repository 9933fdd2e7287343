"""Figures as parts of a page: text that can be selected, ids that do not clash, fewer digits."""

from __future__ import annotations

import io
import re

import matplotlib
from matplotlib.figure import Figure

from resx.figures import style

_NUMBER = re.compile(r"(?<=[ ML,(\"])-?\d+\.\d{2,}")


def inline(figure: Figure, prefix: str, words: str) -> str:
    """Return a figure as an <svg> element. prefix: of every id in it. words: what a reader who cannot see it is
    told."""
    buffer = io.StringIO()
    with style.context(), matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": prefix}):
        figure.savefig(buffer, format="svg", metadata={"Creator": None, "Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'(xlink:href="#|url\(#)', lambda match: f"{match.group(0)}{prefix}-", text)
    text = _NUMBER.sub(lambda match: f"{float(match.group(0)):.1f}", text)
    text = re.sub(r">\s+<", "><", text)
    label = words.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return re.sub(
        r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', rf'<svg role="img" aria-label="{label}" viewBox="\1">', text, count=1
    )
