"""What each family of normalization should do: the expectation that a measurement is held against."""

from dataclasses import dataclass

from normkit.checking.patterns import Pattern, grouping, reducing
from normkit.checking.subject import Geometry

TITLES = {
    "batch": "batch normalization",
    "layer": "layer normalization",
    "group": "group normalization",
    "instance": "instance normalization",
    "rms": "RMS normalization",
}


@dataclass(frozen=True)
class Convention:
    """Whose definition of momentum and of the running variance applies; all of them are in wide use.

    Args:
        title: How to name it.
        momentum_of_old: Whether momentum is the weight of the old value.
        unbiased_running: Whether the running variance is divided by n - 1.
        eps: The default eps of its batch normalization.
        momentum: The default momentum, in its own meaning.
    """

    title: str
    momentum_of_old: bool
    unbiased_running: bool
    eps: float
    momentum: float


CONVENTIONS = {
    "torch": Convention("torch", momentum_of_old=False, unbiased_running=True, eps=1e-5, momentum=0.1),
    "keras": Convention("Keras", momentum_of_old=True, unbiased_running=False, eps=1e-3, momentum=0.99),
    "flax": Convention("Flax", momentum_of_old=True, unbiased_running=False, eps=1e-5, momentum=0.99),
    "onnx": Convention("ONNX", momentum_of_old=True, unbiased_running=False, eps=1e-5, momentum=0.9),
}


def expected_patterns(
    family: str, geometry: Geometry, rank: int, batch: int | None = None, open_axes: bool = False
) -> list[Pattern]:
    """What the family averages over.

    Args:
        family: The family.
        geometry: Where the features stand.
        rank: The rank of the input.
        batch: The number of samples.
        open_axes: Whether nothing tells how many axes are features, so that layer normalization may take any.
    """
    shape, names, channel = geometry.shape(rank, batch), geometry.axis_names(rank), geometry.channel_axis(rank)
    spatial = tuple(axis for axis in range(1, rank) if axis != channel)
    if family == "batch":
        return [reducing(shape, (0, *spatial), names)]
    if family == "instance":
        return [reducing(shape, spatial, names)]
    if family == "group":
        return [grouping(shape, geometry.groups, channel, names, spatial=True, kind="neighbours")]
    if not geometry.last:
        return [reducing(shape, (channel,), names)]
    counts = range(1, rank) if open_axes else [len(geometry.features)]
    return [reducing(shape, tuple(range(rank - count, rank)), names) for count in counts]


def twin_of(family: str, ranks: tuple[int, ...]) -> str:
    """The layer of torch.nn that does the same."""
    if family in ("batch", "instance"):
        ending = {2: "1d", 3: "1d", 4: "2d", 5: "3d"}[ranks[0]] if ranks else "2d"
        return f"torch.nn.{family.capitalize()}Norm{ending}"
    return {"layer": "torch.nn.LayerNorm", "group": "torch.nn.GroupNorm", "rms": "torch.nn.RMSNorm"}[family]
