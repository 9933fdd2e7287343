"""Flat fields in, complete specs out: names checked, defaults filled in, data and plugin hashed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from resx import data, model
from resx.data.dataset import CHANNELS
from resx.model.layouts import LAYOUTS
from resx.model.subset import check_active_blocks
from resx.registry import load_plugin
from resx.spec import DataSpec, Foreign, RunSpec, SpecError, build_spec
from resx.training.initial import TRANSFORMS
from resx.training.machine import Machine

ADOPTED = "adopted"  # in the place of a family: a network whose blocks are found when it is measured
NORMALIZATIONS = ("symmetric", "channel-mean", "pixel-mean", *CHANNELS)


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
            item = of_others(item) if item.get("foreign") else item
            if item.get("family") == ADOPTED:  # no family of this project's: there are no names to check
                specs.append(_adopted(item, machine))
                continue
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


def of_others(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a run whose weights were trained elsewhere: what its layout says, and the data.

    A preset is for training here and does not count. Raises SpecError for a field that such weights have of their own.
    """
    given = {key: value for key, value in fields.items() if key != "preset"}
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


def _adopted(fields: Mapping[str, Any], machine: Machine) -> RunSpec:
    """Return the spec of a network that no layout knows."""
    spec = build_spec(fields, (data.check_names,))
    return spec.model_copy(update={"data": data.complete(spec.data, machine.data_dir)})


def _check_run(fields: Mapping[str, Any]) -> list[str]:
    start = fields.get("init_from")
    name = start.get("transform") if isinstance(start, dict) else getattr(start, "transform", None)
    return TRANSFORMS.check(name) if name else []
