"""weight and the other tensors of a layer may be anything that an attribute can be, as in torch.nn's."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

import normkit


class Twice(nn.Module):
    def forward(self, value: Tensor) -> Tensor:
        return 2 * value


@pytest.mark.parametrize("kind", ["BatchNorm1d", "LayerNorm", "GroupNorm", "InstanceNorm1d", "RMSNorm"])
def test_parametrized_weights(kind: str) -> None:
    x = torch.randn(4, 6, 6)
    results = []
    for module in (normkit, nn):
        arguments = (2, 6) if kind == "GroupNorm" else (6,)
        layer = getattr(module, kind)(*arguments, **({"affine": True} if kind == "InstanceNorm1d" else {}))
        parametrize.register_parametrization(layer, "weight", Twice())
        results.append(layer(x))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("base", [normkit.BatchNorm1d, nn.BatchNorm1d])
def test_a_property_of_a_subclass(base: type[nn.BatchNorm1d]) -> None:
    class Shifted(base):  # type: ignore[misc, valid-type]
        """A bias that is stored less 3."""

        @property
        def bias(self) -> Tensor:
            if "bias" not in self._parameters:
                raise AttributeError("bias")
            return self._parameters["bias"] + 3.0

    layer = Shifted(6)
    layer._parameters["bias"].data.zero_()  # torch has initialized what the property gave it
    y = layer(torch.randn(5, 6))
    torch.testing.assert_close(y.mean(0), torch.full((6,), 3.0))


def test_a_weight_that_is_no_parameter_any_more() -> None:
    layer: Any = normkit.LayerNorm(6)
    del layer.weight
    layer.weight = torch.full((6,), 5.0)
    assert layer(torch.randn(3, 6)).std() > 4


def test_a_statistic_that_is_deleted_is_an_error_that_names_it() -> None:
    layer = normkit.BatchNorm1d(6)
    del layer.running_var
    with pytest.raises(AttributeError, match="running_var"):
        layer(torch.randn(3, 6))
