"""Parameter groups: every parameter once, norms known by what they do."""

import random
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

import normkit
from normkit.errors import UserError
from normkit.model.experiment import adds_one, normalizes
from tests.model import handmade


class ScaleNorm(nn.Module):
    """One number scales x / ||x||; nothing in its name says so to a parser of "layernorm"."""

    def __init__(self) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.g * x / x.norm(dim=-1, keepdim=True)


class Whitened(nn.Module):
    """A layer norm over (C, H, W) with a weight of three axes and odd names."""

    def __init__(self) -> None:
        super().__init__()
        self.amount = nn.Parameter(torch.ones(3, 4, 5))
        self.shift = nn.Parameter(torch.zeros(3, 4, 5))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((1, 2, 3), keepdim=True)
        std = ((x - mean).square().mean((1, 2, 3), keepdim=True) + 1e-5).sqrt()
        return (x - mean) / std * self.amount + self.shift


class Broadcast(nn.Module):
    """A batch norm of textbooks: (1, C, 1, 1), and no running statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(1, 6, 1, 1))
        self.beta = nn.Parameter(torch.zeros(1, 6, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True)
        return self.gamma * (x - mean) / (var + 1e-5).sqrt() + self.beta


class Gated(handmade.LlamaRMSNorm):
    def forward(self, hidden_states: Tensor, gate: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(hidden_states) * gate


class PlusOneSubclass(nn.RMSNorm):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.rms_norm(x, self.normalized_shape, 1 + self.weight, self.eps)


class CosineLinear(nn.Module):
    """Free of scale, and its matrix is no weight of a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 6))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(nn.functional.normalize(x, dim=-1), self.weight)


class Signs(nn.Module):
    """Free of scale, element by element: no norm."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(6))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x.sign()


class LayerScale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(6))

    def forward(self, x: Tensor) -> Tensor:
        return self.gamma * x


class LinearNorm(nn.Module):
    """Called a norm, and none."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(6))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x


OWN_NORMS = (ScaleNorm, Whitened, Broadcast)


@pytest.mark.parametrize("cls", OWN_NORMS)
def test_norms_are_found_by_experiment(cls: Any) -> None:
    assert normalizes(cls())
    assert not adds_one(cls())


@pytest.mark.parametrize("cls", handmade.RECOGNIZED)
def test_handmade_norms_do_not_decay_but_for_one_plus_weight(cls: Any) -> None:
    groups = normkit.parameter_groups(nn.Sequential(cls(8)), 0.1)
    assert bool(groups.names("decay")) == (cls is handmade.GemmaRMSNorm)


@pytest.mark.parametrize("cls", [cls for cls in handmade.IMPOSTORS if cls is not handmade.IgnoredWeightRMSNorm])
def test_norms_that_no_recipe_describes_are_norms_all_the_same(cls: Any) -> None:
    assert normkit.parameter_groups(nn.Sequential(cls(8)), 0.1).names("no decay") == ("0.weight",)


@pytest.mark.parametrize("cls", [CosineLinear, Signs, LayerScale, LinearNorm])
def test_what_is_no_norm_decays(cls: Any) -> None:
    assert len(normkit.parameter_groups(cls(), 0.1).names("decay")) == 1


def test_a_subclass_that_adds_one_decays() -> None:
    groups = normkit.parameter_groups(PlusOneSubclass(8), 0.1)
    assert groups.names("decay") == ("weight",)
    assert "1 + weight" in str(groups)


def test_the_caller_notices_no_experiment() -> None:
    model = nn.Sequential(ScaleNorm(), Gated(8), Broadcast())
    calls: list[str] = []
    model[0].register_forward_hook(lambda *_: calls.append("called"))
    state, generator = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    groups = normkit.parameter_groups(model, 0.1)
    assert set(groups.names("no decay")) == {"0.g", "1.weight", "2.gamma", "2.beta"}
    assert torch.is_grad_enabled()
    assert not calls
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_biases_whatever_they_are_called() -> None:
    model = nn.ModuleDict({"lstm": nn.LSTM(3, 4), "attention": nn.MultiheadAttention(4, 2, add_bias_kv=True)})
    groups = normkit.parameter_groups(model, 0.1)
    assert set(groups.names("decay")) == {
        "lstm.weight_ih_l0",
        "lstm.weight_hh_l0",
        "attention.in_proj_weight",
        "attention.out_proj.weight",
    }


def test_parametrized_layers() -> None:
    class Doubled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * x

    model = nn.Sequential(parametrizations.weight_norm(nn.Linear(3, 4)), nn.LayerNorm(4), nn.Linear(4, 4))
    parametrize.register_parametrization(model[1], "weight", Doubled())
    parametrize.register_parametrization(model[2], "bias", Doubled())
    groups = normkit.parameter_groups(model, 0.1)
    assert set(groups.names("decay")) == {
        "0.parametrizations.weight.original0",
        "0.parametrizations.weight.original1",
        "2.weight",
    }


def test_an_optimizer_takes_the_groups() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.PReLU())
    groups = normkit.parameter_groups(model, 0.1)
    optimizer = torch.optim.AdamW(groups, lr=0.01)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]
    assert [group["param_names"] for group in optimizer.param_groups] == [
        ["0.weight", "2.weight"],
        ["0.bias", "1.weight", "1.bias"],
    ]
    weights = [parameter.detach().clone() for parameter in model.parameters()]
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    moved = [not torch.equal(*pair) for pair in zip(weights, model.parameters(), strict=True)]
    assert moved == [True, False, False, False, True]


