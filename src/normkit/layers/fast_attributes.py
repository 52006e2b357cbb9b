"""Tensors of a module, found fast.

torch.nn.Module finds a parameter or a buffer only after the usual search for an attribute has failed: half a
microsecond each, of which a batch norm has five. On the smallest inputs that is a tenth of the time.
"""

from functools import lru_cache
from typing import Any

from torch import Tensor
from torch.compiler import is_compiling
from torch.nn import Module


def get_weight(module: Module) -> Tensor | None:
    """Return weight alone."""
    if not is_compiling() and _is_plain(type(module)):  # type: ignore[arg-type]  # takes __hash__ for an object's
        parameters = module._parameters
        if "weight" in parameters:  # else a parametrization computes it, or it is no parameter any more
            return parameters["weight"]
    attributes: Any = module
    found: Tensor | None = attributes.weight
    return found


def get_affine(module: Module) -> tuple[Tensor | None, Tensor | None]:
    """Return weight and bias."""
    if not is_compiling() and _is_plain(type(module)):  # type: ignore[arg-type]  # takes __hash__ for an object's
        parameters = module._parameters
        try:
            return parameters["weight"], parameters["bias"]
        except KeyError:  # a parametrization computes one, or it is no parameter any more
            pass
    attributes: Any = module
    return attributes.weight, attributes.bias


def get_buffers(module: Module) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Return running_mean, running_var and num_batches_tracked."""
    if not is_compiling() and _is_plain(type(module)):  # type: ignore[arg-type]  # takes __hash__ for an object's
        buffers = module._buffers
        try:
            return buffers["running_mean"], buffers["running_var"], buffers["num_batches_tracked"]
        except KeyError:
            pass
    attributes: Any = module
    return attributes.running_mean, attributes.running_var, attributes.num_batches_tracked


@lru_cache(maxsize=256)
def _is_plain(module: type) -> bool:
    """Whether a class has no attributes of these names, as a subclass of ours with a property would."""
    names = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    return not any(hasattr(module, name) for name in names)
