"""Small networks trained on digits, healthy and with one fault each, for the tools that examine models."""

import copy
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import normkit
from normkit.model.preserve import set_mode

Batches = list[tuple[Tensor, Tensor]]
Patient = tuple[nn.Module, Batches]


@cache
def digits() -> tuple[Tensor, Tensor]:
    """Images (1797, 1, 8, 8) with mean 0 and variance 1, and labels."""
    found = load_digits()
    images = torch.tensor(found.images, dtype=torch.float32)[:, None]
    return (images - images.mean()) / images.std(), torch.tensor(found.target)


def training_batches(size: int = 64, *, seed: int = 0, sort: bool = False) -> Batches:
    """The first 1,400 digits in a random order, or sorted by class; whole batches only."""
    x, y = (part[:1400] for part in digits())
    order = y.argsort(stable=True) if sort else torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    return [(x[rows], y[rows]) for rows in order.split(size) if len(rows) == size]


def accuracy(model: nn.Module, change: Callable[[Tensor], Tensor] = lambda x: x, *, by_batch: bool = False) -> float:
    """Share of the other digits that a model names rightly, by its running statistics or by those of the digits."""
    x, y = (part[1400:] for part in digits())
    model = copy.deepcopy(model).eval()
    for norm in norms(model) if by_batch else ():
        set_mode(norm, training=True)
    with torch.no_grad():
        return float((model(change(x)).argmax(1) == y).double().mean())


class Block(nn.Module):
    def __init__(self, width: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(width, width, 3, padding=1, bias=False), norm(width)
        self.conv2, self.norm2 = nn.Conv2d(width, width, 3, padding=1, bias=False), norm(width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(self.conv1(x)).relu()
        return (x + self.norm2(self.conv2(y))).relu()


class ResNet(nn.Module):
    """Five batch norms, dropout, and a linear layer; two blocks, which may be checkpointed."""

    def __init__(self, norm: Callable[[int], nn.Module] = nn.BatchNorm2d, **checkpointing: Any) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 12, 3, padding=1, bias=False), norm(12)
        self.block1, self.pool, self.block2 = Block(12, norm), nn.MaxPool2d(2), Block(12, norm)
        self.dropout, self.linear = nn.Dropout(0.2), nn.Linear(12, 10)
        self.checkpointing = checkpointing

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.run(self.block1, self.norm(self.conv(x)).relu()))
        return self.linear(self.dropout(self.run(self.block2, x).mean((2, 3))))

    def run(self, block: nn.Module, x: Tensor) -> Any:
        return checkpoint(block, x, **self.checkpointing) if self.checkpointing and self.training else block(x)


def seeded(build: Callable[..., nn.Module] = ResNet, **options: Any) -> Any:
    """Build a network with weights that are the same each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build(**options)


def train(
    model: nn.Module,
    batches: Callable[[int], Batches] = lambda epoch: training_batches(seed=epoch),
    *,
    epochs: int = 5,
    lr: float = 0.05,
    after: Callable[[nn.Module], Any] = lambda _: None,
) -> Any:
    """Train by SGD with momentum, the learning rate falling to a twentieth in a line."""
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, epochs)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for epoch in range(epochs):
            for x, y in batches(epoch):
                optimizer.zero_grad()
                F.cross_entropy(model(x), y).backward()
                optimizer.step()
                after(model)
            schedule.step()
    return model.eval()


def norms(model: nn.Module) -> Iterator[Any]:
    """The batch norms of a model."""
    return (module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm))


@cache
def _healthy() -> nn.Module:
    model: nn.Module = train(seeded())
    return model


def healthy() -> Any:
    """A network that was trained as it should be."""
    return copy.deepcopy(_healthy())


def data() -> Batches:
    """Batches of an epoch that no training saw in this order."""
    return training_batches(seed=99)


# Each of the following has one fault.


def stale() -> Patient:
    """The statistics of the first epoch, the weights of the last."""
    model = train(seeded(), epochs=1)
    early = {name: value.clone() for name, value in model.state_dict().items() if "running" in name}
    train(model, epochs=3).load_state_dict(early, strict=False)
    return model, data()


def momentum(value: float) -> Patient:
    model = seeded()
    for norm in norms(model):
        norm.momentum = value
    return train(model, epochs=3), data()


def domain_shift() -> Patient:
    """Images of three times the contrast."""
    return healthy(), [(3 * x, y) for x, y in data()]


def small_batches(size: int) -> Patient:
    def few(epoch: int) -> Batches:
        return training_batches(size, seed=epoch)[:350]

    return train(seeded(), few, epochs=2, lr=0.01), training_batches(size, seed=99)[:24]


class Shared(nn.Module):
    """One norm normalizes two layers' results."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.norm, self.last, self.linear = nn.BatchNorm2d(16), nn.BatchNorm2d(16), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        first = self.norm(self.conv1(x)).relu()
        second = self.last(self.norm(3 * self.conv2(first) + 1).relu())
        return self.linear(torch.cat([3 * first.mean((2, 3)), second.amax((2, 3))], 1))


