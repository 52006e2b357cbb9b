"""Moments, normalization and gradients as lines of code, each in several spellings, each with its faults."""

from dataclasses import dataclass

from tests.checking.matrix.library import Library

UNBIASED = "unbiased-normalization"
MOMENTS = ("method", "squares", "function", "sums", "one call", "std")
NORMALIZE = ("divide", "multiply", "power", "steps", "folded")


@dataclass(frozen=True)
class Moments:
    """How the mean and the variance are computed.

    Args:
        library: The library.
        spelling: One of MOMENTS.
        x: The input, as code.
        axes: The axes, as code.
        keep: Whether the reduced axes are kept.
        column: The reshape that broadcasts a statistic over the input, with ``{}`` for the statistic.
        count: The number of values a statistic, as code.
    """

    library: Library
    spelling: str
    x: str
    axes: str
    keep: bool
    column: str
    count: str

    def lines(self, mean: str, var: str, fault: str = "", variant: int = 0) -> list[str]:
        """Write the lines that assign both."""
        library, x = self.library, self.x
        keep = f", {library.keep}" if self.keep else ""
        averaged = f"{mean} = {x}.mean({self.axes}{keep})"
        if fault == "cancellation":
            difference = f"({x} * {x}).mean({self.axes}{keep}) - {mean} * {mean}"
            floor = f"({difference}).clamp_min(0)" if library.is_torch else f"{library.module}.maximum({difference}, 0)"
            return [averaged, f"{var} = {floor}"]
        lines = self._spelled(averaged, mean, var, keep, unbiased=fault == UNBIASED)
        if fault == "wrong-axes":
            return [*lines, *self._over_the_whole_tensor(mean, var, variant)]
        return lines

    def _spelled(self, averaged: str, mean: str, var: str, keep: str, *, unbiased: bool) -> list[str]:
        library, x, axes = self.library, self.x, self.axes
        count = f"({self.count} - 1)" if unbiased else self.count
        correction = library.unbiased if unbiased else library.biased
        if self.spelling == "squares" and not unbiased:
            return [averaged, f"{var} = (({x} - {self.column.format(mean)}) ** 2).mean({axes}{keep})"]
        if self.spelling in ("sums", "squares"):
            first = averaged if self.spelling == "squares" else f"{mean} = {x}.sum({axes}{keep}) / {self.count}"
            return [first, f"{var} = (({x} - {self.column.format(mean)}) ** 2).sum({axes}{keep}) / {count}"]
        if self.spelling == "function":
            word = "dim" if library.is_torch else "axis"
            if library.is_torch:
                correction = f", unbiased={unbiased}"
            module = library.module
            return [
                f"{mean} = {module}.mean({x}, {word}={axes}{keep})",
                f"{var} = {module}.var({x}, {word}={axes}{correction}{keep})",
            ]
        if self.spelling == "one call" and library.is_torch:
            return [f"{var}, {mean} = torch.var_mean({x}, dim={axes}, correction={int(unbiased)}{keep})"]
        if self.spelling == "std" and not library.is_torch:
            return [averaged, f"{var} = {x}.std({axes}{correction}{keep}) ** 2"]
        return [averaged, f"{var} = {x}.var({axes}{correction}{keep})"]

    def _over_the_whole_tensor(self, mean: str, var: str, variant: int) -> list[str]:
        library, x = self.library, self.x

        def whole(what: str, like: str) -> str:
            return f"{what}.expand_as({like})" if library.is_torch else f"{library.module}.full_like({like}, {what})"

        correction = library.biased.removeprefix(", ")
        both = (f"{mean} = {whole(f'{x}.mean()', mean)}", f"{var} = {whole(f'{x}.var({correction})', var)}")
        return list(both) if variant % 3 == 0 else [both[variant % 3 - 1]]


def deviation(library: Library, var: str, eps: str, spelling: str, fault: str) -> str:
    """Write what the centred input is divided by."""
    root = f"{var} ** 0.5" if spelling == "power" else library.sqrt(var)
    if fault == "eps-missing":
        return root
    if fault == "eps-misplaced":
        return f"({root} + {eps})"
    if fault == "formula-wrong":
        return f"({var} + {eps})"
    return f"({var} + {eps}) ** 0.5" if spelling == "power" else library.sqrt(f"{var} + {eps}")


def normalize(x: str, mean: str, std: str, spelling: str) -> list[str]:
    """Write the lines that assign ``x_hat`` and ``std``; without a mean for RMS normalization."""
    centred = f"({x} - {mean})" if mean else x
    if spelling == "multiply":
        return [f"std = {std}", f"x_hat = {centred} * (1 / std)"]
    if spelling == "steps" and mean:
        return [f"centred = {centred[1:-1]}", f"std = {std}", "x_hat = centred / std"]
    return [f"std = {std}", f"x_hat = {centred} / std"]


def in_place(x: str, mean: str, std: str) -> list[str]:
    """Write a normalization that overwrites its input."""
    centre = [f"{x} -= {mean}"] if mean else []
    return [f"std = {std}", *centre, f"{x} /= std", f"x_hat = {x}"]


@dataclass(frozen=True)
class Gradient:
    """A hand-written backward pass of a NumPy layer.

    Args:
        mean_axes: The axes of the statistics, as code.
        sum_axes: The axes that weight and bias broadcast over, as code; with ``keep`` they are kept.
        weight: The weight, broadcast over the input, as code.
        keep: Whether the parameters keep their axes.
        centred: Whether the mean is subtracted, and a bias added.
    """

    mean_axes: str
    sum_axes: str
    weight: str
    keep: bool = False
    centred: bool = True

    def lines(self, fault: str = "", variant: int = 0) -> list[str]:
        """Write the lines that assign ``dx``, ``dweight`` and ``dbias`` from ``dout``, ``x_hat`` and ``std``."""
        keep = ", keepdims=True" if self.keep else ""
        over = f"{self.mean_axes}, keepdims=True"
        wrong = variant % (3 if self.centred else 2) if fault == "gradient-wrong" else None
        g = "dout" if wrong == 0 else f"dout * {self.weight}"
        terms = ["g", f"g.mean({over})"] if self.centred else ["g"]
        terms.append(f"x_hat * (g * x_hat).mean({over})")
        if fault == "statistics-detached":
            terms = terms[:1] if variant % 2 == 0 else terms[:-1]
        sign = "-" if wrong == 1 else ""
        reduce = "mean" if wrong == 2 else "sum"
        return [
            f"g = {g}",
            f"dx = ({' - '.join(terms)}) / std",
            f"dweight = {sign}(dout * x_hat).sum({self.sum_axes}{keep})",
            *([f"dbias = dout.{reduce}({self.sum_axes}{keep})"] if self.centred else []),
        ]
