"""A tree of image files, train/CLASS/* and test/CLASS/*, decoded once into a cache file.

The cache (`resx/` in XDG_CACHE_HOME or ~/.cache; without it if that is not writable) is a NumPy archive
without pickles. It is used only while every file's name, size and times are those it was made from; the time of
the last change of a file's status is among them, which no program can set back. Processes that want the same tree
wait for the one that decodes it. A photograph is turned as its EXIF orientation says. Where the names in a split
are unique numbers, these give the order, so that CIFAR-10 as a tree is CIFAR-10 in the official order; else the
order is by class and name.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from rich.console import Console
from rich.progress import track

from resx.data.dataset import DATASETS, LOOKUPS, Dataset, Found, averaged_down, data_root
from resx.spec import SpecError
from resx.store.files import TEMPORARY, StoreError, atomic_file, wait_for_lock

SUFFIXES = {".png", ".webp", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff"}
GREY = {"1", "L"}
COLOUR = {"RGB", "RGBA", "RGBX", "RGBa", "LA", "La", "P", "PA", "CMYK", "YCbCr"}
TEST_FOLDERS = ("test", "val")  # the first that is there; many trees call it val
CACHE_FORMAT = 3
Images = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


@dataclass(frozen=True)
class Listing:
    """The files of a tree in the order of the data set, and what tells whether any of them has changed."""

    root: Path
    classes: tuple[str, ...]
    images: dict[str, list[tuple[int, str]]]  # label and path, by split
    stamp: str


@DATASETS.register("folder")
def load_folder(root: Path | None = None, image_size: int | None = None) -> Dataset:
    """Your own images: a tree of train/CLASS/* and test/CLASS/* in the data folder, decoded once to a cache.

    Images are uint8 [N, C, H, W], with one channel where all are grey. Images of different sizes are averaged
    down to image_size; images of one size are returned as they are. Raises SpecError for a tree that is not
    as above, and for an image that cannot be read, by its name.
    """
    import torch

    listing = _list(data_root(root))
    kept_size, cached = _cached(listing, image_size)
    if cached is None:
        with wait_for_lock(_cache_path(listing, None).with_suffix(".lock"), f"the images of {listing.root}"):
            kept_size, cached = _cached(listing, image_size)  # another process may have decoded them by now
            if cached is None:
                cached, kept_size = _decode(listing, image_size)
                _write_cache(listing, kept_size, cached)
    return Dataset(
        train_x=torch.from_numpy(cached["train"]),
        train_y=torch.tensor([label for label, _ in listing.images["train"]]),
        test_x=torch.from_numpy(cached["test"]),
        test_y=torch.tensor([label for label, _ in listing.images["test"]]),
        classes=listing.classes,
        label=listing.root.name,
        content=str(cached["content"]),
        image_size=kept_size,
    )


def _cached(listing: Listing, image_size: int | None) -> tuple[int | None, dict[str, Images] | None]:
    """Return what is decoded already, and the size to which images of different sizes were brought for it."""
    for size in dict.fromkeys((None, image_size)):
        if cached := _read_cache(_cache_path(listing, size), listing, "train", "test", "content"):
            return size, cached
    return None, None


@LOOKUPS.register("folder")
def look_folder(root: Path, verify: bool) -> Found:
    """Look for a tree of images in `root`; with `verify`, decode every image and compare them with the cache."""
    if not any((root / split).is_dir() for split in ("train", *TEST_FOLDERS)):
        return Found("absent", root, "give --data-dir the folder that holds train/CLASS/* and test/CLASS/*")
    try:
        listing = _list(root)
        counts = " and ".join(f"{len(images):,} {split}" for split, images in listing.images.items())
        note = f"{counts} images of {len(listing.classes)} classes"
        if not verify:
            return Found("present", root, note)
        digest = _digest(listing)
        for label, path, image in _labelled(listing, "Verifying"):
            _add(digest, label, image)
            del path, image
    except SpecError as error:
        return Found("damaged", root, str(error))
    plain = _cache_path(listing, None)  # the others have an image_size in their names
    caches = {file: _read_cache(file, listing, "content") for file in plain.parent.glob(f"{plain.stem}*.npz")}
    changed = [file for file, cached in caches.items() if cached and str(cached["content"]) != digest.hexdigest()]
    for file in changed:
        file.unlink(missing_ok=True)
    if changed:
        return Found("damaged", root, f"{note}; they have changed since they were decoded, and are decoded anew")
    return Found("verified", root, note)


def _list(root: Path) -> Listing:
    """List the images of both splits in order. Raises SpecError where the tree is not as it should be."""
    root = root.resolve()
    where = f"dataset 'folder': {root}"
    needed = "it must hold train/CLASS/* and test/CLASS/*"
    if not root.is_dir():
        raise SpecError(f"{where}: no such folder; {needed}")
    tests = [name for name in TEST_FOLDERS if (root / name).is_dir()]
    folders = {"train": root / "train", "test": root / (tests or ["test"])[0]}
    missing = [split for split, folder in folders.items() if not folder.is_dir()]
    if missing:
        raise SpecError(f"{where}: no {' and no '.join(f'{split}/' for split in missing)} in it; {needed}")
    try:
        classes = {split: _classes(folder) for split, folder in folders.items()}
        for split, names in classes.items():
            if not names:
                raise SpecError(f"{where}: no class folders in {split}/; {needed}")
            if len(names) == 1:
                raise SpecError(f"{where}: only one class in {split}/, {names[0]}; there is nothing to learn")
        if classes["train"] != classes["test"]:
            odd = ", ".join(sorted(set(classes["train"]) ^ set(classes["test"])))
            raise SpecError(f"{where}: train/ and test/ must hold the same classes; only one holds {odd}")
        images, entries = {}, []
        for split, names in classes.items():
            files = []
            for label, name in enumerate(names):
                inside = sorted(_files(folders[split] / name))
                if not inside:
                    raise SpecError(f"{where}: no images in {split}/{name}/")
                files += [(label, *file) for file in inside]
            stems = [os.path.splitext(os.path.basename(file[1]))[0] for file in files]
            if all(stem.isascii() and stem.isdecimal() for stem in stems):
                numbers = [int(stem) for stem in stems]
                if len(set(numbers)) == len(numbers):
                    files = [file for _, file in sorted(zip(numbers, files, strict=True))]
            images[split] = [file[:2] for file in files]
            entries += [file[1:] for file in files]
    except OSError as error:
        raise SpecError(f"{where}: {error.filename} cannot be read ({error.strerror})") from error
    stamp = hashlib.sha256(json.dumps([CACHE_FORMAT, entries]).encode()).hexdigest()
    return Listing(root, tuple(classes["train"]), images, stamp)


def _classes(folder: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))


def _files(folder: Path | str) -> Iterator[tuple[str, int, int, int, int]]:
    """Yield the image files below a class folder: path, size in bytes, times of the last change in ns, inode.

    The second time is that of the file's status; the inode tells files apart whose folders have changed places. Raises
    SpecError for a pipe or a device, which would be waited for.
    """
    for entry in os.scandir(folder):
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _files(entry.path)
        elif os.path.splitext(entry.name)[1].lower() in SUFFIXES:
            status = entry.stat()
            if not stat.S_ISREG(status.st_mode):
                raise SpecError(f"dataset 'folder': {entry.path} is not a regular file")
            yield entry.path, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _decode(listing: Listing, image_size: int | None) -> tuple[dict[str, Images], int | None]:
    """Return the images of both splits and their content hash, and image_size if sizes differed.

    The hash is over classes, labels and decoded pixels before any change of size, so that it is the same for
    every lossless file format. Raises SpecError for images of different sizes where image_size is None.
    """
    digest = _digest(listing)
    arrays: list[Images] = []
    paths: list[str] = []
    first, mixed = None, False
    for label, path, image in _labelled(listing, "Decoding"):
        _add(digest, label, image)
        size = image.shape[1:]
        first = first or size
        if size != first and not mixed:
            if image_size is None:
                raise SpecError(
                    f"dataset 'folder': images differ in size: {paths[0]} has {_size(first)} pixels, {path} "
                    f"{_size(size)}; set image_size to average all of them down to one size"
                )
            mixed = True
            arrays = [_smaller(array, image_size, before) for array, before in zip(arrays, paths, strict=True)]
        arrays.append(_smaller(image, image_size, path) if mixed and image_size else image)
        paths.append(path)
    channels = max(len(array) for array in arrays)
    whole = np.stack([np.broadcast_to(array, (channels, *array.shape[1:])) for array in arrays])
    train, test = np.split(whole, [len(listing.images["train"])])
    content = np.array(digest.hexdigest())
    return {"train": train, "test": test, "content": content}, image_size if mixed else None


def _labelled(listing: Listing, verb: str) -> Iterator[tuple[int, str, Images]]:
    """Yield label, path and decoded image of every file, in order."""
    labels, paths = zip(*(image for images in listing.images.values() for image in images), strict=True)
    yield from zip(labels, paths, _images(paths, verb), strict=True)


def _digest(listing: Listing) -> Any:
    return hashlib.sha256(json.dumps([listing.classes, len(listing.images["train"])]).encode())


def _add(digest: Any, label: int, image: Images) -> None:
    digest.update(json.dumps([label, image.shape]).encode())
    digest.update(image.tobytes())


def _size(shape: tuple[int, ...]) -> str:
    return "×".join(str(side) for side in shape)


def _smaller(image: Images, size: int, path: str) -> Images:
    """Average one image [C, H, W] down to a square. Raises SpecError where it is too small for that."""
    import torch

    if min(image.shape[1:]) < size:
        raise SpecError(f"dataset 'folder': {path} has {_size(image.shape[1:])} pixels, fewer than image_size {size}")
    return averaged_down(torch.from_numpy(image)[None], size)[0].numpy()


def _images(paths: Sequence[str], verb: str) -> Iterator[Images]:
    """Decode files to uint8 [C, H, W] in order, with a line (a bar on a terminal) on stderr."""
    console = Console(stderr=True)
    text = f"{verb} {len(paths):,} images"
    if not console.is_terminal:
        print(text, file=sys.stderr)
    with ThreadPoolExecutor() as pool:  # the decoders release the interpreter's lock
        for start in track(
            range(0, len(paths), 1000), text, console=console, transient=True, disable=not console.is_terminal
        ):
            yield from pool.map(_image, paths[start : start + 1000])


def _image(path: str) -> Images:
    """Decode one file to uint8 [C, H, W]. Raises SpecError that names it where it cannot be read."""
    try:
        with Image.open(path) as image:
            if image.mode not in GREY | COLOUR:
                raise SpecError(f"dataset 'folder': {path} has pixels of mode {image.mode}, not 8 bits a channel")
            turned = ImageOps.exif_transpose(image)
            array = np.asarray(turned.convert("L" if image.mode in GREY else "RGB"))
    except SpecError:
        raise
    except Exception as error:  # a damaged file can make a decoder fail in any way; the user needs its name
        reason = str(error).partition("\n")[0].replace(f" {path!r}", "")
        raise SpecError(f"dataset 'folder': {path} cannot be read as an image ({reason})") from error
    return np.ascontiguousarray(array.transpose(2, 0, 1) if array.ndim == 3 else array[None])


def _cache_path(listing: Listing, image_size: int | None) -> Path:
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
    except RuntimeError:  # a user without a home folder
        base = Path(tempfile.gettempdir())
    name = hashlib.sha256(str(listing.root).encode()).hexdigest()[:16]
    return base / "resx" / f"folder-{name}{f'-{image_size}' if image_size else ''}.npz"


def _read_cache(file: Path, listing: Listing, *keys: str) -> dict[str, Images] | None:
    """Return what a cache holds if it was made from these very files; None otherwise or if it is broken."""
    try:
        with np.load(file, allow_pickle=False) as archive:
            return {key: archive[key] for key in keys} if str(archive["stamp"]) == listing.stamp else None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _write_cache(listing: Listing, image_size: int | None, content: dict[str, Images]) -> None:
    """Write the cache, whole or not at all; a place that cannot be written to only costs decoding again."""
    path = _cache_path(listing, image_size)
    try:
        for left in path.parent.glob(f".{_cache_path(listing, None).stem}{TEMPORARY[1:]}"):  # by a kill
            left.unlink(missing_ok=True)
        with atomic_file(path) as file:
            np.savez(file, stamp=np.array(listing.stamp), **content)  # type: ignore[arg-type]
    except (OSError, StoreError) as error:
        print(f"The decoded images are not kept: {error}", file=sys.stderr)
