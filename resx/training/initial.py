"""Initial weights that come from another run: `init_from` names the parent and a transformation of its weights.

A transformation takes the parent's network (in eval mode, its last weights loaded), the new network (initialised by
its seed) and the data set, and returns the state that the new network starts from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor, nn

from resx import model
from resx.data import Dataset
from resx.registry import Registry
from resx.spec import RunSpec, SpecError
from resx.store import read_run

Transform = Callable[[nn.Module, nn.Module, Dataset], Mapping[str, Tensor]]
TRANSFORMS: Registry[Transform] = Registry("transformation")


@TRANSFORMS.register("same")
def same(parent: nn.Module, child: nn.Module, dataset: Dataset) -> Mapping[str, Tensor]:
    """The parent's weights as they are, for a restart; momentum starts at zero."""
    return parent.state_dict()


def build_network(spec: RunSpec, dataset: Dataset, results: Path) -> nn.Module:
    """Build a run's network with the weights it starts training from.

    Raises SpecError where the parent is not recorded or its weights do not fit.
    """
    network = model.build(spec.model, dataset.input_shape, dataset.n_outputs, spec.seed)
    if spec.init_from is None:
        return network
    folder = results / "runs" / spec.init_from.run
    if not (folder / "result.json").exists():
        raise SpecError(f"init_from: run {spec.init_from.run} is not finished in {results}; train it first")
    parent_run = read_run(folder)
    parent = model.build(parent_run.spec.model, dataset.input_shape, dataset.n_outputs, parent_run.spec.seed)
    parent.load_state_dict(parent_run.load_weights())
    state = TRANSFORMS[spec.init_from.transform](parent.eval(), network, dataset)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise SpecError(
            f"init_from: the weights of {spec.init_from.run} after '{spec.init_from.transform}' do not fit "
            f"the network of this run ({str(error).splitlines()[-1].strip()})"
        ) from error
    return network
