"""Which dtypes there are, and in which of them a norm is computed."""

from typing import Final

import torch

HALF_DTYPES: Final = (torch.float16, torch.bfloat16)

# What the kernels compute, by the name that they know it by.
KERNEL_DTYPES: Final = {
    torch.float64: "float64",
    torch.float32: "float32",
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
}


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype that an input of this one is normalized in: float32 for half precision."""
    return torch.float32 if dtype in HALF_DTYPES else dtype


def parameter_fits(parameter: torch.dtype, dtype: torch.dtype) -> bool:
    """Whether a parameter or statistic of one dtype goes with an input of another: its own, or float32 with half."""
    return parameter is dtype or (parameter is torch.float32 and dtype in HALF_DTYPES)


def machine_eps(dtype: torch.dtype) -> float:
    """Return the distance from 1 to the next number of the dtype that an input of this one is normalized in."""
    return _EPS64 if dtype is torch.float64 else _EPS32


_EPS32: Final = torch.finfo(torch.float32).eps
_EPS64: Final = torch.finfo(torch.float64).eps
