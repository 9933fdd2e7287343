"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009) in the official order, through torchvision.

The files are Python pickles, which run code when they are read: only torchvision's own reader opens them, and
only after every file's checksum.
"""

from __future__ import annotations

import contextlib
import sys
import tarfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resx.data.dataset import DATASETS, FACTS, LOOKUPS, Dataset, Facts, Found, data_root
from resx.spec import SpecError, first_line
from resx.store.files import wait_for_lock

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Files:
    """How torchvision's reader names what it reads; here, so that looking for it does not wait for torch."""

    archive: str
    folder: str
    names: tuple[str, ...]


BATCHES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta")
FILES = {
    "cifar10": Files("cifar-10-python.tar.gz", "cifar-10-batches-py", BATCHES),
    "cifar100": Files("cifar-100-python.tar.gz", "cifar-100-python", ("train", "test", "meta")),
}
FACTS["cifar10"] = Facts(shape=(3, 32, 32), train=50_000, test=10_000, outputs=10)
FACTS["cifar100"] = Facts(shape=(3, 32, 32), train=50_000, test=10_000, outputs=100)


@DATASETS.register("cifar10")
def load_cifar10(root: Path | None = None) -> Dataset:
    """CIFAR-10: 32×32 colour photographs of 10 classes, 50,000 to train on and 10,000 to test."""
    return _load("cifar10", data_root(root), "CIFAR-10")


@DATASETS.register("cifar100")
def load_cifar100(root: Path | None = None) -> Dataset:
    """CIFAR-100: 32×32 colour photographs of 100 classes, 50,000 to train on and 10,000 to test."""
    return _load("cifar100", data_root(root), "CIFAR-100")


def _load(name: str, root: Path, label: str) -> Dataset:
    """Read both splits, downloading them first where they are missing. Raises SpecError with what to do."""
    import torch

    kind = _torchvision(name)
    archive = root / kind.filename
    try:
        # stdout is for results; of several processes one downloads and unpacks
        with contextlib.redirect_stdout(sys.stderr), wait_for_lock(root / f".{name}.lock", f"the download of {name}"):
            train = kind(str(root), train=True, download=True)
            test = kind(str(root), train=False, download=False)
    except (OSError, RuntimeError, EOFError, tarfile.TarError) as error:
        if _damaged(archive, kind.tgz_md5):
            line = f"{archive} is truncated or damaged (its checksum is wrong): replace it with a whole copy"
        else:
            line = f"not found in {root}, and the download failed: put {kind.filename} there"
        raise SpecError(f"dataset '{name}': {line} ({first_line(error)})") from error
    return Dataset(
        train_x=_images(train),
        train_y=torch.tensor(train.targets),
        test_x=_images(test),
        test_y=torch.tensor(test.targets),
        classes=tuple(train.classes),
        label=label,
        reference=name,
    )


def _images(split: Any) -> Tensor:
    """Return torchvision's uint8 [N, H, W, C] array as a tensor [N, C, H, W]."""
    import torch

    return torch.from_numpy(split.data).permute(0, 3, 1, 2).contiguous()


def _damaged(path: Path, md5: str) -> bool:
    """Whether a file is there, but not with this checksum."""
    from torchvision.datasets.utils import check_integrity

    return path.is_file() and not check_integrity(str(path), md5)


def _look(name: str, root: Path, verify: bool) -> Found:
    """Look for a data set's files below `root`; with `verify`, take every checksum."""
    files = FILES[name]
    archive, folder = root / files.archive, root / files.folder
    missing = [file for file in files.names if not (folder / file).is_file()]
    if missing and not archive.is_file():
        return Found("absent", root, f"downloaded when it is first used; or put {files.archive} there")
    if not verify:
        return Found("present", archive, "unpacked when it is first used") if missing else Found("present", folder)
    kind = _torchvision(name)
    if missing:
        if _damaged(archive, kind.tgz_md5):
            return Found("damaged", archive, "wrong checksum: truncated or not the official file")
        return Found("verified", archive, "unpacked when it is first used")
    meta = (kind.meta["filename"], kind.meta["md5"])
    bad = [file for file, md5 in [*kind.train_list, *kind.test_list, meta] if _damaged(folder / file, md5)]
    if bad:
        return Found("damaged", folder, f"wrong checksum: {', '.join(bad)}")
    return Found("verified", folder)


for name in FILES:
    LOOKUPS.register(name)(partial(_look, name))


def _torchvision(name: str) -> Any:
    from torchvision import datasets

    return {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
