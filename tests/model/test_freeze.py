"""freeze, unfreeze, is_frozen: statistics that stay, whatever is done with the model."""

import copy
import pickle
import random
import re
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

import normkit
from normkit.errors import UserError
from tests.model.unchanged import assert_unchanged, record


class HandWritten(nn.Module):
    """A batch norm with a flag of its own beside `training`."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(channels) + 0.5)
        self.bias = nn.Parameter(torch.randn(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.by_batch = True

    def train(self, mode: bool = True) -> "HandWritten":
        super().train(mode)
        self.by_batch = mode
        return self

    def forward(self, x: Tensor) -> Tensor:
        shape = (1, -1, *[1] * (x.dim() - 2))
        mean, var = self.running_mean, self.running_var
        if self.by_batch:
            axes = (0, *range(2, x.dim()))
            mean, var = x.mean(axes), x.var(axes)
            self.running_mean = 0.9 * self.running_mean + 0.1 * mean.detach()
            self.running_var = 0.9 * self.running_var + 0.1 * var.detach()
        y = (x - mean.view(shape)) / (var.view(shape) + 1e-5).sqrt()
        return y * self.weight.view(shape) + self.bias.view(shape)


class ByGradMode(HandWritten):
    """As a textbook has it: the grad mode says whether it trains."""

    def forward(self, x: Tensor) -> Tensor:
        self.by_batch = torch.is_grad_enabled()
        return super().forward(x)


class ByBatch(HandWritten):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x - x.mean(0))


class AlwaysUpdates(HandWritten):
    def forward(self, x: Tensor) -> Tensor:
        self.running_mean.lerp_(x.detach().flatten(2).mean((0, 2)), 0.1)
        return super().forward(x)


class TakesAFlag(HandWritten):
    def forward(self, x: Tensor, flag: bool) -> Tensor:  # type: ignore[override]
        return super().forward(x)


TRACKED: dict[str, Any] = {"track_running_stats": True, "affine": True}
LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "torch 1d": (lambda: nn.BatchNorm1d(6), (4, 6)),
    "torch 1d of sequences": (lambda: nn.BatchNorm1d(6), (4, 6, 5)),
    "torch 2d": (lambda: nn.BatchNorm2d(6), (4, 6, 5, 3)),
    "torch 3d": (lambda: nn.BatchNorm3d(6), (4, 6, 2, 5, 3)),
    "without affine": (lambda: nn.BatchNorm2d(6, affine=False), (4, 6, 5, 3)),
    "normkit 2d": (lambda: normkit.BatchNorm2d(6), (4, 6, 5, 3)),
    "normkit with activation": (lambda: normkit.BatchNormAct2d(6), (4, 6, 5, 3)),
    "torch sync": (lambda: nn.SyncBatchNorm(6), (4, 6, 5, 3)),
    "normkit sync": (lambda: normkit.SyncBatchNorm(6), (4, 6, 5, 3)),
    "torch instance": (lambda: nn.InstanceNorm2d(6, **TRACKED), (4, 6, 5, 3)),
    "normkit instance": (lambda: normkit.InstanceNorm2d(6, **TRACKED), (4, 6, 5, 3)),
    "instance of one sample": (lambda: nn.InstanceNorm2d(6, **TRACKED), (6, 5, 3)),
    "written by hand": (lambda: HandWritten(6), (4, 6, 5, 3)),
}


def lively(layer: nn.Module) -> nn.Module:
    """A layer with weights and statistics at random."""
    with torch.no_grad():
        for tensor in (*layer.parameters(), *layer.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(torch.rand_like(tensor) + 0.5)
    return layer


@pytest.fixture(params=list(LAYERS))
def case(request: pytest.FixtureRequest) -> tuple[Any, Tensor]:
    """A layer and an input."""
    build, shape = LAYERS[request.param]
    return lively(build()), torch.randn(shape) * 3 + 5


def gradients(layer: nn.Module, x: Tensor) -> list[Tensor]:
    """The result, and the gradients of the input and of what is trained."""
    x = x.clone().requires_grad_()
    y = layer(x)
    trained = [parameter for parameter in layer.parameters() if parameter.requires_grad]
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    return [y.detach(), *torch.autograd.grad((y * weights).sum(), [x, *trained])]


@pytest.mark.parametrize("affine", [True, False])
def test_a_frozen_layer_in_training_is_the_layer_in_evaluation(case: tuple[Any, Tensor], affine: bool) -> None:
    layer, x = case
    evaluated = copy.deepcopy(layer).eval()
    if affine:
        for parameter in evaluated.parameters():
            parameter.requires_grad = False
    expected = gradients(evaluated, x)
    state, objects = copy.deepcopy(layer.state_dict()), [id(one) for one in (*layer.parameters(), *layer.buffers())]
    normkit.freeze(layer, affine=affine)
    layer.train()
    for module in layer.modules():
        module.train()
        module.training = True
    torch.testing.assert_close(gradients(layer, x), expected, rtol=1e-5, atol=1e-6)
    assert list(layer.state_dict()) == list(state)
    assert all(torch.equal(layer.state_dict()[name], value) for name, value in state.items())
    assert [id(one) for one in (*layer.parameters(), *layer.buffers())] == objects
    assert repr(layer).splitlines()[min(1, repr(layer).count("\n"))].endswith(("frozen)", "frozen"))
    assert normkit.is_frozen(layer)


def test_unfreeze_gives_back_a_layer_that_trains(case: tuple[Any, Tensor]) -> None:
    layer, x = case
    twin, before = copy.deepcopy(layer), record(layer)
    normkit.freeze(layer)
    normkit.unfreeze(layer)
    assert_unchanged(layer, before)
    if not isinstance(layer, nn.SyncBatchNorm):  # torch's trains on accelerators only
        torch.testing.assert_close(gradients(layer, x), gradients(twin, x))
        assert all(map(torch.equal, layer.buffers(), twin.buffers()))


def test_the_mode_after_unfreeze_is_what_was_asked_for_last() -> None:
    model: Any = nn.Sequential(nn.BatchNorm1d(3), HandWritten(3))
    normkit.freeze(model)
    model.eval()
    normkit.unfreeze(model)
    assert not any(module.training for module in model.modules())
    assert not model[1].by_batch
    normkit.freeze(model)
    assert not model[1].by_batch
    model.train()
    assert not model[1].by_batch, "its own flag was switched"
    normkit.unfreeze(model)
    assert all(module.training for module in model.modules())
    assert model[1].by_batch


def test_layers_inside_a_frozen_one_follow_the_mode() -> None:
    layer: Any = normkit.BatchNormAct2d(3, drop_layer=nn.Dropout, act_layer=nn.PReLU)
    layer.drop.eval()
    normkit.freeze(layer)
    assert (layer.drop.training, layer.act.training) == (False, True)
    layer.train()
    assert (layer.training, layer.drop.training) == (False, True)
    assert layer.act.weight.requires_grad, "the activation is no part of the norm"
    normkit.unfreeze(layer.eval())
    assert (layer.training, layer.drop.training) == (False, False)


def test_requires_grad_comes_back_as_it_was_and_no_gradient_is_left() -> None:
    layer: Any = nn.BatchNorm1d(3)
    layer.bias.requires_grad_(False)
    layer(torch.randn(4, 3)).square().sum().backward()
    normkit.freeze(layer)
    assert (layer.weight.requires_grad, layer.weight.grad) == (False, None)
    normkit.freeze(layer)  # the second call does nothing
    normkit.unfreeze(layer)
    assert (layer.weight.requires_grad, layer.bias.requires_grad) == (True, False)


def test_statistics_first_and_the_affine_part_later() -> None:
    layer: Any = nn.BatchNorm1d(3)
    assert str(normkit.freeze(layer, affine=False)).startswith("freeze: 1 layer frozen")
    assert layer.weight.requires_grad
    normkit.freeze(layer)
    assert not layer.weight.requires_grad
    again = normkit.freeze(layer)
    assert str(again) == "freeze: 0 layers frozen, 1 frozen already"
    assert again.to_dict() == {"verb": "freeze", "layers": [], "left": [], "already": 1}
    normkit.unfreeze(layer)
    assert layer.weight.requires_grad


def test_tied_weights_stay_frozen_as_long_as_one_layer_is() -> None:
    model: Any = nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm1d(3))
    model[1].weight = model[0].weight
    normkit.freeze(model)
    normkit.unfreeze(model, include="0")
    assert not model[0].weight.requires_grad
    normkit.unfreeze(model)
    assert model[0].weight.requires_grad
    assert model[1].weight is model[0].weight


def test_names_choose_the_layers() -> None:
    model: Any = nn.ModuleDict({"stem": nn.BatchNorm1d(3), "head": nn.Sequential(nn.BatchNorm1d(3), nn.LayerNorm(3))})
    assert [name for name, _ in normkit.freeze(model, exclude="head.*").swapped] == ["stem"]
    assert not normkit.is_frozen(model)
    assert normkit.is_frozen(model["stem"])
    found = normkit.freeze(model)
    assert (found.swapped, found.already) == ((("head.0", "BatchNorm1d"),), 1)
    assert [(name, cls) for name, cls, _ in found.left] == [("head.1", "LayerNorm")]
    assert normkit.is_frozen(model)
    assert [name for name, _ in normkit.unfreeze(model, include="head*").swapped] == ["head.0"]
    with pytest.raises(UserError, match=r"'tail' fits none of stem, head\.0, head\.1"):
        normkit.freeze(model, include="tail")


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (nn.GroupNorm(1, 3), "keeps no running statistics, and is the same in training and evaluation"),
        (nn.BatchNorm1d(3, track_running_stats=False), "keeps no running statistics, and normalizes by each batch"),
        (nn.LazyBatchNorm2d(), "has not seen its first input"),
        (ByBatch(3), "depends on the other samples in evaluation too"),
        (ByGradMode(3), "updates its running statistics in evaluation too"),
        (AlwaysUpdates(3), "updates its running statistics in evaluation too"),
        (TakesAFlag(3), r"cannot be tried: it takes no input \(N, 3, \*\)"),
        (HandWritten(3).to("meta"), "on the meta device"),
    ],
)
def test_what_cannot_be_frozen_is_left_and_named(layer: nn.Module, why: str) -> None:
    comparable = not isinstance(layer, nn.LazyBatchNorm2d) and not any(one.is_meta for one in layer.parameters())
    before = record(layer) if comparable else None
    found = normkit.freeze(layer)
    assert not found.swapped
    ((_, _, reason),) = found.left
    assert re.search(why, reason), reason
    assert not normkit.is_frozen(layer)
    if before is not None:
        assert_unchanged(layer, before)


@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")
def test_torchscript_is_left() -> None:
    ((_, _, reason),) = normkit.freeze(torch.jit.script(nn.Sequential(nn.BatchNorm1d(3)))).left
    assert "TorchScript" in reason


def network() -> Any:
    """A network that trains."""
    return nn.Sequential(
        nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 6), HandWritten(6), nn.Linear(6, 2)
    )


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_are_frozen_and_can_be_thawed(copied: Callable[[nn.Module], nn.Module]) -> None:
    model = network()
    normkit.accelerate(model)
    normkit.convert_sync_batchnorm(model)
    normkit.freeze(model)
    other: Any = copied(model)
    other.train()
    assert normkit.is_frozen(other)
    x = torch.randn(5, 4)
    torch.testing.assert_close(other(x), model(x), rtol=0, atol=0)
    normkit.unfreeze(other)
    assert other[1].training
    assert other[1].weight.requires_grad
    assert normkit.is_frozen(model), "the original was thawed with its copy"


@pytest.mark.parametrize("compiled_first", [True, False])
def test_compiled_models_notice(compiled_first: bool) -> None:
    torch._dynamo.reset()
    model = network()[:4]
    compiled: Any = torch.compile(model, backend="aot_eager", fullgraph=True)
    x = torch.randn(8, 4) + 3
    if compiled_first:
        compiled(x)
    normkit.freeze(compiled)
    before = model[1].running_mean.clone()
    compiled.train()
    y = compiled(x)
    y.sum().backward()
    torch.testing.assert_close(y, copy.deepcopy(model).eval()(x))
    assert torch.equal(model[1].running_mean, before)
    normkit.unfreeze(compiled)
    compiled(x)
    assert not torch.equal(model[1].running_mean, before)


@pytest.mark.parametrize(
    ("do", "undo"),
    [
        (normkit.accelerate, normkit.restore),
        (normkit.convert_sync_batchnorm, normkit.revert_sync_batchnorm),
    ],
)
def test_other_tools_before_and_after(do: Callable[[nn.Module], Any], undo: Callable[[nn.Module], Any]) -> None:
    x = torch.randn(4, 3, 5, 5) + 2

    def still_frozen(model: Any) -> None:
        before = model[0].running_mean.clone()
        model.train()
        torch.testing.assert_close(model(x), expected)
        assert torch.equal(model[0].running_mean, before)
        assert normkit.is_frozen(model)

    for first in (True, False):
        model: Any = nn.Sequential(lively(nn.BatchNorm2d(3)))
        before = record(model)
        expected = copy.deepcopy(model).eval()(x)
        if first:
            do(model)
        normkit.freeze(model)
        if not first:
            do(model)
        still_frozen(model)
        if first:
            undo(model)
            still_frozen(model)
            normkit.unfreeze(model)
        else:
            normkit.unfreeze(model)
            assert not normkit.is_frozen(model)
            undo(model)
        assert_unchanged(model, before)


class ActNorm(nn.BatchNorm2d):
    """As timm's: drop and act inside."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.drop, self.act = nn.Identity(), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.drop(super().forward(x)))


