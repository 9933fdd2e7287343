"""Figures as parts of a page: text that can be selected, ids that do not clash, fewer digits."""

from __future__ import annotations

import html
import io
import re
from collections import Counter

import matplotlib
from matplotlib.figure import Figure

from resx.figures import style

_NUMBER = re.compile(r"(?<=[ ML,(\"])-?\d+\.\d{2,}")
_RUN = re.compile(r"-s\d+-[0-9a-f]{8}")  # the id of a seed's line is its run's, which the page highlights


def inline(figure: Figure, prefix: str, words: str) -> str:
    """Return a figure as an <svg> element. prefix: of every id in it. words: for readers who cannot see it."""
    buffer = io.StringIO()
    with style.context(), matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": prefix}):
        figure.savefig(buffer, format="svg", metadata={"Creator": None, "Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    used = set(re.findall(r'(?:xlink:href="#|url\(#)([^")]+)', text))

    def own(match: re.Match[str]) -> str:
        name = match.group(1)
        return f' id="{prefix}-{name}"' if name in used else f' data-run="{name}"' if _RUN.search(name) else ""

    text = re.sub(r'\s+id="([^"]*)"', own, text)
    text = re.sub(r'(xlink:href="#|url\(#)', lambda match: f"{match.group(0)}{prefix}-", text)
    text = _NUMBER.sub(lambda match: f"{float(match.group(0)):.1f}", text)
    text = re.sub(r">\s+<", "><", re.sub(r"\s*\n\s*", " ", text))
    text = _classes(text, prefix)
    label = html.escape(words, quote=True)
    head = rf'<svg role="img" aria-label="{label}" viewBox="\1">'
    return re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', lambda match: match.expand(head), text, count=1)


def _classes(text: str, prefix: str) -> str:
    """Return a figure in which styles that are used often stand once, as classes."""
    text = text.replace("; ", ";").replace(": ", ":")
    styles = Counter(re.findall(r' style="([^"]*)"', text))
    often = {style: f"{prefix}{place}" for place, (style, count) in enumerate(styles.items()) if count > 2}
    text = re.sub(
        r' style="([^"]*)"',
        lambda match: f' class="{often[match.group(1)]}"' if match.group(1) in often else match.group(0),
        text,
    )
    rules = "".join(f".{name}{{{style}}}" for style, name in often.items())
    return text.replace("</defs>", f"<style>{rules}</style></defs>", 1)
