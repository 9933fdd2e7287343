"""Mapping: its runs, and its verdicts on made frames with a known answer and with none."""

import numpy as np
import pandas as pd
import pytest

from resx.data.maps import linear_map
from resx.figures import FIGURES
from resx.probes import Request, judge, parse_settings
from resx.probes.mapping import PROBE, MappingSettings
from resx.spec import SpecError
from resx.training.machine import Machine
from resx.training.resolve import resolve

SETTINGS = MappingSettings(maps=("identity", "negation", "rotation-30"), layers=(1, 8), away=(15, 90))


def plan(base=(), seeds=(0,), **settings):
    chosen = parse_settings(PROBE, {**SETTINGS.model_dump(), **settings})
    return PROBE.plan(Request(dict(base), list(seeds), chosen, lambda cells: resolve(cells, Machine())))


def made(effect, near, seeds=6, diverged=()):
    """Return frames: losses grow with the distance of Sᴸ from Rᴸ if `effect`; learned maps end at distance `near`."""
    runs, measured = [], []
    for spec in plan(seeds=range(seeds)):
        map_name = spec.data.dataset.partition("map=")[2].partition(",")[0]
        layers, draw = spec.model.depth, np.random.default_rng([spec.seed, len(spec.run_id)])
        wanted = np.linalg.matrix_power(linear_map(map_name, 16).numpy(), layers)
        shortcut, _, arguments = spec.model.shortcut.partition(":")
        known = np.eye(16) * (shortcut != "none")
        if shortcut == "known":
            away = float(arguments.partition("away=")[2])
            known = linear_map(map_name, 16, away).numpy()
        distance = np.linalg.norm(np.linalg.matrix_power(known, layers) - wanted) / np.linalg.norm(wanted)
        distance = near if shortcut == "linear" else distance
        lost = spec.run_id in diverged or spec.model.shortcut in diverged
        loss = 10 ** (effect * distance - 2 + draw.normal(0, 0.02))
        status = "diverged" if lost else "finished"
        runs.append({**spec.flat(), "run_id": spec.run_id, "status": status, "train_loss": np.nan if lost else loss})
        for step in (0, 30, 300):
            left = distance if shortcut != "linear" else {0: 1.0, 30: 0.5, 300: near}[step]
            row = {"residual": 0.1, "distance": left, "composed": left, "odd": 0.0, "variance": 0.5}
            measured.append({**row, "step": step, "run_id": spec.run_id})
    return {"runs": pd.DataFrame(runs), "mapping": pd.DataFrame(measured)}


def words(findings):
    return [verdict.word for verdict in findings.verdicts]


def test_the_plan_holds_every_student_of_every_teacher_once():
    specs = plan()
    students = {}
    for spec in specs:
        students.setdefault((spec.data.dataset, spec.model.depth), set()).add(spec.model.shortcut)
    assert len(students) == 6
    assert sorted(map(len, students.values())) == [5, 5, 6, 6, 6, 6]  # the identity's own map is the identity
    assert len({spec.run_id for spec in specs}) == len(specs) == 34
    turned = {shortcut for names in students.values() for shortcut in names if "away=11.25" in shortcut}
    assert len(turned) == 3  # 90° over eight layers


def test_a_users_fields_go_before_the_recipe():
    specs = plan({"steps": 7, "width": 4})
    assert {(spec.train.steps, spec.model.width) for spec in specs} == {(7, 4)}


@pytest.mark.parametrize("settings", [{"layers": "one"}, {"maps": "rotate-3"}, {"away": "right"}])
def test_settings_that_cannot_be_read_are_named(settings):
    with pytest.raises(SpecError):
        plan(**settings)


def test_made_frames_with_the_answer_are_supported():
    findings = judge("mapping", made(effect=1, near=0.1), SETTINGS)
    assert words(findings) == ["supported"] * 4
    gains, same, slopes, finds = (verdict.estimates for verdict in findings.verdicts)
    names = [one.name.split(", ", 2)[2] for one in gains]
    assert names == ["negation, L=1", "rotation-30, L=1", "rotation-30, L=8"]
    assert gains[0].mean == pytest.approx(2, abs=0.1)
    assert [one.name.split(", ", 2)[2] for one in same] == ["negation, L=8"]
    assert len(slopes) == 6
    assert [one.mean for one in finds] == pytest.approx([0.1] * 4)
    loss = findings.tables["loss"].set_index("teacher")
    assert loss.loc["rotation-30, L=1", "R"] == pytest.approx(-2 - np.log10(0.5), abs=0.05)
    assert (findings.tables["learned"]["halved"] == 30).all()


def test_made_frames_with_the_contrary_are_refuted():
    findings = judge("mapping", made(effect=-1, near=0.4), SETTINGS)
    assert words(findings) == ["refuted", "supported", "refuted", "refuted"]


def test_two_seeds_are_never_a_judgement_and_noise_is_inconclusive():
    assert set(words(judge("mapping", made(effect=1, near=0.1, seeds=2), SETTINGS))) <= {"screening", "inconclusive"}
    assert words(judge("mapping", made(effect=0, near=0.2), SETTINGS)) == [
        "inconclusive",
        "supported",
        "inconclusive",
        "inconclusive",
    ]


def test_diverged_runs_are_counted_and_left_out():
    frames = made(effect=1, near=0.1, diverged={"identity"})
    findings = judge("mapping", frames, SETTINGS)
    assert findings.verdict("knowing-helps") is None
    assert findings.tables["loss"]["diverged"].sum() == 36
    assert findings.tables["loss"]["identity"].isna().all()
    assert FIGURES["mapping"](findings)


@pytest.mark.parametrize("seeds", [1, 6])
def test_the_figure_has_a_row_of_panels_per_number_of_layers(seeds):
    figure = FIGURES["mapping"](judge("mapping", made(effect=1, near=0.1, seeds=seeds), SETTINGS))
    assert [len(figure.axes), len(figure.axes[0].get_xticks())] == [6, 3]
