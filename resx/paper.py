"""What the papers report, for tables, overlays and acceptance bands. Data only.

Errors are in percent, complexities in parameters and multiply-adds. Every number has its source and a mark: `R` was
read in the paper, `M` is unverified and must be shown with that mark. Nothing here is a result of this project.

* He et al., Deep Residual Learning for Image Recognition (CVPR 2016)
* He et al., Identity Mappings in Deep Residual Networks (ECCV 2016)
* Veit et al., Residual Networks Behave Like Ensembles of Relatively Shallow Networks (NIPS 2016)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isnan, nan
from typing import Literal

Mark = Literal["R", "M"]


@dataclass(frozen=True)
class Reported:
    """A published number. `value` is nan where the paper prints none; `note` says what it has instead.

    std: over `runs` runs. read_off: read off a figure's curve, so known to a few tenths at best.
    """

    value: float
    source: str
    mark: Mark = "R"
    std: float | None = None
    runs: int | None = None
    read_off: bool = False
    note: str = ""


@dataclass(frozen=True)
class TopErrors:
    """ImageNet validation errors; top5 is None where the table has none."""

    top1: float
    top5: float | None
    source: str
    mark: Mark = "R"


def _table(values: Mapping[int, float], source: str, mark: Mark = "R") -> dict[int, Reported]:
    return {depth: Reported(value, source, mark) for depth, value in values.items()}


# CIFAR-10, test error by (kind, depth). Table 6 has no plain rows: those are curves in figure 6
_TABLE_6 = "He et al. 2016, table 6"
CIFAR_TEST_ERROR: dict[tuple[str, int], Reported] = {
    ("residual", 20): Reported(8.75, _TABLE_6),
    ("residual", 32): Reported(7.51, _TABLE_6),
    ("residual", 44): Reported(7.17, _TABLE_6),
    ("residual", 56): Reported(6.97, _TABLE_6),
    ("residual", 110): Reported(6.43, _TABLE_6, runs=5, note="best of 5 runs; their mean is 6.61 ± 0.16"),
    ("residual", 1202): Reported(7.93, _TABLE_6),
    **{
        ("plain", depth): Reported(value, "He et al. 2016, figure 6", read_off=True)
        for depth, value in {20: 9.5, 32: 10.0, 44: 12.0, 56: 13.5}.items()
    },
}
CIFAR_ITERATIONS = 64_000  # section 4.2
# the content of class folders that hold CIFAR-10's images, as a run's specification names it
CIFAR10_COPIES = {
    "2e01cd57bfdb75c173d2a6b76177363d97bb22f111e3548760bc249f64880a55": "CIFAR-10, 99.83 % of its pixels original",
}
RESNET_110_MEAN = Reported(6.61, _TABLE_6, std=0.16, runs=5)
PLAIN_110_TEST_ERROR = Reported(nan, "He et al. 2016, figure 6", note="higher than 60 % and not displayed")
RESNET_1202_TRAINING_ERROR = Reported(nan, "He et al. 2016, section 4.2", note="below 0.1 %")

# Independent replications on CIFAR-10, mean and standard deviation over 5 seeds
_REPLICATIONS = "independent replications, 5 seeds"
CIFAR_REPLICATIONS: dict[tuple[str, int], Reported] = {
    ("residual", 20): Reported(8.51, _REPLICATIONS, "M", std=0.22, runs=5),
    ("residual", 56): Reported(7.40, _REPLICATIONS, "M", std=0.27, runs=5),
    ("residual", 110): Reported(7.14, _REPLICATIONS, "M", std=0.20, runs=5),
    ("plain", 20): Reported(9.78, _REPLICATIONS, "M", std=0.13, runs=5),
    ("plain", 56): Reported(12.95, _REPLICATIONS, "M", std=0.22, runs=5),
}
RESNET_56_BAND = (6.9, 7.5)  # percent: where a faithful ResNet-56 should end

# Complexity. Parameters and multiply-adds of option A, which are the plain network's too
CIFAR_PARAMETERS_PRINTED = _table({20: 0.27e6, 32: 0.46e6, 44: 0.66e6, 56: 0.85e6, 110: 1.7e6, 1202: 19.4e6}, _TABLE_6)
IMAGENET_MULTIPLY_ADDS = _table({18: 1.8e9, 34: 3.6e9, 50: 3.8e9, 101: 7.6e9, 152: 11.3e9}, "He et al. 2016, table 1")
VGG_MULTIPLY_ADDS = _table({16: 15.3e9, 19: 19.6e9}, "He et al. 2016, section 4.1")

# ImageNet validation, 10-crop
_TABLE_2, _TABLE_3 = "He et al. 2016, table 2", "He et al. 2016, table 3"
IMAGENET_DEGRADATION: dict[tuple[str, int], TopErrors] = {
    ("plain", 18): TopErrors(27.94, None, _TABLE_2),
    ("plain", 34): TopErrors(28.54, None, _TABLE_2),
    ("residual", 18): TopErrors(27.88, None, _TABLE_2),
    ("residual", 34): TopErrors(25.03, None, _TABLE_2),
}
IMAGENET_10_CROP: dict[str, TopErrors] = {
    "VGG-16": TopErrors(28.07, 9.33, _TABLE_3),
    "ResNet-34 A": TopErrors(25.03, 7.76, _TABLE_3),
    "ResNet-34 B": TopErrors(24.52, 7.46, _TABLE_3),
    "ResNet-34 C": TopErrors(24.19, 7.40, _TABLE_3),
    "ResNet-50": TopErrors(22.85, 6.71, _TABLE_3),
    "ResNet-101": TopErrors(21.75, 6.05, _TABLE_3),
    "ResNet-152": TopErrors(21.43, 5.71, _TABLE_3),
}
RESNET_152_SINGLE_MODEL = TopErrors(19.38, 4.49, "He et al. 2016, table 4")
IMAGENET_ENSEMBLE_TEST_TOP5 = Reported(3.57, "He et al. 2016, section 4.1")

# He et al. 2016b: ResNet-110 on CIFAR-10 by what stands on the shortcut, median of 5 runs
_FAIL = "fail: over 20 %"
IDENTITY_TABLE_1: dict[str, Reported] = {
    shortcut: Reported(value, "He et al. 2016b, table 1", runs=5, note=_FAIL if isnan(value) else "median")
    for shortcut, value in {
        "identity": 6.61,
        "0 (plain)": nan,
        "0.5, branch unscaled": nan,
        "0.5, branch 0.5": 12.35,
        "exclusive gating, bias 0 to -5": nan,
        "exclusive gating, bias -6": 8.70,
        "exclusive gating, bias -7": 9.81,
        "shortcut-only gating, bias 0": 12.86,
        "shortcut-only gating, bias -6": 6.91,
        "1x1 convolution": 12.22,
        "dropout 0.5": nan,
    }.items()
}
# Veit et al. 2016: a ResNet-110, 54 modules, and the lengths of its 2^54 paths
_VEIT = "Veit et al. 2016"
VEIT_MODULES = Reported(54, _VEIT, "M")
VEIT_EFFECTIVE_LENGTHS = (5, 17)  # modules in the paths that almost all of the gradient comes through
VEIT_EFFECTIVE_SHARE = Reported(0.45, _VEIT, "M", note="percent of all paths are that short")

# Yang et al. 2019: growth of a plain network's gradient per layer with batch norm, at initialisation
PLAIN_GRADIENT_FACTOR = Reported(1.21, "Yang et al. 2019", "M", note="per layer, at initialisation")

# Public networks whose weights can be measured here: test errors from their README files and of torchvision's weights
_BEST_ON_TEST = "the epoch that was kept is the best one on the test images, so its error is a little flattered"
_COSINE = f"200 epochs, batch 256, Nesterov momentum, rate 0.1 lowered as a cosine, decay 5e-4; {_BEST_ON_TEST}"
PUBLIC_NETWORKS: dict[str, Reported] = {
    **{
        f"akamaster/resnet{depth}": Reported(
            value, "akamaster/pytorch_resnet_cifar10", note=f"200 epochs by the paper's recipe; {_BEST_ON_TEST}"
        )
        for depth, value in {20: 8.27, 32: 7.37, 44: 6.90, 56: 6.61, 110: 6.32}.items()
    },
    **{
        f"chenyaofo/{data}_resnet{depth}": Reported(value, "chenyaofo/pytorch-cifar-models", note=_COSINE)
        for data, errors in {
            "cifar10": {20: 7.40, 32: 6.47, 44: 5.99, 56: 5.63},
            "cifar100": {20: 31.17, 32: 29.84, 44: 28.37, 56: 27.37},
        }.items()
        for depth, value in errors.items()
    },
    **{
        f"torchvision/resnet{depth}": Reported(
            value, "torchvision, IMAGENET1K_V1", note="centre crops of 224 pixels of images resized to 256"
        )
        for depth, value in {18: 30.242, 34: 26.686, 50: 23.870, 101: 22.626, 152: 21.688}.items()
    },
}
