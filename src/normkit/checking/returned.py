"""Functions that return (y, mean, var) in any order: tell which result is which running statistic."""

import itertools

import numpy as np

from normkit.checking.arrays import Values
from normkit.checking.names import Role
from normkit.checking.patterns import reducing
from normkit.checking.subject import Subject

_OLD = {"running_mean": 5.0, "running_var": 40.0}


def returned_roles(subject: Subject, rank: int) -> tuple[tuple[int, Role], ...]:
    """Which of the further results, by position, are the new running mean and variance.

    A new statistic is a mixture of the old value and the batch's, so each result is fitted to both mixtures.
    """
    layer = subject.new(rank)
    kept = [role for role in _OLD if role in layer.slots()]
    if not kept:
        return ()
    generator = np.random.default_rng(7)
    old = {
        role: start + generator.uniform(-1, 1, subject.geometry.features) * start / 2 for role, start in _OLD.items()
    }
    layer.write(**old)
    x = generator.normal(0.0, 1.0, subject.geometry.shape(rank))
    x = x * generator.uniform(
        0.5, 9.0, x.shape[subject.geometry.channel_axis(rank) :][:1] + (1,) * _after(subject, rank)
    )
    try:
        layer.forward(x)
    except Exception:
        return ()
    channels = reducing(x.shape, tuple(a for a in range(rank) if a != subject.geometry.channel_axis(rank)), "N" * rank)
    mean = channels.average(x)
    batch = {"running_mean": mean, "running_var": channels.average((x - mean) ** 2)}
    first = [tuple(np.argwhere(channels.labels == label)[0]) for label in range(channels.statistics)]
    results = {
        index: layer.library.values(extra).reshape(-1)
        for index, extra in enumerate(layer.extras)
        if layer.library.owns(extra) and layer.library.values(extra).size == channels.statistics
    }
    best: tuple[float, tuple[tuple[int, Role], ...]] = (np.inf, ())
    for order in itertools.permutations(results, min(len(results), len(kept))):
        pairs = tuple(zip(order, kept, strict=False))
        misfit = sum(_misfit(results[i], old[role], np.array([batch[role][f] for f in first])) for i, role in pairs)
        best = min(best, (misfit, pairs), key=lambda item: item[0])
    return best[1]


def _after(subject: Subject, rank: int) -> int:
    return rank - 1 - subject.geometry.channel_axis(rank)


def _misfit(result: Values, old: Values, batch: Values) -> float:
    design = np.stack([old, batch], axis=1)
    solution = np.linalg.lstsq(design, result, rcond=None)[0]
    return float(np.abs(design @ solution - result).max() / (np.abs(result).max() + 1e-12))
