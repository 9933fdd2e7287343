"""Tables like those of recorded runs, made up: curves that fall to a final error, some seeds, some depths."""

import numpy as np
import pandas as pd
import pytest

from resx.spec import build_spec

FINALS = {("none", 20): 2.0, ("none", 32): 9.0, ("none", 44): 24.0, ("none", 56): 49.0}


def made_up(
    depths=(20, 56),
    seeds=(0,),
    shortcuts=("none", "identity"),
    finals=FINALS,
    diverged=(),
    floor=1.0,
    **fields,
):
    """Return frames as load_runs gives them. diverged: (shortcut, depth, seed) of runs that ended midway."""
    rows, curves = [], []
    for shortcut in shortcuts:
        for depth in depths:
            for seed in seeds:
                spec = build_spec({"shortcut": shortcut, "depth": depth, "seed": seed, **fields})
                rng = np.random.default_rng([depth, seed, len(shortcut)])
                final = finals.get((shortcut, depth), floor) * rng.uniform(0.8, 1.2)
                train = spec.train
                step = np.arange(0, train.steps + 1, train.eval_every, dtype=float)
                noise = 1 + 0.12 * rng.standard_normal((2, len(step))) * np.linspace(1, 0.1, len(step))
                fall = 90 * np.exp(-step / train.steps * rng.uniform(9, 12))
                test, training = np.clip((final + fall) * noise * [[1.0], [0.8]], 0, 100)
                lr = train.lr * 0.1 ** sum((step > drop * train.steps).astype(float) for drop in train.drops)
                ended = (shortcut, depth, seed) in diverged
                frame = pd.DataFrame(
                    {"run_id": spec.run_id, "step": step, "lr": lr}
                    | {"train_loss": training / 40 + 1e-3, "train_error": training}
                    | {"test_loss": test / 40 + 1e-3, "test_error": test}
                )
                frame = frame.iloc[: len(frame) // 2] if ended else frame
                curves.append(frame)
                result = {"status": "diverged" if ended else "finished", "data_label": "made-up digits"}
                result |= {"parameters": 1000 * depth, "test_images": 297}
                result |= frame.iloc[-1][["train_loss", "train_error", "test_loss", "test_error"]].to_dict()
                rows.append({**spec.flat(), **result, "run_id": spec.run_id})
    return {"runs": pd.DataFrame(rows), "curves": pd.concat(curves, ignore_index=True)}


@pytest.fixture(name="made_up")
def made_up_fixture():
    return made_up


@pytest.fixture(name="loads")
def loads_fixture():
    """Return what makes a `load_frames` that has these frames, of the runs that it is asked for."""

    def make(frames):
        def load_frames(root, run_ids=None, measurements=None, **options):
            ids = set(frames["runs"]["run_id"] if run_ids is None else run_ids)
            return {name: frame[frame["run_id"].isin(ids)] for name, frame in frames.items()}

        return load_frames

    return make
