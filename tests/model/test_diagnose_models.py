"""Any loader, any wrapper, any layer; and the model is left bit for bit as it was."""

import copy
import math
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import normkit
from normkit.errors import UserError
from tests.model.patients import (
    Sequences,
    averaged,
    data,
    domain_shift,
    healthy,
    large_eps,
    nan_channel,
    norms,
    padded,
    seeded,
    shared_layer,
)
from tests.model.unchanged import assert_unchanged, record


def codes(found: normkit.Diagnosis) -> list[str]:
    return [finding.code for finding in found.findings]


@pytest.mark.parametrize("build", [averaged, nan_channel, large_eps, shared_layer, padded])
def test_a_model_is_left_as_it_was(build: Callable[[], Any]) -> None:
    model, batches = build()
    model.train()
    next(model.modules()).register_forward_hook(lambda *_: None)
    model(batches[0][0]).sum().backward()
    model.linear.weight.requires_grad_(requires_grad=False)
    before = record(model)
    assert not normkit.diagnose(model, batches[:4]).healthy
    assert_unchanged(model, before)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("run", [1, 4, 9, 13])
def test_a_run_that_ends_early_leaves_the_model_as_it_was(error: type[BaseException], run: int) -> None:
    model, batches = domain_shift()
    before, runs = record(model.train()), 0

    def forward(model: nn.Module, batch: Any) -> Any:
        nonlocal runs
        runs += 1
        y = model(batch[0])
        if runs == run:
            raise error
        return y

    with pytest.raises((error, UserError)):
        normkit.diagnose(model, batches[:3], forward)
    assert_unchanged(model, before)


def test_dropout_makes_no_gap() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.9))
    batches = [torch.randn(64, 4) for _ in range(6)]
    normkit.recalibrate(model, batches)
    assert normkit.diagnose(model.train(), batches).gap < 0.5


class Reader(nn.Module):
    """Takes two tensors, and returns a mapping."""

    def __init__(self) -> None:
        super().__init__()
        self.net = healthy()

    def forward(self, image: Tensor, scale: float = 1.0) -> dict[str, Any]:
        return OrderedDict(logits=(self.net(scale * image), 3), labels=[torch.zeros(2, dtype=torch.long)])


def one_by_one(batches: list[Any]) -> Iterator[Any]:
    yield from batches


@pytest.mark.parametrize(
    "loader",
    [
        lambda: [x for x, _ in data()],
        lambda: one_by_one([[x, y] for x, y in data()]),
        lambda: [{"image": x, "scale": 1.0} for x, _ in data()],
        lambda: torch.utils.data.DataLoader(
            torch.utils.data.TensorDataset(torch.cat([x for x, _ in data()])), batch_size=64
        ),
    ],
)
def test_any_loader_gives_the_same_numbers(loader: Callable[[], Any]) -> None:
    expected = normkit.diagnose(healthy(), data())
    found = normkit.diagnose(Reader(), loader())
    assert found.gap == pytest.approx(expected.gap, rel=1e-5)
    assert [layer.shift for layer in found.layers] == pytest.approx([layer.shift for layer in expected.layers])


def test_a_forward_calls_the_model() -> None:
    batches = [{"picture": x} for x, _ in data()]
    found = normkit.diagnose(healthy(), batches, lambda model, batch: model(3 * batch["picture"]))
    assert codes(found) == ["domain-shift"]


def test_a_tensor_is_one_batch_and_batches_are_limited() -> None:
    assert normkit.diagnose(healthy(), data()[0][0]).batches == 1
    endless = iter(lambda: data()[0][0], None)
    assert normkit.diagnose(healthy(), endless, batches=3).batches == 3


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((healthy(), []), "expected `data` that yields batches; it yields none"),
        ((healthy(), 3), "expected `data` that yields batches"),
        ((3, []), "diagnose expected a torch.nn.Module; got int"),
        ((nn.LazyBatchNorm1d(), [torch.zeros(2, 3)]), "run it once first"),
        ((healthy(), [torch.zeros(2, 3, 8, 8)]), "cannot be run on these `data`; it raised RuntimeError"),
        ((healthy(), ["digits"]), "give `forward`"),
        ((nn.BatchNorm1d(3, device="meta"), [torch.zeros(2, 3)]), "load them first"),
    ],
)
def test_what_cannot_be_examined_is_refused(arguments: Any, says: str) -> None:
    with pytest.raises(UserError, match=says):
        normkit.diagnose(*arguments)
    with pytest.raises(UserError, match="`batches` must be 1 or more, not 0"):
        normkit.diagnose(healthy(), data(), batches=0)


@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel, lambda model: torch.compile(nn.DataParallel(model))])
def test_wrappers_are_looked_through(wrap: Callable[[nn.Module], Any]) -> None:
    model, batches = domain_shift()
    expected = normkit.diagnose(model, batches)
    found = normkit.diagnose(wrap(model), batches)
    assert str(found) == str(expected)


def test_a_model_that_was_compiled_in_place_is_examined() -> None:
    model, batches = domain_shift()
    expected = normkit.diagnose(model, batches)
    model.compile()
    next(norms(model)).compile()
    assert str(normkit.diagnose(model, batches)) == str(expected)


def test_accelerated_layers_get_the_same_diagnosis() -> None:
    model, batches = domain_shift()
    expected = normkit.diagnose(model, batches)
    normkit.accelerate(model)
    found = normkit.diagnose(model, batches)
    assert codes(found) == codes(expected)
    assert found.gap == pytest.approx(expected.gap, rel=1e-4)


