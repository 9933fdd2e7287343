"""The options that commands share; each that describes a network, its data or its recipe is one field of the spec."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from resx.cli import complete
from resx.spec import FIELDS, PRESET_SUMMARIES, RunSpec, defaults

NETWORK, DATA, RECIPE, MACHINE = "Network", "Data", "Recipe", "Where and how"
PANELS = {"model": NETWORK, "data": DATA, "train": RECIPE}


def _option(kind: Any, panel: str, text: str, *names: str, **more: Any) -> Any:
    return Annotated[kind | None, typer.Option(*names, rich_help_panel=panel, help=text, **more)]


_presets = "; ".join(f"[bold]{name}[/bold]: {text}" for name, text in PRESET_SUMMARIES.items())


def written(value: Any) -> str:
    """Return a value as it is written on a command line."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _fields(**texts: str) -> dict[str, Any]:
    """Return the options of fields, given the help of each, to which their defaults are added.

    A field's section in the spec is its panel, and a number or a truth value is read as such, anything else as text.
    """
    options = {}
    for name, text in texts.items():
        section, values = FIELDS[name], defaults(name)
        annotation = RunSpec.model_fields[section].annotation.model_fields[name].annotation  # type: ignore[union-attr]
        kind = next((kind for kind in (bool, int, float) if annotation in (kind, kind | None)), str)
        shown = {preset: written(value) for preset, value in values.items() if value not in (None, False)}
        by_preset = "; ".join(f"{preset} {value}" for preset, value in shown.items())
        default = by_preset if len(set(values.values())) > 1 else next(iter(shown.values()), "")
        text = f"{text} [dim]default: {default}[/dim]" if default else text
        names = [f"--{name}/--no-{name}"] if kind is bool else []
        more = {"autocompletion": complete.datasets} if name == "dataset" else {}
        options[name] = _option(kind, PANELS[section], text, *names, **more)
    return options


