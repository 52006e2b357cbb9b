"""How the forward pass of a module is replaced: its class is changed in place, and can be changed back.

The layers subclass torch.nn's and differ in the forward pass alone, so a layer becomes ours, or torch's again, by
getting another class: its parameters, buffers, hooks, mode and name are never touched. Nothing else in the package
assigns a class to a module.
"""

from collections.abc import Callable
from copy import copy
from typing import Any, NamedTuple, cast

from torch import nn
from torch.nn.utils import parametrize

from normkit.errors import UserError

# The attribute that remembers, on a swapped module, the class it had.
ORIGINAL = "_normkit_original"


class Replacement(NamedTuple):
    """The class that a module is to get, and the attributes that this class needs."""

    cls: type[nn.Module]
    attributes: dict[str, Any]


def require_module(model: object, caller: str) -> None:
    """Refuse what is no module, in the name of the function that was called with it."""
    if not isinstance(model, nn.Module):
        raise UserError(f"{caller} expected a torch.nn.Module; got {type(model).__name__}")


class Cover(nn.Module):
    """A class that stays over a module's own while other tools exchange the one below; subclass it."""


def base_class(module: nn.Module) -> type[nn.Module]:
    """Return the class of a module, without a cover and the one that torch.nn.utils.parametrize puts over it."""
    cls = _unparametrized(module)
    return cast("type[nn.Module]", cls.__bases__[1]) if issubclass(cls, Cover) else cls


def set_base_class(module: nn.Module, cls: type[nn.Module]) -> None:
    """Give a module another class; a covered or parametrized one keeps its cover and parametrization on top of it."""
    over = cover_of(module)
    _set_class(module, cls if over is None else combine(over, cls))


def cover_of(module: nn.Module) -> type[Cover] | None:
    """Return the class that covers a module's own, or None."""
    cls = _unparametrized(module)
    return cls.__bases__[0] if issubclass(cls, Cover) else None


def set_cover(module: nn.Module, over: type[Cover] | None) -> None:
    """Cover a module's own class, in place of another cover; None: uncover it."""
    cls = base_class(module)
    _set_class(module, cls if over is None else combine(over, cls))


def _unparametrized(module: nn.Module) -> type[nn.Module]:
    cls = type(module)
    return cast("type[nn.Module]", cls.__bases__[0]) if parametrize.is_parametrized(module) else cls


def _set_class(module: nn.Module, cls: type[nn.Module]) -> None:
    if parametrize.is_parametrized(module):
        over = type(module)
        body = {key: value for key, value in vars(over).items() if key not in ("__dict__", "__weakref__")}
        cls = type(f"Parametrized{cls.__name__}", (cls,), body)
    module.__class__ = cls


_combined: dict[tuple[type[nn.Module], type[nn.Module]], type[nn.Module]] = {}


def combine(over: type[nn.Module], under: type[nn.Module]) -> type[nn.Module]:
    """Return a class that behaves as `under`, but for what `over` defines; its instances can be copied and pickled."""
    if (over, under) not in _combined:

        def reduce(self: nn.Module, protocol: Any) -> tuple[Any, ...]:
            return _rebuild, _parts(over, under), self.__getstate__()  # type: ignore[no-untyped-call]

        body = {"__reduce_ex__": reduce, "__doc__": under.__doc__}
        body |= {"__module__": under.__module__, "__qualname__": under.__qualname__}
        _combined[over, under] = type(under.__name__, (over, under), body)
    return _combined[over, under]


def _parts(over: type[nn.Module], under: type[nn.Module]) -> tuple[type[nn.Module], ...]:
    """Return the classes that a combined one is made of, each of which pickles find by its name."""
    nested = next((parts for parts, cls in _combined.items() if cls is under), None)
    return (over, under) if nested is None else (over, *_parts(*nested))


def _rebuild(*parts: type[nn.Module]) -> nn.Module:
    """Build an instance for unpickling. Pickles name this function: it has to stay here, under this name."""
    *overs, cls = parts
    for over in reversed(overs):
        cls = combine(over, cls)
    return cls.__new__(cls)


def remembered(module: nn.Module) -> Callable[[], None]:
    """Return a function that gives a module the class, attributes, parameters, buffers and hooks back that it has now.

    The tensors stay the same objects, with their ``requires_grad`` and gradients; their values are not kept.
    """
    cls, own = type(module), dict(vars(module))
    held = [(slot, copy(slot)) for name, slot in own.items() if name.startswith("_") and isinstance(slot, dict | set)]
    tensors = [(one, one.requires_grad, one.grad) for one in module.parameters()]

    def undo() -> None:
        module.__class__ = cls
        vars(module).clear()
        vars(module).update(own)
        for slot, entries in held:
            slot.clear()
            slot.update(entries)
        for tensor, requires_grad, grad in tensors:
            tensor.requires_grad = requires_grad
            tensor.grad = grad

    return undo


PATCHED = "its forward was replaced on the object"


def is_patched(module: nn.Module) -> bool:
    """Tell whether forward was replaced on the object, as some libraries do: another class would change nothing."""
    return "forward" in vars(module)


def overrides(cls: type[nn.Module], base: type[nn.Module], names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the methods that a class does not inherit from `base`."""
    return tuple(name for name in names if getattr(cls, name, None) is not getattr(base, name, None))
