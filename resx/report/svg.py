"""Figures for a page: text that can be selected, ids that do not clash, fewer digits."""

from __future__ import annotations

import html
import re
from collections import Counter

from matplotlib.figure import Figure

from resx.figures import style

_NUMBER = re.compile(r"(?<=[ ML,(\"])-?\d+\.\d{2,}")
_AROUND_LETTERS = re.compile(r"\s*([A-Za-z])\s*")  # of a path, which needs no space there
_RUN = re.compile(r"-s\d+-[0-9a-f]{8}")  # the id of a seed's line is its run's, which the page highlights
LEGIBLE = 4.5  # WCAG 2.2, 1.4.3: the least contrast of text with what is behind it


def inline(figure: Figure, prefix: str, words: str) -> str:
    """Return a figure as an <svg> element with the id `prefix`, which begins every id in it too.

    words: for readers who cannot see it.
    """
    text = style.encoded(figure, "svg", **{"svg.fonttype": "none", "svg.hashsalt": prefix}).decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    used = set(re.findall(r'(?:xlink:href="#|url\(#)([^")]+)', text))

    def own(match: re.Match[str]) -> str:
        name = match.group(1)
        return f' id="{prefix}-{name}"' if name in used else f' data-run="{name}"' if _RUN.search(name) else ""

    text = re.sub(r'\s+id="([^"]*)"', own, text)
    text = re.sub(r'(xlink:href="#|url\(#)', lambda match: f"{match.group(0)}{prefix}-", text)
    text = re.sub(r'(<text style="[^"]*fill: )#([0-9a-f]{6})', _legible, text)
    text = _NUMBER.sub(lambda match: f"{float(match.group(0)):.1f}".removesuffix(".0"), text)
    text = re.sub(r">\s+<", "><", re.sub(r"\s*\n\s*", " ", text)).replace("<g/>", "")
    text = re.sub(r' transform="rotate\(-?0 [^"]*\)"', "", text)
    text = re.sub(r'(?<= d=")[^"]*', lambda match: _AROUND_LETTERS.sub(r"\1", match.group(0)).strip(), text)
    text = _classes(text, prefix)
    label = html.escape(words, quote=True)
    head = rf'<svg id="{prefix}" role="img" aria-label="{label}" viewBox="\1">'
    return re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', lambda match: match.expand(head), text, count=1)


def luminance(colour: str) -> float:
    """Return the relative luminance of rrggbb, 0 to 1 (WCAG 2.2)."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _legible(match: re.Match[str]) -> str:
    """Return a text's style with its colour darkened until it can be read on white; white stands on something dark."""
    before, colour = match.groups()
    while colour != "ffffff" and 1.05 / (luminance(colour) + 0.05) < LEGIBLE:
        colour = "".join(f"{int(int(colour[place : place + 2], 16) * 0.95):02x}" for place in (0, 2, 4))
    return f"{before}#{colour}"


def _classes(text: str, prefix: str) -> str:
    """Return a figure whose frequent styles are classes, each defined once."""
    tight = re.compile(r"(?<=[;:]) ")
    text = re.sub(r' style="([^"]*)"', lambda match: f' style="{tight.sub("", match.group(1))}"', text)
    styles = Counter(re.findall(r' style="([^"]*)"', text))
    often = {style: f"{prefix}{place}" for place, (style, count) in enumerate(styles.items()) if count > 2}
    text = re.sub(
        r' style="([^"]*)"',
        lambda match: f' class="{often[match.group(1)]}"' if match.group(1) in often else match.group(0),
        text,
    )
    rules = "".join(f".{name}{{{style}}}" for style, name in often.items())
    return text.replace("</defs>", f"<style>{rules}</style></defs>", 1)
