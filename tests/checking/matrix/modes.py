"""How a layer is told whether it trains."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mode:
    """One way to tell training and evaluation apart.

    Args:
        test: The condition that holds in training.
        train: For arguments what the call passes in training, else the statement that switches to training.
        evaluate: The same for evaluation.
        declare: The argument as it is declared; empty for a switch.
        init: The attribute that the constructor sets.
        methods: The methods that switch it.
        prelude: Definitions that it needs.
        by_module: Whether torch.nn.Module provides the switch.
    """

    test: str
    train: str
    evaluate: str
    declare: str = ""
    init: str = ""
    methods: str = ""
    prelude: str = ""
    by_module: bool = False

    @property
    def is_argument(self) -> bool:
        """Whether the call passes it."""
        return bool(self.declare)

    @property
    def name(self) -> str:
        """The name of the argument; empty for a switch."""
        return self.declare.partition("=")[0].partition(":")[0]


def _flag(name: str, default: str, *, trains: bool = True) -> Mode:
    """Make a mode by a boolean argument, which says whether it trains or whether it does not."""
    return Mode(
        name if trains else f"not {name}",
        f"{name}={trains}",
        f"{name}={not trains}",
        f"{name}={default}" if default else name,
    )


def _word(name: str, train: str, evaluate: str, default: str) -> Mode:
    """Make a mode by a string argument."""
    declare = f'{name}="{default}"' if default else name
    return Mode(f'{name} == "{train}"', f'{name}="{train}"', f'{name}="{evaluate}"', declare)


_ENUM = "from enum import Enum\n\n\nclass Phase(Enum):\n    FIT = 0\n    PREDICT = 1\n"

ARGUMENTS = {
    "training=True": _flag("training", "True"),
    "training=False": _flag("training", "False"),
    "training=None": _flag("training", "None"),
    "training": _flag("training", ""),
    "is_train=True": _flag("is_train", "True"),
    "is_training": _flag("is_training", ""),
    "isTrain=True": _flag("isTrain", "True"),
    "train=True": _flag("train", "True"),
    "train_flg=True": _flag("train_flg", "True"),
    "phase=True": _flag("phase", "True"),
    "phase_train": _flag("phase_train", ""),
    "update=True": _flag("update", "True"),
    "learning=True": _flag("learning", "True"),
    "use_batch_stats=True": _flag("use_batch_stats", "True"),
    "test=False": _flag("test", "False", trains=False),
    "is_test=False": _flag("is_test", "False", trains=False),
    "inference=False": _flag("inference", "False", trains=False),
    "eval_mode=False": _flag("eval_mode", "False", trains=False),
    "use_global_stats=False": _flag("use_global_stats", "False", trains=False),
    "predict=False": _flag("predict", "False", trains=False),
    'mode="train"/"test"': _word("mode", "train", "test", "train"),
    'mode "train"/"eval"': _word("mode", "train", "eval", ""),
    'phase="fit"/"infer"': _word("phase", "fit", "infer", "fit"),
    "phase=Phase.FIT": Mode(
        "phase is Phase.FIT",
        "phase=Phase.FIT",
        "phase=Phase.PREDICT",
        "phase=Phase.FIT",
        prelude=_ENUM,
    ),
}

SWITCHES = {
    "train()/eval()": Mode(
        "self.training",
        "layer.train()",
        "layer.eval()",
        init="self.training = True",
        methods="def train(self, mode=True):\n    self.training = mode\n    return self\n\n"
        "def eval(self):\n    return self.train(False)",
        by_module=True,
    ),
    "attribute training": Mode(
        "self.training", "layer.training = True", "layer.training = False", init="self.training = True"
    ),
    "attribute is_training": Mode(
        "self.is_training", "layer.is_training = True", "layer.is_training = False", init="self.is_training = True"
    ),
    "attribute test_mode": Mode(
        "not self.test_mode", "layer.test_mode = False", "layer.test_mode = True", init="self.test_mode = False"
    ),
    "attribute mode": Mode(
        'self.mode == "train"', 'layer.mode = "train"', 'layer.mode = "test"', init='self.mode = "train"'
    ),
    "attribute phase": Mode(
        "self.phase is Phase.FIT",
        "layer.phase = Phase.FIT",
        "layer.phase = Phase.PREDICT",
        init="self.phase = Phase.FIT",
        prelude=_ENUM,
    ),
    "set_mode()": Mode(
        'self._mode == "train"',
        'layer.set_mode("train")',
        'layer.set_mode("test")',
        init='self._mode = "train"',
        methods="def set_mode(self, mode):\n    self._mode = mode",
    ),
    "set_training()": Mode(
        "self._is_training",
        "layer.set_training(True)",
        "layer.set_training(False)",
        init="self._is_training = True",
        methods="def set_training(self, flag):\n    self._is_training = flag",
    ),
    "train_mode()/test_mode()": Mode(
        "self.fitting",
        "layer.train_mode()",
        "layer.test_mode()",
        init="self.fitting = True",
        methods="def train_mode(self):\n    self.fitting = True\n\ndef test_mode(self):\n    self.fitting = False",
    ),
}

BY_DICT = Mode("", "", "", "")
"""The mode is an entry of the dict of settings."""

MODES = {**ARGUMENTS, **SWITCHES}
