"""Data sets: `load(DataSpec) -> Dataset`, the checks of a data specification, and where data sets are found.

A data set is one file here and a function in `DATASETS`. What a specification asks for beyond that (fewer
images, smaller images, a validation split: He et al. 2016, section 4.2) is done here, once, for all of them.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resx.data import (  # noqa: F401  (they register themselves)
    cifar,
    digits,
    folder,
    longrange,
    sequences,
    synthetic,
    teacher,
)
from resx.data.balance import balanced
from resx.data.dataset import (
    CHANNELS,
    DATASETS,
    FACTS,
    LOOKUPS,
    Dataset,
    Facts,
    averaged_down,
    data_root,
    look,
)
from resx.seeding import generator
from resx.spec import DataSpec, SpecError, with_kind

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "DATASETS",
    "FACTS",
    "LOOKUPS",
    "Dataset",
    "check_names",
    "complete",
    "data_root",
    "facts",
    "fetch",
    "load",
    "look",
]


def check_names(fields: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with flat fields (defaults merged in), a line each, without reading any file."""
    text = str(fields["dataset"])
    if errors := DATASETS.check(text):
        return errors
    name, _ = DATASETS.arguments(text)
    return _mistakes(fields, FACTS[name], named=True) if name in FACTS else []


def complete(spec: DataSpec, data_dir: Path | None = None) -> DataSpec:
    """Return the one specification of this data: defaults filled in, null what does not apply or matter.

    A data set whose content its name does not fix (a folder) is read, and gets its content hash and label.
    data_dir: where files are looked for (None: RESX_DATA, or `data`). Raises SpecError with all that does not
    fit.
    """
    text = DATASETS.complete(spec.dataset)
    name, _ = DATASETS.arguments(text)
    raw = None if name in FACTS else _read(text, data_dir, spec.image_size)
    facts = FACTS[name] if raw is None else raw.facts
    content = None if raw is None else raw.content
    errors = _mistakes(spec.model_dump(), facts, named=content is None)
    if spec.content and content and spec.content != content:
        errors.append(f"content: {data_root(data_dir)} no longer holds the images that this run is made with")
    if errors:
        raise SpecError(errors)
    fields: dict[str, Any] = {"dataset": text, "content": content}
    if raw is not None and content is not None:
        fields["label"] = spec.label or raw.label
    fields["subset"] = None if spec.subset == facts.train - (spec.validation or 0) else spec.subset
    fields["test_subset"] = None if spec.test_subset == facts.test else spec.test_subset
    if not facts.images:
        fields |= {"normalize": None, "augment": None}
    elif facts.shape[1:] == (spec.image_size, spec.image_size) and (raw is None or raw.image_size is None):
        fields["image_size"] = None
    fields = spec.model_dump() | fields
    fields["reference"] = _comparable(fields, facts, spec.reference)
    return DataSpec(**fields)


def facts(spec: DataSpec, data_dir: Path | None = None) -> Facts:
    """Return the size of what a complete specification loads, subsets apart; named data sets are not read."""
    name, _ = DATASETS.arguments(spec.dataset)
    raw = FACTS.get(name) or _read(spec.dataset, data_dir, spec.image_size).facts
    shape = (raw.shape[0], spec.image_size, spec.image_size) if spec.image_size and raw.images else raw.shape
    return replace(raw, shape=shape)


def load(spec: DataSpec, data_dir: Path | None = None) -> Dataset:
    """Return the data as the specification says: validation held out, subsets taken, images averaged down.

    Validation images are drawn from all training images, then the subset from what remains; all are
    class-balanced and the same for every seed. Raises SpecError as `complete` does, and where files are
    missing or damaged.
    """
    spec = complete(spec, data_dir)
    raw = _read(spec.dataset, data_dir, spec.image_size)
    splits = {"train": raw.split("train"), "test": raw.split("test")}
    if spec.validation:
        train = splits["train"]
        held_out = _choice(raw, train[1], spec.validation, "validation")
        rest = held_out.new_ones(len(train[1])).index_fill_(0, held_out, 0).nonzero().view(-1)
        splits |= {"val": _taken(train, held_out), "train": _taken(train, rest)}
    for name, purpose, count in (("train", "subset", spec.subset), ("test", "test_subset", spec.test_subset)):
        if count:
            splits[name] = _taken(splits[name], _choice(raw, splits[name][1], count, purpose))
    label = spec.label or raw.label
    if spec.subset:
        label += f", {spec.subset:,} images"
    if spec.image_size:
        size = spec.image_size
        label += f" at {size}×{size}"
        splits = {name: (averaged_down(x, size), y) for name, (x, y) in splits.items()}
    fields: dict[str, Any] = {f"{name}_x": x for name, (x, _) in splits.items()}
    fields |= {f"{name}_y": y for name, (_, y) in splits.items()}
    reference = _comparable(spec.model_dump(), raw.facts, spec.reference or raw.reference)
    return replace(raw, **fields, label=label, reference=reference)


