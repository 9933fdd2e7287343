"""Flat fields in, complete specs out: names checked, defaults filled in, data and plugin hashed, sizes compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from resx import data, model
from resx.data.dataset import CHANNELS, Facts
from resx.model.adapters import PARTS
from resx.model.construction import skeleton
from resx.model.init import INITS
from resx.model.layouts import LAYOUTS
from resx.model.network import FAMILIES
from resx.model.shortcuts import SHORTCUTS
from resx.model.subset import check_active_blocks
from resx.registry import load_plugins, used_plugins
from resx.spec import ADOPTED, MAX_RUNS, DataSpec, Foreign, ModelSpec, RunSpec, SpecError, build_spec, without
from resx.store.files import LOG, StoreError, read_file, say_once
from resx.store.run import find_runs, read_run
from resx.training.initial import TRANSFORMS
from resx.training.machine import Machine, check_precision
from resx.training.memory import refuse_too_large
from resx.training.ranks import world_size
from resx.training.schedule import WARMUP_UNTIL

NORMALIZATIONS = ("symmetric", "channel-mean", "pixel-mean", *CHANNELS)


def resolve(fields: Iterable[Mapping[str, Any]], machine: Machine, *, same_files: bool = False) -> list[RunSpec]:
    """Return complete specs from flat fields: names checked, parts' defaults filled in, data and plugin hashed.

    same_files: a folder's images have not changed since the last call, as while one grid is planned. Raises SpecError
    with every mistake of every spec, each once, among them networks that this machine's memory or the batch size
    cannot train.
    """
    load_plugins(machine.plugin)
    if not same_files:
        data.look_again()
    specs: dict[RunSpec, None] = {}
    errors: dict[str, None] = {}
    completed: dict[DataSpec, DataSpec] = {}  # a folder is hashed once, not once a run
    for count, item in enumerate(fields):
        if count == MAX_RUNS:
            raise SpecError(f"more than {MAX_RUNS:,} runs in one command; make the grid smaller")
        try:
            item = of_others(item) if item.get("foreign") else item
            if item.get("family") == ADOPTED:  # not a family of this project, so there are no names to check
                spec = build_spec(item, (data.check_names,))
                specs[spec.model_copy(update={"data": data.complete(spec.data, machine.data_dir)})] = None
                continue
            spec = build_spec({**item, "plugin": None}, (model.check_names, data.check_names, _check_run))
            if spec.data not in completed:
                completed[spec.data] = _as_recorded(data.complete(spec.data, machine.data_dir), machine.results)
            spec = spec.model_copy(update={"model": model.complete(spec.model), "data": completed[spec.data]})
            spec = spec.model_copy(update={"plugin": plugin_of(spec)})
            if spec.foreign is None:
                spec = _with_norm_parts(spec, machine)
                _check_sizes(spec, machine)
            specs[spec] = None
        except SpecError as error:
            errors |= dict.fromkeys(error.errors)
    if errors:
        raise SpecError(errors)
    return list(specs)


def of_others(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a run whose weights were trained elsewhere, from its layout and the data.

    A preset is for training here and is ignored. Raises SpecError for a field that such weights fix.
    """
    given = without(fields, "preset")
    foreign = Foreign.model_validate(given["foreign"])
    layout = None if foreign.blocks else LAYOUTS.get(foreign.network)
    own: dict[str, Any] = {"family": ADOPTED, "depth": foreign.layers, "width": None, "norm": None, "order": None}
    own |= {"steps": 0, "augment": None}
    if layout:
        own |= {key: getattr(layout.model, key) for key in type(layout.model).model_fields}
        own |= {"normalize": layout.normalize, **layout.recipe}
    elif "normalize" not in given:
        raise SpecError(
            f"normalize: say how the inputs of {foreign} are prepared, by --normalize: {', '.join(NORMALIZATIONS)}"
        )
    for key in given.keys() & own.keys():
        if given[key] != own[key]:
            raise SpecError(f"{key}: weights that were trained elsewhere have their own; leave it out")
    if not layout and "dataset" not in given:
        raise SpecError(f"dataset: say on what {foreign} is measured, by --dataset")
    return {**({"dataset": layout.dataset} if layout else {}), **given, **own, "foreign": foreign}


def _check_run(fields: Mapping[str, Any]) -> list[str]:
    start = fields.get("init_from")
    name = start.get("transform") if isinstance(start, dict) else getattr(start, "transform", None)
    return TRANSFORMS.check(name) if name else []


