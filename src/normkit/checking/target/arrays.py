"""One face for the array libraries a target may work on: NumPy, torch, and JAX where it is installed."""

import contextlib
import random
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from normkit.checking.patterns import Values
from normkit.checking.target.global_state import seed_torch

Array = Any  # an array of the target's own library

_HALF_PRECISION = ("bfloat16", "float16")


class Holder(Protocol):
    """An attribute, or an entry of a dict, that keeps an array."""

    def read(self) -> Any:
        """Return what is kept."""

    def put(self, value: Any) -> None:
        """Keep another array."""


ArrayGradients = tuple[Array | None, list[Array | None]]
"""dx, and the gradient of each parameter; None where no gradient arrives."""


class Library(ABC):
    """An array library: it makes, reads, compares and differentiates its arrays."""

    name: str
    precision: str
    """The dtype that its users work in, hence the one that is measured."""
    dtypes: tuple[str, ...]
    """The dtypes that a layer is expected to return as they came."""
    keepdims = "keepdims=True"
    """The argument by which its reductions keep the axes that they reduce."""
    compiles = False
    """Whether each new shape costs a compilation of every operation."""
    mutable = True
    """Whether its arrays are memory: several may share it, with any strides, and anybody may write to it."""
    records_graph = False
    """Whether operations are recorded as they run, in a grad mode that code can switch."""
    channels_last_ranks: tuple[int, ...] = ()
    """The ranks for which it has a memory format with the channels last."""

    @property
    def half_precision_dtypes(self) -> tuple[str, ...]:
        """The half-precision dtypes among ``dtypes``."""
        return tuple(dtype for dtype in _HALF_PRECISION if dtype in self.dtypes)

    @abstractmethod
    def make(self, values: npt.ArrayLike, dtype: str | None = None) -> Array:
        """Make a fresh array of the library that holds ``values``."""

    def make_integers(self, values: npt.NDArray[np.int64]) -> Array:
        """Make an array of integers, such as labels."""
        return values

    def make_booleans(self, values: npt.NDArray[np.bool_]) -> Array:
        """Make an array of booleans, such as a mask."""
        return values

    def stack(self, arrays: Sequence[Array]) -> Array:
        """Join arrays along a new first axis."""
        return np.stack(arrays)

    @abstractmethod
    def owns(self, value: object) -> bool:
        """Whether ``value`` is an array of this library."""

    @abstractmethod
    def values(self, array: Array) -> Values:
        """Return a float64 copy."""

    @abstractmethod
    def shares_memory(self, one: Array, other: Array) -> bool:
        """Whether writing to one could change the other."""

    def differentiate(
        self, run: Callable[[Array], Array], x: Array, dy: Values, parameters: Sequence[Holder]
    ) -> ArrayGradients | None:
        """Return the gradients of sum(run(x) * dy); None where the library cannot differentiate."""
        return None

    def output_shape(self, run: Callable[[Array], Array], x: Array) -> tuple[int, ...]:
        """Return the shape of ``run(x)``."""
        return tuple(run(x).shape)

    def dtype(self, array: Array) -> str:
        """Return the name of the dtype, as ``float32``."""
        return str(array.dtype).removeprefix("torch.")

    def transpose(self, array: Array, order: tuple[int, ...]) -> Array:
        """Return a view with the axes in another order."""
        return array.transpose(order)

    def to_channels_last(self, array: Array) -> Array:
        """Return a copy with the channels last in memory, for the ranks that have such a format."""
        return array

    def as_parameter(self, array: Array) -> Array:
        """Return an array that ``differentiate`` gives a gradient for."""
        return array

    def overwrite(self, array: Array, values: Array) -> bool:
        """Write ``values`` into ``array``; False where arrays are replaced instead."""
        return False

    @contextlib.contextmanager
    def grad_mode(self, *, enabled: bool) -> Iterator[None]:
        """Run with gradients recorded or not, where the library has such a switch."""
        yield

    def seed(self, seed: int = 20) -> None:
        """Seed the global generators, so that a constructor draws the same numbers each time."""
        np.random.seed(seed)
        random.seed(seed)


class NumPyLibrary(Library):
    """Plain NumPy arrays."""

    name = "numpy"
    precision = "float64"
    dtypes = ("float32", "float64")

    def make(self, values: npt.ArrayLike, dtype: str | None = None) -> Array:
        return np.array(values, dtype=dtype or self.precision)

    def owns(self, value: object) -> bool:
        return isinstance(value, np.ndarray)

    def values(self, array: Array) -> Values:
        return np.array(array, dtype=np.float64)

    def shares_memory(self, one: Array, other: Array) -> bool:
        return bool(np.may_share_memory(one, other))


