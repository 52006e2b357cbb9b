"""The outcome of a check: plain frozen data, the same in every process and in JSON, and its text for people.

The text is cut into sections of (label, text) lines. The plain text and the coloured one show the same sections.
"""

import dataclasses
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from normkit.checking.families import CONVENTIONS, TITLES
from normkit.renderable import Renderable

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")

Mode = Literal["training", "evaluation"]
MODES: tuple[Mode, ...] = ("training", "evaluation")

Verdict = Literal["equivalent", "not equivalent", "not judged"]

Isolation = Literal["process", "fork", "none"]

WIDTH = 100
"""Of plain text, in characters."""

_LABEL = 16
STYLES: Mapping[str, str] = {
    "error": "bold red",
    "warning": "bold yellow",
    "note": "bold cyan",
    "equivalent": "bold green",
    "not equivalent": "bold red",
    "not judged": "bold yellow",
}
"""Colours of severities and verdicts."""


@dataclass(frozen=True)
class Section(Renderable):
    """A heading with (label, text) lines below it, and sections within it; findings carry their severity."""

    heading: str
    lines: list[tuple[str, str]]
    severity: Severity | None = None
    parts: tuple["Section", ...] = ()

    def __str__(self) -> str:
        return "\n".join(self._text(""))

    def _text(self, indent: str) -> Iterator[str]:
        yield wrapped(self.heading, first=indent, rest=f"{indent}  ")
        for label, text in self.lines:
            prefix = f"{indent}  {label:<{_LABEL}}  "
            yield wrapped(text, first=prefix, rest=" " * len(prefix))
        for part in self.parts:
            yield from part._text(f"{indent}  ")

    def __rich__(self) -> "RenderableType":
        from rich.console import Group

        return Group(*self._rendered())

    def _rendered(self) -> Iterator["RenderableType"]:
        from rich.padding import Padding
        from rich.table import Table
        from rich.text import Text

        yield self._title()
        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim", min_width=_LABEL, no_wrap=True)
        table.add_column()
        for label, text in self.lines:
            table.add_row(label, Text(text))
        below: list[RenderableType] = [table, *self.parts] if self.lines else [*self.parts]
        for part in below:
            yield Padding(part, (0, 0, 0, 2))

    def _title(self) -> "Text":
        """The heading; of a finding, its severity and code in colour."""
        from rich.text import Text

        title = Text(self.heading)
        if self.severity is None:
            title.stylize("bold")
        else:
            title.stylize(STYLES[self.severity], 0, len(self.heading.partition(": ")[0]))
        return title


@dataclass(frozen=True)
class Finding:
    """One deviation: what, the numbers that show it, why it matters, and how to fix it.

    Attributes:
        code: The check that found it.
        severity: error, warning or note.
        message: What is wrong.
        evidence: The numbers that show it.
        why: Why it matters.
        fix: How to fix it.
        mode: training or evaluation, where only one of them is concerned and it makes a difference to other checks.
        edge: Whether it concerns rare inputs or dtypes only, which nearly every hand-written layer gets wrong.
    """

    code: str
    severity: Severity
    message: str
    evidence: str
    why: str
    fix: str
    mode: Mode | None = None
    edge: bool = False

    def section(self) -> Section:
        """Return its text; that of an edge case in short."""
        lines = [("measured", self.evidence), ("why it matters", self.why), ("how to fix", self.fix)]
        shown = [line for line in lines if not (self.edge and line[0] == "why it matters")]
        return Section(f"{self.severity}  {self.code}: {self.message}", shown, self.severity)


