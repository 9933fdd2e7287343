"""What the shared options say: `training_options` adds them to a command and hands it a `Given`, so that a flag, a TOML
file and a Python call accept the same fields.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any

import typer

from resx.cli.options import FIELD_OPTIONS, MACHINE_OPTIONS, SEED_OPTIONS
from resx.spec import MAX_RUNS, PRESET_SUMMARIES, PRESETS, SpecError

if TYPE_CHECKING:
    from resx.training.machine import Machine


@dataclass(frozen=True)
class Given:
    """What the shared options say: fields with one value, fields with several, seeds, and settings of the machine.

    track: in which tool runs are shown while they train.
    """

    fields: Mapping[str, Any]
    settings: Mapping[str, Any]
    grid: Mapping[str, Sequence[Any]]
    seeds: Sequence[int] | None
    track: str | None = None

    def machine(self) -> Machine:
        """Return where and how to train. Raises SpecError for an absent device."""
        from resx.training.machine import make_machine

        return make_machine(**self.settings)

    def with_preset(self, written: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields that were given, and the machine's preset where they and the file's `written` ones need it.

        They do not where they name one or leave nothing to it. The first line on stderr says which preset was taken,
        why, and how to choose.
        """
        given = {**written, **self.fields}
        if "preset" in given or {key for preset in PRESETS.values() for key in preset} <= given.keys():
            return dict(self.fields)
        from resx.training.machine import default_preset

        preset, why = default_preset(self.machine())
        typer.echo(f"preset {preset} ({why}): {PRESET_SUMMARIES[preset]}. Choose another with --preset.", err=True)
        return {"preset": preset, **self.fields}


def training_options(command: Callable[..., None]) -> Callable[..., None]:
    """Decorate a command whose first parameter is a Given, to give it every shared option.

    Another parameter that is a dataclass becomes an option per field.
    """
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    groups: dict[str, Any] = {item.name: item.annotation for item in own if is_dataclass(item.annotation)}
    options: list[inspect.Parameter] = []
    for item in own:
        is_group = item.name in groups
        options += inspect.signature(item.annotation, eval_str=True).parameters.values() if is_group else [item]
    shared = {**FIELD_OPTIONS, **SEED_OPTIONS, **MACHINE_OPTIONS}
    keyword = inspect.Parameter.KEYWORD_ONLY
    options = [option.replace(kind=keyword) for option in options]
    options += [inspect.Parameter(name, keyword, default=None, annotation=kind) for name, kind in shared.items()]

    def wrapper(**values: Any) -> None:
        given = _given({name: values.pop(name) for name in shared})
        grouped = {
            name: kind(**{item.name: values.pop(item.name) for item in fields(kind)}) for name, kind in groups.items()
        }
        command(given, **values, **grouped)

    wrapper.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {option.name: option.annotation for option in options}
    wrapper.__doc__, wrapper.__name__ = command.__doc__, command.__name__
    return wrapper


def _given(options: Mapping[str, Any]) -> Given:
    """Sort what the shared options say. Raises SpecError for what cannot be read."""
    options = {name: value for name, value in options.items() if value is not None}
    fields = {name: value for name, value in options.items() if name in FIELD_OPTIONS}
    settings = {name: value for name, value in options.items() if name in MACHINE_OPTIONS}
    track = settings.pop("track", None)
    if "plugin" in settings:
        settings["plugin"] = tuple(settings["plugin"])
    if "drops" in fields:
        fields["drops"] = _fractions(fields["drops"])
    if "depth" in fields:
        fields["depth"] = parse_list(fields["depth"], "depth")
    lists: dict[str, list[Any]] = {
        name: list(dict.fromkeys(fields[name])) for name in ("depth", "shortcut") if name in fields
    }
    fields |= {name: values[0] for name, values in lists.items()}
    grid = {name: values for name, values in lists.items() if len(values) > 1}
    fields = {name: value for name, value in fields.items() if name not in grid}
    return Given(fields, settings, grid, seeds_of(options.get("seed"), options.get("seeds")), track)


def seeds_of(seed: str | None, seeds: str | None) -> list[int] | None:
    """Return the seeds that --seed (a list) or --seeds (3 for 0, 1, 2, or a list) asks for. Raises SpecError for both,
    typer.BadParameter for what is no such text.
    """
    if seed is not None and seeds is not None:
        raise SpecError("--seed, --seeds: give one of them")
    if seeds is None:
        return None if seed is None else parse_list(seed, "seed")
    values = parse_list(seeds, "seeds")
    if "," in seeds:
        return values
    if not 1 <= values[0] <= MAX_RUNS:
        raise typer.BadParameter(f"--seeds: at least one, at most {MAX_RUNS:,}, not {seeds}")
    return list(range(values[0]))


def _fractions(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(item) for item in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(f"--drops: write shares of the steps with commas between, not '{text}'") from error


def parse_list(text: str, name: str) -> list[int]:
    """Read `20,56` as integers. Raises typer.BadParameter naming the option."""
    try:
        values = [int(item) for item in text.split(",")]
    except ValueError as error:
        raise typer.BadParameter(f"--{name}: write whole numbers with commas between, not '{text}'") from error
    return list(dict.fromkeys(values))
