"""Opacus, which refuses batch norms, takes and trains a converted model."""

from typing import Any

import pytest
import torch
from torch import nn

import normkit

pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore")]


@pytest.mark.parametrize("to", ["group", "layer", "instance"])
def test_a_converted_model_is_valid_and_trains(to: str) -> None:
    opacus: Any = pytest.importorskip("opacus")
    validators: Any = pytest.importorskip("opacus.validators")
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        normkit.BatchNormAct2d(16),
        nn.Flatten(),
        nn.Linear(16 * 36, 4),
    )
    assert not validators.ModuleValidator.is_valid(model)
    normkit.convert(model, to)
    assert validators.ModuleValidator.validate(model, strict=False) == []
    before = [parameter.detach().clone() for parameter in model.parameters()]
    data = torch.utils.data.TensorDataset(torch.randn(16, 3, 8, 8), torch.randint(0, 4, (16,)))
    private, optimizer, loader = opacus.PrivacyEngine().make_private(
        module=model,
        optimizer=torch.optim.SGD(model.parameters(), 0.1),
        data_loader=torch.utils.data.DataLoader(data, batch_size=8),
        noise_multiplier=1.0,
        max_grad_norm=1.0,
    )
    for x, label in loader:
        optimizer.zero_grad()
        nn.functional.cross_entropy(private(x), label).backward()
        optimizer.step()
    assert not any(torch.equal(*pair) for pair in zip(before, model.parameters(), strict=True))
