"""Measure the backward pass: the target's gradients, and the slopes of its own forward pass by differences."""

from dataclasses import dataclass

import numpy as np

from normkit.checking.measure.calls import call, running
from normkit.checking.measure.probe import Probe
from normkit.checking.patterns import Values
from normkit.checking.target.adapter import Adapter
from normkit.checking.target.backward import Gradients
from normkit.checking.target.errors import TargetError

GRADIENT_TOLERANCE = 0.03
"""The largest difference of a gradient from the slopes, relative to their size."""

_DIRECTIONS = 6


@dataclass(frozen=True)
class Backward:
    """The target's gradients and the slopes of its forward pass, in training, for the loss sum(y * dy).

    Args:
        x: The input.
        dy: The gradient of the loss by the output.
        affine: The weight and bias of the experiment.
        gradients: What its backward pass gave; None where it has none.
        trainable: Which of weight and bias require gradients.
        directions: Directions of x.
        slopes: The change of the loss along each of them, by differences.
    """

    x: Values
    dy: Values
    affine: dict[str, Values]
    gradients: Gradients | None
    trainable: list[str]
    directions: list[Values]
    slopes: Values

    def error_of(self, dx: Values) -> float:
        """Return the largest difference of dx from the slopes, relative to their size."""
        along = np.array([float((dx * direction).sum()) for direction in self.directions])
        return float(np.abs(along - self.slopes).max() / (np.abs(self.slopes).max() + 1e-12))


def measure_backward(probe: Probe) -> Backward:
    """Run the target's backward pass, and measure the slopes of its forward pass."""
    x = probe.x(seed=21)
    generator = np.random.default_rng(22)
    dy = generator.normal(size=x.shape)
    held = {} if probe.makes_affine_late else probe.layer().read(*probe.affine)
    affine = {role: generator.uniform(0.5, 1.5, values.size) for role, values in held.items()}
    with running("its backward pass"):
        gradients = _layer(probe, affine).backward(probe.library.make(x), dy)
    slots = _layer(probe, affine).slots()
    directions = [generator.normal(size=x.shape) for _ in range(_DIRECTIONS)]
    measured = Backward(
        x=x,
        dy=dy,
        affine=affine,
        gradients=gradients,
        trainable=[role for role in affine if getattr(slots[role].read(), "requires_grad", False)],
        directions=directions,
        slopes=np.array([_slope(probe, x, dy, affine, direction) for direction in directions]),
    )
    if gradients is not None and gradients.dx is None:  # left somewhere, under a name that tells nothing
        shaped = [values for values in gradients.candidates if values.shape == x.shape]
        gradients.dx = next((values for values in shaped if measured.error_of(values) < GRADIENT_TOLERANCE), None)
    if gradients is not None and gradients.dx is None and gradients.failure is not None:
        raise TargetError(gradients.failure, "its backward pass")
    return measured


def affine_slopes(probe: Probe, backward: Backward, role: str) -> Values:
    """Measure the change of the loss with each entry of weight or bias; exact, since the output is linear in them."""
    slopes = []
    for index in range(backward.affine[role].size):
        losses = []
        for step in (0.25, -0.25):
            changed = backward.affine[role].copy()
            changed[index] += step
            losses.append(_loss(probe, backward.x, backward.dy, {**backward.affine, role: changed}))
        slopes.append((losses[0] - losses[1]) / 0.5)
    return np.array(slopes)


def _layer(probe: Probe, affine: dict[str, Values]) -> Adapter:
    layer = probe.layer(neutral=not probe.makes_affine_late)
    layer.write(**affine)
    return layer


def _loss(probe: Probe, x: Values, dy: Values, affine: dict[str, Values]) -> float:
    return float((call(_layer(probe, affine), x) * dy).sum())


def _slope(probe: Probe, x: Values, dy: Values, affine: dict[str, Values], direction: Values) -> float:
    step = 1e-2
    up, down = probe.cast(x + step * direction), probe.cast(x - step * direction)
    return (_loss(probe, up, dy, affine) - _loss(probe, down, dy, affine)) / (2 * step)
