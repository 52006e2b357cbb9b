"""Kernels compiled before they are needed."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import normkit
from normkit.errors import UserError

pytestmark = pytest.mark.usefixtures("forgotten")


class Two(nn.Module):
    """Two inputs, a norm that needs a kernel, and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.dropout = normkit.BatchNorm2d(4), nn.Dropout()

    def forward(self, a: Tensor, b: Tensor) -> dict[str, Tensor]:
        return {"y": self.dropout(self.norm(a + b))}


X = torch.randn(4, 4, 64, 64)
LARGE = torch.randn(8, 4, 256, 256)  # evaluation takes a kernel later


def names(files: tuple[str, ...]) -> list[str]:
    return sorted({name for file in files for name in re.findall(r"^(runs_\w+)-", file)})


@pytest.mark.parametrize("inputs", [(X, X), {"b": X, "a": X}])
def test_what_a_model_needs(inputs: object) -> None:
    model = Two().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    found = normkit.warmup(model, inputs)
    assert names(found.compiled + found.loaded) == ["runs_backward", "runs_forward"]
    assert found.problem is None
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert not model.training
    assert model.norm.weight.grad is None
    again = normkit.warmup(model, inputs)
    assert (again.compiled, again.loaded) == ((), ())  # they were used before


def test_what_inference_needs() -> None:
    with torch.no_grad():
        found = normkit.warmup(normkit.BatchNorm2d(4), LARGE, training=False)
    assert names(found.compiled + found.loaded) == ["runs_forward"]


def test_a_small_input_needs_none() -> None:
    found = normkit.warmup(normkit.BatchNorm2d(4), torch.ones(1, 4, 2, 2))
    assert names(found.compiled + found.loaded) == []


def test_a_model_that_raises_is_left_as_it_was() -> None:
    model = nn.Sequential(normkit.BatchNorm1d(3), nn.Linear(3, 3)).train()
    with pytest.raises(ValueError, match="more than 1 value"):
        normkit.warmup(model, torch.ones(1, 3))
    assert model.training
    assert model[0].num_batches_tracked == 0
    assert normkit.warmup(model, torch.ones(1, 3), training=False).problem is None


def test_the_whole_of_a_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr("normkit.backends.numba.every_kernel.find_all", asked.append)
    normkit.warmup(dtypes=[torch.bfloat16, torch.float64])
    assert asked == ["bfloat16", "float64"]


@pytest.mark.parametrize(
    ("arguments", "options", "says"),
    [
        ((), {}, "a model and its input, or `dtypes`"),
        ((nn.Linear(1, 1),), {}, "expected an input for Linear"),
        ((), {"dtypes": [torch.int8]}, "no kernels for torch.int8: the kernels compute float64"),
        ((), {"dtypes": [torch.complex64]}, "no kernels for torch.complex64"),
    ],
)
def test_what_cannot_be_compiled(arguments: tuple[nn.Module, ...], options: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        normkit.warmup(*arguments, **options)


def test_the_text() -> None:
    assert str(normkit.Warmup(("a",), ("b", "c"), None)) == "warmup: 1 kernel compiled, 2 found on disk"
    assert str(normkit.Warmup((), (), "full")).endswith("not kept, so each process compiles anew: full")
    assert normkit.Warmup(("a",), (), None).to_dict() == {"compiled": ["a"], "loaded": [], "problem": None}