def fetch(spec: DataSpec, data_dir: Path | None = None) -> None:
    """Download and unpack what this data needs, once, before several processes read it. Raises SpecError."""
    name, _ = DATASETS.arguments(spec.dataset)
    if spec.content or name not in LOOKUPS:
        return
    place = look(name, data_root(data_dir))
    if place.state != "present" or place.where is None or not place.where.is_dir():
        load(spec, data_dir)


READ: dict[tuple[str, Path, int | None], Dataset] = {}  # the last two: the runs of a comparison share one data set


def _read(text: str, data_dir: Path | None, image_size: int | None) -> Dataset:
    """Return a whole data set, read once; one whose images are of one size serves every `image_size`."""
    root = data_root(data_dir).resolve()
    for key in ((text, root, None), (text, root, image_size)):
        if key in READ:
            return READ[key]
    dataset = _read_files(text, root, image_size)
    while len(READ) > 1:
        del READ[next(iter(READ))]
    READ[text, root, dataset.image_size] = dataset
    return dataset


def look_again() -> None:
    """Let files that no name fixes be read anew: they may have changed since."""
    for key in [key for key, dataset in READ.items() if dataset.content]:
        del READ[key]


def _read_files(text: str, root: Path, image_size: int | None) -> Dataset:
    """Read a whole data set. A loader that can bring images of many sizes to one takes image_size as well."""
    name, _ = DATASETS.arguments(text)
    sized = "image_size" in inspect.signature(DATASETS[name]).parameters
    try:
        dataset: Dataset = DATASETS.create(text, root, *((image_size,) if sized else ()))
    except Exception as error:
        if DATASETS.plugin(text) is None or isinstance(error, SpecError):
            raise
        raise SpecError(f"dataset '{name}': the plugin fails ({with_kind(error)})") from error
    if not isinstance(dataset, Dataset):
        raise SpecError(f"dataset '{name}': returns a {type(dataset).__name__}, not a Dataset")
    return dataset


def _choice(raw: Dataset, targets: Tensor, count: int, purpose: str) -> Tensor:
    labels = targets if raw.task == "classification" else None
    return balanced(labels, len(targets), count, generator(0, purpose))


def _taken(split: tuple[Tensor, Tensor], index: Tensor) -> tuple[Tensor, Tensor]:
    return split[0][index], split[1][index]


def _comparable(fields: Mapping[str, Any], facts: Facts, reference: str | None) -> str | None:
    """Return the reference if all its images are used at full size: else published numbers do not compare."""
    whole = all(fields[key] is None for key in ("subset", "test_subset", "validation", "image_size"))
    return reference if reference and whole and FACTS[reference] == facts else None


def _mistakes(fields: Mapping[str, Any], facts: Facts, named: bool) -> list[str]:
    """Return what fields ask for that this data set cannot give. named: its name alone fixes its content."""
    errors = []
    if named:
        errors += [
            f"{key}: is for images from a folder; '{fields['dataset']}' has its own"
            for key in ("label", "reference", "content")
            if fields.get(key)
        ]

    def number(key: str) -> int | None:
        value = fields.get(key)
        return value if isinstance(value, int) and value > 0 else None  # any other is refused by the form's check

    size, validation = number("image_size"), number("validation")
    if size and not facts.images:
        errors.append(f"image_size: '{fields['dataset']}' holds no images")
    elif size and size > min(facts.shape[1:]):
        shape = "×".join(str(side) for side in facts.shape[1:])
        errors.append(f"image_size: images of {shape} cannot be averaged down to {size}×{size}")
    if fields.get("normalize") in CHANNELS and facts.images and facts.shape[0] != 3:
        errors.append(f"normalize: '{fields['normalize']}' is for images of 3 channels, not {facts.shape[0]}")
    if validation and validation >= facts.train:
        errors.append(f"validation: {validation:,} of {facts.train:,} training images leaves none to train on")
    for key, there in (("subset", facts.train - (validation or 0)), ("test_subset", facts.test)):
        count = number(key)
        if count and 0 < there < count:
            errors.append(f"{key}: there are only {there:,} images, not {count:,}")
    return errors
