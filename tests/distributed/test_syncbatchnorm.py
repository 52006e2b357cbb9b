"""SyncBatchNorm on real gloo ranks against one process that sees the whole batch."""

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import normkit
from tests.distributed.ranks import run


class Case(NamedTuple):
    """One layer, and the batch of every rank."""

    shapes: tuple[tuple[int, ...], ...]
    dtype: torch.dtype = torch.float64
    channels_last: bool = False
    options: dict[str, Any] = {}  # noqa: RUF012
    backend: str = "auto"
    order: int = 1
    activation: bool = False
    half_layer: bool = False


UNTRACKED = {"track_running_stats": False}
CASES = {
    "equal": Case(((4, 5, 6), (4, 5, 6))),
    "unequal": Case(((7, 5, 6), (2, 5, 6))),
    "one value": Case(((1, 5), (3, 5))),
    "empty": Case(((4, 5, 6, 3), (0, 5, 6, 3))),
    "2d": Case(((4, 5), (3, 5)), options={"affine": False}),
    "5d": Case(((2, 3, 4, 5, 2), (1, 3, 4, 5, 2)), options={"momentum": 0.3}),
    "channels last": Case(((3, 5, 6, 7), (2, 5, 6, 7)), channels_last=True),
    "channels last 3d": Case(((3, 5, 6, 2, 3), (2, 5, 6, 2, 3)), channels_last=True),
    "cumulative": Case(((3, 5, 6, 7), (2, 5, 6, 7)), options={"momentum": None}),
    "untracked": Case(((3, 5), (2, 5)), options=UNTRACKED),
    "kernels": Case(((4, 5, 60), (3, 5, 60)), backend="numba"),
    "kernels, no weight": Case(((4, 5, 60), (3, 5, 60)), backend="numba", options={"affine": False}),
    "kernels, channels last": Case(((3, 5, 6, 7), (2, 5, 6, 7)), channels_last=True, backend="numba"),
    "float32": Case(((4, 5, 60), (3, 5, 60)), torch.float32),
    "bfloat16": Case(((4, 5, 60), (3, 5, 60)), torch.bfloat16),
    "float16": Case(((4, 5, 60), (3, 5, 60)), torch.float16),
    "bfloat16 layer": Case(((4, 5, 60), (3, 5, 60)), torch.bfloat16, half_layer=True),
    "float16 layer": Case(((4, 5, 60), (3, 5, 60)), torch.float16, half_layer=True),
    "bfloat16 layer, kernels": Case(((4, 5, 60), (3, 5, 60)), torch.bfloat16, backend="numba", half_layer=True),
    "float16 layer, channels last": Case(
        ((4, 5, 6, 7), (3, 5, 6, 7)), torch.float16, channels_last=True, options=UNTRACKED, half_layer=True
    ),
    "empty, no weight": Case(((4, 5, 6), (0, 5, 6)), options={"affine": False}),
    "empty, bfloat16": Case(((4, 5, 60), (0, 5, 60)), torch.bfloat16, backend="numba"),
    "float16, channels last": Case(((4, 5, 6, 7), (3, 5, 6, 7)), torch.float16, channels_last=True),
    "weight, no bias": Case(((4, 5, 6), (3, 5, 6)), options={"bias": False}),
    "wide": Case(((4, 1500), (3, 1500))),
    "activation": Case(((3, 5, 6, 7), (2, 5, 6, 7)), activation=True),
    "activation, kernels": Case(((3, 5, 6, 7), (0, 5, 6, 7)), backend="numba", activation=True),
    "double backward": Case(((4, 3, 6), (2, 3, 6)), order=2),
    "double backward, empty": Case(((4, 3, 6), (0, 3, 6)), order=2),
}
THREE = {
    "three": Case(((4, 5, 6), (1, 5, 6), (2, 5, 6))),
    "three, one empty": Case(((4, 5, 6), (0, 5, 6), (2, 5, 6))),
    "three, two empty, no weight": Case(((0, 5, 6), (4, 5, 6), (0, 5, 6)), options={"affine": False}),
    "three, cumulative": Case(((4, 5, 6), (1, 5, 6), (2, 5, 6)), options={"momentum": None}),
    "three, untracked, half": Case(((4, 5, 60), (1, 5, 60), (2, 5, 60)), torch.float16, options=UNTRACKED),
    "three, double backward": Case(((2, 3, 6), (1, 3, 6), (2, 3, 6)), order=2),
}
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5, torch.bfloat16: 4e-2, torch.float16: 5e-3}
STEPS = 2


