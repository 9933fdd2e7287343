"""Random streams that are derived from their names, so that none has to be carried along or saved.

Two networks that ask for the stream of the same name get the same numbers, whatever else they have drawn: this is
what pairs a plain network with its residual twin, and what makes a resumed run equal to an uninterrupted one.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def generator(seed: int, *path: str | int) -> torch.Generator:
    """Return a new CPU generator for the stream that (seed, *path) names, such as (0, 'crop', epoch)."""
    import torch

    digest = hashlib.sha256(json.dumps([seed, *path]).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
