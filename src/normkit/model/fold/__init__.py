"""Folding of norms into the layers beside them, one idea a file.

``flow`` records what a model does, ``axes`` follows an axis through views, ``affine`` says what a norm multiplies and
adds, ``layers`` how other layers take that in, ``plan`` finds what can be folded, ``install`` does it, ``proof``
compares and times, ``report`` tells, and ``fold`` is the function.
"""

from normkit.model.fold.fold import fold
from normkit.model.fold.report import Folding

__all__ = ["Folding", "fold"]
