"""Every private name of torch that the back ends ask for, and what does without it.

A name that a version of torch lacks costs speed or ability, never a right result: each function here has a way that
uses public names only. tests/torch/test_internals.py takes each of them away.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils.checkpoint import CheckpointError

if TYPE_CHECKING:
    from torch.nn.modules.batchnorm import _BatchNorm
    from torch.nn.modules.instancenorm import _InstanceNorm

    BatchNormBase = _BatchNorm
    InstanceNormBase = _InstanceNorm
else:  # the same classes, by public names
    BatchNormBase, InstanceNormBase = nn.BatchNorm1d.__mro__[1], nn.InstanceNorm1d.__mro__[1]


def _private(path: str) -> Any:
    """Return what a dotted path in torch leads to, or None."""
    found: Any = torch
    for name in path.split("."):
        found = getattr(found, name, None)
    return found


_get_tracing_state = _private("_C._get_tracing_state")
_peek_interpreter_stack = _private("_C._functorch.peek_interpreter_stack")
_interpreter = _private("_C._functorch.CInterpreter")
_is_functorch_wrapped_tensor = _private("_C._functorch.is_functorch_wrapped_tensor")
_is_batchedtensor = _private("_C._functorch.is_batchedtensor")
_is_legacy_batchedtensor = _private("_C._functorch.is_legacy_batchedtensor")
_get_deterministic_algorithms = _private("_C._get_deterministic_algorithms")
_len_torch_dispatch_stack = _private("_C._len_torch_dispatch_stack")
_current_autograd_node = _private("_C._current_autograd_node")
_has_any_global_hook = _private("nn.modules.module._has_any_global_hook")
_exec_group = _private("utils.checkpoint.GraphExecGroup")

_KNOWS_TRANSFORMS: Final = None not in (_peek_interpreter_stack, getattr(forward_ad, "_current_level", None))

KNOWS_NODES: Final = None not in (
    _current_autograd_node,
    getattr(torch.autograd.graph.Node, "_register_hook_dict", None),
    _exec_group,
)
"""Whether a node of a graph can be asked for what it has saved: see `higher_order`."""


def _is_plain_context() -> bool:
    """Whether nothing is traced, transformed or deterministic: a quick look for the smallest inputs.

    False also means that it is not known. Outside of compiled graphs only.
    """
    return (
        _get_tracing_state() is None
        and _peek_interpreter_stack() is None
        and forward_ad._current_level < 0
        and not _get_deterministic_algorithms()
    )


is_plain_context: Callable[[], bool] = (
    _is_plain_context
    if _KNOWS_TRANSFORMS and KNOWS_NODES and None not in (_get_tracing_state, _get_deterministic_algorithms)
    else lambda: False
)


def is_tracing() -> bool:
    """Whether torch.jit.trace records what is called."""
    if _get_tracing_state is None:
        return bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]
    return _get_tracing_state() is not None


def is_transforming(*tensors: Tensor | None) -> bool:
    """Whether torch.func or forward-mode differentiation is active, at least for one of these tensors.

    Inside a compiled graph too, where the stack of transforms is never None.
    """
    if not _KNOWS_TRANSFORMS:
        given = [tensor for tensor in tensors if tensor is not None]
        return any(is_wrapped(tensor) or _has_tangent(tensor) for tensor in given)
    stack = _peek_interpreter_stack()
    active = stack is not None if _interpreter is None else isinstance(stack, _interpreter)
    return bool(forward_ad._current_level >= 0 or active)


def _has_tangent(x: Tensor) -> bool:
    return forward_ad.unpack_dual(x).tangent is not None  # type: ignore[no-untyped-call]


def is_wrapped(x: Tensor) -> bool:
    """Whether a transform of torch.func stands around a tensor."""
    if _is_functorch_wrapped_tensor is not None:
        return bool(_is_functorch_wrapped_tensor(x))
    return _has_no_memory(x)


def is_batch_of_gradients(dy: Tensor) -> bool:
    """Whether a gradient stands for many, as those that torch.autograd.grad maps over with is_grads_batched."""
    return _has_no_memory(dy) if _is_legacy_batchedtensor is None else bool(_is_legacy_batchedtensor(dy))


def _has_no_memory(x: Tensor) -> bool:
    try:
        x.data_ptr()
    except RuntimeError:
        return True
    return False


def hides_layout(x: Tensor) -> bool:
    """Whether vmap hides the memory layout of what it maps over."""
    return is_wrapped(x) if _is_batchedtensor is None else bool(_is_batchedtensor(x))


def is_intercepted() -> bool:
    """Whether a dispatch mode sees every operation, as FakeTensorMode does."""
    if _len_torch_dispatch_stack is None:
        return type(torch.empty(0)) is not Tensor
    return bool(_len_torch_dispatch_stack())


def has_global_hooks() -> bool:
    """Whether somebody is told of every call of every module; True where torch does not tell."""
    return True if _has_any_global_hook is None else bool(_has_any_global_hook())


def current_node() -> Any:
    """Return the node of the graph that is being differentiated."""
    return _current_autograd_node()


def saved_by(node: Any) -> tuple[Tensor, Tensor | None, tuple[int, ...] | None]:
    """Return the input, the weight and, of a layer norm, the normalized_shape that a node has saved."""
    shape = getattr(node, "_saved_normalized_shape", None)
    try:
        x, weight = node._saved_input, node._saved_weight
    except CheckpointError:  # a checkpoint gives each tensor once in a pass, and in another group of passes anew
        with _exec_group():
            x, weight = node._saved_input, node._saved_weight
    return x, weight, None if shape is None else tuple(shape)


def fast_apply(function: type[torch.autograd.Function]) -> Callable[..., Any]:
    """Return ``function.apply`` without its Python part, which serves torch.func only."""
    inherited: Callable[..., Any] | None = getattr(super(torch.autograd.Function, function), "apply", None)
    return function.apply if inherited is None else inherited
