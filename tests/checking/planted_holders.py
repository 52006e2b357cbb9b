"""A right batch normalization, channels last, that keeps its statistics in one place after the other."""

from dataclasses import dataclass

import numpy as np


class BatchNorm:
    """Right but for where subclasses keep the statistics: they say so in start, kept and keep."""

    def __init__(self, num_features):
        self.gamma, self.beta = np.ones(num_features), np.zeros(num_features)
        self.start(np.zeros(num_features), np.ones(num_features))

    def start(self, mean, var):
        self.keep(mean, var)

    def unbiased(self, var, n):
        return var * n / (n - 1)

    def forward(self, x, training=True):
        if x.size == 0:
            return x.copy()
        mean, var = self.kept()
        if training:
            n = x.size // x.shape[-1]
            if n == 1:
                raise ValueError("more than one value a channel is needed")
            axes = tuple(range(x.ndim - 1))
            old, (mean, var) = (mean, var), (x.mean(axes), x.var(axes))
            self.keep(0.9 * old[0] + 0.1 * mean, 0.9 * old[1] + 0.1 * self.unbiased(var, n))
        return (self.gamma * ((x - mean) / np.sqrt(var + 1e-5)) + self.beta).astype(x.dtype)


class Biased:
    """A mixin with one fault: the running variance is the biased one."""

    def unbiased(self, var, n):
        return var


class InAttributes(BatchNorm):
    def kept(self):
        return self.centre, self.power

    def keep(self, mean, var):
        self.centre, self.power = mean, var


class InSlots(BatchNorm):
    __slots__ = ("beta", "centre", "gamma", "power")

    kept, keep = InAttributes.kept, InAttributes.keep


class InDict(BatchNorm):
    def start(self, mean, var):
        self.memory = {"first": mean, "second": var}

    def kept(self):
        return self.memory["first"], self.memory["second"]

    def keep(self, mean, var):
        self.memory.update(first=mean, second=var)


class InNestedDict(InDict):
    def start(self, mean, var):
        self.layers = {"norm1": {"first": mean, "second": var}}

    @property
    def memory(self):
        return self.layers["norm1"]


class InList(BatchNorm):
    def kept(self):
        return self.memory[0], self.memory[1]

    def keep(self, mean, var):
        self.memory = [mean, var]


class InTuple(InList):
    def keep(self, mean, var):
        self.memory = (mean, var)


class InStackedArray(InList):
    def keep(self, mean, var):
        self.memory = np.stack([mean, var])


class InListsOfNumbers(BatchNorm):
    def kept(self):
        return np.array(self.centres), np.array(self.powers)

    def keep(self, mean, var):
        self.centres, self.powers = mean.tolist(), var.tolist()


@dataclass
class Moments:
    first: object
    second: object


class InOwnObject(BatchNorm):
    def start(self, mean, var):
        self.moments = Moments(mean, var)

    def kept(self):
        return self.moments.first, self.moments.second

    def keep(self, mean, var):
        self.moments.first, self.moments.second = mean, var


@dataclass(frozen=True)
class FrozenMoments:
    first: object
    second: object


class InFrozenDataclass(InOwnObject):
    def keep(self, mean, var):
        self.moments = FrozenMoments(mean, var)


class InClassAttributes(BatchNorm):
    centre, power = np.zeros(1), np.ones(1)

    def start(self, mean, var):
        type(self).centre, type(self).power = mean, var

    def kept(self):
        return self.centre, self.power

    keep = start


class InClosure(BatchNorm):
    """A closure that the constructor makes."""

    def start(self, mean, var):
        def kept():
            return mean, var

        def keep(new_mean, new_var):
            nonlocal mean, var
            mean, var = new_mean, new_var

        self.kept, self.keep = kept, keep


class BesideWhatIsDerived(InAttributes):
    """It keeps the inverse deviation too, made anew from the variance in each step."""

    def keep(self, mean, var):
        super().keep(mean, var)
        self.scale = 1 / np.sqrt(var + 1e-5)


class BesideTheLastBatch(InAttributes):
    """It keeps the last batch's statistics too, as a backward pass needs them."""

    def forward(self, x, training=True):
        self.mean, self.var = x.mean(tuple(range(x.ndim - 1))), x.var(tuple(range(x.ndim - 1)))
        return super().forward(x, training)


