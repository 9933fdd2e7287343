"""Networks: shortcuts, adapters, families, initial weights, complexity (He et al. 2016, sections 3 and 4).

A family is one file that registers itself in FAMILIES and is imported here.
"""

from resx.model import (  # noqa: F401  (importing registers the families)
    cifar,
    conv1d,
    imagenet,
    mapping,
    mlp,
    rnn,
    transformer,
    vgg,
)
from resx.model.adapters import GROW, SHRINK, SPATIAL
from resx.model.complexity import Complexity, count
from resx.model.construction import build, check_names, complete
from resx.model.network import FAMILIES, Block, Network, scheduled_modules, stochastic_modules
from resx.model.shortcuts import SHORTCUTS

__all__ = [
    "FAMILIES",
    "GROW",
    "SHORTCUTS",
    "SHRINK",
    "SPATIAL",
    "Block",
    "Complexity",
    "Network",
    "build",
    "check_names",
    "complete",
    "count",
    "scheduled_modules",
    "stochastic_modules",
]
