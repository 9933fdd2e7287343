"""The options that every command which trains shares, kept in one table: each is one field of the spec.

`training_options` adds them to a command's signature and hands the command what was given, so that a flag, a TOML file
and a Python call accept the same fields.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from resx.spec import PRESET_SUMMARIES

if TYPE_CHECKING:
    from resx.training.machine import Machine

NETWORK, DATA, RECIPE, MACHINE = "Network", "Data", "Recipe", "Where and how"


def _option(kind: Any, panel: str, text: str, *names: str) -> Any:
    return Annotated[kind | None, typer.Option(*names, rich_help_panel=panel, help=text, show_default=False)]


_presets = "; ".join(f"[bold]{name}[/bold]: {text}" for name, text in PRESET_SUMMARIES.items())
# flat field of the spec -> its option
FIELD_OPTIONS: dict[str, Any] = {
    "preset": _option(str, RECIPE, f"What the other options start from. {_presets}."),
    "family": _option(str, NETWORK, "Kind of network: cifar, imagenet, …"),
    "depth": _option(int, NETWORK, "Weighted layers; 6n+2 in the CIFAR family."),
    "width": _option(int, NETWORK, "Channels of the first stage."),
    "shortcut": _option(str, NETWORK, "What runs beside a branch: none (plain), identity, scaled:alpha=0.5, …"),
    "adapter": _option(
        str, NETWORK, "How shapes are made to match: A, B, C or spatial+grow+shrink, such as subsample+pad."
    ),
    "order": _option(str, NETWORK, "post (He et al. 2016a) or pre (pre-activation, 2016b)."),
    "norm": _option(str, NETWORK, "batch or none."),
    "widths": _option(str, NETWORK, "alternating: widths change at every block, so every shortcut has to adapt."),
    "stride_in": _option(str, NETWORK, "1x1 or 3x3: which convolution of a bottleneck has the stride."),
    "padding": _option(str, NETWORK, "What lies beyond the edge of a map: zeros or circular."),
    "activation": _option(str, NETWORK, "relu, or crelu: [relu(x), relu(-x)]."),
    "init": _option(str, NETWORK, "Initial weights: he, looks-linear (for crelu) or dirac."),
    "dataset": _option(str, DATA, "digits, cifar10, cifar100, folder, synthetic, …; `resx data` lists them."),
    "subset": _option(int, DATA, "Train on this many images, class-balanced, the same for every seed."),
    "test_subset": _option(int, DATA, "Test on this many images."),
    "validation": _option(int, DATA, "Hold this many training images out (the paper: 5000)."),
    "image_size": _option(int, DATA, "Average images down to this size."),
    "normalize": _option(str, DATA, "pixel-mean (the paper's, and divided by one deviation), channel-mean, symmetric."),
    "augment": _option(str, DATA, "crop-flip: padded random crops and flips (the paper's)."),
    "label": _option(str, DATA, "Name of a folder's data on tables and figures."),
    "reference": _option(str, DATA, "Published data set that a folder holds, such as cifar10: shows its numbers."),
    "steps": _option(int, RECIPE, "Training iterations; the learning rate drops at half and three quarters."),
    "batch_size": _option(int, RECIPE, "Images a step."),
    "lr": _option(float, RECIPE, "Initial learning rate."),
    "weight_decay": _option(float, RECIPE, "L2 decay of every weight."),
    "warmup": _option(
        bool,
        RECIPE,
        "A tenth of the rate until the running error is below 80 % (the paper's 110 layers).",
        "--warmup/--no-warmup",
    ),
    "momentum": _option(float, RECIPE, "Momentum of SGD."),
    "drops": _option(str, RECIPE, "Where the rate is divided by 10, as shares of the steps, such as 0.5,0.75."),
    "eval_images": _option(int, RECIPE, "Images of each split behind a point of a curve; the last point takes all."),
    "eval_every": _option(int, RECIPE, "Steps between two points of a curve."),
    "precision": _option(str, RECIPE, "fp32, tf32 or bf16."),
    "active_blocks": _option(int, RECIPE, "Train only this many blocks, drawn anew at every step."),
}
MACHINE_OPTIONS: dict[str, Any] = {
    "device": _option(str, MACHINE, "cpu, cuda or cuda:N; by default cuda where there is one."),
    "jobs": _option(
        int,
        MACHINE,
        "Runs at a time: on a CPU one thread each, by default one per core; on a GPU side by side, by default 10.",
    ),
    "results": _option(Path, MACHINE, "Folder of everything recorded; by default RESX_RESULTS or results/."),
    "data_dir": _option(Path, MACHINE, "Where the data set lies, or is downloaded to."),
    "plugin": _option(
        list[Path],
        MACHINE,
        "A Python file of yours that registers a shortcut or an adapter; its code is executed. Repeat for several.",
    ),
    "checkpoint_activations": _option(
        bool,
        MACHINE,
        "Compute activations again instead of keeping them: less memory, the same numbers, slower.",
        "--checkpoint-activations",
    ),
    "snapshots": _option(
        str, MACHINE, "Weights that are kept on the way: none, ends (first and last) or log (about 8, the default)."
    ),
    "allow_change": _option(bool, MACHINE, "Go on with a run on another device or torch; recorded.", "--allow-change"),
}
Results = Annotated[
    Path | None, typer.Option(help="Folder of everything recorded; by default RESX_RESULTS or results/.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]


class Format(StrEnum):
    """In what tables are written, other than for a terminal."""

    markdown = "markdown"
    latex = "latex"


TableFormat = Annotated[
    Format | None,
    typer.Option("--format", help="Print the tables alone, for a page or a paper.", show_default=False),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say how many runs, how long and how much disk; train nothing.")
]


@dataclass(frozen=True)
class Given:
    """What the shared options say: the fields that were given, and settings of the machine."""

    fields: Mapping[str, Any]
    settings: Mapping[str, Any]

    def machine(self) -> Machine:
        """Return where and how to train. Raises SpecError for an absent device."""
        from resx.training.machine import make_machine

        return make_machine(**self.settings)

    def with_preset(self, written: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields that were given, and a preset where neither they nor the file's `written` ones name it.

        Without a preset the machine decides, and the first line on stderr says which, why, and how to choose.
        """
        if "preset" in written or "preset" in self.fields:
            return dict(self.fields)
        return {"preset": self._choose_preset(), **self.fields}

    def _choose_preset(self) -> str:
        from resx.training.machine import default_preset

        preset, why = default_preset(self.machine())
        typer.echo(f"preset {preset} ({why}): {PRESET_SUMMARIES[preset]}. Choose another with --preset.", err=True)
        return preset


