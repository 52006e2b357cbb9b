"""Real models, built from their configurations: same outputs, same gradients, same state_dict."""

import copy
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import nn

import normkit

transformers = pytest.importorskip("transformers")
pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore")]

SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
TEXT = {**SMALL, "vocab_size": 99}


def image() -> dict[str, torch.Tensor]:
    """Two pictures."""
    return {"pixel_values": torch.randn(4, 3, 32, 32, dtype=torch.float64)}


def text() -> dict[str, torch.Tensor]:
    """Two sentences."""
    return {"input_ids": torch.randint(0, 99, (2, 7))}


MODELS: dict[str, tuple[str, dict[str, Any], Callable[[], dict[str, torch.Tensor]], dict[str, int]]] = {
    "ResNet": (
        "ResNet",
        {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"},
        image,
        {"BatchNorm2d": 6},
    ),
    "MobileNetV2": ("MobileNetV2", {"depth_multiplier": 0.25}, image, {"BatchNorm2d": 52}),
    "ConvNext": (
        "ConvNext",
        {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2},
        image,
        {"ConvNextLayerNorm": 4, "LayerNorm": 1},
    ),
    "Llama": ("Llama", TEXT, text, {"LlamaRMSNorm": 5}),
    "Gemma": ("Gemma", {**TEXT, "num_key_value_heads": 4, "head_dim": 8}, text, {"GemmaRMSNorm": 5}),
    "T5": (
        "T5Encoder",
        {"d_model": 32, "d_ff": 64, "num_layers": 2, "num_heads": 4, "d_kv": 8, "vocab_size": 99},
        text,
        {"T5LayerNorm": 5},
    ),
    "Bert": ("Bert", TEXT, text, {"LayerNorm": 5}),
    "ViT": ("ViT", {**SMALL, "image_size": 32, "patch_size": 16}, image, {"LayerNorm": 5}),
}


@pytest.mark.parametrize("name", MODELS)
def test_accelerated_model_is_the_same_model(name: str) -> None:
    kind, options, inputs, counts = MODELS[name]
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind.removesuffix('Encoder')}Config")(**options)
    model = getattr(transformers, f"{kind}Model")(config).double().train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if hasattr(module, "dropout") and isinstance(module.dropout, float):
            module.dropout = 0.0
    for parameter in model.parameters():  # a weight of ones or zeros would hide much
        nn.init.normal_(parameter, 0.1, 0.2)
    reference = copy.deepcopy(model)
    names = list(model.state_dict())
    summary = normkit.accelerate(model)
    found = [cls for _, cls in summary.swapped]
    assert {cls: found.count(cls) for cls in found} == counts, str(summary)
    assert list(model.state_dict()) == names
    batch = inputs()
    single = "RMSNorm" in str(counts)  # those compute in float32 by their own choice
    tolerance: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5} if single else {"rtol": 1e-6, "atol": 1e-9}
    outputs = [network(**batch).last_hidden_state for network in (model, reference)]
    torch.testing.assert_close(*outputs, **tolerance)
    for output in outputs:
        output.square().mean().backward()
    used = [p for p in reference.parameters() if p.grad is not None]
    scale = max(float(p.grad.abs().max()) for p in used)
    for (key, mine), theirs in zip(model.named_parameters(), reference.parameters(), strict=True):
        if theirs.grad is not None:
            torch.testing.assert_close(mine.grad / scale, theirs.grad / scale, rtol=1e-4, atol=1e-6, msg=key)
    torch.testing.assert_close(model.state_dict(), reference.state_dict())
    normkit.restore(model)
    assert [type(module) for module in model.modules()] == [type(module) for module in reference.modules()]


FLOAT32_INSIDE = {
    "llama": "LlamaRMSNorm",
    "t5": "T5LayerNorm",
    "gemma": "GemmaRMSNorm",
    "olmo2": "Olmo2RMSNorm",
    "deberta": "DebertaLayerNorm",
    "helium": "HeliumRMSNorm",
    "cohere": "CohereLayerNorm",
}


@pytest.mark.parametrize("name", FLOAT32_INSIDE)
def test_norms_that_compute_in_float32_have_its_digits_in_float64(name: str) -> None:
    module = import_module(f"transformers.models.{name}.modeling_{name}")
    layer: Any = getattr(module, FLOAT32_INSIDE[name])(64).double()
    x = 2 * torch.randn(8, 5, 64, dtype=torch.float64)
    expected, shifted = layer(x), layer(x * (1 + 1e-10))  # the norm of both is the same, but for rounding
    scale = float(expected.abs().max())
    assert float((shifted - expected).abs().max()) > 1e-11 * scale
    assert len(normkit.accelerate(layer).swapped) == 1
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=3e-7 * scale)