def test_frozen_parameters_are_left_out_and_patterns_do_not_decay() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    model[0].requires_grad_(requires_grad=False)
    groups = normkit.parameter_groups(model, 0.1, no_decay="2.*")
    assert groups.names("left out") == ("0.weight", "0.bias")
    assert groups.names("decay") == ("1.weight",)
    assert "2 × named by '2.*': 2.weight, 2.bias" in str(groups)
    assert groups.to_dict()["parameters"][2] == {
        "name": "1.weight",
        "group": "decay",
        "reason": "2 axes",
        "shape": [4, 4],
    }


def test_a_weight_that_is_a_norms_somewhere_does_not_decay() -> None:
    model = nn.Sequential(LayerScale(), nn.LayerNorm(6), nn.PReLU(6))
    model[0].gamma = model[1].weight
    groups = normkit.parameter_groups(model, 0.1)
    assert groups.names("no decay") == ("0.gamma", "1.bias")
    assert groups.names("decay") == ("2.weight",)


@pytest.mark.parametrize("decay", [-0.1, float("nan"), float("inf")])
def test_a_decay_that_is_none_is_refused(decay: float) -> None:
    with pytest.raises(UserError, match="`weight_decay` must be 0 or more"):
        normkit.parameter_groups(nn.Linear(2, 2), decay)


def test_what_is_refused() -> None:
    with pytest.raises(UserError, match=r"expected a torch\.nn\.Module"):
        normkit.parameter_groups([nn.Linear(2, 2)], 0.1)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"`no_decay` fits no parameter: 'embedding\.\*'"):
        normkit.parameter_groups(nn.Linear(2, 2), 0.1, no_decay=["embedding.*"])


def test_a_model_without_parameters() -> None:
    groups = normkit.parameter_groups(nn.ReLU(), 0.1)
    assert list(groups) == []
    assert str(groups) == "no parameters"


MAKERS = (
    lambda: nn.Linear(6, 6),
    lambda: nn.Embedding(5, 6),
    lambda: nn.Conv2d(6, 6, 1),
    lambda: nn.BatchNorm2d(6, affine=False),
    lambda: nn.LayerNorm(6, bias=False),
    lambda: nn.GroupNorm(2, 6),
    lambda: nn.RMSNorm(6),
    lambda: nn.PReLU(6),
    lambda: handmade.GemmaRMSNorm(6),
    lambda: handmade.LlamaRMSNorm(6),
    lambda: nn.GRU(6, 6),
    LayerScale,
    Broadcast,
)


def random_model(rng: random.Random, depth: int = 2) -> nn.Module:
    """Nested layers of which some modules and some parameters are shared, and some are frozen."""
    made: list[nn.Module] = [rng.choice(MAKERS)() for _ in range(rng.randint(1, 5))]
    if depth:
        made.append(random_model(rng, depth - 1))
    made += rng.choices(made, k=2)
    model = nn.Sequential(*made)
    ones = [(module, "weight") for module in model.modules() if isinstance(module._parameters.get("weight"), Tensor)]
    for _ in range(2):
        if len(ones) > 1:
            (a, name), (b, _) = rng.sample(ones, 2)
            setattr(a, name, b._parameters["weight"])
    for parameter in model.parameters():
        parameter.requires_grad_(rng.random() < 0.8)
    return model


@pytest.mark.parametrize("seed", range(25))
def test_every_parameter_is_there_once(seed: int) -> None:
    model = random_model(random.Random(seed))
    groups = normkit.parameter_groups(model, 0.1)
    given = [parameter for group in groups for parameter in group["params"]]
    assert sorted(map(id, given)) == sorted(id(one) for one in model.parameters() if one.requires_grad)
    assert [one.name for one in groups.placed] == [name for name, _ in model.named_parameters()]
    for group in groups:
        assert all(
            model.get_parameter(name) is one for name, one in zip(group["param_names"], group["params"], strict=True)
        )


def test_layers_that_are_alike_are_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[nn.Module] = []

    def count(module: nn.Module) -> bool:
        tried.append(module)
        return normalizes(module)

    monkeypatch.setattr(sys.modules["normkit.model.parameter_groups"], "normalizes", count)
    layers = [Broadcast() for _ in range(5)]
    layers[1].eval()  # both modes are tried of each
    other: Any = Broadcast()
    other.gain = 2
    groups = normkit.parameter_groups(nn.Sequential(*layers, other, LinearNorm()), 0.1)
    assert len([one for one in tried if isinstance(one, Broadcast)]) == 2
    assert groups.names("decay") == ("6.weight",)


@pytest.mark.interop
@pytest.mark.parametrize(
    ("name", "decays"), [("Llama", False), ("Gemma", True), ("Gemma2", True), ("Qwen3", False), ("Olmo2", False)]
)
def test_models_of_transformers(name: str, decays: bool) -> None:
    transformers: Any = pytest.importorskip("transformers")
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "vocab_size": 50}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16}
    model = getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")(**sizes, **heads))
    groups = normkit.parameter_groups(model, 0.1)
    norms = {name for name, _ in model.named_parameters() if "norm" in name}
    assert norms
    assert norms <= set(groups.names("decay" if decays else "no decay"))
    if not decays:
        decaying = (parameter for group in groups if group["weight_decay"] for parameter in group["params"])
        assert {parameter.dim() for parameter in decaying} == {2}