@dataclass(frozen=True)
class Identity:
    """The measured properties of the code. A field that does not apply or could not be measured is None.

    ``update_mean`` and ``update_var`` are the pair (a, b) of ``new = a * old + b * batch``. ``batch_weights`` says how
    b goes on: constant, cumulative (1 / n for the n-th batch, the plain average of all) or changing; the pair is then
    that of the last batch of the experiment.
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
    batch_weights: str | None = None
    running_variance: str | None = None
    initial: Mapping[str, str] = field(default_factory=dict)
    evaluation: str | None = None
    runs: str | None = None
    output_shape: str | None = None
    output_dtype: Mapping[str, str] = field(default_factory=dict)
    saved: tuple[str, ...] | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)

    @property
    def further_scale(self) -> str:
        """What the formula leaves open: the scale of further inputs hides whether the variance is biased."""
        unknown = self.centred is not None and self.variance is None
        return ", but for the scale and the shift that its further inputs give" if unknown else ""


@dataclass(frozen=True)
class Report(Renderable):
    """The outcome of one check.

    Attributes:
        target: What was checked.
        family: batch, layer, group, instance or rms; ``family_reason`` says how that was decided.
        twin: The layer of torch.nn that it is held against.
        convention: torch, keras, flax or onnx: whose definitions of momentum and running variance apply.
        identity: What the code computes.
        findings: What deviates, errors first, edge cases last.
        left_out: The same of checks that were ignored, or not selected: the verdict knows of it, the exit status not.
        selected: The codes that were selected; empty for all.
        strict: Whether warnings make the exit status 1 too.
        passed: The codes of the checks that ran and found nothing.
        skipped: The codes of the checks that do not apply, each with the reason.
        blocked: The codes of the checks that did not run, each with the code that must pass first.
        failed: The codes of the checks that could not be measured, in one mode at least, each with the reason.
        not_judged: Why the target can neither be called equivalent nor not: what could not run of the checks that
            equivalence needs. Empty where it can.
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
    blocked: Mapping[str, str] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)
    not_judged: tuple[str, ...] = ()
    seconds: float = 0.0
    source: str | None = None
    line: int | None = None
    isolation: Isolation = "none"
    left_out: tuple[Finding, ...] = ()
    selected: tuple[str, ...] = ()
    strict: bool = False

    @property
    def verdict(self) -> Verdict:
        """Whether it is equivalent to its twin, as far as it could be measured, whatever was selected or ignored."""
        if any(finding.severity == "error" for finding in (*self.findings, *self.left_out)):
            return "not equivalent"
        return "not judged" if self.not_judged else "equivalent"

    @property
    def ok(self) -> bool:
        """Whether it is equivalent to its twin: no finding is an error, and all that equivalence needs could run."""
        return self.verdict == "equivalent"

    @property
    def exit_status(self) -> int:
        """1 where something was found that counts, 2 where what counts could not be judged, else 0."""
        if self.count("error") or (self.strict and self.count("warning")):
            return 1
        if self.verdict != "not judged":
            return 0
        return 0 if self.selected and {*self.selected} <= {*self.passed, *self.codes} else 2

    @property
    def codes(self) -> tuple[str, ...]:
        """The codes of all findings."""
        return tuple(finding.code for finding in self.findings)

    def count(self, severity: Severity) -> int:
        """Count the findings of this severity."""
        return sum(finding.severity == severity for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for ``json.dumps``."""
        said = {"error": self.conclusion()} if self.verdict == "not judged" else {}
        derived = {"verdict": self.verdict, "ok": self.ok, "exit_status": self.exit_status}
        return {**dataclasses.asdict(self), **derived, **said}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "Report":
        """Make a report of plain data: the inverse of ``to_dict``."""
        kept = {name: value for name, value in plain.items() if name not in ("verdict", "ok", "exit_status", "error")}
        identity = {name: _frozen(value) for name, value in kept["identity"].items()}
        kept["identity"] = Identity(**identity)
        for name in ("findings", "left_out"):
            kept[name] = tuple(Finding(**finding) for finding in kept.get(name, ()))
        for name in ("passed", "not_judged", "selected"):
            kept[name] = tuple(kept.get(name, ()))
        return cls(**kept)

    def sections(self) -> list[Section]:
        """Return its text, in order: what the target computes, each finding, edge cases, what could not be measured."""
        sections = [Section("What it computes, as measured", _facts(self))]
        sections += [finding.section() for finding in self.findings if not finding.edge]
        edges = tuple(finding.section() for finding in self.findings if finding.edge)
        if edges:
            sections.append(Section("Edge cases, as nearly every hand-written layer has them", [], parts=edges))
        if self.failed:
            lines = [("checks", f"{', '.join(codes)}: {reason}") for reason, codes in by_reason(self.failed).items()]
            sections.append(Section("What could not be measured", lines))
        return sections

    def conclusion(self) -> str:
        """Return the last line: equivalent or not, or why that cannot be said, and how much was found."""
        counts = [_plural(self.count(severity), severity) for severity in SEVERITIES if self.count(severity)]
        found = ", ".join(counts) if counts else "no findings"
        if self.strict and self.count("warning"):
            found += ", and warnings count"
        under = "" if self.convention == "torch" else f" under {CONVENTIONS[self.convention].title}'s convention"
        relation = {
            "equivalent": f"Equivalent to {self.twin}{under}{self.identity.further_scale}: {found}.",
            "not equivalent": f"Not equivalent to {self.twin}{under}: {found}.",
            "not judged": f"Not judged: {'; '.join(self.not_judged)}. So far {found}.",
        }[self.verdict]
        ran = len({*self.passed, *self.codes, *(finding.code for finding in self.left_out)})
        codes = list(dict.fromkeys(finding.code for finding in self.left_out))
        tails = [f"{_plural(len(self.left_out), 'finding')} left out ({', '.join(codes)})"] if codes else []
        tails += [f"{ran} checks ran"]
        tails += [f"{len(self.failed)} could not be measured"] if self.failed else []
        tails += [f"{len(self.blocked)} skipped until others pass"] if self.blocked else []
        return f"{relation} {', '.join(tails)}."

    def __rich__(self) -> "RenderableType":
        from rich.console import Group
        from rich.text import Text

        parts: list[RenderableType] = [Text(self.target, style="bold")]
        for section in self.sections():
            parts += ["", section]
        return Group(*parts, "", Text(self.conclusion(), style=STYLES[self.verdict]))

    def __str__(self) -> str:
        return "\n\n".join([self.target, *map(str, self.sections()), wrapped(self.conclusion())])


def errors_first(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Sort findings by severity, edge cases last."""
    return tuple(sorted(findings, key=lambda finding: (finding.edge, SEVERITIES.index(finding.severity))))


def by_reason(reasons: Mapping[str, str]) -> dict[str, list[str]]:
    """Gather the codes that have the same reason."""
    gathered: dict[str, list[str]] = {}
    for code, reason in reasons.items():
        gathered.setdefault(reason, []).append(code)
    return gathered


def wrapped(text: str, *, first: str = "", rest: str = "") -> str:
    """Break each line of a text where it is too long, the first and the others indented."""
    lines = text.splitlines()
    indents = [first, *[rest] * (len(lines) - 1)]
    filled = [
        textwrap.fill(line, WIDTH, initial_indent=indent, subsequent_indent=rest, break_on_hyphens=False)
        for line, indent in zip(lines, indents, strict=False)
    ]
    return "\n".join(filled)


def number(value: float) -> str:
    """Write a number for people: four significant digits, no exponent where it can be avoided."""
    value = float(value) + 0.0  # no negative zero
    if not math.isfinite(value):
        return "NaN or infinity"
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.4g}"
    return f"{value:.3g}"


