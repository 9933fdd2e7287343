"""Figures fitted to a page: the width that was asked for, nothing outside it, and what cannot be read is refused."""

import pytest
from matplotlib.text import Text

from resx import lab
from resx.figures import style
from resx.spec import SpecError


@pytest.fixture(name="plot")
def plot_fixture(made_up, loads, monkeypatch):
    monkeypatch.setattr(lab, "load_frames", loads(made_up()))
    return lambda name, **options: lab.plot(name, results="here", **options)


@pytest.mark.parametrize("name", ["degradation", "curves", "depth"])
@pytest.mark.parametrize("width", [3.25, 5.0, 10.0])
def test_a_figure_has_the_width_asked_for_and_its_panels_lie_within(name, width, plot):
    figure = plot(name, width=width, title=False, look="paper")
    assert figure.get_size_inches()[0] == width
    with style.context():
        figure.draw_without_rendering()
    boxes = [axes.get_position() for axes in figure.axes]
    assert all(0 < box.x0 < box.x1 < 1 and 0 < box.y0 < box.y1 < 1 for box in boxes)
    assert not any(one.overlaps(other) for one in boxes for other in boxes if one is not other)
    assert {text.get_fontfamily()[0] for text in figure.findobj(Text)} == {"STIXGeneral"}


def test_panels_that_would_be_too_narrow_are_stacked_with_labels_of_their_own(plot):
    beside, stacked = plot("degradation"), plot("degradation", width=3.25)
    assert len({axes.get_position().x0 for axes in beside.axes}) == 2
    assert len({axes.get_position().x0 for axes in stacked.axes}) == 1
    assert [axes.get_ylabel() for axes in stacked.axes] == ["error (%)"] * 2


def test_without_its_heading_a_figure_is_lower_and_its_panels_keep_their_size(plot):
    whole, bare = plot("degradation"), plot("degradation", title=False)
    assert not bare.texts
    for one, other in zip(whole.axes, bare.axes, strict=True):
        sizes = [axes.get_position().size * axes.figure.get_size_inches() for axes in (one, other)]
        assert sizes[0] == pytest.approx(sizes[1])
    assert whole.get_figheight() - bare.get_figheight() == pytest.approx(style.HEADING_HEIGHT)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 2.0}, r"needs 2\.8 inches or more, not 2"),
        ({"look": "poster"}, "no 'poster'; there are screen, paper"),
    ],
)
def test_what_cannot_be_read_or_is_not_there_is_refused(options, message, plot):
    with pytest.raises(SpecError, match=message):
        plot("degradation", **options)
