"""The arithmetic of one training step and of one test."""

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from normkit.train.config import IMAGE_SIZE
from normkit.train.data import to_input

TEST_BATCH: Final = 1024


def forward_backward(
    model: nn.Module, images: Tensor, labels: Tensor, image_size: int = IMAGE_SIZE
) -> tuple[float, int]:
    """Leave the gradients of the mean cross-entropy in the parameters; return it and the number of right answers."""
    model.zero_grad(set_to_none=True)
    outputs = model(to_input(images, image_size))
    loss = F.cross_entropy(outputs, labels)
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.item(), int((outputs.argmax(1) == labels).sum())


def test_batch(image_size: int) -> int:
    """Return how many images are tested at a time: as many as fill the memory of ``TEST_BATCH`` of usual size."""
    return max(1, TEST_BATCH * IMAGE_SIZE**2 // max(image_size, IMAGE_SIZE) ** 2)


def evaluate(model: nn.Module, images: Tensor, labels: Tensor, image_size: int = IMAGE_SIZE) -> tuple[float, float]:
    """Return mean loss and accuracy in evaluation mode; leave the model in training mode."""
    model.eval()
    loss, correct, batch = 0.0, 0, test_batch(image_size)
    with torch.no_grad():
        for start in range(0, len(images), batch):
            part = slice(start, start + batch)
            outputs = model(to_input(images[part], image_size))
            loss += F.cross_entropy(outputs, labels[part], reduction="sum").item()
            correct += int((outputs.argmax(1) == labels[part]).sum())
    model.train()
    return loss / len(images), correct / len(images)
