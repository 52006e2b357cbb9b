"""Batch norms that apply an activation too, as timm's BatchNormAct2d: recognized, and proven equal to ours."""

import copy
import warnings

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
    ours = combine(BatchNormAct2d, cls)
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            why = next(filter(None, (_difference(module, ours, training) for training in (True, False))), None)
    except Exception as error:  # somebody else's code: whatever it raises, it is not proven
        why = f"{type(error).__name__}: {error}"
    return Replacement(ours, {}) if why is None else f"act(drop(batch norm)) did not give equal numbers ({why})"


def _difference(module: nn.Module, ours: type[nn.Module], training: bool) -> str | None:
    """What differs between a stand-in for a module, and one that has another class."""
    outcomes = []
    for cls in (None, ours):
        torch.manual_seed(0)
        stand_in = _stand_in(module).train(training)
        if cls is not None:
            set_base_class(stand_in, cls)
        like = next(stand_in.buffers(), next(stand_in.parameters(), torch.empty(0)))
        x = torch.randn((4, int(stand_in.num_features), 3, 2), dtype=like.dtype, device=like.device)  # type: ignore[arg-type]
        x = (2.0 * x + 0.7).requires_grad_()
        y: Tensor = stand_in.forward(x)
        inputs = [x, *stand_in.parameters()]
        gradients = torch.autograd.grad(y, inputs, torch.randn_like(y), allow_unused=True)
        outcomes.append((y, gradients, list(stand_in.buffers())))
    (expected, their_gradients, their_buffers), (got, our_gradients, our_buffers) = outcomes
    if (got.dtype, got.stride()) != (expected.dtype, expected.stride()):
        return "the result has another type or layout"
    pairs = [(got, expected, 0), *((*pair, 1) for pair in zip(our_gradients, their_gradients, strict=True))]
    pairs += [(*pair, 1) for pair in zip(our_buffers, their_buffers, strict=True)]
    return next(filter(None, (compare(mine, theirs, order) for mine, theirs, order in pairs)), None)


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
