"""``normkit.explain``: what one normalization does with one array, to be printed, shown in a notebook and saved."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from normkit.explaining.case import case_of
from normkit.explaining.example import example
from normkit.explaining.normalization import Normalization, as_array, normalization_of
from normkit.explaining.notebook import html_of
from normkit.explaining.outputs import save
from normkit.explaining.shown import Shown
from normkit.explaining.words import language_of_locale


class Explanation(Normalization, Shown):
    """One normalization of one array.

    A notebook shows it with colours and a picture. The numbers are attributes: ``case`` (axes, sets of cells), ``x``,
    ``mean``, ``var``, ``x_hat``, ``y``, and those of ``to_dict()``.
    """

    def _repr_html_(self) -> str:
        """Return picture and text for a notebook."""
        return html_of(self, language_of_locale())

    def save(self, path: str | Path, *, lang: str | None = None) -> None:
        """Write a picture (.svg, .png) or an interactive page (.html).

        Args:
            path: The file.
            lang: "en" or "zh"; None: Chinese where the locale is.
        Raises:
            UserError: another ending, or the file cannot be written.
        """
        save(self, path, lang)


def explain(
    kind: str,
    x: Any = None,
    *,
    num_groups: int | None = None,
    normalized_shape: int | Sequence[int] | None = None,
    channels_last: bool = False,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    eps: float | None = None,
) -> Explanation:
    """Show what a normalization averages, with the numbers of a real array.

    Args:
        kind: "batch", "layer", "group", "instance", "rms", or "channel" (layer norm over the channels: LayerNorm2d).
        x: An array or a tensor; None takes a small example of shape (2, 4, 2, 2).
        num_groups: Number of groups, for "group"; None: 2.
        normalized_shape: Sizes of the last axes, for "layer" and "rms". None: the last axis of (N, L, C), all axes but
            the first otherwise.
        channels_last: Whether the channels are the last axis of x: (N, H, W, C) and not (N, C, H, W).
        weight: Gamma; None stands for ones.
        bias: Beta; None stands for zeros.
        eps: Added to the variance; None: 1e-5, for "rms" the machine epsilon of float32, as torch.nn's.
    Shape:
        x: (N, C, *), or (N, *, C) with ``channels_last``;  weight, bias: (C,), or normalized_shape
    Raises:
        UserError: an argument that cannot be used, or what the layer itself refuses, in its words.

    >>> import numpy as np
    >>> seen = explain("group", np.arange(16.0).reshape(2, 4, 2), num_groups=2)
    >>> seen.case.reduced, seen.mean.tolist()
    (('C/G', 'L'), [1.5, 5.5, 9.5, 13.5])
    """
    values = example(channels_last=channels_last) if x is None else as_array(x)
    case = case_of(
        kind, values.shape, num_groups=num_groups, normalized_shape=normalized_shape, channels_last=channels_last
    )
    found = normalization_of(case, values, weight=weight, bias=bias, eps=eps)
    return Explanation(case, values, found.mean, found.var, found.weight, found.bias, found.eps)
