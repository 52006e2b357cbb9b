"""Where the channels stand, and how values of one a channel broadcast."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """The axes of the inputs of a batch normalization.

    Args:
        axes: The axes to average over, as code on ``x``.
        channel: The axis of the channels.
        column: The shape in which (C,) values broadcast, as code on ``x``; None where they do so by themselves.
        kept: The shape of parameters that broadcast by themselves, as code on ``C``; None where any rank is taken.
        new_axes: The index that does the same as ``column``.
        order: The axes of (N, C, ...) in this layout's order.
        rank: The only rank that it takes; None for any.
    """

    axes: str
    channel: int
    column: str | None
    kept: str | None
    new_axes: str | None
    order: tuple[int, ...]
    rank: int | None


LAYOUTS = {
    "N C": Layout("0", 1, None, "(1, C)", None, (0, 1), 2),
    "N C H W": Layout("(0, 2, 3)", 1, "(1, -1, 1, 1)", "(1, C, 1, 1)", "[None, :, None, None]", (0, 1, 2, 3), 4),
    "N H W C": Layout("(0, 1, 2)", -1, None, "(1, 1, 1, C)", None, (0, 2, 3, 1), 4),
    "N L C": Layout("(0, 1)", -1, None, "(1, 1, C)", None, (0, 2, 1), 3),
    "N C L": Layout("(0, 2)", 1, "(1, -1, 1)", "(1, C, 1)", "[:, None]", (0, 1, 2), 3),
    "C N": Layout("1", 0, "(-1, 1)", "(C, 1)", "[:, None]", (1, 0), 2),
    "N C ...": Layout(
        "tuple(i for i in range(x.ndim) if i != 1)",
        1,
        "(1, -1) + (1,) * (x.ndim - 2)",
        None,
        None,
        (0, 1, 2, 3),
        None,
    ),
    "N ... C": Layout("tuple(range(x.ndim - 1))", -1, None, None, None, (0, 2, 3, 1), None),
}
