"""Check a target in this process: resolve, measure, run the checks, report."""

import inspect
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from typing import Any

import torch

from normkit.checking.families import TITLES
from normkit.checking.measure.identify import identify
from normkit.checking.measure.lab import Measurements, measure
from normkit.checking.options import Options
from normkit.checking.report import MODES, Finding, Identity, Isolation, Mode, Report, by_reason, errors_first
from normkit.checking.rules import RULES, Rule
from normkit.checking.rules.base import BlockedError, UnmeasuredError
from normkit.checking.target.adapted import adapted
from normkit.checking.target.builder import attempt
from normkit.checking.target.callables import definition_of, name_of
from normkit.checking.target.errors import CannotRunError, TargetError
from normkit.checking.target.frameworks import plain
from normkit.checking.target.global_state import preserved
from normkit.checking.target.load import ImportEffects, load
from normkit.checking.target.resolve import Candidate, resolve

Progress = Callable[[str, Sequence[Finding]], None]

_FURTHER_CALLS = 20
_MOST_LISTED = 3
"""Codes that a reason names one by one."""


def examine(
    target: Any,
    options: Options | None = None,
    *,
    name: str | None = None,
    import_effects: ImportEffects | None = None,
    isolation: Isolation = "none",
    progress: Progress = lambda doing, findings: None,
) -> Report:
    """Check ``target`` in this process.

    Args:
        target: A class, an instance or a function.
        options: What the user fixed.
        name: What to call the target in the report.
        import_effects: What importing the target did, where that was seen.
        isolation: What this process is to the caller, for the report.
        progress: Told what is being done and what was found so far, so that a hang or a crash can be placed.
    Raises:
        CannotRunError: the target cannot be built or called.
    """
    options = options or Options()
    source, line = _source_of(target)
    target = plain(target) if options.adapter is None else adapted(load(options.adapter), target)
    started = time.perf_counter()
    with preserved():
        torch.set_num_threads(1)  # the inputs are tiny
        progress("finding out how to build and call it", ())
        candidates = resolve(target, options)
        with _blaming(name or name_of(target), candidates):
            progress("measuring what it computes", ())
            probe = measure(candidates, options, import_effects or ImportEffects())
            results = _run_rules(probe, progress)
            progress("describing what it computes", results.findings)
            identity = identify(probe)
            twin, convention = _reference_layer(probe, results.findings, identity), _convention_of(probe)
            not_judged = results.not_judged(probe)
    errors = any(finding.severity == "error" for finding in results.findings)
    return Report(
        target=name or name_of(target),
        family=probe.family,
        family_reason=probe.family_reason,
        twin=twin,
        convention=convention,
        identity=identity,
        findings=errors_first([finding for finding in results.findings if options.counts(finding.code)]),
        left_out=errors_first([finding for finding in results.findings if not options.counts(finding.code)]),
        selected=options.select,
        strict=options.strict,
        passed=tuple(results.passed),
        skipped=results.skipped,
        blocked=results.blocked,
        failed=results.failed,
        not_judged=() if errors else not_judged,
        seconds=round(time.perf_counter() - started, 3),
        source=source,
        line=line,
        isolation=isolation,
    )


@contextmanager
def _blaming(name: str, candidates: Sequence[Candidate]) -> Iterator[None]:
    """Tell failures of the target from ours: it ran before, and what relies on that fails where it does not any more.

    Args:
        name: What to call the target.
        candidates: The ways to call it that ran, the likeliest first.
    """
    try:
        yield
    except CannotRunError:
        raise
    except TargetError as error:
        raise CannotRunError(f"cannot measure {name}: {error}") from error
    except Exception as error:
        failure = _failure_now(candidates[0])
        if failure is None:
            raise
        raise CannotRunError(f"{name} ran in the first calls and fails in later ones: {failure}") from error


def _failure_now(candidate: Candidate) -> TargetError | None:
    """What a target raises in calls that ran before; None where they run."""
    try:
        for _ in range(_FURTHER_CALLS):
            attempt(candidate.builder, candidate.rank)
    except TargetError as error:
        return error
    return None


