"""convert: other norms in the place of batch norms, with the numbers that they are to give."""

import copy
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

import normkit
from normkit.errors import UserError
from normkit.model.convert.groups import num_groups
from tests.model.unchanged import assert_unchanged, record


def randomize(model: Any) -> Any:
    """Random parameters and buffers."""
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape) + 0.3)
    return model


def small_net() -> Any:
    torch.manual_seed(0)
    net: Any = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 24, 3, padding=1),
        nn.BatchNorm2d(24),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(24, 32),
        nn.BatchNorm1d(32),
        nn.Linear(32, 5),
    )
    with torch.no_grad():
        for batch in batches():
            net(batch)
    for norm in (net[1], net[4], net[9]):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias)
    return net


def batches(number: int = 4) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(8, 3, 9, 9, generator=generator) * 2 + 1 for _ in range(number)]


def expected_of(layer: Any, x: Tensor, to: str, groups: int) -> Tensor:
    """What a converted layer is to return, in float64."""
    x, shape = x.double(), (1, -1, *[1] * (x.dim() - 2))
    weight, bias = (None if one is None else one.detach().double() for one in (layer.weight, layer.bias))
    if to == "group":
        return F.group_norm(x, groups, weight, bias, layer.eps)
    axes = [1] if to == "layer" else list(range(2, x.dim()))
    var, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
    y = (x - mean) / (var + layer.eps).sqrt()
    return y if weight is None or bias is None else y * weight.view(shape) + bias.view(shape)


LAYERS: list[tuple[Callable[..., nn.Module], tuple[int, ...]]] = [
    (nn.BatchNorm1d, (6, 24)),
    (nn.BatchNorm1d, (6, 24, 5)),
    (nn.BatchNorm2d, (6, 24, 5, 3)),
    (nn.BatchNorm3d, (6, 24, 2, 3, 4)),
    (nn.SyncBatchNorm, (6, 24, 5, 3)),
    (normkit.BatchNorm1d, (6, 24)),
    (normkit.BatchNorm2d, (6, 24, 5, 3)),
    (normkit.SyncBatchNorm, (6, 24, 5)),
]


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("to", ["group", "layer", "instance"])
@pytest.mark.parametrize(("cls", "shape"), LAYERS)
def test_the_numbers_are_those_of_the_target(
    cls: Callable[..., nn.Module], shape: tuple[int, ...], to: str, affine: bool
) -> None:
    layer: Any = randomize(cls(24, eps=1e-3, affine=affine))
    x = torch.randn(shape) * 3 + 1
    if to == "instance" and len(shape) == 2:
        with pytest.raises(UserError, match="each channel of a sample would be one value"):
            normkit.convert(nn.Sequential(layer), to, example=x)
        return
    model = nn.Sequential(layer)
    parameters, expected = list(model.parameters()), expected_of(layer, x, to, 6)
    conversion = normkit.convert(model, to, example=x)
    assert model[0] is layer
    assert [id(one) for one in model.parameters()] == [id(one) for one in parameters]
    for training in (True, False):
        torch.testing.assert_close(model.train(training)(x).double(), expected, rtol=1e-4, atol=1e-4)
    assert set(model.state_dict()) == ({"0.weight", "0.bias"} if affine else set())
    is_ours = type(layer).__module__.startswith("normkit.")
    assert is_ours == (cls.__module__.startswith("normkit.") or to != "group")
    assert conversion.converted[0].before == cls.__name__


