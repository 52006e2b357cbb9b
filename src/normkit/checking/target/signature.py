"""Fill the arguments of a constructor or of a call by what their names mean."""

import inspect
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from normkit.checking.target.names import Role, role_of

_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _starts_at(parameter: inspect.Parameter, value: float) -> bool:
    return isinstance(parameter.default, float) and parameter.default == value


_MAY_BE_RANK = ("dim", "dims", "ndim", "n_dim", "num_dim", "dimension", "dimensions")


class UnfillableError(TypeError):
    """A required argument whose meaning its name does not tell."""


@dataclass(frozen=True)
class Arguments:
    """Values by role, in falling order of precedence; what the user fixed stands between the first two.

    Args:
        overrides: By role: what an experiment varies. It replaces even what the user fixed.
        named: By name: arrays that the caller keeps, and the mode. They replace defaults.
        sizes: By role: numbers of features and groups. They replace defaults too.
        defaults: By role: for arguments that have no default of their own.
        stand_ins: By name: for arguments without a default whose names tell nothing.
        made: By name: what is passed for a value that is made to the input's shape.
    """

    overrides: Mapping[Role, Any] = field(default_factory=dict)
    named: Mapping[str, Any] = field(default_factory=dict)
    sizes: Mapping[Role, Any] = field(default_factory=dict)
    defaults: Mapping[Role, Any] = field(default_factory=dict)
    stand_ins: Mapping[str, Any] = field(default_factory=dict)
    made: Mapping[str, Any] = field(default_factory=dict)


