"""What a measurement is given: a recorded run's network at a step, and inputs that are the same for every run.

Which statistics normalisations use is a setting of a probe. `running`: those of training, with which the network is
evaluated. `batch`: those of the inputs, un-augmented images. `augmented`: those of the inputs, cropped and flipped as
in training. On un-augmented images a trained network can be points worse with their own statistics than as it is
reported, since they are not the ones that it was trained with.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from resx import model
from resx.data import Dataset
from resx.data.batches import Batches
from resx.measurements.adopt import adopt
from resx.measurements.taps import Blocks
from resx.model.construction import skeleton
from resx.seeding import generator
from resx.spec import ModelSpec, RunSpec, SpecError
from resx.store.files import StoreError
from resx.store.run import RunFolder
from resx.training.evaluate import EVAL_BATCH
from resx.training.foreign import load_foreign
from resx.training.resolve import ADOPTED


def network_at(
    run: RunFolder,
    dataset: Dataset,
    device: torch.device,
    step: int,
    batch: int,
    dtype: torch.dtype = torch.float32,
    statistics: str = "batch",
) -> Blocks:
    """Return a run's network with the weights of a kept step, in the mode that its `statistics` ask for.

    batch: how many inputs it will be given; modules that want random numbers get theirs for as many. A network that no
    layout knows is adopted. Raises StoreError where the step was not kept.
    """
    if run.spec.foreign and run.spec.model.family == ADOPTED:
        adopted = _adopted(run, dataset, step).to(device, dtype)
        adopted.train(statistics != "running")
        return adopted
    network = model.build(run.spec.model, dataset.input_shape, dataset.n_outputs, run.spec.seed)
    network.load_state_dict(run.load_weights(step))
    for name, module in model.stochastic_modules(network):
        module.noise = module.draw(generator(run.spec.seed, "noise", name, step), batch)
    assert isinstance(network, model.Network)
    return network.to(device, dtype).train(statistics != "running")


def _adopted(run: RunFolder, dataset: Dataset, step: int) -> Blocks:
    """Return a foreign network with taps on its blocks, which are found on two test images."""
    assert run.spec.foreign
    patterns = run.spec.foreign.blocks.split(",") if run.spec.foreign.blocks else None
    x, _ = next(Batches(dataset, run.spec.data, 2, 0, "cpu").evaluation("test", 2, 2))
    return adopt(load_foreign(run, dataset, step).eval(), x, blocks=patterns).network


def sample(
    run: RunFolder,
    dataset: Dataset,
    device: torch.device,
    images: int,
    dtype: torch.dtype = torch.float32,
    statistics: str = "batch",
) -> tuple[Tensor, Tensor]:
    """Return (x, y) of so many training images, un-augmented, class-balanced and the same for every seed.

    Where `statistics` are of augmented images they are the first that training drew, the same for all networks of a
    seed.
    """
    batches = Batches(dataset, run.spec.data, images, run.spec.seed, device)
    if statistics == "augmented":
        x, y = batches.assemble(batches.tables(0, 1), torch.zeros(1, dtype=torch.int64, device=device))
    else:
        x, y = next(batches.evaluation("train", images, images))
    return x.to(dtype), y.to(dtype) if dataset.task == "regression" else y


def statistics_inputs(
    run: RunFolder, dataset: Dataset, device: torch.device, images: int, statistics: str = "batch"
) -> list[Tensor]:
    """Return batches of about so many training images on which statistics can be estimated anew.

    Un-augmented and class-balanced; or where `statistics` are of augmented images, whole batches as training drew them.
    """
    batches = Batches(dataset, run.spec.data, EVAL_BATCH, run.spec.seed, device)
    if statistics != "augmented":
        return [x for x, _ in batches.evaluation("train", images, EVAL_BATCH)]
    count = max(1, round(images / EVAL_BATCH))
    tables = batches.tables(0, count)
    return [batches.assemble(tables, torch.tensor([k], device=device))[0] for k in range(count)]


def kept_steps(run: RunFolder) -> list[int]:
    """Return the steps whose weights were kept; of a run of one step, made for its initial weights, the first only."""
    steps = list(run.snapshots())
    if not steps:
        raise StoreError(f"{run.path}: no weights were kept on the way (--snapshots none)")
    return steps if run.spec.train.steps > 1 else steps[:1]


def first_and_last(run: RunFolder) -> list[int]:
    """Return the first and the last kept step: initialisation, and the end of training."""
    steps = kept_steps(run)
    return sorted({steps[0], steps[-1]})


def without_blocks(spec: RunSpec) -> str | None:
    """Say why a probe of blocks cannot be applied, or return None for a network of blocks on images."""
    if spec.model.family == ADOPTED:
        return None  # adopting it says what is missing
    return None if _has_blocks(spec.model) else f"the {spec.model.family} family has no blocks on images"


@cache
def _has_blocks(spec: ModelSpec) -> bool:
    try:
        return isinstance(skeleton(spec, (3, 32, 32), 10), model.Network)
    except SpecError:
        return False
