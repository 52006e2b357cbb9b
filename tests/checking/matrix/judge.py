"""Hold normkit's report on a generated layer against what is true of the layer."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from normkit.checking.report import Report
from normkit.checking.run import examine
from normkit.checking.target.errors import CannotRunError
from tests.checking.matrix.faults import FAULTS
from tests.checking.matrix.written import Written

EDGE_CASES = frozenset({"half-accumulation", "single-value", "empty-batch", "affine-shape", "output-dtype"})
"""Codes that a right layer may have, at any severity: what nearly every hand-written layer does at the edges.

Beside them ``Written.allowed`` names what one layer is meant to be: rank-unsupported where it is written for one rank,
and running-stats-init where it starts its statistics with the first call, both as warnings only.
"""


@dataclass(frozen=True)
class Judgement:
    """What normkit said of one layer, and what of that is right.

    Args:
        layer: The layer.
        codes: The core codes that were found, as errors or warnings.
        false: Those that are not true of it.
        named: Whether the planted fault was found, as an error.
        family: The family that was reported; empty where there was no report.
        judged: Whether the verdict says that it is equivalent, or that it is not.
        refusal: Why there was no report.
        seconds: How long the check took.
    """

    layer: Written
    codes: tuple[str, ...] = ()
    false: tuple[str, ...] = ()
    named: bool = False
    family: str = ""
    judged: bool = False
    refusal: str = ""
    seconds: float = 0.0

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with the report; empty where nothing is."""
        if self.refusal:
            return (f"refused: {self.refusal}",)
        found = [f"false {code}" for code in self.false]
        if self.family not in self.layer.families:
            found.append(f"called {self.family}")
        if self.layer.fault and not self.named:
            found.append(f"missed {self.layer.fault}")
        if not self.judged:
            found.append("not judged")
        return tuple(found)


def judge(layer: Written, check: Callable[[Any], Report] = examine) -> Judgement:
    """Check a layer in this process, and judge the report."""
    try:
        report = check(layer.load_target())
    except CannotRunError as error:
        return Judgement(layer, refusal=str(error).splitlines()[0])
    except Exception as error:  # a crash of the check itself
        return Judgement(layer, refusal=f"crash: {error!r}")
    found = {finding.code: finding.severity for finding in report.findings if finding.severity != "note"}
    core = tuple(code for code in found if code not in EDGE_CASES)
    true = {layer.fault, *FAULTS[layer.fault].implies} if layer.fault else set()
    by_design = {code for code in layer.allowed if found.get(code) == "warning"}
    return Judgement(
        layer,
        codes=core,
        false=tuple(code for code in core if code not in true | by_design),
        named=found.get(layer.fault) == "error",
        family=report.family,
        judged=report.verdict != "not judged",
        seconds=report.seconds,
    )
