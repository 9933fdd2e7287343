"""Flat fields in, complete specs out: names checked, defaults filled in, data and plugin hashed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from resx import data, model
from resx.model.subset import check_active_blocks
from resx.registry import load_plugin
from resx.spec import DataSpec, RunSpec, SpecError, build_spec
from resx.training.initial import TRANSFORMS
from resx.training.machine import Machine


def resolve(fields: Iterable[Mapping[str, Any]], machine: Machine) -> list[RunSpec]:
    """Turn flat fields into complete specs: names checked, parts' defaults filled in, data and plugin hashed.

    Raises SpecError with every mistake of every spec, each once.
    """
    plugin = load_plugin(machine.plugin) if machine.plugin else None
    specs: list[RunSpec] = []
    errors: dict[str, None] = {}
    completed: dict[DataSpec, DataSpec] = {}  # a folder is hashed once, not once a run
    for item in fields:
        try:
            spec = build_spec({**item, "plugin": plugin}, (model.check_names, data.check_names, _check_run))
            if spec.data not in completed:
                completed[spec.data] = data.complete(spec.data, machine.data_dir)
            update = {"model": model.complete(spec.model), "data": completed[spec.data]}
            specs.append(spec.model_copy(update=update))
            if spec.train.active_blocks is not None:
                check_active_blocks(specs[-1].model, spec.train.active_blocks)
            if spec.train.precision == "tf32" and not machine.device.startswith("cuda"):
                raise SpecError("precision: tf32 needs a CUDA device; use fp32")
        except SpecError as error:
            errors |= dict.fromkeys(error.errors)
    if errors:
        raise SpecError(errors)
    return list(dict.fromkeys(specs))


def _check_run(fields: Mapping[str, Any]) -> list[str]:
    start = fields.get("init_from")
    name = start.get("transform") if isinstance(start, dict) else getattr(start, "transform", None)
    return TRANSFORMS.check(name) if name else []
