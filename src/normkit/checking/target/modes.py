"""What may switch a layer between training and evaluation: arguments, attributes, methods, entries of a dict."""

import enum
import inspect
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from normkit.checking.target.names import Role, role_of, words_of
from normkit.checking.target.signature import Signature

Kind = Literal["argument", "attribute", "method", "setting", "forward"]

_TRAINING = ("train", "training", "fit", "learn", "is_train")
_EVALUATION = ("test", "eval", "evaluation", "inference", "infer", "predict", "prediction", "testing", "deploy")
_NEVER: set[Role] = {"features", "groups", "rank", "weight", "bias", "running_mean", "running_var", "eps", "momentum"}
_MOST_PAIRS = 6


@dataclass(frozen=True)
class Switch:
    """One thing that switches the mode.

    Args:
        kind: What it is.
        name: The name of the argument or attribute, or the key in the dict of settings.
        training: Its value for training; for a method: its name and arguments; for "forward": the forward pass.
        evaluation: The same for evaluation.
    """

    kind: Kind
    name: str
    training: Any
    evaluation: Any

    def value(self, *, training: bool) -> Any:
        """Return the value for a mode."""
        return self.training if training else self.evaluation


Mode = tuple[Switch, ...]
"""Everything that is switched together."""


def usual_mode(call: Signature, instance: Any, words: Iterable[str]) -> Mode:
    """Return what by its name switches the mode.

    Args:
        call: The arguments of the call.
        instance: The object that is called; None for a function.
        words: The strings in the code.
    """
    switches: list[Switch] = []
    methods = [getattr(instance, name, None) for name in ("train", "eval")]
    if all(inspect.ismethod(method) and _takes(method, 0) for method in methods):
        switches.append(Switch("method", "train", ("train",), ("eval",)))
    else:
        for name, held in _attributes(instance).items():
            switches += _by_role("attribute", name, held, words)
    for name, role in call.roles.items():
        if name in call.fixed:
            continue
        default = call.parameters[name].default
        if role in ("training", "evaluation", "mode"):
            switches += _by_role("argument", name, True if default is inspect.Parameter.empty else default, words)
    if call.name_of("settings"):
        switches.append(_setting(words))
    return tuple(switches)


def candidates(call: Signature, instance: Any, words: Iterable[str], enums: Iterable[Any]) -> Iterator[Switch]:
    """Yield what else may switch the mode, the likeliest first.

    Args:
        call: The arguments of the call.
        instance: The object that is called; None for a function.
        words: The strings in the code.
        enums: The enumerations that the code refers to.
    """
    words, enums = list(words), list(enums)
    arguments = [name for name, role in call.roles.items() if role not in _NEVER and name not in call.fixed]
    for name in sorted(arguments, key=lambda name: not speaks_of_modes(name)):
        parameter = call.parameters[name]
        default = None if parameter.default is parameter.empty else parameter.default
        for pair in _pairs(default, words, [*_enum_of(parameter.annotation), *enums]):
            yield Switch("argument", name, *pair)
    held = _attributes(instance)
    for name in sorted(held, key=lambda name: not speaks_of_modes(name)):
        is_flag = isinstance(held[name], int) and held[name] in (0, 1) and speaks_of_modes(name)
        if isinstance(held[name], bool | str | enum.Enum) or is_flag:
            for pair in _pairs(held[name], words, enums):
                yield Switch("attribute", name, *pair)
    yield from _methods(instance, words, enums)
    if call.name_of("settings"):
        for key in (word for word in words if speaks_of_modes(word) and word.isidentifier()):
            for pair in _pairs(None, words, enums):
                yield Switch("setting", key, *pair)


def _attributes(instance: Any) -> dict[str, Any]:
    """The attributes of an object, those in slots too."""
    names = [name for kind in type(instance).__mro__ for name in getattr(kind, "__slots__", ())]
    held = {name: getattr(instance, name) for name in names if hasattr(instance, name)}
    return {**held, **getattr(instance, "__dict__", {})}


