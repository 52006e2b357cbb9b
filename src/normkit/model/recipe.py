"""A recipe: how to compute with normkit what a hand-written norm computes."""

import torch
from torch import Tensor, nn

from normkit.layers.tracing import is_no_tensor, record, refuse_script

__all__ = ["PROVEN", "Recipe"]

# The attribute that holds, on a swapped module, the (input, weight) dtypes in which its recipe was proven equal.
PROVEN = "_normkit_proven"


class Recipe(nn.Module):
    """How to compute what a family of hand-written norms computes. Subclass it, and register the class.

    A recipe says which modules it may stand for (:meth:`fits`), how to compute their result with normkit
    (:meth:`normalize`), and on which inputs the two are compared (:meth:`shapes`). A swapped module gets a class that
    is derived from the recipe and from the module's own class. In dtypes that were not proven equal, and under
    autocast, the module's own code goes on running.
    """

    weight: Tensor

    __prepare_scriptable__ = refuse_script

    @classmethod
    def fits(cls, module: nn.Module) -> bool:
        """Tell from its attributes whether a module may be one of these; it is verified afterwards."""
        raise NotImplementedError

    @classmethod
    def shapes(cls, module: nn.Module) -> tuple[tuple[int, ...], ...]:
        """Return shapes of the inputs on which the module and the recipe are compared."""
        size = tuple(module.weight.shape)  # type: ignore[arg-type]
        return (2, 3, *size), (5, *size)

    def normalize(self, x: Tensor) -> Tensor:
        """Compute what the module computes; ``self`` is the module."""
        raise NotImplementedError

    def forward(self, *args: Tensor, **kwargs: Tensor) -> Tensor:
        """Normalize where that is proven equal; otherwise run the module's own code."""
        tensors = (*args, *kwargs.values())
        if len(tensors) == 1 and is_no_tensor(tensors[0]):
            return record(self, Recipe.forward, *args, **kwargs)
        if len(tensors) == 1 and not torch.is_autocast_enabled(tensors[0].device.type):
            (x,) = tensors
            if (x.dtype, self.weight.dtype) in vars(self)[PROVEN]:
                return self.normalize(x)
        result: Tensor = super().forward(*args, **kwargs)
        return result
