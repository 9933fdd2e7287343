"""What is seen of training in a terminal, wide or narrow."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from resx.progress import Display
from resx.training.loop import MEASURING, Progress

RUN = "residual-56-cifar-10-99.83-original-pixels-s0-1a2b3c4d"


@pytest.mark.parametrize(("width", "epochs"), [(80, False), (140, True)])
def test_percent_errors_and_time_left_survive_in_little_room(width: int, epochs: bool) -> None:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    display = Display({RUN: 400}, console=console)  # not started, so that nothing redraws it
    display.report(Progress(RUN, 100, 400, 2.5, 1.23, 45.6, {"train_error": 12.3, "test_error": 14.5}))
    lines = render(display, console)
    assert any("25 %" in line and "error train 12.3 % test 14.5 %" in line for line in lines)
    assert any("1a2b3c4d" in line for line in lines)
    assert any(":" in line for line in lines), "time left"
    assert (any("epoch" in line for line in lines)) is epochs
    display.report(Progress(RUN, 200, 400, 2.5, 1.23, 45.6))
    assert any("running" in line and "error 45.6 %" in line for line in render(display, console))
    display.report(Progress(MEASURING, 3, 12, 0.0, 0.0, 0.0))
    assert any("measuring" in line and "3 of 12" in line and "25 %" in line for line in render(display, console))


def render(display: Display, console: Console) -> list[str]:
    assert display.bars
    with console.capture() as capture:
        console.print(display.bars.get_renderable())
    lines = capture.get().splitlines()
    assert all(len(line) <= console.width for line in lines)
    return lines


def test_a_notebook_has_one_line_that_changes_and_is_gone_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(file=io.StringIO(), force_jupyter=True)
    with Display({RUN: 400}, console=console) as display:
        display.report(Progress(RUN, 100, 400, 2.5, 1.23, 45.6, {"train_error": 12.3, "test_error": 14.5}))
        display.report(Progress(MEASURING, 3, 12, 0.0, 0.0, 0.0))
    written = capsys.readouterr().err
    assert "\n" not in written
    lines = written.split("\r")
    assert any("1a2b3c4d" in line and "step 100:" in line and "test 14.5 %" in line for line in lines)
    assert any("measured: 3 of 12" in line for line in lines)
    assert not "".join(lines[-2:]).strip()
    with Display({RUN: 400}, console=console, quiet=True) as display:
        display.say("measuring 12 runs")
    assert not capsys.readouterr().err
