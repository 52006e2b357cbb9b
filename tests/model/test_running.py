"""no_stats_update, skip_nonfinite, accumulate_stats: for our layers and torch's, compiled graphs too."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

import normkit

TRACKED = {"track_running_stats": True}
LAYERS = {
    "ours": lambda: normkit.BatchNorm1d(3),
    "torch's": lambda: nn.BatchNorm1d(3),
    "cumulative": lambda: normkit.BatchNorm1d(3, momentum=None),
    "instance": lambda: normkit.InstanceNorm1d(3, **TRACKED),
    "torch's instance": lambda: nn.InstanceNorm1d(3, **TRACKED),
}


@pytest.fixture(params=list(LAYERS))
def layer(request: pytest.FixtureRequest) -> nn.Module:
    """A layer that has seen one batch."""
    layer = LAYERS[request.param]()
    layer(batch(9))
    return layer


def batch(seed: int, size: int = 4) -> Tensor:
    """An offset batch."""
    return torch.randn(size, 3, 5, generator=torch.Generator().manual_seed(seed)) + seed


def buffers(layer: nn.Module) -> dict[str, Tensor]:
    """Copies of the running statistics."""
    return {name: value.clone() for name, value in layer.named_buffers()}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """To rounding."""
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_no_stats_update_normalizes_by_the_batch_and_stores_nothing(layer: nn.Module) -> None:
    before, objects = buffers(layer), [id(value) for value in layer.buffers()]
    expected = layer.__class__(3, affine=False)(batch(2)).detach()
    x = batch(2).requires_grad_()
    with normkit.no_stats_update(layer):
        y = layer(x)
    y.square().sum().backward()  # after the block
    torch.testing.assert_close(y.detach(), expected)
    assert all(torch.equal(value, before[name]) for name, value in buffers(layer).items())
    assert [id(value) for value in layer.buffers()] == objects
    layer(batch(3))
    assert not torch.equal(buffers(layer)["running_mean"], before["running_mean"])


def test_no_stats_update_ends_after_an_exception(layer: nn.Module) -> None:
    objects = [id(value) for value in layer.buffers()]
    with pytest.raises(KeyError), normkit.no_stats_update(layer):
        raise KeyError
    assert [id(value) for value in layer.buffers()] == objects


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_skip_nonfinite(layer: Any, value: float) -> None:
    reference = type(layer)(3, momentum=layer.momentum, **TRACKED)
    reference.load_state_dict(layer.state_dict())
    cls, broken = type(layer), batch(2)
    broken[0, 1, 0] = value
    with normkit.skip_nonfinite(layer) as guard:
        layer(batch(1))
        assert layer(broken).isnan().any()
        layer(batch(3))
        layer.eval()(broken)  # evaluation stores nothing, and is not counted
    assert guard.skipped == {"": 1}
    assert type(layer) is cls
    reference(batch(1))
    reference(batch(3))
    assert_same(buffers(layer), buffers(reference))
    layer.train()(broken)  # off by default: torch's behaviour
    assert not layer.running_mean.isfinite().all()


def test_accumulate_stats_equals_one_whole_batch(layer: nn.Module) -> None:
    reference = type(layer)(3, momentum=layer.momentum, **TRACKED)
    reference.load_state_dict(layer.state_dict())
    plain = type(layer)(3, affine=False)
    parts = [batch(1, 2), batch(5, 7), batch(3, 1)]
    with normkit.accumulate_stats(layer):
        for part in parts:
            torch.testing.assert_close(layer(part), plain(part))
    reference(torch.cat(parts))
    assert_same(buffers(layer), buffers(reference))


def test_accumulate_stats_stores_nothing_after_an_exception_or_an_empty_block(layer: nn.Module) -> None:
    before = buffers(layer)
    model = nn.Sequential(layer, nn.Linear(1, 1))  # the layer runs, then the next one fails
    with pytest.raises(RuntimeError, match="shapes"), normkit.accumulate_stats(model):
        model(batch(1))
    with normkit.accumulate_stats(layer):
        pass
    assert all(torch.equal(value, before[name]) for name, value in buffers(layer).items())


@pytest.mark.parametrize("entered_first", [True, False])
def test_compiled_graphs_notice(entered_first: bool) -> None:
    torch._dynamo.reset()
    model: Any = nn.Sequential(normkit.BatchNorm1d(3), normkit.InstanceNorm1d(3, **TRACKED))
    graph: Any = torch.compile(model, backend=CompileCounterWithBackend("aot_eager"), fullgraph=True)
    if not entered_first:
        graph(batch(1))
    before = buffers(model)
    with normkit.no_stats_update(model):
        graph(batch(1))
    assert_same(buffers(model), before)
    with normkit.skip_nonfinite(model) as guard:
        graph(batch(1) * float("nan"))
    assert guard.skipped == {"0": 1, "1": 1}
    assert_same(buffers(model), before)
    with normkit.accumulate_stats(model):
        graph(batch(1))
        graph(batch(2))
    assert int(model[0].num_batches_tracked) == int(before["0.num_batches_tracked"]) + 1
    graph(batch(3))
    assert int(model[0].num_batches_tracked) == int(before["0.num_batches_tracked"]) + 2


def test_blocks_nest_and_know_accelerated_layers() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3))
    normkit.accelerate(model)
    with normkit.skip_nonfinite(model) as guard, normkit.accumulate_stats(model):
        model(batch(1))
        model(batch(2))
    assert guard.skipped == {}
    reference = nn.Sequential(nn.BatchNorm1d(3))
    reference(torch.cat([batch(1), batch(2)]))
    assert_same(buffers(model), buffers(reference))
    assert type(model[0]) is normkit.BatchNorm1d


def test_what_cannot_be_done_is_said() -> None:
    for function in (normkit.no_stats_update, normkit.skip_nonfinite, normkit.accumulate_stats):
        with pytest.raises(normkit.UserError, match=r"expected a torch\.nn\.Module"), function([]):  # type: ignore[arg-type]
            pass
    model = nn.Sequential(normkit.SyncBatchNorm(3))
    with pytest.raises(normkit.UserError, match="revert_sync_batchnorm"), normkit.accumulate_stats(model):
        pass
