"""The spectrum of the shortcut path: exact for maps whose product is known, masks and summaries included."""

import numpy as np
import pandas as pd
import pytest
import torch

from resx.measurements.spectrum import FLOOR, shortcut_jacobians, spectrum, summary
from resx.model import SHORTCUTS


def singular_values(table: pd.DataFrame) -> np.ndarray:
    return table.pivot(index="image", columns="rank", values="value").to_numpy()


@pytest.mark.parametrize(
    ("shortcut", "expected"),
    [("identity", 1.0), ("negation", 1.0), ("scaled:alpha=0.5", 0.5**6), ("convex:alpha=0.75", 0.75**6), ("none", 0.0)],
)
def test_without_masks_a_constant_gives_its_power(network_of, batch, shortcut: str, expected: float) -> None:
    values = singular_values(spectrum(network_of(shortcut=shortcut, order="pre"), batch[0]))
    assert values.shape == (6, 4)
    np.testing.assert_allclose(values, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("shortcut", ["permutation", "orthogonal"])
def test_isometries_keep_all_directions(network_of, batch, shortcut: str) -> None:
    found = summary(spectrum(network_of(shortcut=shortcut, order="pre"), batch[0]))
    assert found["distance"] == pytest.approx(0, abs=1e-5)
    assert found["directions"] == 1


def test_a_product_of_maps_written_by_hand(network_of, batch) -> None:
    network = network_of(shortcut="gaussian", order="pre", depth=8)
    product = torch.eye(4, dtype=torch.float64)
    for block in network.blocks:
        fixed = block.shortcut.map
        product = fixed @ torch.nn.functional.pad(product, (0, 0, 0, len(fixed) - len(product)))
    expected = torch.linalg.svdvals(product)
    np.testing.assert_allclose(singular_values(spectrum(network, batch[0])), expected.repeat(6, 1), rtol=1e-9)


def test_relus_cut_what_they_cut(network_of, batch) -> None:
    """In the original order the path of an identity network is a product of masks: ones and zeros."""
    network = network_of(shortcut="identity", order="post")
    jacobians = shortcut_jacobians(network, batch[0])
    assert set(jacobians.unique().tolist()) == {0.0, 1.0}
    assert jacobians.flatten(1).sum(1).max() <= 4
    with torch.no_grad():  # a last block that puts out nothing but zeros lets nothing through
        network.blocks[-1].branch.norm2.weight.zero_()
        network.blocks[-1].branch.norm2.bias.fill_(-1e6)
    assert not shortcut_jacobians(network, batch[0]).any()


@pytest.mark.parametrize("name", list(SHORTCUTS))
def test_every_shortcut_has_a_spectrum(network_of, batch, name: str) -> None:
    values = spectrum(network_of(shortcut=name), batch[0])["value"]
    streams = getattr(network_of(shortcut=name).blocks[0].shortcut, "streams", 1)
    assert len(values) == 6 * 4 * streams
    assert np.isfinite(values).all() and (values >= 0).all()


@pytest.mark.parametrize("adapter", ["B", "C"])
def test_an_input_s_spectrum_does_not_see_how_other_inputs_depend_on_it(network_of, batch, adapter: str) -> None:
    """One input at a time, with everybody's statistics, gives what all of them at once do."""
    network = network_of(adapter=adapter)
    together = shortcut_jacobians(network, batch[0])
    network.eval()  # keeps the statistics of all inputs
    one_by_one = torch.cat([shortcut_jacobians(network, x[None]) for x in batch[0]])
    torch.testing.assert_close(together, one_by_one, rtol=1e-8, atol=1e-10)


def test_summary() -> None:
    table = pd.DataFrame({"image": [0, 0, 1, 1], "rank": [1, 2, 1, 2], "value": [10.0, 0.1, 10.0, 0.0]})
    found = summary(table)
    assert found["gain"] == pytest.approx(np.sqrt(200.01 / 4))
    assert found["distance"] == pytest.approx(np.sqrt((1 + 1 + 1 + np.log10(FLOOR) ** 2) / 4))
    assert found["directions"] == 0.5
