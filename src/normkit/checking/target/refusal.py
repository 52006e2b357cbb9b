"""What to say of a target that could not be run: one line an outcome, the most telling first, and a way out."""

from dataclasses import dataclass
from typing import Any

from normkit.checking.target.builder import Builder
from normkit.checking.target.callables import definition_of, global_names, name_of
from normkit.checking.target.errors import TargetError
from normkit.checking.target.frameworks import framework_of
from normkit.checking.target.model import describe_model, norms_in, other_layers_in
from normkit.checking.target.signature import UnfillableError

_SHOWN = 6


@dataclass(frozen=True)
class Tried:
    """An attempt that failed.

    Args:
        builder: How it was called.
        rank: The rank of the input.
        error: What happened.
    """

    builder: Builder
    rank: int
    error: Exception


def nothing_ran(target: Any, tried: list[Tried]) -> str:
    """Write the message for a target that never ran."""
    outcomes: dict[str, list[Tried]] = {}
    for one in tried:
        outcomes.setdefault(_outcome(one), []).append(one)
    names = global_names(definition_of(target))
    order = sorted(outcomes, key=lambda text: _telling(outcomes[text][0], names), reverse=True)
    lines = [f"cannot work out how to run {name_of(target)}. Of {len(tried)} ways to call it none ran:"]
    for text in order[:_SHOWN]:
        first, count = outcomes[text][0], len(outcomes[text])
        lines.append(f"  - {_call(first)}: {text}" + (f" ({count} times)" if count > 1 else ""))
    if len(order) > _SHOWN:
        lines.append(f"  - and {len(order) - _SHOWN} other outcomes")
    model = _model(target, tried)
    return "\n".join([*([model] if model else []), *lines, *_help(target)])


def _model(target: Any, tried: list[Tried]) -> str | None:
    """Say that the target is a whole model; None where it is none, or cannot even be built."""
    for one in tried[:1]:
        try:
            instance = one.builder.build(one.rank).instance
        except (TargetError, UnfillableError, TypeError):
            return None
        norms, others = norms_in(instance), other_layers_in(instance)
        if norms and others:
            return describe_model(name_of(target), norms, others)
    return None


def unfillable(target: Any, error: BaseException) -> str:
    """Write the message for a target whose arguments cannot be given."""
    return "\n".join([f"cannot work out how to use {name_of(target)}: {error}.", *_help(target)])


def _outcome(tried: Tried) -> str:
    """What happened, without what differs from one attempt to the next."""
    error = tried.error
    return (
        f"{error.doing.partition(' of shape')[0]} raised {error.raised}"
        if isinstance(error, TargetError)
        else str(error)
    )


def _telling(tried: Tried, names: set[str]) -> tuple[int, int, int]:
    """How much an outcome tells: an answer that was no array most, a call that never reached the code least."""
    error = tried.error
    if not isinstance(error, TargetError):
        return 0, 0, 0
    library = tried.builder.library.name
    likely = {"torch": {"torch", "nn", "F"}, "numpy": {"np", "numpy"}, "jax": {"jnp", "jax"}}[library] & names
    returned = isinstance(error.error, TypeError) and str(error.error).startswith("it returned")
    return 2 * bool(returned) + bool(likely), error.depth, error.line


def _call(tried: Tried) -> str:
    try:
        made = tried.builder.call_repr(tried.rank)
    except (UnfillableError, TypeError, TargetError):
        made = name_of(tried.builder.target)
    return f"{made} on a {tried.builder.library.name} array of shape {tried.builder.geometry.shape(tried.rank)}"


def _help(target: Any) -> list[str]:
    stateful = [
        "A layer of Equinox that keeps a state takes it in each call and returns it: an adapter keeps the state, calls",
        "the layer on each sample by jax.vmap, and returns the output alone.",
    ]
    return [
        *(stateful if framework_of(getattr(target, "adapts", target)) == "equinox" else []),
        "What would help:",
        "  --adapter FILE.py:make  a function of a few lines that takes the target and returns a callable of x alone:",
        f"                            def make(layer):  # layer is {name_of(target)}",
        "                                built = layer(6)",
        "                                return lambda x: built(x, ...)",
        "  --init NAME=VALUE       an argument of the constructor",
        "  --call NAME=VALUE       an argument of the forward call; ones, zeros, randn, mask and randint(K) are made",
        "                          to the input's shape: --call mask=ones --call labels=randint(10)",
        "  --method NAME           the method that is the forward pass",
        "  --features N            the number of channels or features it is made for",
        "  --as FAMILY             batch, layer, group, instance or rms (sets the shapes that are tried first)",
    ]