class ActNormOfItsOwn(ActNorm):
    """Equal to the one above in evaluation alone."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (2 if self.training else 1)


def test_a_frozen_layer_is_verified_as_it_trains() -> None:
    model = nn.Sequential(ActNorm(3), ActNormOfItsOwn(3))
    normkit.freeze(model)
    assert [name for name, _ in normkit.accelerate(model).swapped] == ["0"]


def test_parametrized_layers() -> None:
    layer: Any = nn.BatchNorm1d(3)
    parametrize.register_parametrization(layer, "weight", nn.Softplus())
    before = record(layer)
    normkit.freeze(layer)
    assert not layer.parametrizations.weight.original.requires_grad
    parametrize.remove_parametrizations(layer, "weight")
    assert normkit.is_frozen(layer.train())
    assert not layer.training
    layer = nn.BatchNorm1d(3)
    parametrize.register_parametrization(layer, "weight", nn.Softplus())
    normkit.freeze(layer)
    normkit.unfreeze(layer)
    assert layer.parametrizations.weight.original.requires_grad
    assert layer.training
    assert before.settings[""][1] == layer.training


def test_a_shared_layer_is_frozen_once() -> None:
    norm = nn.BatchNorm1d(4)
    assert len(normkit.freeze(nn.Sequential(norm, nn.ReLU(), norm)).swapped) == 1


def saved_elements(layer: nn.Module, x: Tensor) -> int:
    """How many elements autograd keeps of the input's size."""
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        layer(x.clone().requires_grad_())
    return sum(tensor.numel() for tensor in kept if tensor.numel() >= x.numel())