# flat field of the spec -> its option
FIELD_OPTIONS: dict[str, Any] = {
    "preset": _option(str, RECIPE, f"What the other options start from. {_presets}.", autocompletion=complete.presets),
    **_fields(family="Kind of network: cifar, imagenet, …"),
    "depth": _option(
        str,
        NETWORK,
        "Weighted layers; 6n+2 in the CIFAR family. Several with commas between, where networks are compared. "
        "[dim]default: 20, or the probe's[/dim]",
        "--depth",
        "--depths",
        metavar="N|LIST",
    ),
    **_fields(width="Channels of the first stage."),
    "shortcut": _option(
        list[str],
        NETWORK,
        "The shortcut around a branch: none (plain), identity, scaled:alpha=0.5, …; repeat to compare several. "
        "[dim]default: identity, or the probe's[/dim]",
        metavar="NAME",
        autocompletion=complete.shortcuts,
    ),
    **_fields(
        adapter="How a shortcut changes shapes: A, B, C or spatial+grow+shrink, such as subsample+pad.",
        order="post (He et al. 2016a) or pre (pre-activation, 2016b).",
        norm="batch or none.",
        widths="alternating: widths change at every block, so every shortcut has to adapt.",
        stride_in="1x1 or 3x3: which convolution of a bottleneck has the stride.",
        padding="Padding of convolutions: zeros or circular.",
        activation="relu, or crelu: relu(x) and relu(-x) as channels of their own.",
        init="Initial weights: he, looks-linear (for crelu) or dirac.",
        dataset="digits, cifar10, cifar100, folder, synthetic, …; `resx data` lists them.",
        subset="Train on this many images, class-balanced, the same for every seed.",
        test_subset="Test on this many images.",
        validation="Hold out this many training images (the paper: 5000).",
        image_size="Shrink images to this size by averaging.",
        normalize="pixel-mean (the paper's, and divided by one deviation), channel-mean, symmetric.",
        augment="crop-flip: padded random crops and flips (the paper's).",
        label="Name of a folder's data on tables and figures.",
        reference="Published data set that a folder holds, such as cifar10: shows its numbers.",
        steps="Training iterations; the learning rate drops at half and three quarters.",
    ),
    "epochs": _option(
        float, RECIPE, "Passes over the training images, instead of --steps; the number of steps is printed."
    ),
    **_fields(
        batch_size="Images per step.",
        lr="Initial learning rate.",
        weight_decay="L2 decay of every weight.",
        warmup="Train at a tenth of the rate until the running error is below 80 % (the paper's, for 110 layers).",
        momentum="Momentum of SGD.",
        drops="Where the rate is divided by 10, as shares of the steps, such as 0.5,0.75.",
        eval_images="Images of each split that a point of a curve is evaluated on; the last point takes all.",
        eval_every="Steps between two points of a curve.",
        precision="fp32, tf32 or bf16.",
        active_blocks="Train only this many blocks, drawn at random at every step.",
        norm_parts="Parts of a batch that batch normalisation treats separately: by default one per process with "
        "torchrun; 1 for the whole batch.",
    ),
}
MACHINE_OPTIONS: dict[str, Any] = {
    "device": _option(str, MACHINE, "cpu, cuda or cuda:N; by default cuda where there is one."),
    "jobs": _option(
        int,
        MACHINE,
        "Runs at once: on a CPU one thread each, by default one per core; on a GPU side by side, by default 10.",
    ),
    "results": _option(Path, MACHINE, "Folder of everything recorded; by default RESX_RESULTS or results/."),
    "data_dir": _option(Path, MACHINE, "Where the data set is, or is downloaded to."),
    "plugin": _option(
        list[Path],
        MACHINE,
        "A Python file of yours that registers a shortcut or an adapter; its code is executed. Repeat for several.",
        metavar="FILE",
    ),
    "engine": _option(str, MACHINE, "Where to train: local (this machine, the default), ray or slurm (a queue)."),
    "address": _option(str, MACHINE, "A running Ray cluster, such as auto; by default Ray is started here."),
    "gpus_per_task": _option(float, MACHINE, "Share of a GPU that a task of Ray gets, such as 0.1; by default 1."),
    "detach": _option(
        bool,
        MACHINE,
        "Submit the jobs of --engine slurm and return; the same command without it waits and collects the results.",
        "--detach",
    ),
    "slurm": _option(str, MACHINE, "What jobs request, such as partition=gpu,time=02:00:00,max_parallel=20."),
    "checkpoint_activations": _option(
        bool,
        MACHINE,
        "Recompute activations instead of keeping them: less memory, the same numbers, slower.",
        "--checkpoint-activations",
    ),
    "snapshots": _option(
        str, MACHINE, "Weights kept during training: none, ends (first and last) or log (about 8, the default)."
    ),
    "wait": _option(
        bool,
        MACHINE,
        "Wait for runs that another process is training (the default), or do the rest and leave those to it.",
        "--wait/--no-wait",
    ),
    "track": _option(
        str,
        MACHINE,
        "Show runs in another tool while they train, such as mlflow:mlflow.db; tools are those of `runs export`.",
        metavar="TOOL:TARGET",
    ),
    "allow_change": _option(
        bool, MACHINE, "Resume on another device or torch; the change is recorded.", "--allow-change"
    ),
}
Seed = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=RECIPE, help="This seed, or these: a seed fixes every random stream of a run.", metavar="N|LIST"
    ),
]
Seeds = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=RECIPE,
        help="How many seeds: 6 is 0 to 5. A list is taken as --seed takes it.",
        metavar="N|LIST",
    ),
]
SEED_OPTIONS: dict[str, Any] = {"seed": Seed, "seeds": Seeds}
Results = Annotated[
    Path | None, typer.Option(help="Folder of everything recorded; by default RESX_RESULTS or results/.")
]
Where = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FIELD=VALUE", help="Only runs with this value of a field, such as depth=56; repeat for several."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]


class Format(StrEnum):
    """How tables are written, other than for a terminal."""

    markdown = "markdown"
    latex = "latex"


TableFormat = Annotated[Format | None, typer.Option("--format", help="Print the tables alone, for a page or a paper.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print no progress.")]
ExperimentFile = Annotated[
    Path | None,
    typer.Argument(help="A TOML file with \\[run], \\[grid] and \\[settings].", autocompletion=complete.experiments),
]
PrintSpec = Annotated[
    bool,
    typer.Option("--print-spec", help="Print what would be run as a TOML file that this command takes; train nothing."),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print how many runs, how long and how much disk; train nothing.")
]
