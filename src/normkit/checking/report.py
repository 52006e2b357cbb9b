"""What a check hands back: plain frozen data, the same in every process and in JSON."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")

Isolation = Literal["process", "fork", "none"]


@dataclass(frozen=True)
class Finding:
    """One deviation: what, the numbers that show it, why it matters, and how to fix it."""

    code: str
    severity: Severity
    message: str
    evidence: str
    why: str
    fix: str


@dataclass(frozen=True)
class Identity:
    """What the code computes, as measured. A field that does not apply or could not be measured is None.

    ``update_mean`` and ``update_var`` are the pair (a, b) of ``new = a * old + b * batch``.
    """

    library: str
    kind: str
    built: str
    ranks: tuple[int, ...]
    layout: str | None = None
    reduces: str | None = None
    centred: bool | None = None
    variance: str | None = None
    eps: float | None = None
    eps_place: str | None = None
    update_mean: tuple[float, float] | None = None
    update_var: tuple[float, float] | None = None
    running_variance: str | None = None
    initial: Mapping[str, str] = field(default_factory=dict)
    evaluation: str | None = None
    output_shape: str | None = None
    output_dtype: Mapping[str, str] = field(default_factory=dict)
    saved: tuple[str, ...] | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """The outcome of one check.

    Attributes:
        target: What was checked.
        family: batch, layer, group, instance or rms; ``family_reason`` says how that was decided.
        twin: The layer of torch.nn that it is held against.
        convention: torch, keras, flax or onnx: whose definitions of momentum and running variance apply.
        identity: What the code computes.
        findings: What deviates, errors first.
        passed: The codes of the checks that ran and found nothing.
        skipped: The codes of the checks that did not run, each with the reason.
        seconds: How long the experiments took.
        isolation: Where it ran: "process", loaded and run in a process of its own; "fork", an object in memory, run in
            a fork of the calling process, so that its import was not seen; "none", in the calling process.
    """

    target: str
    family: str
    family_reason: str
    twin: str
    convention: str
    identity: Identity
    findings: tuple[Finding, ...]
    passed: tuple[str, ...]
    skipped: Mapping[str, str]
    seconds: float = 0.0
    source: str | None = None
    line: int | None = None
    isolation: Isolation = "none"

    @property
    def ok(self) -> bool:
        """Whether no finding is an error."""
        return all(finding.severity != "error" for finding in self.findings)

    @property
    def codes(self) -> tuple[str, ...]:
        """The codes of all findings."""
        return tuple(finding.code for finding in self.findings)

    def count(self, severity: Severity) -> int:
        """How many findings have this severity."""
        return sum(finding.severity == severity for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for ``json.dumps``."""
        return {**dataclasses.asdict(self), "ok": self.ok}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "Report":
        """The inverse of ``to_dict``."""
        kept = {name: value for name, value in plain.items() if name != "ok"}
        identity = {name: _frozen(value) for name, value in kept["identity"].items()}
        kept["identity"] = Identity(**identity)
        kept["findings"] = tuple(Finding(**finding) for finding in kept["findings"])
        kept["passed"] = tuple(kept["passed"])
        return cls(**kept)

    def __str__(self) -> str:
        from normkit.checking.render import as_text

        return as_text(self)


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
