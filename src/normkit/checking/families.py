"""The families of normalization and the conventions of libraries, in words and numbers."""

from dataclasses import dataclass

TITLES = {
    "batch": "batch normalization",
    "layer": "layer normalization",
    "group": "group normalization",
    "instance": "instance normalization",
    "rms": "RMS normalization",
    "other": "another normalization",
}
"""Each family with its name for people; "other" is none that a layer of torch.nn has."""

FAMILIES = tuple(family for family in TITLES if family != "other")
"""The families that a target may be held against."""


@dataclass(frozen=True)
class Convention:
    """A definition of momentum and of the running variance; all of them are in wide use.

    Args:
        title: How to name it.
        momentum_weighs_old: Whether momentum is the weight of the old value.
        unbiased_running: Whether the running variance is divided by n - 1.
        eps: The default eps of its batch normalization.
        momentum: The default momentum, in its own meaning.
    """

    title: str
    momentum_weighs_old: bool
    unbiased_running: bool
    eps: float
    momentum: float


CONVENTIONS = {
    "torch": Convention("torch", momentum_weighs_old=False, unbiased_running=True, eps=1e-5, momentum=0.1),
    "keras": Convention("Keras", momentum_weighs_old=True, unbiased_running=False, eps=1e-3, momentum=0.99),
    "flax": Convention("Flax", momentum_weighs_old=True, unbiased_running=False, eps=1e-5, momentum=0.99),
    "onnx": Convention("ONNX", momentum_weighs_old=True, unbiased_running=False, eps=1e-5, momentum=0.9),
}


def reference_layer(family: str, ranks: tuple[int, ...]) -> str:
    """Name the layer of torch.nn that does the same.

    Args:
        family: The family.
        ranks: The input ranks, the most telling first.
    """
    if family in ("batch", "instance"):
        ending = {2: "1d", 3: "1d", 4: "2d", 5: "3d"}[ranks[0]] if ranks else "2d"
        return f"torch.nn.{family.capitalize()}Norm{ending}"
    named = {"layer": "torch.nn.LayerNorm", "group": "torch.nn.GroupNorm", "rms": "torch.nn.RMSNorm"}
    return named.get(family, "any layer of torch.nn")
