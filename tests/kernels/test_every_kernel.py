"""What is compiled beforehand is all that a call may need."""

import sys
from itertools import product

import pytest

from normkit.backends.numba import STORAGES, Variant, every_kernel
from normkit.backends.numba import masked as masked_kernels
from normkit.spec import Norm, view

LAUNCH = sys.modules[Variant.__module__]
MASKED = sys.modules[masked_kernels.Launch.__module__]

EITHER = (False, True)


@pytest.mark.parametrize("dtype", STORAGES)
def test_every_kernel_that_a_launch_can_ask_for(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: set[tuple[object, ...]] = set()

    def address(*kernel: object) -> int:
        asked.add(kernel)
        return 1

    for module in (LAUNCH, MASKED, every_kernel):
        monkeypatch.setattr(module, "address", address)
    v = view(Norm("batch"), (2, 3, 4))
    for family, backward, bounds, residual in product(("runs", "columns"), EITHER, EITHER, EITHER):
        variant = Variant(v, dtype, True, True, False, backward, has_bounds=bounds, has_residual=residual)
        LAUNCH._function(variant, family, False)
    for backward in EITHER:
        LAUNCH._function(Variant(v, dtype, True, True, False, backward), "runs", True)
    MASKED.launch.__wrapped__(masked_kernels.Geometry(2, 3, 4, over_batch=True), dtype)
    needed = set(asked)
    asked.clear()
    every_kernel.find_all(dtype)
    assert asked == needed
