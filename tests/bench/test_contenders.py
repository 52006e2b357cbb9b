"""Every row of the table builds, and what is timed as ours computes what is timed as torch's."""

from collections.abc import Callable
from dataclasses import replace
from math import prod

import pytest
import torch
from torch import Tensor, nn

import normkit
from normkit.bench import contenders, models
from normkit.bench.cases import BOTH, EVALUATION, FORWARD, STEP, ModelCase, NormCase, Row
from normkit.bench.contenders import COMPILED, COPY, OURS, TORCH
from normkit.bench.models import MODELS
from normkit.bench.table import CASES

# Relative to the largest number of a tensor; half-precision dtypes are rounded once.
TOLERANCES = {"float64": 1e-10, "float32": 2e-4, "bfloat16": 1e-2, "float16": 2e-3}
TORCHS_HALF = 0.2  # torch.nn adds up the gradients of half-precision parameters in their dtype
MAX_ELEMENTS = 50_000


def smaller(case: NormCase) -> NormCase:
    """The case with fewer samples: the same layer and layout, on an input that is quick to compute."""
    samples = max(1, min(case.shape[0], MAX_ELEMENTS // prod(case.shape[1:])))
    return replace(case, shape=(max(samples, min(2, case.shape[0])), *case.shape[1:]))


def tensors(result: object) -> tuple[Tensor, ...]:
    """The tensors of a call's result, one or several."""
    return result if isinstance(result, tuple) else (only_tensor(result),)


def only_tensor(result: object) -> Tensor:
    assert isinstance(result, Tensor)
    return result


def assert_close(values: object, truth: object, tolerance: float) -> None:
    for value, true in zip(tensors(values), tensors(truth), strict=True):
        assert value.shape == true.shape
        assert (value.double() - true).abs().max() <= tolerance * true.abs().max() + 1e-7


def in_float64(case: NormCase, pass_: str) -> object:
    """What the row computes, by torch.nn in float64 from the same numbers."""
    module = contenders.layer(case, TORCH).double().train(pass_ != EVALUATION)
    x, dy = (tensor.double() for tensor in contenders.inputs(case))
    if pass_ != BOTH:
        return module(x).detach()
    return torch.autograd.grad(module(x.requires_grad_()), [x, *module.parameters()], dy)


@pytest.mark.parametrize("pass_", [FORWARD, EVALUATION, BOTH])
@pytest.mark.parametrize("case", [case for case in CASES if isinstance(case, NormCase)], ids=lambda case: case.name)
def test_norms(case: NormCase, pass_: str) -> None:
    built = contenders.build(Row(smaller(case), pass_))
    assert set(built.calls) == {OURS, TORCH, COPY}
    assert built.copies == (2.5 if pass_ == BOTH else 1.0)
    with torch.set_grad_enabled(built.with_grad):
        with normkit.use_backend("numba"):  # as the row's own, larger input gets it
            ours = built.calls[OURS]()
        torchs, copied = (built.calls[name]() for name in (TORCH, COPY))
    truth = in_float64(smaller(case), pass_)
    assert_close(ours, truth, TOLERANCES[case.dtype])
    assert_close(torchs, truth, TOLERANCES[case.dtype] if case.dtype in ("float32", "float64") else TORCHS_HALF)
    x, dy = contenders.inputs(smaller(case))
    assert torch.equal(only_tensor(copied), x)
    assert only_tensor(copied).stride() == x.stride() == dy.stride()


@pytest.mark.parametrize("case", [case for case in CASES if isinstance(case, ModelCase)], ids=lambda case: case.name)
def test_models(case: ModelCase, monkeypatch: pytest.MonkeyPatch) -> None:
    make, (samples, channels, *size) = MODELS[case.model]
    monkeypatch.setitem(MODELS, case.model, (make, (min(samples, 8), channels, *(min(64, edge) for edge in size))))
    built_models: list[nn.Module] = []
    real = models.training_step

    def remember(model: nn.Module, images: Tensor, labels: Tensor) -> Callable[[], None]:
        built_models.append(model)
        assert images.is_contiguous(memory_format=torch.channels_last) or not case.channels_last
        return real(model.double(), images.double(), labels)  # a deep network magnifies float32's rounding

    monkeypatch.setattr(models, "training_step", remember)
    built = contenders.build(Row(case, STEP))
    assert set(built.calls) == {OURS, TORCH}
    ours, torchs = built_models
    before = [parameter.detach().clone() for parameter in ours.parameters()]
    for call in built.calls.values():
        call()
    assert {type(module).__module__.split(".")[0] for module in ours.modules() if "Norm" in type(module).__name__} == {
        "normkit"
    }
    for one, other in zip(ours.parameters(), torchs.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
    assert not all(torch.equal(new, old) for new, old in zip(ours.parameters(), before, strict=True))


def test_compiled_is_torchs_layer_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[nn.Module] = []

    def compile_(module: nn.Module) -> nn.Module:
        compiled.append(module)
        return module

    monkeypatch.setattr(torch, "compile", compile_)
    built = contenders.build(Row(NormCase("LayerNorm", (2, 8)), FORWARD), compiled=True)
    assert list(built.calls) == [OURS, TORCH, COMPILED, COPY]
    assert [type(module) for module in compiled] == [torch.nn.LayerNorm]


def test_permuted_layer_norm_is_what_convnext_computes() -> None:
    x = torch.randn(2, 5, 3, 4)
    y = contenders.PermutedLayerNorm(5)(x)
    assert y.shape == x.shape
    torch.testing.assert_close(y.mean(1), torch.zeros(2, 3, 4), atol=1e-6, rtol=0)
