"""Replace every norm of somebody else's model by normkit's with one line, and undo it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn

from normkit.model.alike import once_per_kind
from normkit.model.classes import (
    ORIGINAL,
    PATCHED,
    Replacement,
    base_class,
    combine,
    is_patched,
    overrides,
    require_module,
    set_base_class,
)
from normkit.model.equivalents import EQUIVALENTS, FORWARD, torch_norm
from normkit.model.gain import measure_gain
from normkit.model.normact import recognize_norm_act
from normkit.model.recipe import PROVEN
from normkit.model.recipes import recognize
from normkit.model.summary import Skipped, Summary
from normkit.model.sync import SYNCED_FROM

__all__ = ["accelerate", "restore", "restored"]

_TORCHS = {ours: theirs for theirs, ours in EQUIVALENTS.items()}


def accelerate(model: nn.Module, *, example: Any = None) -> Summary:
    """Let every normalization inside a model run in normkit's kernels, in place and at any depth.

    A layer keeps its parameters and buffers (the same objects: optimizers, averages and tied weights stay valid), its
    hooks, mode and name; only its class changes. :func:`restore` undoes it. A second call finds nothing to do.

    Swapped are the norms of torch.nn; subclasses of them that inherit the forward pass; and hand-written classes that
    a recipe describes (:mod:`normkit.model.recipes`) and that gave equal results on random input.

    Args:
        model: Any module, a single layer too.
        example: A batch to measure on, in the mode that the model is in, with its own norms and with normkit's: which
            norms run in kernels, and how much faster or slower a pass is. A tensor; a tuple or list that begins with
            the input; or a mapping of arguments. The model is run some ten to forty times, and left as it was.
    Returns:
        What was swapped, what was left and why, and what it gains on the example. Print it.
    Raises:
        UserError: model is no torch.nn.Module; there is an example, and the model is wrapped or compiled, or a lazy
            layer has seen no input.

    >>> import normkit
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.LayerNorm(8))
    >>> print(normkit.accelerate(model))
    accelerate: 1 layer swapped
      1 × LayerNorm: 1
      faster where inputs are large: accelerate(model, example=x) measures it
    """
    require_module(model, "accelerate")
    plan: list[_Swap] = []
    skipped: list[Skipped] = []
    already_accelerated = 0
    recognized = once_per_kind(_recognized)
    for name, module in model.named_modules():
        cls = base_class(module)
        if _is_ours(cls):
            already_accelerated += 1
            continue
        found = _replacement(module, cls, recognized)
        if isinstance(found, Replacement) and is_patched(module):
            found = PATCHED
        if isinstance(found, str):
            skipped.append(Skipped(name, cls.__name__, found))
        elif found is not None:
            plan.append(_Swap(name, module, found.cls, {ORIGINAL: cls, **found.attributes}))
    swapped = tuple((swap.name, base_class(swap.module).__name__) for swap in plan)
    undo = _apply(plan)
    summary = Summary("accelerate", swapped, tuple(skipped), already_accelerated)
    if example is None:
        return summary
    try:
        ours = {name: module for name, module in model.named_modules() if _is_ours(base_class(module))}
        return replace(summary, gain=measure_gain(model, example, ours, partial(restored, model)))
    except BaseException:
        for swap in undo:
            swap.apply()
        raise


def restore(model: nn.Module) -> Summary:
    """Undo :func:`accelerate`: give every layer that it swapped the class back that it had.

    Layers that were normkit's from the start are not touched.

    Args:
        model: The model, or any part of it.
    Returns:
        What was swapped back. Print it.
    Raises:
        UserError: model is no torch.nn.Module.
    """
    require_module(model, "restore")
    plan: list[_Swap] = []
    skipped: list[Skipped] = []
    for name, module in model.named_modules():
        if ORIGINAL in vars(module) and SYNCED_FROM in vars(module):
            reason = "it was made a SyncBatchNorm since; call revert_sync_batchnorm first"
            skipped.append(Skipped(name, type(module).__name__, reason))
        elif ORIGINAL in vars(module):
            plan.append(_Swap(name, module, _original(module), {}))
    _apply(plan)
    return Summary("restore", tuple((swap.name, swap.cls.__name__) for swap in plan), tuple(skipped), 0)


@contextmanager
def restored(model: nn.Module) -> Iterator[Summary]:
    """Give every layer of normkit the class of torch.nn or of its author for a block: for tools that ask for ``type``.

    Such a tool looks a layer up by its class itself, and does not see a subclass: opacus then takes a batch norm for a
    layer that it need not refuse. Layers that were built as normkit's become torch.nn's too. What the tool copies or
    puts in their place stays as the tool made it; a layer that has got another class in the block keeps that.

    Args:
        model: The model, or any part of it.
    Yields:
        What was swapped back, and which layers of normkit torch.nn has no class for. Print it.
    Raises:
        UserError: model is no torch.nn.Module.

    >>> import normkit
    >>> model = torch.nn.Sequential(torch.nn.LayerNorm(8), normkit.RMSNorm(8))
    >>> _ = normkit.accelerate(model)
    >>> with normkit.restored(model):
    ...     print(type(model[0]), type(model[1]))
    <class 'torch.nn.modules.normalization.LayerNorm'> <class 'torch.nn.modules.normalization.RMSNorm'>
    """
    require_module(model, "restored")
    plan: list[_Swap] = []
    skipped: list[Skipped] = []
    for name, module in model.named_modules():
        cls = base_class(module)
        if ORIGINAL in vars(module) and SYNCED_FROM not in vars(module):
            plan.append(_Swap(name, module, _original(module), {}))
        elif cls in _TORCHS:
            plan.append(_Swap(name, module, _TORCHS[cls], {}))
        elif _is_ours(cls):
            skipped.append(Skipped(name, cls.__name__, "torch.nn has no class for it"))
    summary = Summary("restore", tuple((swap.name, swap.cls.__name__) for swap in plan), tuple(skipped), 0)
    undo = _apply(plan)
    try:
        yield summary
    finally:
        for swap, back in zip(plan, undo, strict=True):
            now = base_class(swap.module)
            if now is swap.cls:
                back.apply()
            elif now is getattr(swap.cls, "cls_to_become", None):  # a lazy layer has seen its first input
                back._replace(cls=EQUIVALENTS[now]).apply()


class _Swap(NamedTuple):
    """The class that a module is to have, and the attributes that go with it."""

    name: str
    module: nn.Module
    cls: type[nn.Module]
    attributes: dict[str, Any]

    def apply(self) -> "_Swap":
        """Swap, and return the swap that undoes it."""
        own = vars(self.module)
        attributes = {key: own[key] for key in (ORIGINAL, PROVEN) if key in own}
        undo = self._replace(cls=base_class(self.module), attributes=attributes)
        set_base_class(self.module, self.cls)
        for key in attributes:
            del own[key]
        own.update(self.attributes)
        return undo


_Found = Replacement | str | None
"""The replacement of a layer, why there is none, or None if the layer is no norm."""


def _replacement(module: nn.Module, cls: type[nn.Module], recognized: Callable[[nn.Module], _Found]) -> _Found:
    """Return the replacement of a layer by its class, or where that has a forward pass of its own, by experiment."""
    if isinstance(module, torch.jit.ScriptModule):
        known = {base.__name__ for base in EQUIVALENTS}
        return "it is TorchScript, compiled already" if module.original_name in known else None
    base = torch_norm(cls)
    if base is None:
        return recognized(module)
    if base not in EQUIVALENTS:
        return f"normkit has no {base.__name__}"
    own = overrides(cls, base, FORWARD)
    if own:
        return recognized(module) or f"its class overrides {own[0]}, which may do more than {base.__name__}"
    ours = EQUIVALENTS[base]
    return Replacement(ours if cls is base else combine(ours, cls), {})


def _recognized(module: nn.Module) -> _Found:
    cls = base_class(module)
    return recognize_norm_act(module, cls) or recognize(module, cls)


def _original(module: nn.Module) -> type[nn.Module]:
    """Return the class to go back to; a lazy layer that has seen its first input has become another class."""
    original: type[nn.Module] = vars(module)[ORIGINAL]
    lazy = getattr(original, "cls_to_become", None)
    return original if lazy is None or base_class(module) is EQUIVALENTS[original] else lazy


def _is_ours(cls: type[nn.Module]) -> bool:
    return any(base.__module__.startswith("normkit.") for base in cls.__mro__)


def _apply(plan: list[_Swap]) -> list[_Swap]:
    """Do all of the swaps, or none; return those that undo them."""
    done: list[_Swap] = []
    with ExitStack() as undo:
        for swap in plan:
            done.append(swap.apply())
            undo.callback(done[-1].apply)
        undo.pop_all()
    return done
