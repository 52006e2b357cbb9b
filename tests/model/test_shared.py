"""What the model tools share: which layers are norms, how batches reach a model, and a model left as it was."""

import copy
import pickle
from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import normkit
from normkit.errors import UserError
from normkit.model.classes import Cover, base_class, combine, remembered, set_base_class, set_cover
from normkit.model.data import batches_of, run_batch, tensors_in, unwrapped
from normkit.model.norms import chosen_norms, kind_of, norm_layers
from normkit.model.preserve import preserved, set_mode
from tests.model.unchanged import assert_unchanged, record


class HandWritten(nn.Module):
    """Keeps running statistics and is no batch norm of torch's."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(3))
        self.register_buffer("running_var", torch.ones(3))


class LlamaRMSNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(8))
        self.variance_epsilon = 1e-6

    def forward(self, x: Tensor) -> Tensor:
        wide = x.to(torch.float32)
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return self.weight * wide.to(x.dtype)


@pytest.mark.parametrize(
    ("module", "kind"),
    [
        (nn.BatchNorm1d(3), "batch"),
        (normkit.BatchNorm2d(3), "batch"),
        (nn.SyncBatchNorm(3), "batch"),
        (nn.InstanceNorm2d(3), "instance"),
        (nn.GroupNorm(1, 3), "group"),
        (nn.LayerNorm(3), "layer"),
        (normkit.LayerNorm2d(3), "channel"),
        (nn.RMSNorm(3), "rms"),
        (HandWritten(), "batch"),
        (LlamaRMSNorm(), "own"),
        (nn.Linear(3, 3), None),
        (nn.Sequential(nn.LayerNorm(3)), None),
    ],
)
def test_norms_are_known_by_class_or_by_what_they_do(module: nn.Module, kind: str | None) -> None:
    assert kind_of(module) == kind


def test_a_hand_written_norm_stays_one_when_it_is_accelerated() -> None:
    model = nn.Sequential(LlamaRMSNorm())
    normkit.accelerate(model)
    assert [layer.kind for layer in norm_layers(model)] == ["own"]


def test_a_layer_used_twice_is_listed_once() -> None:
    norm = nn.LayerNorm(3)
    found = list(norm_layers(nn.Sequential(norm, nn.ReLU(), norm)))
    assert [(layer.name, layer.kind) for layer in found] == [("0", "layer")]


class Adds(nn.Module):
    def forward(self, x: Tensor, y: Tensor | float = 1.0) -> Tensor:
        return x + y


Pair = namedtuple("Pair", "image label")


@pytest.mark.parametrize(
    ("batch", "expected"),
    [
        (torch.zeros(2), 1.0),
        ((torch.zeros(2), torch.ones(2)), 1.0),
        ([torch.zeros(2), "label"], 1.0),
        (Pair(torch.zeros(2), 3), 1.0),
        ({"x": torch.zeros(2), "y": 2.0}, 2.0),
    ],
)
def test_batches_of_any_form_reach_a_model(batch: Any, expected: float) -> None:
    assert run_batch(Adds(), batch).tolist() == [expected] * 2


@dataclass
class Answer:
    logits: Tensor
    others: Any = None


def test_tensors_are_found_at_any_depth() -> None:
    one, two, three = torch.ones(1), torch.ones(2), torch.ones(3)
    found = tensors_in({"a": Answer(one, [two, "text"]), "b": (Pair(three, 5), None)})
    assert [len(tensor) for tensor in found] == [1, 2, 3]


def test_a_forward_gets_the_batch_as_it_is() -> None:
    batch = {"image": torch.zeros(2), "mask": torch.ones(2)}
    assert run_batch(Adds(), batch, lambda model, batch: model(batch["image"], 5)).tolist() == [5, 5]


def test_what_is_no_batch_or_no_data_is_refused() -> None:
    with pytest.raises(UserError, match="give `forward`"):
        run_batch(Adds(), "image.png")
    with pytest.raises(UserError, match="recalibrate expected `data` that yields batches"):
        list(batches_of(3, "recalibrate"))  # type: ignore[arg-type]
    assert len(list(batches_of(torch.zeros(2, 3), "recalibrate"))) == 1


@pytest.mark.parametrize("raises", [False, True])
def test_a_model_is_left_as_it_was(raises: bool) -> None:
    model: Any = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout())
    model[2].eval()
    model[1].bias.requires_grad_(requires_grad=False)
    model(torch.randn(5, 3)).sum().backward()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    objects = {name: id(value) for name, value in model.named_buffers()}
    grad, generator = model[0].weight.grad, torch.get_rng_state()
    assert grad is not None
    value = grad.clone()
    try:
        with preserved(model):
            model.train().requires_grad_()
            model[1].running_mean = torch.full((4,), float("nan"))
            model[1].running_var.fill_(3.0)
            model[0].weight.data.zero_()
            model[0].register_forward_hook(lambda *_: None)
            model(torch.randn(5, 3)).sum().backward()
            if raises:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert raises
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert {name: id(value) for name, value in model.named_buffers()} == objects
    assert [module.training for module in model] == [True, True, False]
    assert not model[1].bias.requires_grad
    assert not model[0]._forward_hooks
    assert model[0].weight.grad is grad
    assert torch.equal(grad, value)
    assert torch.equal(torch.get_rng_state(), generator)


def test_a_tensor_that_did_not_change_is_not_written_to() -> None:
    model = nn.Linear(3, 4)
    y = model(torch.randn(2, 3, requires_grad=True))
    with preserved(model):
        model(torch.randn(2, 3))
    y.sum().backward()  # autograd would refuse a weight that was written to
    version = model.weight._version
    with preserved(model):
        pass
    assert model.weight._version == version


def test_a_lazy_model_is_refused() -> None:
    with pytest.raises(UserError, match="run it once first"), preserved(nn.Sequential(nn.LazyLinear(3))):
        pass


def test_norms_are_chosen_by_patterns_of_their_names() -> None:
    model = nn.ModuleDict({"stem": nn.BatchNorm1d(3), "body": nn.Sequential(nn.LayerNorm(3), nn.BatchNorm1d(3))})

    def names(**patterns: Any) -> list[str]:
        return [layer.name for layer in chosen_norms(model, **patterns)]

    assert names() == ["stem", "body.0", "body.1"]
    assert names(include="body.*") == ["body.0", "body.1"]
    assert names(include=["stem", "*.1"]) == ["stem", "body.1"]
    assert names(exclude="*.0") == ["stem", "body.1"]
    assert chosen_norms(model["stem"])[0].name == ""
    with pytest.raises(UserError, match=r"`exclude` .* 'head\.\*' fits none of stem, body\.0, body\.1"):
        names(exclude=["stem", "head.*"])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_scripted_norm_is_known_too() -> None:
    assert [layer.kind for layer in norm_layers(torch.jit.script(nn.Sequential(nn.BatchNorm1d(3))))] == ["batch"]


def test_a_model_is_taken_out_of_what_wraps_it() -> None:
    model = nn.Sequential(nn.Linear(3, 3))
    compiled: Any = torch.compile(model)
    assert unwrapped(model) is model
    assert unwrapped(nn.DataParallel(compiled)) is model


class Doubled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 2


class Negative(Cover):
    def forward(self, x: Tensor) -> Tensor:
        return -super().forward(x)


def test_a_cover_stays_over_a_class_that_is_exchanged() -> None:
    module: Any = nn.Identity()
    set_cover(module, Negative)
    assert module(torch.ones(1)) == -1
    set_base_class(module, combine(Doubled, nn.Identity))
    assert module(torch.ones(1)) == -2
    assert base_class(module) is combine(Doubled, nn.Identity)
    for copied in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert type(copied) is type(module)
    set_cover(module, None)
    assert type(module) is combine(Doubled, nn.Identity)


class Evaluates(Cover):
    @property
    def training(self) -> bool:
        return False

    @training.setter
    def training(self, value: bool) -> None:
        vars(self)["training"] = value


class OwnTrain(nn.Module):
    """Keeps a flag beside `training`, and a layer that is in another mode."""

    def __init__(self) -> None:
        super().__init__()
        self.flag, self.inner = True, nn.Dropout().eval()

    def train(self, mode: bool = True) -> "OwnTrain":
        self.flag = mode
        return super().train(mode)


def test_a_layer_is_told_its_mode_by_its_own_train() -> None:
    layer = OwnTrain()
    set_mode(layer, training=False)
    assert (layer.training, layer.flag) == (False, False)
    set_mode(layer, training=True)
    assert (layer.training, layer.flag, layer.inner.training) == (True, True, False)
    with preserved(nn.Sequential(layer)):
        layer.eval()
    assert (layer.training, layer.flag, layer.inner.training) == (True, True, False)


def test_the_mode_that_a_layer_hides_is_put_back() -> None:
    model = nn.Sequential(nn.Identity())
    set_cover(model[0], Evaluates)
    with preserved(model):
        model.eval()
    set_cover(model[0], None)
    assert model[0].training


def test_a_module_is_given_back_what_it_was() -> None:
    layer: Any = nn.BatchNorm2d(3)
    layer(torch.randn(2, 3, 4, 4)).sum().backward()
    before = record(layer)
    undo = remembered(layer)
    layer.__class__ = nn.GroupNorm
    layer.num_groups = 3
    del layer.momentum
    layer.running_mean = torch.ones(3)
    layer._buffers.pop("running_var")
    layer.register_buffer("other", torch.ones(1), persistent=False)
    layer.register_forward_hook(lambda *_: None)
    layer.weight.requires_grad_(False).grad = None
    undo()
    assert_unchanged(layer, before)
    assert not layer._non_persistent_buffers_set
