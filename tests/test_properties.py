"""What is true of every normalization, whatever the input."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import normkit
from normkit import functional as F

BACKENDS = st.sampled_from(["numba", "eager", "aten"])


@st.composite
def inputs(draw: st.DrawFn) -> Tensor:
    """Float64 inputs (N, C, H, W) with an even number of channels."""
    shape = (draw(st.integers(2, 5)), 2 * draw(st.integers(1, 4)), draw(st.integers(2, 6)), draw(st.integers(1, 20)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def close(left: Tensor, right: Tensor, tolerance: float = 1e-10) -> None:
    assert left.shape == right.shape
    assert float((left - right).abs().max()) < tolerance


@settings(max_examples=30, deadline=None)
@given(inputs(), BACKENDS, st.floats(-50, 50), st.floats(0.2, 50))
def test_shift_and_scale_do_not_matter(x: Tensor, backend: str, shift: float, scale: float) -> None:
    with normkit.use_backend(backend):
        for norm in (
            lambda x: F.batch_norm(x, None, None, training=True, eps=1e-30),
            lambda x: F.group_norm(x, 2, eps=1e-30),
            lambda x: F.layer_norm(x, x.shape[1:], eps=1e-30),
            lambda x: F.instance_norm(x, eps=1e-30),
        ):
            close(norm(x), norm(x * scale + shift), 1e-8)
            close(norm(x), -norm(-x))


@settings(max_examples=30, deadline=None)
@given(inputs(), BACKENDS)
def test_norms_that_are_the_same(x: Tensor, backend: str) -> None:
    channels = x.shape[1]
    with normkit.use_backend(backend):
        close(F.group_norm(x, 1), F.layer_norm(x, x.shape[1:]))
        close(F.group_norm(x, channels), F.instance_norm(x))
        close(F.batch_norm(x[:1], None, None, training=True), F.instance_norm(x[:1]))
        close(F.channel_norm(x), F.layer_norm(x.movedim(1, -1), (channels,)).movedim(-1, 1))
        centred = x - x.mean(-1, keepdim=True)
        close(F.rms_norm(centred, x.shape[-1:], eps=1e-5), F.layer_norm(centred, x.shape[-1:], eps=1e-5))


@settings(max_examples=30, deadline=None)
@given(inputs(), BACKENDS)
def test_result_is_centred_and_of_unit_variance(x: Tensor, backend: str) -> None:
    with normkit.use_backend(backend):
        y = F.batch_norm(x, None, None, training=True, eps=1e-30)
    close(y.mean((0, 2, 3)), torch.zeros(x.shape[1], dtype=x.dtype))
    close(y.var((0, 2, 3), correction=0), torch.ones(x.shape[1], dtype=x.dtype))


@settings(max_examples=30, deadline=None)
@given(inputs(), BACKENDS)
def test_samples_do_not_see_each_other(x: Tensor, backend: str) -> None:
    """All but batch norm treat each sample as if it were alone; the order of samples matters to none."""
    reverse = list(range(x.shape[0]))[::-1]
    with normkit.use_backend(backend):
        for norm in (lambda x: F.group_norm(x, 2), lambda x: F.layer_norm(x, x.shape[1:]), F.instance_norm):
            close(norm(x)[:1], norm(x[:1]))
        batch = F.batch_norm(x, None, None, training=True)
        close(batch[reverse], F.batch_norm(x[reverse], None, None, training=True))


@settings(max_examples=20, deadline=None)
@given(inputs(), BACKENDS)
def test_layout_does_not_matter(x: Tensor, backend: str) -> None:
    other = x.contiguous(memory_format=torch.channels_last)
    with normkit.use_backend(backend):
        close(F.batch_norm(x, None, None, training=True), F.batch_norm(other, None, None, training=True))
        close(F.group_norm(x, 2), F.group_norm(other, 2))
        close(F.layer_norm(x, x.shape[1:]), F.layer_norm(other, x.shape[1:]))


@settings(max_examples=20, deadline=None)
@given(inputs(), st.sampled_from([np.float64, np.float32]))
def test_arrays_and_tensors_agree(x: Tensor, dtype: type) -> None:
    array: np.ndarray = x.numpy().astype(dtype)
    y = F.group_norm(array, 2)
    assert isinstance(y, np.ndarray)
    assert y.dtype == dtype
    assert np.array_equal(y, F.group_norm(torch.from_numpy(array), 2).numpy())
