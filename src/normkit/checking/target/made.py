"""Further inputs, made to the shape of the input: ``mask=ones``, ``labels=randint(10)``, ``mask=mask(N,L)``."""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from normkit.checking.target.arrays import Array, Library

_WRITTEN = re.compile(r"(ones|zeros|randn|rand|mask|randint)(?:\(([\w\s,]*)\))?")


@dataclass(frozen=True)
class Made:
    """An array to make.

    Args:
        kind: ones, zeros, randn, rand, mask (True everywhere) or randint (from 0 up to ``below``).
        axes: Its axes: letters of the input's axes, or sizes; None for the input's shape (for randint: N alone).
        below: For randint: one more than the largest.
    """

    kind: str
    axes: tuple[str, ...] | None = None
    below: int = 1

    def __str__(self) -> str:
        inside = ([str(self.below)] if self.kind == "randint" else []) + list(self.axes or ())
        return f"{self.kind}({','.join(inside)})" if inside else self.kind

    def make(self, library: Library, shape: tuple[int, ...], names: str, dtype: str | None = None) -> Array:
        """Make it for an input.

        Args:
            library: The array library.
            shape: The shape of the input.
            names: One letter an axis of it.
            dtype: The dtype of the input.
        Raises:
            ValueError: a letter that is no axis of the input.
        """
        axes = self.axes if self.axes is not None else ("N",) if self.kind == "randint" else tuple(names)
        sizes = [self._size(axis, shape, names) for axis in axes]
        generator = np.random.default_rng(17)
        if self.kind == "randint":
            return library.make_integers(generator.integers(self.below, size=sizes))
        if self.kind == "mask":
            return library.make_booleans(np.ones(sizes, dtype=bool))
        if self.kind in ("randn", "rand"):
            drawn = generator.normal(size=sizes) if self.kind == "randn" else generator.random(sizes)
            return library.make(drawn, dtype)
        return library.make(np.full(sizes, 1.0 if self.kind == "ones" else 0.0), dtype)

    def _size(self, axis: str, shape: tuple[int, ...], names: str) -> int:
        if axis.isdigit():
            return int(axis)
        if axis not in names:
            raise ValueError(f"{self} names the axis {axis}, but the input's axes are {names}")
        return shape[names.index(axis)]


def made(text: Any) -> Made | None:
    """Read ``ones``, ``ones(N,L)``, ``randint(10)`` or ``randint(10,N,L)``; None where it is none of these."""
    found = _WRITTEN.fullmatch(text.replace(" ", "")) if isinstance(text, str) else None
    if found is None:
        return None
    kind = found[1]
    inside = tuple(part for part in (found[2] or "").split(",") if part)
    if kind == "randint":
        if not inside or not inside[0].isdigit():
            return None
        return Made(kind, inside[1:] or None, int(inside[0]))
    return Made(kind, inside or None)
