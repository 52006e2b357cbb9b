"""Tell what each array that a layer keeps is for, by changing it and watching: names only break ties.

- What training does not move, and what changes the output of training, is weight or bias.
- What training moves, and what evaluation reads or the next step remembers, is a running statistic.
- So is what evaluation alone reads, though training leaves it.

A change of bias or mean shifts the output by the same amount whatever the input; one of weight or variance does not.
"""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from normkit.checking.measure.calls import call
from normkit.checking.patterns import Values
from normkit.checking.target.adapter import Adapter
from normkit.checking.target.builder import Builder
from normkit.checking.target.cells import Slot
from normkit.checking.target.errors import RAISED, TargetError
from normkit.checking.target.names import Role, last_part, role_of, speaks_of_gradient
from normkit.checking.target.signature import UnfillableError
from normkit.checking.target.state import BATCH_CACHES, ROLES, as_values, holds_numbers, slots_by_name

_MOST = 24
_CHANGES = 1e-5
_LARGE = 2000
_SHIFT = 8.0
_SETTINGS = ("eps", "momentum", "features", "groups")


@dataclass(frozen=True)
class _Effect:
    """What a change of one array does.

    Args:
        training: Whether the output of training changes.
        evaluation: Whether the output of evaluation does.
        shifts: Whether the output changes by the same amount for every input.
        remembered: Whether its value after a step of training depends on its value before.
        moved: Whether training changes it.
    """

    training: bool
    evaluation: bool
    shifts: bool
    remembered: bool
    moved: bool


@dataclass(frozen=True)
class Roles:
    """What the arrays that a layer keeps are for.

    Args:
        by_path: The roles, by path.
        makes_affine: Whether parameters of other shapes make its weight and bias, as an embedding of labels does.
        without: The paths of further arrays of a parameter's size that change its output.
    """

    by_path: Mapping[str, Role]
    makes_affine: bool = False
    without: tuple[str, ...] = ()


def find_roles(builder: Builder, rank: int, *, evaluates: bool) -> Roles:
    """Tell the roles of what a layer keeps.

    Args:
        builder: How to build and call it.
        rank: The rank of the inputs.
        evaluates: Whether it has an evaluation mode that differs from training.
    """
    try:
        experiment = _Experiment(builder, rank, evaluates=evaluates)
    except (TargetError, UnfillableError, *RAISED):
        return Roles(_by_name(builder, rank))
    found: dict[Role, list[tuple[str, _Effect]]] = {role: [] for role in ROLES}
    for path in experiment.candidates()[:_MOST]:
        effect = experiment.effect_of(path)
        role = None if effect is None else _role(effect, path, experiment.follows, evaluates=evaluates)
        if effect is not None and role is not None:
            found[role].append((path, effect))
    sizes = {path: values.size for path, values in experiment.first.items()}
    if len(found["running_mean"]) > 1 and not found["running_var"]:  # a mean of squares follows the level too
        kept = _best("running_mean", found["running_mean"], sizes)
        found["running_var"] = [item for item in found["running_mean"] if item[0] != kept]
        found["running_mean"] = [item for item in found["running_mean"] if item[0] == kept]
    roles = {_best(role, paths, sizes): role for role, paths in found.items() if paths}
    told = roles | {p: r for p, r in experiment.named().items() if r not in roles.values() and p not in roles}
    if "weight" not in told.values():
        for path, role in experiment.ignored().items():
            if role not in told.values() and path not in told:
                told[path] = role
    affine = {"weight", "bias"} & {*told.values()}
    further = [path for role in ("weight", "bias") for path, _ in found[role] if path not in told]
    return Roles(told, not affine and experiment.scaled_by_others(), tuple(further))


def _by_name(builder: Builder, rank: int) -> dict[str, Role]:
    layer = builder.build(rank)
    return {slot.path: role for role, slot in slots_by_name(layer.all_slots(), layer.library).items()}


def _role(effect: _Effect, path: str, follows: Callable[[str], Role], *, evaluates: bool) -> Role | None:
    """The role of an array that has this effect; None where it has none of the four."""
    running = effect.remembered if effect.moved else effect.evaluation and not effect.training
    if effect.moved and evaluates:
        running = effect.remembered or effect.evaluation
    if running:
        if effect.evaluation and evaluates:
            return "running_mean" if effect.shifts else "running_var"
        return follows(path)
    if effect.training and not effect.moved:
        return "bias" if effect.shifts else "weight"
    return None


