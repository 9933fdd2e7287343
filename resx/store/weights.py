"""Files of weights that others wrote: read without executing anything in them, and named by what they hold."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from resx.spec import SpecError

State = dict[str, Tensor]
WRAPPERS = ("state_dict", "model_state_dict", "model")  # keys under which training scripts keep a state_dict
PREFIXES = ("module.", "_orig_mod.")  # of DataParallel and torch.compile


def read_weights(path: Path) -> State:
    """Return the tensors of a state_dict in a file of torch.save or safetensors, on the CPU.

    A state_dict inside a checkpoint is found under its usual keys, and the prefixes of DataParallel and torch.compile
    are taken off. Raises SpecError, a line, where the file cannot be read, holds no state_dict, or could only be read
    by executing code that is in it.
    """
    if not path.is_file():
        raise SpecError(f"--weights {path}: {'is a folder; name a file in it' if path.is_dir() else 'no such file'}")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    for key in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise SpecError(f"--weights {path}: holds no state_dict; save one with torch.save(model.state_dict(), …)")
    state = dict(content)
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def _read_pickle(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged or foreign file
        if isinstance(error, UnpicklingError) and ("Unsupported" in str(error) or "GLOBAL" in str(error)):
            raise SpecError(
                f"--weights {path}: refused, since reading it would execute code; save the state_dict alone: "
                "torch.save(model.state_dict(), …), or safetensors"
            ) from error
        raise SpecError(f"--weights {path}: damaged, or not a file of torch.save") from error


def _read_safetensors(path: Path) -> Any:
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise SpecError(f"--weights {path}: needs safetensors; pip install 'resx[networks]'") from error
    try:
        return load_file(path)
    except Exception as error:  # safetensors has an error class of its own, which older versions lack
        raise SpecError(f"--weights {path}: damaged, or not a file of safetensors") from error


def content_hash(state: Mapping[str, Tensor]) -> str:
    """Return 16 hex digits of a SHA-256 over names, kinds, shapes and values: the same for every kind of file.

    Counters of batches are left out, since nothing that is measured depends on them.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        if not name.endswith("num_batches_tracked"):
            tensor = state[name].detach().cpu().contiguous()
            digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
            digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
