"""The target and everything needed to build it afresh: the library, the arguments, the shape of its input."""

import contextlib
import copy
import dataclasses
import inspect
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from normkit.checking.options import Options
from normkit.checking.target.adapter import Adapter, Passing, Wiring
from normkit.checking.target.arrays import Array, Library
from normkit.checking.target.callables import (
    backward_of,
    constructor_of,
    definition_of,
    forward_of,
    global_names,
    name_of,
    words_in,
)
from normkit.checking.target.errors import RAISED, TargetError
from normkit.checking.target.geometry import Geometry
from normkit.checking.target.global_state import no_uninitialised_memory
from normkit.checking.target.made import Made, made
from normkit.checking.target.modes import Mode, usual_mode
from normkit.checking.target.names import Role, role_of
from normkit.checking.target.shared import SharedState
from normkit.checking.target.signature import Arguments, Signature, UnfillableError
from normkit.checking.target.state import AFFINE, ROLES

STARTS = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0}
"""What a caller starts the arrays with that he keeps."""


_ALLOCATES = {"empty", "empty_like", "new_empty", "Tensor", "FloatTensor"}


@dataclass(frozen=True)
class Style:
    """How the target is called, where there is more than one usual way.

    Args:
        features_as_tuple: Whether the features argument takes a tuple.
        parameters: The shape of arrays that the caller keeps: "flat" for (C,), "keepdims" for (1, C, 1, 1), "column"
            for (C, 1), "trailing" for (C, 1, 1), "number" for one number as weight and as bias.
        gives: Which arrays the caller passes: "all", or those without a default ("required").
        numbers: Whether arrays are passed too where the default is a number.
        transposed: Whether it takes (C, N) where an input is (N, C).
        method: The method that is the forward pass; None takes forward or __call__.
        stand_ins: Values for arguments whose names tell nothing.
        lists: Whether it takes nested lists of numbers in place of arrays.
        one_by_one: Whether it takes one sample at a time, without an axis for the batch.
    """

    features_as_tuple: bool = False
    parameters: str = "flat"
    gives: str = "all"
    numbers: bool = False
    transposed: bool = False
    method: str | None = None
    stand_ins: tuple[tuple[str, Any], ...] = ()
    lists: bool = False
    one_by_one: bool = False


