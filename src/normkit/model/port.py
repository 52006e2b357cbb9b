"""Norm layers' arrays from one library to another: names, nesting, the running variance, momentum and eps."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from normkit.choices import did_you_mean
from normkit.conventions import CONVENTIONS, Convention
from normkit.errors import UserError
from normkit.model.arrays import as_given_to, flat_arrays, nested, separator
from normkit.model.named_norms import Arrays, FoundNorm, find_norms
from normkit.model.summary import Skipped, shorten
from normkit.renderable import Renderable

__all__ = ["Ported", "PortedLayer", "port"]


class PortedLayer(NamedTuple):
    """A norm layer that was converted.

    Args:
        name: Its name in the source.
        new_name: Its name in the result.
        kind: "batch", "rms", or "layer" for a layer, group or instance norm, whose arrays are alike.
        arguments: What the layer that takes the arrays is to be built with.
    """

    name: str
    new_name: str
    kind: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Ported(Renderable):
    """Norm layers' arrays in the form of another library. Print it to see what was done.

    Args:
        source: The library that they came from.
        to: The library that they are for.
        state: The arrays: for torch a state dict of tensors; for Keras by path, for MLX by name with dots, for Flax
            linen's collections, for ONNX the inputs of each node: NumPy arrays.
        layers: The layers, with the arguments that fit the arrays.
        left: The arrays that were not converted, and why. They are not in ``state``.
        notes: What cannot be known from arrays alone.
    """

    source: str
    to: str
    state: dict[str, Any]
    layers: tuple[PortedLayer, ...]
    left: tuple[Skipped, ...]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        titles = CONVENTIONS[self.source].title, CONVENTIONS[self.to].title
        lines = [f"port: {_plural(len(self.layers), 'norm layer')} from {titles[0]} to {titles[1]}"]
        for layer in self.layers:
            arguments = ", ".join(f"{name}={value:g}" for name, value in layer.arguments.items())
            renamed = "" if layer.name == layer.new_name else f" -> {layer.new_name}"
            lines.append(f"  {layer.name}{renamed} ({layer.kind}): build it with {arguments}")
        reasons: dict[str, list[str]] = {}
        for one in self.left:
            reasons.setdefault(one.reason, []).append(one.name)
        lines += [f"  left {_plural(len(names), 'array')}: {shorten(names)}: {why}" for why, names in reasons.items()]
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the arrays as JSON types."""
        return {
            "source": self.source,
            "to": self.to,
            "layers": [layer._asdict() for layer in self.layers],
            "left": [{"name": one.name, "reason": one.reason} for one in self.left],
            "notes": list(self.notes),
        }


def port(
    state: Mapping[Any, Any] | Sequence[Any],
    source: str,
    to: str,
    *,
    names: Mapping[str, str] | None = None,
    kinds: Mapping[str, str] | None = None,
    count: int | Mapping[str, int] | None = None,
    eps: float | None = None,
    momentum: float | None = None,
) -> Ported:
    """Convert the arrays of norm layers from the form of one library to that of another.

    Only norms are converted: names, nesting and, with ``count``, the running variance. Other arrays (kernels, whose
    axes differ too) are left and named, and are not in the result: load it with ``strict=False``.

    A running variance is copied as it is. Evaluation then gives the source's numbers; biased or unbiased, it is the
    number that the source divides by.

    Args:
        state: The arrays: a flat mapping of names with "." (torch, MLX, ONNX) or "/" (Keras, Flax), a nested one, or
            Keras' ``model.weights``.
        source: "torch", "keras", "flax", "mlx" or "onnx".
        to: The same.
        names: New names of layers, by their names in the source; others keep theirs.
        kinds: "batch", "layer", "group", "instance" or "rms" by pattern of layer names, where the arrays do not say it:
            a weight alone is an RMS norm's in Flax, and may be that of a PReLU in torch.
        count: How many values a channel has in a batch (batch · height · width), for all layers or by pattern of layer
            names: the running variance becomes what the other library would have stored, for training on.
        eps: The source's eps; None: the default there.
        momentum: The source's momentum, in its meaning; None: the default there.
    Returns:
        The arrays, what the layers are to be built with, and what was left.
    Raises:
        UserError: an unknown library, two layers of one name, a bad argument, or no norm among the arrays.

    >>> import numpy as np
    >>> arrays = {"gamma": np.ones(3), "beta": np.zeros(3), "moving_mean": np.zeros(3), "moving_variance": np.ones(3)}
    >>> ported = port({f"bn/{name}": array for name, array in arrays.items()}, "keras", "torch")
    >>> list(ported.state), ported.layers[0].arguments
    (['bn.weight', 'bn.bias', 'bn.running_mean', 'bn.running_var'], {'eps': 0.001, 'momentum': 0.01})
    """
    for argument, library in (("source", source), ("to", to)):
        if library not in CONVENTIONS:
            meant = did_you_mean(library, CONVENTIONS)
            raise UserError(f"`{argument}` must be one of {', '.join(CONVENTIONS)}, not {library!r}{meant}")
    found, left = find_norms(flat_arrays(state, source), source, kinds or {})
    if not found:
        reasons = "; ".join(sorted({one.reason for one in left})) or "there are none"
        raise UserError(f"port found no norm among the arrays ({reasons}): is it {CONVENTIONS[source].title}'s state?")
    _check_used("names", names or {}, found, exact=True)
    _check_used("kinds", kinds or {}, found)
    counts = count if isinstance(count, Mapping) else {} if count is None else {"*": count}
    _check_used("count", counts, found)
    if any(number < 2 for number in counts.values()):
        raise UserError("`count` must be 2 or more: one value has no unbiased variance")
    layers = [_layer(name, kind, arrays, source, to, names or {}, (eps, momentum)) for name, kind, arrays in found]
    if len({layer.new_name for layer in layers}) < len(layers):
        raise UserError("`names` gives two layers the same name")
    converted: list[tuple[PortedLayer, Arrays]] = []
    for layer, (name, _, arrays) in zip(layers, found, strict=True):
        number = next((counts[pattern] for pattern in counts if fnmatchcase(name, pattern)), None)
        converted.append((layer, _with_variance(arrays, number, CONVENTIONS[source], CONVENTIONS[to])))
    notes = tuple(_notes(found, source, to, counts, {"eps": eps, "momentum": momentum}))
    tree = nested(((layer.new_name, _named(layer.kind, arrays, to)) for layer, arrays in converted), to)
    return Ported(source, to, as_given_to(tree, to), tuple(layers), tuple(left), notes)


