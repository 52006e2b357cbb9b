"""The numbers of a diagnosis, against float64 formulas on one layer's data."""

import json
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import normkit
from normkit.model.diagnose.examination import rank
from normkit.model.diagnose.observe import padded_positions
from normkit.model.diagnose.report import Finding
from tests.model.patients import averaged, data, healthy, norms, seeded


def batches(count: int = 12, size: int = 40) -> list[Tensor]:
    return [2.0 * torch.randn(size, 3, 5) + torch.tensor([1.0, 0.0, -4.0])[:, None] for _ in range(count)]


def layer_of(model: nn.Module, data: Any) -> Any:
    (layer,) = normkit.diagnose(model, data).layers
    return layer


def test_distance_and_shift_are_those_of_all_data_as_one() -> None:
    norm, x = nn.BatchNorm1d(3, eps=0.5), batches()
    norm.running_mean, norm.running_var = torch.tensor([0.5, 1.0, -3.0]), torch.tensor([1.0, 2.0, 9.0])
    every = torch.cat(x).double()
    var, mean = torch.var_mean(every, (0, 2))
    old, new = (norm.running_var.double() + 0.5).sqrt(), (var + 0.5).sqrt()
    layer = layer_of(norm, x)
    assert layer.mean_distance == pytest.approx(float(((norm.running_mean - mean) / new).square().mean().sqrt()))
    assert layer.log_var_ratio == pytest.approx(float((2 * (old / new).log()).square().mean().sqrt()))
    by_running, by_batch = ((every - m[:, None]) / s[:, None] for m, s in ((norm.running_mean, old), (mean, new)))
    apart = (by_running - by_batch).square().mean() + 0.5 * ((1 / old - 1 / new) ** 2).mean()  # eps has no values
    assert layer.shift == pytest.approx(float(apart.sqrt()), rel=1e-3)
    assert (layer.samples, layer.values, layer.channels, layer.uses) == (40, 200, 3, 1)


def test_noise_is_that_of_single_batches() -> None:
    norm, x = nn.BatchNorm1d(3, eps=1e-12), batches(size=6)
    every = torch.cat(x).double()
    var, mean = torch.var_mean(every, (0, 2))
    squares = []
    for one in x:
        own_var, own_mean = torch.var_mean(one.double(), (0, 2), correction=0)
        squares.append(((mean - own_mean) ** 2 / own_var + ((var / own_var).sqrt() - 1) ** 2).mean())
    assert layer_of(norm, x).noise == pytest.approx(float(torch.stack(squares).mean().sqrt()), rel=1e-5)


def test_the_gap_is_that_of_outputs() -> None:
    norm, x = nn.BatchNorm1d(3), batches()
    norm.requires_grad_(requires_grad=False)
    found = normkit.diagnose(norm, x)
    trained = torch.cat([norm.train()(one) for one in x])
    norm.reset_running_stats()
    evaluated = torch.cat([norm.eval()(one) for one in x])
    assert found.gap == pytest.approx(float((evaluated - trained).square().mean().sqrt() / trained.std(correction=0)))
    pooled = nn.BatchNorm1d(3, affine=False).eval()
    var, mean = torch.var_mean(torch.cat(x), (0, 2))
    pooled.running_mean, pooled.running_var = mean, var
    left = torch.cat([pooled(one) for one in x]) - trained
    assert found.noise == pytest.approx(float(left.square().mean().sqrt() / trained.std(correction=0)), rel=1e-3)
    assert found.layers[0].cumulative == 0.0
    moved = (evaluated - trained)[: 4 * 40].square().mean().sqrt() / trained.std(correction=0)  # of four batches
    assert found.layers[0].alone == pytest.approx(float(moved))


@pytest.mark.parametrize("momentum", [0.0, 0.1, 0.7, 1.0])
def test_momentum_is_measured(momentum: float) -> None:
    assert layer_of(nn.BatchNorm1d(3, momentum=momentum), batches()).momentum == pytest.approx(momentum, abs=1e-6)


def test_a_momentum_that_cannot_be_told_is_not() -> None:
    x = batches()
    assert layer_of(nn.BatchNorm1d(3, momentum=None), x).momentum is None
    norm = nn.BatchNorm1d(3)
    normkit.recalibrate(norm, x)
    assert layer_of(norm, [torch.cat(x)]).momentum is None


def test_batches_of_chance_vary_as_much_as_chance_would_have_it() -> None:
    shuffled = [torch.randn(32, 64) for _ in range(24)]
    assert layer_of(nn.BatchNorm1d(64), shuffled).between == pytest.approx(1.0, abs=0.2)
    moved = [x + torch.randn(64) for x in shuffled]
    assert layer_of(nn.BatchNorm1d(64), moved).between > 10


def test_facts_of_channels() -> None:
    x = torch.randn(64, 6) * torch.tensor([1.0, 1.0, 1e-4, 0.0, 1.0, 1.0]) + 2.0
    norm = nn.BatchNorm1d(6, eps=1e-8)
    with torch.no_grad():
        norm.weight[0] = 1e-5
    assert norm.running_var is not None
    norm.running_var[5] = float("inf")
    layer = layer_of(norm, [x])
    assert (layer.constant, layer.dead, layer.nonfinite, layer.initial) == (1, 2, 1, False)
    assert layer_of(nn.BatchNorm1d(6, eps=3.0), [torch.randn(512, 6)]).swallowed == pytest.approx(0.75, abs=0.02)


