"""What a run IS: frozen specifications, presets, the run's identity, experiments written down as TOML.

A `RunSpec` holds everything that can change a number and nothing else (device, jobs, paths and verbosity are not
in it), so its hash names the run. Every field also has one flat name (`depth`, `lr`, `seed`, …) under which a
command-line flag, a TOML file and a Python call all set it. Names of shortcuts, adapters and data sets are only
strings here: `resx.model` and `resx.data` know them and add what they find wrong to the same list of errors.

Recipes: He et al. 2016, section 4.2 (`paper`); the others are this project's own, for small machines.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

# more than this is a slip of the hand, or fails hours later; the deepest network of the papers has 1,202 layers
MAX_DEPTH, MAX_WIDTH, MAX_SIDE, MAX_BATCH = 20_000, 65_536, 4096, 2**20
MAX_STEPS, MAX_EVALUATIONS, MAX_COUNT, MAX_SEED = 10**8, 100_000, 10**9, 2**63 - 1
MAX_RUNS = 100_000  # of one command
ADOPTED = "adopted"  # in place of a family: a network whose blocks are found when it is measured
FORMAT = 1  # part of every run id; raise it when the same spec would give other numbers


class SpecError(ValueError):
    """Input that cannot be run. `errors` holds one line per mistake, all of them at once."""

    def __init__(self, errors: str | Iterable[str]) -> None:
        self.errors = [errors] if isinstance(errors, str) else list(errors)
        super().__init__("\n".join(self.errors))


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ` (did you mean 'x'?)` for a near miss of a known name, or an empty string."""
    near = get_close_matches(str(name), list(known), n=1, cutoff=0.5)
    return f" (did you mean '{near[0]}'?)" if near else ""


def parse_part(text: str) -> tuple[str, dict[str, str]]:
    """Split `name:key=value,key=value` into the name and its arguments, still as strings.

    Raises SpecError where an argument has no `=` or is given twice.
    """
    name, colon, rest = text.partition(":")
    arguments: dict[str, str] = {}
    for item in rest.split(",") if colon else ():
        key, equals, value = (part.strip() for part in item.partition("="))
        if not equals or not key or not value:
            raise SpecError(f"'{text}': write arguments as name:key=value,key=value, not '{item}'")
        if key in arguments:
            raise SpecError(f"'{text}': {key} is given twice")
        arguments[key] = value
    return name.strip(), arguments


def slug(text: str) -> str:
    """Return the text as part of a file's name: lower case, letters, digits, dots and hyphens, at most 60."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.")[:60]


CAN_BE_NONE = ("augment", "eval_images", "image_size", "normalize", "subset")  # empty by the word 'none'
MAX_TEXT = 1000  # characters of a field
# control characters, and those that change the direction of what follows: they would reach a terminal or a figure
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """Return a text with `?` for what must not reach a terminal or a figure: control characters and half surrogates."""
    return _UNPRINTABLE.sub("?", text)


Real = Annotated[float, AfterValidator(lambda value: value + 0.0)]  # not -0.0, which is another text


def without(values: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """Return a mapping without some of its keys."""
    return {key: value for key, value in values.items() if key not in keys}


def first_line(error: BaseException) -> str:
    """Return the first line of what an exception says, or its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def with_kind(error: BaseException) -> str:
    """Return an exception as one line: its kind, and the first line of what it says."""
    said, _, _ = str(error).strip().partition("\n")
    return f"{type(error).__name__}: {said}"


