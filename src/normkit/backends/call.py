"""One normalization as one value: what every back end takes."""

from math import inf
from typing import Final, NamedTuple

from torch import Tensor

from normkit.spec import Norm
from normkit.statistics import Running

RELU: Final = (0.0, inf)  # the bounds of a ReLU


class Epilogue(NamedTuple):
    """What becomes of a result before it is returned: a residual is added, then bounds hold it.

    Args:
        bounds: Lower and upper: (0, inf) is a ReLU, (0, 6) a ReLU6; None: there are none.
        residual: What is added before that, of a shape that broadcasts to that of the result; None: nothing.
    """

    bounds: tuple[float, float] | None = None
    residual: Tensor | None = None


class Call(NamedTuple):
    """One normalization.

    Args:
        x: The input.
        norm: Which axes.
        weight, bias: Of shape ``norm.affine_shape(x.shape)``, or None.
        eps: Added to the variance, inside the square root.
        running: Running statistics of shape (C,): updated, and the batch counted, if use_input_stats, else used in
            place of the input's own.
        use_input_stats: Whether to take the statistics from x.
        epilogue: What becomes of the result; None: nothing.
    """

    x: Tensor
    norm: Norm
    weight: Tensor | None = None
    bias: Tensor | None = None
    eps: float = 1e-5
    running: Running | None = None
    use_input_stats: bool = True
    epilogue: Epilogue | None = None

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Of the result."""
        return None if self.epilogue is None else self.epilogue.bounds

    @property
    def residual(self) -> Tensor | None:
        """What is added to the result."""
        return None if self.epilogue is None else self.epilogue.residual