def plugin_of(spec: RunSpec) -> str | None:
    """Return the hash of the plugin that a run uses (of several, one hash for all), or None."""
    adapter = spec.model.adapter
    parts = [registry.plugin(getattr(adapter, key)) for key, registry in PARTS.items()] if adapter else []
    start = spec.init_from.transform if spec.init_from else None
    named = [
        SHORTCUTS.plugin(spec.model.shortcut),
        FAMILIES.plugin(spec.model.family),
        INITS.plugin(spec.model.init),
        data.DATASETS.plugin(spec.data.dataset),
        TRANSFORMS.plugin(start),
    ]
    return used_plugins([*parts, *named])


def load_plugin_of(spec: RunSpec, machine: Machine) -> None:
    """Load the machine's plugins in this process. Raises SpecError where they are not the spec's."""
    load_plugins(machine.plugin)
    if plugin_of(spec) != spec.plugin:
        raise SpecError(
            f"{spec.run_id}: was made with another plugin, or its file has changed since this command began"
        )


def _as_recorded(spec: DataSpec, results: Path) -> DataSpec:
    """Return a folder's data with the label and reference of recorded runs on the same content.

    Both are only shown, but part of run ids, so that one content has one label in a folder of results.
    """
    if spec.content is None:
        return spec
    others = _recorded_data(spec.content, results)
    if not others or spec in others:
        return spec
    LOG.warning("data: these images are recorded as '%s', and so are the new runs on them", others[0].label)
    return spec.model_copy(update={"label": others[0].label, "reference": others[0].reference})


def _recorded_data(content: str, results: Path) -> list[DataSpec]:
    specs: dict[DataSpec, None] = {}
    for path in find_runs(results):
        try:
            if content.encode() in read_file(path / "spec.json"):
                specs[read_run(path).spec.data] = None
        except (StoreError, FileNotFoundError):
            continue
    return [spec for spec in specs if spec.content == content]


def _check_sizes(spec: RunSpec, machine: Machine) -> None:
    """Raise SpecError for a run that would fail after it has begun."""
    if spec.train.active_blocks is not None:
        check_active_blocks(spec.model, spec.train.active_blocks)
    if machine.is_here:
        check_precision(spec.train.precision, machine.device)
    facts = data.facts(spec.data, machine.data_dir)
    if spec.train.warmup and not facts.regression and 1 - 1 / facts.outputs <= WARMUP_UNTIL:
        raise SpecError(
            f"warmup: it lasts until the running error is below {WARMUP_UNTIL:.0%}, which {facts.outputs} classes are "
            "by chance; leave it out (--no-warmup)"
        )
    if spec.train.batch_size // (spec.train.norm_parts or 1) == 1 and not _trains_on_one(
        spec, facts.shape, facts.outputs
    ):
        shared = f" in {spec.train.norm_parts} parts" if spec.train.norm_parts else ""
        raise SpecError(
            f"batch_size: {spec.train.batch_size}{shared} leaves one value a channel, which batch normalisation cannot "
            "use; use 2 or more"
        )
    if machine.device == "cpu":
        refuse_too_large(spec, facts.shape, facts.outputs, machine.checkpoint_activations)


def _with_norm_parts(spec: RunSpec, machine: Machine) -> RunSpec:
    """Return the spec with the number of parts of a batch that are normalised separately: by default one a process.

    Null for a batch in one part, and for a network without batch normalisation.
    """
    processes = world_size() if machine.engine == "torchrun" else 1
    if spec.train.batch_size < processes:
        raise SpecError(f"batch_size: {spec.train.batch_size} cannot be shared by {processes} processes")
    parts = spec.train.norm_parts or processes
    if parts > 1 and not _normalises_batches(spec.model, data.facts(spec.data, machine.data_dir)):
        parts = 1
    if parts > 1 and spec.train.norm_parts is None:
        say_once(
            f"batch normalisation takes its statistics of each process's part of a batch, 1 of {parts}: such runs are "
            "others than those of one process; --norm-parts 1 takes them of the whole batch"
        )
    return spec.model_copy(update={"train": spec.train.model_copy(update={"norm_parts": parts if parts > 1 else None})})


@cache
def _normalises_batches(spec: ModelSpec, facts: Facts) -> bool:
    return any(isinstance(part, _BatchNorm) for part in skeleton(spec, facts.shape, facts.outputs).modules())


@cache
def _trains_on_one(spec: RunSpec, shape: tuple[int, ...], outputs: int) -> bool:
    try:
        skeleton(spec.model, shape, outputs).train()(torch.empty(1, *shape, device="meta"))
    except ValueError as error:
        return "more than 1 value per channel" not in str(error)
    except Exception:  # any other mistake is reported where it happens
        return True
    return True
