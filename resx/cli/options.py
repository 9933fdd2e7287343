"""The options that commands share; each that describes a network, its data or its recipe is one field of the spec."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from resx.cli import complete
from resx.spec import PRESET_SUMMARIES, defaults

NETWORK, DATA, RECIPE, MACHINE = "Network", "Data", "Recipe", "Where and how"


def _option(kind: Any, panel: str, text: str, *names: str, **more: Any) -> Any:
    return Annotated[kind | None, typer.Option(*names, rich_help_panel=panel, help=text, show_default=False, **more)]


def _field(name: str, kind: Any, panel: str, text: str, *names: str, **more: Any) -> Any:
    """Return the option of a field, whose help says what it is where neither a flag nor a file gives it."""
    values = defaults(name)
    texts = {preset: written(value) for preset, value in values.items() if value not in (None, False)}
    words = [f"{preset} {value}" for preset, value in texts.items()]
    words = words[:1] and [next(iter(texts.values()))] if len(set(values.values())) == 1 else words
    shown = f"{text} [dim]default: {'; '.join(words)}[/dim]" if words else text
    return _option(kind, panel, shown, *names, **more)


_presets = "; ".join(f"[bold]{name}[/bold]: {text}" for name, text in PRESET_SUMMARIES.items())


def written(value: Any) -> str:
    """Return a value as it is written on a command line."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


