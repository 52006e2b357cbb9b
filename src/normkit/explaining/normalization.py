"""What one normalization does with one array: which values it averages, and every number on the way."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from normkit import functional
from normkit.errors import UserError
from normkit.explaining.case import Case
from normkit.explaining.example import Array
from normkit.reference import moments, normalize
from normkit.spec import view

LARGEST: Final = 1e100

FLOAT32_EPS: Final = float(np.finfo(np.float32).eps)
"""The eps of torch's RMSNorm for float32 where none is given."""


@dataclass(frozen=True, eq=False)
class Normalization:
    """One normalization of one array, computed by ``normkit.reference``.

    Args:
        case: Which normalization of which axes.
        x: The array, float64.
        mean: The mean of each set of cells, shape (sets,); zeros where the norm subtracts none.
        var: The biased variance of each set, or the mean of squares, shape (sets,).
        weight: Gamma.
        bias: Beta; None for RMSNorm, which has none.
        eps: Added to the variance, inside the square root.
        running: Whether mean and variance are running statistics, as in evaluation.
    """

    case: Case
    x: Array
    mean: Array
    var: Array
    weight: Array
    bias: Array | None
    eps: float
    running: bool = False

    @cached_property
    def deviation(self) -> Array:
        """What is left when the mean is subtracted."""
        deviation: Array = self.x - self.mean[self.case.sets]
        return deviation

    @cached_property
    def std(self) -> Array:
        """The square root of variance and eps, one of each set."""
        std: Array = np.sqrt(self.var + self.eps)
        return std

    @cached_property
    def _result(self) -> tuple[Array, Array]:
        """Return x_hat and y."""
        x = np.ascontiguousarray(self.case.to_spec(self.x))
        norm, statistics = self.case.norm, (self.mean, self.var)
        x_hat = normalize(x, norm, eps=self.eps, statistics=statistics).y
        y = normalize(x, norm, self.weight, self.bias, self.eps, statistics).y
        return self.case.to_array(x_hat), self.case.to_array(y)

    @property
    def x_hat(self) -> Array:
        """The normalized array, before weight and bias."""
        return self._result[0]

    @property
    def y(self) -> Array:
        """The result."""
        return self._result[1]

    @cached_property
    def after(self) -> tuple[Array, Array]:
        """Mean and biased variance of the result, one of each set."""
        return statistics_of(self.case, self.y)

    @property
    def has_initial_parameters(self) -> bool:
        """Whether weight and bias are 1 and 0, as a new layer's."""
        return bool((self.weight == 1).all()) and (self.bias is None or not self.bias.any())

    @property
    def is_standardized(self) -> bool:
        """Whether y has a variance of about 1: weight and bias are 1 and 0, and eps is small beside every variance."""
        return self.has_initial_parameters and bool((self.var > 100 * self.eps).all())

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON types."""
        case, (mean_after, var_after) = self.case, self.after
        return {
            "norm": case.kind,
            "layer": case.layer,
            "axes": list(case.axes),
            "shape": list(case.shape),
            "reduced": list(case.reduced),
            "affine": list(case.weighted),
            "num_groups": case.norm.num_groups,
            "normalized_shape": list(case.norm.normalized_shape),
            "view": dict(zip("ARKS", case.view.shape, strict=True)),
            "eps": self.eps,
            "count": case.count,
            "sets": case.sets.tolist(),
            "x": self.x.tolist(),
            "mean": self.mean.tolist(),
            "var": self.var.tolist(),
            "weight": self.weight.tolist(),
            "bias": None if self.bias is None else self.bias.tolist(),
            "weight_index": case.weights.tolist(),
            "y": self.y.tolist(),
            "mean_after": mean_after.tolist(),
            "var_after": var_after.tolist(),
        }


def normalization_of(
    case: Case, x: Array, *, weight: ArrayLike | None = None, bias: ArrayLike | None = None, eps: float | None = None
) -> Normalization:
    """Normalize an array and keep every number on the way.

    Args:
        case: Which normalization of which axes.
        x: The array.
        weight: Gamma; None stands for ones.
        bias: Beta; None stands for zeros.
        eps: None: 1e-5, for RMSNorm the machine epsilon of float32.
    Raises:
        UserError: what the layer itself refuses, in its words.
    """
    if eps is None:
        eps = FLOAT32_EPS if case.kind == "rms" else 1e-5
    given_weight, given_bias = (None if given is None else _unmasked(given).astype(float) for given in (weight, bias))
    refuse_as_the_layer(case, x, (given_weight, given_bias), eps)
    if given_bias is None and case.kind != "rms":
        given_bias = np.zeros(case.weight_shape)
    mean, var = statistics_of(case, x)
    return Normalization(
        case, x, mean, var, np.ones(case.weight_shape) if given_weight is None else given_weight, given_bias, eps
    )


def statistics_of(case: Case, array: Array) -> tuple[Array, Array]:
    """Return mean and biased variance of each set of cells of an array."""
    spec = np.ascontiguousarray(case.to_spec(array))
    v = view(case.norm, spec.shape)
    mean, var = moments(spec.reshape(v.shape), subtract_mean=case.norm.subtract_mean)
    return mean.reshape(-1), var.reshape(-1)


def as_array(x: Any) -> Array:
    """Return numbers of any array library as float64.

    Raises:
        UserError: it holds no real, finite numbers, or nothing.
    """
    if hasattr(x, "detach"):
        x = x.detach().cpu()
        x = (x if x.is_complex() else x.double()).numpy()
    try:
        values = _unmasked(x)
    except (TypeError, ValueError) as error:
        raise UserError(f"expected an array of numbers; got {type(x).__name__} ({error})") from None
    if values.dtype.kind not in "biuf":
        raise UserError(f"expected an array of real numbers; got dtype {values.dtype}")
    if not values.ndim or not values.size:
        raise UserError(f"expected an array with axes and values; got shape {values.shape}")
    numbers = values.astype(np.float64)
    if not np.isfinite(numbers).all():
        raise UserError("expected finite numbers; the array holds NaN or inf, which would fill every set that it is in")
    if np.abs(numbers).max() > LARGEST:
        raise UserError(f"expected numbers up to {LARGEST:g}; the squares of larger ones overflow: scale the array")
    return numbers


def _unmasked(x: Any) -> NDArray[Any]:
    """Return an array, but no masked one."""
    if isinstance(x, np.ma.MaskedArray):
        raise UserError("expected a plain array; got a numpy.ma.MaskedArray, whose mask would be lost: fill it")
    return np.asarray(x)


def refuse_as_the_layer(case: Case, x: Array, params: Sequence[Array | None] = (None, None), eps: float = 1e-5) -> None:
    """Let the function itself compute, so that what it refuses is refused in its words.

    Raises:
        UserError: what the function says.
    """
    weight, bias = params
    norm = case.norm
    if case.kind == "rms" and bias is not None:
        raise UserError("RMS normalization has no bias: drop `bias`")
    calls: dict[str, Callable[[Array], Array]] = {
        "batch": lambda x: functional.batch_norm(x, None, None, weight, bias, training=True, eps=eps),
        "instance": lambda x: functional.instance_norm(x, None, None, weight, bias, eps=eps),
        "layer": lambda x: functional.layer_norm(x, norm.normalized_shape, weight, bias, eps),
        "rms": lambda x: functional.rms_norm(x, norm.normalized_shape, weight, eps),
        "channel": lambda x: functional.channel_norm(x, weight, bias, eps),
        "group": lambda x: functional.group_norm(x, norm.num_groups, weight, bias, eps),
    }
    try:
        calls[case.kind](np.ascontiguousarray(case.to_spec(x)))
    except (ValueError, RuntimeError) as error:
        raise UserError(str(error)) from error
