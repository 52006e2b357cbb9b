"""Tell which of several results is the output: the one that weight and bias change."""

import numpy as np

from normkit.checking.measure.calls import call
from normkit.checking.patterns import Values
from normkit.checking.target.adapter import Adapter
from normkit.checking.target.builder import Builder
from normkit.checking.target.errors import TargetError
from normkit.checking.target.state import as_values


def which_result(builder: Builder, rank: int) -> int | None:
    """Return the place of the output among the things that a call returns; None where it returns one thing.

    Args:
        builder: How to build and call it.
        rank: The rank of the inputs.
    """
    x = np.random.default_rng(60).normal(0.5, 2.0, builder.geometry.shape(rank))
    layer = builder.build(rank)
    y = call(layer, x)
    index = layer.result.index if layer.result else None
    plain = _shaped(layer, y)
    if index is None or not plain:
        return index
    changed = builder.build(rank)
    try:
        for slot in list(changed.all_slots()):
            held = slot.read()
            if changed.library.owns(held) and as_values(changed.library, held).size == builder.geometry.features[0]:
                changed.fill(slot, np.full(1, 0.7))
        moved = not np.allclose(call(changed, x), y, atol=1e-5)
    except TargetError:
        return index
    further = _shaped(changed, y)
    others = [place for place, values in plain.items() if place in further and not np.allclose(values, further[place])]
    return index if moved or not others else others[-1]


def _shaped(layer: Adapter, y: Values) -> dict[int, Values]:
    """The further results of the output's shape, by their place among all."""
    result = layer.result
    if result is None or result.index is None:
        return {}
    places = [place for place in range(len(result.extras) + 1) if place != result.index]
    pairs = zip(places, result.extras, strict=True)
    held = {place: layer.library.values(extra) for place, extra in pairs if layer.library.owns(extra)}
    return {place: values for place, values in held.items() if values.shape == y.shape}