def test_the_rule_for_groups() -> None:
    rule = {channels: num_groups(channels, None, "") for channels in range(1, 2049)}
    assert [rule[channels] for channels in (1, 3, 4, 7, 8, 16, 24, 48, 64, 96, 128, 256, 2048)] == [
        *(1, 1, 1, 1, 2, 4, 6, 12, 16, 24, 32, 32, 32),
    ]
    for channels, groups in rule.items():
        assert channels % groups == 0
        assert groups <= 32
        assert groups == 1 or channels // groups >= 4
        larger = [n for n in range(groups + 1, 33) if channels % n == 0 and channels // n >= 4]
        assert not larger


def test_groups_may_be_given() -> None:
    model = small_net()
    conversion = normkit.convert(model, "group", groups=8, include=["1", "4"])
    assert [(one.name, one.groups) for one in conversion.converted] == [("1", 8), ("4", 8)]
    normkit.convert(model, "group", groups=lambda channels: channels // 16)
    assert model[9].num_groups == 2
    model = small_net()
    before = record(model)
    with pytest.raises(UserError, match="`groups` must divide the number of channels: 4 has 24, and 16 does not"):
        normkit.convert(model, "group", groups=16)
    assert_unchanged(model, before)


def test_no_group_has_one_value() -> None:
    features = nn.Sequential(nn.BatchNorm1d(8), nn.BatchNorm1d(1))
    conversion = normkit.convert(features, "group")
    assert [one.name for one in conversion.left] == ["1"]
    assert "each group would be one value" in conversion.left[0].reason
    for model, x in ((nn.BatchNorm1d(8), torch.randn(3, 8)), (nn.BatchNorm2d(8), torch.randn(3, 8, 1, 1))):
        with pytest.raises(UserError, match="each group would be one value"):
            normkit.convert(model, "group", groups=8, example=x)
    sequences = nn.BatchNorm1d(1)
    normkit.convert(sequences, "group", example=torch.randn(3, 1, 7))
    assert isinstance(sequences, nn.GroupNorm)
    with pytest.raises(UserError, match="one channel"):
        normkit.convert(nn.BatchNorm2d(1), "layer")
    unseen = nn.BatchNorm1d(8)
    normkit.convert(unseen, "instance")
    with pytest.raises(ValueError, match=r"expected an input \(N, 8, \*\); got \(3, 8\)"):
        unseen(torch.randn(3, 8))


def test_a_checkpoint_from_before_loads_strictly() -> None:
    for to in ("group", "layer", "instance"):
        old = small_net()
        checkpoint = {name: value.clone() for name, value in old.state_dict().items()}
        model = small_net()
        include = ["1", "4"] if to == "instance" else "*"
        conversion = normkit.convert(model, to, include=include)
        lost = [name for name in checkpoint if name not in model.state_dict()]
        assert list(conversion.ignored) == lost
        assert len(lost) == 3 * len(conversion.converted)
        for state in (checkpoint, old.state_dict()):  # without the versions of layers, and with them
            keys = set(state)
            randomize(model)
            model.load_state_dict(state)
            assert set(state) == keys
            assert torch.equal(model[1].weight, old[1].weight)
        copied = pickle.loads(pickle.dumps(copy.deepcopy(model)))
        copied.load_state_dict(checkpoint)
        torch.testing.assert_close(copied(batches(1)[0]), model(batches(1)[0]))
        missing, unexpected = old.load_state_dict(model.state_dict(), strict=False)
        needed = {name for name in lost if "num_batches" not in name}  # which torch may add
        assert needed <= {*missing} <= {*lost}
        assert not unexpected


def test_shared_layers_stay_shared_and_an_optimizer_goes_on() -> None:
    norm = nn.BatchNorm1d(8)
    model = nn.Sequential(nn.Linear(8, 8), norm, nn.Linear(8, 8), norm)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    conversion = normkit.convert(model, "group", example=torch.randn(4, 8))
    assert [one.name for one in conversion.converted] == ["1"]
    assert model[1] is model[3] is norm
    assert isinstance(norm, nn.GroupNorm)
    before = norm.weight.detach().clone()
    model(torch.randn(4, 8)).square().mean().backward()
    optimizer.step()
    assert not torch.equal(norm.weight, before)


def test_the_model_itself_may_be_the_layer() -> None:
    model: Any = nn.BatchNorm2d(8)
    hook = model.register_forward_hook(lambda *_: None)
    conversion = normkit.convert(model, "group")
    assert isinstance(model, nn.GroupNorm)
    assert hook.id in model._forward_hooks
    assert "(the model itself)" in str(conversion)
    assert repr(model) == "GroupNorm(2, 8, eps=1e-05, affine=True, bias=True)"


class BatchNormAct2d(nn.BatchNorm2d):
    """As timm has it."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.drop, self.act = nn.Identity(), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act(self.drop(super().forward(x)))
        return y


class OddAct2d(BatchNormAct2d):
    """Does not do what its layers say."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


@pytest.mark.parametrize("to", ["group", "layer", "instance"])
@pytest.mark.parametrize("cls", [normkit.BatchNormAct2d, BatchNormAct2d])
def test_an_activation_inside_is_kept(cls: Any, to: str) -> None:
    layer = randomize(cls(24))
    x = torch.randn(4, 24, 5, 5)
    expected = expected_of(layer, x, to, 6).relu()
    normkit.convert(layer, to, example=x)
    torch.testing.assert_close(layer(x).double(), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(pickle.loads(pickle.dumps(layer))(x), layer(x))
    assert not isinstance(layer, nn.BatchNorm2d)


def test_a_residual_goes_on() -> None:
    layer = normkit.BatchNormAct2d(8)
    x, residual = torch.randn(2, 2, 8, 5, 5)
    normkit.convert(layer, "group")
    torch.testing.assert_close(layer(x, residual), (F.group_norm(x, 2) + residual).relu())


class Extra(nn.BatchNorm2d):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.gain = nn.Parameter(torch.ones(channels))


class Renamed(nn.BatchNorm2d):
    """Inherits all."""


class ByHand(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(8))
        self.register_buffer("running_var", torch.ones(8))

    def forward(self, x: Tensor) -> Tensor:
        return x


def patched() -> nn.Module:
    layer = nn.BatchNorm2d(8)
    layer.forward = lambda x: x  # type: ignore[method-assign, assignment]
    return layer


def frozen() -> nn.Module:
    layer = nn.BatchNorm2d(8)
    normkit.freeze(layer)
    return layer


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: OddAct2d(8), "overrides forward"),
        (lambda: Extra(8), "it holds gain"),
        (ByHand, "written by hand"),
        (lambda: nn.LazyBatchNorm2d(), "has not seen its first input"),
        (patched, "its forward was replaced"),
        (frozen, "it is frozen: call unfreeze first"),
        (lambda: nn.LayerNorm(8), "it is no batch norm"),
        (lambda: torch.jit.script(nn.BatchNorm2d(8)), "TorchScript"),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_what_cannot_be_converted_is_left_with_the_reason(make: Callable[[], nn.Module], reason: str) -> None:
    model = nn.Sequential(make(), nn.BatchNorm2d(8), Renamed(8))
    conversion = normkit.convert(model, "group")
    assert [one.name for one in conversion.converted] == ["1", "2"]
    ((name, _, why),) = conversion.left
    assert name == "0"
    assert reason in why
    assert reason in str(conversion)
    alone = nn.Sequential(make())
    with pytest.raises(UserError, match="found no norm that can become 'group'"):
        normkit.convert(alone, "group")


def test_an_accelerated_layer_becomes_an_accelerated_one() -> None:
    model = small_net()
    normkit.accelerate(model)
    normkit.convert(model, "group")
    assert type(model[1]) is normkit.GroupNorm
    normkit.restore(model)
    assert type(model[1]) is nn.GroupNorm
    assert not normkit.accelerate(model).left


@pytest.mark.parametrize("to", ["layer", "instance"])
def test_restore_leaves_what_torch_does_not_have(to: str) -> None:
    model = nn.Sequential(nn.BatchNorm2d(8))
    normkit.accelerate(model)
    normkit.convert(model, to)
    after = type(model[0])
    assert not normkit.restore(model).swapped
    assert type(model[0]) is after


@pytest.mark.parametrize("make", [nn.BatchNorm2d, nn.SyncBatchNorm, normkit.SyncBatchNorm])
def test_a_converted_layer_has_the_attributes_of_a_new_one(make: Any) -> None:
    fresh = {"group": nn.GroupNorm(2, 8), "layer": nn.LayerNorm(8), "instance": nn.InstanceNorm2d(8, affine=True)}
    for to, expected in fresh.items():
        layer = make(8)
        normkit.convert(layer, to)
        public = {name: value for name, value in vars(layer).items() if name[0] != "_" or "normkit" in name}
        assert public == {name: value for name, value in vars(expected).items() if name[0] != "_"}
        assert list(layer._buffers) == list(expected._buffers)


def test_a_parametrized_weight_goes_on() -> None:
    class Doubled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * x

    model: Any = nn.BatchNorm2d(8)
    parametrize.register_parametrization(model, "weight", Doubled())
    x = torch.randn(2, 8, 4, 4)
    normkit.convert(model, "group", example=x)
    torch.testing.assert_close(model(x), F.group_norm(x, 2, torch.full((8,), 2.0)))


def test_lossless_conversions_and_the_way_back() -> None:
    model, x = small_net(), batches(1)[0]
    before = record(model.eval())
    for to in ("sync", "frozen"):
        conversion = normkit.convert(model, to, example=x)
        assert len(conversion.converted) == 3
        after = {"sync": "SyncBatchNorm", "frozen": "frozen BatchNorm2d"}
        assert conversion.converted[0][1:3] == ("BatchNorm2d", after[to])
        assert conversion.drift is not None
        assert conversion.drift.relative < 1e-6
        assert conversion.ignored == ()
        assert normkit.convert(model, to).already == 3
        assert "checkpoints from before fit" in str(conversion)
        normkit.convert(model, "batch", example=x)
        assert_unchanged(model, before)
    normkit.convert(model, "sync")
    normkit.convert(model, "frozen")
    normkit.convert(model, "batch")
    assert_unchanged(model, before)


@pytest.mark.parametrize("to", ["group", "layer", "instance"])
def test_there_is_no_way_back_without_statistics(to: str) -> None:
    model = nn.Sequential(nn.BatchNorm2d(8))
    normkit.convert(model, to)
    assert normkit.convert(model, to).already == 1
    with pytest.raises(UserError, match="it has no running statistics"):
        normkit.convert(model, "batch")


def test_the_drift_on_an_example() -> None:
    model, x = small_net().eval(), batches(1)[0]
    with torch.no_grad():
        before = model(x).double()
    state = record(model)
    conversion = normkit.convert(model, "group", example=x)
    with torch.no_grad():
        after = model(x).double()
    assert conversion.drift is not None
    assert conversion.drift.largest == pytest.approx(float((after - before).abs().max()))
    assert conversion.drift.relative == pytest.approx(float((after - before).norm() / before.norm()))
    assert torch.equal(torch.get_rng_state(), state.generator)
    assert conversion.to_dict()["drift"]["largest"] == conversion.drift.largest


def outputs_of(model: nn.Module, names: list[str], data: list[Tensor]) -> dict[str, Tensor]:
    """All that layers return on the data, in float64, with the channels first."""
    found: dict[str, list[Tensor]] = {name: [] for name in names}
    handles = [
        model.get_submodule(name).register_forward_hook(lambda _, __, y, name=name: found[name].append(y.double()))
        for name in names
    ]
    model.eval()
    with torch.no_grad():
        for batch in data:
            model(batch)
    for handle in handles:
        handle.remove()
    return {name: torch.cat(parts).transpose(0, 1).flatten(1) for name, parts in found.items()}


@pytest.mark.parametrize("to", ["group", "layer"])
def test_with_data_the_moments_become_those_of_the_batch_norms(to: str) -> None:
    model, data, names = small_net(), batches(), ["1", "4", "9"]
    expected = outputs_of(model, names, data)
    parameters = [model[1].weight, model[1].bias]
    unscaled = copy.deepcopy(model)
    normkit.convert(unscaled, to)
    conversion = normkit.convert(model, to, data=data)
    assert [model[1].weight, model[1].bias][0] is parameters[0]
    found = outputs_of(model, names, data)
    for name in names:
        torch.testing.assert_close(found[name].mean(1), expected[name].mean(1), rtol=0, atol=1e-5)
        torch.testing.assert_close(found[name].std(1), expected[name].std(1), rtol=1e-5, atol=1e-6)
    far = outputs_of(unscaled, names, data)
    assert not torch.allclose(far["1"].std(1), expected["1"].std(1), rtol=0.02)
    assert [match.name for match in conversion.matched] == names
    assert all(max(match.after) < 1e-4 < max(match.before) for match in conversion.matched)
    assert conversion.drift is not None
    assert conversion.unmatched is not None
    assert conversion.drift.relative < conversion.unmatched.relative
    assert "weight and bias of 3 rescaled" in str(conversion)


def test_moments_of_what_comes_before_the_activation() -> None:
    torch.manual_seed(0)
    model: Any = nn.Sequential(nn.Conv2d(3, 16, 3), normkit.BatchNormAct2d(16))
    data = batches()
    for batch in data:
        model(batch)
    plain = copy.deepcopy(model)
    plain[1].act = nn.Identity()
    expected = outputs_of(plain, ["1"], data)["1"]
    normkit.convert(model, "group", data=data)
    model[1].act = nn.Identity()
    found = outputs_of(model, ["1"], data)["1"]
    torch.testing.assert_close(found.mean(1), expected.mean(1), rtol=0, atol=1e-5)
    torch.testing.assert_close(found.std(1), expected.std(1), rtol=1e-5, atol=0)
    assert model(data[0]).min() < 0


def test_a_layer_that_is_used_twice_matches_what_both_uses_return() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(16)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(x[:2]).sum() + self.norm(3 * x[2:] + 1).sum()

    torch.manual_seed(0)
    model = Twice()
    data = [torch.randn(4, 16, 3, 3) + torch.arange(16.0)[:, None, None] for _ in range(2)]
    model(data[0])
    expected = outputs_of(model, ["norm"], data)["norm"]
    normkit.convert(model, "group", data=data)
    found = outputs_of(model, ["norm"], data)["norm"]
    torch.testing.assert_close(found.mean(1), expected.mean(1), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.std(1), expected.std(1), rtol=1e-5, atol=1e-5)


def test_layers_that_cannot_be_rescaled_are_named() -> None:
    torch.manual_seed(0)
    model: Any = nn.Sequential(nn.BatchNorm2d(8, affine=False), nn.BatchNorm2d(8), nn.BatchNorm2d(8), nn.PReLU(8))
    model[2].weight = model[3].weight
    values = [parameter.detach().clone() for parameter in model[2].parameters()]
    conversion = normkit.convert(model, "group", data=[torch.randn(4, 8, 5, 5)])
    assert {match.name: match.left for match in conversion.matched} == {
        "0": "it has no weight, or no bias",
        "1": None,
        "2": "its weight or bias is shared with another layer",
    }
    assert all(torch.equal(*pair) for pair in zip(values, model[2].parameters(), strict=True))
    assert "not rescaled: 0: it has no weight, or no bias" in str(conversion)


def test_dead_channels_are_matched_too() -> None:
    torch.manual_seed(0)
    model: Any = nn.Sequential(nn.BatchNorm2d(8), nn.Identity())
    data = [torch.randn(8, 8, 4, 4) + 3]
    model(data[0])
    with torch.no_grad():
        model[0].weight[0] = 0
        model[0].weight[1] = -1
        model[0].bias[0] = 5
    expected = outputs_of(model, ["0"], data)["0"]
    normkit.convert(model, "group", data=data)
    found = outputs_of(model, ["0"], data)["0"]
    torch.testing.assert_close(found.mean(1), expected.mean(1), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.std(1), expected.std(1), rtol=1e-5, atol=1e-5)
    assert model[0].weight[1] < 0


class Fails(nn.Module):
    """Raises as soon as the norm before it is no batch norm."""

    def __init__(self, norm: nn.Module, error: BaseException | float) -> None:
        super().__init__()
        self.error = error
        self.watched = [norm]

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.watched[0], nn.BatchNorm2d):
            return x
        if isinstance(self.error, float):
            return x * self.error
        raise self.error


def failing(error: BaseException | float) -> nn.Module:
    norm = nn.BatchNorm2d(8)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), norm, nn.ReLU(), normkit.BatchNorm2d(8), Fails(norm, error))
    norm.register_forward_hook(lambda *_: None)
    model(batches(1)[0]).sum().backward()
    model[3].eval()
    return model