def _best(role: Role, paths: list[tuple[str, _Effect]], sizes: Mapping[str, int]) -> str:
    """The likeliest of several arrays of one role: one whose name says so, of many numbers, that evaluation reads."""

    def rank(item: tuple[str, _Effect]) -> tuple[bool, bool, bool, int]:
        path, effect = item
        return role_of(last_part(path)) != role, sizes[path] == 1, not effect.evaluation, len(path)

    return min(paths, key=rank)[0]


class _Experiment:
    """Layers that have seen one batch, one of which differs in a single array.

    Args:
        builder: How to build and call it.
        rank: The rank of the inputs.
        evaluates: Whether it has an evaluation mode of its own.
    """

    def __init__(self, builder: Builder, rank: int, *, evaluates: bool) -> None:
        self.builder, self.rank, self.evaluates = builder, rank, evaluates
        shape = builder.geometry.shape(rank)
        self._inputs = [np.random.default_rng(40 + i).normal(0.4, 1.6, shape) * (1 + 0.3 * i) + i for i in range(3)]
        fresh = builder.build(rank)
        self.before = self._values(fresh)
        self.layer = self._trained()
        self.first = self._values(self.layer)
        self._base = {False: self._evaluated(None), True: self._run_both(self.layer)}
        self._after = self._values(self.layer)
        self._extras = self._further(self.layer)
        self._returned: dict[str, int] = {}
        self._effects: dict[str, _Effect | None] = {}
        self._sizes = self._possible_sizes(shape)

    def _trained(self, path: str | None = None) -> Adapter:
        """Build a layer that has seen a batch, with another value of one array."""
        layer = self.builder.build(self.rank)
        call(layer, self._inputs[0])
        if path is not None:
            slot = self._slot(layer, path)
            held = as_values(layer.library, slot.read())
            ramp = np.linspace(0.6, 1.1, held.size).reshape(held.shape)
            layer.fill(slot, np.asarray(held * 1.4 + ramp))
        return layer

    def _possible_sizes(self, shape: tuple[int, ...]) -> set[int]:
        geometry = self.builder.geometry
        channels = shape[geometry.channel_axis(self.rank)]
        sizes = {channels, int(np.prod(geometry.features)), int(np.prod(shape[1:])), int(np.prod(shape[:2]))}
        return sizes | {geometry.groups, 1}

    def _values(self, layer: Adapter) -> dict[str, Values]:
        found: dict[str, Values] = {}
        for slot in layer.all_slots():
            held = slot.read()
            if holds_numbers(layer.library, held):
                found.setdefault(slot.path, as_values(layer.library, held))
        return found

    def candidates(self) -> list[str]:
        """Return the paths of what may be a parameter or a statistic."""
        return [path for path, values in self.first.items() if values.size in self._sizes and self._counts(path)]

    def _counts(self, path: str) -> bool:
        """Whether a slot is worth a try: arrays, lists, and numbers whose name tells."""
        held, named = self._slot(self.layer, path).read(), role_of(last_part(path))
        if isinstance(held, int | float):
            of_the_layer = named is None and path.isidentifier() and isinstance(held, float)
            return named in ROLES or (of_the_layer and held in (0.0, 1.0))
        kind = str(getattr(held, "dtype", ""))
        setting = named in _SETTINGS and self.first[path].size == 1
        return not setting and "int" not in kind and "bool" not in kind

    def _slot(self, layer: Adapter, path: str) -> Slot:
        return next(slot for slot in layer.all_slots() if slot.path == path)

    def _evaluated(self, path: str | None) -> list[Values]:
        """The outputs of two inputs in evaluation, each by a layer of its own: evaluation may move what it keeps."""
        return [call(self._trained(path), x, training=False) for x in self._inputs[1:] if self.evaluates]

    def _run_both(self, layer: Adapter) -> list[Values]:
        """The outputs of two inputs in training."""
        return [call(layer, x) for x in self._inputs[1:]]

    def effect_of(self, path: str) -> _Effect | None:
        """Change one array and see what changes; None where it cannot be changed."""
        if path not in self._effects:
            self._effects[path] = self._measured(path)
        return self._effects[path]

    def _measured(self, path: str) -> _Effect | None:
        try:
            layer = self._trained(path)
            slot = self._slot(layer, path)
            outputs = {False: self._evaluated(path), True: self._run_both(layer)}
            left = self._values(layer).get(path)
            returned = self._returns(layer, slot)
        except (TargetError, UnfillableError, StopIteration, *RAISED):
            return None
        changes = {
            mode: [new - old for new, old in zip(outputs[mode], self._base[mode], strict=True)] for mode in outputs
        }
        reached = {mode: any(_differs(change) for change in changes[mode]) for mode in changes}
        mode = not (reached[False] and self.evaluates)
        shifts = reached[mode] and _is_shift(*changes[mode])
        after = self._after.get(path)
        remembered = left is not None and after is not None and left.shape == after.shape and _differs(left - after)
        if returned is not None:
            self._returned[path] = returned
        moved = self._moved(path) or returned is not None
        return _Effect(reached[True], reached[False], shifts, remembered or returned is not None, moved)

    def _further(self, layer: Adapter) -> list[Values]:
        return [layer.library.values(array) for array in layer.extra_outputs()]

    def _returns(self, layer: Adapter, slot: Slot) -> int | None:
        """The place among the further results of the new value of an array that the caller keeps."""
        if slot.owner is not layer.given:
            return None
        kept = as_values(layer.library, slot.read()).reshape(-1)
        for index, (new, old) in enumerate(zip(self._further(layer), self._extras, strict=False)):
            alike = new.size == kept.size and new.shape == old.shape
            if alike and _differs(new - old) and _differs(new.reshape(-1) - kept):
                return index
        return None

    def _moved(self, path: str) -> bool:
        steps = [values[path] for values in (self.before, self.first, self._after) if path in values]
        shaped = [values for values in steps if values.shape == steps[-1].shape]  # some are made in the first call
        return any(not np.array_equal(one, other) for one, other in itertools.pairwise(shaped))

    def follows(self, path: str) -> Role:
        """Tell mean from variance by what training stores: the level of the input changes a mean alone."""
        stored = []
        for shift in (0.0, _SHIFT):
            layer = self.builder.build(self.rank)
            call(layer, self._inputs[0] + shift)
            further, index = self._further(layer), self._returned.get(path)
            held = self._values(layer).get(path) if index is None else further[index] if index < len(further) else None
            stored.append(held)
        before, after = stored
        if before is None or after is None or after.shape != before.shape:
            return "running_mean"
        return "running_mean" if float(np.abs(after - before).max()) > _CHANGES * _SHIFT else "running_var"

    def ignored(self) -> dict[str, Role]:
        """Return what starts as weight and bias do, one and zero, and neither is moved nor changes anything."""
        found: dict[str, Role] = {}
        for path in self.candidates()[:_MOST]:
            values, effect = self.first[path], self.effect_of(path)
            if effect is None or effect.moved or effect.training or effect.evaluation or values.size == 1:
                continue
            start = values.flat[0]
            if start in (0.0, 1.0) and (values == start).all() and not speaks_of_gradient(path):
                found[path] = "weight" if start else "bias"
        return found if "weight" in found.values() else {}

    def scaled_by_others(self) -> bool:
        """Whether parameters of another shape change the output: those of an embedding or a linear layer."""
        others = [
            p for p, v in self.first.items() if v.size not in self._sizes and 1 < v.size <= _LARGE and self._counts(p)
        ]
        for path in others[:_MOST]:
            effect = self.effect_of(path)
            if effect is not None and effect.training and not effect.moved:
                return True
        return False

    def named(self) -> dict[str, Role]:
        """Return the roles that names tell, by path, for what nothing else tells."""
        slots = slots_by_name(self.layer.all_slots(), self.layer.library)
        found = {slot.path: role for role, slot in slots.items()}
        return {
            p: r for p, r in found.items() if last_part(p) not in BATCH_CACHES and self.first[p].size in self._sizes
        }


def _differs(change: Values) -> bool:
    return bool((np.abs(change) > _CHANGES).any() or np.isnan(change).any())


def _is_shift(one: Values, other: Values) -> bool:
    """Whether two inputs' outputs changed by the same amount."""
    if one.shape != other.shape:
        return False
    return bool(np.abs(one - other).max() <= 1e-3 * max(np.abs(one).max(), np.abs(other).max()) + _CHANGES)
