"""BatchNorm and the activation behind it as one layer, which on the CPU takes one pass instead of two."""

import math
from collections.abc import Callable, Sequence
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.compiler import is_compiling

from normkit.backends import Epilogue
from normkit.backends.masked_operations import without_padding
from normkit.backends.masks import read_mask
from normkit.backends.torch_internals import has_global_hooks
from normkit.layers.batchnorm import BatchNorm2d
from normkit.layers.tracing import is_no_tensor, record
from normkit.spec import ShapeError

# Activations that hold each element between two bounds (None: there are none), and do nothing else.
_BOUNDS: dict[type[nn.Module], Callable[[Any], tuple[float, float] | None]] = {
    nn.ReLU: lambda act: (0.0, math.inf),
    nn.ReLU6: lambda act: (0.0, 6.0),
    nn.Hardtanh: lambda act: (float(act.min_val), float(act.max_val)),
    nn.Identity: lambda act: None,
}
# What timm calls the activations of torch.nn.
_NAMED: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU, "relu6": nn.ReLU6, "leaky_relu": nn.LeakyReLU, "elu": nn.ELU, "celu": nn.CELU, "selu": nn.SELU,
    "prelu": nn.PReLU, "gelu": nn.GELU, "silu": nn.SiLU, "swish": nn.SiLU, "mish": nn.Mish, "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid, "hard_sigmoid": nn.Hardsigmoid, "hardsigmoid": nn.Hardsigmoid,
    "hard_swish": nn.Hardswish, "hardswish": nn.Hardswish, "identity": nn.Identity,
}  # fmt: skip


