"""Which axes of the input are samples, features and space, and how long each is."""

from dataclasses import dataclass

BATCH = 5
FEATURES = 6
GROUPS = 2
_SPATIAL = {2: (), 3: (7,), 4: (3, 4), 5: (3, 4, 7)}


@dataclass(frozen=True)
class Geometry:
    """The axes of the features in the input, and their sizes.

    Args:
        features: Sizes of the feature axes: (C,), or a longer normalized_shape.
        last: Whether the features are the last axes, rather than axis 1.
        groups: Number of groups, for the targets that have groups.
        batch: Number of samples.
    """

    features: tuple[int, ...] = (FEATURES,)
    last: bool = False
    groups: int = GROUPS
    batch: int = BATCH

    def shape(self, rank: int, batch: int | None = None) -> tuple[int, ...]:
        """Return an input shape of this rank in which no two sizes are equal."""
        batch = self.batch if batch is None else batch
        spatial = _SPATIAL[rank][: rank - 1 - len(self.features)]
        spatial = tuple(size + 4 if size in self.features else size for size in spatial)
        return (batch, *spatial, *self.features) if self.last else (batch, *self.features, *spatial)

    def channel_axis(self, rank: int) -> int:
        """Return the axis of the channels."""
        return rank - 1 if self.last else 1

    def axis_names(self, rank: int) -> str:
        """Return one letter an axis, as NCHW."""
        spatial = {2: "", 3: "L", 4: "HW", 5: "DHW"}[rank]
        return f"N{spatial}C" if self.last else f"NC{spatial}"

    def per_channel(self, rank: int) -> tuple[int, ...]:
        """Return the shape in which one value a channel broadcasts over an input, with -1 for the channels."""
        return tuple(-1 if axis == self.channel_axis(rank) else 1 for axis in range(rank))