class TorchLibrary(Library):
    """torch tensors on the CPU."""

    name = "torch"
    precision = "float32"
    dtypes = ("bfloat16", "float16", "float32", "float64")
    keepdims = "keepdim=True"
    records_graph = True
    channels_last_ranks = (4, 5)

    def make(self, values: npt.ArrayLike, dtype: str | None = None) -> Array:
        return torch.tensor(np.asarray(values), dtype=getattr(torch, dtype or self.precision))

    def stack(self, arrays: Sequence[Array]) -> Array:
        return torch.stack(list(arrays))

    def make_integers(self, values: npt.NDArray[np.int64]) -> Array:
        return torch.from_numpy(values)

    def make_booleans(self, values: npt.NDArray[np.bool_]) -> Array:
        return torch.from_numpy(values)

    def owns(self, value: object) -> bool:
        return isinstance(value, torch.Tensor)

    def values(self, array: Array) -> Values:
        copied = array.detach().to("cpu", torch.float64, copy=True)
        return np.ascontiguousarray(copied.numpy())

    def shares_memory(self, one: Array, other: Array) -> bool:
        if one.numel() == 0 or other.numel() == 0:
            return False
        return bool(one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr())

    def differentiate(
        self, run: Callable[[Array], Array], x: Array, dy: Values, parameters: Sequence[Holder]
    ) -> ArrayGradients | None:
        tracked = x.clone().requires_grad_()
        tensors = [parameter.read() for parameter in parameters]
        for tensor in tensors:
            tensor.grad = None
        with torch.enable_grad():
            y = run(tracked)
            if not y.requires_grad:
                return None, [None] * len(tensors)
            (y * self.make(dy, self.dtype(y))).sum().backward()
        return tracked.grad, [tensor.grad for tensor in tensors]

    def transpose(self, array: Array, order: tuple[int, ...]) -> Array:
        return array.permute(order)

    def to_channels_last(self, array: Array) -> Array:
        return array.contiguous(
            memory_format=torch.channels_last if array.ndim == 4 else torch.channels_last_3d,
        )

    def as_parameter(self, array: Array) -> Array:
        return array.detach().requires_grad_()

    def overwrite(self, array: Array, values: Array) -> bool:
        array.detach().copy_(values)
        return True

    @contextlib.contextmanager
    def grad_mode(self, *, enabled: bool) -> Iterator[None]:
        with torch.set_grad_enabled(enabled):
            yield

    def seed(self, seed: int = 20) -> None:
        super().seed(seed)
        seed_torch(seed)


class JaxLibrary(Library):
    """JAX arrays, for the machines that have JAX."""

    name = "jax"
    precision = "float32"
    dtypes = ("bfloat16", "float16", "float32")
    compiles = True
    mutable = False

    def make(self, values: npt.ArrayLike, dtype: str | None = None) -> Array:
        import jax

        return jax.device_put(np.array(values, dtype=jax.numpy.dtype(dtype or self.precision)))

    def stack(self, arrays: Sequence[Array]) -> Array:
        import jax

        return jax.numpy.stack(list(arrays))

    def make_integers(self, values: npt.NDArray[np.int64]) -> Array:
        import jax

        return jax.device_put(values.astype(np.int32))

    def make_booleans(self, values: npt.NDArray[np.bool_]) -> Array:
        import jax

        return jax.device_put(values)

    def owns(self, value: object) -> bool:
        import jax

        return isinstance(value, jax.Array)

    def values(self, array: Array) -> Values:
        return np.array(array, dtype=np.float64)

    def shares_memory(self, one: Array, other: Array) -> bool:
        return False

    def differentiate(
        self, run: Callable[[Array], Array], x: Array, dy: Values, parameters: Sequence[Holder]
    ) -> ArrayGradients | None:
        import jax

        def function(x: Array, *arrays: Array) -> Array:
            for parameter, array in zip(parameters, arrays, strict=True):
                parameter.put(array)
            return run(x)

        y, pull = jax.vjp(function, x, *(parameter.read() for parameter in parameters))
        dx, *others = pull(self.make(dy, self.dtype(y)))
        return dx, others

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
    """Order the libraries to try, the likeliest first, by the global names that the target's code uses."""
    order: list[Library] = []
    if names & {"jnp", "jax", "lax"} and "jax" in sys.modules:
        order.append(JAX)
    if names & {"torch", "nn", "F"}:
        order.append(TORCH)
    if names & {"np", "numpy"}:
        order.append(NUMPY)
    return order + [library for library in (TORCH, NUMPY) if library not in order]
