"""Recognition of batch norms that apply an activation too, as timm's BatchNormAct2d; verified to be equal to ours."""

import copy
import math
import warnings
from inspect import signature
from typing import NamedTuple

import torch
from torch import nn

from normkit.layers import BatchNormAct2d
from normkit.model.classes import Replacement, combine, set_base_class, set_cover
from normkit.model.equivalence import Outcome, difference, nonfinite_difference, run

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def recognize_norm_act(module: nn.Module, cls: type[nn.Module]) -> Replacement | str | None:
    """Return what computes the same as a batch norm with layers ``drop`` and ``act``, why not, or None: it is none."""
    parts = {name for name, _ in module.named_children() if name != "parametrizations"}
    if not (issubclass(cls, nn.BatchNorm2d) and parts == {"drop", "act"}):
        return None
    if len(signature(cls.forward).parameters) != 2:
        return "its forward takes more than one input"
    ours = combine(BatchNormAct2d, cls)
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            why = next(filter(None, (_difference(module, ours, case) for case in _CASES)), None)
    except Exception as error:  # somebody else's code: whatever it raises, it is not proven
        why = f"{type(error).__name__}: {error}"
    return Replacement(ours, {}) if why is None else f"act(drop(batch norm)) did not give equal numbers ({why})"


class _Case(NamedTuple):
    """An input, and the mode in which it is tried."""

    training: bool = False
    scale: float = 1.0
    channels_last: bool = False
    dtype: torch.dtype | None = None  # None: that of the layer
    special: bool = False  # NaN and infinity are among the elements


_CASES = (
    *(_Case(training, 2.0, last) for training in (True, False) for last in (False, True)),
    *(_Case(scale=scale) for scale in (1e-3, 1e3, 1e6)),
    *(_Case(dtype=dtype) for dtype in (torch.float64, torch.float32, torch.bfloat16)),
    _Case(special=True),
)


def _difference(module: nn.Module, ours: type[nn.Module], case: _Case) -> str | None:
    """Say in words what differs in one case between a module and a copy with our class; None if nothing does."""
    try:
        expected = _outcome(module, None, case)
    except RuntimeError:
        if case.dtype is None:
            raise
        return None  # ours need not take a dtype that the module does not take
    got = _outcome(module, ours, case)
    return nonfinite_difference(got, expected) if case.special else difference(got, expected)


def _outcome(module: nn.Module, cls: type[nn.Module] | None, case: _Case) -> Outcome:
    """Run a random copy of a module, with another class if one is given."""
    torch.manual_seed(0)
    copied = random_copy(module).train(case.training)
    if cls is not None:
        set_base_class(copied, cls)
    like = next(copied.buffers(), next(copied.parameters(), torch.empty(0)))
    shape = (4, int(copied.num_features), 3, 2)  # type: ignore[arg-type]
    x = case.scale * (torch.randn(shape, device=like.device) + 0.35).to(case.dtype or like.dtype)
    if case.channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    if case.special:
        x.view(-1)[:3] = torch.tensor([math.nan, math.inf, -math.inf])
    return run(copied, copied.forward, x.requires_grad_())


def random_copy(module: nn.Module) -> nn.Module:
    """Return a copy with random parameters and buffers, which trains, and has no hooks."""
    copied = copy.deepcopy(module).requires_grad_()
    set_cover(copied, None)
    for part in copied.modules():
        for hooks in _HOOKS:
            getattr(part, hooks).clear()
    with torch.no_grad():
        for tensor in (*copied.parameters(), *copied.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, dtype=tensor.dtype, device=tensor.device) + 0.2)
    return copied
