"""What tools of torch that read or record Python code get of a layer: a call in a graph, or an error in words."""

from collections.abc import Callable
from typing import Any, NoReturn, cast

from torch import Tensor, nn
from torch.fx import Proxy


def is_no_tensor(x: object) -> bool:
    """Whether a layer cannot normalize this."""
    return not isinstance(x, Tensor)


def record(module: nn.Module, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
    """Record a call with a Proxy of torch.fx as one call of the module, as torch.fx does for the layers of torch.nn.

    Args:
        module: The layer that was called.
        forward: The method that asks: what is recorded is all of a call, so nothing may run around it.
        args, kwargs: What the layer was called with.

    Raises:
        TypeError: the input is nothing that could be traced either.
        RuntimeError: what runs around the method would run when the call is traced, and again with the graph.
    """
    name, (input, *_) = type(module).__name__, (*args, *kwargs.values())
    if not isinstance(input, Proxy):
        raise TypeError(
            f"{name} expected a torch.Tensor; got {type(input).__name__}: torch.as_tensor makes one of a plain array"
        )
    path = input.tracer.path_of_module(module)  # type: ignore[attr-defined]
    around = next(iter(_around(module, forward, path)), None)
    if around is not None:
        raise RuntimeError(
            f"torch.fx cannot record the {name} {path!r}, which {around}: trace with a torch.fx.Tracer whose "
            "is_leaf_module is true for it, or use torch.export"
        )
    given = tuple(value for value in args if value is not None)
    named = {key: value for key, value in kwargs.items() if value is not None}
    recorded: Any = input.tracer.create_proxy("call_module", path, given, named)
    return cast("Tensor", recorded)  # for all that a layer's caller does with it


def refuse_script(self: nn.Module) -> NoReturn:
    """Raise, as the method ``__prepare_scriptable__`` that torch.jit.script calls first on every module of a model.

    Raises:
        RuntimeError: always.
    """
    raise RuntimeError(
        f"torch.jit.script cannot compile normkit's {type(self).__name__}: use torch.compile or torch.export, or "
        "script inside of `with normkit.restored(model):`, which puts torch.nn's classes back where there are any"
    )


def _around(module: nn.Module, forward: Callable[..., Any], path: str) -> list[str]:
    """Return what there is around a forward method, in words."""
    found = {
        "is traced on its own, and not as a part of a model": not path,
        "overrides forward": type(module).forward is not forward or "forward" in vars(module),
        "has forward hooks": bool(module._forward_hooks or module._forward_pre_hooks),
    }
    return [words for words, holds in found.items() if holds]
