"""The target and everything needed to build it afresh: the library, the arguments, the shape of its input."""

import copy
import dataclasses
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from normkit.checking.options import Options
from normkit.checking.target.adapter import Adapter, FunctionAdapter, ObjectAdapter
from normkit.checking.target.arrays import Array, Library
from normkit.checking.target.callables import backward_of, constructor_of, forward_of, name_of, words_in
from normkit.checking.target.errors import RAISED, TargetError
from normkit.checking.target.geometry import Geometry
from normkit.checking.target.names import Role, role_of
from normkit.checking.target.signature import Arguments, Signature, UnfillableError


@dataclass(frozen=True)
class Builder:
    """A way to build and call the target.

    Args:
        target: The class, instance or function.
        kind: One of: module class, module, class, object, function.
        library: The array library it works on.
        geometry: The axes of its input.
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
    def defaults(self) -> dict[Role, Any]:
        """Values for arguments that have no default."""
        return {"eps": 1e-5, "momentum": self.momentum, "training": True, "evaluation": False}

    @property
    def is_class(self) -> bool:
        """Whether it is built by calling a constructor."""
        return self.kind in ("module class", "class")

    @property
    def is_instance(self) -> bool:
        """Whether an object was given, which may have been trained, rather than a class or a function."""
        return self.kind in ("module", "object")

    @property
    def is_module(self) -> bool:
        """Whether it is a torch.nn.Module."""
        return self.kind in ("module class", "module")

    def constructor(self) -> Signature | None:
        """Return the arguments of the constructor; None where nothing is constructed."""
        return Signature(constructor_of(self.target), self.options.init, takes_input=False) if self.is_class else None

    def call(self) -> Signature:
        """Return the arguments of the forward call."""
        return Signature(forward_of(self.target, self.kind), self.options.call, takes_input=True)

    def accepts(self, role: Role) -> bool:
        """Whether the constructor or the call has an argument of this role."""
        return any(signature.name_of(role) for signature in self.signatures()) or role in self.setting_keys

    def declared(self, role: Role) -> Any:
        """Return the default of the argument of this role; None where there is none."""
        for signature in self.signatures():
            if signature.name_of(role):
                return signature.default_of(role)
        return None

    @property
    def has_mode_argument(self) -> bool:
        """Whether a function has an argument for training or evaluation; an object has other means."""
        roles: tuple[Role, ...] = ("training", "evaluation", "mode", "settings")
        return self.kind != "function" or any(self.call().name_of(role) for role in roles)

    @property
    def momentum_required(self) -> bool:
        """Whether momentum is an argument that the caller must give."""
        return any((name := s.name_of("momentum")) is not None and s.is_required(name) for s in self.signatures())

    @property
    def setting_keys(self) -> dict[Role, str]:
        """The keys of eps and momentum in a function's dict of settings, as its code spells them."""
        if self.kind != "function" or not self.call().name_of("settings"):
            return {}
        return {role: word for word in words_in(self.target) if (role := role_of(word)) in ("eps", "momentum")}

    def signatures(self) -> list[Signature]:
        """Return those of the constructor, where there is one, and of the call."""
        constructor = self.constructor()
        return [constructor, self.call()] if constructor else [self.call()]

    def with_geometry(self, **changes: Any) -> "Builder":
        """Return the same target with another layout, batch size or features."""
        return dataclasses.replace(self, geometry=dataclasses.replace(self.geometry, **changes))

    def build(self, rank: int, **overrides: Any) -> Adapter:
        """Build it.

        Args:
            rank: The rank of the inputs it will get.
            overrides: Values by role that an experiment sets: ``eps=0.1``.
        """
        self.library.seed()
        return self.build_unseeded(rank, **overrides)

    def build_unseeded(self, rank: int, **overrides: Any) -> Adapter:
        """Build it, whatever state the random generators are in."""
        arguments = self._arguments(rank, overrides)
        try:
            if self.kind == "function":
                return self._function_adapter(rank, arguments)
            constructor = self.constructor()
            if constructor is None:
                return ObjectAdapter(copy.deepcopy(self.target), self.library, self.call(), arguments)
            args, kwargs = constructor.fill(None, arguments)
            return ObjectAdapter(self._sized(self.target(*args, **kwargs), rank), self.library, self.call(), arguments)
        except UnfillableError:
            raise
        except RAISED as error:
            raise TargetError(error, "building it") from error

    def _arguments(self, rank: int, overrides: Mapping[Role, Any]) -> Arguments:
        features = self.geometry.features if self.features_as_tuple else self.geometry.features[0]
        sizes = {"features": features, "groups": self.geometry.groups, "rank": rank}
        arrays = {"weight": np.ones(self.geometry.features), "bias": np.zeros(self.geometry.features)}
        defaults = {role: self.library.make(values) for role, values in arrays.items()}
        return Arguments(overrides, sizes, {**self.defaults, **defaults})

    def _sized(self, instance: Any, rank: int) -> Any:
        """Let a layer size itself: a lazy module of torch from an input, a layer in Keras' manner from a shape."""
        shape = self.geometry.shape(rank)
        if getattr(instance, "has_uninitialized_params", bool)():
            instance.initialize_parameters(self.library.make(np.zeros(shape)))
        elif getattr(instance, "built", None) is False and callable(getattr(instance, "build", None)):
            instance.build(shape)
            instance.built = True
        return instance

    def _function_adapter(self, rank: int, arguments: Arguments) -> Adapter:
        call = self.call()
        sizes = self._parameter_shape(rank)
        starts = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0}
        arrays: dict[Role, Array] = {}
        for role, start in starts.items():
            name = call.name_of(role)
            if name and name not in call.fixed:
                arrays[role] = self.library.make(np.full(sizes, start))
        backward = backward_of(self.target)
        layer = FunctionAdapter(self.target, self.library, call, arguments, arrays, dict(self.returned), backward)
        overrides = arguments.overrides
        layer.set_settings({key: overrides[role] for role, key in self.setting_keys.items() if role in overrides})
        return layer

    def _parameter_shape(self, rank: int) -> tuple[int, ...]:
        if not self.keepdims or self.geometry.last:
            return self.geometry.features
        return (1, *self.geometry.features, *(1,) * (rank - 1 - len(self.geometry.features)))

    def call_repr(self, rank: int) -> str:
        """Write the call that builds it, for people to read."""
        if self.kind == "function":
            call = self.call()
            shown = {
                call.name_of(role): value for role, value in self.defaults.items() if call.default_of(role) is None
            }
            words = [f"{n}={shown[n]!r}" if n in shown else n for n in call.signature.parameters]
            return f"{name_of(self.target)}({', '.join(words)})"
        constructor = self.constructor()
        if constructor is None:
            return f"the {name_of(self.target)} instance that was given"
        args, kwargs = constructor.fill(None, self._arguments(rank, {}))
        words = [repr(value) for value in args] + [f"{name}={value!r}" for name, value in kwargs.items()]
        return f"{name_of(self.target)}({', '.join(words)})"


def attempt(builder: Builder, rank: int) -> tuple[int, ...]:
    """Build it, call it once on noise, and return the shape of the output.

    Raises:
        TargetError: the target raised.
    """
    layer = builder.build(rank)
    shape = builder.geometry.shape(rank)
    x = builder.library.make(np.random.default_rng(rank).normal(0.5, 2.0, size=shape))
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return builder.library.output_shape(layer.run, x)
    except UnfillableError:
        raise
    except RAISED as error:
        raise TargetError(error, f"calling it with a {builder.library.name} array of shape {shape}") from error


def variants(builder: Builder, *, keepdims: bool) -> Iterator[Builder]:
    """Vary how the features are passed, the usual way first; with ``keepdims``, weight and bias as (1, C, 1, 1)."""
    if keepdims:
        if builder.kind == "function" and builder.accepts("weight") and not builder.geometry.last:
            yield dataclasses.replace(builder, keepdims=True)
        return
    yield builder
    if builder.accepts("features"):
        yield dataclasses.replace(builder, features_as_tuple=True)