class Signature:
    """The arguments of one callable, by role.

    Args:
        function: What is called; for a class, its constructor.
        fixed: Arguments by name that the user fixed with --init or --call: they win over everything.
        takes_input: Whether one of the arguments is the input.
        known: The roles of arguments, by name, that an experiment told.
        keys: What its ``**kwargs`` may hold, by role: the keys that its code spells.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        fixed: Mapping[str, Any],
        *,
        takes_input: bool,
        known: Mapping[str, Role] | None = None,
        keys: Mapping[Role, str] | None = None,
    ) -> None:
        self.fixed = dict(fixed)
        try:
            self.signature = inspect.signature(function)
        except (ValueError, TypeError) as error:
            raise UnfillableError(
                f"{function!r} tells no signature (it is built in): wrap it in a Python function"
            ) from error
        self.input = self._find_input() if takes_input else None
        self.parameters = {p.name: p for p in self._named() if p.name != self.input}
        told = {name: role for name, role in (known or {}).items() if name in self.parameters}
        self.roles = {**self._find_roles(is_constructor=not takes_input), **told}
        self.takes_anything = any(p.kind is _VARIADIC[1] for p in self.signature.parameters.values())
        self.keys = {r: k for r, k in (keys or {}).items() if self.takes_anything and r not in self.roles.values()}
        unknown = set(self.fixed) - set(self.parameters)
        if unknown and not self.takes_anything:
            expected = ", ".join(self.parameters) or "none"
            raise UnfillableError(f"no argument is called {sorted(unknown)[0]!r}; it has: {expected}")

    def _named(self) -> list[inspect.Parameter]:
        return [p for p in self.signature.parameters.values() if p.kind not in _VARIADIC]

    def _find_input(self) -> str:
        """Find the argument for the input: by its name, or else the first one."""
        named = [p.name for p in self._named() if p.name not in self.fixed]
        variadic = [p.name for p in self.signature.parameters.values() if p.kind is _VARIADIC[0]]
        required = [name for name in named if self.signature.parameters[name].default is inspect.Parameter.empty]
        usual = [name for name in named if (role_of(name) == "input" and len(name) > 1) or name in ("x", "X")]
        may_be = [name for name in required if role_of(name) in (None, "input", "features")]
        found = usual or may_be or required or named or variadic
        if not found:
            raise UnfillableError("it takes no argument, so there is nowhere to put the input")
        return found[0]

    def _find_roles(self, *, is_constructor: bool) -> dict[str, Role | None]:
        """Tell the role of each argument by its name; of the features also by where they stand."""
        roles = {name: role_of(name) for name in self.parameters}
        if "features" not in roles.values():  # with num_features beside it, num_dims is the rank of the input
            roles = {name: "features" if role == "rank" else role for name, role in roles.items()}
        if not is_constructor:  # what is one or zero by default scales or shifts
            for start, role in ((1.0, "weight"), (0.0, "bias")):
                plain = [name for name, its in roles.items() if its in (None, "input")]
                idle = [name for name in plain if _starts_at(self.parameters[name], start)]
                if role not in roles.values() and idle:
                    roles[idle[0]] = role
        sizes = [name for name, role in roles.items() if role == "features"]
        for name in sizes[1:]:  # beside num_features, dim is the rank of the input too
            roles[name] = "rank" if name.strip("_").lower() in _MAY_BE_RANK else "features"
        if is_constructor and "features" not in roles.values():  # the size comes first, whatever it is called
            required = [name for name in self.parameters if self.is_required(name)]
            unnamed = [name for name in required if roles[name] in (None, "input")]
            roles.update(dict.fromkeys(unnamed[:1], "features"))
        return roles

    def name_of(self, role: Role) -> str | None:
        """Return the argument that plays this role."""
        return next((name for name, its in self.roles.items() if its == role), None)

    def parameter_of(self, role: Role) -> inspect.Parameter | None:
        """Return the argument that plays this role, with its annotation."""
        name = self.name_of(role)
        return None if name is None else self.parameters[name]

    def default_of(self, role: Role) -> Any:
        """Return the value that the argument of this role has by itself; None where it has none."""
        name = self.name_of(role)
        if name is None:
            return None
        if name in self.fixed:
            return self.fixed[name]
        default = self.parameters[name].default
        return None if default is inspect.Parameter.empty else default

    def is_required(self, name: str) -> bool:
        """Whether an argument has no default and no value from the user."""
        return name not in self.fixed and self.parameters[name].default is inspect.Parameter.empty

    def unfilled(self, arguments: Arguments) -> list[str]:
        """Return the names of the arguments that nothing here gives a value to."""
        return [
            name
            for name, role in self.roles.items()
            if self.is_required(name)
            and name not in arguments.named
            and not (role is not None and (role in arguments.sizes or role in arguments.defaults))
        ]

    def fill(self, x: Any, arguments: Arguments) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the positional and keyword arguments of a call.

        Args:
            x: The input, ignored where none is taken.
            arguments: What to pass, by role.
        """
        filled: OrderedDict[str, Any] = OrderedDict()
        for name, parameter in self.signature.parameters.items():
            role = self.roles.get(name)
            if name == self.input:
                filled[name] = (x,) if parameter.kind is _VARIADIC[0] else x
            elif parameter.kind in _VARIADIC:
                continue
            elif role is not None and role in arguments.overrides:
                filled[name] = arguments.overrides[role]
            elif name in self.fixed:
                filled[name] = arguments.made.get(name, self.fixed[name])
            elif name in arguments.named:
                filled[name] = arguments.named[name]
            elif role is not None and role in arguments.sizes:
                filled[name] = arguments.sizes[role]
            elif parameter.default is not inspect.Parameter.empty:
                continue
            elif role is not None and role in arguments.defaults:
                filled[name] = arguments.defaults[role]
            elif name in arguments.stand_ins:
                filled[name] = arguments.made.get(name, arguments.stand_ins[name])
            else:
                raise UnfillableError(f"the argument {name!r} has no default and a name that tells nothing")
        bound = inspect.BoundArguments(self.signature, filled)
        extra = {name: value for name, value in self.fixed.items() if name not in self.parameters}
        extra |= {key: arguments.overrides[role] for role, key in self.keys.items() if role in arguments.overrides}
        return bound.args, {**bound.kwargs, **extra}
