"""Changing the class of a module in place, and finding it again.

The layers subclass torch.nn's and differ in the forward pass alone, so a layer becomes ours, or torch's again, by
getting another class: its parameters, buffers, hooks, mode and name are never touched.
"""

from typing import Any, NamedTuple, cast

from torch import nn
from torch.nn.utils import parametrize

# The attribute that remembers, on a swapped module, the class it had.
ORIGINAL = "_normkit_original"


class Replacement(NamedTuple):
    """The class that a module is to get, and the attributes that this class needs."""

    cls: type[nn.Module]
    attributes: dict[str, Any]


def base_class(module: nn.Module) -> type[nn.Module]:
    """The class of a module, without the one that torch.nn.utils.parametrize puts over it."""
    cls = type(module)
    return cast(type[nn.Module], cls.__bases__[0]) if parametrize.is_parametrized(module) else cls


def set_base_class(module: nn.Module, cls: type[nn.Module]) -> None:
    """Give a module another class; a parametrized one keeps its parametrization on top of it."""
    if parametrize.is_parametrized(module):
        over = type(module)
        body = {key: value for key, value in vars(over).items() if key not in ("__dict__", "__weakref__")}
        cls = type(f"Parametrized{cls.__name__}", (cls,), body)
    module.__class__ = cls


_combined: dict[tuple[type[nn.Module], type[nn.Module]], type[nn.Module]] = {}


def combine(over: type[nn.Module], under: type[nn.Module]) -> type[nn.Module]:
    """A class that behaves as `under`, but for what `over` defines. Its instances can be copied and pickled."""
    if (over, under) not in _combined:

        def reduce(self: nn.Module, protocol: Any) -> tuple[Any, ...]:
            return _rebuild, (over, under), self.__getstate__()  # type: ignore[no-untyped-call]

        body = {"__reduce_ex__": reduce, "__doc__": under.__doc__}
        body |= {"__module__": under.__module__, "__qualname__": under.__qualname__}
        _combined[over, under] = type(under.__name__, (over, under), body)
    return _combined[over, under]


def _rebuild(over: type[nn.Module], under: type[nn.Module]) -> nn.Module:
    cls = combine(over, under)
    return cls.__new__(cls)


PATCHED = "its forward was replaced on the object"


def is_patched(module: nn.Module) -> bool:
    """Whether an object has a forward of its own, as some libraries give it: another class would change nothing."""
    return "forward" in vars(module)


def overrides(cls: type[nn.Module], base: type[nn.Module], names: tuple[str, ...]) -> tuple[str, ...]:
    """Which of the methods a class has from elsewhere than `base`."""
    return tuple(name for name in names if getattr(cls, name, None) is not getattr(base, name, None))
