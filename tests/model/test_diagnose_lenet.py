"""LeNet at learning rate 1.0: its test accuracy jumps between epochs, since the running statistics lag behind."""

import pytest
import torch
from torch.nn import functional as F

import normkit
from normkit.train.data import epoch_batches, load_dataset, to_input
from normkit.train.model import LeNet, lenet

pytestmark = pytest.mark.slow


def accuracy(model: LeNet, images: torch.Tensor, labels: torch.Tensor) -> float:
    with torch.no_grad():
        return float((model.eval()(images).argmax(1) == labels).double().mean())


def test_lenet_at_learning_rate_1_has_stale_statistics_until_they_are_recalibrated() -> None:
    digits = load_dataset("digits")
    x, y, test_x = to_input(digits.train_images), digits.train_labels, to_input(digits.test_images)
    model = lenet("batch", "torch", 0)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    for epoch in range(2):
        model.train()
        for rows in epoch_batches(len(x), 256, 0, epoch):
            optimizer.zero_grad()
            F.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
    batches = [x[rows] for rows in epoch_batches(len(x), 256, 0, 2)]

    found = normkit.diagnose(model, batches)
    assert found.findings[0].code == "stale-statistics", found
    before = accuracy(model, test_x, digits.test_labels)
    normkit.recalibrate(model, batches)
    after = normkit.diagnose(model, batches)
    assert after.healthy, after
    assert after.gap < 0.2 * found.gap
    assert accuracy(model, test_x, digits.test_labels) > before + 0.5