class BatchNormAct2d(BatchNorm2d):
    r"""Normalize each channel over the batch, rows and columns, and apply an activation; timm's BatchNormAct2d.

    .. math:: y = \mathrm{act}((x - \mu) / \sqrt{\sigma^2 + \epsilon} \cdot \gamma + \beta + r)

    Reduces over: the batch, rows and columns. A residual r, the other way around a block, may be given as second
    argument: ``layer(x, residual)``. It is added in the same pass. A ReLU, ReLU6 or Hardtanh is applied in the pass
    that normalizes, and its gradient in those that take the gradient of the norm: on the CPU that saves reading and
    writing the result twice, in both directions. (With a residual the gradient of the activation is an operation of its
    own.) Another activation runs after the norm, and so does one that has hooks.

    The state dict is that of a BatchNorm2d.

    Args:
        num_features: Number of channels C.
        eps: Added to the variance, inside the square root.
        momentum: The weight of the new batch in the running statistics; None: the average of all batches.
        affine: Whether there are a weight and a bias.
        track_running_stats: False: batch statistics are used in evaluation too.
        apply_act: False: there is no activation.
        act_layer: The class of the activation, another function that makes one, or its name in timm; None: there is
            none.
        act_kwargs: What act_layer is called with.
        inplace: Whether act_layer, if it knows ``inplace``, is called with ``inplace=True``; act_kwargs go before it.
        drop_layer: What makes a layer between norm and activation, such as DropBlock; None: there is none.
    Shape:
        input, result: (N, C, H, W), contiguous or channels last;  weight, bias, running_mean, running_var: (C,);
            residual: (N, C, H, W), or what broadcasts to it
    Raises:
        ValueError: another number of axes; one value per channel in training; no activation of this name.
        RuntimeError: a residual of a shape that cannot be added to the input, or on another device; a converter is
            about to put a norm without the activation in the place of this layer.
    Reference:
        Ioffe & Szegedy 2015, arXiv:1502.03167, Algorithm 1 and section 3.2.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        apply_act: bool = True,
        act_layer: Callable[..., nn.Module] | str | None = nn.ReLU,
        act_kwargs: dict[str, Any] | None = None,
        inplace: bool = True,
        drop_layer: Callable[[], nn.Module] | None = None,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype)
        self.drop = nn.Identity() if drop_layer is None else drop_layer()
        self.act = _activation(act_layer, act_kwargs or {}, inplace) if apply_act else nn.Identity()

    def forward(
        self,
        input: Tensor,
        residual: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        lengths: Tensor | Sequence[int] | None = None,
    ) -> Tensor:
        """Normalize (in training, update the running statistics), add the residual and apply the activation.

        A mask is that of :meth:`BatchNorm2d.forward`; padding of the result is 0, whatever the residual and the
        activation make of it.
        """
        if type(input) is not Tensor and is_no_tensor(input):
            return record(self, BatchNormAct2d.forward, input, residual, mask=mask, lengths=lengths)
        if residual is not None and not is_compiling():  # its error comes before anything is updated
            _check_residual(input, residual)
        masked = mask is not None or lengths is not None
        if not masked and self._is_one_pass():
            return self._normalize(input, Epilogue(_BOUNDS[type(self.act)](self.act), residual))
        y = self.drop(super().forward(input, mask=mask, lengths=lengths))
        result: Tensor = self.act(y if residual is None else y + residual)
        return without_padding(result, read_mask(input, mask, lengths)) if masked else result

    def __getattr__(self, name: str) -> Any:
        """Raise where a converter asks that puts a plain norm in place of this layer: the activation would be lost.

        The convert_sync_batchnorm of torch and timm ask for ``qconfig``. timm's keeps the activation of its own class.
        """
        if name == "qconfig" and type(self.act) is not nn.Identity and not _is_of_timm(type(self)):
            raise RuntimeError(
                f"{type(self).__name__} was asked for a qconfig: the convert_sync_batchnorm of torch.nn and timm does, "
                "which puts a norm without the activation in its place. Call normkit.convert_sync_batchnorm(model), "
                "which keeps it; for torch.ao, set qconfig on the layer first"
            )
        return super().__getattr__(name)

    def _is_one_pass(self) -> bool:
        """Whether norm, residual and activation are one operation; False: drop and act are to be called."""
        modules: dict[str, Any] = self._modules
        act, drop = modules["act"], modules["drop"]
        return (
            type(act) in _BOUNDS
            and type(drop) is nn.Identity
            and not is_compiling()  # a compiler fuses what follows the norm itself
            and not has_global_hooks()
            and not _is_watched(act)
            and not _is_watched(drop)
        )


def _is_of_timm(cls: type[nn.Module]) -> bool:
    return any(base.__module__.startswith("timm.") for base in cls.__mro__)


def _check_residual(input: Tensor, residual: Tensor) -> None:
    """Raise before anything is updated, where the sum would."""
    if not isinstance(residual, Tensor):
        raise TypeError(f"BatchNormAct2d expected a torch.Tensor as residual; got {type(residual).__name__}")
    if residual.device != input.device:
        raise RuntimeError(f"BatchNormAct2d expected a residual on {input.device}, as the input; got {residual.device}")
    try:
        together = torch.broadcast_shapes(input.shape, residual.shape)  # type: ignore[no-untyped-call]
        fits = together == input.shape
    except RuntimeError:
        fits = False
    if not fits:
        raise ShapeError(
            f"BatchNormAct2d expected a residual that can be added to an input of shape {tuple(input.shape)}; "
            f"got shape {tuple(residual.shape)}"
        )


def _activation(
    act_layer: Callable[..., nn.Module] | str | None, act_kwargs: dict[str, Any], inplace: bool
) -> nn.Module:
    if act_layer is None or act_layer == "":
        return nn.Identity()
    if isinstance(act_layer, str):
        if act_layer not in _NAMED:
            raise ValueError(f"expected act_layer to be one of {', '.join(_NAMED)}, or a class; got {act_layer!r}")
        act_layer = _NAMED[act_layer]
    if inplace and "inplace" in signature(act_layer).parameters:
        act_kwargs = {"inplace": True, **act_kwargs}
    return act_layer(**act_kwargs)


def _is_watched(module: nn.Module) -> bool:
    """Whether somebody else is told when a module is called, or has put a function in place of its own."""
    state = vars(module)
    return bool(
        state["_forward_hooks"]
        or state["_forward_pre_hooks"]
        or state["_backward_hooks"]
        or state["_backward_pre_hooks"]
        or "forward" in state
    )