def training_options(*omit: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate a command whose first parameter is a Given, to give it every shared option but those in `omit`."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        fields = {name: option for name, option in FIELD_OPTIONS.items() if name not in omit}
        machine = {name: option for name, option in MACHINE_OPTIONS.items() if name not in omit}
        own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]

        def wrapper(**values: Any) -> None:
            options = {name: values.pop(name) for name in [*fields, *machine]}
            options = {name: value for name, value in options.items() if value is not None}
            if "plugin" in options:
                options["plugin"] = tuple(options["plugin"])
            if "drops" in options:
                options["drops"] = _fractions(options["drops"])
            given = Given(
                {name: value for name, value in options.items() if name in fields},
                {name: value for name, value in options.items() if name in machine},
            )
            command(given, **values)

        shared = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=option)
            for name, option in {**fields, **machine}.items()
        ]
        own = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
        wrapper.__signature__ = inspect.Signature([*own, *shared])  # type: ignore[attr-defined]
        wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in [*own, *shared]}
        wrapper.__doc__, wrapper.__name__ = command.__doc__, command.__name__
        return wrapper

    return decorate


def _fractions(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(item) for item in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(f"--drops: write shares of the steps with commas between, not '{text}'") from error


def flowing(docstring: str | None) -> str:
    """Join the lines of each paragraph, so that a terminal of any width can wrap them."""
    paragraphs = inspect.cleandoc(docstring or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split("\n")) for paragraph in paragraphs)


def parse_list(text: str, name: str) -> list[int]:
    """Read `20,56` as integers. Raises typer.BadParameter naming the option."""
    try:
        values = [int(item) for item in text.split(",")]
    except ValueError as error:
        raise typer.BadParameter(f"--{name}: write whole numbers with commas between, not '{text}'") from error
    return list(dict.fromkeys(values))


def parse_seeds(text: str) -> list[int]:
    """Read `3` as the seeds 0, 1, 2 and `4,7` as those two. Raises typer.BadParameter."""
    values = parse_list(text, "seeds")
    if "," in text:
        return values
    if values[0] < 1:
        raise typer.BadParameter(f"--seeds: at least one, not {text}")
    return list(range(values[0]))