IN_MODULE = {"first": 0.0, "second": 1.0}


class InModule(BatchNorm):
    """In a dict of the module, for all layers at once."""

    def kept(self):
        return IN_MODULE["first"], IN_MODULE["second"]

    def keep(self, mean, var):
        IN_MODULE.update(first=mean, second=var)


TUPLE_IN_MODULE = {"both": (0.0, 1.0)}


class InTupleOfModule(BatchNorm):
    def kept(self):
        return TUPLE_IN_MODULE["both"]

    def keep(self, mean, var):
        TUPLE_IN_MODULE["both"] = (mean, var)


def make_batch_norm(num_features, unbiased=True):
    """A factory of a closure, which keeps everything in its cells."""
    gain, shift = np.ones(num_features), np.zeros(num_features)
    centre, power = np.zeros(num_features), np.ones(num_features)

    def norm(x, training=True):
        nonlocal centre, power
        if x.size == 0:
            return x.copy()
        mean, var = centre, power
        if training:
            n = x.size // x.shape[-1]
            if n == 1:
                raise ValueError("more than one value a channel is needed")
            mean, var = x.mean(tuple(range(x.ndim - 1))), x.var(tuple(range(x.ndim - 1)))
            centre = 0.9 * centre + 0.1 * mean
            power = 0.9 * power + 0.1 * (var * n / (n - 1) if unbiased else var)
        return (gain * ((x - mean) / np.sqrt(var + 1e-5)) + shift).astype(x.dtype)

    return norm


def make_biased_batch_norm(num_features):
    return make_batch_norm(num_features, unbiased=False)


# What is kept is no mean and no variance


class InverseDeviations(BatchNorm):
    """It averages inverse deviations."""

    def kept(self):
        return self.centre, 1 / self.inverse**2 - 1e-5

    def keep(self, mean, var):
        self.centre, self.inverse = mean, 1 / np.sqrt(var + 1e-5)

    def forward(self, x, training=True):
        if not training or x.size < 2 * x.shape[-1]:
            return super().forward(x, training)
        axes = tuple(range(x.ndim - 1))
        mean, var = x.mean(axes), x.var(axes)
        self.centre = 0.9 * self.centre + 0.1 * mean
        self.inverse = 0.9 * self.inverse + 0.1 / np.sqrt(var + 1e-5)
        return (self.gamma * ((x - mean) / np.sqrt(var + 1e-5)) + self.beta).astype(x.dtype)


class Sums(BatchNorm):
    """It sums up means and variances, and divides by their number in evaluation: torch's momentum=None."""

    def start(self, mean, var):
        self.total, self.spread, self.seen = mean, 0 * var, 0

    def kept(self):
        return (self.total / self.seen, self.spread / self.seen) if self.seen else (self.total, self.spread + 1)

    def forward(self, x, training=True):
        if not training or x.size < 2 * x.shape[-1]:
            return super().forward(x, training)
        axes, n = tuple(range(x.ndim - 1)), x.size // x.shape[-1]
        mean, var = x.mean(axes), x.var(axes)
        self.total, self.spread, self.seen = self.total + mean, self.spread + var * n / (n - 1), self.seen + 1
        return (self.gamma * ((x - mean) / np.sqrt(var + 1e-5)) + self.beta).astype(x.dtype)

    def keep(self, mean, var):
        raise AssertionError


class MeansOfSquares(BatchNorm):
    """It averages squares, and takes the variance from them in evaluation."""

    def start(self, mean, var):
        self.centre, self.squares = mean, var

    def kept(self):
        return self.centre, self.squares - self.centre**2

    def forward(self, x, training=True):
        if not training or x.size < 2 * x.shape[-1]:
            return super().forward(x, training)
        axes = tuple(range(x.ndim - 1))
        mean, var = x.mean(axes), x.var(axes)
        self.centre = 0.9 * self.centre + 0.1 * mean
        self.squares = 0.9 * self.squares + 0.1 * (x**2).mean(axes)
        return (self.gamma * ((x - mean) / np.sqrt(var + 1e-5)) + self.beta).astype(x.dtype)
