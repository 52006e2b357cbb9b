"""Functions that return (y, mean, var) in any order: tell which result is which running statistic."""

import itertools
from collections.abc import Iterable

import numpy as np

from normkit.checking.patterns import Values, reducing
from normkit.checking.target.builder import Builder
from normkit.checking.target.errors import RAISED
from normkit.checking.target.names import Role
from normkit.checking.target.state import RUNNING

_OLD = {"running_mean": 5.0, "running_var": 40.0}
_FITS = 1e-3
_MAY_FIT = 5e-3

Returned = tuple[tuple[int, Role], ...]


def returned_roles(builder: Builder, ranks: Iterable[int]) -> Returned:
    """Tell which of the further results, by position, are the new running mean and variance.

    Args:
        builder: A function that runs.
        ranks: The input ranks that it takes, in rising order. One that it takes without being meant for it tells
            nothing, so the first at which the results fit counts, or else the one at which they fit best.
    """
    best: tuple[float, Returned] = (np.inf, ())
    for rank in ranks:
        best = min(best, _fitted(builder, rank), key=lambda item: item[0])
        if best[0] < _FITS:
            break
    return best[1] if best[0] < _MAY_FIT else ()


def _fitted(builder: Builder, rank: int) -> tuple[float, Returned]:
    """Return the best assignment of roles at one rank, with its residual.

    A new statistic is a mixture of the old value and the batch's. So each result is fitted to both mixtures.
    """
    nothing: tuple[float, Returned] = (np.inf, ())
    layer = builder.build(rank)
    kept = [role for role in RUNNING if role in layer.slots()]
    if not kept:
        return nothing
    generator = np.random.default_rng(7)
    old = {
        role: start + generator.uniform(-1, 1, builder.geometry.features) * start / 2 for role, start in _OLD.items()
    }
    x = generator.normal(0.0, 1.0, builder.geometry.shape(rank))
    x = x * generator.uniform(
        0.5, 9.0, x.shape[builder.geometry.channel_axis(rank) :][:1] + (1,) * _after(builder, rank)
    )
    try:
        layer.write(**old)
        layer.forward(x)
    except RAISED:
        return nothing
    held = layer.read(*kept)
    if all(not np.allclose(held[role].reshape(-1), old[role]) for role in kept):
        return 0.0, ()  # it writes to what the caller keeps
    channels = reducing(x.shape, tuple(a for a in range(rank) if a != builder.geometry.channel_axis(rank)), "N" * rank)
    mean = channels.average(x)
    batch = {"running_mean": mean, "running_var": channels.average((x - mean) ** 2)}
    first = [tuple(np.argwhere(channels.labels == label)[0]) for label in range(channels.statistics)]
    results = {
        index: layer.library.values(array).reshape(-1)
        for index, array in enumerate(layer.extra_outputs())
        if int(np.prod(array.shape)) == channels.statistics
    }
    best, count = nothing, min(len(results), len(kept))
    if not count:
        return nothing
    for order, roles in itertools.product(itertools.permutations(results, count), itertools.combinations(kept, count)):
        pairs = tuple(zip(order, roles, strict=True))
        residual = sum(_residual(results[i], old[role], np.array([batch[role][f] for f in first])) for i, role in pairs)
        best = min(best, (residual, pairs), key=lambda item: item[0])
    return best


def _after(builder: Builder, rank: int) -> int:
    return rank - 1 - builder.geometry.channel_axis(rank)


def _residual(result: Values, old: Values, batch: Values) -> float:
    design = np.stack([old, batch], axis=1)
    solution = np.linalg.lstsq(design, result, rcond=None)[0]
    residual = float(np.abs(design @ solution - result).max() / (np.abs(result).max() + 1e-12))
    batch_alone = abs(solution[0]) < 1e-3  # the batch's own statistic, returned beside the new one
    return residual + (_FITS / 10 if batch_alone else 0.0)
