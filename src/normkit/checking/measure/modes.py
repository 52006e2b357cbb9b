"""Find what switches a layer between training and evaluation, by what it does.

In training, what one sample gets depends on the other samples. In evaluation it depends on that sample alone.
"""

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np

from normkit.checking.measure.calls import call
from normkit.checking.patterns import Values
from normkit.checking.target.adapter import Adapter
from normkit.checking.target.builder import Builder
from normkit.checking.target.callables import definition_of, enums_in
from normkit.checking.target.errors import RAISED, TargetError
from normkit.checking.target.made import Made
from normkit.checking.target.modes import Mode, Switch, candidates, speaks_of_modes
from normkit.checking.target.signature import UnfillableError
from normkit.checking.target.state import as_values

_MOST = 40
_REACHES = 1e-4


def find_mode(builder: Builder, rank: int) -> tuple[Mode, bool]:
    """Return what switches the mode, and whether evaluation was found to differ from training.

    Args:
        builder: How to build and call it.
        rank: The rank of the inputs.
    """
    layer = builder.build(rank)
    usual = layer.mode
    if _switches(builder, rank, usual):
        return usual, True
    further = list(itertools.islice(_further(builder, layer), _MOST))
    modes = [(*(s for s in usual if (s.kind, s.name) != (switch.kind, switch.name)), switch) for switch in further]
    found = next((mode for mode in modes if _switches(builder, rank, mode)), None)
    if found is not None:
        return found, True
    if _stops(builder, rank, usual):
        return usual, False
    told = [mode for mode in modes if mode[-1].kind != "attribute" or speaks_of_modes(mode[-1].name)]
    return next((mode for mode in told if _stops(builder, rank, mode)), usual), False


def _further(builder: Builder, layer: Adapter) -> Iterator[Switch]:
    definition = definition_of(builder.target)
    made = {name for name, value in builder.style.stand_ins if isinstance(value, Made)}
    passed = {*layer.given, *made}
    for switch in candidates(layer.call, layer.instance, builder.words, enums_in(definition)):
        if switch.kind != "argument" or switch.name not in passed:
            yield switch


def _switches(builder: Builder, rank: int, mode: Mode) -> bool:
    """Whether samples depend on each other in training and not in evaluation."""
    try:
        switched = dataclasses.replace(builder, mode=mode)
        return _mixes(switched, rank, training=True) and not _mixes(switched, rank, training=False)
    except (TargetError, UnfillableError, *RAISED):
        return False


def _stops(builder: Builder, rank: int, mode: Mode) -> bool:
    """Whether training alone moves something that the layer keeps: evaluation then ignores it, but is there."""
    try:
        layer = dataclasses.replace(builder, mode=mode).build(rank)
        snapshots = []
        for seed, training in ((1, True), (2, True), (3, False), (4, True)):
            call(layer, _noise(builder, rank, seed) * seed, training=training)
            snapshots.append(_kept(layer))
    except (TargetError, UnfillableError, *RAISED):
        return False
    _, trained, evaluated, again = snapshots
    still = [path for path, values in trained.items() if np.array_equal(values, evaluated.get(path, np.empty(0)))]
    return any(path in again and not np.array_equal(trained[path], again[path]) for path in still)


def _kept(layer: Adapter) -> dict[str, Values]:
    """Copies of the arrays that a layer keeps, as far as they may be statistics."""
    held = {slot.path: slot.read() for slot in layer.all_slots()}
    found = {path: as_values(layer.library, value) for path, value in held.items() if layer.library.owns(value)}
    return {path: values for path, values in found.items() if values.size > 1}


def _mixes(builder: Builder, rank: int, *, training: bool) -> bool:
    """Whether another first sample changes what the last one gets; for evaluation after two steps of training."""
    x = _noise(builder, rank, 1)
    changed = x.copy()
    changed[0] = changed[0] * 3.0 + 2.0
    outputs = []
    for values in (x, changed):  # a layer for each, since a call may move what the next one uses
        layer = _awake(builder, rank)
        for seed in (2, 3) if not training else ():
            call(layer, _noise(builder, rank, seed) * 2.0 + 1.0, training=True)
        layer.library.seed()  # what is drawn in the call shall not pass for the other samples' doing
        outputs.append(call(layer, values, training=training))
    before, after = outputs
    if before.shape != x.shape or not np.isfinite(before[-1]).all():
        return False
    return float(np.abs(before[-1] - after[-1]).max()) > _REACHES


def _awake(builder: Builder, rank: int) -> Adapter:
    """Build a layer; where a weight of zeros hides what it does, with ones in place of all zeros."""
    layer = builder.build(rank)
    y = call(layer, _noise(builder, rank, 4), training=True)
    layer = builder.build(rank)
    if float(np.ptp(y)) < _REACHES:
        for slot in list(layer.all_slots()):
            held = slot.read()
            if layer.library.owns(held) and not as_values(layer.library, held).any():
                layer.fill(slot, np.ones(1))
    return layer


def _noise(builder: Builder, rank: int, seed: int) -> Values:
    return np.random.default_rng(seed).normal(0.3, 1.5, builder.geometry.shape(rank))
