"""From a ModelSpec to a network: names checked, defaults filled in, built, initialised by parameter name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import ValidationError
from torch import nn

from resx.model.adapters import PARTS, complete_part
from resx.model.init import initialise
from resx.model.network import FAMILIES
from resx.model.shortcuts import SHORTCUTS
from resx.spec import ModelSpec, SpecError


def check_names(fields: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the model's part of flat fields, a line each.

    Unknown families, shortcuts and adapter parts, their arguments, and depths that the family has not. What
    is wrong in form (a depth that is no number) is left to spec.py.
    """
    model = {key: value for key, value in fields.items() if key in ModelSpec.model_fields}
    errors = FAMILIES.check(model["family"]) if "family" in model else []
    errors += SHORTCUTS.check(model["shortcut"]) if "shortcut" in model else []
    try:
        adapter = ModelSpec.model_validate({"adapter": model.get("adapter")}).adapter
    except ValidationError:
        return errors
    for key, registry in PARTS.items() if adapter else ():
        text = getattr(adapter, key)
        errors += registry.check(text) if text is not None else []
    try:
        spec = ModelSpec.model_validate(model)
    except ValidationError:
        return errors
    if spec.family in FAMILIES:
        errors += FAMILIES[spec.family].check(spec)
    return errors


def complete(spec: ModelSpec) -> ModelSpec:
    """Return the spec with every default filled in and every field that does not apply null.

    Networks that are the same then have equal specs. Completing twice changes nothing. Raises SpecError.
    """
    errors = check_names({key: getattr(spec, key) for key in ModelSpec.model_fields})
    if errors:
        raise SpecError(errors)
    shortcut = complete_part(SHORTCUTS, spec.shortcut, spec.norm or "batch")
    with torch.device("meta"):  # the adapters of all shapes are tried; none needs memory
        return FAMILIES[spec.family].complete(spec.model_copy(update={"shortcut": shortcut}))


def skeleton(spec: ModelSpec, input_shape: tuple[int, ...], n_outputs: int) -> nn.Module:
    """Return the network on the meta device: shapes and names without memory or values. Raises SpecError."""
    with torch.device("meta"):
        return FAMILIES[spec.family](complete(spec), input_shape, n_outputs)


def build(spec: ModelSpec, input_shape: tuple[int, ...], n_outputs: int, seed: int) -> nn.Module:
    """Return the initialised network on the CPU, float32, convolution weights in channels_last.

    input_shape: one input's, such as (C, H, W). n_outputs: classes, or the size of a regression target.
    The global random state is left as it was. Raises SpecError for a spec or inputs that no network fits.
    """
    spec = complete(spec)
    with torch.random.fork_rng(devices=[]):  # constructors draw initial values, which `initialise` replaces
        torch.manual_seed(seed)
        module = FAMILIES[spec.family](spec, input_shape, n_outputs)
    initialise(module, seed)
    return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
