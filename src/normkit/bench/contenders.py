"""The calls that are timed for a row: our layer and torch.nn's, with equal parameters and inputs, and a copy."""

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Final

import torch
from torch import Tensor, nn

from normkit import layers as ours
from normkit.bench import models
from normkit.bench.cases import BOTH, EVALUATION, ModelCase, NormCase, Row
from normkit.bench.measure import Call

OURS: Final = "ours"
TORCH: Final = "torch"
COMPILED: Final = "compiled"
COPY: Final = "copy"
LABELS: Final = {OURS: "normkit", TORCH: "torch.nn", COMPILED: "torch.compile of torch.nn"}
"""Their names for people."""

COPIES_OF_BOTH: Final = 2.5
"""Forward reads x and writes y, backward reads x and dy and writes dx: five times the bytes of x; a copy moves two."""


class PermutedLayerNorm(nn.LayerNorm):
    """LayerNorm2d as a user of torch.nn writes it: permute, LayerNorm, permute."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalize over the channels of (N, C, H, W)."""
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class NormAct(nn.Module):
    """A norm, a sum and an activation, one behind the other, as a user of torch.nn writes them."""

    def __init__(self, norm: nn.Module, act: nn.Module) -> None:
        super().__init__()
        self.norm, self.act = norm, act

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Normalize, add the residual and apply the activation."""
        y = self.norm(x)
        if residual is not None:
            y += residual
        result: Tensor = self.act(y)
        return result


def _separate(norm: Callable[[int], nn.Module]) -> Callable[..., nn.Module]:
    """Return a function that makes a norm and an activation, one behind the other."""

    def norm_act(channels: int, act_layer: type[nn.Module] | None = nn.ReLU) -> nn.Module:
        return NormAct(norm(channels), nn.Identity() if act_layer is None else act_layer(inplace=True))

    return norm_act


def layers(contender: str, *, fused: bool = False) -> Any:
    """Return the namespace of our layers, or of torch.nn's; fused: our norm_act is one layer."""
    if contender == OURS:
        norm_act = ours.BatchNormAct2d if fused else _separate(ours.BatchNorm2d)
        return SimpleNamespace(**vars(ours), norm_act=norm_act)
    norm_act = _separate(nn.BatchNorm2d)
    missing = {"LayerNorm2d": PermutedLayerNorm, "BatchNormAct2d": norm_act, "norm_act": norm_act}
    return SimpleNamespace(**{**vars(nn), **missing})


@dataclass(frozen=True)
class Contenders:
    """The calls of one row.

    Args:
        calls: The calls to time, by contender.
        copies: Number of copies of x that move as many bytes as the row must.
        with_grad: Gradients are recorded meanwhile.
    """

    calls: dict[str, Call]
    copies: float
    with_grad: bool


def build(row: Row, *, compiled: bool = False) -> Contenders:
    """Build the calls that are timed for a row.

    Args:
        compiled: Also time torch.compile of torch.nn's.
    """
    if isinstance(row.case, ModelCase):
        return _build_model(row.case, compiled=compiled)
    return _build_norm(row.case, row.pass_, compiled=compiled)


def layer(case: NormCase, contender: str) -> nn.Module:
    """Build the layer of a case, with random parameters and statistics that depend on the case alone."""
    namespace = layers(contender)
    affine = {} if case.affine is None else {_affine_name(case.norm): case.affine}
    module: nn.Module
    if case.norm in ("LayerNorm", "RMSNorm"):
        module = getattr(namespace, case.norm)(case.shape[-case.axes :], **affine)
    elif case.norm == "GroupNorm":
        module = namespace.GroupNorm(case.groups, case.shape[1], **affine)
    else:
        module = getattr(namespace, case.norm)(case.shape[1], **affine)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + (0.5 if "bias" not in name else 0.0))
    return module if case.mixed else module.to(getattr(torch, case.dtype))


def _affine_name(norm: str) -> str:
    return "elementwise_affine" if norm in ("LayerNorm", "LayerNorm2d", "RMSNorm") else "affine"


def inputs(case: NormCase) -> tuple[Tensor, Tensor]:
    """Return x and dy, in the same memory format; they depend on the case alone."""
    generator = torch.Generator().manual_seed(1)
    return _tensor(case, generator, 0.5), _tensor(case, generator, 0.0)


def _tensor(case: NormCase, generator: torch.Generator, mean: float) -> Tensor:
    values = (torch.randn(case.shape, generator=generator) + mean).to(getattr(torch, case.dtype))
    if not case.channels_last:
        return values
    if len(case.shape) == 3:
        return values.transpose(1, 2).contiguous().transpose(1, 2)
    return values.contiguous(memory_format=torch.channels_last if len(case.shape) == 4 else torch.channels_last_3d)


def _build_norm(case: NormCase, pass_: str, *, compiled: bool) -> Contenders:
    x, dy = inputs(case)
    target = torch.empty_like(x)
    source = x.detach()
    with_grad = pass_ != EVALUATION
    x.requires_grad_(with_grad)

    def call(module: nn.Module) -> Call:
        module.train(with_grad)
        if pass_ != BOTH:
            return lambda: module(x)
        wanted = [x, *module.parameters()]
        return lambda: torch.autograd.grad(module(x), wanted, dy)

    calls = {OURS: call(layer(case, OURS)), TORCH: call(layer(case, TORCH))}
    if compiled:
        calls[COMPILED] = call(_compile(layer(case, TORCH)))
    calls[COPY] = lambda: target.copy_(source)
    return Contenders(calls, COPIES_OF_BOTH if pass_ == BOTH else 1.0, with_grad)


def _build_model(case: ModelCase, *, compiled: bool) -> Contenders:
    def call(contender: str, change: Callable[[nn.Module], nn.Module] = lambda model: model) -> Call:
        torch.manual_seed(0)
        model, images, labels = models.build(case.model, layers(contender, fused=case.fused))
        if case.channels_last:
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            images = images.contiguous(memory_format=torch.channels_last)
        return models.training_step(change(model), images, labels)

    calls = {OURS: call(OURS), TORCH: call(TORCH)}
    if compiled:
        calls[COMPILED] = call(TORCH, _compile)
    return Contenders(calls, 0.0, with_grad=True)


def _compile(module: nn.Module) -> nn.Module:
    compiled = torch.compile(module)
    assert isinstance(compiled, nn.Module)
    return compiled
