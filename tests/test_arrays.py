"""NumPy arrays that are no plain float arrays: subclasses, fields of records, and what else people have."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from normkit import UserError, reference
from normkit import functional as F
from normkit.explaining import explain
from normkit.model import port
from normkit.spec import Norm

SIZES = (4, 50_000)  # torch's own operations, and kernels
NORMS: dict[str, Callable[..., Any]] = {
    "batch": lambda x, *affine, **more: F.batch_norm(x, None, None, *affine, training=True, **more),
    "layer": lambda x, *affine: F.layer_norm(x, x.shape[1:2], *affine),
    "rms": lambda x, *affine: F.rms_norm(x, x.shape[1:2], *affine[:1]),
    "group": lambda x, *affine, **more: F.group_norm(x, 2, *affine, **more),
    "instance": lambda x, *affine, **more: F.instance_norm(x[..., None].repeat(2, -1), None, None, *affine, **more),
    "channel": lambda x, *affine: F.channel_norm(x, *affine),
}
rng = np.random.default_rng(0)


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("size", SIZES)
def test_a_mask_is_never_lost(name: str, size: int) -> None:
    x, ones = rng.normal(size=(size, 4)).astype(np.float32), np.ones(4, np.float32)
    masked: Any = np.ma.masked_array(x, mask=x > 1.0)
    instead = "what is valid as mask" if name in ("batch", "group", "instance") else r"input\.filled\(value\)"
    with pytest.raises(TypeError, match=f"would lose its mask: give .*{instead}"):
        NORMS[name](masked)
    with pytest.raises(TypeError, match="MaskedArray as weight, and would lose its mask"):
        NORMS[name](x, np.ma.masked_array(ones, mask=ones > 0.0))
    if name in ("batch", "group", "instance"):
        with pytest.raises(TypeError, match="MaskedArray as mask, and would lose its mask"):
            NORMS[name](x, mask=np.ma.masked_array(ones[:1].repeat(size)))


def test_a_masked_statistic_is_refused_and_nothing_changes() -> None:
    x, mean = rng.normal(size=(6, 4)), np.zeros(4)
    var: Any = np.ma.masked_array(np.ones(4), mask=[0, 0, 0, 1])
    with pytest.raises(TypeError, match="MaskedArray as running_var"):
        F.batch_norm(x, mean, var, training=True)
    assert not mean.any()


def test_what_the_message_names_normalizes_the_valid_elements() -> None:
    x = rng.normal(size=(5, 3, 7)) + np.linspace(0.0, 9.0, 7)
    masked = np.ma.masked_array(x, mask=np.broadcast_to(np.arange(7) > 4, x.shape))
    y = F.batch_norm(masked.data, None, None, training=True, mask=~np.ma.getmaskarray(masked)[:, 0])
    assert np.allclose(y[:, :, :5], F.batch_norm(x[:, :, :5], None, None, training=True))
    assert not y[:, :, 5:].any()


def test_no_tool_loses_a_mask() -> None:
    masked: Any = np.ma.masked_array(rng.normal(size=(6, 4)), mask=np.eye(6, 4))
    with pytest.raises(TypeError, match="mask would be lost"):
        reference.normalize(masked, Norm("batch"))
    with pytest.raises(TypeError, match="mask would be lost"):
        reference.gradients(masked, masked.data, Norm("batch"))
    with pytest.raises(UserError, match="mask would be lost"):
        explain("batch", masked)
    with pytest.raises(UserError, match="mask would be lost"):
        explain("batch", masked.data, weight=masked[0])
    with pytest.raises(UserError, match=r"bn/gamma is a MaskedArray, whose mask would be lost"):
        port({"bn/gamma": masked[0]}, source="keras", to="torch")


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("size", SIZES)
def test_subclasses_without_a_meaning_of_their_own_count_by_their_values(name: str, size: int, tmp_path: Path) -> None:
    x = rng.normal(size=(size, 4)).astype(np.float32)
    stored = np.memmap(tmp_path / "x", np.float32, "w+", shape=x.shape)
    stored[:] = x
    expected = NORMS[name](x)
    for other in (stored, x.view(np.recarray)):
        y = NORMS[name](other)
        assert type(y) is np.ndarray
        assert np.array_equal(y, expected)


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_a_matrix_counts_by_its_values() -> None:
    x = rng.normal(size=(6, 4))
    y = F.layer_norm(np.asmatrix(x), (4,))
    assert type(y) is np.ndarray
    assert np.array_equal(y, F.layer_norm(x, (4,)))