def inputs(case: Case, rank: int, step: int) -> tuple[Tensor, Tensor]:
    """x and dy of a rank: offset, so that a careless formula for the variance shows."""
    found = []
    for kind in range(2):
        generator = torch.Generator().manual_seed(100 * rank + 10 * step + kind)
        value = torch.randn(case.shapes[rank], generator=generator, dtype=torch.float64)
        value = (value if kind else 0.5 * value + 3.0).to(case.dtype)
        if case.channels_last:
            value = value.contiguous(memory_format=[torch.channels_last, torch.channels_last_3d][value.dim() - 4])
        found.append(value)
    return found[0], found[1]


def build(case: Case) -> nn.Module:
    """A layer with a weight and a bias that are not ones and zeros."""
    if case.activation:
        act = normkit.BatchNormAct2d(case.shapes[0][1], eps=1e-3, act_layer=nn.ReLU6, **case.options)
        layer = normkit.convert_sync_batchnorm(act)
    else:
        layer = normkit.SyncBatchNorm(case.shapes[0][1], eps=1e-3, **case.options)
    layer.to(case.dtype if case.half_layer or case.dtype is torch.float64 else torch.float32)
    with torch.no_grad():
        for index, parameter in enumerate(layer.parameters()):
            parameter.copy_(torch.linspace(0.5, 2.0, parameter.numel()) * (-1) ** index)
    return layer


def step(layer: Any, x: Tensor, dy: Tensor, order: int) -> dict[str, Tensor]:
    """Result and gradients; those of the squared norm of the gradient of x, for order 2."""
    x.requires_grad_()
    layer.zero_grad()
    y = layer(x)
    if order == 1:
        y.backward(dy)
    else:
        (gradient,) = torch.autograd.grad((y.sin() * dy).sum(), x, create_graph=True)
        gradient.square().sum().backward()
    assert x.grad is not None
    found = {"y": y.detach(), "dx": x.grad}
    return found | {f"d{name}": p.grad.clone() for name, p in layer.named_parameters()}


def all_cases(rank: int, cases: dict[str, Case]) -> dict[str, Any]:
    """Every case on one rank."""
    found: dict[str, Any] = {}
    for name, case in cases.items():
        with normkit.use_backend(case.backend):
            layer = build(case)
            steps = [step(layer, *inputs(case, rank, number), case.order) for number in range(STEPS)]
        found[name] = steps, dict(layer.named_buffers())
    return found


def in_one_process(case: Case) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
    """The same steps with the whole batch, in plain operations, in float64."""
    layer = build(case).double()
    found = []
    with normkit.use_backend("eager"):
        for number in range(STEPS):
            parts = [inputs(case, rank, number) for rank in range(len(case.shapes))]
            x, dy = (torch.cat(tensors).double() for tensors in zip(*parts, strict=True))
            found.append(step(layer, x, dy, case.order))
    return found, dict(layer.named_buffers())


def on_rank(rank: int, cases: dict[str, Case]) -> dict[str, Any]:
    """Everything that two ranks are asked for: starting them takes longer than what they do."""
    functions = (one_value, in_groups, collectives)
    found: dict[str, Any] = {function.__name__: function(rank) for function in functions}
    return {**found, **all_cases(rank, cases), **{f"sync {sync}": in_ddp(rank, sync) for sync in (True, False)}}


def on_three(rank: int, cases: dict[str, Case]) -> dict[str, Any]:
    """Everything that three ranks are asked for."""
    return {**all_cases(rank, cases), "in_a_subgroup": in_a_subgroup(rank)}


@pytest.fixture(scope="module")
def on_ranks() -> dict[str, list[Any]]:
    """What every rank found, by its name."""
    found: dict[str, list[Any]] = {}
    for results in (run(on_rank, 2, CASES), run(on_three, 3, THREE)):
        found |= {name: [result[name] for result in results] for name in results[0]}
    return found


