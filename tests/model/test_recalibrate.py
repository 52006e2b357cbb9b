"""recalibrate: running statistics equal to those of all data as one batch, against float64 oracles."""

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

import normkit
from normkit.errors import UserError
from tests.model.unchanged import assert_unchanged, record

UNEQUAL = (16, 1, 7, 30, 10)  # a batch of one sample, which (N, C, H, W) can normalize


def images(count: int = 64) -> Tensor:
    """Samples whose batches differ in mean and spread, large against their spread."""
    drift = torch.linspace(-3, 3, count).view(-1, 1, 1, 1)
    return torch.randn(count, 3, 6, 6) * (1 + drift.abs()) + drift + 40


def network(norm: Callable[[int], nn.Module] = nn.BatchNorm2d) -> Any:
    """Two norms, dropout between them, and a residual way around the second."""
    return nn.Sequential(nn.Conv2d(3, 4, 3), norm(4), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(4, 5, 3), norm(5))


def of_one_batch(x: Tensor, axes: tuple[int, ...] = (0, 2, 3)) -> tuple[Tensor, Tensor]:
    """Mean and unbiased variance of all data, in float64."""
    return x.double().mean(axes), x.double().var(axes)


def assert_statistics(layer: Any, mean: Tensor, var: Tensor, rtol: float = 1e-6) -> None:
    """A layer keeps these, to the rounding of its buffers."""
    torch.testing.assert_close(layer.running_mean.double(), mean.double(), rtol=rtol, atol=rtol)
    torch.testing.assert_close(layer.running_var.double(), var.double(), rtol=rtol, atol=1e-12)


@torch.no_grad()
def pooled_oracle(model: Any, batches: list[Tensor]) -> dict[int, tuple[Tensor, Tensor]]:
    """What comes to each norm while norms normalize by their batches, dropout off; as one batch, in float64."""
    model = copy.deepcopy(model).eval().double()
    seen: dict[int, list[Tensor]] = {}
    for batch in batches:
        x = batch.double()
        for number, layer in enumerate(model):
            if hasattr(layer, "running_mean"):
                seen.setdefault(number, []).append(x.clone())
                layer.train()
            x = layer(x)
    return {number: of_one_batch(torch.cat(parts)) for number, parts in seen.items()}


@torch.no_grad()
def sequential_oracle(model: Any, x: Tensor) -> dict[int, tuple[Tensor, Tensor]]:
    """Layer by layer on all data as one batch, in float64."""
    model = copy.deepcopy(model).eval().double()
    found = {}
    x = x.double()
    for number, layer in enumerate(model):
        if hasattr(layer, "running_mean"):
            found[number] = of_one_batch(x)
            for buffer, value in zip((layer.running_mean, layer.running_var), found[number], strict=True):
                buffer.copy_(value.view(buffer.shape))
        x = layer(x)
    return found


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, normkit.BatchNorm2d])
def test_pooled_is_one_batch_for_the_first_layer_and_the_flow_for_the_second(norm: Any) -> None:
    model, x = network(norm), images()
    batches = list(x.split(UNEQUAL))
    expected = pooled_oracle(model, batches)
    torch.testing.assert_close(expected[1], of_one_batch(copy.deepcopy(model[0]).double()(x.double())))
    found = normkit.recalibrate(model, batches)
    assert_statistics(model[1], *expected[1], rtol=1e-5)  # the convolution in float32
    assert_statistics(model[5], *expected[5], rtol=1e-4)
    assert [(layer.name, layer.values, layer.inputs) for layer in found.layers] == [("1", 1024, 5), ("5", 256, 5)]
    assert (found.mode, found.batches, found.passes, found.left) == ("pooled", 5, 1, ())
    assert found.is_complete


def test_pooled_is_exact_for_the_first_layer() -> None:
    model, x = nn.Sequential(nn.BatchNorm2d(3)).double(), images().double() + 1e6
    normkit.recalibrate(model, list(x.split(UNEQUAL)))
    assert_statistics(model[0], *of_one_batch(x), rtol=1e-9)


