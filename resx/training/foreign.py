"""Runs of weights that were trained elsewhere: recorded and evaluated once, then measured like any other run.

The specification of such a run has the content hash of the weights, which are its only snapshot. What is known of the
training is in its layout (model/layouts.py).
"""

from __future__ import annotations

import hashlib
import importlib.util
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from torch import nn

from resx import data, model
from resx.data import Dataset
from resx.data.batches import Batches
from resx.model.layouts import LAYOUTS
from resx.spec import ADOPTED, Foreign, RunSpec, SpecError, did_you_mean, with_kind
from resx.store.environment import describe_environment
from resx.store.files import Busy, StoreError
from resx.store.run import RunFolder, finished_result, open_run
from resx.store.weights import State, content_hash, read_weights
from resx.training.evaluate import EVAL_BATCH, evaluate
from resx.training.loop import finish
from resx.training.machine import Machine, own_settings

ZOOS = ("torchvision", "timm")  # packages whose networks are made by name


def describe_foreign(network: str, weights: str, blocks: str | None = None) -> Foreign:
    """Return the part of a run's specification that describes foreign weights.

    network: a name of model/layouts.py, torchvision/NAME, timm/NAME, or FILE.py:FUNCTION, whose function makes it.
    weights: a file, or DEFAULT for those that torchvision publishes. Raises SpecError where either cannot be read.
    """
    source, _, function = network.rpartition(":")
    if not function or not source.endswith(".py"):
        source = ""
    if not source and network not in LAYOUTS and network.partition("/")[0] not in ZOOS:
        raise SpecError(
            f"--network: no '{network}'{did_you_mean(network, LAYOUTS)}; write a name such as akamaster/resnet56, "
            "torchvision/NAME, timm/NAME, or FILE.py:FUNCTION"
        )
    state = _state(network, weights, blocks)
    layers = None if network in LAYOUTS and not blocks else sum(tensor.dim() > 1 for tensor in state.values())
    code = _module_hash(Path(source)) if source else None
    name = f"{Path(source).name}:{function}" if source else network
    return Foreign(network=name, weights=content_hash(state), code=code, blocks=blocks, layers=layers)


def _state(network: str, weights: str, blocks: str | None) -> State:
    """Return the weights of a file, or torchvision's; those of a known layout under this project's names."""
    state = read_weights(Path(weights)) if weights != "DEFAULT" else _published(network)
    return LAYOUTS[network].translated(state) if network in LAYOUTS and not blocks else state


def _published(network: str) -> State:
    zoo, _, name = network.partition("/")
    if zoo != "torchvision":
        raise SpecError("--weights DEFAULT: is for networks of torchvision; name a file")
    import torchvision

    try:
        return dict(torchvision.models.get_model_weights(name).DEFAULT.get_state_dict(check_hash=True))
    except (OSError, URLError) as error:
        raise SpecError(f"--weights DEFAULT: cannot be downloaded ({error}); name a file") from error
    except ValueError as error:
        raise SpecError(f"--network {network}: torchvision has no such network") from error


def find_weights(foreign: Foreign, places: Sequence[str]) -> State:
    """Return the weights whose hash a specification has, from files or folders. Raises SpecError."""
    files: list[str] = []
    for place in places:
        path = Path(place)
        files += [str(file) for file in sorted(path.iterdir()) if file.is_file()] if path.is_dir() else [place]
    for file in files:
        try:
            state = _state(foreign.network, file, foreign.blocks)
        except SpecError:
            if len(files) == 1:
                raise
            continue  # it may be another network's
        if content_hash(state) == foreign.weights:
            return state
    looked = f"not in {', '.join(map(str, places))}" if places else "and --weights names no file or folder"
    raise SpecError(f"{foreign}: the weights with the content {foreign.weights} are needed, {looked}")


def _module_hash(path: Path) -> str:
    try:
        source = path.read_bytes()
    except OSError as error:
        raise SpecError(f"--network {path}: cannot be read ({error.strerror})") from error
    return hashlib.sha256(source).hexdigest()[:16]


def make_module(foreign: Foreign, outputs: int, code: Path | None) -> nn.Module:
    """Return the network that a specification names, with random weights. code: the user's file.

    Raises SpecError where it cannot be made.
    """
    zoo, _, name = foreign.network.partition("/")
    make: Callable[[], Any]
    if foreign.code:
        make = _user_function(foreign, code)
    elif zoo == "torchvision":
        import torchvision

        make = partial(torchvision.models.get_model, name, num_classes=outputs)
    else:
        try:
            import timm
        except ImportError as error:
            raise SpecError(f"--network {foreign}: needs timm; pip install 'resx[networks]'") from error
        make = partial(timm.create_model, name, num_classes=outputs)
    try:
        module = make()
    except Exception as error:  # a user's function may fail in any way; the user needs its name and the reason
        raise SpecError(f"--network {foreign}: cannot be made ({with_kind(error)})") from error
    if not isinstance(module, nn.Module):
        raise SpecError(f"--network {foreign}: must return a torch.nn.Module, not a {type(module).__name__}")
    return module