@pytest.mark.parametrize("to", ["group", "layer", "instance"])
@pytest.mark.parametrize("accelerated", [False, True])
@pytest.mark.parametrize(
    ("error", "says"),
    [
        (TypeError("no mask"), "nothing was converted: the model would raise TypeError on the example: no mask"),
        (float("nan"), "nothing was converted: the model would return NaN or infinity"),
        (KeyboardInterrupt(), None),
    ],
)
def test_whatever_fails_the_model_is_what_it_was(
    error: BaseException | float, says: str | None, accelerated: bool, to: str
) -> None:
    model = failing(error)
    if accelerated:
        normkit.accelerate(model)
    before = record(model)
    if says is None:
        with pytest.raises(KeyboardInterrupt):
            normkit.convert(model, to, example=batches(1)[0])
    else:
        with pytest.raises(UserError, match=says):
            normkit.convert(model, to, example=batches(1)[0])
    assert_unchanged(model, before)


class Interrupting(list[Tensor]):
    """Batches that are interrupted in some pass over them."""

    def __init__(self, allowed: int) -> None:
        super().__init__(batches(2))
        self.allowed = allowed

    def __iter__(self) -> Iterator[Tensor]:
        self.allowed -= 1
        if self.allowed < 0:
            raise KeyboardInterrupt
        return super().__iter__()


