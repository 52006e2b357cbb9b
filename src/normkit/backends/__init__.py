"""Which implementation runs, and why.

==========  ==========================================================  ===================================
back end    what it is                                                  chosen for
==========  ==========================================================  ===================================
``numba``   kernels of our own (:mod:`normkit.backends.numba`)          CPU tensors worth a kernel
``aten``    torch's own operations                                      small inputs, other devices, tracing
``eager``   plain torch operations, differentiable any number of times  torch.func, forward-mode AD
==========  ==========================================================  ===================================

Inside a graph of torch.compile the kernels run as registered operators (:mod:`normkit.backends.compiled`); an exported
graph holds torch's own operations.

:func:`use_backend` forces one; :func:`choose` tells which one an input gets, and why.
"""

from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from contextvars import ContextVar, Token
from functools import lru_cache
from importlib import import_module
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.compiler import is_compiling

from normkit.backends import aten, available, compiled, eager
from normkit.backends.crossover import crossover
from normkit.spec import Norm
from normkit.statistics import Running

__all__ = ["NAMES", "Choice", "choose", "first_look", "normalize", "use_backend"]


class Choice(NamedTuple):
    """The back end that an input gets, and the reason in words."""

    name: str
    reason: str


NAMES = ("auto", "numba", "aten", "eager")
KERNEL_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)

_BATCH = Norm("batch")
_KEEPING = ("batch", "group", "instance")  # kinds whose operation in torch keeps the memory layout, as ours does
_FORCED = {name: Choice(name, "forced by normkit.use_backend") for name in NAMES}
_TRANSFORMED = Choice("eager", "torch.func or forward-mode differentiation is active: only plain operations follow it")
_SMALL = Choice("aten", "torch's own operation is as fast as a kernel on an input of this size and layout, or faster")
_WORTH = Choice("numba", "the input is large, and in CPU memory: it is worth a kernel")

_tracing_state = torch._C._get_tracing_state
_transforms = torch._C._functorch.peek_interpreter_stack

_forced: ContextVar[str | None] = ContextVar("normkit_backend", default=None)
# The process-wide settings, the last of which holds; one that is entered as a context manager leaves, whatever other
# threads have set since. Settings that are never entered are not kept for ever.
_process_wide: "deque[use_backend]" = deque(maxlen=64)


class Normalize(Protocol):
    """What a back end is: one function."""

    def __call__(
        self,
        x: Tensor,
        norm: Norm,
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float,
        running: Running | None,
        use_input_stats: bool,
    ) -> Tensor:
        """Normalize x with its own statistics (updating ``running``, if given) or with the running ones."""


class use_backend(AbstractContextManager["use_backend"]):  # noqa: N801  (used like a function, as torch.no_grad is)
    """Force a back end: for the whole process or, as a context manager, for a block in this thread.

    Args:
        name: "numba", "aten", "eager", or "auto" to let each input choose. A forced back end that cannot take an
            input raises a RuntimeError that says why.
    Raises:
        ValueError: no such back end.

    >>> import normkit
    >>> with normkit.use_backend("eager"):
    ...     y = normkit.BatchNorm1d(3)(torch.randn(8, 3))
    """

    def __init__(self, name: str) -> None:
        if name not in NAMES:
            raise ValueError(f"expected a back end out of {', '.join(NAMES)}; got {name!r}")
        self._name = name
        self._tokens: list[Token[str | None]] = []
        _process_wide.append(self)

    def __enter__(self) -> "use_backend":
        with suppress(ValueError):  # entered before
            _process_wide.remove(self)
        self._tokens.append(_forced.set(self._name))
        return self

    def __exit__(self, *exception: object) -> None:
        _forced.reset(self._tokens.pop())


def _setting() -> str:
    """The back end that is forced here, or "auto"."""
    return _forced.get() or (_process_wide[-1]._name if _process_wide else "auto")


def first_look(x: Tensor, least: int, norm: Norm | None = None, use_input_stats: bool = True) -> str | None:
    """What a plain call gets: "aten" where it is small for its norm, else "numba" if that can take the tensors.

    None: it is not plain, and :func:`normalize` is to choose. "aten" leaves all of it to torch's own function, checks
    too: a tiny normalization takes torch a few microseconds, and this costs less than one.

    Args:
        x: The input.
        least: Of :data:`normkit.backends.crossover.LEAST`, that of the function.
        norm: Which normalization, without running statistics where it is of kind "instance". Without it only what is
            smaller than the least, and contiguous, is handed over.
        use_input_stats: Whether to take the statistics from x.
    """
    if is_compiling():  # first: a size may be a symbol there, and asking for it fixes it
        return None
    if (
        type(x) is not Tensor
        or _tracing_state() is not None
        or ((_process_wide or _forced.get()) and _setting() != "auto")
        or forward_ad._current_level >= 0  # _is_transformed, which takes longer for the sake of compiled graphs
        or _transforms() is not None
    ):
        return None
    small = x.numel() < least
    if norm is None:
        return "aten" if small and x.is_contiguous() else None
    if not small:
        usual = norm.kind == "batch" and use_input_stats and x.dtype is torch.float32
        if not (usual and x.dim() > 2 and x.is_contiguous()):  # from the least on the usual one gets a kernel
            small = x.numel() < _crossover(x, norm, use_input_stats=use_input_stats)
    if not small:
        return "numba"
    return "aten" if norm.kind in _KEEPING or x.is_contiguous() else None


