"""The LeNet experiment: train it with one or several normalizations, compare, verify, draw.

    from normkit import train

    result = train.run(train.TrainConfig(data="digits", norms=["batch", "none"]))
    print(result.norms[0].epochs[-1].test_accuracy, "in", result.folder)

Needs the extra ``train``: ``pip install 'normkit[train]'``.
"""

from importlib.util import find_spec

from normkit.errors import UserError

_EXTRA = ("matplotlib", "sklearn", "idx2numpy", "rich")


class MissingExtraError(UserError, ImportError):
    """A package of the extra ``train`` is not installed."""


_missing = [name for name in _EXTRA if find_spec(name) is None]
if _missing:
    raise MissingExtraError(f"training needs {', '.join(_missing)}: pip install 'normkit[train]'")

from normkit.train.config import IMPLS, NORMS, TrainConfig  # noqa: E402
from normkit.train.contenders import Contender, contenders  # noqa: E402
from normkit.train.data import Dataset, load_dataset  # noqa: E402
from normkit.train.experiment import Interrupted, lost_note, resume_config, run  # noqa: E402
from normkit.train.model import lenet, trace  # noqa: E402
from normkit.train.progress import LineProgress, LiveProgress, Progress, Step, for_console  # noqa: E402
from normkit.train.results import EpochMetrics, NormResult, QuantityVerdict, RunResult, StepDifference, Verdict  # noqa: E402
from normkit.train.sync import join, launched_with  # noqa: E402
from normkit.train.verify import conclusion  # noqa: E402

__all__ = [
    "IMPLS",
    "NORMS",
    "Contender",
    "Dataset",
    "EpochMetrics",
    "Interrupted",
    "LineProgress",
    "LiveProgress",
    "MissingExtraError",
    "NormResult",
    "Progress",
    "QuantityVerdict",
    "RunResult",
    "Step",
    "StepDifference",
    "TrainConfig",
    "Verdict",
    "conclusion",
    "contenders",
    "for_console",
    "join",
    "launched_with",
    "lenet",
    "load_dataset",
    "lost_note",
    "resume_config",
    "run",
    "trace",
]
