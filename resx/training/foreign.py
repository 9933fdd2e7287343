"""Runs of weights that were trained elsewhere: recorded and evaluated once, then measured like any other run.

A run of this kind has a specification with the content hash of its weights, the weights themselves as its one snapshot,
and a result. What is known of the training is in the layout (model/layouts.py); nothing is trained here.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from resx import data, model
from resx.data import Dataset
from resx.data.batches import Batches
from resx.model.layouts import Layout, find_layout
from resx.spec import Foreign, RunSpec, SpecError
from resx.store.environment import describe_environment
from resx.store.files import write_atomic
from resx.store.run import OUTCOMES, RunFolder, metrics_text, open_run
from resx.store.weights import State, content_hash, read_weights
from resx.training.evaluate import EVAL_BATCH, evaluate
from resx.training.machine import Machine, own_settings
from resx.training.resolve import resolve


def record_foreign(network: str, weights: Path, fields: Mapping[str, Any], machine: Machine) -> RunSpec:
    """Record a known network with these weights as a run, unless it is recorded already, and return its spec.

    network: a name of model/layouts.py, such as akamaster/resnet56. fields: flat fields of the data, preset included
    (dataset, label, …); the network's own and its normalisation come from the layout. All test images are evaluated.
    Raises SpecError where the weights do not fit the network, or the network does not fit the data.
    """
    layout = find_layout(network)
    state = layout.translated(read_weights(weights))
    spec = foreign_spec(layout, state, fields, machine)
    if not (machine.results / "runs" / spec.run_id / "result.json").exists():
        dataset = data.load(spec.data, machine.data_dir)
        _record(spec, _loaded(spec, dataset, state), dataset, machine)
    return spec


def foreign_spec(layout: Layout, state: State, fields: Mapping[str, Any], machine: Machine) -> RunSpec:
    """Return the complete specification of a layout with these weights (translated) on the data that fields name."""
    network = {key: getattr(layout.model, key) for key in type(layout.model).model_fields}
    own = {**network, "normalize": layout.normalize, "augment": None, **layout.recipe}
    for key in fields.keys() & own.keys():
        raise SpecError(f"{key}: weights that were trained elsewhere have their own; leave it out")
    foreign = Foreign(network=layout.name, weights=content_hash(state))
    [spec] = resolve([{**fields, **own, "foreign": foreign}], machine)
    return spec


def _loaded(spec: RunSpec, dataset: Dataset, state: State) -> nn.Module:
    assert spec.foreign
    classes = len(state["head.weight"])
    if (dataset.input_shape[0], dataset.n_outputs) != (3, classes):
        raise SpecError(
            f"--network {spec.foreign.network}: takes images of 3 channels and has {classes} classes; "
            f"{dataset.label} has {dataset.input_shape[0]} and {dataset.n_outputs}"
        )
    network = model.build(spec.model, dataset.input_shape, dataset.n_outputs, spec.seed)
    network.load_state_dict(state)
    return network


def _record(spec: RunSpec, network: nn.Module, dataset: Dataset, machine: Machine) -> None:
    """Keep the weights, evaluate the test images, and finish the run."""
    started = time.monotonic()
    device = torch.device(machine.device)
    batches = Batches(dataset, spec.data, EVAL_BATCH, spec.seed, device)
    with open_run(machine.results, spec) as run, own_settings():
        run.record_attempt(describe_environment(machine.device, torch.get_num_threads()), replace=False)
        run.save_snapshot(spec.train.steps, {name: tensor.cpu() for name, tensor in network.state_dict().items()})
        test = evaluate(
            network.to(device), batches.evaluation("test", None, EVAL_BATCH), dataset.task, keep_outputs=True
        )
        assert test.outputs is not None and test.labels is not None
        run.save_predictions(test.outputs.numpy(), test.labels.numpy())
        row = {"step": spec.train.steps, "test_loss": test.loss, "test_error": test.error}
        row = {key: value for key, value in row.items() if not math.isnan(value)}
        write_atomic(run.path / "metrics.csv", metrics_text([row]))
        _finish(run, network, dataset, row, time.monotonic() - started)


def _finish(run: RunFolder, network: nn.Module, dataset: Dataset, row: Mapping[str, float], seconds: float) -> None:
    complexity = model.count(run.spec.model, dataset.input_shape, dataset.n_outputs)
    run.finish(
        {
            "run_id": run.run_id,
            "status": "finished",
            "steps_done": run.spec.train.steps,
            **{outcome: row.get(outcome) for outcome in OUTCOMES},
            "seconds": round(seconds, 2),
            "data_label": dataset.label,
            "reference": dataset.reference,
            "train_images": len(dataset.train_x),
            "test_images": len(dataset.test_x),
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
            "multiply_adds": complexity.multiply_adds,
        }
    )
