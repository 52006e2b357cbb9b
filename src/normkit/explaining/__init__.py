"""``normkit explain``: which values a normalization averages, with real numbers, as text, picture and page.

``explain`` is the way in from Python; the command line is in ``normkit.cli.explain``. Everything is drawn from
``spec.py`` and computed by ``reference.py``.
"""

from importlib.util import find_spec

from normkit.errors import UserError


class MissingExtraError(UserError, ImportError):
    """A package of the extra ``cli`` is not installed."""


_missing = [name for name in ("rich", "matplotlib", "jinja2") if find_spec(name) is None]
if _missing:
    raise MissingExtraError(f"normkit.explain needs {', '.join(_missing)}: pip install 'normkit[cli]'")

from normkit.explaining.case import KINDS, Case, Mark  # noqa: E402
from normkit.explaining.comparison import Comparison, compare  # noqa: E402
from normkit.explaining.explanation import Explanation, explain  # noqa: E402
from normkit.explaining.models import ModelNorm, ModelNorms, norms_of  # noqa: E402
from normkit.explaining.outputs import render, save  # noqa: E402
from normkit.explaining.running import RunningStatistics, running_statistics  # noqa: E402

__all__ = [
    "KINDS",
    "Case",
    "Comparison",
    "Explanation",
    "Mark",
    "MissingExtraError",
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
