"""How many groups a group norm gets."""

from collections.abc import Callable
from typing import Final

from normkit.errors import UserError

Groups = int | Callable[[int], int] | None
"""A number of groups, a function of the number of channels, or the rule below."""

MOST: Final = 32
FEWEST_CHANNELS: Final = 4
"""Two channels a group would leave, of an input (N, C), no more than which of the two is larger."""


def num_groups(channels: int, groups: Groups, name: str) -> int:
    """Return the number of groups of a layer.

    The rule: as many as possible, up to 32, that divide the channels and leave at least 4 of them to a group; else one.

    Args:
        channels: Of the layer.
        groups: What the user has asked for.
        name: Of the layer, for the message.
    Raises:
        UserError: the number does not divide the channels.
    """
    if groups is None:
        fitting = (n for n in range(MOST, 0, -1) if channels % n == 0 and channels // n >= FEWEST_CHANNELS)
        return next(fitting, 1)
    chosen = groups(channels) if callable(groups) else groups
    if not isinstance(chosen, int) or chosen < 1 or channels % chosen:
        raise UserError(
            f"`groups` must divide the number of channels: {name or 'the model itself'} has {channels}, and {chosen!r} "
            "does not; leave it out, or give a function of the number of channels"
        )
    return chosen