class Frozen(BaseModel):
    """A specification: immutable, and a key it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, str_max_length=MAX_TEXT)


class AdapterSpec(Frozen):
    """How a shortcut gets from one shape to another (section 3.3, options A, B, C).

    spatial, grow, shrink: names of parts in model/adapters.py, for the map size and for growing and shrinking
    channel counts; null where the network has no such place. where: at mismatches only, or on every block (C).
    """

    spatial: str | None = "subsample"
    grow: str | None = "pad"
    shrink: str | None = "chop"
    where: Literal["mismatch", "all"] = "mismatch"

    def __str__(self) -> str:
        parts = "+".join(part or "-" for part in (self.spatial, self.grow, self.shrink))
        return parts.removesuffix("+-") + ("@all" if self.where == "all" else "")


ADAPTER_OPTIONS = {
    "A": {"spatial": "subsample", "grow": "pad", "shrink": "chop"},
    "B": {"spatial": "subsample", "grow": "project", "shrink": "project"},
    "C": {"spatial": "subsample", "grow": "project", "shrink": "project", "where": "all"},
}


def _parse_adapter(value: Any) -> Any:
    """Read the paper's letter or `spatial+grow[+shrink][@all]`, as a flag or a TOML file writes it."""
    if not isinstance(value, str):
        return value
    if value.upper() in ADAPTER_OPTIONS:
        return ADAPTER_OPTIONS[value.upper()]
    parts, _, where = value.partition("@")
    names = parts.split("+")
    if len(names) not in (2, 3) or not all(names):
        raise ValueError(f"'{value}' is neither A, B, C nor spatial+grow[+shrink], such as subsample+pad")
    keys = ("spatial", "grow", "shrink")
    named = {key: None if name == "-" else name for key, name in zip(keys, names, strict=False)}
    return {**named, **({"where": where} if where else {})}


class ModelSpec(Frozen):
    """A network: its family, its size, and the shortcuts around its branches. The default is the paper's CIFAR ResNet.

    A field that does not apply to the family is null, so that one network has one run id; so is a padding of zeros, an
    activation relu and an init he. padding: what 3×3 kernels see beyond the map's edge. activation: crelu is
    [relu(x), relu(−x)]. init: a name in model/init.py.
    """

    family: str = "cifar"
    depth: int = Field(20, ge=1, le=MAX_DEPTH)
    width: int | None = Field(16, ge=1, le=MAX_WIDTH)
    shortcut: str = "identity"
    adapter: Annotated[AdapterSpec | None, BeforeValidator(_parse_adapter)] = None
    order: Literal["post", "pre"] | None = "post"
    norm: Literal["batch", "none"] | None = "batch"
    widths: Literal["alternating"] | None = None
    stride_in: Literal["1x1", "3x3"] | None = None
    padding: Literal["zeros", "circular"] | None = None
    activation: Literal["relu", "crelu"] | None = None
    init: str | None = None


class DataSpec(Frozen):
    """The images (or sequences, or vectors), how many of them, and how they are prepared.

    subset, test_subset: class-balanced, the same for every seed; null for all. validation: training images held
    out. normalize: pixel-mean subtracts the mean of every pixel (the paper) and also divides by one standard deviation,
    that of all pixels; channel-mean subtracts and divides by the mean and deviation of each channel; symmetric brings
    to -1..1; imagenet, cifar10 and cifar100 are constants of the channels that published weights expect. content: hash
    of a folder's files (its path is no part of a run). label: the name on tables and figures. reference: the data set
    whose published numbers these results may be compared with.
    """

    dataset: str = "digits"
    label: str | None = None
    reference: Literal["cifar10", "cifar100"] | None = None
    content: str | None = None
    subset: int | None = Field(None, ge=1, le=MAX_COUNT)
    test_subset: int | None = Field(None, ge=1, le=MAX_COUNT)
    validation: int | None = Field(None, ge=1, le=MAX_COUNT)
    image_size: int | None = Field(None, ge=4, le=MAX_SIDE)
    normalize: Literal["pixel-mean", "channel-mean", "symmetric", "imagenet", "cifar10", "cifar100"] | None = (
        "pixel-mean"
    )
    augment: Literal["crop-flip"] | None = None


