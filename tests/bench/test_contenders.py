"""Every row of the table builds, and what is timed as ours computes what is timed as torch's."""

from dataclasses import replace
from math import prod

import pytest
import torch

import normkit
from normkit.bench import contenders
from normkit.bench.cases import BOTH, CASES, EVALUATION, FORWARD, STEP, ModelCase, NormCase, Row
from normkit.bench.contenders import COMPILED, COPY, OURS, TORCH
from normkit.bench.models import MODELS

# Relative to the largest number of a tensor; half types are rounded once.
TOLERANCES = {"float64": 1e-10, "float32": 2e-4, "bfloat16": 1e-2, "float16": 2e-3}
TORCHS_HALF = 0.2  # torch.nn adds up the gradients of half-type parameters in that type
MOST_NUMBERS = 50_000


def smaller(case):
    """The case with fewer samples: the same layer and layout, on an input that is quick to compute."""
    samples = max(1, min(case.shape[0], MOST_NUMBERS // prod(case.shape[1:])))
    return replace(case, shape=(max(samples, min(2, case.shape[0])), *case.shape[1:]))


def assert_close(values, truth, tolerance):
    values, truth = (each if isinstance(each, tuple) else (each,) for each in (values, truth))
    for value, true in zip(values, truth, strict=True):
        assert value.shape == true.shape
        assert (value.double() - true).abs().max() <= tolerance * true.abs().max() + 1e-7


def in_float64(case, measured):
    """What the row computes, by torch.nn in float64 from the same numbers."""
    module = contenders.layer(case, TORCH).double().train(measured != EVALUATION)
    x, dy = (tensor.double() for tensor in contenders.inputs(case))
    if measured != BOTH:
        return module(x).detach()
    return torch.autograd.grad(module(x.requires_grad_()), [x, *module.parameters()], dy)


@pytest.mark.parametrize("measured", [FORWARD, EVALUATION, BOTH])
@pytest.mark.parametrize("case", [case for case in CASES if isinstance(case, NormCase)], ids=lambda case: case.name)
def test_norms(case, measured):
    built = contenders.build(Row(smaller(case), measured))
    assert set(built.calls) == {OURS, TORCH, COPY}
    assert built.copies == (2.5 if measured == BOTH else 1.0)
    with torch.set_grad_enabled(built.with_grad):
        with normkit.use_backend("numba"):  # as the row's own, larger input gets it
            ours = built.calls[OURS]()
        torchs, copied = (built.calls[name]() for name in (TORCH, COPY))
    truth = in_float64(smaller(case), measured)
    assert_close(ours, truth, TOLERANCES[case.dtype])
    assert_close(torchs, truth, TOLERANCES[case.dtype] if case.dtype in ("float32", "float64") else TORCHS_HALF)
    x, dy = contenders.inputs(smaller(case))
    assert torch.equal(copied, x)
    assert copied.stride() == x.stride() == dy.stride()


@pytest.mark.parametrize("case", [case for case in CASES if isinstance(case, ModelCase)], ids=lambda case: case.name)
def test_models(case, monkeypatch):
    make, (samples, channels, *size) = MODELS[case.model]
    monkeypatch.setitem(MODELS, case.model, (make, (min(samples, 8), channels, *(min(64, edge) for edge in size))))
    models, real = [], contenders.models.training_step

    def remember(model, images, labels):
        models.append(model)
        assert images.is_contiguous(memory_format=torch.channels_last) or not case.channels_last
        return real(model.double(), images.double(), labels)  # a deep network magnifies float32's rounding

    monkeypatch.setattr(contenders.models, "training_step", remember)
    built = contenders.build(Row(case, STEP))
    assert set(built.calls) == {OURS, TORCH}
    ours, torchs = models
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


def test_compiled_is_torchs_layer_compiled(monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda module: compiled.append(module) or module)
    built = contenders.build(Row(NormCase("LayerNorm", (2, 8)), FORWARD), compiled=True)
    assert list(built.calls) == [OURS, TORCH, COMPILED, COPY]
    assert [type(module) for module in compiled] == [torch.nn.LayerNorm]


def test_permuted_layer_norm_is_what_convnext_computes():
    x = torch.randn(2, 5, 3, 4)
    y = contenders.PermutedLayerNorm(5)(x)
    assert y.shape == x.shape
    torch.testing.assert_close(y.mean(1), torch.zeros(2, 3, 4), atol=1e-6, rtol=0)
