"""Find the momentum argument: the one whose change changes what training stores, and not what it returns."""

import dataclasses

import numpy as np

from normkit.checking.measure.calls import call
from normkit.checking.patterns import Values
from normkit.checking.target.builder import Builder
from normkit.checking.target.errors import RAISED, TargetError
from normkit.checking.target.names import Role
from normkit.checking.target.signature import UnfillableError
from normkit.checking.target.state import RUNNING

_TRIED: tuple[float, ...] = (0.25, 0.6)


def with_momentum(builder: Builder, rank: int) -> Builder:
    """Return the builder with the role of its momentum argument, where no name tells it and an experiment does.

    Args:
        builder: How to build and call it.
        rank: The rank of the inputs.
    """
    if builder.is_instance or builder.accepts("momentum"):
        return builder
    for name in _fractions(builder):
        known: tuple[tuple[str, Role], ...] = ((name, "momentum"),)
        changed = dataclasses.replace(builder, known=known)
        try:
            (one, stored), (other, stored_by_other) = (_step(changed, rank, value) for value in _TRIED)
        except (TargetError, UnfillableError, *RAISED):
            continue
        moved = any(role in stored_by_other and not np.allclose(stored[role], stored_by_other[role]) for role in stored)
        if moved and np.allclose(one, other, atol=1e-5):
            return changed
    return builder


def _fractions(builder: Builder) -> list[str]:
    """The arguments that nothing is known of, with a default between 0 and 1, or none."""
    names = []
    for signature in builder.signatures():
        for name, role in signature.roles.items():
            default = signature.parameters[name].default
            if role is None and name not in signature.fixed and isinstance(default, float) and 0.0 < default < 1.0:
                names.append(name)
    return names


def _step(builder: Builder, rank: int, momentum: float) -> tuple[Values, dict[Role, Values]]:
    layer = builder.build(rank, momentum=momentum)
    x = np.random.default_rng(50).normal(1.0, 2.0, builder.geometry.shape(rank))
    return call(layer, x), layer.read(*RUNNING)
