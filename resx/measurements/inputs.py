"""What a measurement is given: a recorded run's network at a step, and inputs that are the same for every run.

Which statistics normalisations use is a setting of a probe. `running`: those of training, with which the network is
evaluated. `batch`: those of the inputs, un-augmented images. `augmented`: those of the inputs, cropped and flipped as
in training. On un-augmented images a trained network can be points worse with their own statistics than as it is
reported, since they are not the ones that it was trained with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from resx import model
from resx.data import Dataset
from resx.data.batches import Batches
from resx.measurements.adopt import adopt
from resx.measurements.taps import Blocks
from resx.seeding import generator
from resx.spec import ADOPTED
from resx.store.files import StoreError
from resx.store.run import RunFolder
from resx.training.evaluate import EVAL_BATCH
from resx.training.foreign import load_foreign


@dataclass(frozen=True)
class Specimen:
    """A recorded run that is measured, its data, and the device that computes.

    Its methods take `statistics`, those that normalisations use (see above): they decide on the network's mode and on
    its inputs.
    """

    run: RunFolder
    dataset: Dataset
    device: torch.device

    def kept_steps(self) -> list[int]:
        """Return the steps whose weights were kept; of a run of one step, made for its initial weights, only the first.

        Raises StoreError where none were.
        """
        steps = self._snapshots()
        return steps if self.run.spec.train.steps > 1 else steps[:1]

    def first_and_last(self) -> list[int]:
        """Return the first and the last kept step: initialisation, and the end of training."""
        steps = self.kept_steps()
        return sorted({steps[0], steps[-1]})

    def last_step(self) -> int:
        """Return the last step whose weights were kept, of any run. Raises StoreError where none were."""
        return self._snapshots()[-1]

    def _snapshots(self) -> list[int]:
        steps = list(self.run.snapshots())
        if not steps:
            raise StoreError(f"{self.run.path}: no weights were kept on the way (--snapshots none)")
        return steps

    def network(
        self, batch: int, step: int | None = None, statistics: str = "batch", dtype: torch.dtype = torch.float32
    ) -> Blocks:
        """Return the network with the weights of a kept step, by default the last.

        batch: how many inputs it will be given; modules that want random numbers get theirs for as many. A network that
        no layout knows is adopted. Raises StoreError where the step was not kept.
        """
        spec, dataset = self.run.spec, self.dataset
        step = self.last_step() if step is None else step
        if spec.foreign and spec.model.family == ADOPTED:
            patterns = spec.foreign.blocks.split(",") if spec.foreign.blocks else None
            x, _ = next(Batches(dataset, spec.data, 2, 0, "cpu").evaluation("test", 2, 2))
            adopted = adopt(load_foreign(self.run, dataset, step).eval(), x, blocks=patterns).network
            return adopted.to(self.device, dtype).train(statistics != "running")
        network = model.build(spec.model, dataset.input_shape, dataset.n_outputs, spec.seed)
        network.load_state_dict(self.run.load_weights(step))
        for name, module in model.stochastic_modules(network):
            module.noise = module.draw(generator(spec.seed, "noise", name, step), batch)
        assert isinstance(network, model.Network)
        return network.to(self.device, dtype).train(statistics != "running")

    def batches(self, size: int) -> Batches:
        """Return the batches of the run's seed."""
        return Batches(self.dataset, self.run.spec.data, size, self.run.spec.seed, self.device)

    def sample(
        self, images: int, statistics: str = "batch", dtype: torch.dtype = torch.float32
    ) -> tuple[Tensor, Tensor]:
        """Return (x, y) of a number of training images, un-augmented, class-balanced and the same for every seed.

        Where `statistics` are of augmented images, they are the first that training drew, the same for all networks of
        a seed.
        """
        batches = self.batches(images)
        if statistics == "augmented":
            x, y = batches.assemble(batches.tables(0, 1), torch.zeros(1, dtype=torch.int64, device=self.device))
        else:
            x, y = next(batches.evaluation("train", images, images))
        return x.to(dtype), y.to(dtype) if self.dataset.task == "regression" else y

    def test_batches(self, images: int) -> list[tuple[Tensor, Tensor]]:
        """Return a number of test images (x, y), in batches."""
        return list(self.batches(EVAL_BATCH).evaluation("test", images, EVAL_BATCH))

    def statistics_inputs(self, images: int, statistics: str = "batch") -> list[Tensor]:
        """Return batches of about this number of training images, on which statistics can be estimated anew.

        Un-augmented and class-balanced; or where `statistics` are of augmented images, whole batches as training drew
        them.
        """
        batches = self.batches(EVAL_BATCH)
        if statistics != "augmented":
            return [x for x, _ in batches.evaluation("train", images, EVAL_BATCH)]
        count = max(1, round(images / EVAL_BATCH))
        tables = batches.tables(0, count)
        return [batches.assemble(tables, torch.tensor([k], device=self.device))[0] for k in range(count)]

    def followed(
        self,
        measure: Callable[[Blocks, Tensor, Tensor], pd.DataFrame],
        steps: Iterable[int],
        images: int,
        statistics: str = "batch",
        dtype: torch.dtype = torch.float32,
    ) -> pd.DataFrame:
        """Measure the network at each of some kept steps on the same sample (x, y); adds `step`."""
        x, y = self.sample(images, statistics, dtype)
        networks = ((step, self.network(len(x), step, statistics, dtype)) for step in steps)
        return pd.concat([measure(network, x, y).assign(step=step) for step, network in networks], ignore_index=True)