# flat field of the spec -> its option
FIELD_OPTIONS: dict[str, Any] = {
    "preset": _option(str, RECIPE, f"What the other options start from. {_presets}.", autocompletion=complete.presets),
    "family": _field("family", str, NETWORK, "Kind of network: cifar, imagenet, …"),
    "depth": _option(
        str,
        NETWORK,
        "Weighted layers; 6n+2 in the CIFAR family. Several with commas between, where networks are compared. "
        "[dim]default: 20, or the probe's[/dim]",
        "--depth",
        "--depths",
        metavar="N|LIST",
    ),
    "width": _field("width", int, NETWORK, "Channels of the first stage."),
    "shortcut": _option(
        list[str],
        NETWORK,
        "What stands next to a branch: none (plain), identity, scaled:alpha=0.5, …; repeat where several are compared. "
        "[dim]default: identity, or the probe's[/dim]",
        metavar="NAME",
        autocompletion=complete.shortcuts,
    ),
    "adapter": _field(
        "adapter", str, NETWORK, "How shapes are made to match: A, B, C or spatial+grow+shrink, such as subsample+pad."
    ),
    "order": _field("order", str, NETWORK, "post (He et al. 2016a) or pre (pre-activation, 2016b)."),
    "norm": _field("norm", str, NETWORK, "batch or none."),
    "widths": _field(
        "widths", str, NETWORK, "alternating: widths change at every block, so every shortcut has to adapt."
    ),
    "stride_in": _field("stride_in", str, NETWORK, "1x1 or 3x3: which convolution of a bottleneck has the stride."),
    "padding": _field("padding", str, NETWORK, "What lies beyond the edge of a map: zeros or circular."),
    "activation": _field("activation", str, NETWORK, "relu, or crelu: relu(x) and relu(-x) as channels of their own."),
    "init": _field("init", str, NETWORK, "Initial weights: he, looks-linear (for crelu) or dirac."),
    "dataset": _field(
        "dataset",
        str,
        DATA,
        "digits, cifar10, cifar100, folder, synthetic, …; `resx data` lists them.",
        autocompletion=complete.datasets,
    ),
    "subset": _field("subset", int, DATA, "Train on this many images, class-balanced, the same for every seed."),
    "test_subset": _field("test_subset", int, DATA, "Test on this many images."),
    "validation": _field("validation", int, DATA, "Hold this many training images out (the paper: 5000)."),
    "image_size": _field("image_size", int, DATA, "Average images down to this size."),
    "normalize": _field(
        "normalize", str, DATA, "pixel-mean (the paper's, and divided by one deviation), channel-mean, symmetric."
    ),
    "augment": _field("augment", str, DATA, "crop-flip: padded random crops and flips (the paper's)."),
    "label": _field("label", str, DATA, "Name of a folder's data on tables and figures."),
    "reference": _field(
        "reference", str, DATA, "Published data set that a folder holds, such as cifar10: shows its numbers."
    ),
    "steps": _field("steps", int, RECIPE, "Training iterations; the learning rate drops at half and three quarters."),
    "epochs": _option(
        float, RECIPE, "Passes over the training images, instead of --steps; turned into steps, and said."
    ),
    "batch_size": _field("batch_size", int, RECIPE, "Images a step."),
    "lr": _field("lr", float, RECIPE, "Initial learning rate."),
    "weight_decay": _field("weight_decay", float, RECIPE, "L2 decay of every weight."),
    "warmup": _field(
        "warmup",
        bool,
        RECIPE,
        "A tenth of the rate until the running error is below 80 % (the paper's 110 layers).",
        "--warmup/--no-warmup",
    ),
    "momentum": _field("momentum", float, RECIPE, "Momentum of SGD."),
    "drops": _field("drops", str, RECIPE, "Where the rate is divided by 10, as shares of the steps, such as 0.5,0.75."),
    "eval_images": _field(
        "eval_images", int, RECIPE, "Images of each split behind a point of a curve; the last point takes all."
    ),
    "eval_every": _field("eval_every", int, RECIPE, "Steps between two points of a curve."),
    "precision": _field("precision", str, RECIPE, "fp32, tf32 or bf16."),
    "active_blocks": _field("active_blocks", int, RECIPE, "Train only this many blocks, drawn anew at every step."),
    "norm_parts": _field(
        "norm_parts",
        int,
        RECIPE,
        "Parts of a batch that batch normalisation takes statistics of: with torchrun one a process by default; 1 for "
        "the whole batch.",
    ),
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
        metavar="FILE",
    ),
    "engine": _option(str, MACHINE, "Where runs are made: local (this machine, the default), ray or slurm (a queue)."),
    "address": _option(str, MACHINE, "A Ray cluster that runs, such as auto; without it Ray is started here."),
    "gpus_per_task": _option(float, MACHINE, "Share of a GPU that Ray gives a task, such as 0.1; by default 1."),
    "detach": _option(
        bool,
        MACHINE,
        "Submit the jobs of --engine slurm and do not wait; the same command without it does, and collects.",
        "--detach",
    ),
    "slurm": _option(str, MACHINE, "What jobs ask a queue for, such as partition=gpu,time=02:00:00,max_parallel=20."),
    "checkpoint_activations": _option(
        bool,
        MACHINE,
        "Compute activations again instead of keeping them: less memory, the same numbers, slower.",
        "--checkpoint-activations",
    ),
    "snapshots": _option(
        str, MACHINE, "Weights that are kept on the way: none, ends (first and last) or log (about 8, the default)."
    ),
    "wait": _option(
        bool,
        MACHINE,
        "Wait for runs that another process is at (the default), or do the rest and leave those to it.",
        "--wait/--no-wait",
    ),
    "track": _option(
        str,
        MACHINE,
        "Show runs in another tool while they train, such as mlflow:mlflow.db; tools are those of `runs export`.",
        metavar="TOOL:TARGET",
    ),
    "allow_change": _option(bool, MACHINE, "Go on with a run on another device or torch; recorded.", "--allow-change"),
}
Seed = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=RECIPE,
        help="This seed, or these: a seed names every random stream of a run.",
        metavar="N|LIST",
        show_default=False,
    ),
]
Seeds = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=RECIPE,
        help="How many seeds: 6 is 0 to 5. A list is taken as --seed takes it.",
        metavar="N|LIST",
        show_default=False,
    ),
]
SEED_OPTIONS: dict[str, Any] = {"seed": Seed, "seeds": Seeds}
Results = Annotated[
    Path | None, typer.Option(help="Folder of everything recorded; by default RESX_RESULTS or results/.")
]
Where = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FIELD=VALUE",
        help="Only runs with this value of a field, such as depth=56; repeat for several.",
        show_default=False,
    ),
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
ExperimentFile = Annotated[
    Path | None,
    typer.Argument(
        help="A TOML file with \\[run], \\[grid] and \\[settings].",
        show_default=False,
        autocompletion=complete.experiments,
    ),
]
PrintSpec = Annotated[
    bool,
    typer.Option(
        "--print-spec", help="Print what would be run as TOML, a file that this command takes; train nothing."
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say how many runs, how long and how much disk; train nothing.")
]
