"""The verdict says what was measured, each mode is looked at by itself, and every independent fault is said."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import planted_articles as articles
import planted_failing as failing
import planted_modules as modules
import pytest

from normkit.checking.report import Report
from normkit.checking.rules import RULES
from normkit.checking.run import examine
from normkit.checking.target.errors import CannotRunError
from normkit.testing import assert_conforms

TRAINS_ONCE = {
    "call-fails": "error",
    "rank-unsupported": "warning",
    "running-stats-init": "error",
    "affine-init": "error",
    "eps-misplaced": "error",
}


def errors_and_warnings(report: Report) -> dict[str, str]:
    return {f.code: f.severity for f in report.findings if f.severity != "note" and not f.edge}


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (
            failing.FlattensAndFailsInEvaluation,
            {
                "call-fails": "error",
                "output-shape": "error",
                "affine-init": "error",
                "running-stats-init": "error",
                "biased-running-var": "error",
                "state-not-saved": "error",
            },
        ),
        (
            failing.UnbiasedOutsideFailsInEvaluation,
            {
                "call-fails": "error",
                "unbiased-normalization": "error",
                "eps-misplaced": "error",
                "statistics-detached": "error",
            },
        ),
        (
            failing.OverSamplesFailsInEvaluation,
            {"call-fails": "error", "wrong-axes": "error", "momentum-differs": "error"},
        ),
        (failing.RegistersNothingFailsInEvaluation, {"call-fails": "error", "parameters-not-registered": "error"}),
        (failing.TrainsOnce, TRAINS_ONCE),
        (failing.SqueezesInEvaluation, {"output-shape": "error", "eps-misplaced": "error"}),
        (failing.OverwritesInEvaluation, {"input-mutated": "error", "gradient-wrong": "error"}),
        (failing.UnusedWeightDetached, {"affine-ignored": "error", "statistics-detached": "error"}),
        (failing.PassesThroughInEvaluation, {"eval-ignores-running-stats": "error"}),
        (failing.LayerNormOfTrainingOnly, {"formula-wrong": "error"}),
        (failing.DividesByTheRunningDeviation, {"running-var-wrong": "error"}),
        (failing.KeepsNothingBeforeTheFirstBatch, {"call-fails": "warning"}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_independent_faults_are_all_said(target: Any, expected: dict[str, str]) -> None:
    assert errors_and_warnings(examine(target)) == expected


def test_dtypes_need_no_evaluation() -> None:
    assert {"call-fails", "output-dtype"} <= set(examine(failing.DoubleFailsInEvaluation).codes)


def test_what_fails_in_one_mode_is_neither_passed_nor_skipped() -> None:
    report = examine(modules.FailsInEvaluation)
    assert report.codes == ("call-fails",)
    assert report.verdict == "not equivalent"
    assert {"output-shape", "eval-ignores-running-stats", "mode-by-grad"} <= {*report.failed, *report.blocked}
    assert {"wrong-axes", "formula-wrong", "biased-running-var", "gradient-wrong"} <= set(report.passed)
    text = str(report)
    assert "What could not be measured" in text
    assert f"{len(report.failed)} could not be measured" in text.replace("\n", " ")
    assert text.count("moving_mean") == 2, "once as a finding, and once for all that it keeps from running"


def test_every_check_ends_in_exactly_one_way() -> None:
    for target in (modules.BatchNorm, modules.FailsInEvaluation, failing.TrainsOnce, failing.LayerNormOfSmallValues):
        report = examine(target)
        looked_at = {*report.codes, *report.failed}  # a fault in one mode, and the other one could not be measured
        ends = [looked_at, set(report.passed), {*report.skipped}, {*report.blocked}]
        assert set().union(*ends) == set(RULES)
        assert sum(map(len, ends)) == len(RULES)


def test_not_judged_where_the_formula_cannot_be_measured() -> None:
    report = examine(failing.LayerNormOfSmallValues)
    assert (report.verdict, report.ok) == ("not judged", False)
    (reason,) = report.not_judged
    assert reason.startswith("wrong-axes, formula-wrong and 3 more could not be measured")
    assert "values are too large" in reason
    assert str(report).rpartition("\n\n")[2].startswith("Not judged: wrong-axes,")
    assert "Equivalent" not in str(report)
    plain = json.loads(json.dumps(report.to_dict()))
    assert (plain["verdict"], plain["ok"], plain["not_judged"]) == ("not judged", False, [reason])
    assert Report.from_dict(plain) == report
    with pytest.raises(AssertionError, match="not judged: wrong-axes, formula-wrong"):
        assert_conforms(failing.LayerNormOfSmallValues, isolated=False)


def test_not_judged_where_evaluation_uses_statistics_that_were_not_found() -> None:
    report = examine(failing.HidesItsStatistics)
    assert report.verdict == "not judged"
    assert "evaluation does not use the statistics of its input" in report.not_judged[0]


def test_not_judged_where_no_evaluation_was_found() -> None:
    report = examine(articles.batch_norm_every_call_trains)
    assert report.count("error") == 0
    assert report.verdict == "not judged"
    (reason,) = report.not_judged
    assert reason.startswith("eval-ignores-running-stats could not be measured (no evaluation was found")


class Tires:
    """Runs in a number of calls, all copies of it together, and in no later one."""

    def __init__(self, calls: int) -> None:
        self.left = calls

    def __deepcopy__(self, memo: Any) -> "Tires":
        raise TypeError("it stays shared")

    def layer_norm(self) -> Callable[..., Any]:
        def layer_norm(x: Any, gamma: Any, beta: Any, eps: float = 1e-5) -> Any:
            self.left -= 1
            if self.left < 0:
                raise ValueError("no more")
            return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps) * gamma + beta

        return layer_norm


@pytest.mark.parametrize("calls", [1, 100, 162, 171, 300, 396])
def test_what_fails_in_a_later_call_is_the_failure_of_the_target(calls: int) -> None:
    said = []
    try:
        report = examine(Tires(calls).layer_norm())
        said = [str(report)] if report.verdict != "equivalent" else []
    except CannotRunError as error:
        said = [str(error)]
    assert any("ValueError: no more" in text for text in said)


@pytest.mark.parametrize("tired", [True, False])
def test_our_failure_is_the_target_s_where_the_target_fails_as_well(
    monkeypatch: pytest.MonkeyPatch, tired: bool
) -> None:
    target = Tires(1000)

    def fail(*arguments: Any) -> Any:
        target.left = 3 if tired else 1000
        raise IndexError("of ours")

    monkeypatch.setattr("normkit.checking.run.measure", fail)
    with pytest.raises(CannotRunError if tired else IndexError, match=r"fails in later ones: .*no more|of ours"):
        examine(target.layer_norm())


def test_what_is_drawn_in_the_first_call_is_no_randomness() -> None:
    assert errors_and_warnings(examine(failing.DrawsItsWeightInTheFirstCall)) == {"affine-init": "error"}


def test_training_by_hidden_statistics_is_seen_by_what_it_does() -> None:
    report = examine(failing.SmoothsByWhatItHides)
    assert errors_and_warnings(report) == {"train-uses-running-stats": "error", "running-stats-missing": "warning"}
    assert "other batches before it" in next(f.evidence for f in report.findings if f.severity == "error")


def test_equivalent_names_no_check_that_did_not_run() -> None:
    report = examine(modules.BatchNorm)
    assert (report.verdict, report.failed, report.blocked, report.not_judged) == ("equivalent", {}, {}, ())
    core = {code for code, rule in RULES.items() if rule.core}
    assert {"output-shape", "wrong-axes", "formula-wrong", "gradient-wrong", "eval-ignores-running-stats"} <= core
    assert core <= {*report.passed, *report.skipped}


def test_a_forward_function_without_a_backward_one_is_judged() -> None:
    report = examine(articles.layer_norm)
    assert report.skipped["gradient-wrong"] == "it has no backward pass"
    assert report.verdict == "equivalent"


def test_edge_cases_come_last_and_in_short() -> None:
    report = examine(modules.NoCheckForEmptyBatch, name="x")
    assert [(f.code, f.edge) for f in report.findings] == [("empty-batch", True)]
    report = examine(articles.batch_norm_every_call_trains_torch)
    edges = [finding.edge for finding in report.findings]
    assert edges == sorted(edges)
    assert {f.code for f in report.findings if f.edge} == {"single-value", "empty-batch"}
    text = str(report)
    section = text[text.index("Edge cases") :]
    assert section.splitlines()[1].startswith("  error  single-value: one value a channel")
    assert "measured" in section
    assert "how to fix" in section
    assert "why it matters" not in section
    assert report.to_dict()["findings"][-1]["edge"] is True


def test_one_value_is_an_error_only_where_it_stays() -> None:
    class Unbiased(modules.NoRunningStatistics):  # type: ignore[misc]  # of layers that are not checked
        def select(self, x: Any) -> Any:
            return x.mean(self.axes(x)), x.var(self.axes(x))

    (finding,) = [f for f in examine(Unbiased).findings if f.code == "single-value"]
    assert (finding.severity, finding.message) == ("warning", "one value a channel puts NaN or infinity in the output")


def test_each_check_stands_in_one_place() -> None:
    assert {code for code, rule in RULES.items() if rule.edge} == {
        "single-value",
        "empty-batch",
        "affine-shape",
        "output-dtype",
        "half-accumulation",
    }
    assert not [code for code, rule in RULES.items() if rule.edge and rule.core]
    labels = [label for rule in RULES.values() for label, _ in rule.documentation().lines]
    assert labels.count("shown") == 5
    assert labels.count("verdict") == sum(rule.core for rule in RULES.values())