@dataclass(frozen=True)
class Builder:
    """A way to build and call the target.

    Args:
        target: The class, instance or function.
        kind: One of: module class, module, class, object, function, factory (a function that returns a callable).
        library: The array library it works on.
        geometry: The axes of its input.
        options: What the user fixed.
        shared: Its state that outlives a copy.
        style: How it is called.
        mode: What switches it between training and evaluation; None takes what is so by its name.
        roles: The roles of what it keeps, by path; None tells them by their names.
        returned: For functions: which further results are running statistics.
        result_index: Where among several results the output is; None tells it by its shape.
        momentum: The value for a momentum argument without a default.
        known: The roles of arguments, by name, that an experiment told.
    """

    target: Any
    kind: str
    library: Library
    geometry: Geometry
    options: Options
    shared: SharedState
    style: Style = Style()
    mode: Mode | None = None
    roles: Mapping[str, Role] | None = None
    returned: tuple[tuple[int, Role], ...] = ()
    result_index: int | None = None
    momentum: float = 0.1
    known: tuple[tuple[str, Role], ...] = ()

    @property
    def defaults(self) -> dict[Role, Any]:
        """Values for arguments that have no default."""
        return {"eps": 1e-5, "momentum": self.momentum}

    @property
    def is_class(self) -> bool:
        """Whether it is built by calling a constructor."""
        return self.kind in ("module class", "class", "factory")

    @property
    def is_instance(self) -> bool:
        """Whether an object was given, which may have been trained, rather than a class or a function."""
        return self.kind in ("module", "object")

    @property
    def is_module(self) -> bool:
        """Whether it is a torch.nn.Module."""
        return self.kind in ("module class", "module")

    @property
    def is_function(self) -> bool:
        """Whether it is a function, whose caller keeps its state."""
        return self.kind == "function"

    def constructor(self) -> Signature | None:
        """Return the arguments of the constructor; None where nothing is constructed."""
        if not self.is_class:
            return None
        function = self.target if self.kind == "factory" else constructor_of(self.target)
        return Signature(function, self.options.init, takes_input=False, known=dict(self.known), keys=self._keys)

    def call(self, instance: Any = None) -> Signature:
        """Return the arguments of the forward call.

        Args:
            instance: For a factory: what it returned.
        """
        fixed = {name: made(value) or value for name, value in self.options.call.items()}
        return Signature(self._forward(instance), fixed, takes_input=True, known=dict(self.known), keys=self._keys)

    def call_of_first(self) -> Signature | None:
        """Return the arguments of the forward call; None where it cannot be built in this way."""
        try:
            return self.call()
        except (TargetError, TypeError):
            return None

    def _forward(self, instance: Any) -> Any:
        if self.kind != "factory":
            return forward_of(self.target, self.kind, self.style.method)
        if instance is None:
            instance = self.build(max(2, len(self.geometry.features) + 1)).instance
        if inspect.isroutine(instance):
            return instance
        return forward_of(instance, "object", self.style.method)

    def accepts(self, role: Role) -> bool:
        """Whether the constructor or the call has an argument of this role."""
        named = any(signature.name_of(role) or role in signature.keys for signature in self.signatures())
        return named or role in self.setting_keys

    def declared(self, role: Role) -> Any:
        """Return the default of the argument of this role; None where there is none."""
        for signature in self.signatures():
            if signature.name_of(role):
                return signature.default_of(role)
        return None

    @property
    def momentum_required(self) -> bool:
        """Whether momentum is an argument that the caller must give."""
        return any((name := s.name_of("momentum")) is not None and s.is_required(name) for s in self.signatures())

    @property
    def setting_keys(self) -> dict[Role, str]:
        """The keys of eps and momentum in a function's dict of settings, as its code spells them."""
        if not self.call().name_of("settings"):
            return {}
        return self._keys

    @cached_property
    def _keys(self) -> dict[Role, str]:
        """The strings in its code that are usual names of eps and momentum."""
        return {role: word for word in self.words if (role := role_of(word)) in ("eps", "momentum")}

    def signatures(self) -> list[Signature]:
        """Return those of the constructor, where there is one, and of the call."""
        constructor = self.constructor()
        return [constructor, self.call()] if constructor else [self.call()]

    def with_geometry(self, **changes: Any) -> "Builder":
        """Return the same target with another layout, batch size or features."""
        return dataclasses.replace(self, geometry=dataclasses.replace(self.geometry, **changes))

    def with_style(self, **changes: Any) -> "Builder":
        """Return the same target, called in another way."""
        return dataclasses.replace(self, style=dataclasses.replace(self.style, **changes))

    def axis_names(self, rank: int) -> str:
        """Return one letter an axis of what it takes."""
        return "CN" if self.style.transposed else self.geometry.axis_names(rank)

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
        arguments = self.arguments(overrides)
        private = self.shared.private()
        private.use()
        try:
            with no_uninitialised_memory() if self._allocates else contextlib.nullcontext():
                instance = self._instance(rank, arguments)
            call = self.call(instance) if self.kind == "factory" else self.call()
        except UnfillableError:
            raise
        except RAISED as error:
            raise TargetError(error, "building it") from error
        held = None if inspect.isroutine(instance) else instance
        wiring = Wiring(
            method=self._method_of(instance),
            mode=usual_mode(call, held, self.words) if self.mode is None else self.mode,
            roles=self.roles,
            returned=dict(self.returned),
            result_index=self.result_index,
            passing=Passing(self.style.transposed, self.style.lists, self.style.one_by_one),
            axis_names=self.axis_names(rank),
            backward_function=backward_of(self.target) if self.is_function else None,
        )
        settings, given = self._settings(call, overrides), self._given(call, rank)
        return Adapter(instance, self.library, call, arguments, private, given, settings, wiring)

    @cached_property
    def _allocates(self) -> bool:
        """Whether its code may hand out memory that was never set."""
        return bool(global_names(definition_of(self.target)) & _ALLOCATES)

    @cached_property
    def words(self) -> list[str]:
        """The strings in the code."""
        return words_in(definition_of(self.target))

    def _instance(self, rank: int, arguments: Arguments) -> Any:
        if self.is_function:
            return self.target
        constructor = self.constructor()
        if constructor is None:
            return copy.deepcopy(self.target)
        args, kwargs = constructor.fill(None, self._with_sizes(constructor, rank, arguments))
        return self._sized(self.target(*args, **kwargs), rank)

    def _method_of(self, instance: Any) -> str | None:
        """The name of the method to call; None where the object itself is called."""
        if self.style.method is not None or inspect.isroutine(instance):
            return self.style.method
        return None if callable(instance) else "forward"

    def arguments(self, overrides: Mapping[Role, Any]) -> Arguments:
        """Return what to pass by role, without what the caller keeps."""
        features = self.geometry.features if self.style.features_as_tuple else self.geometry.features[0]
        sizes = {"features": features, "groups": self.geometry.groups}
        return Arguments(overrides, {}, sizes, self.defaults, dict(self.style.stand_ins))

    def _with_sizes(self, constructor: Signature, rank: int, arguments: Arguments) -> Arguments:
        """Add what only a constructor takes: the rank, and values to start weight and bias with."""
        named = {name: rank for name, role in constructor.roles.items() if role == "rank"}
        shape, names = self.geometry.shape(rank), self.geometry.axis_names(rank)
        arrays = {n: v.make(self.library, shape, names) for n, v in self.style.stand_ins if isinstance(v, Made)}
        return dataclasses.replace(arguments, named=named, made=arrays)

    def _sized(self, instance: Any, rank: int) -> Any:
        """Let a layer size itself: a lazy module of torch from an input, a layer in Keras' manner from a shape."""
        shape = self.geometry.shape(rank)
        if getattr(instance, "has_uninitialized_params", bool)():
            instance.initialize_parameters(self.library.make(np.zeros(shape)))
        elif getattr(instance, "built", None) is False and callable(getattr(instance, "build", None)):
            instance.build(shape)
            instance.built = True
        return instance

    def _settings(self, call: Signature, overrides: Mapping[Role, Any]) -> dict[str, Any] | None:
        """The dict of settings that a function takes, with what an experiment sets."""
        name = call.name_of("settings")
        if name is None:
            return None
        if name in call.fixed:
            return {**call.fixed.pop(name)}
        keys = self.setting_keys
        return {key: overrides[role] for role, key in keys.items() if role in overrides}

    def _given(self, call: Signature, rank: int) -> dict[str, Array]:
        """The arrays that the caller of the target keeps, by the name of their argument."""
        given: dict[str, Array] = {}
        for name, role in call.roles.items():
            shaped = call.fixed.get(name)
            if role in ROLES and isinstance(shaped, Made):  # the user says its shape
                del call.fixed[name]
                shape = self.geometry.shape(rank)
                shape = shape[::-1] if self.style.transposed else shape
                given[name] = shaped.make(self.library, shape, self.axis_names(rank))
                continue
            if role not in ROLES or name in call.fixed or not self._gives(call, name):
                continue
            number = self.style.parameters == "number" and role in AFFINE
            given[name] = STARTS[role] if number else self.parameter(STARTS[role], rank)
        for name, value in self.style.stand_ins:
            if isinstance(value, Made) and name in call.roles and "C" in (value.axes or ()):  # told by what it does
                role = (self.roles or {}).get(name, "weight")
                given[name] = self.parameter(STARTS[role], rank)
        return given

    def _gives(self, call: Signature, name: str) -> bool:
        if call.is_required(name):
            return True
        default = call.parameters[name].default
        if self.style.gives == "required" or isinstance(default, bool | str):
            return False
        return default is None or self.style.numbers

    def parameter(self, start: float, rank: int) -> Any:
        """Make an array that the caller keeps, one entry a channel or feature."""
        features = self.geometry.features
        ones = (1,) * (rank - len(features))
        shapes = {
            "keepdims": (*ones, *features) if self.geometry.last else (1, *features, *ones[1:]),
            "trailing": (*features, *(1,) * (rank - 1 - len(features))),
            "column": (*features, 1),
        }
        shape = shapes.get(self.style.parameters, features)
        return np.full(shape, start).tolist() if self.style.lists else self.library.make(np.full(shape, start))

    def call_repr(self, rank: int) -> str:
        """Write the call that builds it, for people to read."""
        if self.is_function:
            call = self.call()
            shown = {
                call.name_of(role): value for role, value in self.defaults.items() if call.default_of(role) is None
            }
            shown |= dict(self.style.stand_ins)
            words = [f"{n}={shown[n]}" if n in shown else n for n in call.signature.parameters]
            return f"{name_of(self.target)}({', '.join(words)})"
        constructor = self.constructor()
        if constructor is None:
            return f"the {name_of(self.target)} instance that was given"
        args, kwargs = constructor.fill(None, self._with_sizes(constructor, rank, self.arguments({})))
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
