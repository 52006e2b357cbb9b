"""Kernels compiled before the first call: while an image is built, or when a service starts."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from normkit.backends.warmup import find_kernels, missing_kernels
from normkit.errors import UserError
from normkit.model.data import run_backward
from normkit.model.preserve import preserved
from normkit.renderable import Renderable


@dataclass(frozen=True)
class Warmup(Renderable):
    """What :func:`normkit.warmup` has found. Print it.

    Args:
        compiled: The kernels that were compiled, by the names of their files.
        loaded: Those that an earlier process had left on disk.
        problem: Why a kernel could not be kept on disk, so that each process compiles it anew; None: all are kept.
    """

    compiled: tuple[str, ...]
    loaded: tuple[str, ...]
    problem: str | None

    def __str__(self) -> str:
        done = f"warmup: {_count(len(self.compiled))} compiled, {len(self.loaded)} found on disk"
        return done if self.problem is None else f"{done}\n  not kept, so each process compiles anew: {self.problem}"

    def to_dict(self) -> dict[str, Any]:
        """Return the same as JSON types."""
        return {**asdict(self), "compiled": list(self.compiled), "loaded": list(self.loaded)}


def warmup(
    model: nn.Module | None = None, inputs: Any = None, *, training: bool = True, dtypes: Sequence[torch.dtype] = ()
) -> Warmup:
    """Compile the kernels that a model needs, and keep them on disk; the next process loads them in milliseconds.

    The model runs once in evaluation, and once in training with its backward pass; it is then what it was before, bit
    for bit. Layers whose input is so small that torch's operations serve it need no kernel. Kernels that this process
    has used before are not counted. In an image, run it as the user and on the kind of processor that will need the
    kernels.

    Args:
        model: The model; None: only the kernels of `dtypes`.
        inputs: What it is called with, in the shapes of the real ones: a tensor, a tuple of several, or a mapping of
            keyword arguments.
        training: False: only what evaluation needs.
        dtypes: Compile all kernels for inputs of these dtypes as well, for example ``[torch.float32]``: about a
            minute for each.
    Raises:
        UserError: there is nothing to compile, a dtype has no kernels here, or a lazy layer has seen no input.
    """
    if model is None and not dtypes:
        raise UserError("warmup expected a model and its input, or `dtypes`, such as [torch.float32]; got neither")
    if model is not None and inputs is None:
        raise UserError(f"warmup expected an input for {type(model).__name__} in the shape of the real ones; got none")
    reason = missing_kernels((torch.float32, *dtypes))
    if reason is not None:
        raise UserError(f"warmup cannot compile: {reason}")
    return Warmup(*find_kernels(lambda: _run(model, inputs, training=training), dtypes))


def _run(model: nn.Module | None, inputs: Any, *, training: bool) -> None:
    if model is None:
        return
    with preserved(model):
        with torch.no_grad():
            _call(model.eval(), inputs)
        if training:
            with torch.enable_grad():
                run_backward(_call(model.train(), inputs))


def _call(model: nn.Module, inputs: Any) -> Any:
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple) else model(inputs)


def _count(number: int) -> str:
    return "1 kernel" if number == 1 else f"{number} kernels"
