"""Every check, by code."""

from normkit.checking.rules import (
    affine,
    axes,
    formula,
    global_state,
    gradient,
    inputs,
    modes,
    momentum,
    numerics,
    output,
    running,
    state,
)
from normkit.checking.rules.base import Rule

_MODULES = (output, modes, axes, formula, running, momentum, state, affine, gradient, numerics, inputs, global_state)

RULES: dict[str, type[Rule]] = {rule.code: rule for module in _MODULES for rule in module.RULES}

__all__ = ["RULES", "Rule"]
