"""Every registered figure: drawn from tables, same bytes twice, and what the degradation figure must show."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib import rcParams
from matplotlib.colors import to_hex
from rich.console import Console

from resx import lab, paper
from resx.figures import FIGURES, select, style, terminal
from resx.figures.style import END_LABEL, OKABE_ITO
from resx.probes import Findings, Settings
from resx.spec import SpecError

OF_CURVES = ("degradation", "curves")  # drawn from any runs; other figures need what was measured


def drawn(name, frames):
    """Draw a figure that needs nothing but runs and curves."""
    return FIGURES[name](Findings("", Settings(), frames))


def test_figures_are_found_by_their_files():
    assert {"degradation", "curves"} <= set(FIGURES)
    with pytest.raises(SpecError, match="did you mean 'degradation'"):
        FIGURES["degradaton"]


def test_values_of_several_kinds_are_offered_in_order(made_up):
    frames = made_up()
    values = [None, "B", 10, 9, *[None] * len(frames["runs"])][: len(frames["runs"])]
    with pytest.raises(SpecError, match=r"there are: adapter 9, 10, B, null"):
        select({**frames, "runs": frames["runs"].assign(adapter=values)}, adapter=["none"])


@pytest.mark.parametrize("name", OF_CURVES)
def test_saving_twice_gives_the_same_bytes(name, made_up, tmp_path):
    before = dict(rcParams)
    stems = [tmp_path / "first" / "v1.5", tmp_path / "second" / "v1.5"]
    first, second = (style.save(drawn(name, made_up(seeds=(0, 1))), stem) for stem in stems)
    assert [path.name for path in first] == ["v1.5.pdf", "v1.5.svg", "v1.5.png"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert sorted(path.name for path in (tmp_path / "first").iterdir()) == sorted(path.name for path in first)
    assert dict(rcParams) == before


def test_the_users_matplotlib_settings_change_nothing(made_up, tmp_path, monkeypatch):
    (plain,) = style.save(drawn("degradation", made_up()), tmp_path / "plain", ["svg"])
    monkeypatch.setitem(rcParams, "axes.facecolor", "red")
    monkeypatch.setitem(rcParams, "font.size", 30)
    (other,) = style.save(drawn("degradation", made_up()), tmp_path / "other", ["svg"])
    assert plain.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("name", OF_CURVES)
def test_every_figure_has_a_picture_in_the_terminal(name, made_up):
    figure = drawn(name, made_up())
    for width in (60, 120):
        console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
        console.print(terminal.picture(figure, width))
        text = console.export_text()
        assert max(map(len, text.splitlines())) <= width
        assert any(0x2800 < ord(letter) <= 0x28FF for letter in text)
        assert "56 layers" in text
        side_by_side = any("plain" in line and "residual" in line for line in text.splitlines())
        assert side_by_side == (width == 120)


def test_curves_in_the_terminal_are_told_apart_without_colour(made_up):
    console = Console(width=120, record=True, no_color=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(terminal.picture(drawn("degradation", made_up((20, 56), shortcuts=("none",))), 120))
    lines = console.export_text().splitlines()
    labels = {words[0]: words[1] for line in lines if (words := line.split()) and "layers" in line}
    assert sorted(labels.items()) == [("a", "56"), ("b", "20")]
    for letter in labels:
        drawn_in = [line for line in lines if "│" in line and letter in line.partition("│")[2]]
        assert len(drawn_in) == 1


def network(frames, shortcut, depth):
    runs = frames["runs"]
    return runs[(runs["shortcut"] == shortcut) & (runs["depth"] == depth)]


def lines_of(axes, colour=None):
    """Lines in data coordinates that are not single seeds."""
    return [
        line
        for line in axes.get_lines()
        if line.get_alpha() is None
        and line.get_transform().contains_branch(axes.transData)
        and line.get_linestyle() != "None"
        and colour in (None, to_hex(line.get_color()).upper())
    ]


def test_degradation_shows_means_over_seeds_of_both_errors(made_up):
    frames = made_up(seeds=(0, 1, 2))
    plain, residual = drawn("degradation", frames).axes
    assert (plain.get_title("left"), residual.get_title("left")) == ("plain", "residual")
    assert plain.get_ylim() == residual.get_ylim()
    for axes, shortcut in ((plain, "none"), (residual, "identity")):
        for colour, depth in zip(OKABE_ITO, (20, 56), strict=False):
            train, test = lines_of(axes, colour)
            assert train.is_dashed()
            assert not test.is_dashed()
            runs = network(frames, shortcut, depth)
            rows = frames["curves"][frames["curves"]["run_id"].isin(runs["run_id"])]
            np.testing.assert_allclose(test.get_ydata(), rows.groupby("step")["test_error"].mean())
            np.testing.assert_allclose(train.get_ydata(), rows.groupby("step")["train_error"].mean())
        seeds = [line for line in axes.get_lines() if line.get_gid() in set(frames["runs"]["run_id"])]
        assert len(seeds) == 2 * 2 * 3


def test_degradation_labels_the_ends_without_overlap(made_up):
    axes = drawn("degradation", made_up((20, 32, 44, 56), finals={})).axes[1]
    labels = [text for text in axes.texts if text.get_gid() == END_LABEL]
    assert {text.get_text().split()[0] for text in labels} == {"20", "32", "44", "56"}
    boxes = sorted((text.get_window_extent() for text in labels), key=lambda box: box.y0)
    assert all(low.y1 <= high.y0 + 1 for low, high in pairwise(boxes))


def test_labels_fit_into_the_figure(made_up):
    for frames in (made_up((20, 110)), made_up(shortcuts=("identity",))):
        figure = drawn("degradation", frames)
        edge = figure.bbox.x1
        assert all(text.get_window_extent().x1 <= edge for axes in figure.axes for text in axes.texts)


def test_a_diverged_run_is_shown_to_its_end_and_not_in_the_mean(made_up):
    frames = made_up(seeds=(0, 1), diverged=[("none", 56, 1)])
    ended = frames["curves"].groupby("run_id")["step"].max().min()
    figure = drawn("degradation", frames)
    crosses = [line for line in figure.axes[0].get_lines() if line.get_marker() == "x"]
    assert [line.get_xdata()[0] for line in crosses] == [ended]
    survivor = network(frames, "none", 56).query("seed == 0")["run_id"].item()
    expected = frames["curves"].set_index("run_id").loc[survivor, "test_error"]
    assert any(np.array_equal(line.get_ydata(), expected) for line in lines_of(figure.axes[0], OKABE_ITO[1]))
    assert "1 diverged" in " ".join(text.get_text() for text in figure.texts)


def test_a_network_whose_only_run_diverged_is_labelled(made_up):
    axes = drawn("degradation", made_up(diverged=[("none", 56, 0)])).axes[0]
    assert any("diverged" in text.get_text() for text in axes.texts)


def test_runs_that_diverged_before_the_first_evaluation_are_drawn(made_up):
    frames = made_up(seeds=(0, 1), diverged=[("none", 56, 1)])
    lost = frames["runs"].query("status == 'diverged'")["run_id"].item()
    curves = frames["curves"].copy()
    curves.loc[curves["run_id"] == lost, curves.columns[3:]] = np.nan
    for name in OF_CURVES:
        drawn(name, {"runs": frames["runs"], "curves": curves})
    nothing = {"runs": frames["runs"], "curves": curves.iloc[:0]}
    for name in OF_CURVES:
        drawn(name, nothing)


def test_curves_show_the_rate_falling_where_it_did(made_up):
    frames = made_up()
    rate = drawn("curves", frames).axes[-1].get_lines()[-1]
    x, y = rate.get_xdata(), rate.get_ydata()
    steps, drops = frames["runs"]["steps"].iloc[0], frames["runs"]["drops"].iloc[0]
    assert list(x[:-1][np.diff(y) < 0]) == [drop * steps for drop in drops]


def test_the_rate_is_right_where_evaluations_are_rarer_than_drops(made_up):
    frames = made_up(steps=1500, eval_every=1500)
    rate = drawn("curves", frames).axes[-1].get_lines()[-1]
    x, y = rate.get_xdata(), rate.get_ydata()
    assert list(x[:-1][np.diff(y) < 0]) == [750, 1125]


def test_curves_of_a_diverged_run_are_drawn_to_its_end(made_up):
    frames = made_up(diverged=[("none", 56, 0)], warmup=True)
    drawn("curves", frames)
    lost = made_up(depths=(56,), diverged=[("none", 56, 0)])
    ends = [line.get_xdata()[-1] for line in drawn("curves", lost).axes[-2].get_lines()]
    assert ends == [lost["curves"].groupby("run_id")["step"].max().min()]


def test_an_axis_of_less_than_a_decade_has_short_labels_inside_the_figure(made_up):
    frames = made_up()
    for column in ("train_loss", "test_loss"):
        frames["curves"][column] = frames["curves"][column].clip(0.31, 0.5)
    figure = drawn("curves", frames)
    figure.draw_without_rendering()
    for axes in figure.axes:
        assert axes.yaxis.label.get_window_extent().x0 >= 0
        texts = [label for label in axes.get_yticklabels(which="both") if label.get_text() and label.get_visible()]
        assert all(label.get_window_extent().x0 >= 0 for label in texts)
        assert all(len(label.get_text()) <= 6 for label in texts)


def test_networks_are_sorted_by_number_and_many_depths_are_a_scale(made_up):
    parts = [made_up(shortcuts=("identity",), width=width) for width in (16, 4, 8)]
    figure = drawn("curves", {key: pd.concat([part[key] for part in parts]) for key in parts[0]})
    assert [axes.get_title("left") for axes in figure.axes[:3]] == [f"residual, width {width}" for width in (4, 8, 16)]
    depths = range(8, 56, 6)
    assert style.depth_colours([56, 20]) == style.colours([20, 56])
    many = style.depth_colours(depths)
    shades = [sum(int(many[depth][place : place + 2], 16) for place in (1, 3, 5)) for depth in depths]
    assert len(set(many.values())) == len(depths)
    assert shades == sorted(shades, reverse=True), "darker with depth"


def published_marks(figure):
    markers = {"D": "Table", "<": "figure"}
    return {
        (axes.get_title("left"), line.get_ydata()[0], line.get_marker())
        for axes in figure.axes
        for line in axes.get_lines()
        if line.get_marker() in markers
    }


def test_the_papers_values_stand_only_beside_the_papers_networks(made_up):
    low = {"finals": {}, "floor": 15.0}
    figure = drawn("degradation", made_up(reference="cifar10", **low))
    numbers = {key: paper.CIFAR_TEST_ERROR[key].value for key in paper.CIFAR_TEST_ERROR if key[1] in (20, 56)}
    markers = {"plain": "<", "residual": "D"}  # read off a curve, or from a table
    assert published_marks(figure) == {(kind, value, markers[kind]) for (kind, _), value in numbers.items()}
    (key,) = [legend for legend in figure.legends if "He et al." in legend.get_texts()[0].get_text()]
    assert ["read off" in text.get_text() for text in key.get_texts()] == [True, False]
    for other in ({}, {"reference": "cifar10", "width": 8}, {"reference": "cifar10", "adapter": "B"}):
        assert not published_marks(drawn("degradation", made_up(**low, **other)))


def test_different_recipes_are_never_averaged(made_up):
    parts = [made_up(), made_up(lr=0.05)]
    mixed = {key: pd.concat([part[key] for part in parts], ignore_index=True) for key in parts[0]}
    with pytest.raises(SpecError, match=r"lr: 0\.02, 0\.05.*--where lr=0\.02") as caught:
        drawn("degradation", mixed)
    assert len(caught.value.errors) == 1
    drawn("degradation", select(mixed, lr=["0.05"]))
    assert len(drawn("curves", mixed).axes) == 3 * 4  # there every recipe has its own column


def test_a_warm_up_may_belong_to_one_depth_only(made_up):
    parts = [made_up((20,)), made_up((56,), warmup=True)]
    drawn("degradation", {key: pd.concat([part[key] for part in parts]) for key in parts[0]})


def test_networks_that_differ_have_their_own_panels(made_up):
    parts = [
        made_up(),
        made_up(shortcuts=("identity",), order="pre"),
        made_up(shortcuts=("scaled:alpha=0.5",)),
    ]
    figure = drawn("degradation", {key: pd.concat([part[key] for part in parts]) for key in parts[0]})
    titles = [axes.get_title("left") for axes in figure.axes if axes.axison]
    assert titles == ["plain", "residual, order post", "residual, order pre", "scaled:alpha=0.5"]


@pytest.mark.parametrize(
    ("filters", "left"),
    [
        ({}, 8),
        ({"depth": [56]}, 4),
        ({"shortcut": ["scaled"], "seed": [1]}, 2),
        ({"shortcut": ["none", "scaled:alpha=0.5"]}, 8),
        ({"dataset": ["made-up digits"]}, 8),
        ({"dataset": ["digits"], "depth": ["20"]}, 4),
        ({"lr": ["2e-2"], "drops": ["0.5,0.75"], "warmup": ["false"]}, 8),
        ({"run": ["plain-20"]}, 2),
    ],
)
def test_select(filters, left, made_up):
    frames = made_up(seeds=(0, 1), shortcuts=("none", "scaled:alpha=0.5"))
    chosen = select(frames, **filters)
    assert len(chosen["runs"]) == left
    assert set(chosen["curves"]["run_id"]) == set(chosen["runs"]["run_id"])


def test_select_says_what_there_is(made_up):
    with pytest.raises(SpecError, match="no recorded run has depth 110; there are: depth 20, 56"):
        select(made_up(), depth=[110])
    with pytest.raises(SpecError, match=r"dept: no such field.*did you mean 'depth'"):
        select(made_up(), dept=[20])
    nothing = {key: frame.iloc[:0] for key, frame in made_up().items()}
    with pytest.raises(SpecError, match="resx compare"):
        select(nothing)


@pytest.mark.parametrize("seed", range(20))
def test_spread_keeps_order_gap_and_limits(seed):
    wanted = np.random.default_rng(seed).uniform(-0.2, 1.2, 1 + seed % 7) ** 3
    placed = np.array(style.spread(list(wanted), 0.1, 0.0, 1.0))
    order = np.argsort(wanted, kind="stable")
    assert (np.diff(placed[order]) >= 0.1 - 1e-9).all()
    assert placed.min() >= -1e-9
    assert placed.max() <= 1 + 1e-9


def test_spread_moves_nothing_without_need():
    assert style.spread([0.9, 0.1, 0.5], 0.1, 0.0, 1.0) == pytest.approx([0.9, 0.1, 0.5])
    assert style.spread([0.5, 0.5], 0.2, 0.0, 1.0) == pytest.approx([0.4, 0.6])
    assert style.spread([], 0.1, 0.0, 1.0) == []


def test_names_of_functions_and_labels_of_depths_have_room_as_a_vector_file_writes_them() -> None:
    published = Path(__file__).parents[2] / "results"
    figure = FIGURES["shortcuts"](lab.read(published / "shortcuts-2026-digits"))
    figure.set_dpi(1000)  # letters are on no screen's pixels
    names = [label for axes in figure.axes for label in axes.get_yticklabels()]
    assert any(label.get_text().startswith("hyper-doubly-stochastic") for label in names)
    assert min(label.get_window_extent().x0 for label in names) >= 0
    figure = FIGURES["degradation"](lab.read(published / "very-deep-1202-digits"))
    figure.set_dpi(1000)
    plain, residual = figure.axes
    [lost] = [text for text in plain.texts if "diverged" in text.get_text()]
    assert lost.get_window_extent().x1 < residual.get_window_extent().x0
