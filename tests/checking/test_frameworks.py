"""Layers of Flax, Equinox and Keras, where these are installed."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from normkit.checking.report import Report
from normkit.checking.run import examine
from normkit.checking.target import frameworks
from normkit.checking.target.errors import CannotRunError
from normkit.checking.target.load import load

pytestmark = pytest.mark.interop

LINEN = """
import jax.numpy as jnp
from flax import linen as nn

class LayerNorm(nn.Module):
    eps: float = 1e-5

    @nn.compact
    def __call__(self, x):
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        mean = x.mean(-1, keepdims=True)
        var = ((x - mean) ** 2).mean(-1, keepdims=True)
        return (x - mean) / jnp.sqrt(var + self.eps) * scale + bias
"""
NNX = """
import jax.numpy as jnp
from flax import nnx

class BatchNorm(nnx.Module):
    def __init__(self, features, *, rngs):
        self.inner = nnx.BatchNorm(features, use_fast_variance=False, rngs=rngs)

    def __call__(self, x, use_running_average=None):
        return self.inner(x, use_running_average=use_running_average)
"""
EQUINOX = """
import equinox
import jax
import jax.numpy as jnp

class LayerNorm(equinox.Module):
    weight: jax.Array
    bias: jax.Array

    def __init__(self, size):
        self.weight, self.bias = jnp.ones(size), jnp.zeros(size)

    def __call__(self, x):
        return (x - x.mean()) / jnp.sqrt(x.var() + 1e-5) * self.weight + self.bias
"""
KERAS = """
import keras

class LayerNorm(keras.layers.Layer):
    def __init__(self, eps=1e-5):
        super().__init__()
        self.eps = eps

    def build(self, shape):
        self.gamma = self.add_weight(shape=shape[-1:], initializer="ones", name="gamma")
        self.beta = self.add_weight(shape=shape[-1:], initializer="zeros", name="beta")

    def call(self, x):
        mean, var = keras.ops.mean(x, -1, keepdims=True), keras.ops.var(x, -1, keepdims=True)
        return (x - mean) / keras.ops.sqrt(var + self.eps) * self.gamma + self.beta
"""


def report_of(tmp_path: Path, text: str, name: str) -> Report:
    path = tmp_path / f"layers_{name.lower()}_{abs(hash(text))}.py"
    path.write_text(text)
    return examine(load(f"{path}:{name}"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("framework", "text"),
    [("flax", LINEN), ("equinox", EQUINOX), ("keras", KERAS)],
    ids=["linen", "equinox", "keras"],
)
def test_a_right_layer_normalization(tmp_path: Path, framework: str, text: str) -> None:
    pytest.importorskip(framework)
    report = report_of(tmp_path, text, "LayerNorm")
    assert (report.verdict, report.family) == ("equivalent", "layer")
    assert [finding for finding in report.findings if not finding.edge] == []
    assert len(report.identity.parameters) == 2


@pytest.mark.slow
def test_a_wrong_formula(tmp_path: Path) -> None:
    pytest.importorskip("flax")
    report = report_of(tmp_path, LINEN.replace("/ jnp.sqrt(var + self.eps)", "/ (var + self.eps)"), "LayerNorm")
    assert "formula-wrong" in report.codes


@pytest.mark.slow
def test_flax_s_running_statistics(tmp_path: Path) -> None:
    pytest.importorskip("flax")
    report = report_of(tmp_path, NNX, "BatchNorm")
    assert report.identity.update_mean == (0.99, 0.01)
    assert report.identity.evaluation == "normalizes by the running statistics"
    assert "gradient-wrong" in report.passed
    assert {f.code for f in report.findings if f.severity == "error"} <= {"biased-running-var"}


def test_keras_on_tensorflow_is_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    class Layer:
        """What layers of Keras derive from."""

    Layer.__module__ = "keras.src.layers.layer"
    layer = type("LayerNorm", (Layer,), {"call": lambda self, x: x})
    keras = SimpleNamespace(backend=SimpleNamespace(backend=lambda: "tensorflow"))
    monkeypatch.setattr(frameworks, "import_module", lambda name: keras)
    with pytest.raises(CannotRunError, match=r"LayerNorm is a layer of Keras, .* as in KERAS_BACKEND=torch normkit"):
        examine(layer)


@pytest.mark.parametrize("target", [torch.nn.LayerNorm, torch.nn.functional.layer_norm, torch.nn.BatchNorm2d(3)])
def test_what_belongs_to_none_stays_as_it_is(target: Any) -> None:
    assert frameworks.framework_of(target) is None
    assert frameworks.plain(target) is target