def test_sequential_does_not_depend_on_the_batches() -> None:
    x = images()
    model = network()
    expected = sequential_oracle(model, x)
    results = []
    for sizes in (UNEQUAL, (64,), (1,) * 64, (3, 61)):
        one = copy.deepcopy(model)
        found = normkit.recalibrate(one, list(x.split(sizes)), "sequential")
        assert (found.passes, found.batches) == (3, len(sizes))
        for number, (mean, var) in expected.items():
            assert_statistics(one[number], mean, var, rtol=1e-4)
        results.append(one)
    for one in results[1:]:
        for name, value in one.state_dict().items():
            if "running" in name:
                torch.testing.assert_close(value, results[0].state_dict()[name], rtol=1e-6, atol=1e-6)
    again = normkit.recalibrate(results[0], list(x.split(9)), "sequential")
    assert max(layer.mean_moved for layer in again.layers) < 1e-6, "it is no fixed point"


def test_pooled_depends_on_the_batches_behind_the_first_layer() -> None:
    x, models = images(), [network().double() for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    for model, size in zip(models, (8, 32), strict=True):
        normkit.recalibrate(model, list(x.double().split(size)))
    torch.testing.assert_close(models[0][1].running_var, models[1][1].running_var)
    assert not torch.allclose(models[0][5].running_var, models[1][5].running_var, rtol=1e-3)


@pytest.mark.parametrize("mode", ["pooled", "sequential"])
def test_nothing_else_changes(mode: str) -> None:
    model = network()
    model[1].momentum, model[5].momentum = 0.9, None
    model[5].eval()
    model[4].weight.requires_grad_(False)
    model[2].register_forward_hook(lambda *_: None)
    model(images(8)).sum().backward()
    batches = list(images().split(16))
    before = record(model)
    found = normkit.recalibrate(model, batches, mode)
    after = {name: value.clone() for name, value in model.state_dict().items()}
    assert (model[1].momentum, model[5].momentum) == (0.9, None)
    assert model[1].num_batches_tracked == 4, "as training on these batches would have counted"
    assert not torch.equal(after["1.running_mean"], found.before["1.running_mean"])
    model.load_state_dict(found.before, strict=False)
    assert_unchanged(model, before)


class Fails(nn.Module):
    """Raises after some batches."""

    def __init__(self, error: type[BaseException], after: int) -> None:
        super().__init__()
        self.error, self.left = error, after

    def forward(self, x: Tensor) -> Tensor:
        vars(self)["left"] -= 1
        if vars(self)["left"] < 0:
            raise self.error
        return x


@pytest.mark.parametrize("mode", ["pooled", "sequential"])
@pytest.mark.parametrize("after", [0, 2, 5])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_leaves_the_model_as_it_was(mode: str, after: int, error: type[BaseException]) -> None:
    model = nn.Sequential(*network(), Fails(error, after))
    batches = list(images().split(8))
    if mode == "sequential":  # passes end before the last layer
        model.insert(0, model.pop(6))
    before = record(model)
    with pytest.raises(error):
        normkit.recalibrate(model, batches, mode)
    assert_unchanged(model, before)


def test_an_interruption_while_writing_leaves_the_model_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    from normkit.model.recalibrate import run

    model, x = network(), images()
    original = run._buffers

    def interrupted(watch: Any) -> Any:
        buffers = original(watch)
        if watch.name == "5" and len(calls) == 3:
            raise KeyboardInterrupt
        calls.append(watch.name)
        return buffers

    calls: list[str] = []
    monkeypatch.setattr(run, "_buffers", interrupted)
    before = record(model)
    with pytest.raises(KeyboardInterrupt):
        normkit.recalibrate(model, [x])
    assert calls == ["1", "5", "1"]
    assert_unchanged(model, before)


class Twice(nn.Module):
    """One norm on two inputs, the second of which comes out of it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.norm, self.unused = nn.BatchNorm1d(3), nn.BatchNorm1d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.second(self.norm(self.first(x))).tanh())


def test_a_layer_used_twice_gets_both_inputs_and_one_that_is_not_used_is_named() -> None:
    model: Any = Twice().double()
    x = torch.randn(40, 3).double() * 3 + 1
    unused = copy.deepcopy(model.unused.state_dict())
    first = model.first(x).detach()
    normalized = [(part - part.mean(0)) / (part.var(0, correction=0) + 1e-5).sqrt() for part in first.split(10)]
    second = model.second(torch.cat(normalized)).tanh().detach()
    found = normkit.recalibrate(model, list(x.split(10)))
    assert_statistics(model.norm, *of_one_batch(torch.cat([first, second]), (0,)), rtol=1e-10)
    (layer,) = found.layers
    assert (layer.uses, layer.values, layer.inputs, int(model.norm.num_batches_tracked)) == (2, 80, 8, 8)
    assert "used 2 times in a forward pass" in str(found)
    assert found.left == (("unused", "BatchNorm1d", "no batch reached it"),)
    assert not found.is_complete
    assert all(map(torch.equal, model.unused.state_dict().values(), unused.values()))


def test_a_layer_used_twice_settles_in_sequential_mode() -> None:
    model: Any = Twice().double()
    x = torch.randn(40, 3).double() * 3 + 1
    found = normkit.recalibrate(model, list(x.split(7)), "sequential")
    assert found.layers[0].settled
    assert found.passes > 3
    model.eval()
    first = model.first(x)
    second = model.second(model.norm(first)).tanh()
    assert_statistics(model.norm, *of_one_batch(torch.cat([first, second]).detach(), (0,)), rtol=1e-5)


def test_one_that_does_not_settle_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from normkit.model.recalibrate import run

    monkeypatch.setattr(run, "_MOST_PASSES", 2)
    found = normkit.recalibrate(Twice(), [torch.randn(40, 3) * 3 + 1], "sequential")
    assert not found.layers[0].settled
    assert not found.is_complete
    assert "had not settled after the last pass" in str(found)


def test_batches_of_one_value_count_at_the_layer_that_they_reach() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 3), nn.BatchNorm1d(3)).double()
    x = torch.randn(11, 3).double()
    found = normkit.recalibrate(model, list(x.split(5)))  # 5, 5, 1
    assert_statistics(model[0], *of_one_batch(x, (0,)), rtol=1e-12)
    assert [(layer.values, layer.cut) for layer in found.layers] == [(11, 1), (10, 0)]
    assert "1 batch ended here" in str(found)
    found = normkit.recalibrate(model, list(x.split(1)), "sequential")
    assert [(layer.values, layer.cut) for layer in found.layers] == [(11, 0), (11, 0)]
    assert found.is_complete
    found = normkit.recalibrate(model, list(x.split(1)))
    assert found.left == (("2", "BatchNorm1d", "no batch reached it"),)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("mode", ["pooled", "sequential"])
def test_batches_with_nan_are_left_out_and_counted(value: float, mode: str) -> None:
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 3), nn.BatchNorm1d(3))
    x = torch.randn(30, 3)
    x[12, 1] = value
    found = normkit.recalibrate(model, list(x.split(10)), mode)
    assert_statistics(model[0], *of_one_batch(torch.cat([x[:10], x[20:]]), (0,)))
    assert [layer.skipped for layer in found.layers] == [1, 1]
    assert model[0].num_batches_tracked == 2
    assert not found.is_complete


def test_a_ruined_model_is_mended_and_data_of_nan_alone_changes_nothing() -> None:
    model: Any = nn.Sequential(nn.BatchNorm1d(3))
    model[0].running_var.fill_(float("nan"))
    before = record(model)
    found = normkit.recalibrate(model, [torch.full((4, 3), float("nan"))])
    assert_unchanged(model, before)
    assert found.left == (("0", "BatchNorm1d", "each of its inputs held NaN or infinity"),)
    x = torch.randn(9, 3)
    found = normkit.recalibrate(model, [x])
    assert_statistics(model[0], *of_one_batch(x, (0,)))
    assert math.isnan(found.layers[0].var_ratio[0])
    assert "was not finite" in str(found)
    assert found.to_dict()["layers"][0]["var_ratio"] == [None, None]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_buffers_are_rounded_once(dtype: torch.dtype) -> None:
    layer: Any = nn.BatchNorm1d(3).to(dtype)
    x = (torch.randn(500, 3) + 5).to(dtype)
    normkit.recalibrate(layer, list(x.split(50)))
    mean, var = of_one_batch(x, (0,))
    assert torch.equal(layer.running_mean, mean.to(dtype))
    assert torch.equal(layer.running_var, var.to(dtype))


def test_statistics_that_do_not_fit_float16_are_refused() -> None:
    layer, x = nn.BatchNorm1d(3).half(), (torch.randn(50, 3) * 1000).half()
    before = record(layer)
    found = normkit.recalibrate(layer, [x])
    ((_, _, reason),) = found.left
    assert reason == "its statistics do not fit torch.float16: convert the layer with float()"
    assert_unchanged(layer, before)


@pytest.mark.parametrize("mode", ["pooled", "sequential"])
def test_autocast(mode: str) -> None:
    model, x = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), torch.randn(50, 3)
    with torch.autocast("cpu", torch.bfloat16):
        inner = model[0](x).detach()
        normkit.recalibrate(model, list(x.split(9)), mode)
    assert inner.dtype is torch.bfloat16
    assert_statistics(model[1], *of_one_batch(inner, (0,)))


class Masked(nn.Module):
    """Passes a mask on to its norm."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor, **masks: Tensor) -> Tensor:
        return self.norm(x, **masks)


@pytest.mark.parametrize("mode", ["pooled", "sequential"])
def test_padding_does_not_count(mode: str) -> None:
    lengths = torch.tensor([5, 1, 8, 0, 3, 8])
    x = torch.randn(6, 3, 8) + 2
    ragged = torch.cat([row[:, :length] for row, length in zip(x, lengths, strict=True)], 1).double()
    padded = x.clone()
    padded[torch.arange(8).expand(6, 3, 8) >= lengths[:, None, None]] = float("nan")
    data = [{"x": part, "lengths": length} for part, length in zip(padded.split(4), lengths.split(4), strict=True)]
    model: Any = Masked(normkit.BatchNorm1d(3))
    found = normkit.recalibrate(model, data, mode)
    assert_statistics(model.norm, ragged.mean(1), ragged.var(1))
    assert (found.layers[0].values, found.is_complete) == (25, True)

    weights = torch.rand(6, 8)
    normkit.recalibrate(model, [{"x": x[:2], "mask": weights[:2]}, {"x": x[2:], "mask": weights[2:]}], mode)
    twin: Any = normkit.BatchNorm1d(3, momentum=1.0)
    twin(x, mask=weights)  # all data as one batch
    assert_statistics(model.norm, twin.running_mean, twin.running_var, rtol=1e-5)

    model = Masked(normkit.InstanceNorm1d(3, track_running_stats=True))
    valid = [row[:, :length].double() for row, length in zip(x, lengths, strict=True) if length > 1]
    data = [{"x": x[lengths > 1], "lengths": lengths[lengths > 1]}]
    normkit.recalibrate(model, data, mode)
    mean, var = (torch.stack(values).mean(0) for values in zip(*((v.mean(1), v.var(1)) for v in valid), strict=True))
    assert_statistics(model.norm, mean, var)


class OwnMasked(nn.BatchNorm1d):
    def forward(self, x: Tensor, mask: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x * mask)


def test_a_mask_of_somebodys_own_layer_is_refused() -> None:
    x = torch.randn(4, 3, 5)
    found = normkit.recalibrate(Masked(OwnMasked(3)), [{"x": x, "mask": torch.ones(4, 1, 5)}])
    assert found.left[0].reason == "it was called with a mask, and has a forward pass of its own"


@pytest.mark.parametrize("mode", ["pooled", "sequential"])
@pytest.mark.parametrize("cls", [nn.InstanceNorm2d, normkit.InstanceNorm2d])
def test_instance_norms_average_over_samples(cls: Any, mode: str) -> None:
    layer, x = cls(3, track_running_stats=True), images()
    normkit.recalibrate(layer, [*x[:60].split(13), x[60], *x[61:].split(2)], mode)  # one sample without a batch axis
    assert_statistics(layer, x.double().mean((2, 3)).mean(0), x.double().var((2, 3)).mean(0))
    assert layer.num_batches_tracked == 0, "instance norms never count"
    twin = cls(3, track_running_stats=True, momentum=1.0)
    twin(x)  # all data as one batch
    torch.testing.assert_close(layer.running_var, twin.running_var)
    found = normkit.recalibrate(nn.InstanceNorm2d(3, track_running_stats=True).eval(), [torch.randn(4, 3, 1, 1)], mode)
    assert "one value per channel and sample" in found.left[0].reason


class HandWritten(nn.Module):
    """As a textbook has it: buffers of shape (1, C, 1, 1), and a flag beside `training`."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(1, channels, 1, 1))
        self.register_buffer("running_var", torch.ones(1, channels, 1, 1))
        self.by_batch = True

    def train(self, mode: bool = True) -> "HandWritten":
        self.by_batch = mode
        return super().train(mode)

    def statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True)

    def forward(self, x: Tensor) -> Tensor:
        mean, var = self.running_mean, self.running_var
        if self.by_batch:
            mean, var = self.statistics(x)
            self.running_mean = 0.9 * self.running_mean + 0.1 * mean
            self.running_var = 0.9 * self.running_var + 0.1 * var
        return (x - mean) / (var + 1e-5).sqrt()


class OfSquares(HandWritten):
    def statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.mean((0, 2, 3), keepdim=True), x.square().mean((0, 2, 3), keepdim=True)


class OfRows(HandWritten):
    """Its channels are the last axis."""

    def statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = x.transpose(1, 3)
        return super().statistics(x)


class StandardDeviation(HandWritten):
    def statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, var = super().statistics(x)
        return mean, var.sqrt()


class NeverUpdates(HandWritten):
    def forward(self, x: Tensor) -> Tensor:
        return (x - self.running_mean) / (self.running_var + 1e-5).sqrt()


class Overwrites(HandWritten):
    """Normalizes its input in place."""

    def forward(self, x: Tensor) -> Tensor:
        return x.copy_(super().forward(x))


@pytest.mark.parametrize("cls", [HandWritten, Overwrites])
@pytest.mark.parametrize("mode", ["pooled", "sequential"])
def test_layers_of_somebodys_own(cls: Any, mode: str) -> None:
    model = network(cls).eval()
    x, before = images(), record(model)
    expected = (pooled_oracle(model, list(x.split(16))) if mode == "pooled" else sequential_oracle(model, x))[5]
    found = normkit.recalibrate(model, [batch.clone() for batch in x.split(16)], mode)
    assert found.is_complete
    assert model[5].running_mean.shape == (1, 5, 1, 1)
    torch.testing.assert_close(model[5].running_var.flatten().double(), expected[1], rtol=1e-4, atol=0)
    assert not model[5].by_batch
    model.load_state_dict(found.before, strict=False)
    assert_unchanged(model, before)


@pytest.mark.parametrize("mode", ["pooled", "sequential"])
@pytest.mark.parametrize(
    ("cls", "why"),
    [
        (OfSquares, "running_var is not the variance of each channel"),
        (OfRows, "running_mean is not the mean of each channel"),
        (StandardDeviation, "running_var is not the variance of each channel"),
        (NeverUpdates, "does not update its running statistics"),
    ],
)
def test_layers_that_keep_something_else_are_left(cls: Any, why: str, mode: str) -> None:
    model = nn.Sequential(nn.BatchNorm2d(6), cls(6))
    x = images().repeat(1, 2, 1, 1)
    before = copy.deepcopy(model[1].state_dict())
    found = normkit.recalibrate(model, list(x.split(16)), mode)
    ((name, _, reason),) = found.left
    assert name == "1"
    assert why in reason
    assert all(map(torch.equal, model[1].state_dict().values(), before.values()))
    assert_statistics(model[0], *of_one_batch(x))


def test_names_choose_layers_and_the_others_evaluate() -> None:
    model, x = network(), images()
    before = copy.deepcopy(model[1].state_dict())
    x = copy.deepcopy(x)
    inner = model[4](copy.deepcopy(model).eval()[:4](x)).detach()
    found = normkit.recalibrate(model, list(x.split(16)), exclude="1")
    assert [layer.name for layer in found.layers] == ["5"]
    assert all(map(torch.equal, model[1].state_dict().values(), before.values()))
    assert_statistics(model[5], *of_one_batch(inner), rtol=1e-5)
    with pytest.raises(UserError, match="`include` expects patterns of names"):
        normkit.recalibrate(model, x, include="head.*")


def test_averaged_compiled_and_wrapped_models() -> None:
    x = images()
    averaged: Any = AveragedModel(network())
    expected = pooled_oracle(averaged.module, list(x.split(16)))
    normkit.recalibrate(averaged, list(x.split(16)))
    assert_statistics(averaged.module[5], *expected[5], rtol=1e-4)
    for wrap in (nn.DataParallel, lambda model: torch.compile(model, backend="eager")):
        model = network()
        wrapped: Any = wrap(model)
        found = normkit.recalibrate(wrapped, list(x.split(16)))
        assert [layer.name for layer in found.layers] == ["1", "5"]
        assert_statistics(model[5], *pooled_oracle(model, list(x.split(16)))[5], rtol=1e-4)


def test_layers_that_are_compiled_already_are_measured() -> None:
    torch._dynamo.reset()
    model, x = network(), images()
    model.compile(backend="eager")
    model(x)
    model.eval()(x)
    normkit.recalibrate(model, list(x.split(16)))
    assert_statistics(model[5], *pooled_oracle(model, list(x.split(16)))[5], rtol=1e-4)


def test_batches_of_any_form() -> None:
    x = torch.randn(20, 3)
    layer = nn.BatchNorm1d(3)
    dataset = torch.utils.data.TensorDataset(x, torch.zeros(20))
    normkit.recalibrate(layer, torch.utils.data.DataLoader(dataset, batch_size=6))
    assert_statistics(layer, *of_one_batch(x, (0,)))
    layer = nn.BatchNorm1d(3)
    batches: Iterator[Any] = ({"image": {"values": part}} for part in x.split(6))
    normkit.recalibrate(layer, batches, forward=lambda model, batch: model(batch["image"]["values"]))
    assert_statistics(layer, *of_one_batch(x, (0,)))


@pytest.mark.parametrize("mode", ["pooled", "sequential"])
def test_what_cannot_be_done_is_said(mode: str) -> None:
    model, x = network(), images()
    before = record(model)
    for data, message in (([], "got no batch"), (3, "yields batches"), (["a"], "give `forward`")):
        with pytest.raises(UserError, match=message):
            normkit.recalibrate(model, data, mode)  # type: ignore[arg-type]
    with pytest.raises(UserError, match='`mode` to be "pooled" or "sequential"; got \'both\''):
        normkit.recalibrate(model, x, "both")
    with pytest.raises(UserError, match="it has none"):
        normkit.recalibrate(nn.LayerNorm(3), x, mode)
    with pytest.raises(UserError, match="normalizes by each batch"):
        normkit.recalibrate(nn.BatchNorm1d(3, track_running_stats=False), x, mode)
    with pytest.raises(UserError, match=r"expected a torch\.nn\.Module"):
        normkit.recalibrate(3, x, mode)  # type: ignore[arg-type]
    assert_unchanged(model, before)
    normkit.freeze(model, include="5")
    assert normkit.recalibrate(model, [x], mode).left == (("5", "BatchNorm2d", "it is frozen: call unfreeze first"),)


def test_sequential_refuses_what_can_be_gone_over_once() -> None:
    with pytest.raises(UserError, match="an iterator is used up after the first"):
        normkit.recalibrate(network(), iter([images()]), "sequential")


def test_wrong_channels_are_the_layers_own_error() -> None:
    model, x = nn.Sequential(nn.BatchNorm2d(3)), torch.randn(4, 5, 3, 3)
    before = record(model)
    with pytest.raises(RuntimeError, match="should contain"):
        normkit.recalibrate(model, [x])
    assert_unchanged(model, before)


def test_text_and_json() -> None:
    model = nn.Sequential(nn.BatchNorm1d(2, eps=0.5))
    found = normkit.recalibrate(model, [torch.tensor([[0.0, 10.0], [4.0, 14.0]])])
    assert str(found).splitlines() == [
        "recalibrate (pooled): 1 layer, 1 batch",
        "  layer  values  mean moved by  variance times",
        "  0           2        4.12 sd    5.67 to 5.67",
    ]
    assert found.layers[0].mean_moved == pytest.approx(12 / 8.5**0.5)
    assert found.to_dict()["layers"][0]["var_ratio"] == pytest.approx([8.5 / 1.5] * 2)