@dataclass
class _Results:
    """The outcome of the checks, by code, as in a report; ``unmet`` is what others cannot build on."""

    findings: list[Finding] = field(default_factory=list)
    passed: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    blocked: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    unmet: set[str] = field(default_factory=set)

    def block(self, code: str, requirement: str, modes: Collection[Mode] = MODES) -> None:
        """Note that a check did not run, in these modes, since another one did not pass."""
        self.blocked[code] = requirement
        self.lack(code, modes)

    def fail(self, code: str, reason: str, modes: Collection[Mode] = MODES) -> None:
        """Note that a check could not be measured, in these modes."""
        self.failed[code] = reason
        self.lack(code, modes)

    def lack(self, code: str, modes: Collection[Mode] = MODES) -> None:
        """Note that others cannot build on a check, in these modes."""
        self.unmet |= {f"{code} in {mode}" for mode in modes}

    def not_judged(self, probe: Measurements) -> tuple[str, ...]:
        """Say what could not run of the checks that equivalence needs, and why."""
        if probe.family == "other":
            return (f"{probe.family_reason}; no normalization of torch.nn does the same",)
        if probe.settled.open_layout:
            return (
                "it is right for inputs of shape (C, N), wrong for (N, C), and nothing in it says which is meant: give "
                "the shape of its weight, --call NAME=ones(C,1) or --call NAME=ones(C)",
            )
        judged = {*self.passed, *self.skipped, *(finding.code for finding in self.findings)} - {*self.failed}
        needed = [code for code, rule in RULES.items() if rule.core and probe.family in rule.families]
        reasons = by_reason({code: self._cause(code) for code in needed if code not in judged})
        return tuple(f"{_listed(codes)} could not be measured ({reason})" for reason, codes in reasons.items())

    def _cause(self, code: str) -> str:
        """Why a check did not run: the reason of the first one that keeps it from running."""
        while code in self.blocked and code not in self.failed:
            code = self.blocked[code].partition(" in ")[0]
        return self.failed.get(code, f"{code} must pass first")


def _run_rules(probe: Measurements, progress: Progress) -> _Results:
    results = _Results()
    for code in run_order(RULES):
        rule = RULES[code](results.unmet)
        blocking = next((needed for needed in rule.requires if not rule.met(needed)), None)
        if probe.family not in rule.families:
            results.skipped[code] = f"does not apply to {TITLES[probe.family]}"
        elif blocking is not None:
            results.block(code, blocking)
        else:
            progress(f"checking {code}", results.findings)
            _run_rule(rule, probe, results)
    return results


def _run_rule(rule: Rule, probe: Measurements, results: _Results) -> None:
    found: list[Finding] = []
    try:
        reason = rule.not_applicable(probe)
        if reason is not None:
            results.skipped[rule.code] = reason
            return
        for finding in rule.check(probe):
            found += [finding]  # what was found before an error is kept
    except (TargetError, UnmeasuredError) as error:
        results.fail(rule.code, str(error))
    except BlockedError as error:
        if not found:
            results.block(rule.code, error.requirement, error.modes)
    results.findings.extend(found)
    for finding in found:
        if finding.severity != "note":
            results.lack(rule.code, MODES if finding.mode is None else [finding.mode])
    if rule.unmeasured:
        results.fail(rule.code, next(iter(rule.unmeasured.values())), rule.unmeasured)
    if not found and rule.code not in {*results.failed, *results.blocked}:
        results.passed.append(rule.code)


def _listed(codes: Sequence[str]) -> str:
    """The first of some codes, and how many more there are."""
    return ", ".join(codes) if len(codes) <= _MOST_LISTED else f"{', '.join(codes[:2])} and {len(codes) - 2} more"


def run_order(rules: Mapping[str, type[Rule]]) -> list[str]:
    """Order the checks: each after those that it requires, otherwise as they are listed."""
    order: dict[str, None] = {}
    for code in rules:
        graph: dict[str, tuple[str, ...]] = {}
        pending = [code]
        while pending:
            needed = pending.pop()
            if needed not in graph:
                rule = rules[needed]
                graph[needed] = tuple(code.partition(" in ")[0] for code in (*rule.requires, *rule.after))
                pending += graph[needed]
        order |= dict.fromkeys(TopologicalSorter(graph).static_order())
    return list(order)


def _reference_layer(probe: Measurements, findings: list[Finding], identity: Identity) -> str:
    """The layer of torch.nn, with the arguments that take away what the target does not have."""
    codes = {finding.code for finding in findings}
    lacks = []
    if "affine-missing" in codes:
        none = "elementwise_affine=False" if probe.family in ("layer", "rms") else "affine=False"
        lacks.append(none if not probe.affine else "bias=False")
    if "running-stats-missing" in codes:
        lacks.append("track_running_stats=False")
    if identity.batch_weights == "cumulative":
        lacks.append("momentum=None")
    return f"{probe.reference_layer}(..., {', '.join(lacks)})" if lacks else probe.reference_layer


def _convention_of(probe: Measurements) -> str:
    """The convention that applies; torch's where the target fails before it can be told."""
    try:
        return probe.convention_name
    except TargetError:
        return "torch"


def _source_of(target: Any) -> tuple[str | None, int | None]:
    definition = definition_of(target)
    try:
        return inspect.getsourcefile(definition), inspect.getsourcelines(definition)[1]
    except (OSError, TypeError):
        return None, None
