"""Try normkit on a GPU: every layer and function, against float64 on the CPU.

    python benchmarks/cuda_check.py            # on the first GPU
    python benchmarks/cuda_check.py --device cpu   # all of it that can run on a CPU

It needs this repository, torch 2.11 or later and NumPy, and starts nothing after --seconds. A table at the end says of
each check whether it passed; the exit code is 1 if one has not.
"""

import argparse
import copy
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn

sys.path.insert(0, str(Path(__file__).parent.parent / "src"))
import normkit
from normkit import functional as F
from normkit.backends import Call
from normkit.spec import Norm

# The largest error relative to the largest value.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-5, torch.float16: 5e-3, torch.bfloat16: 3e-2}
SUMS = ("dweight", "dbias")
EPS = 3e-3


class UnavailableError(Exception):
    """A check that cannot run here, and why."""


@dataclass(frozen=True)
class Row:
    """A layer, torch's equivalent and the shape of an input.

    Args:
        ours: Makes normkit's layer.
        torchs: Makes what computes the same.
        shape: Of the input.
        masks: Whether the layer takes a mask.
    """

    ours: Callable[[], nn.Module]
    torchs: Callable[[], nn.Module]
    shape: tuple[int, ...]
    masks: bool = True


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels, as it is usually written."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalize."""
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class NormAct(nn.BatchNorm2d):
    """A batch norm and a ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalize."""
        return super().forward(x).relu()


def _same(name: str, *arguments: Any, shape: tuple[int, ...], masks: bool = True, **options: Any) -> Row:
    options = {"eps": EPS, **options}
    return Row(
        lambda: getattr(normkit, name)(*arguments, **options),
        lambda: getattr(nn, name)(*arguments, **options),
        shape,
        masks,
    )


TRACKED = {"affine": True, "track_running_stats": True}
ROWS = {
    "BatchNorm1d": _same("BatchNorm1d", 24, shape=(64, 24)),
    "BatchNorm1d, length": _same("BatchNorm1d", 24, shape=(8, 24, 33)),
    "BatchNorm2d": _same("BatchNorm2d", 24, shape=(8, 24, 14, 15)),
    "BatchNorm2d, momentum=None": _same("BatchNorm2d", 24, shape=(8, 24, 14, 15), momentum=None),
    "BatchNorm2d, large": _same("BatchNorm2d", 64, shape=(8, 64, 28, 28)),
    "BatchNorm3d": _same("BatchNorm3d", 12, shape=(4, 12, 5, 6, 7)),
    "BatchNormAct2d": Row(lambda: normkit.BatchNormAct2d(24, eps=EPS), lambda: NormAct(24, eps=EPS), (8, 24, 14, 15)),
    "LazyBatchNorm2d": _same("LazyBatchNorm2d", shape=(8, 24, 14, 15)),
    "SyncBatchNorm, no group": Row(
        lambda: normkit.SyncBatchNorm(24, eps=EPS), lambda: nn.BatchNorm2d(24, eps=EPS), (8, 24, 14, 15)
    ),
    "LayerNorm": _same("LayerNorm", 96, shape=(8, 33, 96), masks=False),
    "LayerNorm, two axes": _same("LayerNorm", (14, 15), shape=(8, 24, 14, 15), masks=False),
    "LayerNorm2d": Row(
        lambda: normkit.LayerNorm2d(24, eps=EPS), lambda: ChannelNorm(24, eps=EPS), (8, 24, 14, 15), masks=False
    ),
    "RMSNorm": _same("RMSNorm", 96, shape=(8, 33, 96), masks=False),
    "GroupNorm": _same("GroupNorm", 4, 24, shape=(8, 24, 14, 15)),
    "InstanceNorm1d": _same("InstanceNorm1d", 24, shape=(8, 24, 33), affine=True),
    "InstanceNorm2d, tracked": _same("InstanceNorm2d", 24, shape=(8, 24, 14, 15), **TRACKED),
    "InstanceNorm3d": _same("InstanceNorm3d", 12, shape=(4, 12, 5, 6, 7), affine=True),
}
COMPILED = (
    "BatchNorm2d",
    "BatchNormAct2d",
    "LayerNorm",
    "LayerNorm2d",
    "RMSNorm",
    "GroupNorm",
    "InstanceNorm2d, tracked",
)