def shared_layer() -> Patient:
    return train(seeded(Shared)), data()


def nan_channel() -> Patient:
    """A channel whose running statistics took up one broken batch."""
    model = healthy()
    model.block1.norm2.running_mean[3] = float("nan")
    return model, data()


def sorted_data() -> Patient:
    """A healthy network, and a loader that does not shuffle."""
    return healthy(), training_batches(sort=True)


def one_domain_each() -> Patient:
    """Each batch has a brightness and a contrast of its own, in training too."""

    def batches(seed: int) -> Batches:
        generator = torch.Generator().manual_seed(seed)
        draws = torch.rand(2, 21, generator=generator).T.tolist()
        pairs = zip(training_batches(seed=seed), draws, strict=True)
        return [((0.2 + 3 * one) * x + 4 * two - 2, y) for (x, y), (one, two) in pairs]

    return train(seeded(), batches), batches(99)


def checkpointed(*, use_reentrant: bool) -> Patient:
    return train(seeded(use_reentrant=use_reentrant)), data()


def averaged() -> Patient:
    """An exponential average of the weights, and of nothing else."""
    average = seeded()

    def update(model: nn.Module) -> None:
        with torch.no_grad():
            for mine, theirs in zip(average.parameters(), model.parameters(), strict=True):
                mine.lerp_(theirs, 0.1)

    train(seeded(), epochs=3, after=update)
    return average.eval(), data()


def large_eps() -> Patient:
    """Built with another eps than it was trained with."""
    model = healthy()
    for norm in norms(model):
        norm.eps = 1.0
    return model, data()


class Inverted(nn.BatchNorm2d):
    """Written by hand, with the momentum of Keras' formula and torch's value."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        var, mean = torch.var_mean(x, (0, 2, 3), correction=0)
        with torch.no_grad():
            self.running_mean.mul_(self.momentum).add_(mean, alpha=1 - self.momentum)
            self.running_var.mul_(self.momentum).add_(var, alpha=1 - self.momentum)
        y = (x - mean[:, None, None]) / (var[:, None, None] + self.eps).sqrt()
        return y * self.weight[:, None, None] + self.bias[:, None, None]


def inverted_momentum() -> Patient:
    return train(seeded(norm=Inverted), epochs=3), data()


def dead_channels() -> Patient:
    """Half of a convolution is zero; the statistics are right."""
    model = healthy()
    with torch.no_grad():
        model.block1.conv1.weight[:6] = 0
    normkit.recalibrate(model, data())
    return model, data()


class Sequences(nn.Module):
    """Convolutions over (N, 8, L), and a mean over all positions."""

    def __init__(self, norm: Callable[[int], nn.Module] = nn.BatchNorm1d) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv1d(8, 16, 3, padding=1, bias=False), norm(16)
        self.conv2, self.norm2 = nn.Conv1d(16, 16, 3, padding=1, bias=False), norm(16)
        self.linear = nn.Linear(16, 10)

    def forward(self, x: Tensor, **mask: Tensor) -> Tensor:
        x = self.norm1(self.conv1(x), **mask).relu()
        return self.linear(self.norm2(self.conv2(x), **mask).relu().mean(2))


def sequences(seed: int) -> Batches:
    """Digits as sequences of their columns, stretched to lengths from 8 to 32, and padded with zeros."""
    generator = torch.Generator().manual_seed(seed)
    batches = []
    for x, y in training_batches(seed=seed):
        padded = torch.zeros(len(x), 8, 32)
        for row, length in enumerate(torch.randint(8, 33, (len(x),), generator=generator).tolist()):
            padded[row, :, :length] = F.interpolate(x[row], size=length, mode="linear")
        batches.append((padded, y))
    return batches


def padded() -> Patient:
    return train(seeded(Sequences), sequences), sequences(99)
