"""The matrix of generated layers: it is what it says, and normkit judges it rightly."""

import inspect
import pickle
from collections import Counter, defaultdict

import pytest

from tests.checking.matrix.faults import FAULTS
from tests.checking.matrix.judge import judge
from tests.checking.matrix.plan import PLANTED, fast, faulty, right, right_in_jax
from tests.checking.matrix.truth import CHECKS, deviations
from tests.checking.matrix.written import Written

RIGHT = {layer.name: layer for layer in right()}
FAULTY = {layer.name: layer for layer in faulty()}
FAST = {layer.name for layers in fast() for layer in layers}


def slow_but_few(layers: dict[str, Written]) -> list[object]:
    """Mark as slow all but those that hold every value of every axis."""
    return [
        pytest.param(layer, id=name, marks=[] if name in FAST else pytest.mark.slow) for name, layer in layers.items()
    ]


# The matrix itself


def test_so_many_ways() -> None:
    assert sum(layer.kind == "batch" for layer in RIGHT.values()) >= 150
    assert sum(layer.kind == "layer" for layer in RIGHT.values()) >= 60
    assert Counter(layer.fault for layer in FAULTY.values()) == dict.fromkeys(FAULTS, PLANTED)


def test_each_way_is_written_once() -> None:
    assert len({layer.source for layer in RIGHT.values()}) == len(RIGHT)
    assert len({layer.source for layer in FAULTY.values()}) == len(FAULTY)


@pytest.mark.parametrize("family", ["batch", "layer"])
def test_each_value_meets_several_of_the_others(family: str) -> None:
    rows = [layer.axes for layer in RIGHT.values() if layer.kind == family]
    met: defaultdict[tuple[str, str], defaultdict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for row in rows:
        for item in row.items():
            for axis, value in row.items():
                met[item][axis].add(value)
    for item, others in met.items():
        assert sum(len(values) > 1 for values in others.values()) >= len(others) / 3, item


def test_fast_tests_hold_every_value() -> None:
    every = {item for layer in RIGHT.values() for item in layer.axes.items()}
    taken = [layer for layers in fast() for layer in layers]
    assert {item for layer in taken for item in layer.axes.items()} >= every
    assert {layer.fault for layer in taken} == {"", *FAULTS}


@pytest.mark.parametrize("layer", RIGHT.values(), ids=RIGHT)
def test_right_layer_is_right(layer: Written) -> None:
    assert deviations(layer) == set()


@pytest.mark.parametrize("layer", FAULTY.values(), ids=FAULTY)
def test_fault_shows_without_normkit(layer: Written) -> None:
    assert layer.source != RIGHT[layer.host].source
    assert CHECKS[FAULTS[layer.fault].shows](layer)


def test_code_is_found_and_pickled_as_if_from_a_file() -> None:
    layer = next(layer for layer in RIGHT.values() if layer.axes["form"] == "module")
    target = layer.load_target()
    assert inspect.getsource(target) in layer.source
    assert pickle.loads(pickle.dumps(target)) is target


# normkit on the matrix


@pytest.mark.parametrize("layer", slow_but_few(RIGHT))
def test_right_layer_is_faultless(layer: Written) -> None:
    columns = layer.axes.get("over") == "C N" and layer.axes["affine in"] in ("call", "defaults")
    undecided = ("not judged",) if columns else ()  # nothing tells (C, N) where the caller keeps the weights
    assert judge(layer).problems in ((), undecided)


@pytest.mark.parametrize("layer", slow_but_few(FAULTY))
def test_planted_fault_is_named(layer: Written) -> None:
    assert judge(layer).problems == ()


@pytest.mark.interop
@pytest.mark.parametrize(
    "layer",
    [
        pytest.param(layer, id=layer.name, marks=[] if number == 0 else pytest.mark.slow)
        for number, layer in enumerate(right_in_jax())
    ],
)
def test_right_layer_on_jax_arrays(layer: Written) -> None:
    pytest.importorskip("jax")
    assert deviations(layer) == set()
    assert judge(layer).problems == ()
