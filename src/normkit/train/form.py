"""The form in which a layer takes an activation of the LeNet: its rank, and where the channels stand."""

from dataclasses import dataclass

from torch import Tensor

_PREFERRED = {4: (4, 3, 5, 2), 2: (2, 3, 4, 5)}
"""The ranks to give an activation of a rank as, the nearest first."""


@dataclass(frozen=True)
class Form:
    """A view of (N, C, H, W) or (N, C) that leaves what a norm averages over as it is.

    Args:
        rank: The rank that the layer takes.
        last: Whether it takes the channels last.
        as_row: Whether it takes each sample as one row of features, as layer normalization may.
    """

    rank: int
    last: bool = False
    as_row: bool = False

    def changes(self, rank: int) -> bool:
        """Whether an activation of this rank is given otherwise than it is."""
        return self.rank != rank or (rank > 2 and (self.last or self.as_row))

    def given(self, x: Tensor) -> Tensor:
        """Return an activation as the layer takes it."""
        samples, channels, *space = x.shape
        if self.as_row:
            return x.reshape(samples, *(1,) * (self.rank - 2), -1)
        if self.rank == 2:
            return x.movedim(1, -1).reshape(-1, channels)
        ones = self.rank - 2 - len(space)
        x = x.flatten(2) if ones < 0 else x.reshape(samples, channels, *(1,) * ones, *space)
        return x.movedim(1, -1).contiguous() if self.last else x

    def back(self, y: Tensor, x: Tensor) -> Tensor:
        """Return the layer's output in the form of the activation ``x``."""
        samples, channels, *space = x.shape
        if self.as_row:
            return y.reshape(x.shape)
        if self.rank == 2:
            return y.reshape(samples, *space, channels).movedim(-1, 1)
        return (y.movedim(-1, 1) if self.last else y).reshape(x.shape)


def form_for(family: str, ranks: tuple[int, ...], rank: int, *, last: bool) -> Form | None:
    """Return the form in which a layer takes an activation; None where it takes it in none.

    Args:
        family: The norm that it is.
        ranks: The input ranks that it takes.
        rank: The rank of the activation: 4 after a convolution, 2 after a linear layer.
        last: Whether it takes the channels last.
    """
    if family == "layer":  # (N, C, H, W) as N rows: the same as LayerNorm((C, H, W)) in one axis
        return Form(min(ranks), as_row=True) if ranks else None
    # Positions may pass for samples where a channel's statistics are taken over both.
    allowed = [taken for taken in _PREFERRED[rank] if taken > 2 or rank == 2 or family == "batch"]
    found = next((taken for taken in allowed if taken in ranks), None)
    return None if found is None else Form(found, last=last)
