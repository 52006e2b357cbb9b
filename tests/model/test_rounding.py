"""How far an accelerated model is from the original is rounding: neither is nearer to the truth, and both are equal
in float64.

A deep network in training mode amplifies rounding, so a tolerance on the difference of two float32 results would say
nothing. The truth is the original in float64; `-s` prints what docs/accelerate.md quotes.
"""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import normkit

transformers = pytest.importorskip("transformers")
pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore")]

SEEDS = range(6)


def results(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """The output of a copy of the model and all of its gradients."""
    copied: Any = copy.deepcopy(model).to(x.dtype)
    y = copied(pixel_values=x).last_hidden_state
    y.square().mean().backward()
    return y.detach(), torch.cat([parameter.grad.flatten() for parameter in copied.parameters()])


def errors(found: tuple[Tensor, Tensor], truth: tuple[Tensor, Tensor]) -> Tensor:
    """Of output and gradients: the largest difference, relative to the largest value."""
    pairs = zip(found, truth, strict=True)
    return torch.stack([(a.double() - b.double()).abs().max() / b.double().abs().max() for a, b in pairs])


@pytest.mark.slow
def test_mobilenet_in_float32_is_as_near_to_float64_as_the_original() -> None:
    ours, torchs, amplified = [], [], []
    for seed in SEEDS:
        torch.manual_seed(seed)
        model = transformers.MobileNetV2Model(transformers.MobileNetV2Config(depth_multiplier=0.25)).train()
        for parameter in model.parameters():
            nn.init.normal_(parameter, 0.1, 0.2)
        x = torch.randn(4, 3, 32, 32)
        accelerated = copy.deepcopy(model)
        normkit.accelerate(accelerated)
        truth = results(model, x.double())
        with normkit.use_backend("numba"):
            assert float(errors(results(accelerated, x.double()), truth).max()) < 1e-11
            ours.append(errors(results(accelerated, x), truth))
        torchs.append(errors(results(model, x), truth))
        moved = x.double() * (1 + torch.finfo(torch.float32).eps * torch.randn(x.shape).double())
        amplified.append(errors(results(model, moved), truth))
    mean_ours, mean_torchs, mean_moved = (torch.stack(e).log().mean(0).exp() for e in (ours, torchs, amplified))
    print(f"\nerror of output, gradients: normkit {mean_ours}, torch.nn {mean_torchs}, input moved {mean_moved}")
    assert bool((mean_ours < 2 * mean_torchs).all()), (mean_ours, mean_torchs)
    assert bool((mean_moved > 4 * torch.finfo(torch.float32).eps).all())  # the network itself amplifies
