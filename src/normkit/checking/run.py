"""Check a target in this process: resolve, measure, run the checks, report."""

import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from typing import Any

import torch

from normkit.checking.measure.identify import identify
from normkit.checking.measure.lab import Measurements, measure
from normkit.checking.options import Options
from normkit.checking.report import Finding, Isolation, Report, errors_first
from normkit.checking.rules import RULES, Rule
from normkit.checking.target.callables import definition_of, name_of
from normkit.checking.target.errors import TargetError
from normkit.checking.target.global_state import preserved
from normkit.checking.target.load import ImportEffects
from normkit.checking.target.resolve import resolve

Progress = Callable[[str, Sequence[Finding]], None]


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
    started = time.perf_counter()
    with preserved():
        torch.set_num_threads(1)  # the inputs are tiny
        progress("finding out how to build and call it", ())
        candidates = resolve(target, options)
        progress("measuring what it computes", ())
        probe = measure(candidates, options, import_effects or ImportEffects())
        results = _run_rules(probe, progress)
        progress("describing what it computes", results.findings)
        identity = identify(probe)
    source, line = _source_of(target)
    return Report(
        target=name or name_of(target),
        family=probe.family,
        family_reason=probe.family_reason,
        twin=_reference_layer(probe, results.findings),
        convention=probe.convention_name,
        identity=identity,
        findings=errors_first(results.findings),
        passed=tuple(results.passed),
        skipped=results.skipped,
        seconds=round(time.perf_counter() - started, 3),
        source=source,
        line=line,
        isolation=isolation,
    )


@dataclass
class _Results:
    """The outcome of the checks, by code; ``failed`` are those that others cannot build on."""

    findings: list[Finding] = field(default_factory=list)
    passed: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)


def _run_rules(probe: Measurements, progress: Progress) -> _Results:
    results = _Results()
    for code in run_order(RULES):
        rule = RULES[code]()
        blocking = next((needed for needed in rule.requires if needed in results.failed), None)
        if probe.family not in rule.families:
            results.skipped[code] = f"does not apply to {probe.family} normalization"
        elif blocking is not None:
            results.failed.add(code)
            results.skipped[code] = f"needs {blocking} to pass"
        else:
            progress(f"checking {code}", results.findings)
            _run_rule(rule, probe, results)
    return results


def _run_rule(rule: Rule, probe: Measurements, results: _Results) -> None:
    try:
        reason = rule.not_applicable(probe)
        found = [] if reason is not None else list(rule.check(probe))
    except TargetError as error:
        results.failed.add(rule.code)
        results.skipped[rule.code] = f"could not be measured: {error}"
        return
    results.findings.extend(found)
    if reason is not None:
        results.skipped[rule.code] = reason
    elif not found:
        results.passed.append(rule.code)
    elif any(finding.severity != "note" for finding in found):
        results.failed.add(rule.code)


def run_order(rules: Mapping[str, type[Rule]]) -> list[str]:
    """Order the checks: each after those that it requires, otherwise as they are listed."""
    order: dict[str, None] = {}
    for code in rules:
        graph: dict[str, tuple[str, ...]] = {}
        pending = [code]
        while pending:
            needed = pending.pop()
            if needed not in graph:
                graph[needed] = rules[needed].requires
                pending += graph[needed]
        order |= dict.fromkeys(TopologicalSorter(graph).static_order())
    return list(order)


def _reference_layer(probe: Measurements, findings: list[Finding]) -> str:
    """The layer of torch.nn, with the arguments that take away what the target does not have."""
    codes = {finding.code for finding in findings}
    lacks = []
    if "affine-missing" in codes:
        none = "elementwise_affine=False" if probe.family in ("layer", "rms") else "affine=False"
        lacks.append(none if not probe.affine else "bias=False")
    if "running-stats-missing" in codes:
        lacks.append("track_running_stats=False")
    return f"{probe.reference_layer}(..., {', '.join(lacks)})" if lacks else probe.reference_layer


def _source_of(target: Any) -> tuple[str | None, int | None]:
    definition = definition_of(target)
    try:
        return inspect.getsourcefile(definition), inspect.getsourcelines(definition)[1]
    except (OSError, TypeError):
        return None, None
