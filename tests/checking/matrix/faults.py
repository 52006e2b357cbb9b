"""The faults that are planted: where each fits, how it shows, and what else is true of a layer that has it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tests.checking.matrix.batch_axes import CONVENTIONS
from tests.checking.matrix.template import OBJECTS

Axes = Mapping[str, str]


def _anywhere(axes: Axes) -> bool:
    return True


def _stateful(axes: Axes) -> bool:
    return "statistics" in axes


@dataclass(frozen=True)
class Fault:
    """A fault.

    Args:
        shows: The independent check (see ``truth``) that it fails.
        fits: Whether it can be planted into a layer with these values of the axes.
        implies: Further codes that are true of a layer that has it.
    """

    shows: str
    fits: Callable[[Axes], bool] = _anywhere
    implies: tuple[str, ...] = ()


_GRADIENT = ("statistics-detached", "gradient-wrong")


def _centred(axes: Axes) -> bool:
    return axes.get("family") != "rms"


def _not_groups(axes: Axes) -> bool:
    return axes.get("family") != "group"


def _says_its_family(axes: Axes) -> bool:
    """Other axes are those of another family where no name tells which is meant."""
    return any(word in axes["title"].lower() for word in ("batch", "bn", "layer", "ln", "rms", "instance"))


def _groups_of_a_told_layout(axes: Axes) -> bool:
    """Equal runs of memory are right groups with the channels first: only an array of weights tells them last."""
    return axes.get("family") == "group" and not (
        "N H W C" in axes.values() and axes["affine in"] in ("defaults", "call")
    )


def _follows_torch(axes: Axes) -> bool:
    """In Keras' convention it would be no fault."""
    return _stateful(axes) and not CONVENTIONS[axes["convention"]].weighs_old


def _unbiased_by_one_line(axes: Axes) -> bool:
    """Where the running variance is the biased one, the same line would make that another one too."""
    return _centred(axes) and (not _stateful(axes) or CONVENTIONS[axes["convention"]].unbiased)


def _momentum_is_an_argument(axes: Axes) -> bool:
    if not _follows_torch(axes) or axes["arguments"] == "options":
        return False
    return bool(CONVENTIONS[axes["convention"]].momentum)


def _keeps_its_state(axes: Axes) -> bool:
    return _stateful(axes) and axes["form"] in (*OBJECTS, "factory")


def _starts_its_state(axes: Axes) -> bool:
    return _keeps_its_state(axes) or axes["holder"] == "settings" if _stateful(axes) else False


def _starts_its_affine(axes: Axes) -> bool:
    return axes["affine in"] in ("attribute", "dict", "list", "closure")


def _differentiates(axes: Axes) -> bool:
    return axes["library"] == "torch" or axes["backward"] != "none"


def _by_hand(axes: Axes) -> bool:
    return axes["backward"] != "none"


def _is_module(axes: Axes) -> bool:
    return _stateful(axes) and axes["form"] == "module"


def _assigns(axes: Axes) -> bool:
    """Whether torch's graph could stay with what it assigns."""
    return axes["library"] == "torch" and _keeps_its_state(axes) and axes["write"] == "assign"


def _kept_and_never_written(axes: Axes) -> bool:
    """Settings would hold nothing at all; lazy statistics are written once, by the first call."""
    return _stateful(axes) and axes["holder"] not in ("settings", "lazy")


FAULTS: dict[str, Fault] = {
    "wrong-axes": Fault(
        "output",
        lambda axes: _not_groups(axes) and _says_its_family(axes) and axes.get("over") != "trailing axes",
        (*_GRADIENT, "running-var-wrong", "momentum-differs", "nan-spreads", "batch-size-dependent", "trailing-axes"),
    ),
    "group-order": Fault("output", _groups_of_a_told_layout, ("wrong-axes", "batch-size-dependent")),
    "unbiased-normalization": Fault("output", _unbiased_by_one_line, ("gradient-wrong",)),
    "eps-missing": Fault("output"),
    "eps-misplaced": Fault("output"),
    "formula-wrong": Fault("output", implies=("gradient-wrong",)),
    "cancellation": Fault("large mean", _centred),
    "input-mutated": Fault("input", _not_groups, _GRADIENT),
    "affine-ignored": Fault("output", lambda axes: axes["affine in"] != "closure", ("gradient-wrong",)),
    "affine-init": Fault("fresh", _starts_its_affine),
    "statistics-detached": Fault("gradient", _differentiates),
    "gradient-wrong": Fault("gradient", _by_hand),
    "biased-running-var": Fault("evaluation", _follows_torch),
    "momentum-inverted": Fault("evaluation", _momentum_is_an_argument),
    "running-stats-not-updated": Fault("evaluation", _kept_and_never_written),
    "running-stats-init": Fault("fresh", _starts_its_state),
    "eval-ignores-running-stats": Fault("evaluation", _stateful),
    "running-stats-updated-in-eval": Fault("evaluation", _stateful),
    "train-uses-running-stats": Fault("output", _stateful, (*_GRADIENT, "batch-size-dependent")),
    "state-not-saved": Fault("saved", _is_module),
    "state-attached": Fault("graph", _assigns, ("not-copyable", "gradient-wrong")),
}
"""Each core fault by the code that names it."""
