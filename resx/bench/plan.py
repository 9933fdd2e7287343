"""What `resx bench` measures: networks and recipe of He et al. 2016, section 4.2, on made-up images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from resx.spec import RunSpec
from resx.training.machine import Machine
from resx.training.resolve import resolve

TRAIN_IMAGES, TEST_IMAGES = 2048, 1024
CONVENTIONAL, ENGINE = "conventional", "resx"


@dataclass(frozen=True)
class Plan:
    """What is measured.

    threads: of each process. processes: how many train at once on a CPU, after one alone. networks: numbers of networks
    side by side in one process, for a GPU. workers: of the conventional loop's DataLoader. seconds: of one measurement,
    of which there are `repetitions`.
    """

    depths: tuple[int, ...] = (20, 56)
    batch_size: int = 128
    image_size: int = 32
    shortcut: str = "identity"
    precision: str = "fp32"
    device: str = "cpu"
    threads: int = 1
    processes: int = 2
    networks: tuple[int, ...] = (1,)
    workers: int = 2
    repetitions: int = 5
    seconds: float = 1.0
    checkpoint_activations: bool = False

    def spec(self, depth: int, seed: int = 0) -> RunSpec:
        """Return the run whose steps are measured. Raises SpecError for what cannot be trained."""
        fields = {
            "dataset": f"synthetic:classes=10,size={self.image_size},train={TRAIN_IMAGES},test={TEST_IMAGES}",
            "augment": "crop-flip",
            "depth": depth,
            "shortcut": self.shortcut,
            "batch_size": self.batch_size,
            "precision": self.precision,
            "steps": 64_000,
            "lr": 0.1,
            "seed": seed,
        }
        return resolve([fields], Machine(device=self.device))[0]


def loops_of(networks: Sequence[int]) -> dict[str, int]:
    """Return each number of networks that resx's own steps train side by side, by its name in the tables."""
    return {ENGINE if number == 1 else f"{ENGINE}, {number} networks": number for number in networks}
