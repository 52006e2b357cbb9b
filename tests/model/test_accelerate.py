"""accelerate and restore: what is swapped, what is left, and that nothing else changes."""

import copy
import pickle
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

import normkit
from normkit.model.recipes import RECIPES
from tests.model.handmade import IMPOSTORS, RECOGNIZED, GatedRMSNorm, LayerNorm2d, LlamaRMSNorm, PermutedLayerNorm2d
from tests.torch.torch_layers import NormAct

TORCH_NORMS = {
    **{f"BatchNorm{n}d": (4,) for n in (1, 2, 3)},
    "SyncBatchNorm": (4,),
    **{f"InstanceNorm{n}d": (4,) for n in (1, 2, 3)},
    "LayerNorm": (4,),
    "RMSNorm": (4,),
    "GroupNorm": (2, 4),
    **{f"Lazy{kind}Norm{n}d": () for kind in ("Batch", "Instance") for n in (1, 2, 3)},
}


class Named(nn.BatchNorm1d):
    """A subclass with torch's forward pass."""

    def describe(self) -> str:
        """Something of its own."""
        return f"{self.num_features} channels"


class Activated(nn.BatchNorm1d):
    """A subclass with a forward pass of its own."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalize and cut off."""
        return super().forward(input).relu()


def snapshot(model: nn.Module) -> list[Any]:
    """Everything about a model that must come back: classes, attributes, and which objects its tensors are."""
    tensors = [id(tensor) for tensor in (*model.parameters(), *model.buffers())]
    return [tensors, *((type(module), dict(vars(module))) for module in model.modules())]


def test_every_norm_of_torch_is_swapped_and_comes_back() -> None:
    model = nn.ModuleDict({name: getattr(nn, name)(*arguments) for name, arguments in TORCH_NORMS.items()})
    before = snapshot(model)
    summary = normkit.accelerate(model)
    assert [cls for _, cls in summary.swapped] == list(TORCH_NORMS)
    assert summary.left == ()
    assert {name: type(layer) for name, layer in model.items()} == {n: getattr(normkit, n) for n in TORCH_NORMS}
    again = normkit.accelerate(model)
    assert (again.swapped, again.already) == ((), len(TORCH_NORMS))
    assert len(normkit.restore(model).swapped) == len(TORCH_NORMS)
    assert snapshot(model) == before
    assert normkit.restore(model).swapped == ()


def test_state_mode_hooks_and_optimizer_stay() -> None:
    torch.manual_seed(0)
    model: Any = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Sequential(nn.LayerNorm(4)))
    reference = copy.deepcopy(model)
    model[1].eval()
    reference[1].eval()
    model[2][0].weight.requires_grad_(False)
    calls: list[Any] = []
    model[1].register_forward_hook(lambda *arguments: calls.append(arguments))
    optimizers = [torch.optim.Adam([p for p in m.parameters() if p.requires_grad]) for m in (model, reference)]
    names = list(model.state_dict())
    normkit.accelerate(model)
    assert list(model.state_dict()) == names
    assert not model[1].training
    assert not model[2][0].weight.requires_grad
    for optimizer, network in zip(optimizers, (model, reference), strict=True):
        network(torch.arange(6.0).view(2, 3)).sin().sum().backward()
        reference[2][0].weight.grad = None
        optimizer.step()
    assert len(calls) == 1
    torch.testing.assert_close(model.state_dict(), reference.state_dict())


def test_shared_modules_are_swapped_once_and_stay_shared() -> None:
    layer = nn.LayerNorm(3)
    model: Any = nn.ModuleList([layer, nn.Sequential(layer)])
    assert len(normkit.accelerate(model).swapped) == 1
    assert model[0] is model[1][0] is layer
    assert isinstance(layer, normkit.LayerNorm)


def test_subclasses_keep_what_they_do_or_are_left_and_named() -> None:
    model = nn.Sequential(Named(3), Activated(3))
    summary = normkit.accelerate(model)
    assert summary.swapped == (("0", "Named"),)
    assert [(left.name, left.cls) for left in summary.left] == [("1", "Activated")]
    assert "overrides forward" in str(summary)
    assert type(model[1]) is Activated
    assert isinstance(model[0], Named)
    assert isinstance(model[0], normkit.BatchNorm1d)
    assert model[0].describe() == "3 channels"
    clone = pickle.loads(pickle.dumps(model[0]))
    assert type(clone) is type(model[0])
    normkit.restore(model)
    assert type(model[0]) is Named


