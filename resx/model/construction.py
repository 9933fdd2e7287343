"""From a ModelSpec to a network: names checked, defaults filled in, built, initialised by parameter name."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from resx.model.adapters import PARTS, complete_part, misplaced
from resx.model.init import INITS, initialise
from resx.model.network import FAMILIES
from resx.model.shortcuts import SHORTCUTS
from resx.registry import state as registry_state
from resx.spec import ModelSpec, SpecError, with_kind

UNNAMED = {"padding": "zeros", "activation": "relu", "init": "he"}  # what null means in networks on images
TRIAL = (2, 16, 4, 4)  # [B, C, H, W] that a shortcut is tried on before anything is trained


def check_names(fields: Mapping[str, Any]) -> list[str]:
    """Return the mistakes in the model's part of flat fields, a line each.

    Unknown names and arguments, depths that the family does not have and, where there are none of these, adapter parts
    that do not fit the network's shapes. Malformed values (a depth that is not a number) are left to spec.py.
    """
    model = {key: value for key, value in fields.items() if key in ModelSpec.model_fields}
    errors = FAMILIES.check(model["family"]) if "family" in model else []
    if "shortcut" in model:
        errors += SHORTCUTS.check(model["shortcut"]) or misfit(str(model["shortcut"]))
    try:
        adapter = ModelSpec.model_validate({"adapter": model.get("adapter")}).adapter
    except ValidationError:
        return errors
    wrong_kind = []  # said with the shapes, where these can be known
    for key, registry in PARTS.items() if adapter else ():
        text = getattr(adapter, key)
        if text and (mistake := misplaced(key, text)):
            wrong_kind.append(mistake)
        elif text:
            errors += registry.check(text)
    try:
        spec = ModelSpec.model_validate(model)
    except ValidationError:
        return errors + wrong_kind
    if spec.family in FAMILIES:
        errors += [*FAMILIES[spec.family].check(spec), *_init_mistakes(spec)]
        if not errors:
            try:
                _completed(spec, registry_state())
            except SpecError as error:
                return error.errors
    return errors + wrong_kind


def misfit(text: str) -> list[str]:
    """Return what is wrong with the module of a known shortcut, at most one line: it is tried on a small x and F(x).

    Its arguments, its initial values and the shape that it returns are tried, on the meta device too, where networks
    are counted.
    """
    name, values = SHORTCUTS.arguments(text)
    return list(_tried(SHORTCUTS[name], name, tuple(values.items())))


@cache  # a study asks for the same shortcut in every run
def _tried(factory: Callable[..., nn.Module], name: str, values: tuple[tuple[str, Any], ...]) -> tuple[str, ...]:
    given = _shown(torch.ones(TRIAL))
    for device in ("meta", "cpu"):
        try:
            with torch.random.fork_rng(devices=[]), torch.device(device):
                module = factory(TRIAL[1], **dict(values))
                if device == "cpu":
                    initialise(module, 0)
                wrong = _wrong_shape(module)
                if device == "cpu" and not wrong and not factory.__module__.startswith("resx."):
                    wrong = _wrong_in_training(lambda channels: factory(channels, **dict(values)))
        except SpecError as error:
            return tuple(error.errors)
        except (Exception, SystemExit) as error:  # a user's module may fail in any way; its name and why are needed
            where = " on the meta device, which counts networks" if device == "meta" else ""
            return (f"shortcut '{name}': fails for x and F(x) of {given}{where} ({with_kind(error)})",)
        if wrong:
            return (f"shortcut '{name}': {wrong}",)
    return ()


def _wrong_shape(module: Any) -> str | None:
    """Say which shape a shortcut returns that does not fit its place in a block, or return None."""
    x = fx = torch.ones(TRIAL)
    given, rule = f"x and F(x) of {_shown(fx)}", "it must return the same shape"
    if hasattr(module, "read"):
        x = fx.unsqueeze(1).repeat(1, getattr(module, "streams", 1), 1, 1, 1)
        given, rule = f"x of {_shown(x)}", "it must return as many streams or more"
        if _shown(module.read(x)) != _shown(fx):
            return f"reads {_shown(module.read(x))} of {given}; it must read {_shown(fx)}"
    result = module(x, fx)
    expected = x
    if x is not fx and isinstance(result, Tensor) and result.dim() == x.dim():
        expected = x[:, :1].repeat(1, max(x.shape[1], result.shape[1]), 1, 1, 1)
    return None if _shown(result) == _shown(expected) else f"returns {_shown(result)} for {given}; {rule}"


def _wrong_in_training(make: Callable[[int], nn.Module]) -> str | None:
    """Say what a user's shortcut does that training or a measurement cannot use, or return None.

    It is tried on other sizes, in channels_last, with gradients, in eval mode, in bfloat16 and in float64. Raises
    whatever it raises.
    """
    for batch, channels, height, width in ((3, 8, 5, 3), (2, 4, 2, 2), TRIAL):
        module = make(channels).train()
        initialise(module, 0)
        fx = torch.rand(batch, channels, height, width).contiguous(memory_format=torch.channels_last)
        x = fx.unsqueeze(1).repeat(1, getattr(module, "streams", 1), 1, 1, 1) if hasattr(module, "read") else fx + 1
        for place, (_, part) in enumerate(module.named_modules()):
            if hasattr(part, "draw"):
                part.noise = part.draw(torch.Generator().manual_seed(place), batch)
        before, states = (x.clone(), fx.clone()), _random_states()
        with torch.no_grad():
            result = module(x, fx)
        if _random_states() != states:
            return "draws random numbers in forward, so no run could be repeated; let it `draw` them as its `noise`"
        if not all(map(torch.equal, (x, fx), before)):
            return "changes x or F(x) in place; return a new tensor"
        if not isinstance(result, Tensor) or (x.dim() == fx.dim() and result.shape != fx.shape):
            return f"returns {_shown(result)} for x and F(x) of {_shown(fx)}; it must return the same shape"
        leaves = [x.requires_grad_(), fx.requires_grad_()]
        module(leaves[0] * 1, leaves[1] * 1).square().sum().backward()
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            module(x, fx)
        with torch.no_grad():
            module.eval()(x, fx)
            module.double()(x.double(), fx.double())
    return None


def _random_states() -> tuple[object, ...]:
    """Return the states of the generators that a module might draw from: torch's, Python's and numpy's."""
    _, keys, place, *_ = numpy.random.get_state()
    return torch.get_rng_state().numpy().tobytes(), random.getstate(), numpy.asarray(keys).tobytes(), place


