"""What follows a norm, by plain operations: for back ends that do not do it in the pass that normalizes."""

import torch
from torch import Tensor

from normkit.backends.call import RELU, Epilogue


def apply_epilogue(y: Tensor, epilogue: Epilogue | None) -> Tensor:
    """Add the residual to a fresh result and hold it between the bounds; may overwrite y."""
    if epilogue is None:
        return y
    if epilogue.residual is not None:
        y = y + epilogue.residual
    if epilogue.bounds is None:
        return y
    return torch.relu_(y) if epilogue.bounds == RELU else torch.nn.functional.hardtanh(y, *epilogue.bounds)


def bounds_backward(dy: Tensor, y: Tensor, bounds: tuple[float, float]) -> Tensor:
    """Return the gradient of a result before bounds held it: dy, and 0 where y is at a bound."""
    aten = torch.ops.aten
    dx: Tensor = aten.threshold_backward(dy, y, 0.0) if bounds == RELU else aten.hardtanh_backward(dy, y, *bounds)
    return dx
