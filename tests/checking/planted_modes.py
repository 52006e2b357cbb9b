"""A right batch normalization that is told in one way after the other whether it trains."""

import enum

import planted_holders as holders


class Phase(enum.Enum):
    SERVE = 0
    LEARN = 1


class BatchNorm(holders.InAttributes):
    """Right; subclasses say in is_training how it is told."""

    def call(self, x, training):
        return super().forward(x, training)


class ByFlagOfAnyName(BatchNorm):
    def forward(self, x, moving=False):
        return self.call(x, not moving)


class ByRequiredFlag(BatchNorm):
    def forward(self, x, estimate):
        return self.call(x, bool(estimate))


class ByNumber(BatchNorm):
    def forward(self, x, flag=1):
        return self.call(x, flag == 1)


class ByWord(BatchNorm):
    def forward(self, x, how="batch"):
        if how not in ("batch", "stored"):
            raise ValueError(how)
        return self.call(x, how == "batch")


class ByEnumeration(BatchNorm):
    def forward(self, x, when: Phase = Phase.LEARN):
        return self.call(x, when is Phase.LEARN)


class ByAttribute(BatchNorm):
    def __init__(self, num_features):
        super().__init__(num_features)
        self.frozen = False

    def forward(self, x):
        return self.call(x, not self.frozen)


class ByAttributeOfAnEnumeration(BatchNorm):
    def __init__(self, num_features):
        super().__init__(num_features)
        self.phase = Phase.LEARN

    def forward(self, x):
        return self.call(x, self.phase is Phase.LEARN)


class BySetMode(BatchNorm):
    def __init__(self, num_features):
        super().__init__(num_features)
        self._how = "train"

    def set_mode(self, how):
        if how not in ("train", "eval"):
            raise ValueError(how)
        self._how = how

    def forward(self, x):
        return self.call(x, self._how == "train")


class ByTwoMethods(BatchNorm):
    def __init__(self, num_features):
        super().__init__(num_features)
        self._learns = 1.0

    def training_phase(self):
        self._learns = 1.0

    def inference_phase(self):
        self._learns = 0.0

    def forward(self, x):
        return self.call(x, self._learns > 0.5)


class ByTrainOfAFlag(BatchNorm):
    """``train(False)`` evaluates; there is no ``eval``."""

    def __init__(self, num_features):
        super().__init__(num_features)
        self._learns = 1.0

    def train(self, mode=True):
        self._learns = float(mode)

    def forward(self, x):
        return self.call(x, self._learns > 0.5)


class ByTheMethodThatIsCalled(holders.InAttributes):
    """One method trains, another one evaluates."""

    forward = None

    def forward_train(self, x):
        return holders.InAttributes.forward(self, x, True)

    def forward_test(self, x):
        return holders.InAttributes.forward(self, x, False)


class EvaluatesUnlessTold(BatchNorm):
    """Its default is evaluation."""

    def forward(self, x, fit=False):
        return self.call(x, fit)


class IgnoresItsMode(BatchNorm):
    """The flag does nothing: evaluation cannot be found."""

    def forward(self, x, flag=True):
        return self.call(x, True)
