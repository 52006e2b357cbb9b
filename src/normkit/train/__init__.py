"""The LeNet experiment: train it with one or several normalizations, compare, verify, draw.

    from normkit import train

    result = train.run(train.TrainConfig(data="digits", norms=["batch", "none"]))
    print(result.norms[0].epochs[-1].test_accuracy, "in", result.folder)

Needs the extra ``train``: ``pip install '.[train]'`` in the folder of normkit's source.
"""

from normkit.extras import require

require("training", "train", "matplotlib", "sklearn")

from normkit.train.config import IMPLS, NORMS, TrainConfig  # noqa: E402
from normkit.train.contenders import Contender, contenders  # noqa: E402
from normkit.train.data import Dataset, load_dataset  # noqa: E402
from normkit.train.experiment import Interrupted, resume_config, run  # noqa: E402
from normkit.train.model import lenet, trace  # noqa: E402
from normkit.train.progress import LineProgress, LiveProgress, Progress, Step, for_console  # noqa: E402
from normkit.train.results import EpochMetrics, NormResult, QuantityVerdict, StepDifference, Verdict  # noqa: E402
from normkit.train.run_result import RunResult, lost_note  # noqa: E402
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
