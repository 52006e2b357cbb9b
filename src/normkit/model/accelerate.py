"""One line on somebody else's model: every norm runs in our kernels, and back."""

from typing import Any, NamedTuple

import torch
from torch import nn

from normkit.errors import UserError
from normkit.model.classes import (
    ORIGINAL,
    PATCHED,
    Replacement,
    base_class,
    combine,
    is_patched,
    overrides,
    set_base_class,
)
from normkit.model.handwritten import recognize
from normkit.model.normact import recognize_norm_act
from normkit.model.proof import PROVEN
from normkit.model.summary import Left, Summary
from normkit.model.sync import SYNCED_FROM
from normkit.model.twins import FORWARD, TWINS, torch_norm

__all__ = ["accelerate", "restore"]


def accelerate(model: nn.Module) -> Summary:
    """Let every normalization inside a model run in normkit's kernels, in place and at any depth.

    A layer keeps its parameters and buffers (the same objects: optimizers, averages and tied weights stay valid), its
    hooks, mode and name; only its class changes. :func:`restore` undoes it. A second call finds nothing to do.

    Swapped are the norms of torch.nn; subclasses of them that inherit the forward pass; and hand-written classes that
    a recipe describes (:mod:`normkit.model.handwritten`) and that gave equal numbers on random input.

    Args:
        model: Any module, a single layer too.
    Returns:
        What was swapped, and what was left and why. Print it.
    Raises:
        UserError: model is no torch.nn.Module.

    >>> import normkit
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.LayerNorm(8))
    >>> print(normkit.accelerate(model))
    accelerate: 1 layer swapped
      1 × LayerNorm: 1
    """
    _check(model, "accelerate")
    plan: list[_Swap] = []
    left: list[Left] = []
    already = 0
    for name, module in model.named_modules():
        cls = base_class(module)
        if any(base.__module__.startswith("normkit.") for base in cls.__mro__):
            already += 1
            continue
        found = _ours_for(module, cls)
        if isinstance(found, Replacement) and is_patched(module):
            found = PATCHED
        if isinstance(found, str):
            left.append(Left(name, cls.__name__, found))
        elif found is not None:
            plan.append(_Swap(name, module, found.cls, {ORIGINAL: cls, **found.attributes}))
    before = [base_class(swap.module).__name__ for swap in plan]
    _apply(plan)
    return Summary(
        "accelerate", tuple((swap.name, name) for swap, name in zip(plan, before, strict=True)), tuple(left), already
    )


def restore(model: nn.Module) -> Summary:
    """Undo :func:`accelerate`: every layer that it swapped gets the class back that it had.

    Layers that were normkit's from the start are not touched.

    Args:
        model: The model, or any part of it.
    Returns:
        What was swapped back. Print it.
    Raises:
        UserError: model is no torch.nn.Module.
    """
    _check(model, "restore")
    plan: list[_Swap] = []
    left: list[Left] = []
    for name, module in model.named_modules():
        if ORIGINAL in vars(module) and SYNCED_FROM in vars(module):
            reason = "it was made a SyncBatchNorm since; call revert_sync_batchnorm first"
            left.append(Left(name, type(module).__name__, reason))
        elif ORIGINAL in vars(module):
            plan.append(_Swap(name, module, _original(module), {}))
    _apply(plan)
    return Summary("restore", tuple((swap.name, swap.cls.__name__) for swap in plan), tuple(left), 0)


class _Swap(NamedTuple):
    """The class and the notes that a module is to have."""

    name: str
    module: nn.Module
    cls: type[nn.Module]
    notes: dict[str, Any]

    def apply(self) -> "_Swap":
        """Do it; returns the swap that undoes it."""
        notes = {key: vars(self.module).pop(key) for key in (ORIGINAL, PROVEN) if key in vars(self.module)}
        undo = self._replace(cls=base_class(self.module), notes=notes)
        set_base_class(self.module, self.cls)
        vars(self.module).update(self.notes)
        return undo


def _ours_for(module: nn.Module, cls: type[nn.Module]) -> Replacement | str | None:
    """What stands for a layer; or why there is nothing; or None: it is no norm."""
    if isinstance(module, torch.jit.ScriptModule):
        known = {base.__name__ for base in TWINS}
        return "it is TorchScript, compiled already" if module.original_name in known else None
    base = torch_norm(cls)
    if base is None:
        return recognize(module, cls)
    if base not in TWINS:
        return f"normkit has no {base.__name__}"
    own = overrides(cls, base, FORWARD)
    if own:
        return (
            recognize_norm_act(module, cls)
            or recognize(module, cls)
            or f"its class overrides {own[0]}, which may do more than {base.__name__}"
        )
    return Replacement(TWINS[base] if cls is base else combine(TWINS[base], cls), {})


def _original(module: nn.Module) -> type[nn.Module]:
    """The class to go back to: a lazy layer that has seen its first input has become another one."""
    original: type[nn.Module] = vars(module)[ORIGINAL]
    lazy = getattr(original, "cls_to_become", None)
    return original if lazy is None or base_class(module) is TWINS[original] else lazy


def _apply(plan: list[_Swap]) -> None:
    """All of the swaps, or none."""
    undo: list[_Swap] = []
    try:
        for swap in plan:
            undo.append(swap.apply())
    except Exception:
        for swap in reversed(undo):
            swap.apply()
        raise


def _check(model: nn.Module, name: str) -> None:
    if not isinstance(model, nn.Module):
        raise UserError(f"{name} expected a torch.nn.Module; got {type(model).__name__}")