def test_no_layer_with_statistics_is_no_fault() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.BatchNorm1d(4, track_running_stats=False))
    found = normkit.diagnose(model, [torch.randn(8, 3)])
    assert found.healthy
    assert "no layer that keeps running statistics runs" in str(found)


def test_a_norm_alone_and_one_that_does_not_run() -> None:
    assert codes(normkit.diagnose(nn.BatchNorm1d(3), [5 * torch.randn(64, 3) + 1])) == ["never-updated"]
    model = nn.Sequential(OrderedDict(used=nn.BatchNorm1d(3)))
    model[0].add_module("unused", nn.BatchNorm1d(3))
    assert normkit.diagnose(model, [torch.randn(64, 3)]).unused == ("used.unused",)


def test_outputs_that_cannot_be_compared_are_compared_behind_the_last_norm() -> None:
    class Detector(nn.Module):
        """Returns as many boxes as it finds."""

        def __init__(self) -> None:
            super().__init__()
            self.net = healthy()

        def forward(self, x: Tensor) -> Tensor:
            y = self.net(x)
            return y[y > 0.0]

    found = normkit.diagnose(Detector(), domain_shift()[1])
    assert found.measured_at == "net.block2.norm2"
    assert codes(found) == ["domain-shift"]


def test_a_batch_with_nan_is_named_and_does_not_hide_the_rest() -> None:
    model, batches = domain_shift()
    batches[2] = (batches[2][0].clone(), batches[2][1])
    batches[2][0][3, 0, 1, 1] = float("nan")
    found = normkit.diagnose(model, batches)
    assert codes(found) == ["domain-shift", "nonfinite-input"]
    assert math.isfinite(found.gap)
    assert found.findings[1].layers == ("norm",)
    assert "in 1 batches" in found.findings[1].number


def test_weights_that_are_nan_are_named() -> None:
    model = healthy()
    with torch.no_grad():
        model.block1.conv2.weight[0] = float("nan")
    assert codes(normkit.diagnose(model, data())) == ["nonfinite-input"]


def test_batches_of_one_value_a_channel_are_examined() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    assert normkit.diagnose(model, [torch.randn(1, 3) for _ in range(8)]).batches == 8


def test_half_precision_and_double() -> None:
    model, batches = domain_shift()
    for dtype in (torch.float64, torch.bfloat16):
        found = normkit.diagnose(copy.deepcopy(model).to(dtype), [x.to(dtype) for x, _ in batches])
        assert codes(found) == ["domain-shift"]


def test_an_instance_norm_that_keeps_statistics() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.InstanceNorm2d(4, track_running_stats=True, momentum=1.0))
    x = torch.randn(64, 1, 8, 8)
    model.train()(x)  # the average over all samples
    found = normkit.diagnose(model, list(x.split(8)))
    assert found.layers[0].samples == 1
    assert found.layers[0].shift < 1e-3


class UpdatesAlways(nn.BatchNorm2d):
    """Forgets to ask whether it trains."""

    def forward(self, x: Tensor) -> Tensor:
        assert self.running_mean is not None
        self.running_mean.mul_(0.9).add_(0.1 * x.detach().mean((0, 2, 3)))
        return super().forward(x)


def test_statistics_that_move_in_evaluation_are_named() -> None:
    found = normkit.diagnose(seeded(norm=UpdatesAlways), data()[:6])
    assert "moves-in-evaluation" in codes(found)


def test_an_optimizer_that_steps_in_the_backward_pass_is_not_woken() -> None:
    model = healthy()
    called: list[Tensor] = []
    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(called.append)
    normkit.diagnose(model, data()[:2])
    assert called == []


def test_progress_says_what_is_being_done() -> None:
    done: list[str] = []
    normkit.diagnose(healthy(), data()[:3], progress=done.append)
    assert list(dict.fromkeys(done)) == ["evaluation form", "training form", "causes", "layer by layer"]
    assert done.count("training form") == 3
    assert done.count("layer by layer") == 2 * 3 * 5


def test_a_network_that_masks_its_padding_is_healthy() -> None:
    model, batches = padded()
    masked = seeded(Sequences, norm=normkit.BatchNorm1d)
    masked.load_state_dict(model.state_dict())
    masks = [{"x": x, "mask": (x != 0).any(1)} for x, _ in batches]
    normkit.recalibrate(masked, masks)
    found = normkit.diagnose(masked, masks)
    assert "padding" not in codes(found), found
    assert found.layers[0].values < found.layers[0].samples * 32


def test_torchscript_is_refused() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(nn.Sequential(nn.BatchNorm1d(3)))
    with pytest.raises(UserError, match="cannot look into TorchScript"):
        normkit.diagnose(scripted, [torch.zeros(2, 3)])


def test_a_loss_has_no_spread_and_is_left_out() -> None:
    class WithLoss(nn.Module):
        def __init__(self, *, logits: bool) -> None:
            super().__init__()
            self.net, self.logits = healthy(), logits

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            y = self.net(x)
            return {"loss": y.logsumexp(1).mean(), **({"logits": y} if self.logits else {})}

    found = normkit.diagnose(WithLoss(logits=True), data())
    assert found.gap == pytest.approx(normkit.diagnose(healthy(), data()).gap)
    assert found.measured_at is None
    assert normkit.diagnose(WithLoss(logits=False), data()).measured_at == "net.block2.norm2"


def test_an_empty_batch_counts_for_nothing() -> None:
    batches = [torch.randn(64, 3), torch.randn(0, 3), torch.randn(64, 3)]
    found = normkit.diagnose(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), batches)
    assert codes(found) == ["never-updated"]
    assert found.layers[0].samples == 64