def choose(
    x: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    norm: Norm = _BATCH,
    running: bool = False,
    use_input_stats: bool = True,
) -> Choice:
    """The back end for an input, and why.

    Args:
        x: The input.
        weight, bias: Of the norm, or None.
        norm: Which normalization: from which size on a kernel pays depends on it,
        running: on whether there are running statistics,
        use_input_stats: and on whether the statistics are taken from x. False: it is evaluation.
    Raises:
        RuntimeError: the back end that was forced cannot take this input.
        TypeError: the norm is not a Norm.
    """
    if not isinstance(norm, Norm):
        raise TypeError(f'choose expected a normkit.spec.Norm, such as Norm("batch"), as norm; got {norm!r}')
    forced = _setting()
    if forced == "auto":
        return _automatic(x, weight, bias, norm, running, use_input_stats)
    obstacle = _kernel_obstacle(x, weight, bias) if forced == "numba" else None
    if obstacle is not None:
        raise RuntimeError(
            f"the numba back end was forced, but {obstacle}; use normkit.use_backend('auto') to let it choose"
        )
    return _FORCED[forced]


def _automatic(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, norm: Norm, running: bool, use_input_stats: bool
) -> Choice:
    if _is_transformed():
        return _TRANSFORMED
    if 0 < x.numel() < _crossover(x, norm, running, use_input_stats):
        return _SMALL
    obstacle = _kernel_obstacle(x, weight, bias)
    return _WORTH if obstacle is None else Choice("aten", obstacle)


def _crossover(x: Tensor, norm: Norm, running: bool = False, use_input_stats: bool = True) -> int:
    axes, channels_last = x.dim(), eager.memory_order(x) is not None
    channels = x.size(1) if axes > 1 else 0
    scattered = axes > 2 and channels > 1 and not channels_last and x.stride(1) == 1 and not x.is_contiguous()
    return crossover(norm, x.dtype, axes, channels_last, channels, running, use_input_stats, scattered)


def _traced() -> Normalize:
    """What goes into a graph: our registered operators; torch's own where it is exported or transformed."""
    if torch.compiler.is_exporting() or _is_transformed():
        return aten.normalize
    return compiled.normalize


def _is_transformed() -> bool:
    # not "is not None", which is true of anything in a graph that is being compiled
    functorch = torch._C._functorch
    return forward_ad._current_level >= 0 or isinstance(functorch.peek_interpreter_stack(), functorch.CInterpreter)


def _kernel_obstacle(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> str | None:
    """Why the kernels cannot take a call; None if they can."""
    if _tracing_state() is not None:
        return "the call is being traced"
    return _obstacle_of_tensors(x, weight, bias)


def _obstacle_of_tensors(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> str | None:
    """Why the kernels cannot take these, whatever they have been called from."""
    if torch._C._len_torch_dispatch_stack():
        return "the call is intercepted by a dispatch mode"
    if torch._C._functorch.is_functorch_wrapped_tensor(x):
        return "the input is what torch.func has left behind of a transform that is over"
    if type(x) not in (Tensor, torch.nn.Parameter):
        return f"{type(x).__name__} is a subclass of Tensor with rules of its own"
    if not x.is_cpu or x.layout is not torch.strided:
        return f"the input is on {x.device.type} ({x.layout}), and the kernels read dense CPU memory"
    dtype = x.dtype
    if dtype not in KERNEL_DTYPES:
        return f"the kernels compute float64, float32, bfloat16 and float16, not {dtype}"
    for parameter in (weight, bias):
        if parameter is not None and not (
            parameter.is_cpu
            and (parameter.dtype is dtype or (parameter.dtype is torch.float32 and dtype in eager.HALF))
        ):
            return f"weight and bias are {parameter.dtype} on {parameter.device.type} beside an input in {dtype}"
    if x.numel() == 0:
        return "the input is empty"
    if torch._C._is_any_autocast_enabled() and torch.is_autocast_enabled("cpu"):
        return "autocast is active on the CPU"
    if available.OBSTACLE is None and dtype is torch.float16 and not available.converts_float16():
        return "this processor has no instructions that convert float16"
    return available.OBSTACLE


@lru_cache(maxsize=1)
def _kernels() -> Callable[..., Tensor]:
    """The kernels, imported when first needed: Numba takes a while."""
    implementation: Callable[..., Tensor] = import_module("normkit.backends.cpu").normalize
    return implementation


def normalize(
    x: Tensor,
    norm: Norm,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    running: Running | None = None,
    use_input_stats: bool = True,
    look: str | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """Normalize x with the back end that is forced, or that suits it.

    Args:
        x: The input.
        norm: Which normalization.
        weight, bias: Of shape ``norm.affine_shape(x.shape)``, or None.
        eps: Added to the variance, inside the square root.
        running: Running statistics of shape (C,): updated, and the batch counted, if use_input_stats, else used in
            place of the input's own.
        use_input_stats: Whether to take the statistics from x.
        look: What :func:`first_look` has said, if it was asked.
        residual: Added to the result of a batch norm before its bounds hold it.
    """
    implementation: Normalize
    if look is None and is_compiling():
        implementation = _traced()
    else:
        if look == "numba":
            name = "numba" if _obstacle_of_tensors(x, weight, bias) is None else "aten"
        else:
            name = choose(x, weight, bias, norm, running is not None, use_input_stats).name
        if name == "numba":
            if residual is None or _joins(residual, x):
                return _kernels()(x, norm, weight, bias, eps, running, use_input_stats, residual)
            plain = norm._replace(bounds=None)
            return eager.complete(_kernels()(x, plain, weight, bias, eps, running, use_input_stats), norm, residual)
        implementation = aten.normalize if name == "aten" else eager.normalize
    return eager.complete(implementation(x, norm, weight, bias, eps, running, use_input_stats), norm, residual)


def _joins(residual: Tensor, x: Tensor) -> bool:
    """Whether a kernel can add it to the result of x."""
    return (
        residual.shape == x.shape
        and residual.dtype is x.dtype
        and type(residual) is Tensor
        and residual.is_cpu
        and residual.layout is torch.strided
    )
