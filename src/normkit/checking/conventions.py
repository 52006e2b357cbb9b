"""Which convention a layer follows: what its momentum means, and whether its running variance is biased."""

from typing import TYPE_CHECKING

import numpy as np

from normkit.checking.errors import TargetError
from normkit.checking.running import Update, measure_update

if TYPE_CHECKING:
    from normkit.checking.lab import Lab

PROBE = 0.3
"""A momentum that tells its two meanings apart."""


def measure_momentum(lab: "Lab") -> Update | None:
    """The update with momentum 0.3, where the target has such an argument."""
    if lab.subject.kind in ("module", "object") or not lab.subject.accepts("momentum") or not lab.state:
        return None
    try:
        return measure_update(lab, momentum=PROBE)
    except TargetError:
        return None


def momentum_of_old(lab: "Lab") -> bool | None:
    """Whether momentum is the weight of the old value; None where that cannot be told."""
    probed = lab.momentum
    if probed is None or probed.mean is None:
        return None
    if abs(probed.mean[1] - PROBE) < 0.01:
        return False
    return True if abs(probed.mean[1] - (1 - PROBE)) < 0.01 else None


def momentum_ignored(lab: "Lab") -> bool:
    """Whether another momentum changes nothing."""
    probed, update = lab.momentum, lab.update
    if probed is None or update is None or probed.mean is None or update.mean is None:
        return False
    return bool(np.allclose(probed.mean, update.mean, atol=1e-4)) and momentum_of_old(lab) is None


def natural_convention(lab: "Lab") -> str:
    """Flax or Keras where the code does as they do: momentum weighs the old value, the running variance is biased."""
    update = lab.update
    if update is None or update.mean is None or update.var is None or update.unbiased:
        return "torch"
    declared = lab.subject.declared("momentum")
    if not momentum_of_old(lab) or (isinstance(declared, float) and declared <= 0.5):
        return "torch"
    eps = lab.formula.eps if lab.formula else 0.0
    return "keras" if abs(eps - 1e-3) < 1e-4 else "flax"


def still_statistics(lab: "Lab") -> tuple[str, ...]:
    """The running statistics that no batch moved."""
    update = lab.update
    if update is None:
        return ()
    return tuple(role for role in lab.state if role not in update.moved)