def interval(low: float, high: float) -> str:
    """Write the range of some numbers for people; a single number where all are equal."""
    return number(low) if low == high else f"{number(low)} … {number(high)}"


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _facts(report: Report) -> list[tuple[str, str]]:
    """The identity, one line a fact; facts that do not apply are left out."""
    identity = report.identity
    kind = {"module class": "a module", "module": "a module", "class": "a class", "object": "an object"}
    library = {"torch": "torch tensors", "numpy": "NumPy arrays", "jax": "JAX arrays"}[identity.library]
    lines = [
        ("family", f"{TITLES[report.family]}{': ' if report.family == 'other' else ', '}{report.family_reason}"),
        ("built as", f"{identity.built}, {kind.get(identity.kind, 'a function')} on {library}"),
        ("takes", f"inputs of rank {', '.join(map(str, identity.ranks))}; measured on {identity.layout}"),
        ("averages over", identity.reduces or "could not be told"),
        ("formula", _formula(identity)),
        ("running mean", _update(identity, "mean", "mean")),
        ("running variance", _running_variance(identity)),
        ("evaluation", identity.evaluation or ""),
        ("runs", f"{identity.runs}: torch's own code is measured, not the author's" if identity.runs else ""),
        ("output", _output(identity)),
        ("parameters", "; ".join(f"{name} {words}" for name, words in identity.parameters.items()) or "none"),
        ("saved", ", ".join(identity.saved) or "nothing" if identity.saved is not None else ""),
        ("run in", _ISOLATION[report.isolation]),
    ]
    known = report.family != "other"
    return [(label, text) for label, text in lines if text and (known or label not in _OF_A_FAMILY)]


_OF_A_FAMILY = {"averages over", "formula", "running mean", "running variance", "evaluation"}
_ISOLATION: dict[Isolation, str] = {
    "process": "",
    "fork": "a fork of the calling process; what importing it prints or changes was not seen",
    "none": "the calling process, on copies, with no time limit; what importing it prints or changes was not seen",
}


def _formula(identity: Identity) -> str:
    if identity.centred is None:
        return "none of (x - mean) / sqrt(var + eps)"
    eps = f"{identity.eps:g}" if identity.eps is not None else ""
    denominator = {
        "inside": f"sqrt(var + {eps})",
        "outside": f"(sqrt(var) + {eps})",
        "clamp": f"sqrt(max(var, {eps}))",
        "missing": "sqrt(var)",
    }[identity.eps_place or "missing"]
    if not identity.centred:
        return f"x / {denominator.replace('var', 'mean square')}{identity.further_scale}"
    return f"(x - mean) / {denominator}" + (identity.further_scale or f", {identity.variance} variance")


def _update(identity: Identity, statistic: Literal["mean", "var"], batch: str) -> str:
    pair = identity.update_mean if statistic == "mean" else identity.update_var
    if pair is None:
        return ""
    initial = identity.initial.get(f"running_{statistic}")
    start = f", starts at {initial}" if initial is not None else ""
    if pair[1] == 0.0:
        return f"never moves{start}"
    if identity.batch_weights == "cumulative":
        return f"the plain average of all batches: new = (n - 1) / n·old + 1 / n·{batch}{start}"
    changing = ", with other weights in each step" if identity.batch_weights == "changing" else ""
    return f"new = {pair[0]:g}·old + {pair[1]:g}·{batch}{changing}{start}"


def _running_variance(identity: Identity) -> str:
    text = _update(identity, "var", f"{identity.running_variance} variance")
    return text or ("follows no such average" if identity.update_mean else "")


def _output(identity: Identity) -> str:
    same = [dtype for dtype, out in identity.output_dtype.items() if out == dtype]
    other = [f"{dtype} in: {out}" for dtype, out in identity.output_dtype.items() if out != dtype]
    kept = f"dtype as the input ({', '.join(same)})" if same else ""
    return "; ".join(part for part in (f"shape {identity.output_shape}", kept, *other) if part)
