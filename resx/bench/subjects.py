"""What is measured: resx's own steps, and the conventional loop of most published code.

The latter has torchvision transforms on PIL images, a DataLoader with workers, steps launched one by one, contiguous
tensors, SGD that is not fused, and reads the loss at every step.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.transforms.functional import to_pil_image

from resx import data, model
from resx.bench.plan import Plan
from resx.spec import RunSpec
from resx.training.evaluate import autocast, evaluate, evaluation_batch, loss_of
from resx.training.step import drive, load_chunk, make_feeds, make_learner


@dataclass
class Subject:
    """What a process measures. train, evaluate: do n steps (n passes over the test images) and wait for the end."""

    train: Callable[[int], None]
    evaluate: Callable[[int], None]
    train_images: int  # a step
    evaluate_images: int  # a pass
    evaluate_steps: int  # a pass in batches of the training's size
    workers: Callable[[], list[int]]  # process ids
    mode: str = "eager"  # `graph`: steps are replayed as a CUDA graph; `eager`: they are started one by one


@contextmanager
def engine(plan: Plan, depth: int, networks: int = 1) -> Iterator[Subject]:
    """Train networks side by side with resx's own steps: chunks are loaded, driven and read as in every run."""
    device = torch.device(plan.device)
    specs = [plan.spec(depth, seed) for seed in range(networks)]
    dataset = data.load(specs[0].data, None)
    feeds = make_feeds(specs, dataset, device)
    learners = [
        make_learner(spec, dataset, feed, Path(), plan.checkpoint_activations)
        for spec, feed in zip(specs, feeds, strict=True)
    ]
    rows, done = learners[0].chunk.rows, 0
    load_chunk(learners, 0, 1)
    driver = drive(learners)

    def train(n: int) -> None:
        nonlocal done
        while n > 0:
            steps = min(n, rows)
            load_chunk(learners, done, steps)
            driver.run(steps, lambda: False)
            for learner in learners:
                learner.chunk.losses[:steps].tolist()
            done, n = done + steps, n - steps

    def evaluate_test(n: int) -> None:
        batch = evaluation_batch(plan.batch_size, dataset.input_shape, device)
        for learner in learners * n:
            evaluate(
                learner.network, learner.feed.batches.evaluation("test", None, batch), "classification", plan.precision
            )

    images = len(dataset.test_x) * len(learners)
    passes = -(-images // plan.batch_size)
    yield Subject(train, evaluate_test, plan.batch_size * len(learners), images, passes, list, driver.mode)


class Pictures(Dataset[tuple[Tensor, int]]):
    """PIL images behind torchvision transforms, one at a time."""

    def __init__(self, images: Tensor, labels: Tensor, augment: bool) -> None:
        self.images = [to_pil_image(image) for image in images]
        self.labels = labels.tolist()
        steps: list[Any] = [transforms.ToTensor(), transforms.Normalize((0.49, 0.48, 0.45), (0.25, 0.24, 0.26))]
        size = images.shape[-1]
        crop = [transforms.RandomCrop(size, padding=4), transforms.RandomHorizontalFlip()] if augment else []
        self.transform = transforms.Compose([*crop, *steps])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.images[index]), self.labels[index]


def conventional_step(
    network: nn.Module, optimizer: torch.optim.Optimizer, inputs: Tensor, labels: Tensor, precision: str
) -> float:
    """Do one SGD step as most code does, and return its loss."""
    optimizer.zero_grad()
    with autocast(precision, inputs.device):
        outputs = network(inputs)
    loss = loss_of(outputs, labels, "classification")
    loss.backward()
    optimizer.step()
    return loss.item()


def conventional_optimizer(network: nn.Module, spec: RunSpec) -> torch.optim.Optimizer:
    """Return the recipe's SGD as torch makes it by default."""
    train = spec.train
    return torch.optim.SGD(network.parameters(), train.lr, train.momentum, weight_decay=train.weight_decay)


@contextmanager
def conventional(plan: Plan, depth: int) -> Iterator[Subject]:
    """Train the same network by the same recipe with the conventional loop."""
    device, spec = torch.device(plan.device), plan.spec(depth)
    dataset = data.load(spec.data, None)
    network = model.build(spec.model, dataset.input_shape, dataset.n_outputs, spec.seed)
    network = network.to(device, memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    optimizer = conventional_optimizer(network, spec)
    options: dict[str, Any] = {
        "batch_size": plan.batch_size,
        "num_workers": plan.workers,
        "persistent_workers": plan.workers > 0,
        "pin_memory": device.type == "cuda",
    }
    train_loader = DataLoader(Pictures(dataset.train_x, dataset.train_y, True), shuffle=True, drop_last=True, **options)
    test_loader = DataLoader(Pictures(dataset.test_x, dataset.test_y, False), **options)

    def endless() -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield from train_loader

    batches = endless()

    def train(n: int) -> None:
        network.train()
        for _ in range(n):
            inputs, labels = next(batches)
            conventional_step(network, optimizer, inputs.to(device), labels.to(device), plan.precision)

    def evaluate_test(n: int) -> None:
        for _ in range(n):
            moved = ((inputs.to(device), labels.to(device)) for inputs, labels in test_loader)
            evaluate(network, moved, "classification", plan.precision)

    def workers() -> list[int]:
        return [process.pid for process in multiprocessing.active_children() if process.pid]

    images = len(dataset.test_x)
    yield Subject(train, evaluate_test, plan.batch_size, images, -(-images // plan.batch_size), workers)