@pytest.mark.parametrize("cls", [nn.BatchNorm2d, normkit.BatchNorm2d])
@pytest.mark.parametrize("backend", ["aten", "numba"])
def test_a_frozen_layer_keeps_no_input(cls: type[nn.Module], backend: str) -> None:
    layer, x = cls(6), torch.randn(4, 6, 8, 8)
    with normkit.use_backend(backend):
        assert saved_elements(copy.deepcopy(layer).eval(), x) == x.numel()
        normkit.freeze(layer)
        assert saved_elements(layer, x) == 0
        layer.weight.requires_grad_()
        assert saved_elements(layer, x) == x.numel(), "the gradient of the weight needs it"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("channels_last", [True, False])
def test_half_precision_and_layouts(dtype: torch.dtype, channels_last: bool) -> None:
    layer = lively(nn.BatchNorm2d(6))
    x = torch.randn(4, 6, 8, 8).to(dtype)
    x = x.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    expected = copy.deepcopy(layer).double().eval()
    normkit.freeze(layer)
    x.requires_grad_()
    y = layer(x)
    (dx,) = torch.autograd.grad(y.float().square().sum(), x)
    wide = x.detach().double().requires_grad_()
    exact = expected(wide)
    (exact_dx,) = torch.autograd.grad(exact.square().sum(), wide)
    assert (y.dtype, dx.dtype, dx.stride()) == (dtype, dtype, x.stride())
    torch.testing.assert_close(y.double(), exact, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(dx.double(), exact_dx, rtol=2e-2, atol=5e-2)


@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")  # of torch's own forward mode
def test_second_derivatives_and_transforms() -> None:
    layer = lively(nn.BatchNorm1d(3)).double()
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    normkit.freeze(layer)
    assert torch.autograd.gradcheck(layer, (x,), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(layer, (x,))
    jacobian = torch.func.jacrev(layer)(x.detach())
    torch.testing.assert_close(jacobian, torch.func.jacfwd(layer)(x.detach()))
    torch.testing.assert_close(torch.func.vmap(layer)(x.detach()[None])[0], layer(x.detach()))


def test_statistics_that_change_before_the_backward_pass_do_not_change_the_gradient() -> None:
    layer: Any = lively(nn.BatchNorm1d(3))
    normkit.freeze(layer)
    x = torch.randn(5, 3, requires_grad=True)
    y = layer(x)
    (expected,) = torch.autograd.grad(y.square().sum(), x, retain_graph=True)
    layer.running_var.mul_(4)
    (found,) = torch.autograd.grad(y.square().sum(), x)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failed_call_leaves_the_model_as_it_was(monkeypatch: pytest.MonkeyPatch, error: type[BaseException]) -> None:
    module = sys.modules["normkit.model.freeze"]
    model = network()
    model(torch.randn(5, 4)).sum().backward()
    set_cover = module.set_cover

    def fails(layer: nn.Module, over: Any) -> None:
        set_cover(layer, over)
        if over is not None and layer is model[4]:
            raise error

    monkeypatch.setattr(module, "set_cover", fails)
    before = record(model)
    with pytest.raises(error):
        normkit.freeze(model)
    assert_unchanged(model, before)


def test_what_is_no_module_is_refused() -> None:
    tools: tuple[Any, ...] = (normkit.freeze, normkit.unfreeze, normkit.is_frozen)
    for tool in tools:
        with pytest.raises(UserError, match=r"expected a torch\.nn\.Module; got int"):
            tool(3)
    assert not normkit.is_frozen(nn.Linear(3, 3))


NORMS = (1, 4)


class Model:
    """What the state of the network ought to be."""

    def __init__(self) -> None:
        self.mode, self.frozen, self.affine = True, dict.fromkeys(NORMS, False), dict.fromkeys(NORMS, False)


@pytest.mark.parametrize("seed", range(100))
def test_random_sequences_against_a_model_of_the_state(seed: int) -> None:
    """train, eval, loops over modules, freeze, unfreeze and steps, in any order."""
    chance, net, state = random.Random(seed), network(), Model()
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(12):
        action = chance.choice(
            ["train", "eval", "modules", "assign", "freeze", "statistics", "unfreeze", "step", "step"]
        )
        names = chance.choice(["*", "1", "4"])
        chosen = [norm for norm in NORMS if names in ("*", str(norm))]
        if action in ("train", "eval"):
            state.mode = action == "train"
            net.train(state.mode)
        elif action in ("modules", "assign"):
            state.mode = chance.random() < 0.5
            for module in net.modules():
                if action == "modules" or isinstance(module, HandWritten):  # which has a train() of its own
                    module.train(state.mode)
                else:
                    module.training = state.mode
        elif action == "unfreeze":
            normkit.unfreeze(net, include=names)
            for norm in chosen:
                state.frozen[norm] = state.affine[norm] = False
        elif action == "step":
            _step(net, optimizer, state)
        else:
            normkit.freeze(net, affine=action == "freeze", include=names)
            for norm in chosen:
                state.frozen[norm] = True
                state.affine[norm] |= action == "freeze"
        for norm in NORMS:
            layer: Any = net[norm]
            assert normkit.is_frozen(layer) == state.frozen[norm]
            assert layer.training == (state.mode and not state.frozen[norm])
            assert layer.weight.requires_grad == layer.bias.requires_grad == (not state.affine[norm])
            if norm == 4:
                assert layer.by_batch == layer.training


def _step(net: nn.Sequential, optimizer: torch.optim.Optimizer, state: Model) -> None:
    before = copy.deepcopy(net.state_dict())
    net(torch.randn(8, 4) + 2).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=False)  # as old code has it: zeros, by which AdamW would still decay a weight
    for norm in NORMS:
        moved = not torch.equal(net.state_dict()[f"{norm}.running_mean"], before[f"{norm}.running_mean"])
        assert moved == (state.mode and not state.frozen[norm])
        moved = not torch.equal(net.state_dict()[f"{norm}.weight"], before[f"{norm}.weight"])
        assert moved == (not state.affine[norm])
