"""What accelerate says about an example: which norms run in kernels, and what they gain."""

import copy
from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import normkit
from normkit.bench.measure import Timing
from normkit.model.summary import Gain
from tests.model.handmade import LlamaRMSNorm
from tests.model.test_accelerate import snapshot


class Model(nn.Module):
    """A large batch norm, a small one, and one that is not reached."""

    def __init__(self) -> None:
        super().__init__()
        self.large = nn.BatchNorm2d(4)
        self.small, self.unused = LlamaRMSNorm(6), nn.LayerNorm(6)
        self.last = nn.Linear(6, 2)
        self.seen: list[str] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(f"{type(self.large).__module__.partition('.')[0]} {torch.is_grad_enabled()}")
        result: Tensor = self.last(self.small(self.large(x).mean(3)))
        return result


X = torch.zeros(2, 4, 6, 2000)  # more elements than a batch norm needs that trains, fewer than one in evaluation


@pytest.mark.parametrize("training", [True, False])
def test_the_summary_counts_kernels_and_the_model_is_left_as_it_was(training: bool) -> None:
    torch.manual_seed(0)
    model = Model().train(training)
    model.last.weight.grad = torch.ones(2, 6)
    state, x = copy.deepcopy(model.state_dict()), X + torch.randn(X.shape)
    summary = normkit.accelerate(model, example=x)
    gain = summary.gain
    assert gain is not None
    assert (gain.kernels, gain.handed_over) == ((("large",), ("small",)) if training else ((), ("large", "small")))
    assert (gain.unused, gain.training) == (("unused",), training)
    assert {"torch " + str(training), "normkit " + str(training)} == set(model.seen)  # each variant, in its own mode
    assert f"on this input, in {'training: 1' if training else 'evaluation: 0'} of 2 norms run in kernels" in str(
        summary
    )
    assert "not reached by this input: unused" in str(summary)
    torch.testing.assert_close(model.state_dict(), state, rtol=0, atol=0)
    assert torch.equal(model.last.weight.grad, torch.ones(2, 6))
    assert model.large.weight.grad is None
    assert not model.large._forward_pre_hooks
    assert type(model.large) is normkit.BatchNorm2d
    assert summary.to_dict()["gain"]["unused"] == ["unused"]


def test_without_an_example_nothing_runs() -> None:
    model = Model()
    summary = normkit.accelerate(model)
    assert model.seen == []
    assert summary.gain is None
    assert "gain" not in summary.to_dict()
    hint = "faster where inputs are large: accelerate(model, example=x) measures it"
    assert str(summary).splitlines()[-1].strip() == hint
    assert hint not in str(normkit.accelerate(model))  # nothing is swapped
    assert hint not in str(normkit.restore(model))
    assert hint not in str(normkit.accelerate(model, example=X))


def test_examples_are_what_a_loader_gives() -> None:
    for example in ((X, torch.zeros(2)), [X], {"x": X}):
        assert normkit.accelerate(Model(), example=example).gain is not None
    with pytest.raises(normkit.UserError, match="expected batches that are tensors"):
        normkit.accelerate(Model(), example=3)


def test_a_call_whose_example_fails_swaps_nothing() -> None:
    wrapped = nn.DataParallel(nn.LayerNorm(3))
    for model, example in ((Model(), X[:, :3]), (nn.Sequential(nn.LazyBatchNorm2d()), X), (wrapped, X)):
        before = snapshot(model)
        with pytest.raises((RuntimeError, ValueError)):
            normkit.accelerate(model, example=example)
        assert [type(module) for module in model.modules()] == [cls for cls, _ in before[1:]]
        assert not any(name.startswith("_normkit") for module in model.modules() for name in vars(module))


def test_norms_that_are_normkits_already_are_counted_too() -> None:
    model: Any = nn.Sequential(OrderedDict(built=normkit.BatchNorm2d(4)))
    summary = normkit.accelerate(model, example=X)
    assert summary.swapped == ()
    assert summary.gain is not None
    assert summary.gain.kernels == ("built",)
    assert type(model.built) is normkit.BatchNorm2d


def timing(low: float, median: float, high: float) -> Timing:
    return Timing(median, low, high, 9)


@pytest.mark.parametrize(
    ("after", "verdict"),
    [
        (timing(0.004, 0.005, 0.006), "10 ms before, 5 ms now: 2.00 times as fast"),
        (timing(0.018, 0.020, 0.022), "20 ms now: 0.50 times as fast; normkit.restore(model) undoes it"),
        (timing(0.007, 0.008, 0.0091), "8 ms now: no clear difference"),
        (timing(0.0109, 0.012, 1.0), "12 ms now: no clear difference"),
        (timing(1.9, 2.0, 2.1), "10 ms before, 2 s now"),
    ],
)
def test_a_difference_is_one_where_the_quartiles_do_not_overlap(after: Timing, verdict: str) -> None:
    text = str(Gain(False, ("a",), (), (), timing(0.009, 0.010, 0.011), after))
    assert text.startswith("on this input, in evaluation: 1 of 1 norms run in kernels\n")
    assert verdict in text
    assert text.splitlines()[-1].startswith("forward pass: ")
