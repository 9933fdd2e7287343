"""A small network in float64 with weights off their initial values, and a batch for it."""

import pytest
import torch

from resx import model
from resx.spec import ModelSpec


def _network(*, shift=0.1, **fields):
    fields = {"depth": 14, "width": 4, **fields}
    network = model.build(ModelSpec.model_validate(fields), (1, 8, 8), 10, 0).double().train()
    stream = torch.Generator().manual_seed(1)
    with torch.no_grad():  # gains and biases off 1 and 0
        for parameter in network.parameters():
            parameter.add_(shift * torch.randn(parameter.shape, generator=stream))
    return network


@pytest.fixture
def network_of():
    return _network


@pytest.fixture
def batch():
    stream = torch.Generator().manual_seed(2)
    return torch.randn(6, 1, 8, 8, generator=stream, dtype=torch.float64), torch.arange(6)
