"""An independent check of a generated layer against torch.nn.functional: nothing of normkit takes part."""

from collections.abc import Callable
from types import CodeType
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from tests.checking.matrix.written import Truth, Written

Namespace = dict[str, Any]
_OFFSETS = (0.0, 0.5, 2.0)


def cell(function: Callable[..., Any], name: str) -> Any:
    """Return what a closure keeps under a name."""
    closure = function.__closure__ or ()
    return closure[function.__code__.co_freevars.index(name)].cell_contents


class Trial:
    """A layer as its author uses it, on inputs in torch's order of axes.

    Args:
        layer: The generated layer.
        neutral: Whether weight and bias stay as they start (ones and zeros where the caller passes them).
    """

    def __init__(self, layer: Written, *, neutral: bool = False) -> None:
        self.layer, self.truth = layer, layer.truth
        self.is_torch = layer.library == "torch"
        channels = self.truth.shape[1] if self.truth.family in ("batch", "group", "instance") else layer.truth.shape[-1]
        size = (channels,) if self.truth.trailing == 1 else self.truth.shape[-self.truth.trailing :]
        generator = np.random.default_rng(1)
        self.weight = np.ones(size) if neutral else generator.uniform(0.5, 2.0, size)
        self.bias = np.zeros(size) if neutral else generator.uniform(-1.0, 1.0, size)
        self.space: Namespace = dict(layer.load().__dict__)
        self.space.update(cell=cell, torch=torch, C=size if len(size) > 1 else channels)
        self.space.update(weight=self.array(self.weight), bias=self.array(self.bias))
        self.run(layer.usage.setup)
        if not neutral:
            self.run(layer.usage.set_affine)

    def array(self, values: np.ndarray) -> Any:
        """Make an array of the layer's library: float32 in torch, else the dtype of the values."""
        if self.is_torch:
            return torch.tensor(values, dtype=torch.float32)
        if self.layer.library == "jax":
            import jax.numpy as jnp

            return jnp.asarray(values)
        return np.array(values)

    def run(self, code: str) -> None:
        """Run a part of the usage."""
        exec(_compiled(code), self.space)

    def call(self, x: np.ndarray, *, training: bool, leaf: bool = False) -> np.ndarray:
        """Call the layer on values in torch's order; the output has that order too."""
        given = self.array(np.transpose(x, self.truth.order).copy())
        if leaf:
            given.requires_grad_()
        self.space["x"] = given
        with np.errstate(all="ignore"):
            self.run(self.layer.usage.train if training else self.layer.usage.evaluate)
        return self.back(self.space["y"])

    def back(self, values: Any) -> np.ndarray:
        """Return values of the layer's order in torch's."""
        values = np.asarray(values.detach() if isinstance(values, torch.Tensor) else values, dtype=np.float64)
        return np.transpose(values, np.argsort(self.truth.order))


def _compiled(code: str) -> CodeType:
    return compile(code, "<usage>", "exec")


class Expected:
    """What torch computes for the same."""

    def __init__(self, trial: Trial) -> None:
        self.truth: Truth = trial.truth
        self.weight, self.bias = torch.tensor(trial.weight), torch.tensor(trial.bias)
        channels = self.truth.shape[1]
        self.running = [torch.zeros(channels).double(), torch.ones(channels).double()]

    def __call__(self, x: np.ndarray, *, training: bool) -> np.ndarray:
        return self.forward(torch.tensor(x), training=training).detach().numpy()

    def forward(self, x: torch.Tensor, *, training: bool = True) -> torch.Tensor:
        """Compute the output, and update the running statistics in training."""
        truth, affine = self.truth, (self.weight, self.bias)
        if truth.family == "layer":
            return F.layer_norm(x, x.shape[-truth.trailing :], *affine, truth.eps)
        if truth.family == "rms":
            return F.rms_norm(x, x.shape[-1:], self.weight, truth.eps)
        if truth.family == "group":
            return F.group_norm(x, truth.groups, *affine, truth.eps)
        if truth.family == "instance":
            return F.instance_norm(x, weight=self.weight, bias=self.bias, eps=truth.eps)
        before = self.running[1].clone()
        mean, var = self.running
        y = F.batch_norm(x, mean, var, self.weight, self.bias, training, truth.momentum, truth.eps)
        if training and not truth.unbiased:
            n = x.numel() / x.shape[1]
            moved = self.running[1] - (1 - truth.momentum) * before
            self.running[1] = (1 - truth.momentum) * before + moved * (n - 1) / n
        return y


