"""A backward pass refuses what is not what its forward pass has saved, as torch.nn does, and reads nothing of it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.autograd.graph import saved_tensors_hooks

import normkit
from normkit.backends import Call
from normkit.backends.addresses import address
from normkit.backends.compiled import _encode
from normkit.spec import Norm
from tests.cases import channels_last


def _act(x: Tensor, layer: Any) -> Tensor:
    """A batch norm, a residual, a ReLU."""
    result: Tensor = layer(x, torch.ones_like(x.detach()))
    return result


def _masked(x: Tensor, layer: Any) -> Tensor:
    mask = torch.ones(x.shape[0], *x.shape[2:])
    mask[0, :2] = 0.0
    result: Tensor = layer(x, mask=mask)
    return result


def _over_ranks(x: Tensor, layer: Any) -> Tensor:
    from normkit.backends.sync_batch_norm import sync_batch_norm

    call = Call(x, Norm("batch"), layer.weight, layer.bias, layer.eps)
    return sync_batch_norm(call, distributed.group.WORLD)


@dataclass(frozen=True)
class Row:
    """A layer, and how it is called."""

    make: Callable[[], nn.Module]
    call: Callable[[Tensor, Any], Tensor] = lambda x, layer: layer(x)


ROWS = {
    "batch": Row(lambda: normkit.BatchNorm2d(6)),
    "batch in evaluation": Row(lambda: normkit.BatchNorm2d(6).eval()),
    "layer": Row(lambda: normkit.LayerNorm(5)),
    "layer of two axes": Row(lambda: normkit.LayerNorm((4, 5))),
    "layer over channels": Row(lambda: normkit.LayerNorm2d(6)),
    "rms": Row(lambda: normkit.RMSNorm(5)),
    "group": Row(lambda: normkit.GroupNorm(2, 6)),
    "instance": Row(lambda: normkit.InstanceNorm2d(6, affine=True)),
    "bounds": Row(lambda: normkit.BatchNormAct2d(6)),
    "residual and bounds": Row(lambda: normkit.BatchNormAct2d(6), _act),
    "masked batch": Row(lambda: normkit.BatchNorm2d(6), _masked),
    "masked group": Row(lambda: normkit.GroupNorm(2, 6), _masked),
    "over ranks": Row(lambda: normkit.BatchNorm2d(6), _over_ranks),
}
SHAPE = (4, 6, 4, 5)
every_row = pytest.mark.parametrize("name", ROWS)


@pytest.fixture(autouse=True)
def _kernels() -> Iterator[None]:
    with normkit.use_backend("numba"):
        yield


@pytest.fixture(autouse=True, scope="module")
def _one_rank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    meet = tmp_path_factory.mktemp("rank") / "meet"
    distributed.init_process_group("gloo", init_method=f"file://{meet}", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def training(name: str, dtype: torch.dtype = torch.float32) -> tuple[Tensor, nn.Module]:
    """An input that wants a gradient, and a layer."""
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(3)).to(dtype)
    return x.requires_grad_(), ROWS[name].make().to(dtype)


def _wider(x: Tensor, layer: Any) -> None:
    layer.double()


def _halved(x: Tensor, layer: Any) -> None:
    layer.half()


def _shorter_weight(x: Tensor, layer: Any) -> None:
    layer.weight.data = layer.weight.data[:1].clone()


def _freed_weight(x: Tensor, layer: Any) -> None:
    layer.weight.untyped_storage().resize_(0)


def _shrunk_weight(x: Tensor, layer: Any) -> None:
    layer.weight.untyped_storage().resize_(4)


def _wider_input(x: Tensor, layer: Any) -> None:
    x.data = x.data.double()


def _shorter_input(x: Tensor, layer: Any) -> None:
    x.data = x.data[:1].clone()


def _reshaped_input(x: Tensor, layer: Any) -> None:
    x.data = x.data.view(8, 6, 2, 5)


def _freed_input(x: Tensor, layer: Any) -> None:
    x.untyped_storage().resize_(0)


def _shrunk_input(x: Tensor, layer: Any) -> None:
    x.untyped_storage().resize_(x.nbytes // 2)


CHANGES = (
    _wider, _halved, _shorter_weight, _freed_weight, _shrunk_weight,
    _wider_input, _shorter_input, _reshaped_input, _freed_input, _shrunk_input,
)  # fmt: skip


@pytest.mark.parametrize("again", [False, True], ids=["", "differentiable"])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__[1:])
@every_row
def test_what_was_changed_after_forward_is_refused(
    name: str, change: Callable[[Tensor, Any], None], again: bool
) -> None:
    x, layer = training(name)
    y = ROWS[name].call(x, layer)
    before = {key: value.clone() for key, value in layer.named_buffers()}
    dy = torch.randn(y.shape)
    change(x, layer)
    with pytest.raises(RuntimeError, match=r"expected .* got .*forward"):
        y.backward(dy, create_graph=again)
    assert x.grad is None
    assert all(parameter.grad is None for parameter in layer.parameters())
    if change not in (_wider, _halved):
        assert all(torch.equal(value, before[key]) for key, value in layer.named_buffers())


UNPACKED: dict[str, Callable[[Tensor], Tensor]] = {
    "another dtype": lambda t: t.to(torch.float64 if t.dtype is not torch.float64 else torch.float32),
    "half": lambda t: t.half(),
    "one axis more": lambda t: t[None],
    "shorter": lambda t: t.flatten()[:1].clone() if t.numel() > 1 else t.flatten()[:0].clone(),
    "longer": lambda t: torch.cat([t, t]) if t.dim() else t.expand(2),
    "without memory": lambda t: t.to("meta"),
    "shrunk": lambda t: _shrink(t.clone()),
}


def _shrink(t: Tensor) -> Tensor:
    t.untyped_storage().resize_(t.nbytes // 2)
    return t


@pytest.mark.parametrize("how", UNPACKED)
@every_row
def test_what_a_hook_makes_of_a_saved_tensor_is_refused(name: str, how: str) -> None:
    """Of each saved tensor by itself."""
    index = saved = 0
    while index == 0 or index < saved:
        x, layer = training(name)
        packed: list[Tensor] = []

        def pack(t: Tensor, packed: list[Tensor] = packed) -> int:
            packed.append(t)
            return len(packed) - 1

        def unpack(at: int, packed: list[Tensor] = packed, index: int = index) -> Tensor:
            return UNPACKED[how](packed[at]) if at == index else packed[at]

        with saved_tensors_hooks(pack, unpack):
            y = ROWS[name].call(x, layer)
        saved = len(packed)
        assert saved >= 3
        with pytest.raises(RuntimeError):
            y.backward(torch.randn(y.shape))
        assert x.grad is None, index
        index += 1


@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels last"])
@every_row
def test_a_hook_may_change_the_memory_layout(name: str, last: bool) -> None:
    """What is stored and read again, on disk or as an array, often lies in another."""

    def gradients(unpack: Callable[[Tensor], Tensor]) -> list[Tensor]:
        x, layer = training(name, torch.float64)
        x = channels_last(x.detach()).requires_grad_() if last else x
        with saved_tensors_hooks(lambda t: t, unpack):
            y = ROWS[name].call(x, layer)
        found = torch.autograd.grad(y.square().sum(), [x, *layer.parameters()])
        return list(found)

    def other(t: Tensor) -> Tensor:
        if t.dim() != 4:
            return t.flatten().repeat_interleave(2)[::2].view(t.shape) if t.dim() < 2 else t
        return t.contiguous() if last else channels_last(t)

    for found, expected in zip(gradients(other), gradients(lambda t: t), strict=True):
        torch.testing.assert_close(found, expected)


def operands(**other: Any) -> dict[str, Any]:
    """What the registered forward operator takes, with some of it replaced."""
    given = {"x": torch.randn(SHAPE), "weight": torch.ones(6), "bias": torch.zeros(6)}
    rest = {"running_mean": None, "running_var": None, "kind": "batch", "norm": _encode(Norm("batch")), "eps": 1e-5}
    return {**given, **rest, **other}


@pytest.mark.parametrize(
    "other",
    [
        {"weight": torch.ones(1)},
        {"bias": torch.ones(2, 3)},
        {"weight": torch.ones(6, dtype=torch.float64)},
        {"running_mean": torch.zeros(6)},
        {"running_mean": torch.zeros(1), "running_var": torch.ones(1)},
        {"running_mean": torch.zeros(12), "running_var": torch.ones(6)},
        {"kind": "nonsense"},
        {"norm": [1]},
        {"norm": []},
        {"kind": "layer", "norm": [1, 1]},
        {"kind": "layer", "norm": [1, 1, 7]},
        {"kind": "group", "norm": [1, 4]},
        {"kind": "group", "norm": [1, 0]},
        {"x": torch.ones(SHAPE, dtype=torch.int64)},
        {"x": torch.ones(6)},
        {"x": torch.ones(0, 6), "weight": torch.ones(2)},
        {"x": _shrink(torch.ones(SHAPE))},
        {"weight": _shrink(torch.ones(6))},
    ],
    ids=range(18),
)
def test_the_forward_operator_checks_what_it_is_given(other: dict[str, Any]) -> None:
    with pytest.raises((RuntimeError, ValueError), match="expect"):
        torch.ops.normkit.normalize(**operands(**other))


def gradient_operands(**other: Any) -> dict[str, Any]:
    """What the registered backward operator takes, with some of it replaced."""
    given = {"dy": torch.randn(SHAPE), "x": torch.randn(SHAPE), "parameters": [torch.ones(6), torch.zeros(6)]}
    stats = {"mean": torch.zeros(6), "rstd": torch.ones(6)}
    rest = {"kind": "batch", "norm": _encode(Norm("batch")), "flags": [True, True, True, False]}
    return {**given, **stats, **rest, **other}


@pytest.mark.parametrize(
    "other",
    [
        {"dy": torch.randn(2, 6, 4, 5)},
        {"dy": torch.randn(SHAPE, dtype=torch.float64)},
        {"dy": torch.randn(4, 6, 20)},
        {"x": torch.randn(SHAPE, dtype=torch.float64)},
        {"x": torch.ones(SHAPE, dtype=torch.int64), "dy": torch.ones(SHAPE, dtype=torch.int64)},
        {"mean": torch.zeros(1)},
        {"mean": torch.zeros(6, dtype=torch.float64)},
        {"rstd": torch.zeros(5)},
        {"rstd": torch.zeros(6).half()},
        {"parameters": [torch.ones(1), torch.zeros(6)]},
        {"parameters": [torch.ones(6), torch.zeros(3)]},
        {"parameters": [torch.ones(6, dtype=torch.float64), torch.zeros(6)]},
        {"parameters": [torch.ones(6)]},
        {"parameters": []},
        {"parameters": [torch.ones(6), torch.zeros(6), torch.zeros(6)]},
        {"flags": []},
        {"flags": [True, True]},
        {"norm": []},
        {"kind": "layer", "norm": [1, 1, 7]},
        {"dy": _shrink(torch.ones(SHAPE))},
        {"x": _shrink(torch.ones(SHAPE))},
        {"mean": _shrink(torch.ones(6))},
    ],
    ids=range(22),
)
def test_the_backward_operator_checks_what_it_is_given(other: dict[str, Any]) -> None:
    with pytest.raises((RuntimeError, ValueError), match="expect"):
        torch.ops.normkit.normalize_backward(**gradient_operands(**other))


@pytest.mark.parametrize("change", [_wider, _halved, _shorter_weight, _shorter_input], ids=lambda c: c.__name__[1:])
def test_a_compiled_layer_refuses_too(change: Callable[[Tensor, Any], None]) -> None:
    torch._dynamo.reset()
    x, layer = training("batch")
    y = torch.compile(layer, backend="aot_eager")(x)
    change(x, layer)
    with pytest.raises(RuntimeError):
        y.backward(torch.randn(SHAPE))


def test_layouts_of_the_operators_fit_each_other() -> None:
    """A row norm of channels-last memory has its statistics in the order of that memory."""
    norm = Norm("layer", normalized_shape=(5,))
    expected = torch.nn.functional.layer_norm
    x = channels_last(torch.randn(SHAPE, dtype=torch.float64)).requires_grad_()
    weight = torch.randn(5, dtype=torch.float64, requires_grad=True)
    dy = torch.randn(SHAPE, dtype=torch.float64)
    with saved_tensors_hooks(lambda t: t, lambda t: t.contiguous()):
        y, *_ = torch.ops.normkit.normalize(x, weight, None, None, None, "layer", _encode(norm), 1e-5)
    found = torch.autograd.grad(y, [x, weight], dy)
    truth = torch.autograd.grad(expected(x, (5,), weight), [x, weight], dy)
    for one, other in zip(found, truth, strict=True):
        torch.testing.assert_close(one, other)


def _negative(t: Tensor) -> Tensor:
    return torch.complex(t, t).conj().imag


@pytest.mark.parametrize(
    "bad",
    [
        torch.ones(8, dtype=torch.float64),
        torch.ones(7),
        torch.ones(16)[::2],
        torch.ones(1).expand(8),
        torch.ones(8, device="meta"),
        torch.ones(8).to_sparse(),
        _negative(torch.ones(8)),
        _shrink(torch.ones(8)),
    ],
    ids=["dtype", "length", "steps", "expanded", "meta", "sparse", "negative", "shrunk"],
)
def test_an_address_is_that_of_elements_as_a_kernel_reads_them(bad: Tensor) -> None:
    with pytest.raises(RuntimeError, match=r"expected weight .* got"):
        address("weight", bad, 8, torch.float32)


def test_an_address_within_a_storage() -> None:
    whole = torch.ones(16)
    assert address("x", whole[8:], 8, torch.float32) == whole.data_ptr() + 32
    assert address("x", None, 8, torch.float32) == 0
    view = whole[8:]
    whole.untyped_storage().resize_(48)
    with pytest.raises(RuntimeError, match="expected x"):
        address("x", view, 8, torch.float32)