def test_norms_with_an_activation_are_recognized() -> None:
    for act in (nn.ReLU, nn.ReLU6, nn.SiLU, nn.Identity):
        for dtype in (torch.float64, torch.float32, torch.bfloat16):
            layer: Any = NormAct(5, act).to(dtype)
            seen: list[int] = []
            layer.act.register_forward_hook(lambda *_, seen=seen: seen.append(0))
            reference, state = copy.deepcopy(layer), copy.deepcopy(layer.state_dict())
            assert normkit.accelerate(layer).swapped == (("", "NormAct"),)
            assert {normkit.BatchNormAct2d, NormAct} < set(type(layer).__mro__)
            assert seen == []
            torch.testing.assert_close(layer.state_dict(), state, rtol=0, atol=0)
            x = torch.randn(4, 5, 6, 6, dtype=dtype)
            torch.testing.assert_close(layer(x), reference(x))
            normkit.restore(layer)
            assert type(layer) is NormAct


@pytest.mark.parametrize(
    ("forward", "why"),
    [
        (lambda self, x: 2 * NormAct.forward(self, x), "relative error"),
        (lambda self, x: NormAct.forward(self, x).clamp(max=20), "relative error"),
        (lambda self, x: self.drop(self.act(nn.BatchNorm2d.forward(self, x))).contiguous(), "layout"),
        (lambda self, x: NormAct.forward(self, x).nan_to_num(), "NaN or infinity"),
        (lambda self, x: NormAct.forward(self, x.float()).to(x.dtype), "RuntimeError"),
        (lambda self, x: NormAct.forward(self, setattr(self, "last", x) or x), "keeps something"),  # type: ignore[func-returns-value]
        (lambda self, x: NormAct.forward(self, x) + 0 * self.running_mean.data.add_(1).sum(), "a buffer differs"),
        (lambda self, x, residual=None: NormAct.forward(self, x), "more than one input"),
        (lambda self, x: NormAct.forward(self, x).no_such_method(), "AttributeError"),  # type: ignore[attr-defined]
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
def test_norms_with_an_activation_that_do_more_are_left(forward: Any, why: str) -> None:
    layer = type("Other", (NormAct,), {"forward": forward})(5)
    summary = normkit.accelerate(layer)
    assert summary.swapped == ()
    assert why in summary.left[0].reason


def test_lazy_layers_become_torchs_when_restored_after_their_first_input() -> None:
    layer: nn.Module = nn.LazyBatchNorm1d()
    normkit.accelerate(layer)
    layer(torch.randn(4, 3))
    assert type(layer) is normkit.BatchNorm1d
    normkit.restore(layer)
    assert type(layer) is nn.BatchNorm1d


def test_parametrized_layers_can_be_swapped_and_unparametrized_in_any_order() -> None:
    x = torch.randn(4, 3)
    for accelerate_first in (True, False):
        layer, twin = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
        if accelerate_first:
            normkit.accelerate(layer)
        for each in (layer, twin):
            parametrize.register_parametrization(each, "weight", nn.Softplus())
        normkit.accelerate(layer)
        torch.testing.assert_close(layer(x), twin(x))
        normkit.restore(layer)
        torch.testing.assert_close(layer(x), twin(x))
        normkit.accelerate(layer)
        parametrize.remove_parametrizations(layer, "weight")
        assert type(layer) is normkit.BatchNorm1d
        normkit.restore(layer)
        assert type(layer) is nn.BatchNorm1d


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_torchscript_quantized_and_other_norms_are_left() -> None:
    scripted = torch.jit.script(nn.LayerNorm(3))
    model = nn.ModuleList([scripted, nn.LocalResponseNorm(2), torch.ao.nn.quantized.LayerNorm(3, None, None, 1.0, 0)])
    summary = normkit.accelerate(model)
    assert summary.swapped == ()
    assert [left.name for left in summary.left] == ["0", "1", "2"]
    assert "TorchScript" in summary.left[0].reason


@pytest.mark.parametrize("cls", RECOGNIZED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_handwritten_norms_are_recognized(cls: type[nn.Module], dtype: torch.dtype) -> None:
    layer: Any = cls(6).to(dtype)
    with torch.no_grad():
        layer.weight.copy_(torch.linspace(-1.0, 2.0, 6))
    reference = copy.deepcopy(layer)
    state = torch.random.get_rng_state()
    summary = normkit.accelerate(layer)
    assert torch.equal(torch.random.get_rng_state(), state)
    if cls is LayerNorm2d and dtype in (torch.bfloat16, torch.float16):  # it rounds every step to the half type
        assert "rounded" in summary.left[0].reason or "relative error" in summary.left[0].reason
        return
    assert len(summary.swapped) == 1, str(summary)
    assert isinstance(layer, cls)
    assert all(p.grad is None for p in layer.parameters())
    shape = (2, 6, 3, 4) if "2d" in cls.__name__ else (2, 5, 6)
    for x_dtype in (torch.float32, torch.bfloat16, dtype):  # the others are mixtures
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(x_dtype)
        try:
            expected = reference(x)
        except RuntimeError:  # the original refuses a mixture of types
            continue
        found = layer(x)
        assert found.dtype == expected.dtype
        assert found.stride() == expected.stride()
        half = expected.dtype in (torch.bfloat16, torch.float16)
        tolerance: dict[str, Any] = {"rtol": 8e-3, "atol": 8e-3} if half else {"rtol": 1e-5, "atol": 1e-6}
        torch.testing.assert_close(found, expected, **tolerance)
    clone = pickle.loads(pickle.dumps(copy.deepcopy(layer)))
    torch.testing.assert_close(clone(x), layer(x))
    normkit.restore(layer)
    assert snapshot(layer)[1][0] is cls
    assert set(vars(layer)) == set(vars(reference))


@pytest.mark.parametrize("cls", IMPOSTORS)
def test_norms_that_compute_something_else_are_left(cls: type[nn.Module]) -> None:
    layer = cls(6)
    before = snapshot(layer)
    summary = normkit.accelerate(layer)
    assert summary.swapped == ()
    assert len(summary.left) == 1
    assert "no recipe gave equal numbers" in summary.left[0].reason
    assert snapshot(layer) == before


def test_a_swapped_handwritten_norm_takes_keywords_and_foreign_arguments_like_the_original() -> None:
    layer, x = LlamaRMSNorm(4), torch.randn(2, 4)
    normkit.accelerate(layer)
    torch.testing.assert_close(layer(hidden_states=x), LlamaRMSNorm(4)(x))
    with pytest.raises(TypeError):
        layer(x, x)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == LlamaRMSNorm(4)(x).dtype


class GatedRecipe(normkit.Recipe):
    """A user's: a gated norm whose gate defaults to a half cannot be one input; this one never fits."""

    weight: Tensor
    variance_epsilon: float

    @classmethod
    def fits(cls, module: nn.Module) -> bool:
        """By name."""
        return type(module).__name__ == "Doubled"

    def normalize(self, x: Tensor) -> Tensor:
        """Twice the weight."""
        return normkit.functional.rms_norm(x, self.weight.shape, 2 * self.weight, self.variance_epsilon)


class Doubled(LlamaRMSNorm):
    """Something that only its author knows."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Twice the norm."""
        return 2 * super().forward(hidden_states)


def test_users_teach_it_their_own_norms() -> None:
    layer, x = Doubled(4), torch.randn(3, 4)
    assert normkit.accelerate(layer).swapped == ()
    normkit.register_norm(GatedRecipe)
    try:
        assert len(normkit.accelerate(layer).swapped) == 1
    finally:
        RECIPES.remove(GatedRecipe)
    torch.testing.assert_close(layer(x), Doubled(4)(x))
    with pytest.raises(normkit.UserError, match=r"subclass of normkit\.Recipe"):
        normkit.register_norm(int)  # type: ignore[type-var]


def test_a_failed_call_leaves_the_model_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.LayerNorm(3), LlamaRMSNorm(3), nn.LayerNorm(3))
    before = snapshot(model)
    calls = []

    def fail_late(module: nn.Module, cls: type[nn.Module]) -> None:
        calls.append(module)
        if len(calls) == 3:
            raise MemoryError
        module.__class__ = cls

    monkeypatch.setattr(sys.modules["normkit.model.accelerate"], "set_base_class", fail_late)
    with pytest.raises(MemoryError):
        normkit.accelerate(model)
    assert snapshot(model) == before
    with pytest.raises(normkit.UserError, match="expected a torch"):
        normkit.accelerate([model])  # type: ignore[arg-type]
    with pytest.raises(normkit.UserError, match="expected a torch"):
        normkit.restore(None)  # type: ignore[arg-type]


def test_weights_on_the_meta_device_cannot_be_proven() -> None:
    with torch.device("meta"):
        model = nn.Sequential(LlamaRMSNorm(3), nn.LayerNorm(3))
    summary = normkit.accelerate(model)
    assert summary.swapped == (("1", "LayerNorm"),)
    assert "meta device" in summary.left[0].reason


def test_summary_says_how_many_of_what() -> None:
    model = nn.Sequential(*(nn.LayerNorm(2) for _ in range(5)), nn.BatchNorm1d(2), GatedRMSNorm(2))
    text = str(normkit.accelerate(model))
    assert "6 layers swapped" in text
    assert "5 × LayerNorm: 0, 1 … 4" in text
    restored = str(normkit.restore(model))
    assert restored.startswith("restore: 6 layers restored\n")
    assert "swapped" not in restored
    assert "1 × BatchNorm1d: 5" in text
    assert "left 1 × GatedRMSNorm: 6: no recipe gave equal numbers" in text


def test_own_layers_and_their_subclasses_are_not_touched() -> None:
    class Mine(normkit.BatchNorm1d):
        pass

    model = nn.Sequential(normkit.LayerNorm(3), Mine(3))
    summary = normkit.accelerate(model)
    assert (summary.swapped, summary.left, summary.already) == ((), (), 2)
    normkit.restore(model)
    assert [type(layer) for layer in model] == [normkit.LayerNorm, Mine]


def test_accelerate_then_convert_says_what_to_do_first() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3))
    normkit.accelerate(model)
    normkit.convert_sync_batchnorm(model)
    assert "revert_sync_batchnorm first" in str(normkit.restore(model))
    normkit.revert_sync_batchnorm(model)
    normkit.restore(model)
    assert type(model[0]) is nn.BatchNorm1d


