"""Training with normkit's layers and with torch.nn's, side by side.

Two right implementations round differently, and training carries every rounding on to all later steps. A difference
after many steps therefore mixes the layers with the training, so two questions are asked, of two twins:

- *Is each step right?* The first twin, with torch.nn's layers, takes over weights and running statistics before
  every step, then both do the step on the same images. What differs is the layers' own rounding: the verdict is
  on this.
- *How far do they drift?* The second twin starts from the same weights and then goes its own way on the same images,
  as two separate trainings would. Its differences are reported; how fast they grow is a matter of data and learning
  rate, so they have no tolerance.

All differences are relative: the loss to itself or to 1 if it is smaller, a gradient or weight to the largest of its
layer, a running statistic to its largest channel.
"""

from typing import Any, Final

import torch
from torch import Tensor, nn

from normkit.train.results import NormResult, StepDifference, Verdict
from normkit.train.step import forward_backward

# float32 carries 6e-8. Losses and running statistics were never further apart than a few of these.
LOSS_TOLERANCE: Final = 1e-5
RUNNING_TOLERANCE: Final = 1e-5
# A gradient is a sum of many terms that nearly cancel, through four normalizations: torch.nn in float32 is itself
# 7e-5 away from torch.nn in float64 in 500 steps on Fashion-MNIST, and more as gradients shrink in a long training.
# A wrong formula is off by 1e-2 and more.
GRADIENT_TOLERANCE: Final = 1e-3


class Lockstep:
    """The two twins of one model in training.

    Args:
        model: The network with normkit's layers.
        twins: Two networks of the same build with torch.nn's layers; their weights are overwritten.
        lr: Learning rate of the second twin's SGD.
    """

    def __init__(self, model: nn.Sequential, twins: tuple[nn.Sequential, nn.Sequential], lr: float) -> None:
        self.model = model
        self.synced, self.free = twins
        self.free.load_state_dict(model.state_dict())
        self.optimizer = torch.optim.SGD(self.free.parameters(), lr=lr)
        self._losses = (0.0, 0.0)

    def before_step(self, images: Tensor, labels: Tensor) -> None:
        """Let both twins compute the step that ``model`` is about to do."""
        self.synced.load_state_dict(self.model.state_dict())
        synced_loss, _ = forward_backward(self.synced, images, labels)
        free_loss, _ = forward_backward(self.free, images, labels)
        self.optimizer.step()
        self._losses = (synced_loss, free_loss)

    def after_step(self, norm: str, epoch: int, step: int, loss: float) -> StepDifference:
        """Compare, now that ``model`` has done the step with ``loss``."""
        synced_loss, free_loss = self._losses
        return StepDifference(
            norm=norm,
            epoch=epoch,
            step=step,
            loss=_loss_difference(loss, synced_loss),
            gradient=_gradient_difference(self.model, self.synced),
            running=_running_difference(self.model, self.synced),
            drift_loss=_loss_difference(loss, free_loss),
            drift_gradient=_gradient_difference(self.model, self.free),
            drift_running=_running_difference(self.model, self.free),
            drift_weight=_weight_difference(self.model, self.free),
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the second twin; the first has no state of its own."""
        return {"free": self.free.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state that ``state_dict`` returned."""
        self.free.load_state_dict(state["free"])
        self.optimizer.load_state_dict(state["optimizer"])


def verdict(result: NormResult) -> Verdict:
    """Return the largest of each difference; a difference that is not a number fails."""

    def largest(name: str) -> float:
        return float(torch.tensor([getattr(row, name) for row in result.differences], dtype=torch.float64).max())

    names = ("loss", "gradient", "running", "drift_loss", "drift_gradient", "drift_running", "drift_weight")
    worst = {name: largest(name) for name in names}
    passed = (
        worst["loss"] <= LOSS_TOLERANCE
        and worst["gradient"] <= GRADIENT_TOLERANCE
        and worst["running"] <= RUNNING_TOLERANCE
    )
    assert result.twin_test_accuracy is not None
    return Verdict(
        norm=result.norm,
        steps=len(result.differences),
        test_accuracy=result.epochs[-1].test_accuracy,
        twin_test_accuracy=result.twin_test_accuracy,
        passed=passed,
        **worst,
    )


def _relative(pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Return the largest difference of all pairs, in units of the largest value on the right."""
    difference = torch.stack([(ours.double() - theirs.double()).abs().max() for ours, theirs in pairs]).max()
    scale = torch.stack([theirs.double().abs().max() for _, theirs in pairs]).max()
    return difference if difference == 0 else difference / scale


def _loss_difference(ours: float, theirs: float) -> float:
    # A small loss is a difference of logits of size 1 and more, and is rounded as they are.
    return abs(ours - theirs) / max(1.0, abs(theirs))


def _gradient_difference(ours: nn.Sequential, theirs: nn.Sequential) -> float:
    # One scale a layer, not a tensor: the gradient of a bias before batch norm is zero but for rounding.
    layers = []
    for our_layer, their_layer in zip(ours, theirs, strict=True):
        parameters = zip(our_layer.parameters(), their_layer.parameters(), strict=True)
        pairs = [(a.grad, b.grad) for a, b in parameters if a.grad is not None and b.grad is not None]
        if pairs:
            layers.append(_relative(pairs))
    return float(torch.stack(layers).max())


def _weight_difference(ours: nn.Sequential, theirs: nn.Sequential) -> float:
    layers = []
    for our_layer, their_layer in zip(ours, theirs, strict=True):
        pairs = [
            (a.detach(), b.detach()) for a, b in zip(our_layer.parameters(), their_layer.parameters(), strict=True)
        ]
        if pairs:
            layers.append(_relative(pairs))
    return float(torch.stack(layers).max())


def _running_difference(ours: nn.Sequential, theirs: nn.Sequential) -> float:
    buffers = [_relative([pair]) for pair in zip(ours.buffers(), theirs.buffers(), strict=True)]
    return float(torch.stack(buffers).max()) if buffers else 0.0
