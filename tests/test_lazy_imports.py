"""`import normkit` and the command line load torch where it is used, and not before; names are found all the same."""

import subprocess
import sys
from typing import assert_type

import pytest

import normkit

HEAVY = {"torch", "numpy", "numba", "matplotlib", "sklearn"}


def loaded_by(*python: str) -> set[str]:
    """The heavy packages that a fresh process of Python has loaded at its end."""
    run = subprocess.run([sys.executable, "-X", "importtime", *python], capture_output=True, text=True, check=False)
    modules = {line.rpartition("|")[2].strip() for line in run.stderr.splitlines() if line.startswith("import time:")}
    assert "normkit" in modules, run.stderr
    return {module.partition(".")[0] for module in modules} & HEAVY


@pytest.mark.parametrize(
    "program",
    [
        "import normkit",
        "from normkit import UserError; import normkit; normkit.__version__",
        "import normkit\ntry: normkit.__wrapped__\nexcept AttributeError: pass",  # as doctest and inspect ask
        "import normkit.conventions",
    ],
)
def test_importing_loads_nothing_heavy(program: str) -> None:
    assert loaded_by("-c", program) == set()


@pytest.mark.parametrize(
    "arguments", [["--version"], ["--help"], ["train", "--help"], ["conventions"], ["bench", "times", "--nonsense"]]
)
def test_commands_that_compute_nothing_load_nothing_heavy(arguments: list[str]) -> None:
    assert loaded_by("-m", "normkit", *arguments) == set()


def test_every_name_is_found_in_a_fresh_process() -> None:
    program = """
import sys
import normkit
normkit.BatchNorm2d
assert "normkit.model" not in sys.modules  # the tools for models are for those who call them
for name in "backends bench functional layers model reference spec statistics testing train".split():
    assert getattr(normkit, name).__name__ == "normkit." + name, name
for name in normkit.__all__:
    assert getattr(normkit, name) is vars(normkit)[name], name
scope = {}
exec("from normkit import *", scope)
for package in (normkit.layers, normkit.model):
    assert set(package.__all__) <= set(normkit.__all__) == set(dir(normkit)), package
assert scope["GroupNorm"] is normkit.layers.GroupNorm
try:
    normkit.BatchNorm4d
except AttributeError as error:
    assert str(error) == "module 'normkit' has no attribute 'BatchNorm4d'", error
else:
    raise AssertionError
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_a_name_that_is_misspelt_is_an_error_at_run_time_as_for_type_checkers() -> None:
    # mypy refuses an "ignore" that ignores nothing, and tells the types that it knows
    with pytest.raises(AttributeError):
        normkit.BatchNrom2d  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(AttributeError):
        normkit.functional.batch_nrom  # type: ignore[attr-defined]  # noqa: B018
    assert_type(normkit.BatchNorm2d(3).num_features, int)
    assert_type(normkit.convert(normkit.BatchNorm2d(4), "layer").is_complete, bool)
    assert_type(normkit.testing.assert_conforms.__name__, str)
    assert_type(normkit.train.TrainConfig().epochs, int)
