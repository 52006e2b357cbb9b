"""Conformance for the test suites of others."""

import pydoc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import planted_modules as modules
import pytest
import torch

from normkit.checking.options import CheckOptions
from normkit.errors import UserError
from normkit.testing import assert_conforms, parametrize_with_checks


def test_conforming() -> None:
    assert assert_conforms(modules.BatchNorm, like=torch.nn.BatchNorm2d).ok


def test_deviating() -> None:
    with pytest.raises(AssertionError, match="biased-running-var") as caught:
        assert_conforms(modules.BiasedRunningVariance, like=torch.nn.BatchNorm2d)
    assert "fix: Multiply by n / (n - 1)" in str(caught.value)


def test_expected_deviation_needs_its_reason_to_hold() -> None:
    assert_conforms(modules.BiasedRunningVariance, expected={"biased-running-var": "as in Flax"})
    with pytest.raises(AssertionError, match="remove it"):
        assert_conforms(modules.BatchNorm, expected={"biased-running-var": "as in Flax"})


def test_like_makes_conventions_binding() -> None:
    assert_conforms(modules.FlaxLike)
    with pytest.raises(AssertionError, match="momentum-inverted"):
        assert_conforms(modules.FlaxLike, like=torch.nn.BatchNorm2d)


def test_like_brings_the_ranks() -> None:
    with pytest.raises(AssertionError, match="rank-unsupported"):
        assert_conforms(modules.BatchNorm1d, like=torch.nn.BatchNorm1d)


def test_strict() -> None:
    assert_conforms(modules.NoWeight)
    with pytest.raises(AssertionError, match="affine-missing"):
        assert_conforms(modules.NoWeight, strict=True)


def test_mistakes() -> None:
    with pytest.raises(UserError, match="no check has the code 'bias'"):
        assert_conforms(modules.BatchNorm, expected={"bias": "typo"})
    with pytest.raises(UserError, match=r"such as torch\.nn\.BatchNorm2d"):
        assert_conforms(modules.BatchNorm, like=torch.nn.Linear)
    with pytest.raises(UserError, match=r"such as torch\.nn\.BatchNorm2d"):
        parametrize_with_checks([modules.BatchNorm], like=torch.nn.Linear)


def test_unknown_keyword_argument_is_refused_by_name() -> None:
    unknown: dict[str, Any] = {"feature": 8}
    with pytest.raises(TypeError, match=r"assert_conforms\(\) got an unexpected keyword argument 'feature'.* features"):
        assert_conforms(modules.BatchNorm, **unknown)


def test_help_names_every_keyword_argument() -> None:
    documented = pydoc.render_doc(assert_conforms)
    assert all(f"{name}: " in documented for name in ("like", "expected", "strict", *CheckOptions.__annotations__))


def test_keyword_arguments_reach_the_layer() -> None:
    report = assert_conforms(modules.GroupNorm, features=12, init={"num_groups": 4}, timeout=30.0, isolated=False)
    assert str(report.identity.reduces).startswith("4 groups of 3 neighbouring channels")
    assert report.isolation == "none"


def test_a_layer_of_a_file_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "layers.py"
    path.write_text("import torch\nclass Norm(torch.nn.BatchNorm2d): eps = 1\nclass Other: ...\n")
    report = assert_conforms(f"{path}:Norm", like=torch.nn.BatchNorm2d)
    assert (report.isolation, report.source, report.line) == ("process", str(path), 2)
    with pytest.raises(UserError, match="expected a class with forward or __call__"):
        assert_conforms(f"{path}:Other")


def test_a_failure_is_shown_where_the_test_calls() -> None:
    parametrized: Any = parametrize_with_checks([modules.BiasedRunningVariance])
    cases = parametrized.args[1]
    layer, check = next(case.values for case in cases if case.id.endswith("-biased-running-var"))
    for call in (lambda: assert_conforms(layer, like=torch.nn.BatchNorm2d), lambda: check(layer)):
        with pytest.raises(AssertionError, match=r"the biased variance|running variance is biased") as caught:
            call()
        assert Path(str(caught.traceback.filter(caught)[-1].path)) == Path(__file__)


@parametrize_with_checks([modules.LayerNorm, torch.nn.GroupNorm], like=None)
def test_parametrized(layer: Any, check: Callable[[Any], None]) -> None:
    check(layer)


@parametrize_with_checks([modules.Unbiased], expected={"unbiased-normalization": "planted"})
def test_parametrized_with_an_expected_failure(layer: Any, check: Callable[[Any], None]) -> None:
    check(layer)
