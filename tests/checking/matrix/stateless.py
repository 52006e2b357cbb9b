"""Write a layer, RMS, group or instance normalization as the values of the axes say, with or without a fault."""

import re
from dataclasses import dataclass

from tests.checking.matrix.spelling import Gradient, Moments, deviation, in_place, normalize
from tests.checking.matrix.stateless_axes import OVER, Over
from tests.checking.matrix.template import CALLED, Kept, Template
from tests.checking.matrix.written import Truth

_GROUPS = 2


@dataclass(frozen=True)
class Stateless(Template):
    """One way to write a normalization without running statistics."""

    @property
    def over(self) -> Over:
        """What it averages over."""
        return OVER[self["family"]][self["over"]]

    @property
    def declared(self) -> list[str]:
        return [self["eps"]]

    @property
    def sizes(self) -> list[str]:
        return [self["size"], *self.state_arguments()]

    def further_sizes(self) -> list[str]:
        return [f"{self['groups']}={_GROUPS}"] if self["family"] == "group" else []

    def state_arguments(self) -> list[str]:
        return [self["groups"]] if self["family"] == "group" else []

    def init(self) -> list[str]:
        groups = [f"self.{self['groups']} = {self['groups']}"] if self["family"] == "group" else []
        return [*([] if self["arguments"] == "dataclass" else groups), *super().init()]

    @property
    def keeps_axes(self) -> bool:
        """Whether parameters have the rank of the input."""
        return self["parameters"] == "kept axes"

    def start(self, value: str, size: str) -> str:
        kept = self.over.kept if self.keeps_axes else None
        return self.library.full(value, kept.replace("C", size) if kept else size)

    def _named(self, code: str, x: str) -> str:
        """Put names into code on ``x``, on the weight ``W`` and on the number of groups ``G``."""
        groups = self.constant(self["groups"]) if self["groups"] else ""
        held = self.affine[0] if self["backward"] == "beside" else self.parameter(0)
        return re.sub(r"\b(x|W|G)\b", lambda found: {"x": x, "W": held, "G": groups}[found[1]], code)

    def column(self, of: str, x: str) -> str:
        """Broadcast a parameter over the input."""
        if self.keeps_axes or self.over.column is None:
            return of
        return self.library.reshape(of, self._named(self.over.column, x))

    @property
    def _wrong_axes(self) -> bool:
        return self.fault == "wrong-axes" and self["family"] != "group"

    def body(self) -> list[str]:
        mean, var = self["locals"].split("/")
        lines = [*self.wide(), *self.options()]
        x = self.x
        axes = self._named(self.over.axes, x)
        if self["family"] == "group":
            wrong = self.fault == "group-order"
            lines.append(f"grouped = {self._named(self.over.groups[wrong], x)}")
            x, axes = "grouped", self.over.wrong if wrong else self.over.axes
        if self["family"] == "rms":
            over = self._named(self.over.wrong, x) if self._wrong_axes else axes
            lines.append(f"{var} = ({x} ** 2).mean({over}, {self.library.keep})")
        else:
            lines += self._moments(mean, var, x, axes)
        if self.fault == "statistics-detached" and self.library.is_torch:
            lines.append(f"{var} = {var}.detach()")
            lines += [f"{mean} = {mean}.detach()"] if self.variant % 2 == 0 and self["family"] != "rms" else []
        std = deviation(self.library, var, self.constant(self["eps"].split("=")[0]), self["normalize"], self.fault)
        centre = "" if self["family"] == "rms" else mean
        write = in_place(x, centre, std) if self.fault == "input-mutated" else None
        lines += write or normalize(x, centre, std, self["normalize"])
        lines += [f"x_hat = x_hat.reshape({self.x}.shape)"] if self["family"] == "group" else []
        weight, *bias = (self.column(self.parameter(index), self.x) for index in range(len(self.affine)))
        return [*lines, *self.apply_affine(weight, bias[0] if bias else ""), *self.narrow()]

    def _moments(self, mean: str, var: str, x: str, axes: str) -> list[str]:
        count = f"({self.library.size(x)} // {self.library.size(mean)})"
        wrong = self._named(self.over.wrong, x)
        over = wrong if self._wrong_axes and self.variant % 2 == 0 else axes
        spelled = "" if self._wrong_axes else self.fault
        moments = Moments(self.library, self["moments"], x, over, keep=True, column="{}", count=count)
        lines = moments.lines(mean, var, spelled)
        if self._wrong_axes and self.variant % 2:
            lines.append(f"{var} = {x}.var({wrong}{self.library.biased}, {self.library.keep})")
        return lines

    def results(self) -> tuple[list[str], str]:
        mean, var = self["locals"].split("/")
        cache = f"(x_hat, {self.parameter(0)}, std)"
        return self.usual_results("std" if self["family"] == "rms" else mean, var, cache)

    @property
    def gradient(self) -> Gradient:
        held = self.affine[0] if self["backward"] == "beside" else self.parameter(0)
        axes, others = (self._named(code, "dout") for code in (self.over.axes, self.over.others))
        keep, centred = self.keeps_axes, self["family"] != "rms"
        return Gradient(axes, others, self.column(held, "dout"), keep=keep, centred=centred)

    def given_affine(self) -> list[str]:
        shaped = f".reshape({self.over.kept})" if self.keeps_axes and self.over.kept else ""
        return [f"weight{shaped}", f"bias{shaped}"]

    def kept_by_the_caller(self) -> Kept:
        return Kept(passed=tuple(self.further_sizes()) if self["form"] in CALLED else ())

    def truth(self) -> Truth:
        over, family = self.over, self.over.torch_family or self["family"]
        groups = _GROUPS if self["family"] == "group" else 1
        eps = float(self["eps"].split("=")[1])
        return Truth(family, over.order, over.shape, eps, groups=groups, trailing=over.trailing)

    def families(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((self["family"], self.truth().family)))

    def allowed(self) -> set[str]:
        return {"rank-unsupported"} if self.over.rank is not None else set()
