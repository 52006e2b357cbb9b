"""Which back end a call gets: the only place that decides, and calls."""

from typing import Final, NamedTuple

import torch
from torch import Tensor
from torch.compiler import is_compiling

from normkit.backends import aten, eager
from normkit.backends.call import Call, Epilogue
from normkit.backends.checks import check
from normkit.backends.eligibility import (
    MIN_NUMEL,
    adds_residual,
    compiler_is_faster,
    graph_takes,
    is_overridden,
    is_small,
    unsupported_reason,
)
from normkit.backends.epilogue import apply_epilogue
from normkit.backends.setting import NAMES, forced_backend, is_forced
from normkit.backends.torch_internals import is_plain_context, is_transforming
from normkit.spec import Norm
from normkit.statistics import Running


class Choice(NamedTuple):
    """The back end that an input gets, and the reason in words."""

    name: str
    reason: str


_BATCH: Final = Norm("batch")
_FORCED: Final = {name: Choice(name, "forced by normkit.use_backend or set_backend") for name in NAMES}
_TRANSFORMED: Final = Choice(
    "eager", "torch.func or forward-mode differentiation is active: only plain operations follow it"
)
_OVERRIDDEN: Final = Choice("aten", "the input is nested, or a parameter is of a class with functions of its own")
_SMALL: Final = Choice(
    "aten", "torch's own operation is as fast as a kernel on an input of this size and layout, or faster"
)
_LARGE_ENOUGH: Final = Choice("numba", "the input is large, and in CPU memory: it is worth a kernel")
_DETERMINISTIC: Final = Choice(
    "numba", "torch.use_deterministic_algorithms is on: a kernel gives the same bits in any batch, with any threads"
)


def normalize(call: Call) -> Tensor:
    """Normalize with the back end that is forced, or that suits the call.

    Raises:
        ValueError: statistics of one element; eps that is not positive.
        RuntimeError: a shape, dtype or device that does not fit; a forced back end that cannot take the call.
    """
    if is_compiling():
        return _in_graph(call)
    x = call.x
    # a tiny normalization takes torch a few microseconds: all that is asked here must take less than one
    plain = type(x) is Tensor and is_plain_context() and not is_forced()
    if plain:
        try:
            if x.numel() < MIN_NUMEL or is_small(call):
                y = aten.OPERATIONS[call.norm.kind](call)
                return y if call.epilogue is None else apply_epilogue(y, call.epilogue)
        except (RuntimeError, IndexError, TypeError, AttributeError):
            if not is_overridden(x, call.weight, call.bias):
                check(call)  # says in our words what does not fit
                raise
    if is_overridden(x, call.weight, call.bias):
        _choose(call)  # raises where the kernels are forced
        return apply_epilogue(aten.call_overridden(call), call.epilogue)
    check(call)
    if plain:
        name = "numba" if unsupported_reason(x, call.weight, call.bias) is None else "aten"
    else:
        name = _choose(call).name
    if name == "numba":
        return _by_kernel(call)
    return apply_epilogue((aten if name == "aten" else eager).normalize(call), call.epilogue)


def choose(
    x: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    norm: Norm = _BATCH,
    running: bool = False,  # noqa: FBT001, FBT002  (public since before this rule)
    use_input_stats: bool = True,  # noqa: FBT001, FBT002
    bounds: tuple[float, float] | None = None,
) -> Choice:
    """Return the back end for an input, and why.

    Args:
        x: The input.
        weight: Of the norm, or None.
        bias: Of the norm, or None.
        norm: Which normalization: from which size on a kernel pays depends on it,
        running: on whether there are running statistics,
        use_input_stats: on whether the statistics are taken from x (False: it is evaluation),
        bounds: and on whether an activation such as ReLU, whose bounds these are, belongs to it.

    Raises:
        RuntimeError: the back end that was forced cannot take this input.
        TypeError: x is not a tensor, or the norm is not a Norm.
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"choose expected a torch.Tensor; got {type(x).__name__}: torch.from_numpy(x) gives one")
    if not isinstance(norm, Norm):
        raise TypeError(f'choose expected a normkit.spec.Norm, such as Norm("batch"), as norm; got {norm!r}')
    statistics = Running(x, x, 0.0) if running else None  # that there are any is all that counts
    epilogue = None if bounds is None else Epilogue(bounds)
    call = Call(x, norm, weight, bias, running=statistics, use_input_stats=use_input_stats, epilogue=epilogue)
    return _choose(call)


def _choose(call: Call) -> Choice:
    x, _, weight, bias, *_ = call
    forced = forced_backend()
    without_kernel = _without_kernel(x, weight, bias) if forced in ("auto", "numba") else None
    if forced != "auto":
        if without_kernel is not None:
            raise RuntimeError(
                f"the numba back end was forced, but {without_kernel.reason}; let it choose with "
                "normkit.use_backend('auto') in a block, or with normkit.set_backend('auto') in the process"
            )
        return _FORCED[forced]
    if without_kernel is not None:
        return without_kernel
    if torch.are_deterministic_algorithms_enabled():
        return _DETERMINISTIC
    return _SMALL if is_small(call) else _LARGE_ENOUGH


def _without_kernel(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Choice | None:
    """Return what a call gets where no kernel can take it."""
    if is_transforming(x, weight, bias):
        return _TRANSFORMED
    if is_overridden(x, weight, bias):
        return _OVERRIDDEN
    reason = unsupported_reason(x, weight, bias)
    return None if reason is None else Choice("aten", reason)


def runs_kernel(call: Call) -> bool:
    """Whether a kernel runs a call that torch has no operation for: wherever one can, however small the input.

    Raises:
        RuntimeError: the numba back end is forced, and cannot take the call.
    """
    if is_compiling():
        return False
    choice = _choose(call)
    return choice.name == "numba" or choice is _SMALL


def _by_kernel(call: Call) -> Tensor:
    from normkit.backends import kernels  # Numba's kernels: only where one is to run

    epilogue = call.epilogue
    if epilogue is None or epilogue.residual is None or adds_residual(epilogue.residual, call.x):
        return kernels.normalize(call)
    return apply_epilogue(kernels.normalize(call._replace(epilogue=None)), epilogue)


def _in_graph(call: Call) -> Tensor:
    """Normalize inside of a compiled graph: by our registered operators, or torch's where it is exported or fuses."""
    if is_overridden(call.x, call.weight, call.bias):
        return apply_epilogue(aten.call_overridden(call), call.epilogue)
    check(call)
    if torch.compiler.is_exporting() or is_transforming(call.x) or not graph_takes(call) or compiler_is_faster(call):
        y = aten.normalize(call)
    else:
        from normkit.backends import compiled

        y = compiled.normalize(call)
    return apply_epilogue(y, call.epilogue)
