"""torch.jit.script: what its error names works."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

import normkit
from tests.model.handmade import LlamaRMSNorm

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:.*torch.jit:FutureWarning")


def accelerated() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.GroupNorm(2, 4))
    normkit.accelerate(model)
    return model


def handmade() -> nn.Module:
    model = nn.Sequential(LlamaRMSNorm(4))
    assert normkit.accelerate(model).swapped
    return model


@pytest.mark.parametrize("build", [accelerated, handmade, lambda: nn.Sequential(normkit.BatchNorm1d(4))])
def test_restored_models_are_scripted_and_others_stay_as_they_are(build: Callable[[], nn.Module]) -> None:
    model, x = build(), torch.randn(3, 4)
    before = [type(module) for module in model.modules()]
    with pytest.raises(RuntimeError, match=r"cannot compile normkit's .* `with normkit\.restored\(model\):`"):
        torch.jit.script(model)
    assert [type(module) for module in model.modules()] == before
    with normkit.restored(model):
        scripted = torch.jit.script(model)
    torch.testing.assert_close(scripted.eval()(x), model.eval()(x))
    assert [type(module) for module in model.modules()] == before
