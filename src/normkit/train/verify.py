"""Training with somebody's layers and with torch.nn's, side by side.

Two right implementations round differently, and training carries every rounding on to all later steps. A difference
after many steps therefore mixes the layers with the training, so two questions are asked, of two twins:

- *Is each step right?* The first twin, with torch.nn's layers, takes over weights and running statistics before
  every step, then both do the step on the same images. What differs is the layers' own doing: the verdict is on this,
  and on the output in evaluation after each epoch, for which the twin takes over what the training left.
- *How far do they drift?* The second twin starts from the same weights and then goes its own way on the same images,
  as two separate trainings would. Its differences are reported; how fast they grow is a matter of data and learning
  rate, so they have no tolerance.

All differences are relative: the loss to itself or to 1 if it is smaller, an output to the largest of its layer, a
gradient or weight to the largest of its layer, a running statistic to its largest channel.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from normkit.train.compare import (
    ByLayer,
    FirstOutputs,
    gradient_differences,
    output_differences,
    running_differences,
    weight_differences,
)
from normkit.train.data import to_input
from normkit.train.model import LeNet
from normkit.train.own import check_command, shown
from normkit.train.quantities import QUANTITIES, Quantity, worst
from normkit.train.results import NormResult, QuantityVerdict, StepDifference, Verdict
from normkit.train.states import take_over
from normkit.train.step import forward_backward


class Lockstep:
    """The two twins of one model in training.

    Args:
        model: The network that is verified.
        twins: Two networks of the same build with torch.nn's layers; their weights are overwritten.
        lr: Learning rate of the second twin's SGD.
        image_size: Height and width of the images.
        share: Takes from a batch what ``model`` sees of it.
    """

    def __init__(
        self,
        model: LeNet,
        twins: tuple[LeNet, LeNet],
        lr: float,
        image_size: int,
        share: Callable[[Tensor], Tensor] = lambda batch: batch,
    ) -> None:
        self.model = model
        self.synced, self.free = twins
        self.image_size = image_size
        self.share = share
        take_over(self.free, model)
        self.optimizer = torch.optim.SGD(self.free.parameters(), lr=lr)
        self._outputs, self._twin_outputs = FirstOutputs(model), FirstOutputs(self.synced)
        self._free_loss = 0.0

    def before_step(self, images: Tensor, labels: Tensor) -> None:
        """Let both twins compute the step that ``model`` is about to do."""
        self._prepare()
        forward_backward(self.synced, images, labels, self.image_size)
        self._free_loss, _ = forward_backward(self.free, images, labels, self.image_size)
        self.optimizer.step()

    def after_step(self, loss: float) -> dict[str, Any]:
        """Compare, now that ``model`` has done the step with ``loss``; return fields of a ``StepDifference``."""
        found = {
            "output": self._outputs_differ(self.share),
            "gradient": gradient_differences(self.model, self.synced),
            **running_differences(self.model, self.synced),
        }
        drift_running = running_differences(self.model, self.free)
        return {
            **_fields(found),
            "drift_loss": abs(loss - self._free_loss) / max(1.0, abs(self._free_loss)),
            "drift_gradient": _worst(gradient_differences(self.model, self.free)),
            "drift_running": worst(map(_worst, drift_running.values())),
            "drift_weight": _worst(weight_differences(self.model, self.free)),
        }

    def before_evaluation(self) -> None:
        """Note weights and running statistics before ``model`` is evaluated, which moves those of some layers."""
        self._prepare()

    def after_evaluation(self, images: Tensor) -> dict[str, Any]:
        """Compare, now that ``model`` was evaluated with ``images`` as its first batch."""
        self.synced.eval()
        with torch.no_grad():
            self.synced(to_input(images, self.image_size))
        self.synced.train()
        return _fields({"evaluation": self._outputs_differ()})

    def _prepare(self) -> None:
        take_over(self.synced, self.model)
        self._outputs.by_name.clear()
        self._twin_outputs.by_name.clear()

    def _outputs_differ(self, share: Callable[[Tensor], Tensor] = lambda batch: batch) -> ByLayer:
        theirs = {name: share(output) for name, output in self._twin_outputs.by_name.items()}
        return output_differences(self._outputs.by_name, theirs)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the second twin; the first has no state of its own."""
        return {"free": self.free.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state that ``state_dict`` returned."""
        self.free.load_state_dict(state["free"])
        self.optimizer.load_state_dict(state["optimizer"])


def _worst(by_layer: ByLayer) -> float:
    return worst(by_layer.values()) if by_layer else 0.0


def _fields(found: Mapping[str, ByLayer]) -> dict[str, Any]:
    """Return the fields of a ``StepDifference`` for what was compared."""
    fields: dict[str, Any] = {}
    for quantity in QUANTITIES:
        largest = quantity.largest(found.get(quantity.name, {}))
        if largest is not None:
            fields |= {quantity.name: largest.value, f"{quantity.name}_layer": largest.layer}
    return fields


def verdict(result: NormResult) -> Verdict:
    """Say of every quantity in which step it left its tolerance first, and how far it went."""
    rows, last = result.differences, result.differences[-1]
    assert result.twin_test_accuracy is not None
    quantities = [found for quantity in QUANTITIES if (found := _judged(quantity, rows)) is not None]

    def largest(name: str) -> float:
        return worst(getattr(row, name) for row in rows)

    return Verdict(
        norm=result.norm,
        impl=result.impl,
        target=result.target,
        steps=last.step,
        passed=all(found.first_step is None for found in quantities),
        quantities=quantities,
        drift_loss=largest("drift_loss"),
        drift_gradient=largest("drift_gradient"),
        drift_running=largest("drift_running"),
        drift_weight=largest("drift_weight"),
        test_accuracy=result.epochs[-1].test_accuracy,
        twin_test_accuracy=result.twin_test_accuracy,
    )


def _judged(quantity: Quantity, rows: list[StepDifference]) -> QuantityVerdict | None:
    measured = [(row.step, found) for row in rows if (found := row.of(quantity.name)) is not None]
    if not measured:
        return None
    beyond = next(((step, found) for step, found in measured if quantity.exceeded_by(found.value)), None)
    largest = worst(found.value for _, found in measured)
    at_largest = next(found for _, found in measured if found.value == largest or math.isnan(largest))
    return QuantityVerdict(
        quantity=quantity.name,
        tolerance=quantity.tolerance,
        first_step=beyond[0] if beyond else None,
        largest=largest,
        layer=(beyond[1] if beyond else at_largest).layer,
    )


def conclusion(verdict: Verdict) -> str:
    """Say in a line where somebody's own layer departs from torch.nn's, and which command says why."""
    name = shown(verdict.target)
    if verdict.passed:
        return f"{name}: same as torch.nn's in all {verdict.steps:,} steps"
    titles = {quantity.name: quantity.title for quantity in QUANTITIES}
    *others, last = [titles[found.quantity] for found in verdict.first_beyond]
    listed = f"{', '.join(others)} and {last}" if others else last
    return (
        f"{name} departs from torch.nn at step {verdict.first_beyond[0].first_step:,} in the {listed}: "
        f"{check_command(verdict.target)} says why"
    )
