"""The families of normalization and the conventions of libraries, in words and numbers."""

from normkit import conventions

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


CONVENTIONS = {name: conventions.CONVENTIONS[name] for name in ("torch", "keras", "flax", "onnx")}
"""The conventions that a layer may be held against; MLX' momentum and variance are torch's."""


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
