"""The constructed network: the outputs of a shallow plain network from a deep one, to rounding."""

import pytest
import torch

from resx import data, model
from resx.data.batches import Batches
from resx.measurements.construct import compare, difference
from resx.spec import DataSpec, ModelSpec, SpecError
from resx.training.initial import TRANSFORMS

DATA = data.complete(DataSpec(dataset="synthetic:train=60,test=20,classes=4,size=8"))


@pytest.fixture(scope="module")
def batches():
    return Batches(data.load(DATA), DATA, 16, 0, "cpu")


def network_of(depth, seed, shake=True, **fields):
    """A plain network whose weights and running statistics are not the initial ones."""
    spec = ModelSpec.model_validate({"depth": depth, "width": 4, "shortcut": "none", **fields})
    network = model.build(spec, data.load(DATA).input_shape, 4, seed)
    if shake:
        stream = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for value in network.state_dict().values():
                if value.is_floating_point():
                    value.add_(0.2 * torch.rand(value.shape, generator=stream))
    return network.eval()


def deepened(parent, batches, depth=20, **fields):
    child = network_of(depth, 1, **fields).double()
    child.load_state_dict(TRANSFORMS["deepen"](parent, child, batches))
    return child


@pytest.mark.parametrize("norm", ["batch", "none"])
@pytest.mark.parametrize("depth", [8, 14])
def test_a_deepened_network_has_the_outputs_of_the_shallow_one(depth, norm, batches):
    parent = network_of(depth, 0, norm=norm)
    child = deepened(parent, batches, norm=norm)
    inputs = [(x.double(), y) for x, y in batches.evaluation("train", None, 25)]
    found = difference(parent, child, inputs, "classification", training=False)
    assert found["images"] == 60
    assert found["scale"] > 1e-3
    assert found["max_difference"] <= 1e-9
    assert found["changed"] == 0
    unlike = difference(parent, network_of(20, 1, norm=norm), inputs, "classification", training=False)
    assert unlike["max_difference"] > 1e-3


def test_new_normalisations_have_the_statistics_of_the_data(batches):
    parent = network_of(8, 0)
    child = deepened(parent, batches)
    block = child.get_submodule("stages.1.1")
    inputs = []
    handle = block.register_forward_hook(lambda module, arguments, output: inputs.append(arguments[0]))
    child(next(batches.evaluation("train", None, 60))[0].double())
    handle.remove()
    [x] = inputs
    for norm in (block.branch.norm1, block.branch.norm2):
        torch.testing.assert_close(norm.running_mean, x.mean((0, 2, 3)))
        torch.testing.assert_close(norm.running_var, x.var((0, 2, 3), unbiased=False))
    # so with the statistics of all these images it is the identity in training mode too, and not with those of fewer
    torch.testing.assert_close(block.train()(x), x, rtol=0, atol=1e-9)
    assert (block(x[:8]) - x[:8]).abs().max() > 1e-3


def test_the_parent_is_left_as_it_was(batches):
    parent = network_of(8, 0)
    before = {name: value.clone() for name, value in parent.state_dict().items()}
    deepened(parent, batches)
    assert all(torch.equal(before[name], value) for name, value in parent.state_dict().items())
    assert next(parent.parameters()).dtype == torch.float32


def test_both_modes_and_precisions_are_reported(batches):
    parent = network_of(8, 0)
    exact = deepened(parent, batches)
    rounded = network_of(20, 1)
    rounded.load_state_dict(exact.state_dict())
    inputs = list(batches.evaluation("train", None, 20))
    found = compare(parent, exact, rounded, inputs, inputs, "classification").set_index(["mode", "precision"])
    largest = found["max_difference"]
    assert largest["eval", "float64"] <= 1e-9 < largest["eval", "float32"] < 1e-2
    assert largest["training", "float64"] > 1e-6  # statistics of each batch differ from those of all images


@pytest.mark.parametrize(
    ("parent", "child", "words"),
    [
        ({"depth": 8, "shortcut": "identity"}, {"depth": 14, "shortcut": "identity"}, "plain"),
        ({"depth": 8, "order": "pre"}, {"depth": 14, "order": "pre"}, "original order"),
        ({"depth": 14}, {"depth": 8}, "no stage may lose"),
    ],
)
def test_what_cannot_be_deepened_is_refused(parent, child, words, batches):
    with pytest.raises(SpecError, match=words):
        TRANSFORMS["deepen"](network_of(seed=0, **parent), network_of(seed=1, **child), batches)
