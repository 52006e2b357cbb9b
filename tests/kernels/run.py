"""Run the kernels on a case; used by every test of this folder."""

from dataclasses import dataclass

import torch
from torch import Tensor

import normkit
from normkit.backends import Call, Epilogue, normalize
from normkit.statistics import Running
from tests.cases import Case, Draw


@dataclass
class Results:
    """What a training step gets from a norm."""

    y: Tensor
    dx: Tensor
    dweight: Tensor | None
    dbias: Tensor | None

    def bits(self) -> list[bytes]:
        """The exact bits of everything, to compare."""
        found = (self.y, self.dx, self.dweight, self.dbias)
        return [tensor.contiguous().view(torch.uint8).numpy().tobytes() for tensor in found if tensor is not None]


def run(case: Case, data: Draw, use_torch: bool = False, running: Running | None = None) -> Results:
    """Forward and backward, with the kernels or with torch.nn.functional; with running statistics if given."""
    x = data.x.detach().requires_grad_()
    weight, bias = (None if t is None else t.detach().requires_grad_() for t in (data.weight, data.bias))
    if use_torch:
        y = case.torch(x, weight, bias, data.eps)
    else:
        with normkit.use_backend("numba"):
            epilogue = None if case.bounds is None else Epilogue(case.bounds)
            y = normalize(Call(x, case.norm, weight, bias, data.eps, running, running is None, epilogue))
    y.backward(data.dy)
    assert x.grad is not None
    return Results(y.detach(), x.grad, *(None if t is None else t.grad for t in (weight, bias)))