def test_in_a_block_every_layer_has_torchs_class_and_afterwards_its_own() -> None:
    model: Any = nn.Sequential(
        nn.LayerNorm(3),
        LlamaRMSNorm(3),
        Named(3),
        normkit.GroupNorm(1, 3),
        nn.LazyBatchNorm1d(),
        normkit.LayerNorm2d(3),
    )
    normkit.accelerate(model)
    parametrize.register_parametrization(model[3], "weight", nn.Softplus())
    before = snapshot(model)
    with normkit.restored(model) as summary:
        assert [type(layer) for layer in model[:3]] == [nn.LayerNorm, LlamaRMSNorm, Named]
        assert type(model[3]).__bases__ == (nn.GroupNorm,)
        assert type(model[4]) is nn.LazyBatchNorm1d
        assert [(left.cls, left.reason) for left in summary.left] == [("LayerNorm2d", "torch.nn has no class for it")]
        assert not any(name.startswith("_normkit") for name in vars(model[1]))  # copies carry nothing of ours
    after = snapshot(model)
    del before[5], after[5]  # a parametrized layer gets a new class each time
    assert after == before
    assert isinstance(model[3], normkit.GroupNorm)
    with pytest.raises(KeyError), normkit.restored(model):
        raise KeyError
    assert type(model[0]) is normkit.LayerNorm
    normkit.restore(model)
    assert [type(layer) for layer in model[:3]] == [nn.LayerNorm, LlamaRMSNorm, Named]
    with pytest.raises(normkit.UserError, match="restored expected a torch"), normkit.restored(3):  # type: ignore[arg-type]
        pass


