"""convert_sync_batchnorm on subclasses: what they do is kept, or it is said that it cannot be."""

import copy
import pickle
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import normkit


class Rich(nn.BatchNorm2d):
    """A subclass with everything but a forward pass of its own."""

    kind = "rich"

    seen: Tensor

    def __init__(self, channels: int, label: str) -> None:
        super().__init__(channels, eps=1e-3)
        self.label = label
        self.gain = nn.Parameter(torch.full((channels,), 2.0))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.inner = nn.Linear(1, 1)

    @property
    def doubled(self) -> Tensor:
        """Something computed."""
        return 2 * self.gain

    def _check_input_dim(self, input: Tensor) -> None:
        super()._check_input_dim(input)
        self.seen.add_(1)

    def reset_parameters(self) -> None:
        """A weight that starts at one half."""
        super().reset_parameters()
        nn.init.constant_(self.weight, 0.5)

    def extra_repr(self) -> str:
        """With the label."""
        return f"{super().extra_repr()}, label={self.label}"


class OwnForward(Rich):
    """Does more in its forward pass."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalize and cut off."""
        return super().forward(input).relu()


class OwnCall(nn.BatchNorm2d):
    """Does more before it is called."""

    def __call__(self, input: Tensor) -> Tensor:
        """Of the absolute values."""
        result: Tensor = super().__call__(input.abs())
        return result


class OwnNormalization(normkit.BatchNorm2d):
    """Ours, with another normalization inside."""

    def _normalize(self, input: Tensor, *rest: Any) -> Tensor:
        return input


class OwnSync(normkit.SyncBatchNorm):
    """Synchronized already, with a forward pass of its own."""

    def forward(self, input: Tensor, **masks: Any) -> Tensor:
        """Normalize and cut off."""
        return super().forward(input, **masks).relu()


def test_a_subclass_keeps_attributes_parameters_methods_and_numbers() -> None:
    layer, reference = Rich(3, "a"), Rich(3, "a")
    hooked: list[str] = []
    handle = layer.register_forward_hook(lambda *_: hooked.append("called"))
    state, attributes = layer.state_dict(), dict(vars(layer))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        normkit.convert_sync_batchnorm(layer)
    assert isinstance(layer, Rich)
    assert (layer.kind, layer.label, layer.inner) == ("rich", "a", attributes["_modules"]["inner"])
    assert torch.equal(layer.doubled, torch.full((3,), 4.0))
    assert "label=a" in repr(layer)
    assert list(layer.state_dict()) == list(state)
    x = torch.randn(4, 3, 2, 5)
    torch.testing.assert_close(layer(x), reference(x))
    assert (int(layer.seen), hooked) == (1, ["called"])
    with pytest.raises(ValueError, match="expected 4D input"):
        layer(x[0])
    handle.remove()
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert type(other) is type(layer)
        torch.testing.assert_close(other(x), copy.deepcopy(reference)(x))
    layer.reset_parameters()
    assert float(layer.weight.detach()[0]) == 0.5
    normkit.revert_sync_batchnorm(layer)
    assert type(layer) is Rich
    assert vars(layer).keys() == attributes.keys()


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (OwnForward(3, "b"), "OwnForward: it overrides forward"),
        (OwnCall(3), "OwnCall: it overrides __call__"),
        (OwnNormalization(3), "OwnNormalization: it overrides _normalize"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_subclass_that_does_more_is_left_and_named(layer: nn.Module, why: str) -> None:
    cls, x = type(layer), torch.randn(4, 3, 2, 5)
    expected = copy.deepcopy(layer)(x)
    with pytest.warns(UserWarning, match=why):
        normkit.convert_sync_batchnorm(nn.Sequential(layer))
    assert type(layer) is cls
    assert not hasattr(layer, "process_group")
    torch.testing.assert_close(layer(x), expected)


def patched(cls: type[nn.Module]) -> nn.Module:
    """A layer whose forward pass was replaced on the object, as some libraries do to see each call."""
    layer = cls(3)
    forward = layer.forward
    layer.forward = lambda input: forward(input).relu()
    return layer


def test_a_layer_whose_forward_was_replaced_is_left_and_named() -> None:
    x = torch.randn(4, 3, 2, 5)
    model = nn.Sequential(patched(nn.BatchNorm2d))
    with pytest.warns(UserWarning, match="its forward was replaced on the object"):
        normkit.convert_sync_batchnorm(model)
    summary = normkit.accelerate(model)
    assert summary.swapped == ()
    assert "its forward was replaced on the object" in str(summary)
    assert type(model[0]) is nn.BatchNorm2d
    assert float(model(x).detach().min()) == 0.0


def test_what_is_synchronized_already_gets_the_group_and_keeps_its_class() -> None:
    layer = OwnSync(3)
    normkit.convert_sync_batchnorm(layer, "group")
    assert (type(layer), layer.process_group) == (OwnSync, "group")
