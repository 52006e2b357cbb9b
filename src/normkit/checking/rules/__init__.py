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
from normkit.choices import did_you_mean
from normkit.errors import UserError

_MODULES = (output, modes, axes, formula, running, momentum, state, affine, gradient, numerics, inputs, global_state)

RULES: dict[str, type[Rule]] = {rule.code: rule for module in _MODULES for rule in module.RULES}

__all__ = ["RULES", "Rule", "known_code"]


def known_code(code: str) -> str:
    """Return the code of a check.

    Raises:
        UserError: no check has it; the message names a similar one.
    """
    if code not in RULES:
        raise UserError(
            f"no check has the code {code!r}: normkit check --list names them all{did_you_mean(code, RULES)}"
        )
    return code