def _layer(
    name: str,
    kind: str,
    arrays: Arrays,
    source: str,
    to: str,
    names: Mapping[str, str],
    given: tuple[float | None, float | None],
) -> PortedLayer:
    """Return the new name of a layer, and the arguments that the other library's layer needs."""
    theirs, ours = CONVENTIONS[source], CONVENTIONS[to]
    eps, momentum = given
    if eps is None:
        eps = theirs.epsilons[kind]
    if eps is None:  # torch's RMSNorm: that of the dtype
        eps = _machine_epsilon(next(iter(arrays.values())))
    arguments = {ours.eps_name: eps}
    if kind == "batch" and to != "onnx":  # where a layer in evaluation has none
        arguments["momentum"] = theirs.convert_momentum(theirs.momentum if momentum is None else momentum, ours)
    new = names.get(name, name if to == "onnx" else name.replace(separator(source), separator(to)))
    return PortedLayer(name, new, kind, arguments)


def _machine_epsilon(array: Any) -> float:
    dtype = str(array.dtype).rpartition(".")[2]
    return {"float64": 2.0**-52, "bfloat16": 2.0**-7, "float16": 2.0**-10}.get(dtype, 2.0**-23)


def _with_variance(arrays: Arrays, count: int | None, source: Convention, to: Convention) -> Arrays:
    """Return arrays whose running variance is that of the other library."""
    if count is None or "running_var" not in arrays or source.unbiased_running == to.unbiased_running:
        return arrays
    factor = count / (count - 1)
    return {**arrays, "running_var": arrays["running_var"] * (factor if to.unbiased_running else 1 / factor)}


def _named(kind: str, arrays: Arrays, to: str) -> Arrays:
    """Return the arrays of a layer under the names of a library, in its order."""
    convention = CONVENTIONS[to]
    return {convention.name_of(role, kind): arrays[role] for role in convention.arrays if role in arrays}


def _check_used(argument: str, patterns: Mapping[str, Any], found: Sequence[FoundNorm], *, exact: bool = False) -> None:
    for pattern in patterns:
        if not any(one.name == pattern if exact else fnmatchcase(one.name, pattern) for one in found):
            known = shorten([one.name for one in found])
            raise UserError(f"`{argument}` names {pattern!r}, which is no norm; the norms are {known}")


def _notes(
    found: Sequence[FoundNorm], source: str, to: str, counts: Mapping[str, int], given: Mapping[str, float | None]
) -> Iterator[str]:
    """Yield what the arrays do not say."""
    theirs, ours = CONVENTIONS[source], CONVENTIONS[to]
    is_batch = any(one.kind == "batch" for one in found)
    for argument, value in given.items():
        if value is None and source != to and (argument == "eps" or is_batch):
            yield f"{argument} is taken to be {theirs.title}'s default: arrays do not hold it"
    if is_batch and theirs.unbiased_running != ours.unbiased_running and not counts:
        stored = "biased", "unbiased"
        yield (
            f"running variances are copied: {theirs.title} stores {stored[theirs.unbiased_running]} ones, {ours.title} "
            f"{stored[ours.unbiased_running]} ones; evaluation is the same, and `count` converts them"
        )
    if "mlx" in (source, to) and source != to and any(one.kind == "layer" for one in found):
        yield "a group of MLX is every G-th channel, unless it was built with pytorch_compatible=True"


def _plural(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
