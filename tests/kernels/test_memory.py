"""What a training step keeps for its backward pass."""

import tracemalloc
import warnings

import pytest
import torch
from torch import Tensor, nn

import normkit

LAYERS = {
    "BatchNorm1d": ((64,), (64, 64, 9)),
    "BatchNorm2d": ((64,), (8, 64, 14, 14)),
    "BatchNorm3d": ((16,), (4, 16, 5, 7, 7)),
    "LayerNorm": ((768,), (64, 768)),
    "RMSNorm": ((768,), (64, 768)),
    "GroupNorm": ((8, 64), (8, 64, 14, 14)),
    "InstanceNorm1d": ((64, 1e-5, 0.1, True), (8, 64, 99)),
    "InstanceNorm2d": ((64, 1e-5, 0.1, True), (8, 64, 14, 14)),
    "InstanceNorm3d": ((16, 1e-5, 0.1, True), (4, 16, 5, 7, 7)),
}
# torch rounds the statistics of these to half precision where the weights are in half precision; ours stay float32
ROUNDED = ("LayerNorm", "GroupNorm", "InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d")


def saved(layer: nn.Module, *inputs: Tensor) -> dict[int, int]:
    """The bytes of every storage kept for the backward pass, parameters excluded."""
    parameters = {parameter.untyped_storage().data_ptr() for parameter in layer.parameters()}
    kept: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch's rms_norm says when it is slow
        layer(*inputs)
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in kept}
    return {address: size for address, size in storages.items() if address not in parameters}


@pytest.mark.parametrize("mixed", [False, True], ids=["", "float32-weights"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_no_more_is_kept_than_by_torch(name: str, dtype: torch.dtype, mixed: bool) -> None:
    arguments, shape = LAYERS[name]
    x = torch.randn(shape, dtype=dtype).requires_grad_()
    if mixed and dtype is not torch.bfloat16:
        pytest.skip("the weights are of the type of the input")
    with normkit.use_backend("numba"):
        ours, torchs = (
            saved(getattr(library, name)(*arguments).to(torch.float32 if mixed else dtype), x)
            for library in (normkit, nn)
        )
    statistics = sum(ours.values()) - x.nbytes
    allowed = statistics // 2 if dtype is torch.bfloat16 and not mixed and name in ROUNDED else 0
    assert x.untyped_storage().data_ptr() in ours  # the input itself, not a copy
    assert sum(ours.values()) <= sum(torchs.values()) + allowed
    assert statistics <= 0.05 * x.nbytes


def kept_after(shapes: list[tuple[int, ...]]) -> int:
    """The bytes that are kept after training steps of layer norms on these shapes."""
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    with normkit.use_backend("numba"):
        for shape in shapes:
            layer = normkit.LayerNorm(shape[1:])
            layer(torch.randn(shape, requires_grad=True)).sum().backward()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return after - before


def test_many_batch_sizes_keep_no_weights_each() -> None:
    weight = 3 * 128 * 128
    kept_after([(1, 3, 128, 128)])  # compiles, and imports
    kept = kept_after([(batch, 3, 128, 128) for batch in range(2, 22)])
    assert kept < 4 * weight  # 20 sizes and 2 passes keep less than one array of a weight's size


def test_many_weights_keep_a_few_times_the_largest() -> None:
    kept_after([(1, 8)])
    sizes = range(60_000, 80_000, 500)
    # ones and zeros in float32; each time they are too small they double
    assert kept_after([(1, size) for size in sizes]) < 2 * 4 * 4 * max(sizes)


def test_shared_constants_are_as_long_as_each_launch_needs() -> None:
    x = torch.randn(2, 90_000)
    weight, bias = torch.randn(2, 90_000)
    for size in (7, 70_000, 100, 90_000):  # without weight or bias, constants stand for them
        part, shape = x[:, :size].contiguous(), (size,)
        with normkit.use_backend("numba"):
            scaled = normkit.functional.layer_norm(part, shape, weight[:size])
            moved = normkit.functional.layer_norm(part, shape, None, bias[:size])
        torch.testing.assert_close(scaled, nn.functional.layer_norm(part, shape, weight[:size]))
        torch.testing.assert_close(moved, nn.functional.layer_norm(part, shape, None, bias[:size]))