@pytest.mark.parametrize("name", [*CASES, *THREE])
def test_equals_one_process_on_the_whole_batch(name: str, on_ranks: dict[str, list[Any]]) -> None:
    case = (CASES | THREE)[name]
    expected, buffers = in_one_process(case)
    tolerance = TOLERANCE[case.dtype]
    for number in range(STEPS):
        steps = [steps[number] for steps, _ in on_ranks[name]]
        for key, value in expected[number].items():
            parts = [found[key].double() for found in steps]
            whole = torch.cat(parts) if key in ("y", "dx") else torch.stack(parts).sum(0)
            error = (whole - value).abs().max() / value.abs().max().clamp(min=1.0)
            assert error < tolerance, (key, float(error))
    for _, found in on_ranks[name]:
        assert found.keys() == buffers.keys()
        for key, value in buffers.items():
            torch.testing.assert_close(found[key].double(), value.double(), rtol=max(tolerance, 1e-12), atol=tolerance)


@pytest.mark.parametrize("name", [*CASES, *THREE])
def test_ranks_hold_the_same_bits(name: str, on_ranks: dict[str, list[Any]]) -> None:
    (_, first), *others = on_ranks[name]
    for _, other in others:
        assert all(torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("name", ["channels last", "channels last 3d", "kernels, channels last"])
def test_keeps_the_memory_format(name: str, on_ranks: dict[str, list[Any]]) -> None:
    for steps, _ in on_ranks[name]:
        y = steps[0]["y"]
        assert y.is_contiguous(memory_format=[torch.channels_last, torch.channels_last_3d][y.dim() - 4])


def test_is_a_batchnorm_without_a_group() -> None:
    x = torch.randn(6, 3, 4)
    ours, torchs = normkit.SyncBatchNorm(3), nn.BatchNorm1d(3)
    torch.testing.assert_close(ours(x), torchs(x))
    torch.testing.assert_close(ours.eval()(x), torchs.eval()(x))
    torch.testing.assert_close(ours.state_dict(), torchs.state_dict())


def one_value(rank: int) -> str:
    """A single number per channel on all ranks together."""
    layer: Any = normkit.SyncBatchNorm(3)
    try:
        layer(torch.randn(1 - rank, 3))
    except ValueError as error:
        return f"{error}; {int(layer.num_batches_tracked)} batches"
    return "no error"


def test_one_value_on_all_ranks_is_an_error_on_all_of_them(on_ranks: dict[str, list[Any]]) -> None:
    for message in on_ranks["one_value"]:
        assert "Expected more than 1 value per channel" in message
        assert message.endswith("; 0 batches")


class Named(nn.BatchNorm2d):
    """A subclass with a method of its own, and torch's forward pass."""

    def describe(self) -> str:
        """Something to keep."""
        return f"{self.num_features} channels"


class Activated(nn.BatchNorm2d):
    """A subclass that does more in its forward pass."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalize and cut off."""
        return super().forward(input).relu()


def network() -> nn.Sequential:
    """Batch norms of torch, ours, and a subclass."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3), normkit.BatchNorm2d(4), Named(4), nn.Flatten()]
    return nn.Sequential(*layers).double()


def in_ddp(rank: int, sync: bool) -> dict[str, Tensor]:
    """Two steps of a network under DistributedDataParallel, half of the batch on each rank."""
    model = network()
    if sync:
        normkit.convert_sync_batchnorm(model)
    parallel = nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.SGD(parallel.parameters(), lr=0.1)
    x = torch.randn(8, 2, 9, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for _ in range(2):
        optimizer.zero_grad()
        parallel(x[4 * rank : 4 * rank + 4]).sin().mean().backward()
        optimizer.step()
    return {key: value.clone() for key, value in model.state_dict().items()}


@pytest.mark.parametrize("sync", [True, False])
def test_ddp_with_sync_equals_one_process(sync: bool, on_ranks: dict[str, list[Any]]) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = torch.randn(8, 2, 9, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for _ in range(2):
        optimizer.zero_grad()
        model(x).sin().mean().backward()
        optimizer.step()
    for state in on_ranks[f"sync {sync}"]:
        same = [torch.allclose(state[key], value, rtol=1e-10, atol=1e-12) for key, value in model.state_dict().items()]
        assert all(same) is sync  # without it, the ranks normalize by their own halves


def test_convert_keeps_objects_and_subclasses_and_reverts_exactly() -> None:
    model = network()
    before = [(type(module), set(vars(module))) for module in model.modules()]
    parameters, names = list(model.parameters()), list(model.state_dict())
    assert normkit.convert_sync_batchnorm(model) is model
    kinds = [type(model[index]) for index in (1, 3)]
    assert kinds == [normkit.SyncBatchNorm] * 2
    assert isinstance(model[4], Named)
    assert model[4].describe() == "4 channels"
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
    assert list(model.state_dict()) == names
    assert normkit.revert_sync_batchnorm(model) is model
    assert [(type(module), set(vars(module))) for module in model.modules()] == before


def test_convert_says_what_it_cannot_do() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), Activated(3), nn.LazyBatchNorm1d())
    with pytest.warns(UserWarning, match=r"left 1 \(Activated: it overrides forward\), 2 \(LazyBatchNorm1d") as caught:
        normkit.convert_sync_batchnorm(model)
    assert len(caught) == 1
    assert [type(layer) for layer in model] == [normkit.SyncBatchNorm, Activated, nn.LazyBatchNorm1d]


def test_revert_takes_torchs_and_built_ones_too() -> None:
    layers: list[nn.Module] = [nn.SyncBatchNorm(3), normkit.SyncBatchNorm(3)]
    for layer in layers:
        reverted = normkit.revert_sync_batchnorm(layer)
        assert reverted is layer
        assert not isinstance(reverted, (nn.SyncBatchNorm, normkit.SyncBatchNorm))
        for shape in ((4, 3), (4, 3, 5), (4, 3, 5, 2)):
            assert reverted(torch.randn(shape)).shape == shape


def in_groups(rank: int) -> Tensor:
    """Two groups of one rank each: nothing is shared."""
    groups = [torch.distributed.new_group([index]) for index in range(2)]
    layer: Any = normkit.convert_sync_batchnorm(nn.BatchNorm1d(2), groups[rank])
    layer(torch.full((4, 2), float(rank)) + torch.eye(4, 2))
    return layer.running_mean


def test_process_group_limits_who_shares(on_ranks: dict[str, list[Any]]) -> None:
    low, high = on_ranks["in_groups"]
    torch.testing.assert_close(high - low, torch.full((2,), 0.1))


def in_a_subgroup(rank: int) -> dict[str, Tensor]:
    """The first and the last of three ranks share; the one between is in no group."""
    group = torch.distributed.new_group([0, 2])
    layer = normkit.convert_sync_batchnorm(nn.BatchNorm1d(2).double(), group)
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(rank), dtype=torch.float64)
    return step(layer, x, torch.linspace(-1.0, 1.0, 8, dtype=torch.float64).view(4, 2), 1) | dict(layer.named_buffers())


def test_a_subgroup_shares_and_the_other_rank_does_not(on_ranks: dict[str, list[Any]]) -> None:
    found = on_ranks["in_a_subgroup"]
    xs = [torch.randn(4, 2, generator=torch.Generator().manual_seed(rank), dtype=torch.float64) for rank in range(3)]
    dy = torch.linspace(-1.0, 1.0, 8, dtype=torch.float64).view(4, 2)
    for ranks in ((0, 2), (1,)):
        layer = nn.BatchNorm1d(2).double()
        whole = torch.cat([xs[rank] for rank in ranks])
        expected = step(layer, whole, torch.cat([dy] * len(ranks)), 1) | dict(layer.named_buffers())
        for key, value in expected.items():
            parts = [found[rank][key] for rank in ranks]
            if key in ("y", "dx"):
                torch.testing.assert_close(torch.cat(parts), value, rtol=1e-12, atol=1e-12)
            elif key.startswith("d"):
                torch.testing.assert_close(sum(parts), value, rtol=1e-12, atol=1e-12)
            else:
                assert all(torch.allclose(part, value, rtol=1e-12, atol=0) for part in parts)


def collectives(rank: int) -> dict[int, list[str]]:
    """Which collectives a training step takes, by the number of channels."""
    found: dict[int, list[str]] = {}
    for channels in (8, 1023, 1024):
        layer, calls = normkit.SyncBatchNorm(channels), found.setdefault(channels, [])
        with pytest.MonkeyPatch.context() as patch:
            for name in ("all_gather", "all_reduce"):
                real = getattr(torch.distributed, name)

                def counted(*arguments: Any, real: Any = real, name: str = name, **options: Any) -> Any:
                    calls.append(name)  # noqa: B023  (called before the next round)
                    return real(*arguments, **options)

                patch.setattr(torch.distributed, name, counted)
            layer(torch.randn(3, channels, requires_grad=True)).square().sum().backward()
            layer.eval()(torch.randn(3, channels))
    return found


def test_one_collective_each_way(on_ranks: dict[str, list[Any]]) -> None:
    once = ["all_gather", "all_reduce"]
    expected = {8: once, 1023: once, 1024: ["all_gather", *once]}
    assert on_ranks["collectives"] == [expected] * 2
