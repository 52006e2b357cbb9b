"""The result of fold, as an object and as text."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from normkit.renderable import Renderable

__all__ = ["FoldedNorm", "Folding", "Gain", "Proof"]


class FoldedNorm(NamedTuple):
    """A norm of the model, and what became of it.

    Args:
        name: Its name.
        cls: The name of its class.
        into: The layers into which it was folded; empty if it was not.
        reason: Why it was left as it is; None if it was not.
        is_gone: Whether nothing is left of it but its activation. Another norm keeps its place, with a weight of 1 and
            a bias of 0.
    """

    name: str
    cls: str
    into: tuple[str, ...]
    reason: str | None
    is_gone: bool


class Proof(NamedTuple):
    """The largest difference of the results of the model on the example, relative to the largest value of each.

    Args:
        float64: With model and example in float64.
        own: As they are.
        dtype: The dtype of the results as they are.
    """

    float64: float
    own: float
    dtype: str


class Gain(NamedTuple):
    """What was measured on the example, before and after.

    Args:
        seconds: The median time of a forward pass, measured in turns.
        state_bytes: The size of parameters and buffers.
        unwritten_bytes: The size of the results of norms that are gone.
    """

    seconds: tuple[float, float]
    state_bytes: tuple[int, int]
    unwritten_bytes: int


@dataclass(frozen=True)
class Folding(Renderable):
    """What :func:`normkit.fold` did with each norm of a model, and what it proved and measured. Print it.

    Args:
        norms: The norms, in the order in which the model runs them.
        proof: The differences of the results; None if nothing was folded.
        gain: Time and memory; None if nothing was folded.
    """

    norms: tuple[FoldedNorm, ...]
    proof: Proof | None
    gain: Gain | None

    @property
    def folded(self) -> tuple[FoldedNorm, ...]:
        """The norms that were folded."""
        return tuple(norm for norm in self.norms if norm.reason is None)

    @property
    def left(self) -> tuple[FoldedNorm, ...]:
        """The norms that were left as they are."""
        return tuple(norm for norm in self.norms if norm.reason is not None)

    def to_dict(self) -> dict[str, Any]:
        """Return everything in types of JSON."""
        return {
            "norms": [norm._asdict() | {"into": list(norm.into)} for norm in self.norms],
            "difference": self.proof and self.proof._asdict(),
            "gain": self.gain and {**self.gain._asdict()} | {
                "seconds": list(self.gain.seconds),
                "state_bytes": list(self.gain.state_bytes),
            },
        }  # fmt: skip

    def __str__(self) -> str:
        lines = [f"fold: {len(self.folded)} of {len(self.norms)} norms folded"]
        names = [norm.name or "(the model itself)" for norm in self.norms]
        width = max((len(name) for name in names), default=0)
        classes = max((len(norm.cls) for norm in self.norms), default=0)
        for name, norm in zip(names, self.norms, strict=True):
            became = f"left: {norm.reason}" if norm.reason is not None else f"into {', '.join(norm.into)}"
            lines.append(f"  {name:{width}}  {norm.cls:{classes}}  {became}")
        return "\n".join(lines + self._figures())

    def _figures(self) -> list[str]:
        if self.proof is None or self.gain is None:
            return []
        before, after = (1000 * seconds for seconds in self.gain.seconds)
        state = [_size(count) for count in self.gain.state_bytes]
        return [
            "results differ by at most, relative to the largest:",
            f"  {self.proof.float64:.1e} in float64, {self.proof.own:.1e} in {self.proof.dtype}",
            f"forward pass: {before:.3g} ms before, {after:.3g} ms after",
            f"parameters and buffers: {state[0]} before, {state[1]} after",
            f"results of norms that are not written any more: {_size(self.gain.unwritten_bytes)}",
        ]


def _size(count: int) -> str:
    return f"{count / 1e6:.2f} MB" if count >= 100_000 else f"{count / 1e3:.2f} kB"
