"""A drawn figure, fitted to where it will be used: without its heading, at another width, in a paper's look."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from resx.figures import style
from resx.spec import SpecError

NARROW, LEAST = 1.4, 1.0  # inches: panels narrower than the first are stacked, than the second refused
SERIF = ["STIXGeneral", "DejaVu Serif"]  # both come with matplotlib; the second fills in letters that the first lacks
LOOKS = ("screen", "paper")


def fitted(figure: Figure, *, title: bool = True, width: float | None = None, look: str = "screen") -> Figure:
    """Return the figure, changed in place.

    title: with its heading. width: in inches, by default as drawn. look: of LOOKS. Raises SpecError for a width at
    which the figure cannot be read, and for an unknown look.
    """
    if look not in LOOKS:
        raise SpecError(f"--style: no '{look}'; there are {', '.join(LOOKS)}")
    with style.context():
        if not title:
            _remove_heading(figure)
        if width is not None:
            _resize(figure, width)
        if look == "paper":
            _print_black(figure)
    return figure


def _remove_heading(figure: Figure) -> None:
    """Remove the heading and its room; the axes keep their size."""
    for text in [text for text in figure.texts if text.get_gid() == style.HEADING]:
        text.remove()
    width, height = figure.get_size_inches()
    _place(figure, _boxes(figure), width, height - style.HEADING_HEIGHT)


def _print_black(figure: Figure) -> None:
    """Give the figure serif letters, and black where it has greys, for print."""
    for artist in figure.findobj(Text):
        assert isinstance(artist, Text)
        artist.set_fontfamily(SERIF)
        if to_hex(artist.get_color()).upper() in (style.QUIET, style.INK):
            artist.set_color("black")
    for axes in figure.axes:
        axes.tick_params(colors="black")
        for spine in axes.spines.values():
            spine.set_edgecolor("black")


def _resize(figure: Figure, width: float) -> None:
    """Bring the figure to a width; margins and letters keep their size, panels that become too narrow are stacked."""
    boxes = _boxes(figure)
    columns = _columns(boxes)
    drawn, height = figure.get_size_inches()
    panels = [max(boxes[axes].x1 for axes in column) - boxes[column[0]].x0 for column in columns]
    left, right = boxes[columns[0][0]].x0, drawn - boxes[columns[-1][0]].x0 - panels[-1]
    factor = (width - drawn + sum(panels)) / sum(panels)
    if factor * min(panels) >= NARROW or (len(columns) == 1 and factor * panels[0] >= LEAST):
        shift = 0.0
        for column, panel in zip(columns, panels, strict=True):
            start = boxes[column[0]].x0
            for axes in column:
                box = boxes[axes]
                x0, x1 = (start - shift + factor * (x - start) for x in (box.x0, box.x1))
                boxes[axes] = Bbox.from_extents(x0, box.y0, x1, box.y1)
            shift += (1 - factor) * panel
    elif width - left - right >= LEAST:
        height = _stack(figure, boxes, columns, width - left - right)
    else:
        raise SpecError(f"--width: this figure needs {left + right + LEAST:.1f} inches or more, not {width:g}")
    _place(figure, boxes, width, height)
    for text in figure.texts:
        if text.get_gid() == style.HEADING:
            style.shrink(text, width - left)
    for axes, box in boxes.items():
        middle = (box.x0 + box.x1) / 2
        _wrap(axes.xaxis.label, 2 * min(middle, width - middle))
    _wrap_key(figure, boxes)


def _stack(figure: Figure, boxes: dict[Axes, Bbox], columns: Sequence[Sequence[Axes]], panel: float) -> float:
    """Place the columns of panels below one another, each `panel` inches wide; return the figure's height."""
    height = figure.get_size_inches()[1]
    low, high = min(box.y0 for box in boxes.values()), max(box.y1 for box in boxes.values())
    block = high - low + style.BELOW
    first = {round(boxes[axes].y0, 2): axes for axes in columns[0]}
    left = boxes[columns[0][0]].x0
    for place, column in enumerate(columns):
        for axes in column:
            box = boxes[axes]
            if place and (beside := first.get(round(box.y0, 2))) and not axes.get_ylabel():
                axes.set_ylabel(beside.get_ylabel())
                axes.tick_params(axis="y", labelleft=True)
            rise = (len(columns) - 1 - place) * block
            boxes[axes] = Bbox.from_extents(left, box.y0 + rise, left + panel, box.y1 + rise)
    return height + (len(columns) - 1) * block


def _wrap(label: Text, room: float) -> None:
    """Write a label in two lines where it is wider than `room`, in inches, and smaller where that is not enough."""
    words = label.get_text().split()
    if words and style.inches(label) > room:
        half = (len(words) + 1) // 2
        label.set_text(" ".join(words[:half]) + "\n" + " ".join(words[half:]))
        style.shrink(label, room)


def _wrap_key(figure: Figure, boxes: dict[Axes, Bbox]) -> None:
    """Write the key again, in as many rows as the width needs, and make room for it."""
    width, height = figure.get_size_inches()
    lines: list[list[Artist]] = []
    rows = list(reversed(figure.legends))
    for legend in rows:
        line: list[Artist] = []
        for artist in filter(None, legend.legend_handles):
            length = sum(0.5 + 0.055 * len(str(one.get_label())) for one in [*line, artist])
            if line and length > width - 0.2:
                lines.append(line)
                line = []
            line.append(artist)
        lines.append(line)
        legend.remove()
    more = style.KEY_ROW * (len(lines) - len(rows))
    _place(figure, {axes: box.translated(0, more) for axes, box in boxes.items()}, width, height + more)
    style.key(figure, *lines)


def _boxes(figure: Figure) -> dict[Axes, Bbox]:
    """Return where the axes are, in inches."""
    return {axes: Bbox(axes.get_position().get_points() * figure.get_size_inches()) for axes in figure.axes}


def _columns(boxes: dict[Axes, Bbox]) -> list[list[Axes]]:
    """Return axes grouped by column, from left to right."""
    columns: list[list[Axes]] = []
    end = float("-inf")
    for axes in sorted(boxes, key=lambda axes: boxes[axes].x0):
        if boxes[axes].x0 >= end:
            columns.append([])
        columns[-1].append(axes)
        end = max(end, boxes[axes].x1) if len(columns[-1]) > 1 else boxes[axes].x1
    return columns


def _place(figure: Figure, boxes: dict[Axes, Bbox], width: float, height: float) -> None:
    """Give the figure a size; axes stay where they are from its lower left, the heading from its top."""
    old = figure.get_size_inches()
    for text in figure.texts:
        x, y = text.get_position()
        text.set_position((x * old[0] / width, 1 - (1 - y) * old[1] / height))
    figure.set_size_inches(width, height)
    for axes, box in boxes.items():
        axes.set_position((box.x0 / width, box.y0 / height, box.width / width, box.height / height))