def _shown(value: object) -> str:
    return "×".join(map(str, value.shape)) if isinstance(value, Tensor) else f"a {type(value).__name__}"


def complete(spec: ModelSpec) -> ModelSpec:
    """Return the spec with every default filled in and every field that does not apply null.

    Networks that are the same then have equal specs. Completing twice changes nothing. Raises SpecError.
    """
    errors = check_names({key: getattr(spec, key) for key in ModelSpec.model_fields})
    if errors:
        raise SpecError(errors)
    return _completed(spec, registry_state())


@cache  # a grid asks for few networks, each for many seeds; a name may be registered anew
def _completed(spec: ModelSpec, registrations: int) -> ModelSpec:
    update: dict[str, Any] = {"shortcut": complete_part(SHORTCUTS, spec.shortcut, spec.norm or "batch")}
    update |= {key: None for key, default in UNNAMED.items() if getattr(spec, key) == default}
    with torch.device("meta"):  # the adapters of all shapes are tried; none needs memory
        return FAMILIES[spec.family].complete(spec.model_copy(update=update))


def _init_mistakes(spec: ModelSpec) -> list[str]:
    if spec.init is None:
        return []
    if errors := INITS.check(spec.init):
        return errors
    activation = getattr(INITS[spec.init], "activation", None)
    if activation in (None, spec.activation or UNNAMED["activation"]):
        return []
    return [f"init: {spec.init} is made for activation {activation}; add it, or use another"]


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
    if spec.init:
        with torch.no_grad():
            INITS[spec.init](module)
    return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
