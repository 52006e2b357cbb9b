"""Measure the backward pass: the target's gradients, and the slopes of its own forward pass by differences."""

from typing import TYPE_CHECKING

import numpy as np

from normkit.checking.arrays import Values
from normkit.checking.layer import Gradients, Layer

if TYPE_CHECKING:
    from normkit.checking.lab import Lab

_DIRECTIONS = 6


class Measured:
    """The target's gradients and the slopes of its forward pass, in training.

    Args:
        lab: The laboratory.
    """

    def __init__(self, lab: "Lab") -> None:
        self.lab = lab
        self.x = lab.x(seed=21)
        generator = np.random.default_rng(22)
        self.dy = generator.normal(size=self.x.shape)
        self.affine = {
            role: generator.uniform(0.5, 1.5, value.size) for role, value in self._layer().read(*lab.affine).items()
        }
        with lab.running("its backward pass"):
            self.gradients: Gradients | None = self.layer().backward(lab.library.make(self.x), self.dy, True)
        slots = self.layer().slots()
        self.trained = [role for role in lab.affine if getattr(slots[role].read(), "requires_grad", False)]
        self.directions = [generator.normal(size=self.x.shape) for _ in range(_DIRECTIONS)]
        self.slopes = np.array([self.slope(direction) for direction in self.directions])

    def _layer(self) -> Layer:
        return self.lab.layer()

    def layer(self) -> Layer:
        """A fresh layer with the weight and bias of this experiment."""
        layer = self._layer()
        layer.write(**self.affine)
        return layer

    def loss(self, x: Values, **affine: Values) -> float:
        """sum(y * dy)."""
        layer = self.layer()
        layer.write(**affine)
        return float((self.lab.forward(layer, x) * self.dy).sum())

    def slope(self, direction: Values) -> float:
        """The change of the loss along a direction of x, by differences."""
        step = 1e-2
        up, down = self.lab.cast(self.x + step * direction), self.lab.cast(self.x - step * direction)
        return (self.loss(up) - self.loss(down)) / (2 * step)

    def affine_slopes(self, role: str) -> Values:
        """The change of the loss with each entry of weight or bias; exact, since the output is linear in them."""
        held, slopes = self.affine[role], []
        for index in range(held.size):
            up, down = held.copy(), held.copy()
            up[index] += 0.25
            down[index] -= 0.25
            slopes.append((self.loss(self.x, **{role: up}) - self.loss(self.x, **{role: down})) / 0.5)
        return np.array(slopes)

    def error_of(self, dx: Values) -> float:
        """How far dx is from the slopes, relative to their size."""
        along = np.array([float((dx * direction).sum()) for direction in self.directions])
        return float(np.abs(along - self.slopes).max() / (np.abs(self.slopes).max() + 1e-12))
