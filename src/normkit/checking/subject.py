"""The target and everything needed to build it afresh: which library, which arguments, which shape of input."""

import copy
import dataclasses
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from normkit.checking.arrays import Array, Library
from normkit.checking.callables import backward_of, constructor_of, forward_of, name_of, words_in
from normkit.checking.errors import RAISED, TargetError
from normkit.checking.layer import FunctionLayer, Layer, ObjectLayer
from normkit.checking.names import Role, role_of
from normkit.checking.options import Options
from normkit.checking.signature import Arguments, Signature, UnfillableError

BATCH = 5
FEATURES = 6
GROUPS = 2
_SPATIAL = {2: (), 3: (7,), 4: (3, 4), 5: (3, 2, 4)}


@dataclass(frozen=True)
class Geometry:
    """Where the features stand in the input, and how many there are.

    Args:
        features: Sizes of the feature axes: (C,), or a longer normalized_shape.
        last: Whether the features are the last axes, rather than axis 1.
        groups: Number of groups, for the targets that have groups.
        batch: Number of samples.
    """

    features: tuple[int, ...] = (FEATURES,)
    last: bool = False
    groups: int = GROUPS
    batch: int = BATCH

    def shape(self, rank: int, batch: int | None = None) -> tuple[int, ...]:
        """An input shape of this rank in which no two sizes are equal."""
        batch = self.batch if batch is None else batch
        spatial = _SPATIAL[rank][: rank - 1 - len(self.features)]
        spatial = tuple(size + 4 if size in self.features else size for size in spatial)
        return (batch, *spatial, *self.features) if self.last else (batch, *self.features, *spatial)

    def channel_axis(self, rank: int) -> int:
        """The axis of the channels."""
        return rank - 1 if self.last else 1

    def axis_names(self, rank: int) -> str:
        """One letter an axis, as NCHW."""
        spatial = {2: "", 3: "L", 4: "HW", 5: "DHW"}[rank]
        return f"N{spatial}C" if self.last else f"NC{spatial}"


