"""The definition that targets are held against equals the reference for every family."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normkit import reference
from normkit.checking.measure.axes import expected_patterns
from normkit.checking.patterns import reducing, standardize
from normkit.checking.target.geometry import Geometry
from normkit.spec import Norm


@settings(max_examples=30, deadline=None)
@given(
    family=st.sampled_from(["batch", "instance", "group", "layer", "rms"]),
    rank=st.integers(3, 5),
    eps=st.floats(1e-6, 1.0),
    seed=st.integers(0, 1000),
)
def test_standardize_is_the_reference(family: str, rank: int, eps: float, seed: int) -> None:
    geometry = Geometry(last=family in ("layer", "rms"))
    shape = geometry.shape(rank)
    x = np.random.default_rng(seed).normal(1.0, 2.0, shape)
    norm = {
        "batch": Norm("batch"),
        "instance": Norm("instance"),
        "group": Norm("group", num_groups=geometry.groups),
        "layer": Norm("layer", normalized_shape=geometry.features),
        "rms": Norm("layer", subtract_mean=False, normalized_shape=geometry.features),
    }[family]
    pattern = expected_patterns(family, geometry, rank)[0]
    y = standardize(x, pattern, eps=eps, subtract_mean=family != "rms")
    np.testing.assert_allclose(y, reference.normalize(x, norm, eps=eps).y, atol=1e-12)


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        ((), "nothing: each element by itself"),
        ((0, 2, 3), "N, H, W: per channel"),
        ((2, 3), "H, W: per sample and channel"),
        ((1, 2, 3), "C, H, W: per sample"),
        ((0, 1, 2, 3), "N, C, H, W: the whole tensor"),
        ((0,), "N"),
    ],
)
def test_words(axes: tuple[int, ...], words: str) -> None:
    pattern = reducing((2, 3, 4, 5), axes, "NCHW")
    assert pattern.words == words
    assert pattern.count == np.prod([(2, 3, 4, 5)[axis] for axis in axes], dtype=int)
    assert pattern.count * pattern.statistics == 120
