"""One face for the array libraries a target may work on: NumPy, torch, and JAX where it is installed."""

import contextlib
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Array = Any  # an array of the target's own library
Values = npt.NDArray[np.float64]


class Library(ABC):
    """How to make, read and compare arrays of one library."""

    name: str
    precision: str  # the dtype that its users work in, hence the one that is measured
    dtypes: tuple[str, ...]  # the dtypes that a layer is expected to give back as they came
    compiles: bool = False  # whether each new shape costs a compilation of every operation

    @abstractmethod
    def make(self, values: npt.ArrayLike, dtype: str | None = None) -> Array:
        """A fresh array of the library that holds ``values``."""

    @abstractmethod
    def owns(self, thing: object) -> bool:
        """Whether ``thing`` is an array of this library."""

    @abstractmethod
    def values(self, array: Array) -> Values:
        """A float64 copy."""

    @abstractmethod
    def shares_memory(self, one: Array, other: Array) -> bool:
        """Whether writing to one could change the other."""

    def output_shape(self, run: Callable[[Array], Array], x: Array) -> tuple[int, ...]:
        """The shape of ``run(x)``."""
        return tuple(run(x).shape)

    def dtype(self, array: Array) -> str:
        """The name of the dtype, as ``float32``."""
        return str(array.dtype).removeprefix("torch.")

    @contextlib.contextmanager
    def grad_mode(self, enabled: bool) -> Iterator[None]:
        """Run with gradients recorded or not, where the library has such a switch."""
        yield

    def seed(self, seed: int = 20) -> None:
        """Seed the global generators, so that a constructor draws the same numbers each time."""
        np.random.seed(seed)


class NumPyLibrary(Library):
    """Plain NumPy arrays."""

    name = "numpy"
    precision = "float64"
    dtypes = ("float32", "float64")

    def make(self, values: npt.ArrayLike, dtype: str | None = None) -> Array:
        return np.array(values, dtype=dtype or self.precision)

    def owns(self, thing: object) -> bool:
        return isinstance(thing, np.ndarray)

    def values(self, array: Array) -> Values:
        return np.array(array, dtype=np.float64)

    def shares_memory(self, one: Array, other: Array) -> bool:
        return bool(np.may_share_memory(one, other))


class TorchLibrary(Library):
    """torch tensors on the CPU."""

    name = "torch"
    precision = "float32"
    dtypes = ("bfloat16", "float16", "float32", "float64")

    def make(self, values: npt.ArrayLike, dtype: str | None = None) -> Array:
        import torch

        return torch.tensor(np.asarray(values), dtype=getattr(torch, dtype or self.precision))

    def owns(self, thing: object) -> bool:
        import torch

        return isinstance(thing, torch.Tensor)

    def values(self, array: Array) -> Values:
        import torch

        copied = array.detach().to("cpu", torch.float64, copy=True)
        return np.ascontiguousarray(copied.numpy())

    def shares_memory(self, one: Array, other: Array) -> bool:
        if one.numel() == 0 or other.numel() == 0:
            return False
        return bool(one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr())

    @contextlib.contextmanager
    def grad_mode(self, enabled: bool) -> Iterator[None]:
        import torch

        with torch.set_grad_enabled(enabled):
            yield

    def seed(self, seed: int = 20) -> None:
        import torch

        super().seed(seed)
        torch.manual_seed(seed)


class JaxLibrary(Library):
    """JAX arrays, for the machines that have JAX."""

    name = "jax"
    precision = "float32"
    dtypes = ("bfloat16", "float16", "float32")
    compiles = True

    def make(self, values: npt.ArrayLike, dtype: str | None = None) -> Array:
        import jax

        return jax.device_put(np.array(values, dtype=jax.numpy.dtype(dtype or self.precision)))

    def owns(self, thing: object) -> bool:
        import jax

        return isinstance(thing, jax.Array)

    def values(self, array: Array) -> Values:
        return np.array(array, dtype=np.float64)

    def shares_memory(self, one: Array, other: Array) -> bool:
        return False  # JAX arrays cannot be written to

    def output_shape(self, run: Callable[[Array], Array], x: Array) -> tuple[int, ...]:
        import jax

        try:
            return tuple(jax.eval_shape(run, x).shape)
        except (jax.errors.JAXTypeError, jax.errors.JAXIndexError):  # it looks at values: only running it tells
            return super().output_shape(run, x)


NUMPY = NumPyLibrary()
TORCH = TorchLibrary()
JAX = JaxLibrary()


def likely_libraries(names: set[str]) -> list[Library]:
    """The libraries to try, the likeliest first, from the global names that the target's code uses."""
    order: list[Library] = []
    if names & {"jnp", "jax", "lax"} and "jax" in sys.modules:
        order.append(JAX)
    if names & {"torch", "nn", "F"}:
        order.append(TORCH)
    if names & {"np", "numpy"}:
        order.append(NUMPY)
    return order + [library for library in (TORCH, NUMPY) if library not in order]
