"""One SGD step of one network, on memory that stays where it is, so that a CUDA graph can replay it.

Recipe: He et al. 2016, section 4.2: SGD with momentum, weight decay on every parameter, a smaller rate until the
running error has fallen. A step draws nothing, reads nothing back and has static shapes: what it needs is loaded for a
chunk of steps, and what it computes stays on the device until the chunk is over.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from resx import model
from resx.data import Dataset
from resx.data.batches import CHUNK, Batches, Feed
from resx.model.construction import skeleton
from resx.registry import state as registry_state
from resx.seeding import generator
from resx.spec import ModelSpec, RunSpec
from resx.training.drive import Driver, driver
from resx.training.evaluate import autocast, loss_of
from resx.training.initial import build_network
from resx.training.memory import checkpoint_activations
from resx.training.ranks import Ranks
from resx.training.schedule import WARMUP_FACTOR, WARMUP_UNTIL, learning_rates

RUNNING_ERROR_WEIGHT = 0.05  # of one batch in the running error that ends the warm-up


@dataclass(frozen=True, eq=False)
class Chunk:
    """What the steps of a chunk read and write apart from their batches, row k for step k.

    rates: base learning rates, float32 [rows]. losses, errors: what the steps computed, float32 [rows], errors as
    fractions. planned: a buffer of the network and its values [rows, …], random numbers or scheduled weights, by name.
    """

    rates: Tensor
    losses: Tensor
    errors: Tensor
    planned: Mapping[str, tuple[Tensor, Tensor]]

    @property
    def rows(self) -> int:
        """How many steps fit."""
        return len(self.rates)


class Together:
    """What a step does once for all layers of a network: on a GPU every operation costs the start of a kernel.

    One addition counts the batches of all normalisations. In bfloat16 one copy rounds the weights of convolutions and
    linear layers and another widens their gradients, to the values that autocast gives. A module that is not called
    exactly once in a step is left alone, since its gradients are summed in float32.
    """

    def __init__(self, network: nn.Module, called_once: Collection[str], precision: str) -> None:
        modules = [(name, module) for name, module in network.named_modules() if name in called_once]
        self.norms = [module for _, module in modules if isinstance(module, _BatchNorm) and module.momentum is not None]
        self.counts = [norm.num_batches_tracked for norm in self.norms if norm.num_batches_tracked is not None]
        self.places = [
            (module, name)
            for _, module in modules
            if precision == "bf16" and isinstance(module, nn.Linear | _ConvNd)
            for name, weight in module.named_parameters(recurse=False)
        ]
        self.weights = [getattr(module, name) for module, name in self.places]
        self.rounded = [weight.detach().to(torch.bfloat16).requires_grad_() for weight in self.weights]

    @contextmanager
    def forward_and_backward(self) -> Iterator[None]:
        """Prepare the forward and backward pass inside; afterwards the parameters have their gradients."""
        with torch.no_grad():
            if self.rounded:
                torch._foreach_copy_(self.rounded, self.weights)
            if self.counts:
                torch._foreach_add_(self.counts, 1)
        try:
            for norm in self.norms:
                norm.num_batches_tracked = None
            for (module, name), weight in zip(self.places, self.rounded, strict=True):
                module._parameters[name] = weight
            yield
        finally:
            for norm, count in zip(self.norms, self.counts, strict=True):
                norm.num_batches_tracked = count
            for (module, name), weight in zip(self.places, self.weights, strict=True):
                module._parameters[name] = weight
        pairs = [pair for pair in zip(self.weights, self.rounded, strict=True) if pair[1].grad is not None]
        if pairs:
            for weight, _ in pairs:
                weight.grad = torch.empty_like(weight)
            torch._foreach_copy_([weight.grad for weight, _ in pairs], [rounded.grad for _, rounded in pairs])
        for rounded in self.rounded:
            rounded.grad = None


@dataclass(frozen=True, eq=False)
class Learner:
    """A network in training, with everything on the device that a step reads or changes in place.

    rate: the optimizer's learning rate. warming: bool, whether the warm-up lasts. running_error: a fraction, averaged
    exponentially. ranks: the processes that train it. forward: the network as these processes call it.
    """

    spec: RunSpec
    task: str
    network: nn.Module
    optimizer: torch.optim.Optimizer
    feed: Feed
    together: Together
    rate: Tensor
    warming: Tensor
    running_error: Tensor
    chunk: Chunk
    ranks: Ranks
    forward: nn.Module

    @property
    def momentum(self) -> list[Tensor]:
        """The optimizer's averages of the gradients, one for each parameter."""
        return [self.optimizer.state[parameter]["momentum_buffer"] for parameter in self.network.parameters()]

    @property
    def changed(self) -> list[Tensor]:
        """Every tensor that a step changes in place."""
        flags = [self.rate, self.warming, self.running_error, self.chunk.losses, self.chunk.errors]
        return [*self.network.parameters(), *self.network.buffers(), *self.momentum, *flags]

    def state(self) -> dict[str, Any]:
        """Return its part of a checkpoint."""
        return {
            "network": self.network.state_dict(),
            "momentum": self.momentum,
            "warming": self.warming,
            "running_error": self.running_error,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over a checkpoint. Raises RuntimeError, ValueError or KeyError where it does not fit."""
        self.network.load_state_dict(state["network"])
        for buffer, saved in zip(self.momentum, state["momentum"], strict=True):
            buffer.copy_(saved)
        self.warming.copy_(state["warming"])
        self.running_error.copy_(state["running_error"])


def make_feeds(specs: Sequence[RunSpec], dataset: Dataset, device: torch.device) -> list[Feed]:
    """Return the batches of each of these runs of one data set on the device; runs of one seed share theirs."""
    first = specs[0]
    batches = Batches(dataset, first.data, first.train.batch_size, first.seed, device)
    feeds = {seed: Feed(batches.with_seed(seed)) for seed in dict.fromkeys(spec.seed for spec in specs)}
    return [feeds[spec.seed] for spec in specs]


def make_learner(
    spec: RunSpec,
    dataset: Dataset,
    feed: Feed,
    results: Path,
    checkpointed: bool = False,
    ranks: Ranks | None = None,
) -> Learner:
    """Build a run's network as it starts training, on the feed's device.

    results: the folder with the parent's weights. checkpointed: activations are recomputed instead of kept. ranks: the
    processes that train it together, by default this one alone. Raises SpecError for a network that cannot be built.
    """
    ranks = ranks or Ranks()
    network = build_network(spec, dataset, results).to(feed.device).train()
    if checkpointed:
        checkpoint_activations(network)
    called_once = _called_once(
        spec.model, dataset.input_shape, dataset.n_outputs, spec.train.batch_size, registry_state()
    )
    rate = torch.tensor(spec.train.lr, device=feed.device)
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=rate,
        momentum=spec.train.momentum,
        weight_decay=spec.train.weight_decay,
        fused=True,
    )
    for parameter in network.parameters():  # zeros give the same first step, and nothing is made inside a step
        optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return Learner(
        spec=spec,
        task=dataset.task,
        network=network,
        optimizer=optimizer,
        feed=feed,
        # gradients of rounded copies are not those that the processes average; autocast rounds to the same values
        together=Together(network, called_once, spec.train.precision if ranks.size == 1 else "fp32"),
        rate=rate,
        warming=torch.tensor(spec.train.warmup, device=feed.device),
        running_error=torch.ones((), device=feed.device),
        chunk=_make_chunk(spec, network, feed, ranks),
        ranks=ranks,
        forward=ranks.spread(network, spec.train.norm_parts),
    )


@cache  # every seed of a network asks; a name may be registered anew
def _called_once(
    spec: ModelSpec, input_shape: tuple[int, ...], n_outputs: int, batch_size: int, state: int
) -> frozenset[str]:
    network = skeleton(spec, input_shape, n_outputs).train()
    calls: Counter[str] = Counter()
    for name, module in network.named_modules():
        module.register_forward_hook(lambda *passed, name=name: calls.update([name]))
    network(torch.empty(batch_size, *input_shape, device="meta"))
    return frozenset(name for name, count in calls.items() if count == 1)


def _make_chunk(spec: RunSpec, network: nn.Module, feed: Feed, ranks: Ranks) -> Chunk:
    stochastic = model.stochastic_modules(network)
    rows = min(feed.rows, CHUNK["cpu"]) if stochastic else feed.rows  # noise can be as large as all activations
    planned = {}
    for name, module in model.scheduled_modules(network):
        planned[name] = (module.weight, module.weight.new_zeros(rows, *module.weight.shape))
    for name, module in stochastic:
        drawn = _draw(module, generator(spec.seed, "noise", name, 0), spec.train.batch_size, ranks).to(feed.device)
        if module.noise.shape != drawn.shape:  # only a draw knows its shape
            module.noise = torch.empty_like(drawn)
        planned[name] = (module.noise, drawn.new_zeros(rows, *drawn.shape))
    rates, losses, errors = (torch.zeros(rows, device=feed.device) for _ in range(3))
    return Chunk(rates, losses, errors, planned)


def _draw(module: Any, stream: torch.Generator, batch: int, ranks: Ranks) -> Tensor:
    """Return a module's random numbers for a step; of numbers for each image, this process's share."""
    drawn: Tensor = module.draw(stream, batch)
    if ranks.size == 1 or drawn.dim() == 0 or len(drawn) != batch or len(module.draw(stream, batch + 1)) == batch:
        return drawn
    return ranks.part(drawn)


def load_chunk(learners: Sequence[Learner], first_step: int, n_steps: int) -> None:
    """Put what the next steps need (batches, rates, random numbers, weights) on the device.

    n_steps: at most the rows of every learner's chunk.
    """
    learners[0].ranks.say((first_step, n_steps))
    for feed in dict.fromkeys(learner.feed for learner in learners):
        feed.load(first_step, n_steps)
    for learner in learners:
        spec, chunk = learner.spec, learner.chunk
        steps = range(first_step, first_step + n_steps)
        values = {
            name: torch.tensor([module.schedule(step / spec.train.steps) for step in steps])
            for name, module in model.scheduled_modules(learner.network)
        }
        for name, module in model.stochastic_modules(learner.network):
            streams = (generator(spec.seed, "noise", name, step) for step in steps)
            values[name] = torch.stack([_draw(module, one, spec.train.batch_size, learner.ranks) for one in streams])
        for name, drawn in values.items():
            chunk.planned[name][1][:n_steps].copy_(drawn)
        chunk.rates[:n_steps].copy_(learning_rates(spec.train, first_step, n_steps))
        chunk.losses.zero_()
        chunk.errors.zero_()


def drive(learners: Sequence[Learner]) -> Driver:
    """Return what runs the loaded steps of these networks; a chunk must have been loaded."""
    steps = [partial(train_step, learner) for learner in learners]
    changed = [tensor for learner in learners for tensor in learner.changed]
    ranks = learners[0].ranks
    made = driver(steps, changed, learners[0].rate.device, can_capture=ranks.size == 1)

    def run(n_steps: int, should_stop: Callable[[], bool]) -> int:
        ranks.is_whole = ranks.size == 1  # what fails in a step of this process alone fails nobody else
        done = made.run(n_steps, ranks.agreed(should_stop))
        ranks.is_whole = True
        return done

    return Driver(run, made.mode)


def train_step(learner: Learner, k: Tensor) -> None:
    """Do one SGD step on row k (int64 [1], on the device) of what is loaded; reads nothing back."""
    chunk, ranks, batch = learner.chunk, learner.ranks, learner.spec.train.batch_size
    inputs, labels = map(ranks.part, learner.feed.batch(k))
    for buffer, values in chunk.planned.values():
        buffer.copy_(values.index_select(0, k)[0])
    base = chunk.rates.index_select(0, k)[0]
    learner.rate.copy_(torch.where(learner.warming, base * WARMUP_FACTOR, base))
    learner.optimizer.zero_grad(set_to_none=True)
    with learner.together.forward_and_backward():
        with autocast(learner.spec.train.precision, inputs.device):
            outputs = learner.forward(inputs)
        loss = loss_of(outputs, labels, learner.task)
        ranks.backward(loss, len(labels), batch)
    learner.optimizer.step()
    with torch.no_grad():
        chunk.losses.index_copy_(0, k, ranks.mean(loss.detach().reshape(1), len(labels), batch))
        if learner.task == "classification":
            error = ranks.mean((outputs.argmax(dim=1) != labels).float().mean(), len(labels), batch)
            chunk.errors.index_copy_(0, k, error.reshape(1))
            learner.running_error.lerp_(error, RUNNING_ERROR_WEIGHT)
            learner.warming.logical_and_(learner.running_error >= WARMUP_UNTIL)