def _by_role(kind: Kind, name: str, held: Any, words: Iterable[str]) -> list[Switch]:
    role = role_of(name)
    if role in ("training", "evaluation") and (held is None or isinstance(held, bool | int)):
        return [Switch(kind, name, role == "training", role == "evaluation")]
    if role == "mode" and (isinstance(held, str) or (kind == "argument" and held is True)):
        pairs = list(_word_pairs(held, list(words)))
        return [Switch(kind, name, *pairs[0])] if pairs else []
    if role == "training" and isinstance(held, str):
        pairs = list(_word_pairs(held, list(words)))
        return [Switch(kind, name, *pairs[0])] if pairs else []
    return []


def _setting(words: Iterable[str]) -> Switch:
    """The entry of a dict of settings that tells the mode."""
    listed = list(words)
    keys = [word for word in listed if word.isidentifier() and role_of(word) in ("training", "evaluation", "mode")]
    keys = [key for key in keys if key not in _TRAINING[:1]] or keys
    key = next((key for key in keys if role_of(key) == "mode"), keys[0] if keys else "mode")
    if role_of(key) == "mode":
        return Switch("setting", key, *next(iter(_word_pairs(None, listed)), ("train", "test")))
    return Switch("setting", key, role_of(key) == "training", role_of(key) == "evaluation")


def _pairs(default: Any, words: list[str], enums: list[Any]) -> Iterator[tuple[Any, Any]]:
    """Yield pairs of values for training and evaluation that an argument with this default may take."""
    if isinstance(default, enum.Enum):
        enums = [type(default)]
    if isinstance(default, enum.Enum) or default is None:
        for kind in enums:
            members = sorted(kind, key=lambda member: not words_of(member.name) & set(_TRAINING))
            yield from itertools.islice(itertools.permutations(members, 2), _MOST_PAIRS)
    if isinstance(default, bool) or default is None or default in (0, 1):
        yield from [(True, False), (False, True)]
    if isinstance(default, str) or default is None:
        yield from itertools.islice(_word_pairs(default, words), _MOST_PAIRS)


def _word_pairs(default: Any, words: list[str]) -> Iterator[tuple[str, str]]:
    """Yield words for training and evaluation, those that the code contains first."""
    known = list(dict.fromkeys([*([default] if isinstance(default, str) else []), *words]))
    training = [word for word in known if word.lower() in _TRAINING]
    evaluation = [word for word in known if word.lower() in _EVALUATION]
    yield from itertools.product(training, evaluation)
    yield from ((word, "test") for word in training)  # whatever is not training
    yield from (("train", word) for word in evaluation)
    short = [word for word in known if 0 < len(word) < 12 and word.isidentifier() and word not in training + evaluation]
    yield from itertools.permutations(short[:4], 2)


def _methods(instance: Any, words: list[str], enums: list[Any]) -> Iterator[Switch]:
    """Yield methods that set a mode: two without arguments, or one with an argument."""
    kind = type(instance)
    names = [n for n in dir(kind) if not n.startswith("_") and speaks_of_modes(n)] if instance is not None else []
    names = [name for name in names if inspect.isfunction(inspect.getattr_static(kind, name))]
    forward = [name for name in names if "forward" in name.lower() and _takes(getattr(instance, name), 1)]
    training = [name for name in forward if words_of(name) & set(_TRAINING)]
    for pair in itertools.product(training, [name for name in forward if name not in training]):
        yield Switch("forward", "forward", *pair)
    plain = [name for name in names if _takes(getattr(instance, name), 0)]
    starting = [name for name in plain if words_of(name) & set(_TRAINING)]
    for pair in itertools.product(starting, [name for name in plain if name not in starting]):
        yield Switch("method", pair[0], (pair[0],), (pair[1],))
    for name in (name for name in names if _takes(getattr(instance, name), 1)):
        for one, other in _pairs(None, words, enums):
            yield Switch("method", name, (name, one), (name, other))


def _takes(method: Any, count: int) -> bool:
    """Whether a method can be called with this number of arguments."""
    try:
        inspect.signature(method).bind(*(None,) * count)
    except (TypeError, ValueError):
        return False
    return True


def _enum_of(annotation: Any) -> list[Any]:
    return [annotation] if inspect.isclass(annotation) and issubclass(annotation, enum.Enum) else []


def speaks_of_modes(name: str) -> bool:
    """Whether a name has a word for training, evaluation or a mode."""
    known = {*_TRAINING, *_EVALUATION, "mode", "phase", "stage", "batch", "running", "infer", "stats", "deterministic"}
    return bool(words_of(name) & known)
