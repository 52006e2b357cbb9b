"""The independent axes of a batch normalization, and which of their values go together."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tests.checking.matrix import vocabulary
from tests.checking.matrix.layouts import LAYOUTS
from tests.checking.matrix.modes import ARGUMENTS, MODES
from tests.checking.matrix.spelling import MOMENTS, NORMALIZE
from tests.checking.matrix.template import CALLED, OBJECTS, left_in_attribute

Axes = Mapping[str, str]
Values = tuple[str, ...]


@dataclass(frozen=True)
class Convention:
    """How the running statistics move.

    Args:
        momentum: The argument for it; empty where the numbers stand in the code.
        default: Its default.
        weighs_old: Whether it weighs the old value.
        unbiased: Whether the running variance is the unbiased one.
        eps: The default of eps.
    """

    momentum: str
    default: float
    weighs_old: bool
    unbiased: bool
    eps: str = "1e-5"


CONVENTIONS = {
    "torch": Convention("momentum", 0.1, weighs_old=False, unbiased=True),
    "torch, rho": Convention("rho", 0.1, weighs_old=False, unbiased=True),
    "numbers": Convention("", 0.1, weighs_old=False, unbiased=True),
    "Keras": Convention("momentum", 0.99, weighs_old=True, unbiased=False, eps="1e-3"),
    "Flax": Convention("momentum", 0.9, weighs_old=True, unbiased=False),
    "decay": Convention("decay", 0.9, weighs_old=True, unbiased=False),
    "old, unbiased": Convention("momentum", 0.9, weighs_old=True, unbiased=True),
}


def _forms(axes: Axes) -> Values:
    others = ("class", "function", "static", "factory")
    return ("module", "module", "module", "module", *others) if axes["library"] == "torch" else ("class", *others)


def _titles(axes: Axes) -> Values:
    names = {
        "function": vocabulary.BATCH_FUNCTIONS,
        "factory": vocabulary.BATCH_FACTORIES,
        "static": vocabulary.BATCH_CLASSES,
    }.get(axes["form"], vocabulary.BATCH_CLASSES)
    return tuple(name for name in names if axes["form"] in ("class", "module") or name != "BatchNorm2d")


def _layouts(axes: Axes) -> Values:
    if axes["title"] == "BatchNorm2d":
        return ("N C H W",)
    told = any(word in axes["title"].lower() for word in vocabulary.BATCH_WORDS)
    return tuple(LAYOUTS) if told else tuple(name for name in LAYOUTS if name != "C N")  # it is layer norm's too


def _parameters(axes: Axes) -> Values:
    return ("(C,)", "kept axes") if LAYOUTS[axes["layout"]].kept else ("(C,)",)


def broadcasts(axes: Axes) -> bool:
    """Whether a statistic broadcasts over the input without a reshape."""
    return axes["parameters"] == "kept axes" or LAYOUTS[axes["layout"]].column is None


def _affine_in(axes: Axes) -> Values:
    if axes["form"] in OBJECTS:
        return ("attribute", "attribute", "dict", "list", "call")
    own = ("closure",) if axes["form"] == "factory" and axes["library"] != "jax" else ()
    return (*own, "call", "defaults") if broadcasts(axes) else (*own, "call")


def _holders(axes: Axes) -> Values:
    if axes["form"] == "module":
        return ("buffer", "buffer", "submodule", "stacked")
    if axes["form"] == "factory":
        return ("nonlocal", "cell dict", "cell list", "cell object")
    if axes["form"] in CALLED:
        in_place = () if axes["library"] == "jax" else ("in place",)
        return (*in_place, "returned", "settings") if axes["form"] == "function" else (*in_place, "returned")
    found = ["attribute", "dict", "nested dict", "list", "tuple", "object", "stacked", "lazy", "slots"]
    if broadcasts(axes) and axes["library"] == "numpy":
        found.append("class attribute")
    return tuple(found)


def _modes(axes: Axes) -> Values:
    if axes["form"] == "module":
        return ("train()/eval()", "train()/eval()", *ARGUMENTS)
    if axes["form"] == "class":
        return tuple(MODES)
    return (*ARGUMENTS, "settings", "settings") if axes["holder"] == "settings" else tuple(ARGUMENTS)


def _arguments(axes: Axes) -> Values:
    found = ["positional", "keyword"]
    if axes["form"] in CALLED:
        found += [] if axes["holder"] == "settings" else ["options"]
    if axes["form"] in OBJECTS:
        found += ["inherited"]
        if axes["affine in"] == "attribute" and axes["holder"] != "slots":
            found += ["flag bias", "flag affine"]
    if axes["form"] == "class":
        found += ["delegating"]
        if axes["holder"] not in ("slots", "class attribute"):
            found += ["dataclass"]
    return tuple(found)


def _methods(axes: Axes) -> Values:
    if axes["form"] == "class" and axes["arguments"] != "delegating":
        return ("__call__", "forward", "batchnorm_forward", "apply", "normalize", "transform", "fprop")
    return ("forward",) if axes["form"] in ("class", "module", "static") else ("",)


def _results(axes: Axes) -> Values:
    if axes["holder"] == "returned":
        return ("y, mean, var", "mean, var, y", "var, y, mean", "dict")
    return ("y", "y", "y, cache", "batch mean, var, y", "dict", *left_in_attribute(axes))


def _conventions(axes: Axes) -> Values:
    if axes["holder"] == "settings":
        return tuple(name for name in CONVENTIONS if CONVENTIONS[name].momentum)
    if axes["arguments"] == "options":  # no signature shows what else the momentum and eps could be
        return tuple(name for name, told in CONVENTIONS.items() if told.unbiased and told.eps == "1e-5")
    return tuple(CONVENTIONS)


def _writes(axes: Axes) -> Values:
    if axes["holder"] == "in place":
        return ("in place",)
    fixed = axes["library"] == "jax" or axes["holder"] in ("tuple", "class attribute", "returned", "settings")
    return ("assign",) if fixed else ("assign", "in place")


def _updates(axes: Axes) -> Values:
    return ("weighted", "delta", "lerp") if axes["library"] == "torch" else ("weighted", "delta")


def _moments(axes: Axes) -> Values:
    other = "std" if axes["library"] == "torch" else "one call"
    return tuple(name for name in MOMENTS if name != other)


def _backwards(axes: Axes) -> Values:
    if axes["library"] != "numpy":
        return ("none",)
    if axes["form"] == "class" and axes["affine in"] != "call" and axes["normalize"] != "folded":
        return ("none", "attributes", "tuple", "grads dict")
    by_function = axes["form"] == "function" and axes["result"] == "y, cache" and axes["affine in"] == "call"
    if by_function and axes["normalize"] != "folded" and axes["title"] not in ("norm", "normalize", "standardize"):
        return ("beside", "beside", "none")
    return ("none",)


def _spaced(axes: Axes) -> Values:
    layout = LAYOUTS[axes["layout"]]
    return ("reshape", "new axes") if layout.new_axes and not broadcasts(axes) else ("reshape",)


AXES: dict[str, Callable[[Axes], Values]] = {
    "library": lambda axes: ("numpy", "torch"),
    "form": _forms,
    "title": _titles,
    "layout": _layouts,
    "parameters": _parameters,
    "statistics": lambda axes: vocabulary.STATISTICS,
    "affine": lambda axes: vocabulary.BATCH_AFFINE,
    "affine in": _affine_in,
    "holder": _holders,
    "mode": _modes,
    "arguments": _arguments,
    "method": _methods,
    "result": _results,
    "convention": _conventions,
    "write": _writes,
    "update": _updates,
    "graph": lambda axes: ("no_grad", "detach") if axes["library"] == "torch" else ("none",),
    "moments": _moments,
    "normalize": lambda axes: NORMALIZE,
    "broadcast": _spaced,
    "edge cases": lambda axes: ("guarded", "plain"),
    "backward": _backwards,
    "size": lambda axes: vocabulary.SIZES if axes["form"] in (*OBJECTS, "factory") else ("",),
    "input": lambda axes: vocabulary.INPUTS,
    "locals": lambda axes: ("mean/var", "mu/sigma2", "batch_mean/batch_var", "m/v"),
}
"""Each axis with the values that go with those chosen before it."""


def fits(axes: Axes) -> bool:
    """Whether no name is used twice in one scope."""
    mode = MODES.get(axes["mode"])
    settings = ["bn_param"] if axes["holder"] == "settings" else []
    names = [
        axes["input"],
        *axes["statistics"].split("/"),
        *axes["affine"].split("/"),
        *([axes["size"]] if axes["size"] else []),
        *([mode.name] if mode and mode.name else []),
        CONVENTIONS[axes["convention"]].momentum or "momentum",
        *settings,
    ]
    attributes = {"eps", "stats", "params", "cache", "out", "output", "x_hat", "std", "y", "n", "C", "axes", "training"}
    attributes |= {"mode", "phase", "backward", "grads"} - ({mode.name} if mode else set())
    by_argument = {mode.name} if mode else set()
    alone = len(names) == len(set(names)) and not set(names) & (attributes - by_argument)
    return alone and not set(names) & set(axes["locals"].split("/"))