class TrainSpec(Frozen):
    """The recipe, counted in iterations (section 4.2): SGD with momentum, the rate divided by 10 at each drop.

    drops: fractions of `steps`. warmup: a tenth of the rate until the running training error is below 80 %, the
    paper's rule for 110 layers. eval_images: images of each split behind the points of a curve (null for all;
    the final evaluation always takes all). active_blocks: blocks, drawn anew each step, that train at all.
    norm_parts: parts of a batch that are each normalised by their own statistics, one a process; null for the whole
    batch. steps 0 is for weights that were trained elsewhere by a recipe that these fields cannot say.
    """

    steps: int = Field(276, ge=0, le=MAX_STEPS)
    batch_size: int = Field(64, ge=1, le=MAX_BATCH)
    lr: float = Field(0.02, gt=0)
    drops: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field((0.5, 0.75), max_length=100)
    momentum: Real = Field(0.9, ge=0, lt=1)
    weight_decay: Real = Field(1e-4, ge=0)
    warmup: bool = False
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    eval_every: int = Field(23, ge=1, le=MAX_STEPS)
    eval_images: int | None = Field(300, ge=1, le=MAX_COUNT)
    active_blocks: int | None = Field(None, ge=1, le=MAX_DEPTH)
    norm_parts: int | None = Field(None, ge=1, le=MAX_BATCH)


class InitFrom(Frozen):
    """Initial weights that come from another run: its id, and the named transformation that is applied to them."""

    run: str
    transform: str


class Foreign(Frozen):
    """Weights that were trained elsewhere: the run is recorded and measured, and never trained.

    network: where the network comes from, such as akamaster/resnet56, or FILE:FUNCTION of a user's file (its name
    alone). weights: hash of the tensors' content (store/weights.py). code: hash of a user's file. blocks: the names or
    patterns that the user gave, with commas between. layers: how many of its tensors are weights of two or more
    dimensions, where no layout knows its depth.
    """

    network: str
    weights: str
    code: str | None = None
    blocks: str | None = None
    layers: int | None = Field(None, ge=1)

    def __str__(self) -> str:
        return self.network


