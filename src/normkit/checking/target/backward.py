"""Gradients as hand-written code hands them over: returned in the usual order, or kept under their usual names."""

from dataclasses import dataclass, field
from typing import Any

from normkit.checking.patterns import Values
from normkit.checking.target.arrays import Array, Library
from normkit.checking.target.names import Role, role_of
from normkit.checking.target.state import AFFINE


@dataclass
class Gradients:
    """The gradients of the target's backward pass; None where it gave none."""

    dx: Values | None
    affine: dict[Role, Values] = field(default_factory=dict)


def gradient_role(name: str) -> Role | None:
    """Tell weight and bias by the names of their gradients: dgamma, grad_weight, beta_grad."""
    plain = name.strip("_").lower()
    for affix in ("grad_", "d_", "d"):
        if plain.startswith(affix) and role_of(plain.removeprefix(affix)) in AFFINE:
            return role_of(plain.removeprefix(affix))
    for affix in ("_grad", "_gradient"):
        if plain.endswith(affix) and role_of(plain.removesuffix(affix)) in AFFINE:
            return role_of(plain.removesuffix(affix))
    return None


def read_gradients(library: Library, result: Any, x: Array) -> Gradients:
    """Take dx, dweight and dbias out of what a hand-written backward function returned, in the usual order."""
    items = list(result) if isinstance(result, tuple | list) else [result]
    arrays = [item for item in items if library.owns(item)]
    dx = next((item for item in arrays if tuple(item.shape) == tuple(x.shape)), None)
    rest = [library.values(item) for item in arrays if item is not dx]
    return Gradients(None if dx is None else library.values(dx), dict(zip(AFFINE, rest, strict=False)))