def test_a_layer_that_changes_its_class_in_the_block_keeps_that() -> None:
    model: Any = nn.Sequential(nn.LazyBatchNorm1d(), nn.BatchNorm1d(3))
    normkit.accelerate(model)
    with normkit.restored(model):
        model(torch.randn(4, 3))
        assert type(model[0]) is nn.BatchNorm1d
        model[1].__class__ = Named
    assert type(model[0]) is normkit.BatchNorm1d
    assert type(model[1]) is Named
    normkit.restore(model)
    assert type(model[0]) is nn.BatchNorm1d


def test_norm_layer_arguments_take_our_classes() -> None:
    def block(norm_layer: Any) -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(2, 4, 3, bias=False), norm_layer(4), nn.ReLU(inplace=True))

    x = torch.randn(2, 2, 5, 5)
    torch.testing.assert_close(block(normkit.BatchNorm2d)(x), block(nn.BatchNorm2d)(x))
    torch.testing.assert_close(block(normkit.LayerNorm2d)(x), block(PermutedLayerNorm2d)(x))
    encoder = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    reference = copy.deepcopy(encoder)
    normkit.accelerate(encoder)
    for mode in (True, False):  # in evaluation torch takes a path that reads the weights past the layer
        x = torch.randn(2, 3, 8)
        torch.testing.assert_close(encoder.train(mode)(x), reference.train(mode)(x))
