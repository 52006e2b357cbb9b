"""Which layer of ours stands for which of torch.nn's."""

from torch import nn

from normkit import layers

# What a subclass may not override, if its forward pass is to be ours.
FORWARD = ("forward", "__call__", "_call_impl", "_apply_instance_norm")

TWINS: dict[type[nn.Module], type[nn.Module]] = {
    getattr(nn, name): getattr(layers, name) for name in layers.__all__ if hasattr(nn, name)
}

# Norms of torch.nn that normkit does not have.
WITHOUT_TWIN: tuple[type[nn.Module], ...] = (nn.LocalResponseNorm, nn.CrossMapLRN2d)


def torch_norm(cls: type[nn.Module]) -> type[nn.Module] | None:
    """The nearest class of torch.nn that a class is, or is made from; None if it is no norm of torch's."""
    return next((base for base in cls.__mro__ if base in TWINS or base in WITHOUT_TWIN), None)
