"""For which magnitudes results are right: what docs/kernels.md states, against float64, on every back end."""

import numpy as np
import pytest
import torch

import normkit
from normkit import functional as F
from normkit import reference
from normkit.backends import Call, normalize
from normkit.backends.dtypes import HALF_DTYPES, compute_dtype
from normkit.spec import Norm, view
from tests.cases import DTYPES, channels_last, to_numpy

LARGEST = {  # elements of x, of float32 and bfloat16, and of float64; all of float16 are right
    "numba": (1e34, 1e150),
    "aten": (1e12, 1e100),
    "eager": (1e12, 1e100),
}
LEAST, MEANS = 1e-30, 1e4  # the least standard deviation, and the largest mean in standard deviations
UNITS, TORCH_UNITS = 4.0, 32.0  # torch sums float64 in float64
SHAPES = ((5, 8, 9, 7), (3, 4, 40), (70, 6), (2, 12, 3, 4, 5))
ROUNDS = [*range(4), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(4, 100))]


def norms(shape: tuple[int, ...]) -> list[Norm]:
    """The norms of a shape that average at least 24 elements: the gradient of fewer may all but cancel."""
    found = [Norm(kind) for kind in ("batch", "instance", "channel")] + [Norm("group", num_groups=2)]
    found += [Norm("layer", subtract_mean, normalized_shape=shape[1:]) for subtract_mean in (True, False)]
    return [norm for norm in found if view(norm, shape).count >= 24]


def deviations(x: np.ndarray, norm: Norm) -> float:
    """The largest mean of a statistic, in its standard deviations."""
    if not norm.subtract_mean:
        return 0.0
    found = reference.normalize(x, norm, None, None, 0.0)
    return float((np.abs(found.mean) / np.sqrt(found.var)).max())


@pytest.mark.parametrize("seed", ROUNDS)
@pytest.mark.parametrize("backend", LARGEST)
def test_error_is_that_of_the_means(backend: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for dtype in DTYPES:
        single, double = LARGEST[backend]
        largest = {torch.float64: double, torch.float16: 6e4}.get(dtype, single)
        shape = SHAPES[rng.integers(len(SHAPES))]
        norm = norms(shape)[rng.integers(len(norms(shape)))]
        mean = 10.0 ** rng.uniform(-2, np.log10(20 if dtype in HALF_DTYPES else MEANS))
        scale = 10.0 ** rng.uniform(np.log10(1e-3 if dtype is torch.float16 else LEAST), np.log10(largest / (mean + 6)))
        x = torch.from_numpy((rng.normal(size=shape) + mean) * scale).to(dtype)
        dy = torch.from_numpy(rng.normal(size=shape)).to(dtype)
        if len(shape) > 3 and rng.random() < 0.5:
            x = channels_last(x)
        with normkit.use_backend(backend):
            leaf = x.detach().requires_grad_()
            y = normalize(Call(leaf, norm))
            (dx,) = torch.autograd.grad(y, leaf, dy)
        expected = reference.normalize(to_numpy(x), norm), reference.gradients(to_numpy(dy), to_numpy(x), norm)
        info, means = torch.finfo(dtype), deviations(to_numpy(x), norm)
        units = TORCH_UNITS if backend == "aten" and dtype is torch.float64 else UNITS
        bound = units * torch.finfo(compute_dtype(dtype)).eps * (1.0 + means)
        if dtype in HALF_DTYPES:  # rounded once more; torch rounds the statistics too
            bound += info.eps * (1.0 + 0.5 * means if backend == "aten" else 0.5)
        for found, exact in ((y, expected[0].y), (dx, expected[1].dx)):
            error, allowed = np.abs(to_numpy(found) - exact).max(), bound * np.abs(exact).max() + info.tiny * info.eps
            assert error <= allowed, (error / allowed, norm, shape, scale, mean, dtype)


@pytest.mark.parametrize("backend", LARGEST)
@pytest.mark.parametrize("name", ["batch_norm", "instance_norm"])
def test_running_statistics_are_right_wherever_their_dtype_holds_them(name: str, backend: str) -> None:
    for dtype, largest in (
        (torch.float16, 500.0),
        (torch.bfloat16, 1e15),
        (torch.float32, 1e15),
        (torch.float64, 1e60),
    ):
        for scale in (1e-3, 1.0, largest):
            x = (torch.randn(3, 4, 200, dtype=torch.float64) * scale).to(dtype)
            mean, var = torch.zeros(4, dtype=dtype), torch.ones(4, dtype=dtype)
            with normkit.use_backend(backend):
                getattr(F, name)(x, mean, var, None, None, True, 0.1)
            axes = (0, 2) if name == "batch_norm" else 2
            new_mean, new_var = x.double().mean(axes), x.double().var(axes)
            if name == "instance_norm":
                new_mean, new_var = new_mean.mean(0), new_var.mean(0)
            info = torch.finfo(dtype)
            rtol = max(2 * info.eps, 1e-12)
            torch.testing.assert_close(var.double(), 0.9 + 0.1 * new_var, rtol=rtol, atol=0.0)
            torch.testing.assert_close(
                mean.double(), 0.1 * new_mean, rtol=rtol, atol=1e-5 * scale + info.tiny * info.eps
            )
