"""The options by which a user fixes what the check cannot, or should not, find out by itself."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, TypedDict

from normkit.checking.families import CONVENTIONS, FAMILIES
from normkit.choices import did_you_mean
from normkit.errors import UserError


class CheckOptions(TypedDict, total=False):
    """The keyword arguments of ``normkit.check`` that hold for any layer, whatever it is held against."""

    features: int | None
    init: Mapping[str, Any] | None
    call: Mapping[str, Any] | None
    method: str | None
    adapter: str | None
    timeout: float
    isolated: bool


@dataclass(frozen=True)
class Options:
    """Overrides of a check.

    Args:
        family: batch, layer, group, instance or rms; None finds it out.
        features: Number of channels or features to build the target with.
        init: Arguments of the constructor, by name.
        call: Arguments of the forward call, by name.
        convention: torch, keras, flax or onnx; None finds out and accepts what one of them does.
        ranks: Input ranks the target promises to accept; None reads them from its name.
        method: The method that is the forward pass; None takes forward or __call__, or finds it.
        adapter: ``path/to/file.py:make``, a function that takes the target and returns a callable of x alone.
        select: The codes of the checks that count; empty for all.
        ignore: The codes of checks that do not count.
        strict: Whether warnings count as errors do.
    """

    family: str | None = None
    features: int | None = None
    init: Mapping[str, Any] = field(default_factory=dict)
    call: Mapping[str, Any] = field(default_factory=dict)
    convention: str | None = None
    ranks: tuple[int, ...] | None = None
    method: str | None = None
    adapter: str | None = None
    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    strict: bool = False

    def counts(self, code: str) -> bool:
        """Whether a check counts: it is selected, and not ignored."""
        return code not in self.ignore and (not self.select or code in self.select)

    @classmethod
    def of(cls, options: CheckOptions, family: str | None = None, convention: str | None = None) -> "Options":
        """Make them of the keyword arguments of ``normkit.check``."""
        return cls(
            family,
            options.get("features"),
            options.get("init") or {},
            options.get("call") or {},
            convention,
            method=options.get("method"),
            adapter=options.get("adapter"),
        )

    def __post_init__(self) -> None:
        _one_of("family (--as)", self.family, FAMILIES)
        _one_of("convention", self.convention, CONVENTIONS)
        if self.features is not None and self.features < 1:
            raise UserError(f"features must be at least 1, but {self.features} was given")


def _one_of(what: str, given: str | None, allowed: Collection[str]) -> None:
    if given is not None and given not in allowed:
        meant = did_you_mean(given, allowed)
        raise UserError(f"{what} must be one of {', '.join(allowed)}, but {given!r} was given{meant}")
