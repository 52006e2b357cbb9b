"""The independent axes of layer, RMS, group and instance normalization, which keep no running statistics."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tests.checking.matrix import vocabulary
from tests.checking.matrix.spelling import MOMENTS
from tests.checking.matrix.template import OBJECTS, left_in_attribute

Axes = Mapping[str, str]
Values = tuple[str, ...]


@dataclass(frozen=True)
class Over:
    """What one of these layers averages over.

    Args:
        axes: The axes, as code on ``x``; those of the reshaped input for groups.
        wrong: Other axes: the fault.
        column: The reshape of (C,) parameters, as code on ``x``; None where they broadcast by themselves.
        kept: The shape of parameters that broadcast by themselves, as code on ``C``; None for (C,).
        others: The axes that weight and bias broadcast over, as code on ``x``.
        order: The axes of torch's order in the layer's own.
        shape: The shape of the input in torch's order.
        rank: The only rank that it takes; None for any.
        groups: The reshape into groups, as code on ``x`` and ``G``, and the faulty one.
        trailing: How many axes ``C`` describes.
        torch_family: The family of the layer of torch.nn that does the same, where it is another.
    """

    axes: str
    wrong: str
    others: str
    order: tuple[int, ...]
    shape: tuple[int, ...]
    column: str | None = None
    kept: str | None = None
    rank: int | None = None
    groups: tuple[str, str] = ("", "")
    trailing: int = 1
    torch_family: str = ""


_COLUMN = "(1, -1) + (1,) * (x.ndim - 2)"
_LAYER = {
    "last axis": Over("-1", "1", "tuple(range(x.ndim - 1))", (0, 1, 2), (5, 7, 6)),
    "trailing axes": Over(
        "tuple(range(-W.ndim, 0))", "-1", "tuple(range(x.ndim - W.ndim))", (0, 1, 2), (5, 7, 6), trailing=2
    ),
    "N L C": Over("2", "(1, 2)", "(0, 1)", (0, 1, 2), (5, 7, 6), rank=3),
    "N C": Over("1", "0", "0", (0, 1), (5, 6), rank=2),
    "C N": Over("0", "(0, 1)", "1", (1, 0), (8, 6), kept="(C, 1)", rank=2),
    "N C H W over C": Over(
        "1", "(1, 2)", "(0, 2, 3)", (0, 3, 1, 2), (5, 3, 4, 6), column="(1, -1, 1, 1)", kept="(1, C, 1, 1)", rank=4
    ),
    "N C H W over C H W": Over(
        "(1, 2, 3)",
        "(2, 3)",
        "(0, 2, 3)",
        (0, 1, 2, 3),
        (5, 6, 3, 4),
        column="(1, -1, 1, 1)",
        kept="(1, C, 1, 1)",
        rank=4,
        torch_family="group",
    ),
}
_INSTANCE = {
    "N C H W": Over("(2, 3)", "(1, 2, 3)", "(0, 2, 3)", (0, 1, 2, 3), (5, 6, 3, 4), "(1, -1, 1, 1)", rank=4),
    "N C L": Over("2", "(1, 2)", "(0, 2)", (0, 1, 2), (5, 6, 7), "(1, -1, 1)", rank=3),
    "N C ...": Over(
        "tuple(range(2, x.ndim))",
        "tuple(range(1, x.ndim))",
        "tuple(i for i in range(x.ndim) if i != 1)",
        (0, 1, 2, 3),
        (5, 6, 3, 4),
        _COLUMN,
    ),
    "N H W C": Over("(1, 2)", "(1, 2, 3)", "(0, 1, 2)", (0, 2, 3, 1), (5, 6, 3, 4), rank=4),
}
_GROUP = {
    "N C ...": Over(
        "tuple(range(2, grouped.ndim))",
        "(1, *range(3, grouped.ndim))",
        "tuple(i for i in range(x.ndim) if i != 1)",
        (0, 1, 2, 3),
        (5, 6, 3, 4),
        _COLUMN,
        groups=(
            "x.reshape(x.shape[0], G, x.shape[1] // G, *x.shape[2:])",
            "x.reshape(x.shape[0], x.shape[1] // G, G, *x.shape[2:])",
        ),
    ),
    "N C H W": Over(
        "(2, 3, 4)",
        "(1, 3, 4)",
        "(0, 2, 3)",
        (0, 1, 2, 3),
        (5, 6, 3, 4),
        "(1, -1, 1, 1)",
        rank=4,
        groups=(
            "x.reshape(x.shape[0], G, x.shape[1] // G, x.shape[2], x.shape[3])",
            "x.reshape(x.shape[0], x.shape[1] // G, G, x.shape[2], x.shape[3])",
        ),
    ),
    "N H W C": Over(
        "(1, 2, 4)",
        "2",
        "(0, 1, 2)",
        (0, 2, 3, 1),
        (5, 6, 3, 4),
        rank=4,
        groups=(
            "x.reshape(*x.shape[:3], G, x.shape[3] // G)",
            "x.reshape(x.shape[0], G, x.shape[1] * x.shape[2] * x.shape[3] // G)",
        ),
    ),
}
_RMS = {
    "last axis": Over("-1", "1", "tuple(range(x.ndim - 1))", (0, 1, 2), (5, 7, 6)),
    "N L C": Over("2", "(1, 2)", "(0, 1)", (0, 1, 2), (5, 7, 6), rank=3),
}
OVER = {"layer": _LAYER, "instance": _INSTANCE, "group": _GROUP, "rms": _RMS}

_CLASSES = {
    "layer": vocabulary.LAYER_CLASSES,
    "instance": ("InstanceNorm", "MyInstanceNorm", "InstanceNormalization"),
    "group": ("GroupNorm", "MyGroupNorm", "GroupNormalization"),
    "rms": ("RMSNorm", "MyRMSNorm", "RootMeanSquareNorm"),
}
_FUNCTIONS = {
    "layer": vocabulary.LAYER_FUNCTIONS,
    "instance": ("instance_norm", "instance_normalization"),
    "group": ("group_norm", "groupnorm"),
    "rms": ("rms_norm", "rmsnorm", "rmsnorm_forward"),
}
_UNTOLD = ("Norm", "Standardize", "normalize", "norm")


def _forms(axes: Axes) -> Values:
    others = ("class", "function", "function", "static", "factory")
    return ("module", "module", "module", *others) if axes["library"] == "torch" else ("class", "class", *others)


def _over(axes: Axes) -> Values:
    names = tuple(OVER[axes["family"]])
    if axes["title"] in _UNTOLD:  # the others need the name to tell what they are
        return tuple(name for name in names if name in ("last axis", "N L C"))
    return names


def _parameters(axes: Axes) -> Values:
    over = OVER[axes["family"]][axes["over"]]
    flat = ("(C,)",) if over.kept is None or over.column is not None else ()
    return (*flat, "kept axes") if over.kept else flat


def _broadcasts(axes: Axes) -> bool:
    return axes["parameters"] == "kept axes" or OVER[axes["family"]][axes["over"]].column is None


def _affine_in(axes: Axes) -> Values:
    if axes["form"] in OBJECTS:
        return ("attribute", "attribute", "dict", "list", "call")
    own = ("closure",) if axes["form"] == "factory" and axes["library"] != "jax" else ()
    with_defaults = ("defaults",) if _broadcasts(axes) and axes["over"] != "trailing axes" else ()
    return (*own, "call", *with_defaults)


def _arguments(axes: Axes) -> Values:
    found = ["positional", "keyword"]
    if axes["form"] in ("function", "static") and axes["family"] != "rms":
        found += ["options"]
    if axes["form"] in OBJECTS:
        found += ["inherited"]
        if axes["affine in"] == "attribute":
            found += ["flag affine"] if axes["family"] == "rms" else ["flag bias", "flag affine"]
    if axes["form"] == "class":
        found += ["delegating", "dataclass"]
    return tuple(found)


def _methods(axes: Axes) -> Values:
    if axes["form"] == "class" and axes["arguments"] != "delegating":
        return ("__call__", "forward", "layernorm_forward" if axes["family"] == "layer" else "apply", "transform")
    return ("forward",) if axes["form"] in ("class", "module", "static") else ("",)


def _results(axes: Axes) -> Values:
    return ("y", "y", "y, cache", "batch mean, var, y", "dict", *left_in_attribute(axes))


def _moments(axes: Axes) -> Values:
    if axes["family"] == "rms":
        return ("mean of squares",)
    other = "std" if axes["library"] == "torch" else "one call"
    return tuple(name for name in MOMENTS if name not in (other, "sums"))


def _backwards(axes: Axes) -> Values:
    if axes["library"] != "numpy" or axes["family"] == "group":
        return ("none",)
    if axes["form"] == "class" and axes["affine in"] != "call" and "flag" not in axes["arguments"]:
        return ("none", "attributes", "tuple", "grads dict")
    if axes["form"] == "function" and axes["result"] == "y, cache" and axes["affine in"] == "call":
        return ("beside", "none") if axes["title"] not in _UNTOLD else ("none",)
    return ("none",)


def _sizes(axes: Axes) -> Values:
    if axes["form"] in ("function", "static"):
        return ("",)
    return ("normalized_shape",) if axes["over"] == "trailing axes" else vocabulary.SIZES


def _eps(axes: Axes) -> Values:
    if axes["family"] == "rms":
        return ("eps=1e-6", "epsilon=1e-6")
    usual = ("eps=1e-5", "epsilon=1e-5")
    return usual if axes["arguments"] == "options" else (*usual, "epsilon=1e-6")  # no signature would show it


def choices(family: str) -> dict[str, Callable[[Axes], Values]]:
    """Return each axis of a family with the values that go with those chosen before it."""
    affine = {"layer": vocabulary.LAYER_AFFINE, "rms": ("weight", "gamma", "scale", "gain")}
    return {
        "family": lambda axes: (family,),
        "library": lambda axes: ("numpy", "torch"),
        "form": _forms,
        "title": lambda axes: (_CLASSES if axes["form"] in (*OBJECTS, "static") else _FUNCTIONS)[family],
        "over": _over,
        "parameters": _parameters,
        "affine": lambda axes: affine.get(family, vocabulary.AFFINE),
        "affine in": _affine_in,
        "holder": lambda axes: ("none",),
        "arguments": _arguments,
        "method": _methods,
        "result": _results,
        "eps": _eps,
        "moments": _moments,
        "normalize": lambda axes: ("divide", "multiply", "power", "steps"),
        "edge cases": lambda axes: ("guarded", "plain"),
        "backward": _backwards,
        "size": _sizes,
        "groups": lambda axes: ("num_groups", "groups", "G", "n_groups") if family == "group" else ("",),
        "input": lambda axes: vocabulary.INPUTS,
        "locals": lambda axes: ("mean/var", "mu/sigma2", "m/v"),
    }


def fits(axes: Axes) -> bool:
    """Whether no name is used twice in one scope."""
    names = [axes["input"], *axes["affine"].split("/"), axes["eps"].split("=")[0]]
    names += [name for name in (axes["size"], axes["groups"]) if name]
    kept = {"params", "cache", "out", "output", "x_hat", "std", "y", "n", "grouped", "dtype"}
    return len(names) == len(set(names)) and not set(names) & {*kept, *axes["locals"].split("/")}
