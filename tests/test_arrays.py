"""NumPy arrays that are no plain float arrays: subclasses, fields of records, and what else people have."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import normkit
from normkit import UserError, reference
from normkit import functional as F
from normkit.explaining import explain
from normkit.model import port
from normkit.spec import Norm, ShapeError

SIZES = (4, 50_000)  # torch's own operations, and kernels
NORMS: dict[str, Callable[..., Any]] = {
    "batch": lambda x, weight=None, **more: F.batch_norm(x, None, None, weight, training=True, **more),
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
    var: Any = np.ma.masked_array(np.ones(4), mask=np.arange(4) > 2)
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
    masked: Any = np.ma.masked_array(rng.normal(size=(6, 4)), mask=np.eye(6, 4, dtype=bool))
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


def test_layers_refuse_what_has_a_mask() -> None:
    x: Any = np.ma.masked_array(rng.normal(size=(3, 4, 6)), mask=np.zeros((3, 4, 6), bool))
    for name in ("BatchNorm1d", "LayerNorm2d", "RMSNorm", "InstanceNorm1d"):
        with pytest.raises(TypeError, match=rf"{name} expected a torch\.Tensor; got MaskedArray"):
            getattr(normkit, name)(4)(x)
    lengths: Any = np.ma.masked_array([3, 4, 5], mask=[False, False, True])
    with pytest.raises(TypeError, match=r"`lengths` are a numpy\.ma\.MaskedArray, and would lose their mask"):
        normkit.BatchNorm1d(4)(torch.zeros(3, 4, 6), lengths=lengths)


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


class TestArgumentsOfOtherForms:
    """One answer at every size, in the words of the function."""

    @pytest.mark.parametrize("name", NORMS)
    @pytest.mark.parametrize("size", SIZES)
    def test_fields_of_records(self, name: str, size: int) -> None:
        x, ones = rng.normal(size=(size, 4)).astype(np.float32), np.linspace(1, 2, 4, dtype=np.float32)
        packed = np.zeros((size, 4), [("flag", "u1"), ("x", "f4"), ("ones", "f4")])
        shifted = np.zeros(
            (size, 4), {"names": ["x", "ones"], "formats": ["f4", "f4"], "offsets": [1, 5], "itemsize": 12}
        )
        for record in (packed, shifted):
            record["x"], record["ones"] = x, ones
            assert np.array_equal(NORMS[name](record["x"], record["ones"][0]), NORMS[name](x, ones))

    def test_statistics_in_a_record_are_updated(self) -> None:
        x, record = rng.normal(size=(6, 4)), np.zeros(4, [("flag", "u1"), ("mean", "f8"), ("var", "f8")])
        F.batch_norm(x, record["mean"], record["var"], training=True, momentum=1.0)
        assert np.allclose(record["mean"], x.mean(0))
        assert np.allclose(record["var"], x.var(0, ddof=1))

    @pytest.mark.parametrize("size", SIZES)
    def test_lists_and_columns_are_refused(self, size: int) -> None:
        x = rng.normal(size=(size, 4)).astype(np.float32)
        zeros, ones = np.zeros(4, np.float32), np.ones(4, np.float32)
        with pytest.raises(TypeError, match=r"expected running_mean to be a numpy\.ndarray, as the input is; got list"):
            F.batch_norm(x, [0.0] * 4, [1.0] * 4, training=True)  # type: ignore[type-var]
        with pytest.raises(TypeError, match=r"expected weight to be a numpy\.ndarray"):
            F.layer_norm(x, (4,), [1.0] * 4)  # type: ignore[type-var]
        with pytest.raises(TypeError, match=r"expected mask to be a numpy\.ndarray"):
            F.group_norm(x, 2, mask=[True] * size)  # type: ignore[type-var]
        with pytest.raises(ShapeError, match=r"running_mean of shape \(4,\) .* got running_mean of shape \(4, 1\)"):
            F.batch_norm(x, zeros[:, None], ones[:, None], training=True)
        assert not zeros.any()
        for name in NORMS:
            with pytest.raises(ShapeError, match=r"weight of shape \(4,\) .* got weight of shape \(4, 1\)"):
                NORMS[name](x, ones[:, None])
        with pytest.raises(ShapeError, match=r"bias of shape \(4,\) .* got bias of shape \(4, 1\)"):
            F.batch_norm(x, zeros, ones, None, ones[:, None])

    @pytest.mark.parametrize("size", SIZES)
    def test_normalized_shape(self, size: int) -> None:
        x = rng.normal(size=(size, 4)).astype(np.float32)
        for function in (F.layer_norm, F.rms_norm):
            expected = function(x, (4,))
            shapes: Any = ([4], np.array([4]), np.array([4], np.uint8), [np.int64(4)], x.shape[1:])
            for shape in shapes:
                assert np.array_equal(function(x, shape), expected)
            for wrong in (4, np.int64(4), np.array(4), None, [4.0], "4", [None]):
                with pytest.raises(TypeError, match=r"expected normalized_shape to be a sequence of integers.*; got"):
                    function(x, wrong)  # type: ignore[arg-type]

    def test_a_mask_of_another_byte_order(self) -> None:
        x, mask = rng.normal(size=(6, 4)), np.array([1, 1, 1, 0, 1, 1])
        assert np.array_equal(F.group_norm(x, 2, mask=mask.astype(">f4")), F.group_norm(x, 2, mask=mask > 0))


class TestTensorsBesideOtherThings:
    """The same answers beside a tensor as input."""

    @pytest.mark.parametrize("size", [4, 1 << 19])  # torch's own operations, and kernels
    def test_what_is_no_tensor_is_named(self, size: int) -> None:
        x: Any = torch.ones(size, 4, 2)
        calls: dict[str, Callable[[Any], Any]] = {
            "batch_norm expected weight": lambda wrong: F.batch_norm(x, None, None, wrong, training=True),
            "batch_norm expected running_mean": lambda wrong: F.batch_norm(x, wrong, wrong, training=True),
            "instance_norm expected running_mean": lambda wrong: F.instance_norm(x, wrong, wrong),
            "instance_norm expected weight": lambda wrong: F.instance_norm(x, None, None, wrong),
            "group_norm expected bias": lambda wrong: F.group_norm(x, 2, None, wrong),
            "layer_norm expected weight": lambda wrong: F.layer_norm(x[..., 0], (4,), wrong),
            "rms_norm expected weight": lambda wrong: F.rms_norm(x[..., 0], (4,), wrong),
            "channel_norm expected weight": lambda wrong: F.channel_norm(x, wrong),
        }
        for wrong in (np.ones(4, np.float32), [1.0] * 4):
            for message, call in calls.items():
                with pytest.raises(TypeError, match=rf"{message} to be a torch\.Tensor, as the input is; got"):
                    call(wrong)

    @pytest.mark.parametrize("size", [4, 1 << 19])
    def test_what_is_no_number_is_named(self, size: int) -> None:
        x, zeros = torch.ones(size, 4, 2), torch.zeros(4)
        for wrong in ("a", None, [1.0]):
            for call in (
                lambda eps: F.batch_norm(x, None, None, training=True, eps=eps),
                lambda eps: F.layer_norm(x, (2,), eps=eps),
                lambda eps: F.group_norm(x, 2, eps=eps),
                lambda eps: F.instance_norm(x, eps=eps),
                lambda eps: F.group_norm(x, 2, eps=eps, mask=torch.ones(size, 2)),
            ):
                with pytest.raises(TypeError, match="_norm expected eps to be a number; got"):
                    call(wrong)
            with pytest.raises(TypeError, match="batch_norm expected momentum to be a number; got"):
                F.batch_norm(x, zeros, zeros, training=True, momentum=wrong)  # type: ignore[arg-type]
            with pytest.raises(TypeError, match="instance_norm expected momentum to be a number; got"):
                F.instance_norm(x, zeros, zeros, momentum=wrong)  # type: ignore[arg-type]
        assert not zeros.any()

    def test_a_refused_number_is_not_found_in_caches(self) -> None:
        """2.0 equals 2 as a key, so what a refused call leaves in a cache would be found by the next right one."""
        x = torch.randn(2, 24, 16)
        with normkit.use_backend("numba"):
            for wrong in (2.0, "2"):
                with pytest.raises(TypeError, match="group_norm expected num_groups to be an integer; got"):
                    F.group_norm(x, wrong)  # type: ignore[arg-type]
            with pytest.raises(TypeError, match="group_norm expected num_groups to be an integer; got"):
                normkit.GroupNorm(3.0, 24)(x)  # type: ignore[arg-type]
            for groups in (2, 3):
                torch.testing.assert_close(F.group_norm(x, groups), torch.nn.functional.group_norm(x, groups))
            assert torch.equal(F.group_norm(x, np.int64(4)), F.group_norm(x, 4))  # type: ignore[arg-type]
            with pytest.raises(TypeError, match="expected normalized_shape to be a sequence of integers"):
                F.layer_norm(x[0, :, :13], (13.0,))  # type: ignore[arg-type]
            with pytest.raises(TypeError, match="expected normalized_shape to be a sequence of integers"):
                normkit.LayerNorm((13.0,), elementwise_affine=False)(x[0, :, :13])
            assert F.layer_norm(x[0, :, :13], (13,)).shape == (24, 13)