def _user_function(foreign: Foreign, code: Path | None) -> Callable[[], Any]:
    if code is None or _module_hash(code) != foreign.code:
        raise SpecError(f"--network {foreign}: the file is missing, or has changed since the run was recorded")
    module_spec = importlib.util.spec_from_file_location(f"resx_network_{foreign.code}", code)
    assert module_spec and module_spec.loader
    loader = module_spec.loader
    module = importlib.util.module_from_spec(module_spec)

    def make() -> Any:
        loader.exec_module(module)
        return getattr(module, foreign.network.rpartition(":")[2])()

    return make


def build_foreign(spec: RunSpec, dataset: Dataset, state: State, code: Path | None) -> nn.Module:
    """Return a run's network with these weights: this project's own for a known layout, else the module itself.

    Raises SpecError where weights, network and data do not fit together.
    """
    assert spec.foreign
    if spec.model.family != ADOPTED:
        network = model.build(spec.model, dataset.input_shape, dataset.n_outputs, spec.seed)
    else:
        network = make_module(spec.foreign, dataset.n_outputs, code)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise SpecError(
            f"--network {spec.foreign}: with {dataset.n_outputs} classes, as {dataset.label} has, the weights do not "
            f"fit ({reason})"
        ) from error
    return network


def record_foreign(spec: RunSpec, machine: Machine) -> None:
    """Record a run of foreign weights: keep them, evaluate all test images, and finish it.

    Raises SpecError where the weights are not there or do not fit.
    """
    assert spec.foreign
    started = time.monotonic()
    state = find_weights(spec.foreign, machine.weights)
    dataset = data.load(spec.data, machine.data_dir)
    device = torch.device(machine.device)
    network = build_foreign(spec, dataset, state, machine.code).to(device)
    batches = Batches(dataset, spec.data, EVAL_BATCH, spec.seed, device)
    with open_run(machine.results, spec) as run, own_settings():
        if finished_result(spec, machine.results) is not None:
            return  # another process has recorded it in the meantime
        steps = max(spec.train.steps, 1)  # 0 where their number is not known
        run.save_snapshot(steps, {name: tensor.cpu() for name, tensor in network.state_dict().items()})
        evaluation = batches.evaluation("test", None, EVAL_BATCH)
        test = evaluate(network, evaluation, dataset.task, keep_outputs=True)
        assert test.outputs is not None and test.labels is not None
        run.save_predictions(test.outputs.numpy(), test.labels.numpy())
        row = {"step": spec.train.steps, "test_loss": test.loss, "test_error": test.error}
        row = {key: value for key, value in row.items() if not math.isnan(value)}
        run.save_checkpoint({}, [row])
        seconds = round(time.monotonic() - started, 2)
        attempt = describe_environment(machine.device, torch.get_num_threads()) | {"seconds": seconds}
        code = {"code": str(machine.code.resolve())} if machine.code and spec.foreign.code else {}
        run.record_attempt({**attempt, **code}, replace=False)
        has_layout = spec.model.family != ADOPTED
        counted = model.count(spec.model, dataset.input_shape, dataset.n_outputs) if has_layout else None
        parameters = sum(parameter.numel() for parameter in network.parameters())
        finish(run, dataset, "finished", row, parameters, counted.multiply_adds if counted else None)


def load_foreign(run: RunFolder, dataset: Dataset, step: int) -> nn.Module:
    """Return the network of a recorded run of foreign weights. Raises SpecError where a user's file is missing."""
    codes = [Path(attempt["code"]) for attempt in run.attempts() if attempt.get("code")]
    return build_foreign(run.spec, dataset, run.load_weights(step), codes[-1] if codes else None)


def record_all(specs: Sequence[RunSpec], machine: Machine) -> dict[str, str]:
    """Record runs of foreign weights one after the other; return a line for each that failed, by its id.

    A run that another process records is skipped.
    """
    errors = {}
    for spec in specs:
        try:
            record_foreign(spec, machine)
        except Busy:
            continue
        except (SpecError, StoreError) as error:
            errors[spec.run_id] = str(error)
    return errors