def fill(layer: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    """Give a layer weights that are not ones and zeros; materialize a lazy one."""
    if any(isinstance(parameter, nn.parameter.UninitializedParameter) for parameter in layer.parameters()):
        layer(torch.zeros(shape))
        layer.reset_running_stats()
    with torch.no_grad():
        for index, parameter in enumerate(layer.parameters()):
            parameter.copy_(torch.linspace(0.5, 2.0, parameter.numel()).view(parameter.shape) * (-1) ** index)
        if isinstance(layer, normkit.BatchNormAct2d | NormAct):
            layer.bias.zero_()  # the kink of the ReLU lies where `draw` leaves a gap: rounding moves nothing across it
    return layer


def draw(shape: tuple[int, ...], seed: int) -> Tensor:
    """Return random numbers away from 0, float64 on the CPU."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x + x.sign()


def channels_last(x: Tensor) -> Tensor:
    """Return x, of four or five axes, in channels-last memory."""
    return x.contiguous(memory_format=torch.channels_last if x.dim() == 4 else torch.channels_last_3d)


def step(layer: Callable[[Tensor], Tensor], x: Tensor, module: nn.Module) -> dict[str, Tensor]:
    """Return the result, all gradients and all buffers of a training step."""
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    module.zero_grad()
    y = layer(x)
    y.backward(draw(tuple(y.shape), 9).to(y))
    assert x.grad is not None
    gradients = {f"d{name}": p.grad for name, p in module.named_parameters() if p.grad is not None}
    return {"y": y.detach(), "dx": x.grad, **gradients, **{name: b.clone() for name, b in module.named_buffers()}}


def compare(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> float:
    """Return the largest error relative to the largest value; raise where it is too large."""
    assert found.keys() == expected.keys(), f"{sorted(found)} and {sorted(expected)} differ"
    worst = 0.0
    for name in expected:
        value, truth = (tensors[name].detach().double().cpu() for tensors in (found, expected))
        assert value.shape == truth.shape, f"{name}: {tuple(value.shape)} is not {tuple(truth.shape)}"
        error = float((value - truth).abs().max() / truth.abs().max().clamp(min=0.1))
        # torch takes sums over the batch in half precision, on the CPU at least
        allowed = tolerance * (4 if name in SUMS and tolerance > TOLERANCE[torch.float32] else 1)
        assert error <= allowed, f"{name} is off by {error:.1e}, more than {allowed:.0e}"
        worst = max(worst, error)
    return worst


@dataclass
class Outcome:
    """What came of a check."""

    name: str
    verdict: str
    note: str


class Bench:
    """Runs checks while there is time, and keeps what came of them."""

    def __init__(self, device: torch.device, seconds: float) -> None:
        self.device, self.ends = device, time.monotonic() + seconds
        self.outcomes: list[Outcome] = []

    @property
    def on_cuda(self) -> bool:
        """Whether there is a GPU to try."""
        return self.device.type == "cuda"

    def check(self, name: str, function: Callable[..., float | None], *arguments: Any) -> None:
        """Run a check; it returns its largest error, or None."""
        if time.monotonic() > self.ends:
            self.outcomes.append(Outcome(name, "not run", "no time was left"))
            return
        try:
            error = function(self, *arguments)
            outcome = Outcome(name, "ok", "" if error is None else f"{error:.1e}")
        except UnavailableError as reason:
            outcome = Outcome(name, "skipped", str(reason))
        except Exception as problem:  # whatever fails belongs into the table
            traceback.print_exc()
            first = str(problem).strip().partition("\n")[0]
            outcome = Outcome(name, "FAILED", f"{type(problem).__name__}: {first}"[:110])
        self.outcomes.append(outcome)

    def table(self) -> str:
        """Return all outcomes as a table, and their number."""
        width = max(len(outcome.name) for outcome in self.outcomes)
        lines = [f"{o.name:{width}}  {o.verdict:7}  {o.note}".rstrip() for o in self.outcomes]
        verdicts = [outcome.verdict for outcome in self.outcomes]
        counts = ", ".join(f"{verdicts.count(v)} {v}" for v in dict.fromkeys(verdicts))
        return "\n".join([*lines, "", counts])

    def require_cuda(self) -> None:
        """Skip a check without a GPU."""
        if not self.on_cuda:
            raise UnavailableError("needs a GPU")


def layer_equals_torch(bench: Bench, row: Row, dtype: torch.dtype, last: bool) -> float:
    """Training and evaluation, against torch's layer in float64 on the CPU."""
    ours = fill(row.ours(), row.shape).to(bench.device, dtype)
    truth = fill(row.torchs(), row.shape).to(dtype).double()
    x = (draw(row.shape, 1) * 1.5 + 0.5).to(dtype)
    x = channels_last(x) if last else x
    worst = 0.0
    for mode in (True, False):
        ours.train(mode)
        truth.train(mode)
        found = step(ours, x.to(bench.device), ours)
        worst = max(worst, compare(found, step(truth, x.double(), truth), TOLERANCE[dtype]))
        assert found["y"].dtype is dtype, f"the result is {found['y'].dtype}"
        assert found["y"].device.type == bench.device.type, f"the result is on {found['y'].device}"
        if last:
            assert found["y"].is_contiguous(memory_format=_format(x)), "the result is not channels last"
    return worst


def _format(x: Tensor) -> torch.memory_format:
    return torch.channels_last if x.dim() == 4 else torch.channels_last_3d


def functions(x: Tensor, weight: Tensor, bias: Tensor) -> dict[str, Callable[[], Tensor]]:
    """Return calls of every function on (8, 24, 14, 15), with what the running statistics have become."""
    channels, device = x.shape[1], x.device
    mean, var = torch.zeros(channels, dtype=x.dtype, device=device), torch.ones(channels, dtype=x.dtype, device=device)
    mask = (torch.arange(x.shape[2] * x.shape[3], device=device).view(x.shape[2:]) % 5 != 0).expand(
        x.shape[0], *x.shape[2:]
    )
    row_weight, row_bias = weight[: x.shape[-1]], bias[: x.shape[-1]]
    return {
        "batch_norm": lambda: F.batch_norm(x, mean, var, weight, bias, True, 0.1, EPS) + mean.mean() + var.mean(),
        "batch_norm, evaluation": lambda: F.batch_norm(x, mean, var, weight, bias, False, 0.1, EPS),
        "batch_norm, mask": lambda: F.batch_norm(x, None, None, weight, bias, True, eps=EPS, mask=mask),
        "instance_norm": lambda: F.instance_norm(x, None, None, weight, bias, True, eps=EPS),
        "instance_norm, mask": lambda: F.instance_norm(x, None, None, weight, bias, True, eps=EPS, mask=mask),
        "layer_norm": lambda: F.layer_norm(x, (x.shape[-1],), row_weight, row_bias, EPS),
        "rms_norm": lambda: F.rms_norm(x, (x.shape[-1],), row_weight, EPS),
        "group_norm": lambda: F.group_norm(x, 4, weight, bias, EPS),
        "group_norm, mask": lambda: F.group_norm(x, 4, weight, bias, EPS, mask=mask),
        "channel_norm": lambda: F.channel_norm(x, weight, bias, EPS),
    }


FUNCTIONS = tuple(functions(torch.zeros(2, 2, 2, 2), torch.zeros(2), torch.zeros(2)))


def function_equals_cpu(bench: Bench, name: str, dtype: torch.dtype) -> float:
    """A function and its gradients, against plain operations in float64 on the CPU."""

    def gradients(device: torch.device, wide: bool) -> dict[str, Tensor]:
        def leaf(values: Tensor) -> Tensor:
            rounded = values.to(dtype)
            return (rounded.double() if wide else rounded).to(device).requires_grad_()

        x, weight, bias = leaf(draw((8, 24, 14, 15), 1)), leaf(draw((24,), 2) + 0.5), leaf(draw((24,), 3))
        y = functions(x, weight, bias)[name]()
        y.backward(draw(tuple(y.shape), 4).to(y))
        return {
            "y": y,
            **{key: t.grad for key, t in (("dx", x), ("dweight", weight), ("dbias", bias)) if t.grad is not None},
        }

    with normkit.use_backend("eager"):
        expected = gradients(torch.device("cpu"), wide=True)
    return compare(gradients(bench.device, wide=False), expected, TOLERANCE[dtype])


def masked_layer_equals_cpu(bench: Bench, row: Row) -> float:
    """A layer with a mask, with its running statistics."""
    ours = fill(row.ours(), row.shape).double()
    theirs = copy.deepcopy(ours).to(bench.device)
    x = draw(row.shape, 1)
    mask = draw((row.shape[0], *row.shape[2:]), 5) > -0.5
    with normkit.use_backend("eager"):
        expected = step(lambda x: ours(x, mask=mask), x, ours)
    found = step(lambda x: theirs(x, mask=mask.to(bench.device)), x.to(bench.device), theirs)
    return compare(found, expected, TOLERANCE[torch.float64])


def higher_derivatives(bench: Bench, row: Row) -> float:
    """Second and third derivatives, against the same by plain operations on the CPU."""

    def derivatives(layer: nn.Module, x: Tensor) -> dict[str, Tensor]:
        x = x.requires_grad_()
        (dx,) = torch.autograd.grad(layer(x).sin().sum(), x, create_graph=True)
        (ddx,) = torch.autograd.grad(dx.square().sum(), x, create_graph=True)
        (dddx,) = torch.autograd.grad(ddx.square().sum(), x)
        return {"dx": dx, "ddx": ddx, "dddx": dddx}

    layer = fill(row.ours(), row.shape).double()
    on_device = copy.deepcopy(layer).to(bench.device)
    with normkit.use_backend("eager"):
        expected = derivatives(layer, draw(row.shape, 1))
    return compare(derivatives(on_device, draw(row.shape, 1).to(bench.device)), expected, 1e-8)


def network() -> nn.Sequential:
    """Return a small network with several norms of torch.nn."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3),
        nn.GroupNorm(4, 16),
        nn.InstanceNorm2d(16, affine=True),
        nn.Flatten(),
        nn.LazyLinear(32),
        nn.LayerNorm(32),
    )


def accelerates_a_model(bench: Bench) -> float:
    """Accelerate a model on the device: the same results, and restored exactly."""
    model, x = network(), draw((4, 3, 12, 12), 1)
    model(x.float())
    model = model.double().to(bench.device)
    x = x.to(bench.device)
    original = copy.deepcopy(model)
    expected = step(original, x, original)
    summary = normkit.accelerate(model)
    assert "4 layers swapped" in str(summary), str(summary)
    worst = compare(step(model, x, model), expected, TOLERANCE[torch.float64])
    normkit.restore(model)
    assert [type(layer) for layer in model] == [type(layer) for layer in original], "a class was not restored"
    return worst


def state_dicts_fit(bench: Bench, row: Row) -> float:
    """A state from the device loads into torch's layer on the CPU, and back: the same results."""
    ours, torchs = fill(row.ours(), row.shape).double().to(bench.device), fill(row.torchs(), row.shape).double()
    x = draw(row.shape, 1)
    ours(x.to(bench.device))  # running statistics that are not those of a new layer
    torchs.load_state_dict(ours.state_dict(), strict=True)
    again = fill(row.ours(), row.shape).double().to(bench.device)
    again.load_state_dict(torchs.state_dict(), strict=True)
    found = {"y": ours.eval()(x.to(bench.device)), "again": again.eval()(x.to(bench.device))}
    y = torchs.eval()(x)
    return compare(found, {"y": y, "again": y}, TOLERANCE[torch.float64])


def autocast_equals_torch(bench: Bench, row: Row, dtype: torch.dtype) -> float:
    """Under autocast, in training: the dtype of torch's layer there, and its values to rounding."""
    ours, torchs = fill(row.ours(), row.shape).to(bench.device), fill(row.torchs(), row.shape).to(bench.device)
    x = draw(row.shape, 1).float().to(bench.device)
    with torch.autocast(bench.device.type, dtype):
        found, expected = ours(x.to(dtype)), torchs(x.to(dtype))
    assert found.dtype == expected.dtype, f"the result is {found.dtype}, torch's {expected.dtype}"
    exact = fill(row.torchs(), row.shape).double()(x.to(dtype).double().cpu())
    return compare({"y": found}, {"y": exact}, TOLERANCE[dtype])


def compiles(bench: Bench, row: Row) -> float:
    """torch.compile of the whole layer: a training step equals torch's in float64."""
    torch._dynamo.reset()
    ours, torchs = fill(row.ours(), row.shape).to(bench.device), fill(row.torchs(), row.shape).double()
    graph = torch.compile(ours, fullgraph=True, backend="inductor" if bench.on_cuda else "aot_eager")
    x = draw(row.shape, 1).float()
    return compare(step(graph, x.to(bench.device), ours), step(torchs, x.double(), torchs), TOLERANCE[torch.float32])


def replays_in_a_graph(bench: Bench, row: Row) -> float:
    """A CUDA graph of a training forward pass, replayed with another input."""
    bench.require_cuda()
    ours, torchs = fill(row.ours(), row.shape).to(bench.device), fill(row.torchs(), row.shape).double()
    static = draw(row.shape, 1).float().to(bench.device)
    with torch.no_grad():
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            ours(static)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            y = ours(static)
        x = draw(row.shape, 2).float()
        static.copy_(x)
        graph.replay()
        torch.cuda.synchronize()
        return compare({"y": y}, {"y": torchs(x.double())}, TOLERANCE[torch.float32])


def graphed_callable(bench: Bench) -> float:
    """torch.cuda.make_graphed_callables: forward and backward in graphs."""
    bench.require_cuda()
    row = ROWS["LayerNorm"]
    ours, torchs = fill(row.ours(), row.shape).to(bench.device), fill(row.torchs(), row.shape).double()
    sample = draw(row.shape, 1).float().to(bench.device).requires_grad_()
    graphed = torch.cuda.make_graphed_callables(ours, (sample,))
    x = draw(row.shape, 2).float()
    return compare(step(graphed, x.to(bench.device), ours), step(torchs, x.double(), torchs), TOLERANCE[torch.float32])


def sync_on_one_rank(bench: Bench, dtype: torch.dtype, masked: bool) -> float:
    """The statistics and gradients of SyncBatchNorm through the collectives of one rank."""
    from normkit.backends.masks import read_mask
    from normkit.backends.sync_batch_norm import sync_batch_norm, sync_masked_batch_norm

    with tempfile.TemporaryDirectory() as folder:
        distributed.init_process_group(
            "nccl" if bench.on_cuda else "gloo", init_method=f"file://{folder}/meet", rank=0, world_size=1
        )
        try:
            layer = fill(normkit.BatchNorm2d(24, eps=EPS, track_running_stats=False), ()).to(dtype)
            truth = copy.deepcopy(layer).double()
            layer = layer.to(bench.device)
            x = draw((8, 24, 14, 15), 1).to(dtype)
            mask = draw((8, 14, 15), 5) > -0.5

            def over_ranks(x: Tensor) -> Tensor:
                call = Call(x, Norm("batch"), layer.weight, layer.bias, EPS)
                group = distributed.group.WORLD
                if masked:
                    return sync_masked_batch_norm(call, read_mask(x, mask.to(x.device)), group)
                return sync_batch_norm(call, group)

            def on_cpu(x: Tensor) -> Tensor:
                result: Tensor = truth(x, mask=mask) if masked else truth(x)
                return result

            found = step(over_ranks, x.to(bench.device), layer)
            return compare(found, step(on_cpu, x.double(), truth), TOLERANCE[dtype])
        finally:
            distributed.destroy_process_group()


def _batch_norm(device: Any, **options: Any) -> nn.Module:
    return normkit.BatchNorm2d(6, **options).to(device)


def _one_on_the_cpu(device: Any, name: str) -> nn.Module:
    layer = _batch_norm(device)
    setattr(layer, name, getattr(layer, name).cpu())
    return layer


def _with_weight_on_the_cpu(device: Any) -> nn.Module:
    layer = _batch_norm(device)
    layer.weight = nn.Parameter(layer.weight.detach().cpu())
    return layer


IMAGES = (4, 6, 5, 5)


def _forced(device: torch.device) -> None:
    with normkit.use_backend("numba"):
        _batch_norm(device)(torch.randn(IMAGES, device=device))


def _operator(x: Tensor) -> None:
    import normkit.backends.compiled  # noqa: F401  (it registers them)

    torch.ops.normkit.normalize(x, None, None, None, None, "batch", [1, 1], EPS)


MISTAKES: dict[str, Callable[[torch.device], Any]] = {
    "layer on the GPU, input on the CPU": lambda d: _batch_norm(d)(torch.randn(IMAGES)),
    "layer on the CPU, input on the GPU": lambda d: _batch_norm("cpu")(torch.randn(IMAGES, device=d)),
    "large input on the GPU, layer on the CPU": lambda d: _batch_norm("cpu")(torch.randn(64, 6, 64, 64, device=d)),
    "running mean on the CPU": lambda d: _one_on_the_cpu(d, "running_mean")(torch.randn(IMAGES, device=d)),
    "weight on the CPU": lambda d: _with_weight_on_the_cpu(d)(torch.randn(IMAGES, device=d)),
    "LayerNorm on the CPU, input on the GPU": lambda d: normkit.LayerNorm(5)(torch.randn(IMAGES, device=d)),
    "RMSNorm on the CPU, input on the GPU": lambda d: normkit.RMSNorm(5)(torch.randn(IMAGES, device=d)),
    "LayerNorm2d on the CPU, input on the GPU": lambda d: normkit.LayerNorm2d(6)(torch.randn(IMAGES, device=d)),
    "GroupNorm on the CPU, input on the GPU": lambda d: normkit.GroupNorm(2, 6)(torch.randn(IMAGES, device=d)),
    "mask on the CPU": lambda d: _batch_norm(d)(torch.randn(IMAGES, device=d), mask=torch.ones(4, 5, 5)),
    "residual on the CPU": lambda d: normkit.BatchNormAct2d(6).to(d)(torch.randn(IMAGES, device=d), torch.ones(IMAGES)),
    "kernels forced": _forced,
    "operator of the kernels": lambda d: _operator(torch.randn(IMAGES, device=d)),
}


def is_refused(bench: Bench, mistake: Callable[[torch.device], Any]) -> None:
    """A mistake with devices is an error that can be caught, and the GPU still works after it."""
    bench.require_cuda()
    try:
        mistake(bench.device)
    except (RuntimeError, ValueError) as error:
        print(f"refused: {error}")
    else:
        raise AssertionError("it was not refused")
    torch.cuda.synchronize()


def torch_is_chosen(bench: Bench) -> None:
    """`choose` hands GPU tensors to torch, and says why."""
    bench.require_cuda()
    choice = normkit.choose(torch.randn(64, 64, 56, 56, device=bench.device))
    assert choice.name == "aten", choice
    assert "cuda" in choice.reason, choice


Check = tuple[Any, ...]  # a name, a function and its arguments


def checks_of_layers() -> Iterator[Check]:
    """Yield those of every layer, dtype and layout."""
    for dtype, (name, row) in product(TOLERANCE, ROWS.items()):
        for last in (False, True) if len(row.shape) in (4, 5) else (False,):
            layout = ", channels last" if last else ""
            yield f"{name}, {_name(dtype)}{layout}", layer_equals_torch, row, dtype, last


def checks_of_functions() -> Iterator[Check]:
    """Yield those of every function and dtype, and of SyncBatchNorm in a group."""
    for name, dtype in product(FUNCTIONS, TOLERANCE):
        yield f"{name}, {_name(dtype)}", function_equals_cpu, name, dtype
    for dtype, masked in product((torch.float64, torch.float32), (False, True)):
        yield f"SyncBatchNorm, one rank, {_name(dtype)}{', mask' * masked}", sync_on_one_rank, dtype, masked


def checks_of_features() -> Iterator[Check]:
    """Yield those of what else is done with layers, the slowest last."""
    yield "accelerate", accelerates_a_model
    small = {name: row for name, row in ROWS.items() if "large" not in name}
    for name, row in small.items():
        if row.masks:
            yield f"{name}, mask", masked_layer_equals_cpu, row
        yield f"{name}, state dict", state_dicts_fit, row
        yield f"{name}, third derivatives", higher_derivatives, row
    for dtype, (name, row) in product((torch.bfloat16, torch.float16), small.items()):
        yield f"{name}, autocast to {_name(dtype)}", autocast_equals_torch, row, dtype
    for name, row in small.items():
        if "momentum=None" not in name:  # whose momentum is a number that the CPU computes
            yield f"{name}, CUDA graph", replays_in_a_graph, row
    yield "LayerNorm, graphed callable", graphed_callable
    for name in COMPILED:
        yield f"{name}, torch.compile", compiles, ROWS[name]


def checks() -> Iterator[Check]:
    """Yield all of them, the most telling ones first."""
    yield "choose", torch_is_chosen
    for name, mistake in MISTAKES.items():
        yield f"refused: {name}", is_refused, mistake
    yield from checks_of_layers()
    yield from checks_of_functions()
    yield from checks_of_features()


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def main() -> int:
    """Run the checks, print the table, and return how many failed, at most 1."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1 or cpu (default: cuda)")
    parser.add_argument("--seconds", type=float, default=240.0, help="start no check after this time (default: 240)")
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no GPU here; --device cpu runs what can run without one")
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    began = time.monotonic()
    bench = Bench(device, options.seconds)
    for check in checks():
        bench.check(*check)
    print(bench.table())
    where = torch.cuda.get_device_name(device) if bench.on_cuda else "CPU"
    print(f"{where}, torch {torch.__version__}, {time.monotonic() - began:.0f} s")
    return int(any(outcome.verdict in ("FAILED", "not run") for outcome in bench.outcomes))


if __name__ == "__main__":
    sys.exit(main())
