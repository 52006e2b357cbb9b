"""How the array libraries spell the same expression."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Library:
    """The spelling of one library.

    Args:
        name: Its name.
        header: Its import.
        module: What the import is called.
        keep: The argument that keeps reduced axes.
        biased: What follows the axes of ``x.var`` for the biased variance.
        unbiased: The same for the unbiased one.
    """

    name: str
    header: str
    module: str
    keep: str
    biased: str
    unbiased: str

    @property
    def is_torch(self) -> bool:
        """Whether it is torch."""
        return self.name == "torch"

    def full(self, value: str, shape: str) -> str:
        """Write a new array of zeros or ones."""
        return f"{self.module}.{value}({shape})"

    def sqrt(self, of: str) -> str:
        """Write a square root."""
        return f"{self.module}.sqrt({of})"

    def size(self, x: str) -> str:
        """Write the number of elements."""
        return f"{x}.numel()" if self.is_torch else f"{x}.size"

    def reshape(self, x: str, shape: str) -> str:
        """Write a reshape."""
        return f"{x}.reshape({shape})"

    def to_dtype_of(self, y: str, x: str) -> str:
        """Write a cast to another array's dtype."""
        return f"{y}.to({x}.dtype)" if self.is_torch else f"{y}.astype({x}.dtype)"

    def widened(self, x: str) -> str | None:
        """Write the input in at least float32; None where half precision does not occur."""
        if self.is_torch:
            return f"{x}.float() if {x}.dtype in (torch.float16, torch.bfloat16) else {x}"
        return f"{x}.astype(jnp.float32)" if self.name == "jax" else None


NUMPY = Library("numpy", "import numpy as np", "np", "keepdims=True", "", ", ddof=1")
TORCH = Library("torch", "import torch\nfrom torch import nn", "torch", "keepdim=True", ", correction=0", "")
JAX = Library("jax", "import jax\nimport jax.numpy as jnp", "jnp", "keepdims=True", "", ", ddof=1")
LIBRARIES = {library.name: library for library in (NUMPY, TORCH, JAX)}


def indented(lines: list[str], depth: int = 1) -> list[str]:
    """Indent lines of code."""
    return ["    " * depth + line if line else line for line in lines]
