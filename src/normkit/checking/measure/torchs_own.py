"""Find out whether the forward pass is torch's own code: its class, a layer of it inside, or its operation."""

import inspect
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

from normkit.checking.measure.probe import Probe
from normkit.checking.target.callables import name_of
from normkit.checking.target.model import norms_in

_NORMS = ("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm")


def torchs_own(probe: Probe) -> str | None:
    """Say what of torch computes the output; None where the target computes it itself.

    Args:
        probe: The target.
    """
    if probe.library.name != "torch":
        return None
    layer, target = probe.layer(), probe.builder.target
    if inspect.isroutine(target) and _is_torchs(target):
        return f"torch.nn.functional.{name_of(target)} itself"
    forward = getattr(type(layer.instance), "forward", None)
    if probe.builder.is_module and _is_torchs(forward):
        named = (kind.__name__ for kind in type(layer.instance).__mro__ if _is_torchs(kind))
        return f"the forward pass of torch.nn.{next(name for name in named if not name.startswith('_'))}"
    with _Operations() as seen:
        probe.forward(layer, probe.x())
    if not seen.norms:
        return None
    norms = {path: type(norm) for path, norm in norms_in(layer.instance).items()}
    inside = [f"torch.nn.{kind.__name__} ({path})" for path, kind in norms.items() if _is_torchs(kind)]
    return ", ".join(inside) if inside else f"torch's operation {seen.norms[0]}"


def _is_torchs(thing: Any) -> bool:
    """Whether a function or a class is defined in torch."""
    defined = getattr(thing, "__module__", None) or ""
    return defined == "torch" or defined.startswith(("torch.nn.", "torch._"))


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes which of torch's own normalizations run."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.norms: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func.name())
        if name.startswith("aten::") and name.endswith(_NORMS):
            self.norms.append(name.removeprefix("aten::"))
        return func(*args, **(kwargs or {}))
