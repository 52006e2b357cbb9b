"""Conformance of your own normalization layer, as tests of your own suite.

One assertion for a whole layer::

    def test_my_batch_norm():
        assert_conforms(MyBatchNorm2d, like=torch.nn.BatchNorm2d)

or one test a check, in the manner of scikit-learn's estimator checks::

    @parametrize_with_checks([MyBatchNorm2d, MyLayerNorm])
    def test_my_layers(layer, check):
        check(layer)

Both run the layer's code, in another process where the platform can fork.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Unpack

from normkit.checking.options import CheckOptions, Options
from normkit.checking.process import TIMEOUT, check_anything
from normkit.checking.report import Finding, Report
from normkit.checking.rules import RULES, known_code
from normkit.checking.target.callables import name_of
from normkit.checking.target.names import family_of, ranks_of
from normkit.errors import UserError

__all__ = ["assert_conforms", "parametrize_with_checks"]


def assert_conforms(
    obj: Any,
    like: Any = None,
    expected: Mapping[str, str] | None = None,
    *,
    strict: bool = False,
    **options: "Unpack[CheckOptions]",
) -> Report:
    """Fail with the findings of ``normkit check`` unless each is expected, and fail if an expected one is gone.

    Args:
        obj: The layer: a class, an instance or a function; or a string ``path/to/file.py:Name`` or
            ``package.module:Name``.
        like: The layer of torch.nn that it must be equivalent to, which also makes torch's conventions binding; None
            takes the family from the name, and accepts the conventions of Keras and Flax.
        expected: Codes of known deviations, each with the reason why it stays.
        strict: Whether warnings fail too, not only errors.
        options: More keyword arguments, as ``normkit.check`` takes them:

            - features: Number of channels or features to build it with; None finds it out.
            - init: Arguments of its constructor, by name.
            - call: Arguments of its call, by name.
            - method: The method that is the forward pass; None takes forward or __call__, or finds it.
            - adapter: ``path/to/file.py:make``, a function that takes the layer and returns a callable of x alone.
            - timeout: Seconds after which it is stopped, 60 by default.
            - isolated: Whether to run it in another process, where the platform can fork; True by default.
    Raises:
        AssertionError: it deviates, or no longer deviates where it is expected to, or what equivalence needs could not
            be measured.
        TypeError: a keyword argument is none of these.
        UserError: it cannot be run, or ``like`` or ``expected`` name nothing known.
    """
    unknown = sorted(options.keys() - CheckOptions.__optional_keys__)
    if unknown:
        takes = ", ".join(["like", "expected", "strict", *CheckOptions.__annotations__])
        raise TypeError(f"assert_conforms() got an unexpected keyword argument {unknown[0]!r}: it takes {takes}")
    expected = _known(expected)
    __tracebackhide__ = True
    timeout, isolated = options.get("timeout", TIMEOUT), options.get("isolated", True)
    report = check_anything(obj, _options(like, options), timeout, isolated=isolated)
    unexpected = [finding for finding in _failing(report, strict=strict) if finding.code not in expected]
    seen = {*report.codes, *report.skipped, *report.blocked, *report.failed}
    gone = [code for code in expected if code not in seen]
    if unexpected or gone or report.verdict == "not judged":
        parts = [f"{f.severity} {f.code}: {f.message}\n  measured: {f.evidence}\n  fix: {f.fix}" for f in unexpected]
        parts += [f"{code} was expected ({expected[code]}) but is not found any more: remove it" for code in gone]
        parts += [f"not judged: {reason}" for reason in report.not_judged]
        raise AssertionError(f"{report.target} does not conform to {report.twin}\n" + "\n".join(parts))
    return report


def parametrize_with_checks(
    layers: Sequence[Any],
    *,
    like: Any = None,
    expected: Mapping[str, str] | None = None,
    strict: bool = False,
    isolated: bool = True,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Parametrize a test with ``layer`` and ``check``, one case for each layer and each check.

    ``check(layer)`` fails with the finding or where the layer raises in the middle of the check, skips where the check
    does not apply or another must pass first, and is an expected failure for the codes in ``expected``. A layer is
    examined once, when its first check runs.

    Args:
        layers: Classes, instances or functions; or strings, as for ``assert_conforms``.
        like: As for ``assert_conforms``.
        expected: Codes of known deviations, each with the reason why it stays.
        strict: Whether warnings fail too, not only errors.
        isolated: Whether to run each layer in another process, where the platform can fork.
    """
    import pytest

    reasons = _known(expected)
    options = _options(like, {})
    cases = []
    for position, layer in enumerate(layers):
        shared = _SharedReport(options, isolated)
        for code in RULES:
            marks = [pytest.mark.xfail(reason=reasons[code], strict=True)] if code in reasons else []
            check = _OneCheck(code, shared, strict)
            name = layer if isinstance(layer, str) else name_of(layer)
            cases.append(pytest.param(layer, check, id=f"{name}{position or ''}-{code}", marks=marks))
    return pytest.mark.parametrize(("layer", "check"), cases)


@dataclass
class _SharedReport:
    """The report that the checks of a layer share; the first of them makes it."""

    options: Options
    isolated: bool
    report: Report | None = None

    def of(self, layer: Any) -> Report:
        if self.report is None:
            self.report = check_anything(layer, self.options, isolated=self.isolated)
        return self.report


@dataclass
class _OneCheck:
    """One check of one layer."""

    code: str
    shared: _SharedReport
    strict: bool

    def __call__(self, layer: Any) -> None:
        import pytest

        __tracebackhide__ = True
        report = self.shared.of(layer)
        for finding in _failing(report, strict=self.strict):
            if finding.code == self.code:
                raise AssertionError(f"{finding.message}\nmeasured: {finding.evidence}\nfix: {finding.fix}")
        if self.code in report.failed:
            raise AssertionError(f"could not be measured: {report.failed[self.code]}")
        if self.code in report.blocked:
            pytest.skip(f"{report.blocked[self.code]} must pass first")
        if self.code in report.skipped:
            pytest.skip(report.skipped[self.code])


def _failing(report: Report, *, strict: bool) -> list[Finding]:
    severities = ("error", "warning") if strict else ("error",)
    return [finding for finding in report.findings if finding.severity in severities]


def _known(expected: Mapping[str, str] | None) -> Mapping[str, str]:
    return {known_code(code): reason for code, reason in (expected or {}).items()}


def _options(like: Any, options: CheckOptions) -> Options:
    """Add to the options what ``like`` makes binding: its family, torch's convention and its ranks."""
    chosen = Options.of(options)
    if like is None:
        return chosen
    name = like if isinstance(like, str) else name_of(like)
    family = family_of(name)
    if family is None:
        raise UserError(f"like must be a normalization of torch.nn, such as torch.nn.BatchNorm2d, but {name} was given")
    return replace(chosen, family=family, convention="torch", ranks=ranks_of(name, family) or None)
