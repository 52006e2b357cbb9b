"""``normkit explain``: which values a normalization averages, with real numbers, as text, picture and page.

``explain`` is the way in from Python; the command line is in ``normkit.cli.explain``. Everything is drawn from
``spec.py`` and computed by ``reference.py``.
"""

from normkit.explaining.case import KINDS, Case, Mark
from normkit.explaining.comparison import Comparison, compare
from normkit.explaining.explanation import Explanation, explain
from normkit.explaining.models import ModelNorm, ModelNorms, norms_of
from normkit.explaining.outputs import render, save
from normkit.explaining.running import RunningStatistics, running_statistics

__all__ = [
    "KINDS",
    "Case",
    "Comparison",
    "Explanation",
    "Mark",
    "ModelNorm",
    "ModelNorms",
    "RunningStatistics",
    "compare",
    "explain",
    "norms_of",
    "render",
    "running_statistics",
    "save",
]
