"""Run every check on a target, in the order of their prerequisites."""

import inspect
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from normkit.checking.callables import name_of
from normkit.checking.errors import TargetError
from normkit.checking.identify import identify
from normkit.checking.lab import Lab
from normkit.checking.options import Options
from normkit.checking.report import SEVERITIES, Finding, Isolation, Report
from normkit.checking.resolve import resolve
from normkit.checking.rules import RULES, Rule
from normkit.checking.settle import open_lab
from normkit.checking.surroundings import Preserved

Progress = Callable[[str, Sequence[Finding]], None]


def examine(
    target: Any,
    options: Options | None = None,
    *,
    name: str | None = None,
    import_changes: tuple[str, ...] = (),
    import_output: str = "",
    isolation: Isolation = "none",
    progress: Progress = lambda stage, findings: None,
) -> Report:
    """Check ``target`` in this process.

    Args:
        target: A class, an instance or a function.
        options: What the user fixed.
        name: What to call the target in the report.
        import_changes: Global state that importing the target changed.
        import_output: What importing the target printed.
        isolation: Where this process stands, for the report.
        progress: Told what is being done and what was found so far, so that a hang or a crash can be placed.
    Raises:
        CannotRunError: the target cannot be built or called.
    """
    options = options or Options()
    started = time.perf_counter()
    with Preserved():
        torch.set_num_threads(1)  # the inputs are tiny
        progress("finding out how to build and call it", ())
        ways = resolve(target, options)
        progress("measuring what it computes", ())
        lab = open_lab(ways, options)
        lab.import_changes, lab.import_output = import_changes, import_output
        findings, passed, skipped = _run_rules(lab, progress)
        progress("describing what it computes", findings)
        identity = identify(lab)
    source, line = _where(target)
    return Report(
        target=name or name_of(target),
        family=lab.family,
        family_reason=lab.family_reason,
        twin=_twin(lab, findings),
        convention=lab.convention_name,
        identity=identity,
        findings=errors_first(findings),
        passed=tuple(passed),
        skipped=skipped,
        seconds=round(time.perf_counter() - started, 3),
        source=source,
        line=line,
        isolation=isolation,
    )


def errors_first(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """The findings by severity."""
    return tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity)))


def _run_rules(lab: Lab, progress: Progress) -> tuple[list[Finding], list[str], dict[str, str]]:
    findings: list[Finding] = []
    passed: list[str] = []
    skipped: dict[str, str] = {}
    failed: set[str] = set()
    done: set[str] = set()

    def run(code: str) -> None:
        if code in done:
            return
        done.add(code)
        rule: Rule = RULES[code]()
        for needed in rule.requires:
            run(needed)
        if lab.family not in rule.families:
            skipped[code] = f"does not apply to {lab.family} normalization"
            return
        blocking = next((needed for needed in rule.requires if needed in failed), None)
        if blocking is not None:
            failed.add(code)
            skipped[code] = f"needs {blocking} to pass"
            return
        progress(f"checking {code}", findings)
        try:
            reason = rule.not_applicable(lab)
            if reason is not None:
                skipped[code] = reason
                return
            found = list(rule.check(lab))
        except TargetError as error:
            failed.add(code)
            skipped[code] = f"could not be measured: {error}"
            return
        findings.extend(found)
        if any(finding.severity != "note" for finding in found):
            failed.add(code)
        if not found:
            passed.append(code)

    for code in RULES:
        run(code)
    return findings, passed, skipped


def _twin(lab: Lab, findings: list[Finding]) -> str:
    """The layer of torch.nn, with the arguments that take away what the target does not have."""
    codes = {finding.code for finding in findings}
    lacks = []
    if "affine-missing" in codes:
        none = "elementwise_affine=False" if lab.family in ("layer", "rms") else "affine=False"
        lacks.append(none if not lab.affine else "bias=False")
    if "running-stats-missing" in codes:
        lacks.append("track_running_stats=False")
    return f"{lab.twin}(..., {', '.join(lacks)})" if lacks else lab.twin


def _where(target: Any) -> tuple[str | None, int | None]:
    owner = target if inspect.isclass(target) or inspect.isroutine(target) else type(target)
    try:
        return inspect.getsourcefile(owner), inspect.getsourcelines(owner)[1]
    except (OSError, TypeError):
        return None, None