class RunSpec(Frozen):
    """Everything that can change a run's numbers. `plugin` is the hash of a user file's source.

    With `foreign`, `train` is what is known of the recipe by which others trained the weights.
    """

    model: ModelSpec = ModelSpec()
    data: DataSpec = DataSpec()
    train: TrainSpec = TrainSpec()
    seed: int = Field(0, ge=0, le=MAX_SEED)
    init_from: InitFrom | None = None
    plugin: str | None = None
    foreign: Foreign | None = None

    @model_validator(mode="after")
    def _consistent(self) -> RunSpec:
        if list(self.train.drops) != sorted(set(self.train.drops)):
            raise ValueError("drops: must increase")
        if self.train.steps == 0 and self.foreign is None:
            raise ValueError("steps: must be at least 1, not 0")
        if self.train.steps > MAX_EVALUATIONS * self.train.eval_every:
            least = -(-self.train.steps // MAX_EVALUATIONS)
            raise ValueError(f"eval_every: must be at least {least:,} for {self.train.steps:,} steps")
        return self

    def flat(self) -> dict[str, Any]:
        """Return every field under its flat name; the adapter as text."""
        values = {key: getattr(getattr(self, section), key) for key, section in FIELDS.items() if section}
        values |= {key: getattr(self, key) for key, section in FIELDS.items() if not section}
        return values | {"adapter": str(self.model.adapter) if self.model.adapter else None}

    @classmethod
    def from_flat(cls, values: Mapping[str, Any]) -> RunSpec:
        """Return the spec that `flat` gave these values of; a field that is absent is null.

        Raises ValidationError for values that no spec has. Unlike `build_spec` it fills nothing in.
        """
        nested: dict[str, Any] = {section: {} for section in _SECTIONS}
        for key, section in FIELDS.items():
            (nested[section] if section else nested)[key] = values.get(key)
        if adapter := values.get("adapter"):  # `flat` leaves a shrinking part out where there is none
            parts, at, where = str(adapter).partition("@")
            nested["model"]["adapter"] = f"{parts}+-{at}{where}" if parts.count("+") == 1 else adapter
        return cls.model_validate(nested)

    def canonical(self) -> str:
        """Return the canonical JSON behind the run id. Nulls are left out, so a field added later changes no id."""
        content = {"format": FORMAT, **self.model_dump(mode="json", exclude_none=True)}
        return json.dumps(content, sort_keys=True, separators=(",", ":"))

    @property
    def run_id(self) -> str:
        """Name the run: a slug for people and 8 hex digits of the canonical JSON's SHA-256."""
        kind = "plain" if self.model.shortcut == "none" else self.model.shortcut
        kind = "residual" if kind == "identity" else kind
        network = self.foreign.network if self.foreign else f"{kind}-{self.model.depth}"
        words = slug(f"{network}-{self.data.label or self.data.dataset}-s{self.seed}")
        return f"{words}-{hashlib.sha256(self.canonical().encode()).hexdigest()[:8]}"


_SECTIONS: dict[str, type[Frozen]] = {"model": ModelSpec, "data": DataSpec, "train": TrainSpec}
# flat name -> section that holds it ('' for the run itself)
FIELDS: dict[str, str] = {
    **{key: section for section, model in _SECTIONS.items() for key in model.model_fields},
    **{key: "" for key in RunSpec.model_fields if key not in _SECTIONS},
}

PRESETS: dict[str, dict[str, Any]] = {
    "digits": {"dataset": "digits", "normalize": "symmetric"},
    "small": {
        "dataset": "cifar10",
        "image_size": 16,
        "subset": 5000,
        "augment": "crop-flip",
        "steps": 390,
        "batch_size": 128,
        "eval_every": 39,
        "eval_images": 1000,
    },
    "paper": {
        "dataset": "cifar10",
        "augment": "crop-flip",
        "steps": 64_000,
        "batch_size": 128,
        "lr": 0.1,
        "eval_every": 1000,
        "eval_images": 10_000,
    },
}
PRESET_SUMMARIES = {
    "digits": "scikit-learn's 8×8 digits, 276 steps; no download, about a minute on two cores for four networks",
    "small": "CIFAR-10 at 16×16, 5,000 images, 390 steps; minutes on two cores",
    "paper": "the paper's CIFAR-10 recipe, 64,000 steps; for a GPU",
}


def defaults(name: str) -> dict[str, Any]:
    """Return a field's default value, by preset."""
    section = FIELDS[name]
    own = (_SECTIONS[section] if section else RunSpec).model_fields[name].default
    return {preset: fields.get(name, own) for preset, fields in PRESETS.items()}


def build_spec(fields: Mapping[str, Any], checks: Iterable[Callable[[Mapping[str, Any]], list[str]]] = ()) -> RunSpec:
    """Build a RunSpec from flat field names, `preset` among them; fields that are absent keep the preset's values.

    checks: `check_names` of resx.model and resx.data, which add unknown names. Raises SpecError with every mistake.
    """
    given = dict(fields)
    preset = given.pop("preset", None)
    errors = _preset_mistakes(preset)
    for key in [key for key in given if key not in FIELDS]:
        errors.append(f"{printable(str(key))}: no such field{did_you_mean(key, FIELDS)}")
        given.pop(key)
    values = {**({} if errors or preset is None else PRESETS[preset]), **given}
    spec, mistakes = _validated(values)
    if preset == "paper" and spec is not None and "warmup" not in values:  # the paper needed it from 110 layers on
        train = spec.train.model_copy(update={"warmup": spec.model.depth >= 110})
        spec = spec.model_copy(update={"train": train})
    errors += mistakes.values()
    # names are checked even if other fields are wrong, which then have their defaults
    right = {key: value for key, value in values.items() if key not in mistakes}
    partial = spec or _validated(right)[0]
    if partial is not None:
        sections = {key: getattr(getattr(partial, section), key) for key, section in FIELDS.items() if section}
        as_given = {key: value for key, value in right.items() if not FIELDS[key] or key == "adapter"}
        for check in checks:
            errors += [line for line in check({**sections, **as_given}) if line not in errors]
    if errors or spec is None:
        raise SpecError(errors)
    return spec


def _preset_mistakes(preset: Any) -> list[str]:
    if preset is None or (isinstance(preset, str) and preset in PRESETS):
        return []
    return [f"preset: no '{_short(preset)}'{did_you_mean(preset, PRESETS)}; there are {', '.join(PRESETS)}"]


def _validated(values: Mapping[str, Any]) -> tuple[RunSpec | None, dict[str, str]]:
    """Return the spec of flat fields and no mistakes, or None and a line for each field that is wrong."""
    nested: dict[str, Any] = {section: {} for section in _SECTIONS}
    mistakes: dict[str, str] = {}
    for key, value in values.items():
        try:
            (nested[FIELDS[key]] if FIELDS[key] else nested)[key] = _one_spelling(key, value)
        except ValueError as error:
            mistakes[key] = f"{key}: {error}"
    try:
        spec = RunSpec.model_validate(nested)
        return (None, mistakes) if mistakes else (spec, {})
    except ValidationError as error:
        for item in error.errors(include_url=False):
            place = [str(part) for part in item["loc"] if part not in _SECTIONS] or ["the run"]
            mistakes.setdefault(place[0], _one_line(item))
        return None, mistakes


def _one_spelling(key: str, value: Any) -> Any:
    """Return a value as a run id has it, however it is written.

    'none' is the text for an empty field that a preset may fill, since TOML has no null. Raises ValueError for a truth
    value where a number is wanted, and for text with control characters.
    """
    value = _plain(value)
    if isinstance(value, bool) and key != "warmup":
        raise ValueError(f"must not be {str(value).lower()}")
    if isinstance(value, str) and printable(value) != value:
        raise ValueError("must hold no control characters")
    return None if value == "none" and key in CAN_BE_NONE else value


def _plain(value: Any) -> Any:
    """Return numbers of numpy, torch or pandas, and lists of them, as Python's."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if not hasattr(value, "__array__"):
        return value
    import numpy as np  # is there, or this would not be an array

    array = np.asarray(value.detach() if hasattr(value, "detach") else value)
    if array.shape:
        return [_plain(item) for item in array]
    # what a short float shows: numpy.float32(0.1) is meant to be 0.1
    return float(str(array[()])) if array.dtype.kind == "f" else array.item()


def _short(value: Any) -> str:
    """Return a value as a message shows it."""
    text = printable(value if isinstance(value, str) else repr(value))
    return text if len(text) <= 60 else f"{text[:57]}…"


def _one_line(error: Any) -> str:
    """Turn one of pydantic's errors into `field: what is wrong`."""
    place = [printable(str(part)) for part in error["loc"] if str(part) not in _SECTIONS]
    message = error["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if error["type"] == "extra_forbidden":
        return f"{'.'.join(place)}: no such field"
    value = error.get("input")
    try:
        shown = f", not {_short(repr(value))}" if place and isinstance(value, str | int | float | bool) else ""
    except ValueError:  # more digits than Python writes
        shown = ""
    return f"{'.'.join(place)}: {message}{shown}" if place else message


@dataclass(frozen=True)
class Experiment:
    """An experiment written down as TOML; its results lie in the folder of the same name.

    probe: what it is for. uses: experiments that store some of its runs. run: fields of every run. grids: the runs are
    those of all of them, each the Cartesian product of its lists. settings: of the probe, which checks them.
    """

    name: str = ""
    probe: str = ""
    uses: Sequence[str] = ()
    run: Mapping[str, Any] = field(default_factory=dict)
    grids: Sequence[Mapping[str, list[Any]]] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)


def load_toml(path: Path) -> Experiment:
    """Read an experiment's file: probe, uses, [run], [grid] (or several [[grid]]) and [settings].

    Raises SpecError, a line for each thing that is wrong, with the file and the place.
    """
    content = _read_toml(path)
    places = ("probe", "uses", "run", "grid", "settings")
    grids = content.get("grid", [])
    grids = [grids] if isinstance(grids, dict) else grids
    errors = [f"{path}: no [{_short(key)}] here{did_you_mean(key, places)}" for key in content if key not in places]
    for key in ("run", "settings"):
        errors += [] if isinstance(content.get(key, {}), dict) else [f"{path}: [{key}] must be a table"]
    if not isinstance(grids, list) or not all(isinstance(grid, dict) for grid in grids):
        errors.append(f"{path}: [grid] must be a table, or several [[grid]]")
    if not isinstance(content.get("probe", ""), str):
        errors.append(f"{path}: probe must be a name")
    uses = content.get("uses", [])
    if not isinstance(uses, list) or not all(isinstance(name, str) for name in uses):
        errors.append(f"{path}: uses must be a list of experiments' names")
    if not errors:
        errors += [f"{path}: [run] {line}" for line in _field_mistakes(content.get("run", {}).items())]
        bad = [key for grid in grids for key, values in grid.items() if not (isinstance(values, list) and values)]
        errors += [f"{path}: [grid] {_short(key)} must be a list of at least one value" for key in bad]
        pairs = [(key, value) for grid in grids for key, values in grid.items() if key not in bad for value in values]
        errors += [f"{path}: [grid] {line}" for line in _field_mistakes(pairs[:MAX_RUNS])]
        cells = sum(math.prod(len(values) for values in grid.values()) for grid in grids if not bad)
        errors += [f"{path}: [grid] is of {cells:,} runs, at most {MAX_RUNS:,}"] if cells > MAX_RUNS else []
    if errors:
        raise SpecError(errors)
    settings = content.get("settings", {})
    return Experiment(path.stem, content.get("probe", ""), uses, content.get("run", {}), grids, settings)


def _read_toml(path: Path) -> dict[str, Any]:
    """Return a TOML file's content. Raises SpecError that names it, for endless digits and endless nesting too."""
    try:
        if path.exists() and not path.is_file():
            raise SpecError(f"{path}: not a file")  # a pipe would be waited for
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise SpecError(f"{path}: cannot be read ({error.strerror})") from error
    except RecursionError as error:
        raise SpecError(f"{path}: not valid TOML (nested too deeply)") from error
    except ValueError as error:
        if isinstance(error, SpecError):
            raise
        raise SpecError(f"{path}: not valid TOML ({error})") from error


def _field_mistakes(pairs: Iterable[tuple[str, Any]]) -> list[str]:
    """Return what is wrong with single fields of a file, a line each, whether or not they fit together."""
    lines: dict[str, None] = {}
    for key, value in pairs:
        if key == "preset":
            lines |= dict.fromkeys(_preset_mistakes(value))
        elif key not in FIELDS:
            lines[f"{_short(key)}: no such field{did_you_mean(key, FIELDS)}"] = None
        else:
            lines |= {line: None for place, line in _validated({key: value})[1].items() if place == key}
    return list(lines)


def recipe(spec: RunSpec) -> dict[str, Any]:
    """Return the fields of a run as a file's [run] has them, without the plugin, which --plugin names."""
    values = {**spec.flat(), **{key: "none" for key in CAN_BE_NONE if spec.flat()[key] is None}}
    return {key: value for key, value in values.items() if value is not None and key != "plugin"}


def command_of(file: Path) -> str:
    """Return the command on top of an experiment's file, where `write_toml` puts it."""
    return file.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")


def write_toml(experiment: Experiment, command: str) -> str:
    """Return an experiment as a file's text that `load_toml` reads back, the command that makes it on top."""
    lines = [f"# {command}", ""]
    lines += [f"probe = {_toml(experiment.probe)}"] if experiment.probe else []
    lines += [f"uses = {_toml(list(experiment.uses))}"] if experiment.uses else []
    grid = "grid" if len(experiment.grids) == 1 else "[grid]"
    tables = [("run", experiment.run), *((grid, one) for one in experiment.grids), ("settings", experiment.settings)]
    for name, values in tables:
        if values:
            lines += [
                *([""] if lines[-1] else []),
                f"[{name}]",
                *(f"{key} = {_toml(value)}" for key, value in values.items()),
            ]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, Frozen):
        value = value.model_dump(exclude_none=True)
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