@dataclass(frozen=True)
class Subject:
    """A way to build and call the target.

    Args:
        target: The class, instance or function.
        kind: One of: module class, module, class, object, function.
        library: The array library it works on.
        geometry: Where the features stand.
        options: What the user fixed.
        features_as_tuple: Whether the features argument takes a tuple.
        keepdims: Whether a function wants weight and bias as (1, C, 1, 1) rather than (C,).
        returned: For functions: which further results are running statistics.
        momentum: The value for a momentum argument without a default.
    """

    target: Any
    kind: str
    library: Library
    geometry: Geometry
    options: Options
    features_as_tuple: bool = False
    keepdims: bool = False
    returned: tuple[tuple[int, Role], ...] = ()
    momentum: float = 0.1

    @property
    def stand_ins(self) -> dict[Role, Any]:
        """Values for arguments that have no default."""
        return {"eps": 1e-5, "momentum": self.momentum, "training": True, "evaluation": False}

    @property
    def is_class(self) -> bool:
        """Whether it is built by calling a constructor."""
        return self.kind in ("module class", "class")

    @property
    def is_module(self) -> bool:
        """Whether it is a torch.nn.Module."""
        return self.kind in ("module class", "module")

    def constructor(self) -> Signature | None:
        """The arguments of the constructor; None where nothing is constructed."""
        return Signature(constructor_of(self.target), self.options.init, takes_input=False) if self.is_class else None

    def call(self) -> Signature:
        """The arguments of the forward call."""
        return Signature(forward_of(self.target, self.kind), self.options.call, takes_input=True)

    def accepts(self, role: Role) -> bool:
        """Whether the constructor or the call has an argument of this role."""
        return any(signature.name_of(role) for signature in self.signatures()) or role in self.settings

    def declared(self, role: Role) -> Any:
        """The default of the argument of this role, or what an instance holds under such a name."""
        for signature in self.signatures():
            if signature.name_of(role):
                return signature.default_of(role)
        return None

    @property
    def says_mode(self) -> bool:
        """Whether a function has an argument for training or evaluation; an object has other means."""
        roles: tuple[Role, ...] = ("training", "evaluation", "mode", "settings")
        return self.kind != "function" or any(self.call().name_of(role) for role in roles)

    @property
    def momentum_required(self) -> bool:
        """Whether momentum is an argument that the caller must give."""
        return any((name := s.name_of("momentum")) is not None and s.is_required(name) for s in self.signatures())

    @property
    def settings(self) -> dict[Role, str]:
        """For a function that takes a dict of settings: the keys of eps and momentum in it, as its code spells them."""
        if self.kind != "function" or not self.call().name_of("settings"):
            return {}
        return {role: word for word in words_in(self.target) if (role := role_of(word)) in ("eps", "momentum")}

    def signatures(self) -> list[Signature]:
        """Of the constructor, where there is one, and of the call."""
        constructor = self.constructor()
        return [constructor, self.call()] if constructor else [self.call()]

    def with_geometry(self, **changes: Any) -> "Subject":
        """The same target on another layout or with other features."""
        return dataclasses.replace(self, geometry=dataclasses.replace(self.geometry, **changes))

    def new(self, rank: int, **probes: Any) -> Layer:
        """Build it.

        Args:
            rank: The rank of the inputs it will get.
            probes: Values by role that an experiment sets: ``eps=0.1``.
        """
        self.library.seed()
        return self.new_unseeded(rank, **probes)

    def new_unseeded(self, rank: int, **probes: Any) -> Layer:
        """Build it, whatever state the random generators are in."""
        arguments = self._arguments(rank, probes)
        try:
            if self.kind == "function":
                return self._function_layer(rank, arguments)
            constructor = self.constructor()
            if constructor is None:
                return ObjectLayer(copy.deepcopy(self.target), self.library, self.call(), arguments)
            args, kwargs = constructor.fill(None, arguments)
            return ObjectLayer(
                self._materialized(self.target(*args, **kwargs), rank), self.library, self.call(), arguments
            )
        except UnfillableError:
            raise
        except RAISED as error:
            raise TargetError(error, "building it") from error

    def _arguments(self, rank: int, probes: Mapping[Role, Any]) -> Arguments:
        features = self.geometry.features if self.features_as_tuple else self.geometry.features[0]
        sizes = {"features": features, "groups": self.geometry.groups, "rank": rank}
        arrays = {"weight": np.ones(self.geometry.features), "bias": np.zeros(self.geometry.features)}
        stand_ins = {role: self.library.make(values) for role, values in arrays.items()}
        return Arguments(probes, sizes, {**self.stand_ins, **stand_ins})

    def _materialized(self, thing: Any, rank: int) -> Any:
        """A lazy module of torch takes its number of features from an input, a layer in Keras' manner from a shape."""
        shape = self.geometry.shape(rank)
        if getattr(thing, "has_uninitialized_params", bool)():
            thing.initialize_parameters(self.library.make(np.zeros(shape)))
        elif getattr(thing, "built", None) is False and callable(getattr(thing, "build", None)):
            thing.build(shape)
            thing.built = True
        return thing

    def _function_layer(self, rank: int, arguments: Arguments) -> Layer:
        call = self.call()
        sizes = self._parameter_shape(rank)
        starts = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0}
        arrays: dict[Role, Array] = {}
        for role, start in starts.items():
            name = call.name_of(role)
            if name and name not in call.given:
                arrays[role] = self.library.make(np.full(sizes, start))
        backward = backward_of(self.target)
        layer = FunctionLayer(self.target, self.library, call, arguments, arrays, dict(self.returned), backward)
        probes = arguments.probes
        layer.set_settings({key: probes[role] for role, key in self.settings.items() if role in probes})
        return layer

    def _parameter_shape(self, rank: int) -> tuple[int, ...]:
        if not self.keepdims or self.geometry.last:
            return self.geometry.features
        return (1, *self.geometry.features, *(1,) * (rank - 1 - len(self.geometry.features)))

    def built(self, rank: int) -> str:
        """The call that built it, for people to read."""
        if self.kind == "function":
            call = self.call()
            shown = {
                call.name_of(role): value for role, value in self.stand_ins.items() if call.default_of(role) is None
            }
            words = [f"{n}={shown[n]!r}" if n in shown else n for n in call.signature.parameters]
            return f"{name_of(self.target)}({', '.join(words)})"
        constructor = self.constructor()
        if constructor is None:
            return f"the {name_of(self.target)} instance that was given"
        args, kwargs = constructor.fill(None, self._arguments(rank, {}))
        words = [repr(value) for value in args] + [f"{name}={value!r}" for name, value in kwargs.items()]
        return f"{name_of(self.target)}({', '.join(words)})"


def attempt(subject: Subject, rank: int) -> tuple[int, ...]:
    """Build it and call it once on noise; the shape of the output.

    Raises:
        TargetError: the target raised.
    """
    layer = subject.new(rank)
    shape = subject.geometry.shape(rank)
    x = subject.library.make(np.random.default_rng(rank).normal(0.5, 2.0, size=shape))
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return subject.library.output_shape(layer.run, x)
    except UnfillableError:
        raise
    except RAISED as error:
        raise TargetError(error, f"calling it with a {subject.library.name} array of shape {shape}") from error


def variants(subject: Subject, keepdims: bool) -> Iterator[Subject]:
    """The ways to pass the features, the usual first; with ``keepdims``, weight and bias as (1, C, 1, 1)."""
    if keepdims:
        if subject.kind == "function" and subject.accepts("weight") and not subject.geometry.last:
            yield dataclasses.replace(subject, keepdims=True)
        return
    yield subject
    if subject.accepts("features"):
        yield dataclasses.replace(subject, features_as_tuple=True)
