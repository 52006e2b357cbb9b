"""Batch norms that apply an activation too, as timm's BatchNormAct2d: recognized, and proven equal to ours."""

import copy
import math
import warnings
from inspect import signature
from typing import NamedTuple

import torch
from torch import Tensor, nn

from normkit.layers import BatchNormAct2d
from normkit.model.classes import Replacement, combine, set_base_class
from normkit.model.proof import compare

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def recognize_norm_act(module: nn.Module, cls: type[nn.Module]) -> Replacement | str | None:
    """What computes the same as a batch norm with layers ``drop`` and ``act``; why nothing; None: it is not one."""
    parts = {name for name, _ in module.named_children() if name != "parametrizations"}
    if not (issubclass(cls, nn.BatchNorm2d) and parts == {"drop", "act"}):
        return None
    if len(signature(cls.forward).parameters) != 2:
        return "its forward takes more than one input"
    ours = combine(BatchNormAct2d, cls)
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            why = next(filter(None, (_difference(module, ours, probe) for probe in _PROBES)), None)
    except Exception as error:  # somebody else's code: whatever it raises, it is not proven
        why = f"{type(error).__name__}: {error}"
    return Replacement(ours, {}) if why is None else f"act(drop(batch norm)) did not give equal numbers ({why})"


class _Probe(NamedTuple):
    """An input, and the mode in which it is tried."""

    training: bool
    scale: float = 1.0
    channels_last: bool = False
    dtype: torch.dtype | None = None  # None: that of the layer
    special: bool = False  # NaN and infinity are among the numbers


_PROBES = (
    *(_Probe(training, 2.0, last) for training in (True, False) for last in (False, True)),
    *(_Probe(False, scale) for scale in (1e-3, 1e3, 1e6)),
    *(_Probe(False, dtype=dtype) for dtype in (torch.float64, torch.float32, torch.bfloat16)),
    _Probe(False, special=True),
)


def _difference(module: nn.Module, ours: type[nn.Module], probe: _Probe) -> str | None:
    """What differs between a stand-in for a module, and one that has another class."""
    expected, got = (_outcome(module, cls, probe) for cls in (None, ours))
    if isinstance(expected, str):
        return expected if probe.dtype is None else None  # what it does not take need not be taken
    if isinstance(got, str):
        return got
    if (got[0].dtype, got[0].stride()) != (expected[0].dtype, expected[0].stride()):
        return "the result has another type or layout"
    if probe.special:
        return None if torch.allclose(got[0], expected[0], equal_nan=True) else "NaN or infinity become something else"
    pairs = enumerate(zip(got, expected, strict=True))
    return next(filter(None, (compare(mine, theirs, min(index, 1)) for index, (mine, theirs) in pairs)), None)


def _outcome(module: nn.Module, cls: type[nn.Module] | None, probe: _Probe) -> list[Tensor] | str:
    """A stand-in's result, gradients and buffers; or what it raised."""
    torch.manual_seed(0)
    stand_in = _stand_in(module).train(probe.training)
    if cls is not None:
        set_base_class(stand_in, cls)
    like = next(stand_in.buffers(), next(stand_in.parameters(), torch.empty(0)))
    shape = (4, int(stand_in.num_features), 3, 2)  # type: ignore[arg-type]
    x = probe.scale * (torch.randn(shape, device=like.device) + 0.35).to(probe.dtype or like.dtype)
    if probe.channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    if probe.special:
        x.view(-1)[:3] = torch.tensor([math.nan, math.inf, -math.inf])
    x.requires_grad_()
    before = dict(vars(stand_in))
    try:
        y: Tensor = stand_in.forward(x)
        gradients = torch.autograd.grad(y, [x, *stand_in.parameters()], torch.randn_like(y))
    except RuntimeError as error:
        return f"{type(error).__name__}: {error}"
    if any(value is not before.get(key) for key, value in vars(stand_in).items()):
        return "its forward keeps something on the module"
    return [y, *gradients, *stand_in.buffers()]


def _stand_in(module: nn.Module) -> nn.Module:
    """A copy with random numbers, which nobody watches."""
    stand_in = copy.deepcopy(module)
    for part in stand_in.modules():
        for hooks in _HOOKS:
            getattr(part, hooks).clear()
    with torch.no_grad():
        for tensor in (*stand_in.parameters(), *stand_in.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, dtype=tensor.dtype, device=tensor.device) + 0.2)
    return stand_in
