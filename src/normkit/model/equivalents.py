"""The layer of normkit that is equivalent to each norm of torch.nn."""

from torch import nn

from normkit import layers

__all__ = ["EQUIVALENTS", "FORWARD", "torch_norm"]

# The methods that a subclass must inherit, so that its forward pass can be replaced.
FORWARD = ("forward", "__call__", "_call_impl", "_apply_instance_norm")

EQUIVALENTS: dict[type[nn.Module], type[nn.Module]] = {
    getattr(nn, name): getattr(layers, name) for name in layers.__all__ if hasattr(nn, name)
}

# Norms of torch.nn that normkit does not have.
WITHOUT_EQUIVALENT: tuple[type[nn.Module], ...] = (nn.LocalResponseNorm, nn.CrossMapLRN2d)


def torch_norm(cls: type[nn.Module]) -> type[nn.Module] | None:
    """Return the nearest norm of torch.nn that a class is or derives from; None if there is none."""
    return next((base for base in cls.__mro__ if base in EQUIVALENTS or base in WITHOUT_EQUIVALENT), None)
