"""The order of the checks."""

from graphlib import CycleError

import pytest

from normkit.checking.rules import RULES
from normkit.checking.rules.output import Prints
from normkit.checking.run import run_order


def test_every_check_runs_once_after_those_that_it_requires() -> None:
    order = run_order(RULES)
    assert sorted(order) == sorted(RULES)
    for code, rule in RULES.items():
        needed = {requirement.partition(" in ")[0] for requirement in (*rule.requires, *rule.after)}
        assert all(order.index(earlier) < order.index(code) for earlier in needed), code


def test_a_circle_of_requirements_is_refused() -> None:
    class One(Prints):
        requires = ("two",)

    class Two(Prints):
        requires = ("one",)

    with pytest.raises(CycleError):
        run_order({"one": One, "two": Two})