@pytest.mark.parametrize("allowed", range(6))
def test_an_interrupt_while_weights_are_rescaled(allowed: int) -> None:
    model = small_net()
    before = record(model)
    with pytest.raises(KeyboardInterrupt):
        normkit.convert(model, "group", data=Interrupting(allowed))
    assert_unchanged(model, before)


@pytest.mark.parametrize("to", ["frozen", "sync", "batch"])
def test_a_lossless_conversion_that_fails_leaves_the_model_as_it_was(to: str) -> None:
    model: Any = nn.Sequential(nn.BatchNorm2d(8), normkit.BatchNorm2d(8))
    model[1].bias.requires_grad_(False)
    x = torch.randn(2, 8, 3, 3)
    model(x).sum().backward()
    if to == "batch":
        normkit.freeze(model)
        normkit.convert_sync_batchnorm(model)
    before = record(model)
    for result, says in ((RuntimeError("no"), "would raise RuntimeError"), (x, "is to change no number")):
        results = [2 * x, result]

        def forward(model: nn.Module, batch: Any, results: list[Any] = results) -> Tensor:
            y = results.pop(0)
            if isinstance(y, Exception):
                raise y
            return y

        with pytest.raises(UserError, match=says):
            normkit.convert(model, to, example=x, forward=forward)
        assert_unchanged(model, before)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"to": "rms"}, "`to` must be one of group, layer, instance, frozen, sync, batch; got 'rms'"),
        ({"to": "layer", "groups": 4}, "`groups` belong to a group norm"),
        ({"to": "sync", "data": []}, "`to=sync` changes no number"),
        ({"to": "group", "data": []}, "no batch of `data`"),
        ({"to": "group", "data": iter([])}, "goes over `data` several times"),
        ({"to": "group", "include": "x.*"}, "'x.*' fits none of"),
        ({"to": "group", "example": "picture"}, "give `forward`"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], says: str) -> None:
    model = small_net()
    before = record(model)
    with pytest.raises(UserError, match=says):
        normkit.convert(model, **arguments)
    assert_unchanged(model, before)
    with pytest.raises(UserError, match=r"expected a torch\.nn\.Module"):
        normkit.convert([model], "group")  # type: ignore[arg-type]


def test_an_example_that_the_model_refuses() -> None:
    with pytest.raises(UserError, match="the model raises RuntimeError on the example"):
        normkit.convert(small_net(), "group", example=torch.randn(2, 5))


def test_wrapped_models_are_refused() -> None:
    with pytest.raises(UserError, match="convert it first, and wrap it then"):
        normkit.convert(nn.DataParallel(small_net()), "group")


def test_a_model_without_norms() -> None:
    assert str(normkit.convert(nn.Linear(2, 2), "group")) == "convert: 0 layers to group"
