"""The functions: drop-in for torch.nn.functional, NumPy arrays, bad arguments, empty and unusual inputs."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as TF

import normkit
from normkit import functional as F

BACKENDS = ("auto", "numba", "aten", "eager")
SHARED = ("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm")
Call = Callable[[Any], Any]


@pytest.mark.parametrize("name", SHARED)
def test_signature_is_torchs(name: str) -> None:
    ours, theirs = (dict(inspect.signature(getattr(module, name)).parameters) for module in (F, TF))
    added = ours.pop("mask", None)  # torch has none; by name only, so that torch may add others
    assert added is None or (added.kind is inspect.Parameter.KEYWORD_ONLY and added.default is None)
    assert [(p.name, p.kind, p.default) for p in ours.values()] == [
        (p.name, p.kind, p.default) for p in theirs.values()
    ]


X = torch.arange(24.0).reshape(2, 4, 3)
ZEROS, ONES = torch.zeros(4), torch.ones(4)
# Calls that torch refuses: ours refuse them too, with an error that is caught by the same except clause.
REFUSED: dict[str, Call] = {
    "one value per channel": lambda f: f.batch_norm(X[:1, :, :1], None, None, training=True),
    "one value, 2-D": lambda f: f.batch_norm(X[:1, :, 0], None, None, training=True),
    "eps of 0 in training": lambda f: f.batch_norm(X, None, None, training=True, eps=0.0),
    "negative eps": lambda f: f.batch_norm(X, ZEROS, ONES, eps=-1.0),
    "no statistics in evaluation": lambda f: f.batch_norm(X, None, None),
    "only a mean in evaluation": lambda f: f.batch_norm(X, ZEROS, None),
    "only a mean in training": lambda f: f.batch_norm(X, ZEROS, None, training=True),
    "only a variance in training": lambda f: f.batch_norm(X, None, ONES, training=True),
    "only a variance in evaluation": lambda f: f.batch_norm(X, None, ONES),
    "instance norm with only a mean": lambda f: f.instance_norm(X, ZEROS, None),
    "instance norm with only a variance": lambda f: f.instance_norm(X, None, ONES),
    "running statistics of another size": lambda f: f.batch_norm(X, ZEROS[:3], ONES[:3]),
    "weight of another size": lambda f: f.batch_norm(X, None, None, ONES[:3], training=True),
    "bias of another size": lambda f: f.batch_norm(X, None, None, ONES, ONES[:3], training=True),
    "integers": lambda f: f.batch_norm(X.long(), None, None, training=True),
    "double weight for float input": lambda f: f.batch_norm(X, None, None, ONES.double(), training=True),
    "one spatial value": lambda f: f.instance_norm(X[:, :, :1]),
    "instance norm without statistics": lambda f: f.instance_norm(X, use_input_stats=False),
    "instance weight of another size": lambda f: f.instance_norm(X, weight=ONES[:3]),
    "groups that do not divide": lambda f: f.group_norm(X, 3),
    "group weight of another size": lambda f: f.group_norm(X, 2, ONES[:3]),
    "group norm of a vector": lambda f: f.group_norm(X[0, 0], 1),
    "one value per group": lambda f: f.group_norm(X[:1, :1, :1], 1),
    "another last axis": lambda f: f.layer_norm(X, (4,)),
    "an empty normalized_shape": lambda f: f.layer_norm(X, ()),
    "layer weight of another shape": lambda f: f.layer_norm(X, (4, 3), torch.ones(3, 4)),
    "rms: another last axis": lambda f: f.rms_norm(X, (5,)),
    "rms weight of another shape": lambda f: f.rms_norm(X, (3,), ONES),
    "a list for a tensor": lambda f: f.layer_norm([1.0, 2.0], (2,)),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_refuses_what_torch_refuses(reason: str) -> None:
    with pytest.raises((RuntimeError, ValueError, TypeError)) as theirs:
        REFUSED[reason](TF)
    with pytest.raises(theirs.type) as ours:
        REFUSED[reason](F)
    assert len(str(ours.value)) > 20


def test_a_refused_call_changes_nothing() -> None:
    mean, var = torch.zeros(4), torch.ones(4)
    with pytest.raises(RuntimeError):
        F.batch_norm(X, mean, var, ONES[:3], training=True)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        F.batch_norm(X[:1, :, :1], mean, var, training=True)
    assert torch.equal(mean, torch.zeros(4))
    assert torch.equal(var, torch.ones(4))


@pytest.mark.parametrize("num_groups", [0, -2, 3])
@pytest.mark.parametrize("size", [4, 512])  # torch's own operation, and a kernel
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_groups_that_cannot_be_are_named(num_groups: int, size: int, memory_format: torch.memory_format) -> None:
    x = torch.randn(2, 8, size, size).to(memory_format=memory_format)
    with pytest.raises(RuntimeError, match=f"to be divisible by num_groups.* num_groups={num_groups}"):
        F.group_norm(x, num_groups)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("momentum", [0.1, 0.7])
def test_running_statistics_over_ten_steps(backend: str, momentum: float) -> None:
    ours, theirs = (torch.zeros(4), torch.ones(4)), (torch.zeros(4), torch.ones(4))
    for step in range(10):
        x = torch.randn(6, 4, 5) * (step + 1) + step
        with normkit.use_backend(backend):
            y = F.batch_norm(x, *ours, training=True, momentum=momentum)
        torch.testing.assert_close(y, TF.batch_norm(x, *theirs, training=True, momentum=momentum))
        torch.testing.assert_close(ours, theirs)
    with normkit.use_backend(backend):
        torch.testing.assert_close(F.batch_norm(x, *ours), TF.batch_norm(x, *theirs))


@pytest.mark.parametrize("backend", BACKENDS)
def test_instance_running_statistics(backend: str) -> None:
    ours, theirs = (torch.zeros(4), torch.ones(4)), (torch.zeros(4), torch.ones(4))
    for _ in range(5):
        x = torch.randn(6, 4, 5) + 2
        with normkit.use_backend(backend):
            F.instance_norm(x, *ours)
        TF.instance_norm(x, *theirs)
    torch.testing.assert_close(ours, theirs)


randn = partial(torch.randn, generator=torch.Generator().manual_seed(0))
# (name, input, the call): inputs that are allowed and unusual
UNUSUAL: list[tuple[str, torch.Tensor]] = [
    ("transposed", randn(5, 4, 3, 6).transpose(2, 3)),
    ("transposed channels", randn(5, 6, 4).transpose(1, 2)),
    ("every second", randn(10, 4, 6)[::2]),
    ("expanded", randn(1, 4, 6).expand(5, 4, 6)),
    ("expanded channels", randn(5, 1, 6).expand(5, 4, 6)),
    ("empty batch", randn(0, 4, 6)),
    ("empty space", randn(5, 4, 0)),
    ("offset", randn(4 * 6 * 5 + 1)[1:].view(5, 4, 6)),
    ("channels last", randn(5, 4, 3, 6).contiguous(memory_format=torch.channels_last)),
    ("channels last of one pixel", randn(5, 4, 1, 1).contiguous(memory_format=torch.channels_last)),
    ("channels last 3d", randn(5, 4, 3, 6, 2).contiguous(memory_format=torch.channels_last_3d)),
    ("two axes", randn(7, 4)),
]
FUNCTIONS: dict[str, Callable[[Any, torch.Tensor], torch.Tensor]] = {
    "batch": lambda f, x: f.batch_norm(x, None, None, ONES * 2, ZEROS + 1, training=True),
    "batch, evaluation": lambda f, x: f.batch_norm(x, ZEROS + 1, ONES * 3, ONES * 2, ZEROS + 1),
    "group": lambda f, x: f.group_norm(x, 2 if x.dim() > 2 else 1, ONES * 2, ZEROS + 1),
    "instance": lambda f, x: f.instance_norm(x, None, None, ONES * 2, ZEROS + 1),
    "layer": lambda f, x: f.layer_norm(x, x.shape[1:]),
    "rms": lambda f, x: f.rms_norm(x, x.shape[-1:]),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(("name", "x"), UNUSUAL, ids=[name for name, _ in UNUSUAL])
def test_unusual_inputs(name: str, x: torch.Tensor, function: str, backend: str) -> None:
    call = FUNCTIONS[function]
    theirs = x.detach().requires_grad_()
    if x.numel() == 0 and backend == "numba":
        with normkit.use_backend(backend), pytest.raises(RuntimeError, match="the input is empty"):
            call(F, x)
        return
    if x.numel() == 0 and function in ("instance", "group") and backend == "eager":
        with normkit.use_backend(backend):
            assert call(F, x).shape == x.shape  # torch's own instance norm fails on it, and from 2.14 on group norm
        return
    try:
        expected = call(TF, theirs)
    except (RuntimeError, ValueError, IndexError) as error:
        with normkit.use_backend(backend), pytest.raises(type(error)):
            call(F, x)
        return
    ours = x.detach().requires_grad_()
    with normkit.use_backend(backend):
        y = call(F, ours)
    torch.testing.assert_close(y, expected, equal_nan=True)
    dy = torch.randn(y.shape)
    torch.testing.assert_close(
        torch.autograd.grad(y, ours, dy)[0],
        torch.autograd.grad(expected, theirs, dy)[0],
        rtol=1e-4,
        atol=2e-5,
        equal_nan=True,
    )
    if name.startswith("channels last") and x[0, 0].numel() > 1:
        assert y.stride() == x.stride()
    elif not name.startswith("channels last"):
        assert y.stride() == expected.stride()


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_value_is_bias(backend: str) -> None:
    x = torch.tensor([[3.0e4], [-2.0], [0.0]], requires_grad=True)
    with normkit.use_backend(backend):
        y = F.layer_norm(x, (1,), torch.tensor([2.0]), torch.tensor([0.25]))
    assert torch.equal(y, torch.full((3, 1), 0.25))
    (dx,) = torch.autograd.grad(y, x, torch.ones(3, 1))
    assert float(dx.abs().max()) < 1e-4


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
@pytest.mark.parametrize("name", SHARED)
def test_arrays(name: str, dtype: type) -> None:
    rng = np.random.default_rng(0)
    x: np.ndarray = rng.normal(2.0, 3.0, (8, 4, 6)).astype(dtype)
    arguments: dict[str, dict[str, Any]] = {
        "batch_norm": {"running_mean": None, "running_var": None, "training": True},
        "layer_norm": {"normalized_shape": (4, 6)},
        "group_norm": {"num_groups": 2},
        "instance_norm": {},
        "rms_norm": {"normalized_shape": [6]},
    }
    y = getattr(F, name)(x, **arguments[name])
    assert type(y) is np.ndarray
    assert y.dtype == dtype
    expected = getattr(F, name)(torch.from_numpy(x), **arguments[name]).numpy()
    assert np.array_equal(y, expected)


@pytest.mark.parametrize("strided", [False, True])
def test_arrays_are_updated_in_place(strided: bool) -> None:
    x = np.random.default_rng(0).normal(2.0, 3.0, (8, 4, 6))
    mean, var = (np.zeros(8)[::-2], np.ones(8)[::-2]) if strided else (np.zeros(4), np.ones(4))
    F.batch_norm(x, mean, var, training=True, momentum=1.0)
    assert np.allclose(mean, x.mean(axis=(0, 2)))
    assert np.allclose(var, x.var(axis=(0, 2), ddof=1))
    evaluated = F.batch_norm(x, mean, var, eps=0.0)
    assert np.allclose(evaluated.mean(axis=(0, 2)), 0.0)


def test_arrays_of_any_memory() -> None:
    base = np.random.default_rng(0).normal(size=(6, 4, 8)).astype(np.float32)
    expected = F.layer_norm(base, (8,))
    read_only = base.copy()
    read_only.flags.writeable = False
    for x in (np.asfortranarray(base), base[::-1][::-1], read_only, base.astype(">f4")):
        assert np.array_equal(F.layer_norm(x, (8,)), expected)
    assert F.layer_norm(base[:0], (8,)).shape == (0, 4, 8)


def test_what_arrays_may_not_be() -> None:
    x = np.ones((4, 3))
    frozen = np.zeros(3)
    frozen.flags.writeable = False
    with pytest.raises(TypeError, match="dtype float64, float32 or float16; got int64"):
        F.layer_norm(np.arange(6).reshape(2, 3), (3,))
    with pytest.raises(TypeError, match=r"torch\.Tensor as weight: use one kind"):
        F.layer_norm(x, (3,), torch.ones(3))  # type: ignore[type-var]
    with pytest.raises(ValueError, match="running_mean in place, but the array given is read-only"):
        F.batch_norm(x, frozen, np.ones(3), training=True)