@pytest.mark.parametrize("bias", [False, True])
def test_a_bias_that_is_cancelled_is_named(bias: bool) -> None:
    model = nn.Sequential(nn.Linear(3, 4, bias=bias), nn.BatchNorm1d(4), nn.ReLU(), nn.BatchNorm1d(4))
    layers = normkit.diagnose(model, [torch.randn(32, 3)]).layers
    assert [layer.cancelled_bias for layer in layers] == ["0" if bias else None, None]


def test_padding_is_found_at_the_ends_and_only_if_lengths_differ() -> None:
    x = torch.randn(3, 4, 20)
    x[0, :, 12:] = 0.0
    x[1, :, :7] = 1.5
    x[2, :, 9:11] = x[2, :, 8:9]  # in the middle: no padding
    padding = padded_positions(x)
    assert padding is not None
    assert padding.sum(1).tolist() == [8, 7, 0]
    assert padding[0, 12:].all()
    assert padding[1, :7].all()
    x[:, :, 12:] = 0.0
    x[1, :, :7] = torch.randn(4, 7)
    assert padded_positions(x) is None


class Masked(nn.BatchNorm1d):
    """Counts what the mask has alone."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        mean, var = self.running_mean, self.running_var
        assert mean is not None
        assert var is not None
        if self.training and mask is not None:
            counted = mask[:, None].to(x)
            mean = (x * counted).sum((0, 2)) / counted.sum()
            var = ((x - mean[:, None]) ** 2 * counted).sum((0, 2)) / counted.sum()
        return (x - mean[:, None]) / (var[:, None] + self.eps).sqrt()


@pytest.mark.parametrize("name", ["mask", "lengths"])
def test_a_layer_that_gets_a_mask_is_measured_by_it(name: str) -> None:
    x, lengths = torch.randn(16, 3, 30) + 2.0, torch.randint(10, 30, (16,))
    mask = torch.arange(30) < lengths[:, None]
    x = torch.where(mask[:, None], x, 0.0)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = Masked(3) if name == "mask" else Lengths(3)

        def forward(self, x: Tensor, **keywords: Tensor) -> Tensor:
            return self.norm(x, **keywords)

    class Lengths(Masked):
        def forward(self, x: Tensor, lengths: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(x, torch.arange(x.shape[2]) < lengths[:, None])

    model = Model()
    found = normkit.diagnose(model, [{"x": x, name: mask if name == "mask" else lengths}])
    valid = x.transpose(1, 2)[mask]
    assert found.layers[0].values == int(mask.sum())
    assert found.layers[0].padded == 0.0
    assert found.layers[0].curves.batch_mean == pytest.approx(valid.double().mean(0).tolist(), rel=1e-5)
    assert found.layers[0].curves.batch_std == pytest.approx(valid.double().std(0).tolist(), rel=1e-5)


def test_the_layer_that_makes_the_gap_is_told() -> None:
    model = healthy()
    model.block1.norm2.running_mean.add_(2.0)
    found = normkit.diagnose(model, data())
    assert found.findings[0].layers == ("block1.norm2",)
    left = {layer.name: layer.cumulative for layer in found.layers}
    assert left["block1.norm1"] > 0.5 * found.gap
    assert left["block1.norm2"] < 0.3 * found.gap


def test_shares_of_two_causes_add_up() -> None:
    model, batches = averaged()
    for norm in list(norms(model))[:2]:
        norm.running_mean.add_(0.5)
    found = normkit.diagnose(model, batches)
    shares = {finding.code: finding.share for finding in found.findings}
    assert set(shares) <= {"never-updated", "stale-statistics", "domain-shift"}
    assert sum(share or 0.0 for share in shares.values()) < 1.01


def test_findings_are_ranked_by_share_and_alike_ones_by_order() -> None:
    def finding(code: str, share: float | None) -> Finding:
        return Finding(code, "", "", (), share, None, "")

    given = [finding("a", None), finding("b", 0.3), finding("c", 0.93), finding("d", 0.98), finding("e", 0.5)]
    assert [found.code for found in rank(given)] == ["c", "d", "e", "b", "a"]


def test_a_diagnosis_is_json_and_text() -> None:
    model, batches = averaged()
    next(norms(model)).running_var[0] = float("nan")
    found = normkit.diagnose(model, batches)
    tree = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert tree["gap"] is None
    assert math.isinf(found.gap)
    assert tree["findings"][0]["code"] == found.findings[0].code
    assert len(tree["layers"]) == 5
    text = str(found).splitlines()
    assert text[0].startswith("diagnose: ")
    assert "gap inf" in text[0]
    assert len({len(line) for line in text[-6:]}) == 1


def test_an_untrained_network_is_told_that_it_was_never_updated() -> None:
    assert [finding.code for finding in normkit.diagnose(seeded(), data()).findings] == ["never-updated"]
