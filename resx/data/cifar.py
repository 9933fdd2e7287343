"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009) in the official order, through torchvision.

The files are Python pickles, which run code when they are read: only torchvision's own reader opens them, and
only after every file's checksum.
"""

from __future__ import annotations

import contextlib
import sys
import tarfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from resx.data.dataset import DATASETS, FACTS, LOOKUPS, Dataset, Facts, Found, data_root
from resx.spec import SpecError

FACTS["cifar10"] = Facts(shape=(3, 32, 32), train=50_000, test=10_000, outputs=10)
FACTS["cifar100"] = Facts(shape=(3, 32, 32), train=50_000, test=10_000, outputs=100)


@DATASETS.register("cifar10")
def load_cifar10(root: Path | None = None) -> Dataset:
    """CIFAR-10: 32×32 colour photographs of 10 classes, 50,000 to train on and 10,000 to test."""
    from torchvision.datasets import CIFAR10

    return _load(CIFAR10, data_root(root), "cifar10", "CIFAR-10")


@DATASETS.register("cifar100")
def load_cifar100(root: Path | None = None) -> Dataset:
    """CIFAR-100: 32×32 colour photographs of 100 classes, 50,000 to train on and 10,000 to test."""
    from torchvision.datasets import CIFAR100

    return _load(CIFAR100, data_root(root), "cifar100", "CIFAR-100")


@LOOKUPS.register("cifar10")
def look_cifar10(root: Path, verify: bool) -> Found:
    """Look for CIFAR-10's files below `root`; with `verify`, take every checksum."""
    from torchvision.datasets import CIFAR10

    return _look(CIFAR10, root, verify)


@LOOKUPS.register("cifar100")
def look_cifar100(root: Path, verify: bool) -> Found:
    """Look for CIFAR-100's files below `root`; with `verify`, take every checksum."""
    from torchvision.datasets import CIFAR100

    return _look(CIFAR100, root, verify)


def _load(kind: Any, root: Path, name: str, label: str) -> Dataset:
    """Read both splits, downloading them first where they are missing. Raises SpecError with what to do."""
    archive = root / kind.filename
    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout is for results
            train = kind(str(root), train=True, download=True)
            test = kind(str(root), train=False, download=False)
    except (OSError, RuntimeError, EOFError, tarfile.TarError) as error:
        reason = str(error).partition("\n")[0]
        if _damaged(archive, kind.tgz_md5):
            line = f"{archive} is truncated or damaged (its checksum is wrong): replace it with a whole copy"
        else:
            line = f"not found in {root}, and the download failed: put {kind.filename} there"
        raise SpecError(f"dataset '{name}': {line} ({reason})") from error
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
    return torch.from_numpy(split.data).permute(0, 3, 1, 2).contiguous()


def _damaged(path: Path, md5: str) -> bool:
    """Whether a file is there, but not with this checksum."""
    from torchvision.datasets.utils import check_integrity

    return path.is_file() and not check_integrity(str(path), md5)


def _look(kind: Any, root: Path, verify: bool) -> Found:
    archive, folder = root / kind.filename, root / kind.base_folder
    meta = (kind.meta["filename"], kind.meta["md5"])
    files = [(folder / name, md5) for name, md5 in [*kind.train_list, *kind.test_list, meta]]
    missing = [path.name for path, _ in files if not path.is_file()]
    if not missing:
        bad = [path.name for path, md5 in files if _damaged(path, md5)] if verify else []
        if bad:
            return Found("damaged", folder, f"wrong checksum: {', '.join(bad)}")
        return Found("verified" if verify else "present", folder)
    if archive.is_file():
        if verify and _damaged(archive, kind.tgz_md5):
            return Found("damaged", archive, "wrong checksum: truncated or not the official file")
        return Found("verified" if verify else "present", archive, "unpacked when it is first used")
    return Found("absent", root, f"downloaded when it is first used; or put {kind.filename} there")