def _noise(truth: Truth, seed: int, scale: float = 2.0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.normal(size=truth.shape) * scale


def _differs(actual: np.ndarray, wanted: np.ndarray, tolerance: float = 1e-3) -> bool:
    return actual.shape != wanted.shape or not bool(np.abs(actual - wanted).max() < tolerance)


def deviations(layer: Written) -> set[str]:
    """Return where a layer deviates from what it is written to be; empty for a right one."""
    return {name for name, deviates in CHECKS.items() if deviates(layer)}


def _output(layer: Written) -> bool:
    """Three training steps, the last one of nearly constant input, where eps shows."""
    trial = Trial(layer)
    expected = Expected(trial)
    for step, (scale, offset) in enumerate(((2.0, 0.5), (1.0, -2.0), (3e-3, 0.0))):
        x = _noise(layer.truth, step, scale) + offset
        if _differs(trial.call(x, training=True), expected(x, training=True)):
            return True
    return False


def _evaluation(layer: Written) -> bool:
    """Evaluation after three training steps, twice, which shows the running statistics and that it leaves them."""
    trial = Trial(layer)
    expected = Expected(trial)
    for step, offset in enumerate(_OFFSETS):
        x = _noise(layer.truth, step) + offset
        trial.call(x, training=True)
        expected(x, training=True)
    return any(
        _differs(trial.call(x, training=False), expected(x, training=False))
        for x in (_noise(layer.truth, 7, 5.0) + 3.0, _noise(layer.truth, 8))
    )


def _fresh(layer: Written) -> bool:
    """Evaluation of a new layer, and its first output, with weight and bias as they start."""
    for training in (False, True):
        trial = Trial(layer, neutral=True)
        x = _noise(layer.truth, 11) + 1.0
        if _differs(trial.call(x, training=training), Expected(trial)(x, training=training)):
            return True
    return False


def _input(layer: Written) -> bool:
    """The input after the call."""
    trial = Trial(layer)
    x = _noise(layer.truth, 12)
    trial.call(x, training=True)
    return _differs(trial.back(trial.space["x"]), x, 1e-6)


def _large_mean(layer: Written) -> bool:
    """The output in float32 where the mean is large."""
    trial = Trial(layer)
    x = (_noise(layer.truth, 13, 1.0) + 1e4).astype(np.float32)
    return _differs(trial.call(x, training=True), Expected(trial)(x.astype(np.float64), training=True), 0.05)


def _gradient(layer: Written) -> bool:
    """The gradients, by autograd or by the hand-written backward pass."""
    if layer.library != "torch" and not layer.usage.backward:
        return False
    trial = Trial(layer)
    x, dy = _noise(layer.truth, 14), _noise(layer.truth, 15)
    expected = Expected(trial)
    leaves = [torch.tensor(x), expected.weight, expected.bias]
    for leaf in leaves:
        leaf.requires_grad_()
    wanted = torch.autograd.grad(expected.forward(leaves[0]), leaves, torch.tensor(dy), allow_unused=True)
    if trial.is_torch:
        try:
            trial.call(x, training=True, leaf=True)
            given = torch.tensor(np.transpose(dy, layer.truth.order), dtype=torch.float32)
            (dx,) = torch.autograd.grad(trial.space["y"], trial.space["x"], given)
        except RuntimeError:
            return True  # overwritten in place
        return _differs(trial.back(dx), wanted[0].numpy())
    trial.call(x, training=True)
    trial.space["dy"] = np.transpose(dy, layer.truth.order).copy()
    trial.run(layer.usage.backward)
    found = [trial.back(trial.space["dx"])]
    found += [np.reshape(trial.space[name], -1) for name in ("dweight", "dbias") if name in trial.space]
    of_torch = [gradient.numpy() for gradient in wanted if gradient is not None]
    return any(_differs(a, b.reshape(a.shape)) for a, b in zip(found, of_torch, strict=True))


def _saved(layer: Written) -> bool:
    """Evaluation of a module that was restored from a checkpoint."""
    trial, other = Trial(layer), Trial(layer)
    module = trial.space.get("layer")
    if not isinstance(module, nn.Module):
        return False
    x = _noise(layer.truth, 16) + 2.0
    trial.call(x, training=True)
    other.space["layer"].load_state_dict(module.state_dict())
    return _differs(other.call(x, training=False), trial.call(x, training=False))


def _graph(layer: Written) -> bool:
    """Whether what training leaves behind is attached to the graph of its input."""
    if layer.library != "torch" or layer.truth.family != "batch":
        return False
    trial = Trial(layer)
    x = _noise(layer.truth, 17)
    trial.call(x, training=True, leaf=True)
    leaf = trial.space["x"]
    trial.call(x, training=False)
    y = trial.space["y"]
    if not y.requires_grad:
        return False
    return torch.autograd.grad(y.sum(), leaf, allow_unused=True)[0] is not None


CHECKS: dict[str, Callable[[Written], bool]] = {
    "output": _output,
    "evaluation": _evaluation,
    "fresh": _fresh,
    "input": _input,
    "large mean": _large_mean,
    "gradient": _gradient,
    "saved": _saved,
    "graph": _graph,
}
